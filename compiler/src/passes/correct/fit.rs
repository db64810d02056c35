//! One linear layer, fitted so that its result comes closest to a target.
//!
//! With `P` the patches the layer reads (a row of ones below them for the bias), `W` its weights and
//! `R` what its result lacks to the target:
//!
//! - *mean*: `b` moves by the mean of `R`, per channel;
//! - *scale*: per channel the line `s y + t` that fits the target `y + R` best;
//! - *weights*: `W` moves by the `D` that minimises `|R - D P|^2 + r q |D|^2`, `q` the mean square of
//!   the patches' entries (ridge regression): `D = R P^T (P P^T + r q I)^-1`. The strength `r` is the one
//!   of [`RIDGES`] that does best on images left out of the fit (every fourth), or none, where not
//!   changing the weights does better; with it all images are fitted. A layer of which there are fewer
//!   samples than a channel has weights gets mean and scale.

use bcc_ir::geometry::ConvShape;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

use super::spd::Factor;
use super::{Correction, Values};
use crate::float::patches_of;

/// Strengths of the ridge that are tried.
const RIDGES: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];
/// Every so many-th image judges the strengths.
const HELD_OUT: usize = 4;
/// Images whose products are summed in 32 bits.
const GROUP: usize = 8;
/// Groups that are in memory at once.
const WAVE: usize = 2;
/// Largest number of weights of one output channel that are fitted jointly.
pub(super) const MOST_INPUTS: usize = 6000;
/// Multiplications for one layer's products above which pixels are left out evenly ...
const MOST_PRODUCTS: usize = 20_000_000_000;
/// ... as long as so many pixels are left for every weight of a channel.
const LEAST_SAMPLES: usize = 4;
/// Rows of products that are computed together: those above the diagonal are mirrored.
const ROWS: usize = 256;

/// A layer's weights, one row per output channel, and biases.
pub(super) struct Parameters {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// What a layer reads and yields on all images, and what it should yield.
pub(super) struct Samples<'a> {
    pub(super) shape: ConvShape,
    pub(super) operand: &'a Values,
    pub(super) result: &'a Values,
    pub(super) target: &'a Values,
}

