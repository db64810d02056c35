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

/// A convolution of planes that are padded already. In a padded row the columns of one remainder by the stride
/// stand together, so that what a tap reads for neighbouring outputs is in one piece.
struct Shape {
    vertical: Axis,
    horizontal: Axis,
    /// Input channels of a group.
    inner: usize,
    /// Rows of a padded input plane, and columns of each remainder.
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
        let rows = (oh - 1) * vertical.stride + (vertical.kernel - 1) * vertical.dilation + 1;
        let last_tap = (horizontal.kernel - 1) * horizontal.dilation;
        let padded = [rows, ow.next_multiple_of(PIXELS) + last_tap / horizontal.stride];
        let shape = Shape { vertical, horizontal, inner, padded, out: [oh, ow] };
        let input = shape.pad(self);

        let mut data = vec![0.0; self.n * out_c * oh * ow];
        let per_group = out_c / group;
        let mut blocks = Vec::new();
        let groups = data.chunks_mut(per_group * oh * ow).zip(input.chunks(inner * shape.padded_len()));
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
    /// Length of a padded input plane.
    fn padded_len(&self) -> usize {
        self.padded[0] * self.padded[1] * self.horizontal.stride
    }

    /// All planes of `batch` with zeros around them.
    fn pad(&self, batch: &Batch) -> Vec<f32> {
        let (columns, stride) = (self.padded[1], self.horizontal.stride);
        let mut data = vec![0.0; batch.n * batch.c * self.padded_len()];
        for (from, to) in batch.data.chunks(batch.plane()).zip(data.chunks_mut(self.padded_len())) {
            let to = to.chunks_mut(columns * stride).skip(self.vertical.begin);
            for (from, to) in from.chunks(batch.w).zip(to) {
                for (x, value) in (self.horizontal.begin..columns * stride).zip(from) {
                    to[x % stride * columns + x / stride] = *value;
                }
            }
        }
        data
    }

    /// Where the taps read in a padded plane, from where the first one does.
    fn taps(&self) -> Vec<usize> {
        let (columns, stride) = (self.padded[1], self.horizontal.stride);
        let row = |ky: usize| ky * self.vertical.dilation * columns * stride;
        let column =
            |kx: usize| (kx * self.horizontal.dilation % stride) * columns + kx * self.horizontal.dilation / stride;
        (0..self.vertical.kernel)
            .flat_map(|ky| (0..self.horizontal.kernel).map(move |kx| row(ky) + column(kx)))
            .collect()
    }

    /// Adds to the `B` planes of `out` what the group's planes `input` give with the first `B` of `weights`
    /// `[_,inner,kh,kw]`.
    fn add<const B: usize>(&self, input: &[f32], weights: &[f32], out: &mut [f32]) {
        let [oh, ow] = self.out;
        let taps = self.taps();
        let (plane, row) = (self.padded_len(), self.vertical.stride * self.padded[1] * self.horizontal.stride);
        let len = self.inner * taps.len();
        let weights: Vec<[f32; B]> = (0..len).map(|i| std::array::from_fn(|b| weights[b * len + i])).collect();
        for (weights, input) in weights.chunks(DEPTH * taps.len()).zip(input.chunks(DEPTH * plane)) {
            for oy in 0..oh {
                for ox in (0..ow).step_by(PIXELS) {
                    let pixels = PIXELS.min(ow - ox);
                    let at = |b: usize| (b * oh + oy) * ow + ox;
                    let mut sums = [[0f32; PIXELS]; B];
                    for (b, sum) in sums.iter_mut().enumerate() {
                        sum[..pixels].copy_from_slice(&out[at(b)..][..pixels]);
                    }
                    let tiles = input.chunks(plane).map(|plane| &plane[oy * row + ox..]);
                    sums = accumulate(sums, tiles.zip(weights.chunks(taps.len())), &taps);
                    for (b, sum) in sums.iter().enumerate() {
                        out[at(b)..][..pixels].copy_from_slice(&sum[..pixels]);
                    }
                }
            }
        }
    }
}

/// Adds to `sums` what the taps of every channel's tile give with their weights.
fn accumulate<'a, const B: usize>(
    mut sums: [[f32; PIXELS]; B],
    channels: impl Iterator<Item = (&'a [f32], &'a [[f32; B]])>,
    taps: &[usize],
) -> [[f32; PIXELS]; B] {
    for (tile, weights) in channels {
        for (weights, &tap) in weights.iter().zip(taps) {
            let values: &[f32; PIXELS] = tile[tap..].first_chunk().expect("padded rows serve whole tiles");
            for (sum, weight) in sums.iter_mut().zip(weights) {
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
        }
    }
    sums
}
