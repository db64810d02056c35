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