impl Samples<'_> {
    fn pixels(&self) -> usize {
        self.result.first().map_or(0, Vec::len) / self.shape.out_channels
    }

    /// Changes the parameters.
    pub(super) fn fit(&self, correction: Correction, p: &mut Parameters) {
        match correction {
            Correction::Mean => self.line(p, false),
            Correction::Scale => self.line(p, true),
            Correction::Weights if self.determines(p.weight.len() / p.bias.len()) => {
                (0..self.shape.groups).for_each(|g| self.weights(p, g));
            }
            Correction::Weights => self.line(p, true),
        }
    }

    /// Whether there is at least one sample for every weight of a channel, and not too many weights.
    fn determines(&self, weights: usize) -> bool {
        weights <= MOST_INPUTS && self.result.len() * self.pixels() >= weights
    }

    /// Mean, or mean and scale, channel by channel.
    fn line(&self, p: &mut Parameters, scale: bool) {
        let (pixels, row) = (self.pixels(), p.weight.len() / p.bias.len());
        let n = (self.result.len() * pixels) as f64;
        let fitted: Vec<(f64, f64)> = (0..p.bias.len())
            .into_par_iter()
            .map(|c| {
                let channel = |v: &Values| -> Vec<f64> {
                    v.iter().flat_map(|v| &v[c * pixels..(c + 1) * pixels]).map(|v| f64::from(*v)).collect()
                };
                let (y, t) = (channel(self.result), channel(self.target));
                let (my, mt) = (y.iter().sum::<f64>() / n, t.iter().sum::<f64>() / n);
                let variance: f64 = y.iter().map(|y| (y - my).powi(2)).sum();
                let covariance: f64 = y.iter().zip(&t).map(|(y, t)| (y - my) * (t - mt)).sum();
                let s = if scale && variance > 1e-12 * n { covariance / variance } else { 1.0 };
                (s, mt - s * my)
            })
            .collect();
        for (c, (s, shift)) in fitted.into_iter().enumerate() {
            p.weight[c * row..(c + 1) * row].iter_mut().for_each(|w| *w = (f64::from(*w) * s) as f32);
            p.bias[c] = (f64::from(p.bias[c]) * s + shift) as f32;
        }
    }

    fn weights(&self, p: &mut Parameters, group: usize) {
        let (n, outputs) = (p.weight.len() / p.bias.len(), self.shape.out_channels / self.shape.groups);
        let images = self.operand.len();
        let judges = |i: &usize| i % HELD_OUT == HELD_OUT - 1;
        let (held, fitted): (Vec<usize>, Vec<usize>) = (0..images).partition(judges);
        let mut all = self.normal(group, n, &fitted);
        let ridge = if held.is_empty() {
            Some(RIDGES[2])
        } else {
            let judge = self.normal(group, n, &held);
            let tried: Vec<f64> =
                RIDGES.par_iter().map(|r| all.solve(*r).map_or(f64::INFINITY, |d| judge.change(&d))).collect();
            all.add(&judge);
            // Nothing changed is a change of 0.
            let best = (0..RIDGES.len()).min_by(|a, b| tried[*a].total_cmp(&tried[*b]));
            best.filter(|b| tried[*b] < 0.0).map(|b| RIDGES[b])
        };
        let Some(change) = ridge.and_then(|r| all.solve(r)) else { return };
        for (o, d) in change.columns().into_iter().enumerate() {
            let c = group * outputs + o;
            p.weight[c * n..(c + 1) * n].iter_mut().zip(d).for_each(|(w, d)| *w += *d as f32);
            p.bias[c] += d[n] as f32;
        }
    }

    /// The normal equations over some images.
    fn normal(&self, group: usize, n: usize, images: &[usize]) -> Normal {
        let outputs = self.shape.out_channels / self.shape.groups;
        let mut sum =
            Normal { gram: Array2::zeros((n + 1, n + 1)), cross: Array2::zeros((n + 1, outputs)), samples: 0 };
        let samples = self.pixels() * images.len();
        let wanted = (MOST_PRODUCTS / (n * n)).max(LEAST_SAMPLES * n);
        let stride = (samples / wanted).max(1);
        // Sums in a fixed order, whatever the number of threads.
        for wave in images.chunks(GROUP * WAVE) {
            let parts: Vec<Part> = wave.par_chunks(GROUP).map(|g| self.part(group, n, g, stride)).collect();
            for part in parts {
                sum.gram.zip_mut_with(&part.gram, |a, b| *a += f64::from(*b));
                sum.cross.zip_mut_with(&part.cross, |a, b| *a += f64::from(*b));
                sum.samples += part.samples;
            }
        }
        for i in 0..=n {
            for j in 0..i {
                sum.gram[[j, i]] = sum.gram[[i, j]];
            }
        }
        sum
    }

    fn part(&self, group: usize, n: usize, images: &[usize], stride: usize) -> Part {
        let (pixels, outputs) = (self.pixels(), self.shape.out_channels / self.shape.groups);
        let mut part = Part { gram: Array2::zeros((n + 1, n + 1)), cross: Array2::zeros((n + 1, outputs)), samples: 0 };
        for &i in images {
            let mut patches = patches_of(&self.operand[i], &self.shape, group);
            let own = |v: &[f32]| v[group * outputs * pixels..(group + 1) * outputs * pixels].to_vec();
            let mut lack = own(&self.target[i]);
            lack.iter_mut().zip(own(&self.result[i])).for_each(|(t, y)| *t -= y);
            let mut kept = pixels;
            if stride > 1 {
                let thin = |v: Vec<f32>| -> Vec<f32> {
                    v.chunks_exact(pixels).flat_map(|r| r.iter().skip(i % stride).step_by(stride)).copied().collect()
                };
                (patches, lack) = (thin(patches), thin(lack));
                kept = lack.len() / outputs;
            }
            patches.extend(std::iter::repeat_n(1.0, kept));
            let patches = ArrayView2::from_shape((n + 1, kept), &patches).expect("a row per weight, and one of ones");
            let lack = ArrayView2::from_shape((outputs, kept), &lack).expect("a row per channel");
            for first in (0..=n).step_by(ROWS) {
                let end = (n + 1).min(first + ROWS);
                let mut below = part.gram.slice_mut(s![first..end, ..end]);
                general_mat_mul(
                    1.0,
                    &patches.slice(s![first..end, ..]),
                    &patches.slice(s![..end, ..]).t(),
                    1.0,
                    &mut below,
                );
            }
            general_mat_mul(1.0, &patches, &lack.t(), 1.0, &mut part.cross);
            part.samples += kept;
        }
        part
    }
}

/// Sums of products of one group of images.
struct Part {
    gram: Array2<f32>,
    cross: Array2<f32>,
    samples: usize,
}

/// `P P^T` and `P R^T`.
struct Normal {
    gram: Array2<f64>,
    cross: Array2<f64>,
    samples: usize,
}

impl Normal {
    fn add(&mut self, other: &Normal) {
        self.gram += &other.gram;
        self.cross += &other.cross;
        self.samples += other.samples;
    }

    /// The change `D^T` for a strength of the ridge; the bias is left free.
    fn solve(&self, ridge: f64) -> Option<Array2<f64>> {
        let n = self.gram.nrows() - 1;
        let mut a = self.gram.clone();
        let mean = (0..n).map(|i| a[[i, i]]).sum::<f64>() / n as f64;
        // A layer that reads zeros alone keeps its weights.
        let least = 1e-9 * self.samples as f64 + f64::MIN_POSITIVE;
        (0..n).for_each(|i| a[[i, i]] += ridge * mean + least);
        a[[n, n]] += least;
        let solved = Factor::new(a)?.solve(self.cross.clone());
        solved.iter().all(|v| v.is_finite()).then_some(solved)
    }

    /// By how much a change of the weights changes the squared error.
    fn change(&self, d: &Array2<f64>) -> f64 {
        let inner = |a: &Array2<f64>| d.iter().zip(a).map(|(d, a)| d * a).sum::<f64>();
        inner(&self.gram.dot(d)) - 2.0 * inner(&self.cross)
    }
}
