//! Convolution as a blocked matrix product whose right side is gathered tile by tile.
//!
//! Weights are the left matrix, `out_group x depth` with `depth` one row per input channel and
//! tap; the right matrix, `depth x pixels`, exists only as panels of one tile of output pixels and
//! one slice of the depth. Tiles are independent tasks.

use std::marker::PhantomData;
use std::ops::Range;

use bcc_ir::geometry::{ConvShape, Window};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::buffer::mask;

/// Rows of the product that one tile kernel call makes.
pub const ROWS: usize = 8;
/// Columns of the product that one tile kernel call makes.
pub const COLUMNS: usize = 16;
/// Depth of a slice: a panel of columns and one of rows stay in the first-level cache.
const DEPTH: usize = 128;
/// Output pixels of a task.
const TILE: usize = 4 * COLUMNS;

/// The inner kernel of a matrix product.
pub trait Tile: Send + Sync {
    /// Name of the kernel set.
    fn name(&self) -> &'static str;

    /// `sums[r][c] += sum over i of left[i][r] * right[i][c]`, modulo `2^64`; `left` and `right`
    /// are of equal length.
    fn multiply(&self, left: &[[u64; ROWS]], right: &[[u64; COLUMNS]], sums: &mut [[u64; COLUMNS]; ROWS]);

    /// `sum of a[i] * b[i]`, modulo `2^64`.
    fn dot(&self, a: &[u64], b: &[u64]) -> u64 {
        a.iter().zip(b).fold(0, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)))
    }
}

/// Convolution on a tile kernel.
pub fn conv<T: Tile>(tile: &T, bits: u8, shape: &ConvShape, x: &[u64], w: &[u64], out: &mut [u64]) {
    if shape.output().is_none() {
        return;
    }
    let out_group = shape.out_channels / shape.groups;
    let pixel = Window { stride: shape.window.stride, ..Window::new([1, 1]) };
    if out_group < ROWS / 2 {
        direct(shape, x, w, out);
    } else if shape.input == [1, 1] && shape.window == pixel {
        dense(tile, shape, x, w, out);
    } else {
        product(tile, shape, x, w, out);
    }
    let m = mask(bits);
    if m != u64::MAX {
        out.iter_mut().for_each(|y| *y &= m);
    }
}

/// One dot product per output: maps of one pixel.
fn dense<T: Tile>(tile: &T, shape: &ConvShape, x: &[u64], w: &[u64], out: &mut [u64]) {
    let in_group = shape.in_channels / shape.groups;
    let out_group = shape.out_channels / shape.groups;
    out.par_iter_mut().with_min_len(32).enumerate().for_each(|(o, y)| {
        let first = o / out_group * in_group;
        *y = tile.dot(&w[o * in_group..][..in_group], &x[first..first + in_group]);
    });
}

/// Row by row and tap by tap: few output channels in a group, depthwise ones above all.
fn direct(shape: &ConvShape, x: &[u64], w: &[u64], out: &mut [u64]) {
    let Some([height, width]) = shape.output() else { return };
    let [in_h, in_w] = shape.input;
    let [kh, kw] = shape.window.kernel;
    let (in_group, out_group) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    out.par_chunks_exact_mut(height * width).enumerate().for_each(|(o, out)| {
        let first = o / out_group * in_group;
        for (c, map) in x[first * in_h * in_w..].chunks_exact(in_h * in_w).take(in_group).enumerate() {
            let taps = &w[(o * in_group + c) * kh * kw..][..kh * kw];
            for (oy, row) in out.chunks_exact_mut(width).enumerate() {
                for ky in 0..kh {
                    let Some(iy) = inside(shape.window.position(0, oy, ky), in_h) else { continue };
                    for kx in 0..kw {
                        let (range, from) = columns(shape, kx, width);
                        if !range.is_empty() {
                            add_scaled(
                                taps[ky * kw + kx],
                                &map[iy * in_w + from..(iy + 1) * in_w],
                                shape.window.stride[1],
                                &mut row[range],
                            );
                        }
                    }
                }
            }
        }
    });
}

fn add_scaled(factor: u64, from: &[u64], step: usize, to: &mut [u64]) {
    if step == 1 {
        for (y, x) in to.iter_mut().zip(from) {
            *y = y.wrapping_add(factor.wrapping_mul(*x));
        }
    } else {
        for (y, x) in to.iter_mut().zip(from.iter().step_by(step)) {
            *y = y.wrapping_add(factor.wrapping_mul(*x));
        }
    }
}

fn inside(position: isize, size: usize) -> Option<usize> {
    usize::try_from(position).ok().filter(|p| *p < size)
}

/// Outputs of a row whose tap `kx` is not in the padding, and the first one's input column.
fn columns(shape: &ConvShape, kx: usize, width: usize) -> (Range<usize>, usize) {
    let step = shape.window.stride[1];
    let offset = shape.window.position(1, 0, kx);
    let first = if offset < 0 { offset.unsigned_abs().div_ceil(step) } else { 0 };
    let room = shape.input[1] as isize - offset;
    let end = if room <= 0 { 0 } else { ((room as usize - 1) / step + 1).min(width) };
    if first >= end {
        return (0..0, 0);
    }
    (first..end, (first as isize * step as isize + offset) as usize)
}

