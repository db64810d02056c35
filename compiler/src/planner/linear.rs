//! Distortion to first order: what every choice of every channel does to the output, from one
//! backward pass per image and probe.
//!
//! Let `f0` be the network to be approximated, `f` the network with the blocks chosen so far, and
//! `e = f(x) - f0(x)` what they cost on image `x`. Giving channel `c` the block `j` instead of its
//! present one changes the channel's map by `d = y_j(z) - y(z)`, and the output by about `J d`, `J`
//! the Jacobian at that map. The squared error becomes
//!
//! ```text
//! |e + J d|^2 = |e|^2 + 2 e . J d + |J d|^2
//! ```
//!
//! The middle term counts with a small weight (`RESIDUAL`), as losses are added up over channels.
//!
//! For a random vector `v` of independent entries of mean 0 and variance 1, `E[(v . a)(v . b)] =
//! a . b`. So with `g = J^T v` from one backward pass, `(v . e)(g . d)` and `(g . d)^2` estimate both
//! terms without bias, for all channels and choices at once: a dot product each. Where there are at
//! least as many probes as outputs, the unit vectors serve as probes and the sum is exact.
//!
//! **Re-centring.** If the mean of what the choice changes, `m = E[d]` over images and pixels, is
//! given back by the following bias (`--correct`), the change is `d - m 1` with `g . (d - m 1) =
//! g . d - m (g . 1)`. Second moments of `g . d` and `g . 1` are kept, so the loss after re-centring
//! follows without a second pass.
//!
//! Block sums of `z` and of `g z` come from summed-area tables: a choice costs a few additions per
//! block, not per pixel.

use bcc_ir::Block;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::target::Targets;
use crate::float::{Executor, GateView};

/// Probes that go through the tables together.
const LANES: usize = 4;
/// Weight of `2 e . J d` in a choice's loss. Many channels that each take back a part of one error
/// overshoot together, as the sum of losses knows nothing of them being alike; with a small weight the
/// residual decides among near equals. (Of 0, 0.02, 0.1, 0.3 and 1, the first two refined plans of the
/// trained networks without mishap, 0.3 and more made them worse.)
const RESIDUAL: f64 = 0.05;
/// Images whose sums are in memory at once.
pub const WAVE: usize = 4;

/// Sums over images and probes for one choice of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OptionSums {
    /// `(g . d)^2`.
    pub square: f64,
    /// `(g . d)(v . e)`.
    pub residual: f64,
    /// `(g . d)(g . 1)`.
    pub drift: f64,
    /// `d`, over pixels; not by probe.
    pub mean: f64,
    /// Squares of an image's mean of `(g . d)^2` over its probes.
    pub spread: f64,
    /// Largest magnitude of a block's sum of `z`; not a sum.
    pub largest: f64,
}

/// Sums over images and probes for one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassSums {
    /// `(g . 1)^2`.
    pub square: f64,
    /// `(g . 1)(v . e)`.
    pub residual: f64,
}

/// First-order losses around one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// Images seen.
    pub images: usize,
    /// Probes per image.
    pub probes: usize,
    /// By class and choice, as in [`Targets`].
    pub options: Vec<OptionSums>,
    /// By class.
    pub classes: Vec<ClassSums>,
    /// Sum over images of `|e|^2`.
    pub error: f64,
}

impl Linear {
    /// Nothing seen yet.
    pub fn new(targets: &Targets, probes: usize) -> Linear {
        Linear {
            images: 0,
            probes,
            options: vec![OptionSums::default(); targets.options()],
            classes: vec![ClassSums::default(); targets.classes()],
            error: 0.0,
        }
    }

    /// Adds what other images gave.
    pub fn merge(&mut self, other: &Linear) {
        self.images += other.images;
        self.error += other.error;
        for (a, b) in self.options.iter_mut().zip(&other.options) {
            a.square += b.square;
            a.residual += b.residual;
            a.drift += b.drift;
            a.mean += b.mean;
            a.spread += b.spread;
            a.largest = a.largest.max(b.largest);
        }
        for (a, b) in self.classes.iter_mut().zip(&other.classes) {
            a.square += b.square;
            a.residual += b.residual;
        }
    }

    /// Loss of every choice by class: by how much it changes the mean squared error per output
    /// element, to first order; with re-centring if `centred`.
    pub fn losses(&self, targets: &Targets, outputs: usize, centred: bool) -> Vec<f64> {
        let n = (self.images * self.probes * outputs) as f64;
        let mut losses = Vec::with_capacity(self.options.len());
        for layer in &targets.layers {
            let pixels = (layer.map[0] * layer.map[1] * self.images) as f64;
            for channel in 0..layer.channels {
                let class = &self.classes[layer.first_class + channel];
                for o in &self.options[layer.choices(channel)] {
                    let m = if centred { -o.mean / pixels } else { 0.0 };
                    let square = o.square + 2.0 * m * o.drift + m * m * class.square;
                    losses.push((square.max(0.0) + 2.0 * RESIDUAL * (o.residual + m * class.residual)) / n);
                }
            }
        }
        losses
    }
}

