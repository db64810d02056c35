//! Convolution. Every output is a sum in one fixed order: input channel, then row and column of the kernel.

use std::num::NonZero;
use std::sync::Mutex;

use super::{Axis, Batch, axes};
use crate::onnx::Conv;

/// Output channels, and pixels of a row, whose sums are kept in registers at once.
const CHANNELS: usize = 4;
const PIXELS: usize = 8;
/// Input channels between two visits of an output: what they read stays in the cache.
const DEPTH: usize = 64;

/// A convolution of planes that are padded already.
struct Shape {
    vertical: Axis,
    horizontal: Axis,
    /// Input channels of a group.
    inner: usize,
    /// Size of a padded input plane; its rows serve whole tiles of outputs.
    padded: [usize; 2],
    /// Size of an output plane.
    out: [usize; 2],
}

/// Up to [`CHANNELS`] output planes of one image and group.
struct Block<'a> {
    /// The group's padded input planes.
    input: &'a [f32],
    /// The first output channel.
    first: usize,
    planes: &'a mut [f32],
}

impl Batch {
    /// Convolution with weights `[out,c/group,kh,kw]` and bias `[out]`.
    pub(crate) fn conv(&self, weights: &[f32], bias: Option<&[f32]>, conv: &Conv) -> Self {
        let [vertical, horizontal] = axes(conv.kernel, conv.strides, conv.pads, conv.dilations, false);
        let group = conv.group as usize;
        let inner = self.c / group;
        let per_channel = inner * vertical.kernel * horizontal.kernel;
        let out_c = weights.len() / per_channel;
        let (oh, ow) = (vertical.output(self.h), horizontal.output(self.w));
        let reach = |axis: &Axis, count: usize| (count - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
        let padded = [reach(&vertical, oh), reach(&horizontal, ow.next_multiple_of(PIXELS))];
        let shape = Shape { vertical, horizontal, inner, padded, out: [oh, ow] };
        let input = shape.pad(self);

        let mut data = vec![0.0; self.n * out_c * oh * ow];
        let per_group = out_c / group;
        let mut blocks = Vec::new();
        let groups = data.chunks_mut(per_group * oh * ow).zip(input.chunks(inner * padded[0] * padded[1]));
        for (index, (planes, input)) in groups.enumerate() {
            for (block, planes) in planes.chunks_mut(CHANNELS * oh * ow).enumerate() {
                blocks.push(Block { input, first: index % group * per_group + block * CHANNELS, planes });
            }
        }
        let threads = match self.n * out_c * oh * ow * per_channel {
            0..1_000_000 => 1,
            _ => std::thread::available_parallelism().map_or(1, NonZero::get),
        };
        let queue = Mutex::new(blocks.into_iter());
        let next = || queue.lock().expect("nothing panics under the lock").next();
        let work = || {
            while let Some(Block { input, first, planes }) = next() {
                for (index, plane) in planes.chunks_mut(oh * ow).enumerate() {
                    plane.fill(bias.map_or(0.0, |b| b[first + index]));
                }
                let weights = &weights[first * per_channel..];
                if planes.len() == CHANNELS * oh * ow {
                    shape.add::<CHANNELS>(input, weights, planes);
                } else {
                    let each = planes.chunks_mut(oh * ow).zip(weights.chunks(per_channel));
                    each.for_each(|(plane, weights)| shape.add::<1>(input, weights, plane));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        Self { n: self.n, c: out_c, h: oh, w: ow, data }
    }
}

impl Shape {
    /// All planes of `batch` with zeros around them.
    fn pad(&self, batch: &Batch) -> Vec<f32> {
        let [height, width] = self.padded;
        let mut data = vec![0.0; batch.n * batch.c * height * width];
        let columns = batch.w.min(width.saturating_sub(self.horizontal.begin));
        for (from, to) in batch.data.chunks(batch.plane()).zip(data.chunks_mut(height * width)) {
            let to = to.chunks_mut(width).skip(self.vertical.begin);
            for (from, to) in from.chunks(batch.w).zip(to) {
                to[self.horizontal.begin..][..columns].copy_from_slice(&from[..columns]);
            }
        }
        data
    }

    /// Adds to the `B` planes of `out` what the group's planes `input` give with the first `B` of `weights`
    /// `[_,inner,kh,kw]`.
    fn add<const B: usize>(&self, input: &[f32], weights: &[f32], out: &mut [f32]) {
        let ([height, width], [oh, ow]) = (self.padded, self.out);
        let (kh, kw) = (self.vertical.kernel, self.horizontal.kernel);
        let (stride, dilation) = (self.horizontal.stride, self.horizontal.dilation);
        let len = self.inner * kh * kw;
        let weights: Vec<[f32; B]> = (0..len).map(|i| std::array::from_fn(|b| weights[b * len + i])).collect();
        for (weights, input) in weights.chunks(DEPTH * kh * kw).zip(input.chunks(DEPTH * height * width)) {
            for oy in 0..oh {
                for ox in (0..ow).step_by(PIXELS) {
                    let pixels = PIXELS.min(ow - ox);
                    let at = |b: usize| (b * oh + oy) * ow + ox;
                    let mut sums = [[0f32; PIXELS]; B];
                    for (b, sum) in sums.iter_mut().enumerate() {
                        sum[..pixels].copy_from_slice(&out[at(b)..][..pixels]);
                    }
                    for (weights, plane) in weights.chunks(kh * kw).zip(input.chunks(height * width)) {
                        for (ky, weights) in weights.chunks(kw).enumerate() {
                            let y = oy * self.vertical.stride + ky * self.vertical.dilation;
                            let row = &plane[y * width..][..width];
                            for (kx, weights) in weights.iter().enumerate() {
                                let values = tile(&row[ox * stride + kx * dilation..], stride);
                                for (sum, weight) in sums.iter_mut().zip(weights) {
                                    for (sum, value) in sum.iter_mut().zip(&values) {
                                        *sum += weight * value;
                                    }
                                }
                            }
                        }
                    }
                    for (b, sum) in sums.iter().enumerate() {
                        out[at(b)..][..pixels].copy_from_slice(&sum[..pixels]);
                    }
                }
            }
        }
    }
}

/// Every `stride`-th value of `row`.
fn tile(row: &[f32], stride: usize) -> [f32; PIXELS] {
    match (stride, row.first_chunk()) {
        (1, Some(values)) => *values,
        _ => std::array::from_fn(|p| row[p * stride]),
    }
}
