//! How pixels become the input of a network.
//!
//! ```ron
//! Preprocess(
//!     resize: Short(256),               // the short side; or Exact(256, 341), height and width; or Keep
//!     filter: Bilinear,                 // Bilinear, Bicubic or Nearest
//!     crop: (224, 224),                 // height and width, from the centre
//!     channels: RGB,                    // RGB, BGR or Gray
//!     scale: 0.00392156862745098,       // factor of pixels, which are 0 to 255
//!     mean: [0.485, 0.456, 0.406],      // subtracted from scaled pixels, by channel
//!     std: [0.229, 0.224, 0.225],       // divides what is left
//!     layout: NCHW,                     // NCHW or NHWC
//! )
//! ```
//!
//! Everything may be left out: by default pixels stay, unscaled, as RGB in NCHW. `mean` and `std` have one value per
//! channel, or one for all. The steps are those of torchvision on Pillow images, in this order.

use std::path::Path;

use ron::extensions::Extensions;
use serde::{Deserialize, Serialize};

use super::ImageError;
use super::decode::{LabelMap, Picture};
use super::resize::{nearest, resize};

/// Largest height and width.
const MAX_SIDE: usize = 1 << 14;

/// How pixels become the input of a network; see the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Size before cropping.
    pub resize: Resize,
    /// How pixels are interpolated.
    pub filter: Filter,
    /// Height and width of the crop, from the centre.
    pub crop: Option<(usize, usize)>,
    /// Channels and their order.
    pub channels: Channels,
    /// Factor of pixels, which are 0 to 255.
    pub scale: f64,
    /// Subtracted from scaled pixels: one value per channel, or one for all; 0 if empty.
    pub mean: Vec<f64>,
    /// Divides what is left: one value per channel, or one for all; 1 if empty.
    pub std: Vec<f64>,
    /// Order of the axes.
    pub layout: Layout,
}

/// Size before cropping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resize {
    /// As in the file.
    #[default]
    Keep,
    /// The short side; the long one keeps the proportions, rounded down.
    Short(usize),
    /// Height and width.
    Exact(usize, usize),
}

/// How pixels are interpolated. Bilinear and bicubic filters widen when shrinking, against aliasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// Linear.
    #[default]
    Bilinear,
    /// Cubic, a = -1/2.
    Bicubic,
    /// The nearest pixel.
    Nearest,
}

/// Channels and their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channels {
    /// Red, green, blue.
    #[default]
    #[serde(rename = "RGB")]
    Rgb,
    /// Blue, green, red.
    #[serde(rename = "BGR")]
    Bgr,
    /// One channel, 0.299 R + 0.587 G + 0.114 B.
    Gray,
}

/// Order of the axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Batch, channels, height, width.
    #[default]
    #[serde(rename = "NCHW")]
    Nchw,
    /// Batch, height, width, channels.
    #[serde(rename = "NHWC")]
    Nhwc,
}

impl Default for Preprocess {
    fn default() -> Self {
        Preprocess {
            resize: Resize::Keep,
            filter: Filter::Bilinear,
            crop: None,
            channels: Channels::Rgb,
            scale: 1.0,
            mean: Vec::new(),
            std: Vec::new(),
            layout: Layout::Nchw,
        }
    }
}

impl Channels {
    fn count(self) -> usize {
        if self == Channels::Gray { 1 } else { 3 }
    }
}

impl Preprocess {
    /// Reads a file and checks its values.
    ///
    /// # Errors
    /// A file that cannot be read, is no preprocessing, or holds values that cannot be used.
    pub fn load(path: &Path) -> Result<Preprocess, ImageError> {
        let text = std::fs::read_to_string(path).map_err(|source| ImageError::Io { path: path.into(), source })?;
        let bad = |reason: String| ImageError::Preprocess { path: path.into(), reason };
        let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
        let read: Preprocess = options.from_str(&text).map_err(|e| bad(e.to_string()))?;
        read.check().map_err(bad)?;
        Ok(read)
    }

