//! Pixels from PNG and JPEG files.
//!
//! Colour profiles and orientation tags are not applied and transparency is dropped, as training pipelines do by
//! default.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Transformations};
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::ImageError;

/// Largest height and width.
const MAX_SIDE: usize = 1 << 14;

/// An image of 8-bit red, green and blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Height and width.
    pub size: [usize; 2],
    /// Row by row, three bytes per pixel.
    pub rgb: Vec<u8>,
}

/// One class per pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    /// Height and width.
    pub size: [usize; 2],
    /// Row by row.
    pub classes: Vec<i32>,
}

/// Decoded rows of a PNG.
struct Rows {
    size: [usize; 2],
    color: ColorType,
    depth: BitDepth,
    line: usize,
    bytes: Vec<u8>,
}

fn rows(bytes: &[u8], transform: Transformations) -> Result<Rows, String> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(transform);
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let size = [reader.info().height as usize, reader.info().width as usize];
    if size.iter().any(|s| *s > MAX_SIDE) {
        return Err(format!("it has {}x{} pixels, more than {MAX_SIDE} on a side", size[0], size[1]));
    }
    let len = reader.output_buffer_size().ok_or("its size does not fit memory")?;
    let mut out = vec![0; len];
    let frame = reader.next_frame(&mut out).map_err(|e| e.to_string())?;
    out.truncate(frame.buffer_size());
    Ok(Rows { size, color: frame.color_type, depth: frame.bit_depth, line: frame.line_size, bytes: out })
}

fn png(bytes: &[u8]) -> Result<Picture, String> {
    let rows = rows(bytes, Transformations::normalize_to_color8())?;
    let pixel = |p: &[u8]| match rows.color {
        ColorType::Grayscale | ColorType::GrayscaleAlpha => [p[0]; 3],
        _ => [p[0], p[1], p[2]],
    };
    let rgb = rows.bytes.chunks_exact(rows.color.samples()).flat_map(pixel).collect();
    Ok(Picture { size: rows.size, rgb })
}

fn jpeg(bytes: &[u8]) -> Result<Picture, String> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| e.to_string())?;
    match decoder.input_colorspace() {
        Some(ColorSpace::YCbCr | ColorSpace::RGB | ColorSpace::Luma) => {}
        Some(other) => return Err(format!("its colours are {other:?}, neither RGB nor grey")),
        None => return Err("its header names no colours".into()),
    }
    let rgb = decoder.decode().map_err(|e| e.to_string())?;
    let info = decoder.info().ok_or("it has no header")?;
    let size = [usize::from(info.height), usize::from(info.width)];
    if rgb.len() != 3 * size[0] * size[1] {
        return Err("its colours are not red, green and blue".into());
    }
    Ok(Picture { size, rgb })
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|source| ImageError::Io { path: path.into(), source })
}

impl Picture {
    /// Reads a PNG or JPEG file, told apart by its first bytes.
    ///
    /// # Errors
    /// A file that cannot be read or is neither.
    pub fn read(path: &Path) -> Result<Picture, ImageError> {
        let bytes = read(path)?;
        let picture = match bytes.as_slice() {
            [0x89, b'P', b'N', b'G', ..] => png(&bytes),
            [0xff, 0xd8, ..] => jpeg(&bytes),
            [] => Err("it is empty".into()),
            _ => Err("its first bytes are those of neither PNG nor JPEG".into()),
        };
        picture.map_err(|reason| ImageError::Decode { path: path.into(), reason })
    }
}

