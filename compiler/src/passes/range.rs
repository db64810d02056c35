//! Bounds on every value.
//!
//! Interval arithmetic from the input's bound and the weights gives a proven bound for every
//! channel ([`bcc_ir::graph::interval`]). It grows with depth, so calibration images tighten it:
//! at results of linear layers, sums and differences the bound becomes the largest magnitude seen
//! times a margin, but at least [`LEAST_OBSERVED`], where that is less. Such a bound is marked
//! observed; what follows from it by intervals is marked derived.

use std::collections::BTreeMap;

use bcc_ir::Block;
use bcc_ir::graph::{Evidence, Graph, NodeId, Op, Range, block_sum_factor, interval, map_of, sign_bound};
use rayon::prelude::*;
use thiserror::Error;

use super::PassOptions;
use crate::float::{Executor, Patch};

/// No observed bound is smaller: values that calibration left at zero may live on other images, and
/// small ones also carry the error of fixed point. It costs nothing, as larger values decide the
/// moduli.
pub const LEAST_OBSERVED: f64 = 1.0;

/// Why no bounds can be given.
#[derive(Debug, Error)]
pub enum RangeError {
    /// Neither calibration data nor a bound on the input.
    #[error("the range of the input is not known: give calibration images (--calib images.npz) or --input-bound")]
    NoInputRange,
    /// A calibration image that does not fit.
    #[error("calibration image {index} has {found} values, the network's input has {expected} ({shape:?})")]
    Shape {
        /// Image.
        index: usize,
        /// Its length.
        found: usize,
        /// The input's length.
        expected: usize,
        /// The input's shape.
        shape: Vec<usize>,
    },
    /// A calibration image with values that are no numbers.
    #[error("calibration image {index} holds a value that is not finite, at element {element}")]
    NotFinite {
        /// Image.
        index: usize,
        /// Element.
        element: usize,
    },
    /// The network itself yields values that are no numbers.
    #[error("on calibration image {index}, node \"{node}\" yields a value that is not finite; check the weights")]
    Diverges {
        /// Image.
        index: usize,
        /// Node.
        node: String,
    },
    /// A margin that is no factor of at least one.
    #[error("--margin {0}: a finite factor of 1 or more, so that an observed bound covers what was observed")]
    Margin(f64),
    /// A bound on the input that is no magnitude.
    #[error("--input-bound {0}: the largest magnitude of the input, a finite number above 0")]
    InputBound(f64),
    /// No bound at all.
    #[error("the bound of node \"{0}\" is not finite; give calibration images (--calib images.npz)")]
    Unbounded(String),
}

/// Largest magnitudes seen, by node: of the values, and of the block sums where a gate reads them.
#[derive(Clone, Default)]
struct Seen {
    value: BTreeMap<NodeId, f64>,
    sum: BTreeMap<NodeId, f64>,
}

/// Gives every node its range.
pub fn run(graph: &mut Graph, options: &PassOptions) -> Result<(), RangeError> {
    if !(options.margin >= 1.0 && options.margin.is_finite()) {
        return Err(RangeError::Margin(options.margin));
    }
    if let Some(bound) = options.input_bound.filter(|b| !(*b > 0.0 && b.is_finite())) {
        return Err(RangeError::InputBound(bound));
    }
    let seen = observe(graph, &options.calibration)?;
    let mut bounds: BTreeMap<NodeId, interval::Bounds> = BTreeMap::new();
    for id in graph.topo() {
        let observed = seen.value.get(&id).map(|v| (v * options.margin).max(LEAST_OBSERVED));
        let node = graph.node(id);
        if matches!(node.op, Op::Input) {
            let bound = options.input_bound.or(observed).ok_or(RangeError::NoInputRange)?;
            graph.node_mut(id).range = Some(Range { bound, evidence: Evidence::Proven, block_sum: None });
        }
        let operands = graph.operands(id);
        let inputs: Vec<&interval::Bounds> = operands.iter().map(|o| &bounds[o]).collect();
        let mut b = interval::step(graph, id, &inputs);
        let mut bound = interval::bound(&b.derived);
        let mut evidence = if b.proven { Evidence::Proven } else { Evidence::Derived };
        let node = graph.node(id);
        if let Some(o) = observed
            && matches!(node.op, Op::Conv { .. } | Op::Dense { .. } | Op::Add | Op::Sub)
            && o < bound
        {
            bound = o;
            evidence = Evidence::Observed { margin: options.margin };
        }
        if !bound.is_finite() {
            return Err(RangeError::Unbounded(node.name.clone()));
        }
        let pixel = inputs.first().map_or(0.0, |b| interval::bound(&b.channels));
        let block_sum = sign_bound(graph, id, pixel).map(|follows| {
            let factor = block_sum_factor(graph, id).unwrap_or(1);
            match seen.sum.get(&id).map(|s| (s * options.margin).max(LEAST_OBSERVED * factor as f64)) {
                Some(s) if s < follows && factor > 1 => (s, Evidence::Observed { margin: options.margin }),
                _ => (follows, if inputs[0].proven { Evidence::Proven } else { Evidence::Derived }),
            }
        });
        if !matches!(node.op, Op::Input) {
            graph.node_mut(id).range = Some(Range { bound, evidence, block_sum });
            b = interval::step(graph, id, &inputs);
        }
        bounds.insert(id, b);
    }
    Ok(())
}