    fn check(&self) -> Result<(), String> {
        let side = |what: &str, n: usize| match n {
            1..=MAX_SIDE => Ok(()),
            _ => Err(format!("{what} {n}: a side has 1 to {MAX_SIDE} pixels")),
        };
        match self.resize {
            Resize::Keep => {}
            Resize::Short(n) => side("resize", n)?,
            Resize::Exact(h, w) => side("resize", h).and_then(|()| side("resize", w))?,
        }
        if let Some((h, w)) = self.crop {
            side("crop", h).and_then(|()| side("crop", w))?;
        }
        if !self.scale.is_finite() || self.scale == 0.0 {
            return Err(format!("scale {}: a finite factor other than 0", self.scale));
        }
        let channels = self.channels.count();
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if ![0, 1, channels].contains(&values.len()) {
                return Err(format!(
                    "{name} has {} values for {channels} channels: give one or {channels}",
                    values.len()
                ));
            }
            if let Some(v) = values.iter().find(|v| !v.is_finite()) {
                return Err(format!("{name} holds {v}: finite numbers only"));
            }
        }
        if self.std.contains(&0.0) {
            return Err("std holds 0, and it divides".into());
        }
        Ok(())
    }

    /// Height and width after resizing.
    fn resized(&self, [h, w]: [usize; 2]) -> [usize; 2] {
        match self.resize {
            Resize::Keep => [h, w],
            Resize::Exact(h, w) => [h, w],
            Resize::Short(n) if h <= w => [n, n * w / h],
            Resize::Short(n) => [n * h / w, n],
        }
    }

    /// Top left corner and size of the crop in a resized image.
    fn cropped(&self, size: [usize; 2], path: &Path) -> Result<([usize; 2], [usize; 2]), ImageError> {
        let crop = self.crop.map_or(size, |(h, w)| [h, w]);
        if crop[0] > size[0] || crop[1] > size[1] {
            return Err(ImageError::Small { path: path.into(), found: size, crop });
        }
        // Half a pixel goes to the even side, as in Python's round.
        let margin = |n: usize| n / 2 + usize::from(n % 4 == 3);
        Ok(([margin(size[0] - crop[0]), margin(size[1] - crop[1])], crop))
    }

    /// The input of `shape` `[1, ...]`, row-major, that a picture becomes; `path` is for messages.
    ///
    /// # Errors
    /// A picture smaller than the crop, or another shape.
    pub fn input(&self, picture: &Picture, path: &Path, shape: &[usize]) -> Result<Vec<f32>, ImageError> {
        let size = self.resized(picture.size);
        let ([top, left], [h, w]) = self.cropped(size, path)?;
        let channels = self.channels.count();
        let found = match self.layout {
            Layout::Nchw => [1, channels, h, w],
            Layout::Nhwc => [1, h, w, channels],
        };
        if found != shape {
            return Err(ImageError::Shape { path: path.into(), found: found.to_vec(), expected: shape.to_vec() });
        }
        let resized =
            if size == picture.size { None } else { Some(resize(&picture.rgb, picture.size, size, self.filter)) };
        let pixels = resized.as_ref().unwrap_or(&picture.rgb);
        let of = |values: &[f64], c: usize, without: f64| values.get(c).or(values.first()).copied().unwrap_or(without);
        let value = |y: usize, x: usize, c: usize| {
            let p: [u8; 3] = std::array::from_fn(|i| pixels[3 * ((top + y) * size[1] + left + x) + i]);
            let pixel = match self.channels {
                Channels::Rgb => p[c],
                Channels::Bgr => p[2 - c],
                Channels::Gray => gray(p),
            };
            ((f64::from(pixel) * self.scale - of(&self.mean, c, 0.0)) / of(&self.std, c, 1.0)) as f32
        };
        let mut out = Vec::with_capacity(channels * h * w);
        let planes = if self.layout == Layout::Nchw { channels } else { 1 };
        for plane in 0..planes {
            for y in 0..h {
                for x in 0..w {
                    match self.layout {
                        Layout::Nchw => out.push(value(y, x, plane)),
                        Layout::Nhwc => out.extend((0..channels).map(|c| value(y, x, c))),
                    }
                }
            }
        }
        Ok(out)
    }

    /// The label map of the pixels that [`input`](Self::input) takes: resized to the nearest pixel, and cropped.
    ///
    /// # Errors
    /// A map smaller than the crop.
    pub fn map(&self, map: &LabelMap, path: &Path) -> Result<LabelMap, ImageError> {
        let resized = map.resized(self.resized(map.size));
        let ([top, left], [h, w]) = self.cropped(resized.size, path)?;
        let row = |y: usize| &resized.classes[(top + y) * resized.size[1] + left..][..w];
        Ok(LabelMap { size: [h, w], classes: (0..h).flat_map(row).copied().collect() })
    }
}