/// Left matrix of a group in panels of [`ROWS`] rows, padded with zeros.
fn pack_left(w: &[u64], rows: usize, depth: usize) -> Zeroizing<Vec<[u64; ROWS]>> {
    let mut left = Zeroizing::new(vec![[0; ROWS]; rows.div_ceil(ROWS) * depth]);
    left.par_chunks_exact_mut(depth).enumerate().for_each(|(panel, out)| {
        for r in 0..ROWS.min(rows - panel * ROWS) {
            let row = &w[(panel * ROWS + r) * depth..][..depth];
            for (y, v) in out.iter_mut().zip(row) {
                y[r] = *v;
            }
        }
    });
    left
}

/// Rows `depths` of the right matrix for the output pixels `pixels`, in panels of [`COLUMNS`]
/// columns, zeros past the end. `x` starts at the group's first channel.
fn pack_right(
    shape: &ConvShape,
    width: usize,
    x: &[u64],
    depths: Range<usize>,
    pixels: Range<usize>,
    right: &mut [[u64; COLUMNS]],
) {
    let [in_h, in_w] = shape.input;
    let [kh, kw] = shape.window.kernel;
    let step = shape.window.stride[1];
    let slice = depths.len();
    let mut row = [0u64; TILE];
    for (i, depth) in depths.enumerate() {
        let (c, ky, kx) = (depth / (kh * kw), depth / kw % kh, depth % kw);
        let map = &x[c * in_h * in_w..][..in_h * in_w];
        let (valid, from) = columns(shape, kx, width);
        row.fill(0);
        let mut p = pixels.start;
        while p < pixels.end {
            let (oy, ox) = (p / width, p % width);
            let run = (width - ox).min(pixels.end - p);
            if let Some(iy) = inside(shape.window.position(0, oy, ky), in_h) {
                let (lo, hi) = (valid.start.max(ox), valid.end.min(ox + run));
                if lo < hi {
                    let source = &map[iy * in_w + from + (lo - valid.start) * step..(iy + 1) * in_w];
                    let to = &mut row[p - pixels.start + lo - ox..][..hi - lo];
                    if step == 1 {
                        to.copy_from_slice(&source[..hi - lo]);
                    } else {
                        to.iter_mut().zip(source.iter().step_by(step)).for_each(|(y, v)| *y = *v);
                    }
                }
            }
            p += run;
        }
        for (panel, part) in row.as_chunks::<COLUMNS>().0[..pixels.len().div_ceil(COLUMNS)].iter().enumerate() {
            right[panel * slice + i] = *part;
        }
    }
}

/// The output, written by tasks at places that do not overlap.
struct Shared<'a> {
    start: *mut u64,
    len: usize,
    borrow: PhantomData<&'a mut [u64]>,
}

// SAFETY: the pointer is only used in `Shared::add`, whose callers write disjoint places.
#[allow(unsafe_code)]
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    /// Adds `values` to the elements from `at` on.
    ///
    /// # Safety
    /// No two tasks may touch the same element at the same time.
    #[allow(unsafe_code)]
    unsafe fn add(&self, at: usize, values: &[u64]) {
        assert!(at + values.len() <= self.len, "a tile lies inside the output");
        // SAFETY: the range is inside the exclusively borrowed output, and by the function's
        // contract nobody else touches it now.
        let to = unsafe { std::slice::from_raw_parts_mut(self.start.add(at), values.len()) };
        for (y, v) in to.iter_mut().zip(values) {
            *y = y.wrapping_add(*v);
        }
    }
}

fn product<T: Tile>(tile: &T, shape: &ConvShape, x: &[u64], w: &[u64], out: &mut [u64]) {
    let Some([height, width]) = shape.output() else { return };
    let pixels = height * width;
    let (in_group, out_group) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let depth = in_group * shape.window.kernel[0] * shape.window.kernel[1];
    let map = shape.input[0] * shape.input[1];
    let panels = out_group.div_ceil(ROWS);
    let tiles = pixels.div_ceil(TILE);
    // Few tiles: share the rows among tasks too, each gathering the right side anew.
    let parts = (4 * rayon::current_num_threads()).div_ceil(tiles).min(panels.div_ceil(4)).max(1);
    for group in 0..shape.groups {
        let left = pack_left(&w[group * out_group * depth..][..out_group * depth], out_group, depth);
        let x = &x[group * in_group * map..][..in_group * map];
        let target = &mut out[group * out_group * pixels..][..out_group * pixels];
        let target = Shared { start: target.as_mut_ptr(), len: target.len(), borrow: PhantomData };
        (0..tiles * parts).into_par_iter().for_each(|task| {
            let (t, part) = (task / parts, task % parts);
            let range = t * TILE..((t + 1) * TILE).min(pixels);
            let rows = part * panels / parts..(part + 1) * panels / parts;
            let mut right = Zeroizing::new(vec![[0u64; COLUMNS]; TILE / COLUMNS * DEPTH.min(depth)]);
            for start in (0..depth).step_by(DEPTH) {
                let slice = start..(start + DEPTH).min(depth);
                pack_right(shape, width, x, slice.clone(), range.clone(), &mut right);
                for panel in rows.clone() {
                    let left = &left[panel * depth..][slice.clone()];
                    for (column, first) in range.clone().step_by(COLUMNS).enumerate() {
                        let right = &right[column * slice.len()..][..slice.len()];
                        let mut sums = [[0u64; COLUMNS]; ROWS];
                        tile.multiply(left, right, &mut sums);
                        let used = COLUMNS.min(range.end - first);
                        for (r, sums) in sums.iter().enumerate().take(out_group - panel * ROWS) {
                            let at = (panel * ROWS + r) * pixels + first;
                            // SAFETY: tasks differ in their pixels or in their rows.
                            #[allow(unsafe_code)]
                            unsafe {
                                target.add(at, &sums[..used]);
                            }
                        }
                    }
                }
            }
        });
    }
}
