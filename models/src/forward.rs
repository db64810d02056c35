//! A plain forward pass over a small batch, run while a network is built, so that its
//! batch-norm statistics are those of real activations.
//!
//! Sums run in a fixed order: the same seed gives the same statistics on every machine.

mod conv;

use crate::onnx::{Interpolation, Pool};
use crate::rng::Rng;

/// Activations of a batch, row-major `[n,c,h,w]`.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) n: usize,
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) data: Vec<f32>,
}

/// One spatial direction of a sliding window.
#[derive(Clone, Copy)]
struct Axis {
    kernel: usize,
    stride: usize,
    begin: usize,
    end: usize,
    dilation: usize,
    ceil: bool,
}

impl Axis {
    fn output(&self, size: usize) -> usize {
        let span = (self.kernel - 1) * self.dilation + 1;
        let steps = size + self.begin + self.end - span;
        if !self.ceil {
            return steps / self.stride + 1;
        }
        let rounded = steps.div_ceil(self.stride) + 1;
        // A window that would start in the trailing padding is dropped.
        if (rounded - 1) * self.stride >= size + self.begin { rounded - 1 } else { rounded }
    }
}

fn axes(kernel: [i64; 2], strides: [i64; 2], pads: [i64; 4], dilations: [i64; 2], ceil: bool) -> [Axis; 2] {
    [0, 1].map(|i| Axis {
        kernel: kernel[i] as usize,
        stride: strides[i] as usize,
        begin: pads[i] as usize,
        end: pads[i + 2] as usize,
        dilation: dilations[i] as usize,
        ceil,
    })
}

impl Batch {
    pub(crate) fn plane(&self) -> usize {
        self.h * self.w
    }

    /// Standard normal noise in every fourth image; in the others fields like normalised photos, of
    /// equal power in every octave, much the same in all channels, with brightness and contrast
    /// of their own. Mean 0 and variance about 1 over many.
    pub(crate) fn calibration(n: usize, [c, h, w]: [usize; 3], rng: &mut Rng) -> Self {
        let mut data = Vec::with_capacity(n * c * h * w);
        for image in 0..n {
            if image % 4 == 3 {
                data.extend(rng.normals(c * h * w, 0.0, 1.0));
                continue;
            }
            let contrast = rng.uniform(0.4, 1.3);
            let brightness = 0.5 * rng.normal();
            let shared = smooth_field(h, w, rng);
            for _ in 0..c {
                let own = smooth_field(h, w, rng);
                let tint = brightness + 0.2 * rng.normal();
                let mixed = shared.iter().zip(&own).map(|(s, o)| (tint + contrast * (0.9 * s + 0.43 * o)) as f32);
                data.extend(mixed);
            }
        }
        Self { n, c, h, w, data }
    }

    /// Every window of every plane, reduced from its pixels inside the input and their number.
    fn pool(&self, [vertical, horizontal]: [Axis; 2], reduce: impl Fn(&[f32]) -> f32) -> Self {
        let (oh, ow) = (vertical.output(self.h), horizontal.output(self.w));
        let mut data = Vec::with_capacity(self.n * self.c * oh * ow);
        let mut window = Vec::new();
        let range = |axis: &Axis, at: usize, size: usize| {
            let start = at * axis.stride;
            let end = (start + axis.kernel).saturating_sub(axis.begin).min(size);
            start.saturating_sub(axis.begin).min(end)..end
        };
        for plane in self.data.chunks(self.plane()) {
            for oy in 0..oh {
                for ox in 0..ow {
                    window.clear();
                    let columns = range(&horizontal, ox, self.w);
                    for y in range(&vertical, oy, self.h) {
                        window.extend_from_slice(&plane[y * self.w..][columns.clone()]);
                    }
                    data.push(reduce(&window));
                }
            }
        }
        Self { n: self.n, c: self.c, h: oh, w: ow, data }
    }

    pub(crate) fn max_pool(&self, pool: &Pool) -> Self {
        let axes = axes(pool.kernel, pool.strides, pool.pads, [1; 2], pool.ceil_mode);
        self.pool(axes, |window| window.iter().copied().fold(f32::NEG_INFINITY, f32::max))
    }

    /// With `count_include_pad` the divisor is the whole window; `ceil_mode` must be off then, as
    /// runtimes disagree about windows that reach beyond the padding.
    pub(crate) fn average_pool(&self, pool: &Pool, count_include_pad: bool) -> Self {
        debug_assert!(!(pool.ceil_mode && count_include_pad));
        let axes = axes(pool.kernel, pool.strides, pool.pads, [1; 2], pool.ceil_mode);
        let whole = axes[0].kernel * axes[1].kernel;
        self.pool(axes, |window| {
            let count = if count_include_pad { whole } else { window.len() };
            window.iter().sum::<f32>() / count as f32
        })
    }

