//! Convolution: a product of matrices, or directly where a group has few output channels.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod digits;
mod maps;
mod matrix;
mod nhwc;
mod product;
mod right;
mod target;
mod tile;
mod window;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use bcc_ir::geometry::{ConvShape, Window};
use bcc_ir::time::NARROW;
use rayon::prelude::*;

pub use product::{Arranged, product};
#[cfg(test)]
pub use tile::{COLUMNS, ROWS};
pub use tile::{Portable, Products, Tile, faster_last};
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

use crate::element::Element;
use tile::Job;

/// How a convolution is computed.
enum Way {
    /// Row by row and tap by tap.
    Direct,
    /// One dot product per output.
    Dense,
    /// As a product of matrices.
    Product,
}

fn way(shape: &ConvShape) -> Way {
    let pixel = Window { stride: shape.window.stride, ..Window::new([1, 1]) };
    if shape.out_channels / shape.groups < NARROW {
        Way::Direct
    } else if shape.input == [1, 1] && shape.window == pixel {
        Way::Dense
    } else {
        Way::Product
    }
}

/// Weights as [`product()`] reads them, for a convolution that it computes.
pub fn arrange<T: Tile, E: Element>(tile: &T, bits: u8, narrow: bool, shape: &ConvShape, w: &[E]) -> Option<Arranged> {
    shape.output()?;
    matches!(way(shape), Way::Product).then(|| Arranged::new(tile, bits, narrow, shape, w))
}

/// Convolution on a tile kernel.
pub fn conv<T: Tile, E: Element>(tile: &T, bits: u8, shape: &ConvShape, x: &[E], w: &[E], out: &mut [E]) {
    if shape.output().is_none() {
        return;
    }
    match way(shape) {
        Way::Direct => direct(tile, bits, shape, x, w, out),
        Way::Dense => dense(tile, bits, shape, x, w, out),
        Way::Product => {
            product(tile, &Arranged::new(tile, bits, false, shape, w), 0..shape.out_channels, x, out);
        }
    }
}

/// One dot product per output: maps of one pixel.
fn dense<T: Tile, E: Element>(tile: &T, bits: u8, shape: &ConvShape, x: &[E], w: &[E], out: &mut [E]) {
    let in_group = shape.in_channels / shape.groups;
    let out_group = shape.out_channels / shape.groups;
    // Some outputs of one group for each task.
    let outputs = 32.min(out_group);
    out.par_chunks_mut(out_group).enumerate().for_each(|(group, out)| {
        let x = &x[group * in_group..][..in_group];
        out.par_chunks_mut(outputs).enumerate().for_each(|(i, out)| {
            let w = &w[(group * out_group + i * outputs) * in_group..];
            tile.run(Dots { bits, x, w, out });
        });
    });
}

/// Some outputs of a fully connected layer.
struct Dots<'a, E> {
    bits: u8,
    x: &'a [E],
    /// Row after row.
    w: &'a [E],
    out: &'a mut [E],
}

impl<E: Element> Job for Dots<'_, E> {
    #[inline(always)]
    fn work(self) {
        for (y, w) in self.out.iter_mut().zip(self.w.chunks_exact(self.x.len())) {
            let products = w.iter().zip(self.x).map(|(w, x)| w.times(*x));
            *y = products.fold(E::ZERO, E::plus) & E::mask(self.bits);
        }
    }
}

/// Row by row and tap by tap: few output channels in a group, depthwise ones above all.
fn direct<T: Tile, E: Element>(tile: &T, bits: u8, shape: &ConvShape, x: &[E], w: &[E], out: &mut [E]) {
    let Some([height, width]) = shape.output() else { return };
    let pixels = height * width;
    out.par_chunks_exact_mut(pixels).enumerate().for_each(|(o, out)| {
        tile.run(OneOutput { bits, shape, o, x, w, width, out });
    });
}

/// An output channel of a direct convolution.
struct OneOutput<'a, E> {
    bits: u8,
    shape: &'a ConvShape,
    o: usize,
    x: &'a [E],
    w: &'a [E],
    /// Width of the output.
    width: usize,
    out: &'a mut [E],
}

impl<E: Element> Job for OneOutput<'_, E> {
    #[inline(always)]
    fn work(self) {
        let OneOutput { bits, shape, o, x, w, width, out } = self;
        let [in_h, in_w] = shape.input;
        let [kh, kw] = shape.window.kernel;
        let (in_group, out_group) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
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
        out.iter_mut().for_each(|y| *y = *y & E::mask(bits));
    }
}

/// `y + factor x`.
#[inline(always)]
fn add_scaled<E: Element>(factor: E, from: &[E], step: usize, to: &mut [E]) {
    if step == 1 {
        to.iter_mut().zip(from).for_each(|(y, x)| *y = y.plus(factor.times(*x)));
    } else {
        to.iter_mut().zip(from.iter().step_by(step)).for_each(|(y, x)| *y = y.plus(factor.times(*x)));
    }
}

#[inline(always)]
fn inside(position: isize, size: usize) -> Option<usize> {
    usize::try_from(position).ok().filter(|p| *p < size)
}

/// Outputs of a row whose tap `kx` is not in the padding, and the first one's input column.
#[inline(always)]
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