impl LabelMap {
    /// Reads a PNG file: palette indices, or grey values, of up to 16 bits.
    ///
    /// # Errors
    /// A file that cannot be read or holds colours.
    pub fn read(path: &Path) -> Result<LabelMap, ImageError> {
        let bad = |reason: String| ImageError::Map { path: path.into(), reason };
        let rows = rows(&read(path)?, Transformations::IDENTITY).map_err(bad)?;
        if !matches!(rows.color, ColorType::Indexed | ColorType::Grayscale) {
            return Err(bad("it holds colours".into()));
        }
        let width = rows.size[1];
        let bits = rows.depth as usize;
        let value = |line: &[u8], x: usize| match bits {
            16 => i32::from(u16::from_be_bytes([line[2 * x], line[2 * x + 1]])),
            8 => i32::from(line[x]),
            // Several pixels share a byte, the first one in its high bits.
            _ => i32::from(line[x * bits / 8] >> (8 - bits - x * bits % 8) & ((1 << bits) - 1)),
        };
        let classes = rows.bytes.chunks_exact(rows.line).flat_map(|l| (0..width).map(move |x| value(l, x))).collect();
        Ok(LabelMap { size: rows.size, classes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    /// A picture of 16x24 pixels, R = 10 x, G = 15 y, B = 255 - 5 (x + y), saved by Pillow with quality 90.
    #[test]
    fn jpeg_files() {
        let table = [
            ("rgb.jpg", [([3, 4], [42, 43, 221]), ([12, 20], [200, 180, 93])]),
            ("progressive.jpg", [([3, 4], [39, 45, 219]), ([12, 20], [200, 179, 96])]),
            ("gray.jpg", [([3, 4], [63, 63, 63]), ([12, 20], [176, 176, 176])]),
        ];
        for (name, at) in table {
            let picture = Picture::read(&data(name)).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((picture.size, picture.rgb.len()), ([16, 24], 3 * 16 * 24), "{name}");
            for ([y, x], want) in at {
                let have = &picture.rgb[3 * (24 * y + x)..][..3];
                // Decoders round differently, and upsample colours differently.
                assert!(
                    have.iter().zip(want).all(|(h, w)| h.abs_diff(w) <= 4),
                    "{name} at {y}, {x}: {have:?}, {want:?}"
                );
            }
        }
    }

    fn written(color: ColorType, depth: BitDepth, size: [u32; 2], palette: Option<&[u8]>, rows: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, size[1], size[0]);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if let Some(p) = palette {
            encoder.set_palette(p.to_vec());
        }
        encoder.write_header().unwrap().write_image_data(rows).unwrap();
        file
    }

    #[test]
    fn png_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.png");
        let read = |bytes: Vec<u8>| {
            std::fs::write(&path, bytes).unwrap();
            (Picture::read(&path), LabelMap::read(&path))
        };
        let (picture, map) = read(written(ColorType::Rgba, BitDepth::Eight, [1, 2], None, &[1, 2, 3, 9, 4, 5, 6, 0]));
        assert_eq!(picture.unwrap(), Picture { size: [1, 2], rgb: vec![1, 2, 3, 4, 5, 6] });
        assert!(map.unwrap_err().to_string().contains("it holds colours"));
        // The picture has the palette's colours, the map its indices; two of four bits share a byte.
        let palette = [7, 7, 7, 10, 20, 30];
        let (picture, map) = read(written(ColorType::Indexed, BitDepth::Four, [2, 3], Some(&palette), &[1, 16, 17, 0]));
        assert_eq!(picture.unwrap().rgb[..6], [7, 7, 7, 10, 20, 30]);
        assert_eq!(map.unwrap(), LabelMap { size: [2, 3], classes: vec![0, 1, 1, 1, 1, 0] });
        let (picture, map) = read(written(ColorType::Grayscale, BitDepth::Sixteen, [1, 2], None, &[1, 2, 255, 255]));
        assert_eq!(picture.unwrap().rgb[3..], [255; 3]);
        assert_eq!(map.unwrap().classes, [258, 65535]);
        let (_, map) = read(written(ColorType::Grayscale, BitDepth::One, [1, 9], None, &[0b1010_0001, 0b1000_0000]));
        assert_eq!(map.unwrap().classes, [1, 0, 1, 0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn other_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.png");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Picture::read(&path).unwrap_err().to_string()
        };
        assert!(refused(b"").contains("it is empty"));
        assert!(refused(b"GIF89a").contains("neither PNG nor JPEG"));
        let whole = written(ColorType::Rgb, BitDepth::Eight, [4, 4], None, &[9; 48]);
        assert!(refused(&whole[..50]).contains("p.png is no image"));
        assert!(refused(&whole[..20]).contains("p.png is no image"));
        let jpeg = std::fs::read(data("rgb.jpg")).unwrap();
        assert!(refused(&jpeg[..100]).contains("p.png is no image"));
        let cmyk = refused(&std::fs::read(data("cmyk.jpg")).unwrap());
        assert!(cmyk.contains("its colours are CMYK"), "{cmyk}");
        let mut wide = whole;
        wide[16..20].copy_from_slice(&100_000u32.to_be_bytes());
        assert!(refused(&wide).contains("p.png is no image"));
    }
}