    pub(crate) fn relu(mut self) -> Self {
        for v in &mut self.data {
            *v = v.max(0.0);
        }
        self
    }

    pub(crate) fn clip(mut self, min: f32, max: f32) -> Self {
        for v in &mut self.data {
            *v = v.clamp(min, max);
        }
        self
    }

    /// Negative values times the slope of their channel.
    pub(crate) fn prelu(mut self, slopes: &[f32]) -> Self {
        let plane = self.plane();
        for (index, values) in self.data.chunks_mut(plane).enumerate() {
            for v in values.iter_mut().filter(|v| **v < 0.0) {
                *v *= slopes[index % self.c];
            }
        }
        self
    }

    /// The channels of all `parts`, which are of one size, one after the other.
    pub(crate) fn concat(parts: &[&Self]) -> Self {
        let first = parts[0];
        let c = parts.iter().map(|p| p.c).sum();
        let images = (0..first.n).flat_map(|n| {
            parts.iter().flat_map(move |p| {
                let len = p.c * p.plane();
                &p.data[n * len..(n + 1) * len]
            })
        });
        Self { n: first.n, c, h: first.h, w: first.w, data: images.copied().collect() }
    }

    /// Every plane resized to `[h,w]`.
    pub(crate) fn resize(&self, [h, w]: [usize; 2], interpolation: Interpolation) -> Self {
        let (rows, columns) = (sources(self.h, h, interpolation), sources(self.w, w, interpolation));
        let mut data = Vec::with_capacity(self.n * self.c * h * w);
        for plane in self.data.chunks(self.plane()) {
            for &([top, bottom], down) in &rows {
                let (top, bottom) = (&plane[top * self.w..], &plane[bottom * self.w..]);
                for &([left, right], along) in &columns {
                    let mix = |row: &[f32]| row[left] + along * (row[right] - row[left]);
                    data.push(mix(top) + down * (mix(bottom) - mix(top)));
                }
            }
        }
        Self { n: self.n, c: self.c, h, w, data }
    }

    pub(crate) fn add(mut self, other: &Self) -> Self {
        for (a, b) in self.data.iter_mut().zip(&other.data) {
            *a += b;
        }
        self
    }

    /// `scale[c] * x + shift[c]`.
    pub(crate) fn affine(mut self, scale: &[f32], shift: &[f32]) -> Self {
        let plane = self.plane();
        for (index, values) in self.data.chunks_mut(plane).enumerate() {
            let (a, b) = (scale[index % self.c], shift[index % self.c]);
            for v in values {
                *v = a * *v + b;
            }
        }
        self
    }

    /// Mean and variance of every channel over the batch.
    pub(crate) fn moments(&self) -> Vec<(f64, f64)> {
        let count = (self.n * self.plane()) as f64;
        (0..self.c)
            .map(|c| {
                let values = || {
                    (0..self.n).flat_map(move |n| {
                        self.data[(n * self.c + c) * self.plane()..][..self.plane()].iter().map(|&v| f64::from(v))
                    })
                };
                let mean = values().sum::<f64>() / count;
                let var = values().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
                (mean, var)
            })
            .collect()
    }
}

/// A sum of plane waves, from one across twice the image to one every four pixels.
fn smooth_field(h: usize, w: usize, rng: &mut Rng) -> Vec<f64> {
    use std::f64::consts::{LN_2, TAU};
    const WAVES: usize = 32;
    let size = h.max(w) as f64;
    let highest = (size / 4.0).max(1.0).ln();
    let waves: [[f64; 3]; WAVES] = std::array::from_fn(|_| {
        let cycles = rng.uniform(-LN_2, highest).exp() / size;
        let (sin, cos) = rng.uniform(0.0, TAU).sin_cos();
        [TAU * cycles * sin, TAU * cycles * cos, rng.uniform(0.0, TAU)]
    });
    let scale = (2.0 / WAVES as f64).sqrt();
    (0..h * w)
        .map(|at| {
            let (y, x) = ((at / w) as f64, (at % w) as f64);
            let sum: f64 = waves.iter().map(|[v, u, phase]| (v * y + u * x + phase).cos()).sum();
            scale * sum
        })
        .collect()
}

/// For each of `to` pixels the two of `from` pixels that it lies between, and how far from the first.
fn sources(from: usize, to: usize, interpolation: Interpolation) -> Vec<([usize; 2], f32)> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|i| {
            let at = match interpolation {
                Interpolation::Nearest => return ([i * from / to; 2], 0.0),
                Interpolation::Bilinear => ((i as f32 + 0.5) * scale - 0.5).max(0.0),
                Interpolation::AlignCorners if to == 1 => 0.0,
                Interpolation::AlignCorners => i as f32 * (from - 1) as f32 / (to - 1) as f32,
            };
            let first = (at as usize).min(from - 1);
            ([first, (first + 1).min(from - 1)], at - first as f32)
        })
        .collect()
}
