//! Distortion as the paper defines it: change one channel alone, run the rest of the network, and
//! take the mean squared change of the output (arXiv 2304.10442). The ground truth for
//! [`super::linear`], and affordable for small networks.

use bcc_ir::Block;
use rayon::prelude::*;

use super::target::{Layer, Targets};
use crate::float::{Executor, block_relu};

/// What the exact distortions are taken around.
pub struct Exact<'a> {
    /// The network with its present blocks.
    pub executor: &'a Executor<'a>,
    /// Channels and choices.
    pub targets: &'a Targets,
    /// Present block of every class.
    pub present: &'a [Block],
    /// Images with the outputs they should have.
    pub images: &'a [(&'a [f32], &'a [f32])],
    /// Whether the mean of what a choice changes in its channel is given back.
    pub centred: bool,
}

impl Exact<'_> {
    /// Losses of the given choices of a layer's channels, as `(channel, choice)`: by how much each
    /// changes the mean squared error per output element. `done` is called once per image.
    pub fn losses(&self, layer: &Layer, pairs: &[(usize, usize)], done: &(dyn Fn() + Sync)) -> Vec<f64> {
        let means = if self.centred { self.means(layer, pairs) } else { vec![0.0; pairs.len()] };
        let one = |(x, reference): &(&[f32], &[f32])| -> Vec<f64> {
            let values = self.executor.values(x);
            let before = squares(values.output(), reference);
            let result = pairs.iter().zip(&means).map(|(&(channel, choice), mean)| {
                let map = self.map(layer, values.operand_of(layer.node), channel, layer.menu[choice]);
                let mut changed = values.value_of(layer.node).to_vec();
                let pixels = layer.pixels();
                let target = &mut changed[channel * pixels..(channel + 1) * pixels];
                target.iter_mut().zip(&map).for_each(|(t, m)| *t = m - *mean as f32);
                squares(&values.run_from(layer.node, changed), reference) - before
            });
            let result = result.collect();
            done();
            result
        };
        let each: Vec<Vec<f64>> = self.images.par_iter().map(one).collect();
        let elements = self.images.iter().map(|i| i.1.len()).sum::<usize>() as f64;
        (0..pairs.len()).map(|i| each.iter().map(|e| e[i]).sum::<f64>() / elements).collect()
    }

    /// The channel's map under a block.
    fn map(&self, layer: &Layer, z: &[f32], channel: usize, block: Block) -> Vec<f32> {
        let pixels = layer.pixels();
        let mut map = z[channel * pixels..(channel + 1) * pixels].to_vec();
        block_relu(&mut map, &[1, 1, layer.map[0], layer.map[1]], &[block]);
        map
    }

    /// Mean change of the channel's pixels for every pair.
    fn means(&self, layer: &Layer, pairs: &[(usize, usize)]) -> Vec<f64> {
        let sum = |m: &[f32]| m.iter().map(|v| f64::from(*v)).sum::<f64>();
        let one = |(x, _): &(&[f32], &[f32])| -> Vec<f64> {
            let values = self.executor.values(x);
            let z = values.operand_of(layer.node);
            let change = |&(channel, choice): &(usize, usize)| {
                let present = self.present[layer.first_class + channel];
                sum(&self.map(layer, z, channel, layer.menu[choice])) - sum(&self.map(layer, z, channel, present))
            };
            pairs.iter().map(change).collect()
        };
        let each: Vec<Vec<f64>> = self.images.par_iter().map(one).collect();
        let pixels = (self.images.len() * layer.pixels()) as f64;
        (0..pairs.len()).map(|i| each.iter().map(|e| e[i]).sum::<f64>() / pixels).collect()
    }
}

fn squares(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}
