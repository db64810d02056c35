//! Correction without training: what blocks do to the values, the linear layers behind them take
//! back as far as they can, on calibration data. It changes weights alone and is free at run time.
//!
//! The layers are taken in order. A layer reads what the network with blocks, corrected so far,
//! gives it, and is fitted so that its result comes closest to that of the network with all ReLUs.
//! Where its result goes to a sum whose other summand is there already, it is the sum that is
//! fitted: the residual branch makes good what the shortcut lost. The module `fit` has the algebra.
//!
//! Re-centring batch norms after quantization is known as bias correction (Nagel et al. 2019,
//! arXiv 1906.04721); fitting layer by layer on the activations of the changed network is how pruned
//! channels are made good (He et al. 2017, arXiv 1707.06168).

mod fit;
mod spd;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bcc_ir::Block;
use bcc_ir::graph::{ConstData, Graph, NodeId, Op};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::PassOptions;
use super::range::{RangeError, check_images};
use crate::float::{evaluate, reals};
use fit::{Parameters, Samples};

/// What of a layer is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Correction {
    /// Its bias: every channel keeps its mean.
    Mean,
    /// Its bias and one factor per channel.
    Scale,
    /// All its weights, by ridge regression.
    Weights,
}

impl fmt::Display for Correction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Correction::Mean => "mean",
            Correction::Scale => "scale",
            Correction::Weights => "weights",
        })
    }
}

/// A word that names no correction.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{0}\" is no correction: write mean, scale, weights or none")]
pub struct UnknownCorrection(String);

impl FromStr for Correction {
    type Err = UnknownCorrection;

    fn from_str(text: &str) -> Result<Correction, UnknownCorrection> {
        match text {
            "mean" => Ok(Correction::Mean),
            "scale" => Ok(Correction::Scale),
            "weights" => Ok(Correction::Weights),
            other => Err(UnknownCorrection(other.into())),
        }
    }
}

/// Why nothing can be corrected.
#[derive(Debug, Error)]
pub enum CorrectError {
    /// No calibration images.
    #[error("--correct {0} fits weights to calibration images: give some (--calib images.npz), or --correct none")]
    NoImages(Correction),
    /// Images that do not fit.
    #[error(transparent)]
    Images(#[from] RangeError),
}

/// Values of one node, by image.
pub(crate) type Values = Vec<Vec<f32>>;

/// Corrects the layers behind gates with blocks; see the module. Without a correction among the
/// options, or where all ReLUs are kept, nothing changes.
pub fn run(graph: &mut Graph, options: &PassOptions) -> Result<(), CorrectError> {
    let Some(correction) = options.correct else { return Ok(()) };
    if let Some(done) = &options.corrected {
        graph.clone_from(done);
        return Ok(());
    }
    let changed = |blocks: &[Block]| blocks.iter().any(|b| *b != Block::RELU);
    let planned =
        |id: &NodeId| matches!(&graph.node(*id).op, Op::BlockRelu { blocks, plannable: true } if changed(blocks));
    if !graph.topo().iter().any(planned) {
        return Ok(());
    }
    if options.calibration.is_empty() {
        return Err(CorrectError::NoImages(correction));
    }
    check_images(graph, &options.calibration)?;
    correct(graph, &options.calibration, correction);
    Ok(())
}

/// Corrects a graph with blocks on images of its input's size; the output of each.
pub(crate) fn correct(graph: &mut Graph, images: &[Vec<f32>], correction: Correction) -> Values {
    let mut original = graph.clone();
    for id in original.topo() {
        if let Op::BlockRelu { blocks, plannable: true } = &mut original.node_mut(id).op {
            blocks.fill(Block::RELU);
        }
    }
    let mut walk = Walk { images, old: BTreeMap::new(), new: BTreeMap::new() };
    let order = graph.topo();
    let mut left: BTreeMap<NodeId, usize> = order.iter().map(|&id| (id, graph.users(id).len())).collect();
    let output = graph.output();
    if let Some(n) = output.and_then(|id| left.get_mut(&id)) {
        *n += 1;
    }
    for &id in &order {
        walk.step(&original, graph, id, correction);
        let mut operands = graph.operands(id);
        operands.dedup();
        for o in operands {
            let n = left.entry(o).or_default();
            *n = n.saturating_sub(1);
            if *n == 0 {
                walk.old.remove(&o);
                walk.new.remove(&o);
            }
        }
    }
    graph.remove_dead();
    output.and_then(|id| walk.new.remove(&id).or_else(|| walk.old.remove(&id))).unwrap_or_default()
}

/// Values of the original network and of the corrected one, of the nodes that are still read.
struct Walk<'a> {
    images: &'a [Vec<f32>],
    old: BTreeMap<NodeId, Values>,
    /// Only of nodes behind a gate with blocks.
    new: BTreeMap<NodeId, Values>,
}