/// Checks that images have the size of a graph's input and hold numbers.
pub(crate) fn check_images(graph: &Graph, images: &[Vec<f32>]) -> Result<(), RangeError> {
    let Some(input) = graph.input() else { return Ok(()) };
    let expected = graph.node(input).len();
    for (index, image) in images.iter().enumerate() {
        if image.len() != expected {
            let shape = graph.node(input).shape.clone();
            return Err(RangeError::Shape { index, found: image.len(), expected, shape });
        }
        if let Some(element) = image.iter().position(|x| !x.is_finite()) {
            return Err(RangeError::NotFinite { index, element });
        }
    }
    Ok(())
}

fn observe(graph: &Graph, images: &[Vec<f32>]) -> Result<Seen, RangeError> {
    check_images(graph, images)?;
    if images.is_empty() {
        return Ok(Seen::default());
    }
    let executor = Executor::new(graph);
    let gates: BTreeMap<NodeId, Vec<NodeId>> = graph
        .topo()
        .into_iter()
        .map(|id| {
            let reads = |u: &NodeId| matches!(graph.node(*u).op, Op::BlockRelu { .. });
            (id, graph.users(id).into_iter().filter(reads).collect())
        })
        .collect();
    let one = |(index, image): (usize, &Vec<f32>)| -> Result<Seen, RangeError> {
        let mut seen = Seen::default();
        let mut broken = None;
        executor.run_with(image, &mut |id, values| {
            let largest = values.iter().fold(0.0f32, |m, x| if x.is_nan() { f32::NAN } else { m.max(x.abs()) });
            if !largest.is_finite() && broken.is_none() {
                broken = Some(id);
            }
            seen.value.insert(id, f64::from(largest));
            for &gate in gates.get(&id).into_iter().flatten() {
                seen.sum.insert(gate, largest_sum(graph, gate, values));
            }
        });
        match broken {
            Some(id) => Err(RangeError::Diverges { index, node: graph.node(id).name.clone() }),
            None => Ok(seen),
        }
    };
    let all: Vec<Seen> = images.par_iter().enumerate().map(one).collect::<Result<_, _>>()?;
    Ok(all.into_iter().fold(Seen::default(), |mut all, one| {
        let larger = |into: &mut BTreeMap<NodeId, f64>, from: BTreeMap<NodeId, f64>| {
            for (id, v) in from {
                into.entry(id).and_modify(|m| *m = m.max(v)).or_insert(v);
            }
        };
        larger(&mut all.value, one.value);
        larger(&mut all.sum, one.sum);
        all
    }))
}

/// Largest magnitude of a block sum of a gate's operand.
fn largest_sum(graph: &Graph, gate: NodeId, values: &[f32]) -> f64 {
    let node = graph.node(gate);
    let (Op::BlockRelu { blocks, .. }, Some((_, [h, w]))) = (&node.op, map_of(&node.shape)) else { return 0.0 };
    let mut largest = 0.0f64;
    for (block, channel) in blocks.iter().zip(values.chunks_exact(h * w)) {
        let Block::Patch { h: bh, w: bw } = *block else { continue };
        for patch in Patch::all([h, w], [bh, bw]) {
            largest = largest.max(patch.sum(channel, w).abs());
        }
    }
    largest
}