impl Linear {
    /// Standard error of a choice's loss over images, relative to the loss: the median over choices
    /// that change anything.
    pub fn relative_error(&self, targets: &Targets) -> f64 {
        let n = self.images as f64;
        if self.images < 2 || targets.options() == 0 {
            return f64::INFINITY;
        }
        let relative = |o: &OptionSums| {
            let mean = o.square / (n * self.probes as f64);
            let variance = (o.spread / n - mean * mean).max(0.0) * n / (n - 1.0);
            (mean > 0.0).then(|| (variance / n).sqrt() / mean)
        };
        let mut all: Vec<f64> = self.options.iter().filter_map(relative).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Probes for an image: entries of +1 and -1, or scaled unit vectors where there are enough of them.
fn probes(count: usize, outputs: usize, seed: u64, image: usize) -> Vec<f32> {
    let mut v = vec![0.0; count * outputs];
    if count == outputs {
        (0..count).for_each(|k| v[k * outputs + k] = (outputs as f32).sqrt());
        return v;
    }
    let mut state = mix(seed ^ mix(image as u64 + 1));
    for (i, x) in v.iter_mut().enumerate() {
        if i % 64 == 0 {
            state = mix(state);
        }
        *x = if state >> (i % 64) & 1 == 1 { 1.0 } else { -1.0 };
    }
    v
}

/// SplitMix64's output function (Steele, Lea, Flood 2014). Not for protocol randomness.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// What a pass over images needs.
pub struct Pass<'a> {
    /// The network with its present blocks.
    pub executor: &'a Executor<'a>,
    /// Channels and choices.
    pub targets: &'a Targets,
    /// Present block of every class.
    pub present: &'a [Block],
    /// Probes per image; as many as outputs, or more, take the unit vectors.
    pub probes: usize,
    /// Seed of the probes.
    pub seed: u64,
}

impl Pass<'_> {
    /// Probes that are run.
    pub fn probe_count(&self, outputs: usize) -> usize {
        self.probes.clamp(1, outputs)
    }

    /// Sums over some images, given with their numbers and the outputs they should have. The result
    /// does not depend on the number of threads.
    pub fn run(&self, images: &[(usize, &[f32], &[f32])]) -> Linear {
        let outputs = images.first().map_or(1, |i| i.2.len());
        let mut all = Linear::new(self.targets, self.probe_count(outputs));
        let each: Vec<Linear> = images.par_iter().map(|i| self.image(i.0, i.1, i.2)).collect();
        each.iter().for_each(|one| all.merge(one));
        all
    }

    fn image(&self, number: usize, x: &[f32], reference: &[f32]) -> Linear {
        let count = self.probe_count(reference.len());
        let mut sums = Linear::new(self.targets, count);
        let tape = self.executor.record(x);
        let error: Vec<f32> = tape.output().iter().zip(reference).map(|(f, r)| f - r).collect();
        sums.images = 1;
        sums.error = error.iter().map(|e| f64::from(*e).powi(2)).sum();
        let v = probes(count, reference.len(), self.seed, number);
        let along: Vec<f64> = v
            .chunks_exact(reference.len())
            .map(|v| v.iter().zip(&error).map(|(v, e)| f64::from(v * e)).sum())
            .collect();
        let mut tables = Tables::default();
        self.executor.gate_gradients(&tape, &v, &mut |gate| self.gate(&gate, &along, &mut tables, &mut sums));
        sums
    }

    fn gate(&self, gate: &GateView<'_>, along: &[f64], tables: &mut Tables, sums: &mut Linear) {
        let Some(layer) = self.targets.layer_of(gate.node) else { return };
        let [h, w] = layer.map;
        let (pixels, len) = (h * w, gate.operand.len());
        let mut products = vec![0.0; layer.menu.len() * along.len()];
        for channel in 0..layer.channels {
            let z = &gate.operand[channel * pixels..(channel + 1) * pixels];
            let gradient = |p: usize| &gate.gradient[p * len + channel * pixels..][..pixels];
            let present = self.present[layer.first_class + channel];
            let options = &mut sums.options[layer.choices(channel)];
            let class = &mut sums.classes[layer.first_class + channel];
            for (lane, e) in along.chunks(LANES).enumerate() {
                let first = lane * LANES;
                tables.fill(z, [h, w], std::array::from_fn(|i| (i < e.len()).then(|| gradient(first + i))));
                let now = tables.gated(present);
                for (j, block) in layer.menu.iter().enumerate() {
                    let then = tables.gated(*block);
                    if lane == 0 {
                        options[j].mean += then[0] - now[0];
                        options[j].largest = options[j].largest.max(tables.largest);
                    }
                    for i in 0..e.len() {
                        products[j * along.len() + first + i] = then[i + 1] - now[i + 1];
                    }
                }
                for (i, e) in e.iter().enumerate() {
                    let whole = tables.gradient[i];
                    class.square += whole * whole;
                    class.residual += whole * e;
                    for (j, o) in options.iter_mut().enumerate() {
                        let a = products[j * along.len() + first + i];
                        o.square += a * a;
                        o.residual += a * e;
                        o.drift += a * whole;
                    }
                }
            }
            for (o, a) in options.iter_mut().zip(products.chunks_exact(along.len())) {
                let mean = a.iter().map(|a| a * a).sum::<f64>() / along.len() as f64;
                o.spread += mean * mean;
            }
        }
    }
}