impl Walk<'_> {
    fn step(&mut self, original: &Graph, graph: &mut Graph, id: NodeId, correction: Correction) {
        let old = self.values(original, id, |o| self.old.get(o));
        let reads = graph.operands(id).iter().any(|o| self.new.contains_key(o));
        if reads || graph.node(id).op != original.node(id).op {
            let mut new = self.values(graph, id, |o| self.present(o));
            if graph.node(id).op.is_linear_layer() {
                self.fit(graph, id, &old, &new, correction);
                new = self.values(graph, id, |o| self.present(o));
            }
            self.new.insert(id, new);
        }
        self.old.insert(id, old);
    }

    /// Values of a node in the corrected network.
    fn present(&self, id: &NodeId) -> Option<&Values> {
        self.new.get(id).or_else(|| self.old.get(id))
    }

    /// A node's values from those of its operands.
    fn values<'v>(&'v self, graph: &Graph, id: NodeId, of: impl Fn(&NodeId) -> Option<&'v Values>) -> Values {
        let operands: Vec<&Values> = graph.operands(id).iter().filter_map(of).collect();
        let one = |i: usize| match operands.is_empty() {
            true => self.images[i].clone(),
            false => evaluate(graph, id, operands.iter().map(|v| Cow::Borrowed(v[i].as_slice())).collect()),
        };
        (0..self.images.len()).into_par_iter().map(one).collect()
    }

    fn fit(&self, graph: &mut Graph, id: NodeId, old: &Values, new: &Values, correction: Correction) {
        let Some(shape) = graph.conv_shape(id) else { return };
        let (weight, bias) = match graph.node(id).op {
            Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } => (weight, bias),
            _ => return,
        };
        let mut p = Parameters {
            weight: reals(graph, weight).to_vec(),
            bias: bias.map_or_else(|| vec![0.0; shape.out_channels], |b| reals(graph, b).to_vec()),
        };
        let shifted = self.behind_sum(graph, id, old);
        let Some(operand) = self.present(&graph.operand(id)) else { return };
        Samples { shape, operand, result: new, target: shifted.as_ref().unwrap_or(old) }.fit(correction, &mut p);
        if p.weight.iter().chain(&p.bias).any(|v| !v.is_finite()) {
            return;
        }
        let (name, dims) = (graph.constant(weight).name.clone(), graph.constant(weight).shape.clone());
        let bias_name =
            bias.map_or_else(|| format!("{}.bias", graph.node(id).name), |b| graph.constant(b).name.clone());
        let new_weight = graph.add_const(name, dims, ConstData::Float(p.weight));
        let new_bias = graph.add_const(bias_name, vec![shape.out_channels], ConstData::Float(p.bias));
        if let Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } = &mut graph.node_mut(id).op {
            *weight = new_weight;
            *bias = Some(new_bias);
        }
    }

    /// What a layer should yield so that the sum it alone goes to is the original's; `None` where it
    /// goes elsewhere, or the other summand is not there yet.
    fn behind_sum(&self, graph: &Graph, id: NodeId, old: &Values) -> Option<Values> {
        let [sum] = graph.users(id)[..] else { return None };
        if graph.node(sum).op != Op::Add {
            return None;
        }
        let other = graph.operands(sum).into_iter().find(|o| *o != id)?;
        let (before, now) = (self.old.get(&other)?, self.new.get(&other)?);
        let one = |i: usize| {
            let lost = before[i].iter().zip(&now[i]).map(|(b, n)| b - n);
            old[i].iter().zip(lost).map(|(y, l)| y + l).collect()
        };
        Some((0..old.len()).into_par_iter().map(one).collect())
    }
}
