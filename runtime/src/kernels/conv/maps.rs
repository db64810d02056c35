//! Input maps as planes of entries, gathered tile by tile.

use std::marker::PhantomData;
use std::ops::Range;

use bcc_ir::geometry::ConvShape;
use rayon::prelude::*;

use super::digits::{MOST, Split};
use super::matrix::{DEEPEST, Digit};
use super::right::rows_at;
use super::tile::{COLUMNS, Job, Pair, Tile};
use crate::element::Element;
use crate::scratch::Scratch;

/// The maps of groups of as many channels as an entry has digits, one plane for each digit: padded, the columns of a row
/// sorted by their residue modulo the horizontal stride, so that what neighbouring outputs read lies side by side.
pub struct Maps<D> {
    planes: Scratch<Pair>,
    digits: usize,
    /// Entries of all maps in one digit's plane.
    plane: usize,
    /// First entry of every row of the right matrix, for the first output pixel.
    taps: Vec<usize>,
    /// Distance between output rows.
    row: usize,
    /// Width of the output.
    width: usize,
    of: PhantomData<D>,
}

/// Neighbouring pixels of a panel, up to the next run or the panel's end.
struct Run {
    /// First pixel, in the panel.
    at: usize,
    /// Where its window begins in a map.
    from: usize,
}

impl Run {
    /// Its pixels in a map, and what follows.
    #[inline(always)]
    fn of<'a>(&self, plane: &'a [Pair], tap: usize) -> &'a [Pair; COLUMNS] {
        plane[tap + self.from..].first_chunk().expect("planes have a panel more than their maps")
    }
}

/// Writes as many as there is room for.
#[inline(always)]
fn put(to: &mut [Pair], from: &[Pair; COLUMNS]) {
    match to.first_chunk_mut() {
        Some(to) => *to = *from,
        None => put_some(to, from),
    }
}

/// The very last ones. Aside, so that the others are copies of a fixed length.
#[cold]
#[inline(never)]
fn put_some(to: &mut [Pair], from: &[Pair; COLUMNS]) {
    to.copy_from_slice(&from[..to.len()]);
}

impl<D: Digit> Maps<D> {
    /// Words of memory that the entries of `channels` maps take.
    pub fn words(split: &Split, shape: &ConvShape, channels: usize) -> usize {
        let map = rows_and_columns(shape).iter().product::<usize>() * shape.window.stride[1];
        (size_of::<Pair>() * (split.len() * channels.div_ceil(D::DEPTH) * map + COLUMNS)).div_ceil(8)
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
        let deep = channels.div_ceil(D::DEPTH);
        let plane = deep * map;
        let mut planes = Scratch::any(split.len() * plane + COLUMNS);
        let layout = Layout { split, left, width: in_w, step: step_x, across };
        // Plane by plane, of which the same maps of all digits are a task.
        let mut tasks: Vec<Vec<&mut [Pair]>> = (0..deep).map(|_| Vec::with_capacity(split.len())).collect();
        for (i, to) in planes[..split.len() * plane].chunks_exact_mut(map.max(1)).enumerate() {
            tasks[i % deep].push(to);
        }
        tasks.into_par_iter().enumerate().for_each(|(i, to)| {
            let x = x.get(i * D::DEPTH * in_h * in_w..).unwrap_or_default();
            tile.run(OneMap::<D, E> { layout, x, map: in_h * in_w, top, to, of: PhantomData });
        });
        let tap = |entry: usize| {
            let (c, ky, kx) = (entry / (kh * kw), entry / kw % kh * dilation_y, entry % kw * dilation_x);
            c * map + (ky * step_x + kx % step_x) * across + kx / step_x
        };
        Maps {
            planes,
            digits: split.len(),
            plane,
            taps: (0..deep * kh * kw).map(tap).collect(),
            row: step_y * step_x * across,
            width: shape.output().map_or(1, |[_, w]| w),
            of: PhantomData,
        }
    }

    /// As [`Right::pack`](super::right::Right::pack).
    #[inline(always)]
    pub fn pack(&self, entries: Range<usize>, first: usize, count: usize, to: &mut [[Pair; COLUMNS]]) {
        let group = D::group(entries.len()).max(1);
        let taps = |start: usize| &self.taps[start.min(self.taps.len())..(start + group).min(self.taps.len())];
        let to = to.as_flattened_mut();
        let mut start = 0;
        for runs in self.panels(first, count) {
            for taps in entries.clone().step_by(group).map(taps) {
                for digit in 0..self.digits {
                    let plane = &self.planes[digit * self.plane..];
                    // A run's copy reaches into what comes next, which is written later: copies of a fixed length need no
                    // loop, and nothing is put together in memory that is read at once.
                    if let [run] = &runs[..] {
                        let rows = to[start..].as_chunks_mut::<COLUMNS>().0;
                        rows.iter_mut().zip(taps).for_each(|(row, tap)| *row = *run.of(plane, *tap));
                    } else {
                        for (i, tap) in taps.iter().enumerate() {
                            for run in &runs {
                                put(&mut to[start + i * COLUMNS + run.at..], run.of(plane, *tap));
                            }
                        }
                    }
                    start += group * COLUMNS;
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
struct Layout<'a> {
    split: &'a Split,
    left: usize,
    width: usize,
    step: usize,
    across: usize,
}

/// All digits of the maps of an entry, with their padding.
struct OneMap<'a, D, E> {
    layout: Layout<'a>,
    /// The first one's pixels, and what follows.
    x: &'a [E],
    /// Pixels of each.
    map: usize,
    /// Rows of padding above.
    top: usize,
    /// A plane for each digit.
    to: Vec<&'a mut [Pair]>,
    of: PhantomData<D>,
}

impl<D: Digit, E: Element> Job for OneMap<'_, D, E> {
    #[inline(always)]
    fn work(mut self) {
        let Layout { split, left, width, step, across } = self.layout;
        let (start, end) = (self.top * step * across, (self.top + self.map / width) * step * across);
        for to in &mut self.to {
            if step > 1 {
                to.fill(0);
                continue;
            }
            // What is around the rows, which are written anyway.
            to[..start].fill(0);
            to[end..].fill(0);
            if across > width {
                for row in to[start..end].chunks_exact_mut(across) {
                    row[..left].fill(0);
                    row[left + width..].fill(0);
                }
            }
        }
        let mut entries = [[0; COLUMNS]; MOST];
        for y in 0..self.map / width {
            let start = (self.top + y) * step * across;
            for x in (0..width).step_by(COLUMNS) {
                let n = COLUMNS.min(width - x);
                let mut spare = [[E::ZERO; COLUMNS]; DEEPEST];
                let rows = rows_at::<D, E>(self.x, y * width + x, self.map, &mut spare);
                D::cut(split, rows, &mut entries, 1);
                for (to, entries) in self.to.iter_mut().zip(&entries) {
                    let to = &mut to[start..][..step * across];
                    if step == 1 {
                        to[left + x..][..n].copy_from_slice(&entries[..n]);
                    } else {
                        for (i, v) in entries[..n].iter().enumerate() {
                            to[(left + x + i) % step * across + (left + x + i) / step] = *v;
                        }
                    }
                }
            }
        }
    }
}
