//! The right side of the product, packed tile by tile.

use std::ops::Range;

use bcc_ir::geometry::{ConvShape, Window};

use super::digits::Split;
use super::maps::Maps;
use super::tile::{COLUMNS, Pair, Tile};

/// Output pixels of a task.
pub const TILE: usize = 4 * COLUMNS;

/// What one group of a convolution reads.
pub enum Right<'a> {
    /// Windows of several pixels, or steps: digits are made once for all taps.
    Maps(Maps),
    /// Single pixels: digits are made when they are packed.
    Pixels {
        /// The maps.
        x: &'a [u64],
        /// Pixels of each.
        map: usize,
        /// The digits.
        split: &'a Split,
    },
}

impl<'a> Right<'a> {
    /// Of `x`, `channels` maps.
    pub fn new<T: Tile>(tile: &T, split: &'a Split, shape: &ConvShape, channels: usize, x: &'a [u64]) -> Self {
        if shape.window == Window::new([1, 1]) {
            Right::Pixels { x, map: shape.input[0] * shape.input[1], split }
        } else {
            Right::Maps(Maps::new(tile, split, shape, channels, x))
        }
    }

    /// Words of memory that it takes.
    pub fn words(split: &Split, shape: &ConvShape, channels: usize) -> usize {
        if shape.window == Window::new([1, 1]) { 0 } else { Maps::words(split, shape, channels) }
    }

    /// Writes pairs `pairs` of the right matrix's rows for the output pixels `first .. first + count`, at
    /// most [`TILE`]: panel by panel of [`COLUMNS`] columns for each digit, `pairs.len()` entries each.
    /// Columns past the last pixel hold anything.
    #[inline(always)]
    pub fn pack(&self, pairs: Range<usize>, first: usize, count: usize, to: &mut [[Pair; COLUMNS]]) {
        match self {
            Right::Maps(maps) => maps.pack(pairs, first, count, to),
            Right::Pixels { x, map, split } => {
                let (slice, panels) = (pairs.len(), count.div_ceil(COLUMNS));
                for (i, p) in pairs.enumerate() {
                    let row = |r: usize| (r * map < x.len()).then(|| &x[r * map + first..][..count]);
                    let (even, odd) = (row(2 * p), row(2 * p + 1));
                    for panel in 0..panels {
                        let part = |row: Option<&[u64]>| columns(row.unwrap_or(&[]), panel * COLUMNS);
                        let (even, odd) = (part(even), part(odd));
                        for digit in 0..split.len() {
                            to[(digit * panels + panel) * slice + i] = split.pairs(digit, &even, &odd);
                        }
                    }
                }
            }
        }
    }
}

/// [`COLUMNS`] elements of a row, zeros past its end.
#[inline(always)]
fn columns(row: &[u64], from: usize) -> [u64; COLUMNS] {
    let row = row.get(from..).unwrap_or(&[]);
    match row.first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut part = [0; COLUMNS];
            part[..row.len()].copy_from_slice(row);
            part
        }
    }
}