impl LabelMap {
    /// The map in another size, each pixel the nearest one of this map.
    pub fn resized(&self, size: [usize; 2]) -> LabelMap {
        if size == self.size || self.classes.is_empty() {
            return self.clone();
        }
        let columns = nearest(self.size[1], size[1]);
        let rows = nearest(self.size[0], size[0]);
        let classes = rows.flat_map(|y| columns.clone().map(move |x| self.classes[y * self.size[1] + x])).collect();
        LabelMap { size, classes }
    }
}

/// Luma of ITU-R 601 in 16 fraction bits, as Pillow's `convert("L")`.
fn gray([r, g, b]: [u8; 3]) -> u8 {
    ((19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(size: [usize; 2]) -> Picture {
        Picture { size, rgb: (0..3 * size[0] * size[1]).map(|i| (7 * i % 256) as u8).collect() }
    }

    #[test]
    fn channels_layout_and_numbers() {
        let p = picture([2, 3]);
        let path = Path::new("p.png");
        let plain = Preprocess::default();
        let nchw = plain.input(&p, path, &[1, 3, 2, 3]).unwrap();
        assert_eq!(nchw[..3], [0.0, 21.0, 42.0]);
        assert_eq!(nchw[6..9], [7.0, 28.0, 49.0]);
        let bgr = Preprocess { channels: Channels::Bgr, layout: Layout::Nhwc, ..plain.clone() };
        assert_eq!(bgr.input(&p, path, &[1, 2, 3, 3]).unwrap()[..6], [14.0, 7.0, 0.0, 35.0, 28.0, 21.0]);
        let gray = Preprocess { channels: Channels::Gray, ..plain.clone() };
        assert_eq!(gray.input(&p, path, &[1, 1, 2, 3]).unwrap()[0], (0.587 * 7.0 + 0.114 * 14.0f32).round());
        let normal = Preprocess { scale: 0.5, mean: vec![1.0, 2.0, 3.0], std: vec![4.0], ..plain };
        assert_eq!(normal.input(&p, path, &[1, 3, 2, 3]).unwrap()[12..14], [(7.0 - 3.0) / 4.0, (17.5 - 3.0) / 4.0]);
    }

    #[test]
    fn sizes_follow_torchvision() {
        let short = Preprocess { resize: Resize::Short(256), ..Preprocess::default() };
        assert_eq!(short.resized([375, 500]), [256, 341]);
        assert_eq!(short.resized([500, 375]), [341, 256]);
        assert_eq!(short.resized([10, 10]), [256, 256]);
        let at = |margin: usize| {
            let crop = Preprocess { crop: Some((10, 10)), ..Preprocess::default() };
            crop.cropped([10 + margin, 10], Path::new("")).unwrap().0[0]
        };
        assert_eq!([0, 1, 2, 3, 4, 5, 7].map(at), [0, 0, 1, 2, 2, 2, 4]);
    }

    #[test]
    fn maps_follow_their_images() {
        let map = LabelMap { size: [2, 4], classes: vec![0, 1, 2, 3, 4, 5, 6, 7] };
        let p = Preprocess { resize: Resize::Exact(4, 8), crop: Some((2, 4)), ..Preprocess::default() };
        let made = p.map(&map, Path::new("m.png")).unwrap();
        assert_eq!((made.size, made.classes), ([2, 4], vec![1, 1, 2, 2, 5, 5, 6, 6]));
    }

    #[test]
    fn refusals_name_the_field() {
        let of = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("p.ron");
            std::fs::write(&path, text).unwrap();
            Preprocess::load(&path).unwrap_err().to_string()
        };
        for (text, part) in [
            ("Preprocess(resize: Short(0))", "resize 0: a side has 1 to 16384"),
            ("Preprocess(crop: (224, 99999))", "crop 99999"),
            ("Preprocess(scale: 0)", "scale 0: a finite factor"),
            ("Preprocess(mean: [1, 2])", "mean has 2 values for 3 channels"),
            ("Preprocess(channels: Gray, std: [1, 2, 3])", "std has 3 values for 1 channels"),
            ("Preprocess(std: [1, 0, 1])", "std holds 0"),
            ("Preprocess(means: [1])", "means"),
            ("Preprocess(layout: CHW)", "CHW"),
        ] {
            let message = of(text);
            assert!(message.contains(part) && message.contains("p.ron"), "{part:?} is not in: {message}");
        }
    }
}
