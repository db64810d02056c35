//! The right side of the product, packed tile by tile.

use std::ops::Range;

use bcc_ir::geometry::{ConvShape, Window};

use super::digits::Split;
use super::maps::Maps;
use super::matrix::{DEEPEST, Digit, MOST_BLOCKS};
use super::tile::{COLUMNS, Pair, Tile, prefetch};
use crate::element::Element;
use crate::scratch::Scratch;

/// Entries ahead of which the maps of single pixels are fetched.
const AHEAD: usize = 8;

/// What one group of a convolution reads.
pub enum Right<'a, D, E> {
    /// Windows of several pixels: digits are made once for all taps.
    Maps(Maps<D>),
    /// Single pixels: digits are made when they are packed.
    Pixels {
        /// The maps.
        x: Pixels<'a, E>,
        /// Pixels of each.
        map: usize,
        /// The digits.
        split: &'a Split,
    },
}

/// Maps as they are, or every few pixels of them.
pub enum Pixels<'a, E> {
    All(&'a [E]),
    Some(Scratch<E>),
}

impl<E: Element> Pixels<'_, E> {
    fn all(&self) -> &[E] {
        match self {
            Pixels::All(x) => x,
            Pixels::Some(x) => x,
        }
    }
}

/// Whether a window is of a single pixel.
pub fn single(window: &Window) -> bool {
    let stepping = Window { stride: window.stride, dilation: window.dilation, ..Window::new([1, 1]) };
    *window == stepping
}

/// The pixels that windows of one pixel with steps are on.
fn sampled<E: Element>(shape: &ConvShape, channels: usize, x: &[E]) -> Scratch<E> {
    let [height, width] = shape.output().unwrap_or_default();
    let [in_h, in_w] = shape.input;
    let [step_y, step_x] = shape.window.stride;
    let mut out = Scratch::any(channels * height * width);
    let maps = x.chunks_exact(in_h * in_w).zip(out.chunks_exact_mut((height * width).max(1)));
    for (map, out) in maps {
        let rows = map.chunks_exact(in_w).step_by(step_y).zip(out.chunks_exact_mut(width));
        rows.for_each(|(row, out)| out.iter_mut().zip(row.iter().step_by(step_x)).for_each(|(y, x)| *y = *x));
    }
    out
}

impl<'a, D: Digit, E: Element> Right<'a, D, E> {
    /// Of `x`, `channels` maps.
    pub fn new<T: Tile>(tile: &T, split: &'a Split, shape: &ConvShape, channels: usize, x: &'a [E]) -> Self {
        if shape.window.stride == [1, 1] && single(&shape.window) {
            Right::Pixels { x: Pixels::All(x), map: shape.input[0] * shape.input[1], split }
        } else if single(&shape.window) {
            let map = shape.output().map_or(0, |[h, w]| h * w);
            Right::Pixels { x: Pixels::Some(sampled(shape, channels, x)), map, split }
        } else {
            Right::Maps(Maps::new(tile, split, shape, channels, x))
        }
    }

    /// Words of memory that it takes.
    pub fn words(split: &Split, shape: &ConvShape, channels: usize) -> usize {
        match shape.output() {
            _ if !single(&shape.window) => Maps::<D>::words(split, shape, channels),
            Some([h, w]) if shape.window.stride != [1, 1] => (channels * h * w * size_of::<E>()).div_ceil(8),
            _ => 0,
        }
    }

    /// Writes entries `entries` of the right matrix's columns for the output pixels `first .. first + count`:
    /// panel by panel of [`COLUMNS`] columns, as [`Operands`](super::matrix::Operands) have them.
    /// There are at most [`MOST_BLOCKS`] panels. Columns past the last pixel and entries past the last one hold anything.
    #[inline(always)]
    pub fn pack(&self, entries: Range<usize>, first: usize, count: usize, to: &mut [[Pair; COLUMNS]]) {
        match self {
            Right::Maps(maps) => maps.pack(entries, first, count, to),
            Right::Pixels { x, map, split } => {
                let (slice, whole) = (entries.len(), count / COLUMNS);
                let (group, digits) = (D::group(slice), split.len());
                let (x, zeros) = (x.all(), [[E::ZERO; COLUMNS]; MOST_BLOCKS]);
                for (i, p) in entries.enumerate() {
                    let row = |r: usize| if r * map < x.len() { &x[r * map + first..][..count] } else { &[] };
                    // Every row is in another page, where processors do not look ahead by themselves.
                    for r in 0..D::DEPTH {
                        prefetch(row(D::DEPTH * (p + AHEAD) + r));
                    }
                    let mut rows = [&zeros[..whole]; DEEPEST];
                    for (r, to) in rows.iter_mut().enumerate().take(D::DEPTH) {
                        let row = row(D::DEPTH * p + r);
                        if !row.is_empty() {
                            *to = row.as_chunks().0;
                        }
                    }
                    for panel in 0..whole {
                        let to = &mut to[block_at(group, digits, panel * slice, i)..];
                        D::cut(split, rows.map(|row| &row[panel]), to, group);
                    }
                    if whole * COLUMNS < count {
                        let mut spare = [[E::ZERO; COLUMNS]; DEEPEST];
                        let from = D::DEPTH * p * map + first + whole * COLUMNS;
                        let rows = rows_at::<D, E>(x, from, *map, &mut spare);
                        let to = &mut to[block_at(group, digits, whole * slice, i)..];
                        D::cut(split, rows, to, group);
                    }
                }
            }
        }
    }
}

/// Where the first digit's entry `i` of a panel is, before which there are entries `before` of others; groups of
/// `group` entries have one digit after the other.
#[inline(always)]
pub fn block_at(group: usize, digits: usize, before: usize, i: usize) -> usize {
    (before + i / group * group) * digits + i % group
}

/// [`COLUMNS`] elements of each row of an entry, the first ones from `from` on, the others `step` behind each other. `spare`
/// is zeros; it holds what there is no room for, and rows that the entry has not.
#[inline(always)]
pub fn rows_at<'a, D: Digit, E: Element>(
    x: &'a [E],
    from: usize,
    step: usize,
    spare: &'a mut [[E; COLUMNS]; DEEPEST],
) -> [&'a [E; COLUMNS]; DEEPEST] {
    let [a, b, c, d] = spare;
    [
        columns(x, from, a),
        if D::DEPTH > 1 { columns(x, from + step, b) } else { b },
        if D::DEPTH > 2 { columns(x, from + 2 * step, c) } else { c },
        if D::DEPTH > 3 { columns(x, from + 3 * step, d) } else { d },
    ]
}

/// [`COLUMNS`] elements from one on; where there are not so many, `spare` holds zeros behind them.
#[inline(always)]
fn columns<'a, E: Element>(x: &'a [E], from: usize, spare: &'a mut [E; COLUMNS]) -> &'a [E; COLUMNS] {
    if let Some(whole) = x.get(from..).and_then(|rest| rest.first_chunk()) {
        return whole;
    }
    last(x, from, spare);
    spare
}

/// The last ones, fewer than [`COLUMNS`]. Aside, as it is rare and what follows is compiled for vectors alone.
#[cold]
#[inline(never)]
fn last<E: Element>(x: &[E], from: usize, spare: &mut [E; COLUMNS]) {
    let rest = x.get(from..).unwrap_or_default();
    spare[..rest.len()].copy_from_slice(rest);
    spare[rest.len()..].fill(E::ZERO);
}