/// Largest magnitude of a block's sum by choice, of one image's gate operands.
pub(super) fn largest<'v>(targets: &Targets, operand: impl Fn(bcc_ir::graph::NodeId) -> &'v [f32]) -> Vec<f64> {
    let mut largest = Vec::with_capacity(targets.options());
    let mut tables = Tables::default();
    for layer in &targets.layers {
        for z in operand(layer.node).chunks_exact(layer.pixels()) {
            tables.fill(z, layer.map, [None; LANES]);
            for block in &layer.menu {
                tables.gated(*block);
                largest.push(tables.largest);
            }
        }
    }
    largest
}

/// Sums of `z` and of `g z` for some probes.
type Sums = [f64; LANES + 1];

/// Summed-area tables of one channel's map.
#[derive(Default)]
struct Tables {
    map: [usize; 2],
    /// `[h + 1, w + 1]`: sums over all pixels above and to the left.
    sums: Vec<Sums>,
    /// Sums over the pixels where `z` is not negative.
    relu: Sums,
    /// Sums of `g`.
    gradient: [f64; LANES],
    /// Largest magnitude of a pixel.
    pixel: f64,
    /// Largest magnitude of a block's sum, of the blocks that were gated last; 0 without blocks.
    largest: f64,
}

impl Tables {
    fn fill(&mut self, z: &[f32], [h, w]: [usize; 2], g: [Option<&[f32]>; LANES]) {
        self.map = [h, w];
        self.sums.clear();
        self.sums.resize((h + 1) * (w + 1), [0.0; LANES + 1]);
        self.relu = [0.0; LANES + 1];
        self.pixel = z.iter().fold(0.0, |m, v| m.max(f64::from(v.abs())));
        self.gradient = g.map(|g| g.map_or(0.0, |g| g.iter().map(|x| f64::from(*x)).sum()));
        let zeros = vec![0.0f32; z.len()];
        let g = g.map(|g| g.unwrap_or(&zeros));
        for y in 0..h {
            let mut row = [0.0; LANES + 1];
            let (above, own) = self.sums.split_at_mut((y + 1) * (w + 1));
            let above = &above[y * (w + 1)..];
            for x in 0..w {
                let p = y * w + x;
                let value = f64::from(z[p]);
                let mut pixel = [value; LANES + 1];
                for i in 0..LANES {
                    pixel[i + 1] *= f64::from(g[i][p]);
                }
                let open = if value < 0.0 { 0.0 } else { 1.0 };
                for i in 0..=LANES {
                    row[i] += pixel[i];
                    self.relu[i] += open * pixel[i];
                    own[x + 1][i] = above[x + 1][i] + row[i];
                }
            }
        }
    }

    /// Sums of the gated map, and of its products with the gradients.
    fn gated(&mut self, block: Block) -> Sums {
        let [h, w] = self.map;
        self.largest = if block == Block::RELU { self.pixel } else { 0.0 };
        match block {
            Block::Zero => [0.0; LANES + 1],
            Block::Identity => self.sums[self.sums.len() - 1],
            Block::RELU => self.relu,
            Block::Patch { h: bh, w: bw } => {
                let mut total = [0.0; LANES + 1];
                let mut largest = 0.0f64;
                for top in (0..h).step_by(bh) {
                    let row = |y: usize| &self.sums[y * (w + 1)..(y + 1) * (w + 1)];
                    let (above, below) = (row(top), row(h.min(top + bh)));
                    let edge = |x: usize| -> Sums { std::array::from_fn(|i| below[x][i] - above[x][i]) };
                    let mut left = edge(0);
                    for start in (0..w).step_by(bw) {
                        let right = edge(w.min(start + bw));
                        let sum = right[0] - left[0];
                        let open = if sum < 0.0 { 0.0 } else { 1.0 };
                        largest = largest.max(sum.abs());
                        for i in 0..=LANES {
                            total[i] += open * (right[i] - left[i]);
                        }
                        left = right;
                    }
                }
                self.largest = largest;
                total
            }
        }
    }
}
