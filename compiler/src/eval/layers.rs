//! Every layer in fixed point, by the clear twin, against the float network with the same plan.

use std::collections::{BTreeMap, BTreeSet};

use bcc_ir::graph::{Graph, NodeId, Op};
use rayon::prelude::*;
use serde::Serialize;

use crate::float::Executor;
use crate::planner::Progress;
use crate::reference::Reference;
use crate::twin::{self, TwinError};

/// The error of a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerError {
    /// Name of the layer.
    pub name: String,
    /// Operator of the float network.
    pub op: String,
    /// Largest difference of a value, in real units.
    pub largest: f64,
    /// Mean magnitude of the differences, in real units.
    pub mean: f64,
    /// Largest magnitude of a value of the float network.
    pub range: f64,
    /// `largest / range`.
    pub relative_largest: f64,
    /// `mean / range`.
    pub relative_mean: f64,
    /// `relative_mean`, less that of the worst layer that it reads.
    pub growth: f64,
}

/// The errors of all layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LayerErrors {
    /// Images compared.
    pub images: usize,
    /// Images on which a value left its compiled range, so that the secure result is wrong.
    pub overflows: usize,
    /// The first such value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<String>,
    /// Layers, operands before users.
    pub layers: Vec<LayerError>,
    /// The layer of the largest growth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grows_at: Option<String>,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    largest: f64,
    sum: f64,
    values: u64,
    range: f64,
}

impl Sums {
    fn merge(self, other: Sums) -> Sums {
        Sums {
            largest: self.largest.max(other.largest),
            sum: self.sum + other.sum,
            values: self.values + other.values,
            range: self.range.max(other.range),
        }
    }
}

/// Nodes whose values are computed, not moved, with the quantized node of the same value: the last one where
/// truncations follow, or the division of an average.
fn pairs(planned: &Graph, fixed: &Graph) -> BTreeMap<NodeId, NodeId> {
    let computed = |op: &Op| {
        !matches!(
            op,
            Op::Input
                | Op::Identity
                | Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Pad { .. }
                | Op::Gather { .. }
                | Op::Scatter { .. }
        )
    };
    let pair = |id: NodeId| {
        let node = planned.node(id);
        let twin = fixed.find(&node.name).filter(|t| fixed.node(*t).len() == node.len())?;
        let mut last = twin;
        while let [user] = fixed.users(last)[..]
            && matches!(fixed.node(user).op, Op::Truncate { .. } | Op::Divide { .. })
        {
            last = user;
        }
        computed(&node.op).then_some((id, last))
    };
    planned.topo().into_iter().filter_map(pair).collect()
}

/// The compared nodes that a node reads, through those that are not compared.
fn reads(graph: &Graph, id: NodeId, compared: &BTreeMap<NodeId, NodeId>) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    let mut stack = graph.operands(id);
    while let Some(o) = stack.pop() {
        if compared.contains_key(&o) {
            found.insert(o);
        } else {
            stack.extend(graph.operands(o));
        }
    }
    found
}

/// Compares on images that fit the input.
pub(super) fn compare(reference: &Reference, images: &[Vec<f32>], progress: &dyn Progress) -> LayerErrors {
    let (planned, fixed) = (&reference.planned, &reference.fixed);
    let (Some(input), pairs) = (fixed.input(), pairs(planned, fixed)) else { return LayerErrors::default() };
    let back: BTreeMap<NodeId, NodeId> = pairs.iter().map(|(p, f)| (*f, *p)).collect();
    let executor = Executor::new(planned);
    let one = |image: &Vec<f32>| -> Result<BTreeMap<NodeId, Sums>, TwinError> {
        let mut real = BTreeMap::new();
        executor.run_with(image, &mut |id, v| {
            if pairs.contains_key(&id) {
                real.insert(id, v.to_vec());
            }
        });
        let mut sums = BTreeMap::new();
        let result = twin::run(fixed, &twin::encode(fixed, input, image), &mut |id, values| {
            let Some((node, real)) = back.get(&id).and_then(|p| Some((*p, real.remove(p)?))) else { return };
            let mut s = Sums { values: real.len() as u64, ..Sums::default() };
            for (have, want) in twin::decode(fixed, id, values).into_iter().zip(real) {
                let error = (have - f64::from(want)).abs();
                s.largest = s.largest.max(error);
                s.sum += error;
                s.range = s.range.max(f64::from(want).abs());
            }
            sums.insert(node, s);
        });
        progress.done(1);
        result.map(|_| sums)
    };
    let results: Vec<_> = images.par_iter().map(one).collect();
    let mut all: BTreeMap<NodeId, Sums> = BTreeMap::new();
    let mut errors = LayerErrors::default();
    for result in results {
        match result {
            Ok(sums) => {
                errors.images += 1;
                for (id, s) in sums {
                    let sum = all.entry(id).or_default();
                    *sum = sum.merge(s);
                }
            }
            Err(e) => {
                errors.overflows += 1;
                errors.overflow.get_or_insert_with(|| e.to_string());
            }
        }
    }
    let over = |x: f64, range: f64| if range > 0.0 { x / range } else { 0.0 };
    let relative = |s: &Sums| over(s.sum / s.values.max(1) as f64, s.range);
    for id in planned.topo() {
        let Some(s) = all.get(&id) else { continue };
        let before = reads(planned, id, &pairs).iter().filter_map(|o| all.get(o)).map(relative).fold(0.0, f64::max);
        errors.layers.push(LayerError {
            name: planned.node(id).name.clone(),
            op: planned.node(id).op.name().into(),
            largest: s.largest,
            mean: s.sum / s.values.max(1) as f64,
            range: s.range,
            relative_largest: over(s.largest, s.range),
            relative_mean: relative(s),
            growth: relative(s) - before,
        });
    }
    let most = errors.layers.iter().max_by(|a, b| a.growth.total_cmp(&b.growth));
    errors.grows_at = most.filter(|l| l.growth > 0.0).map(|l| l.name.clone());
    errors
}
