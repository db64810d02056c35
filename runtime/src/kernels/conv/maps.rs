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

/// Digits that are copied at a time; copies run over into what the next one writes.
const COPY: usize = 16;
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

/// Neighbouring pixels of a tile.
struct Run {
    /// First pixel, in the tile.
    at: usize,
    /// Pixels.
    len: usize,
    /// Where the first one's window begins in a map.
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
        let (slice, panels) = (entries.len(), count.div_ceil(COLUMNS));
        let runs = self.runs(first, count);
        // The second row of a last pair of which there is but one.
        let zeros = [D::zeroed(); TILE];
        for (i, p) in entries.enumerate() {
            for digit in 0..self.digits {
                let plane = &self.planes[digit * self.plane..];
                let mut rows = [[D::zeroed(); TILE + COPY]; 2];
                let mut deep: [&[D]; 2] = [&zeros; 2];
                let taps = self.taps[D::DEPTH * p..].iter().take(D::DEPTH);
                for ((row, whole), tap) in rows.iter_mut().zip(&mut deep).zip(taps) {
                    if let [run] = &runs[..] {
                        *whole = &plane[tap + run.from..][..TILE];
                        continue;
                    }
                    for run in &runs {
                        let from = &plane[tap + run.from..];
                        for at in (0..run.len).step_by(COPY) {
                            row[run.at + at..][..COPY].copy_from_slice(&from[at..at + COPY]);
                        }
                    }
                    *whole = &row[..TILE];
                }
                let [first, second] = deep.map(|row| row.as_chunks::<COLUMNS>().0);
                for (panel, rows) in first.iter().zip(second).enumerate().take(panels) {
                    to[(digit * panels + panel) * slice + i] = D::entries([rows.0, rows.1]);
                }
            }
        }
    }

    fn runs(&self, first: usize, count: usize) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < count {
            let (y, x) = ((first + at) / self.width, (first + at) % self.width);
            let len = (self.width - x).min(count - at);
            runs.push(Run { at, len, from: y * self.row + x });
            at += len;
        }
        runs
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
