//! Input maps as planes of digits, gathered tile by tile.

use std::ops::Range;

use bcc_ir::geometry::ConvShape;
use rayon::prelude::*;

use super::digits::Split;
use super::matrix::Digit;
use super::right::TILE;
use super::tile::{COLUMNS, Job, Pair, Tile};
use crate::element::Element;
use crate::scratch::Scratch;

/// The maps of some channels, one plane for each digit: padded, the columns of a row sorted by their
/// residue modulo the horizontal stride, so that what neighbouring outputs read lies side by side.
pub struct Maps<D> {
    planes: Scratch<D>,
    digits: usize,
    /// Elements of all maps in one digit's plane.
    plane: usize,
    /// First element of every row of the right matrix, for the first output pixel.
    taps: Vec<usize>,
    /// Distance between output rows.
    row: usize,
    /// Width of the output.
    width: usize,
}

/// Neighbouring pixels of a panel, up to the next run or the panel's end.
struct Run {
    /// First pixel, in the panel.
    at: usize,
    /// Where its window begins in a map.
    from: usize,
}

impl<D: Digit> Maps<D> {
    /// Words of memory that the digits of `channels` maps take.
    pub fn words(split: &Split, shape: &ConvShape, channels: usize) -> usize {
        let map = rows_and_columns(shape).iter().product::<usize>() * shape.window.stride[1];
        (size_of::<D>() * (split.len() * channels * map + TILE)).div_ceil(8)
    }

    /// Digits of `x`, `channels` maps that one group of `shape` reads.
    pub fn new<T: Tile, E: Element>(tile: &T, split: &Split, shape: &ConvShape, channels: usize, x: &[E]) -> Self {
        let [in_h, in_w] = shape.input;
        let [top, left, ..] = shape.window.pad;
        let [step_y, step_x] = shape.window.stride;
        let [kh, kw] = shape.window.kernel;
        let [dilation_y, dilation_x] = shape.window.dilation;
        let [height, across] = rows_and_columns(shape);
        let map = height * step_x * across;
        let plane = channels * map;
        let mut planes = Scratch::any(split.len() * plane + TILE);
        let columns = Columns { split, left, width: in_w, step: step_x, across };
        planes[..split.len() * plane].par_chunks_exact_mut(map.max(1)).enumerate().for_each(|(i, to)| {
            let x = &x[i % channels * in_h * in_w..][..in_h * in_w];
            tile.run(OneMap { columns, digit: i / channels, x, top, to });
        });
        let tap = |depth: usize| {
            let (c, ky, kx) = (depth / (kh * kw), depth / kw % kh * dilation_y, depth % kw * dilation_x);
            c * map + (ky * step_x + kx % step_x) * across + kx / step_x
        };
        Maps {
            planes,
            digits: split.len(),
            plane,
            taps: (0..channels * kh * kw).map(tap).collect(),
            row: step_y * step_x * across,
            width: shape.output().map_or(1, |[_, w]| w),
        }
    }

    /// As [`Right::pack`](super::right::Right::pack).
    #[inline(always)]
    pub fn pack(&self, entries: Range<usize>, first: usize, count: usize, to: &mut [[Pair; COLUMNS]]) {
        let (slice, panels) = (entries.len(), self.panels(first, count));
        // The second row of a last pair of which there is but one.
        let zeros = [D::zeroed(); COLUMNS];
        let mut rows = [[D::zeroed(); 2 * COLUMNS]; 2];
        for (i, p) in entries.enumerate() {
            let taps = &self.taps[D::DEPTH * p..];
            let taps = [taps.first(), taps.get(1).filter(|_| D::DEPTH > 1)];
            for digit in 0..self.digits {
                let plane = &self.planes[digit * self.plane..];
                for (panel, runs) in panels.iter().enumerate() {
                    let mut deep = [&zeros; 2];
                    for ((row, part), tap) in rows.iter_mut().zip(&mut deep).zip(taps) {
                        let Some(tap) = tap else { continue };
                        let from = |run: &Run| -> &[D; COLUMNS] {
                            plane[tap + run.from..].first_chunk().expect("planes have a tile more than their maps")
                        };
                        *part = if let [run] = &runs[..] {
                            from(run)
                        } else {
                            runs.iter().for_each(|run| row[run.at..][..COLUMNS].copy_from_slice(from(run)));
                            row.first_chunk().expect("a row has two panels")
                        };
                    }
                    to[(digit * panels.len() + panel) * slice + i] = D::entries(deep);
                }
            }
        }
    }

    /// The runs of every panel of [`COLUMNS`] pixels from `first` on.
    fn panels(&self, first: usize, count: usize) -> Vec<Vec<Run>> {
        let panel = |start: usize| {
            let (mut runs, mut at, len) = (Vec::new(), 0, COLUMNS.min(count - start));
            while at < len {
                let (y, x) = ((first + start + at) / self.width, (first + start + at) % self.width);
                runs.push(Run { at, from: y * self.row + x });
                at += self.width - x;
            }
            runs
        };
        (0..count).step_by(COLUMNS).map(panel).collect()
    }
}

/// Rows of a padded map, and its columns that have the same residue modulo the stride.
fn rows_and_columns(shape: &ConvShape) -> [usize; 2] {
    let [top, left, bottom, right] = shape.window.pad;
    [top + shape.input[0] + bottom, (left + shape.input[1] + right).div_ceil(shape.window.stride[1])]
}

/// How the rows of a map are laid out.
#[derive(Clone, Copy)]
struct Columns<'a> {
    split: &'a Split,
    left: usize,
    width: usize,
    step: usize,
    across: usize,
}

/// A digit of one map, with its padding.
struct OneMap<'a, D, E> {
    columns: Columns<'a>,
    digit: usize,
    x: &'a [E],
    /// Rows of padding above.
    top: usize,
    to: &'a mut [D],
}

impl<D: Digit, E: Element> Job for OneMap<'_, D, E> {
    #[inline(always)]
    fn work(self) {
        let Columns { split, left, width, step, across } = self.columns;
        let mut digits = Scratch::<D>::any(width);
        if self.to.len() > self.x.len() {
            self.to.fill(D::zeroed());
        }
        for (x, to) in self.x.chunks_exact(width).zip(self.to.chunks_exact_mut(step * across).skip(self.top)) {
            if step == 1 {
                D::write(split, self.digit, x, &mut to[left..left + width]);
            } else {
                D::write(split, self.digit, x, &mut digits);
                for (i, v) in digits.iter().enumerate() {
                    to[(left + i) % step * across + (left + i) / step] = *v;
                }
            }
        }
    }
}
