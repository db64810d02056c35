//! Interval arithmetic through a graph, one interval per channel.
//!
//! On a graph of real numbers this bounds the exact network; on a quantized one it bounds the
//! fixed-point values themselves, with integer weights and the error of every truncation, in real
//! units.

use std::collections::BTreeMap;

use super::{ConstData, ConstId, Evidence, Graph, NodeId, Op, map_of};
use crate::geometry::{Block, ConvShape};

/// `lo <= x <= hi`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

impl Interval {
    /// `-bound ..= bound`.
    pub fn symmetric(bound: f64) -> Self {
        Interval { lo: -bound, hi: bound }
    }

    /// Largest magnitude.
    pub fn bound(self) -> f64 {
        self.lo.abs().max(self.hi.abs())
    }

    fn with_zero(self) -> Self {
        Interval { lo: self.lo.min(0.0), hi: self.hi.max(0.0) }
    }

    fn hull(self, other: Self) -> Self {
        Interval { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi) }
    }

    fn scaled(self, f: f64) -> Self {
        let (a, b) = (self.lo * f, self.hi * f);
        Interval { lo: a.min(b), hi: a.max(b) }
    }

    fn plus(self, other: Self) -> Self {
        Interval { lo: self.lo + other.lo, hi: self.hi + other.hi }
    }

    fn clipped(self, bound: f64) -> Self {
        Interval { lo: self.lo.max(-bound), hi: self.hi.min(bound) }
    }
}

/// Intervals of one node, one per channel (axis 1; a single one for shapes without channels).
pub type Channels = Vec<Interval>;

fn hull(channels: &[Interval]) -> Interval {
    channels.iter().copied().reduce(Interval::hull).unwrap_or(Interval { lo: 0.0, hi: 0.0 })
}

/// Largest magnitude over the channels.
pub fn bound(channels: &[Interval]) -> f64 {
    hull(channels).bound()
}

/// Intervals of every node. The input's node must have a range. Where a node's range is
/// [`Evidence::Observed`], its own interval is cut to it before it goes on; `derived` tells the
/// interval before that cut.
pub fn propagate(graph: &Graph) -> BTreeMap<NodeId, Bounds> {
    let mut all: BTreeMap<NodeId, Bounds> = BTreeMap::new();
    for id in graph.topo() {
        let operands: Vec<&Bounds> = graph.operands(id).iter().filter_map(|o| all.get(o)).collect();
        if operands.len() != graph.node(id).op.arity() {
            continue;
        }
        let bounds = step(graph, id, &operands);
        all.insert(id, bounds);
    }
    all
}

/// What interval arithmetic says of one node.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Intervals that follow from the operands.
    pub derived: Channels,
    /// The same, cut to an observed range.
    pub channels: Channels,
    /// Whether no observed range went into `channels`.
    pub proven: bool,
}

/// Bounds of one node from those of its operands.
pub fn step(graph: &Graph, id: NodeId, operands: &[&Bounds]) -> Bounds {
    let node = graph.node(id);
    let inputs: Vec<&[Interval]> = operands.iter().map(|b| b.channels.as_slice()).collect();
    let mut derived = transfer(graph, id, &inputs);
    // Channels are those of `[1, c, ..]` shapes alone; other shapes have one interval.
    let count = map_of(&node.shape).map_or(1, |(c, _)| c);
    if derived.len() != count {
        derived = vec![hull(&derived); count];
    }
    let mut proven = operands.iter().all(|b| b.proven);
    let mut channels = derived.clone();
    if let Some(range) = node.range
        && matches!(range.evidence, Evidence::Observed { .. })
    {
        channels.iter_mut().for_each(|c| *c = c.clipped(range.bound));
        proven = false;
    }
    Bounds { derived, channels, proven }
}

fn transfer(graph: &Graph, id: NodeId, operands: &[&[Interval]]) -> Channels {
    let node = graph.node(id);
    let x = operands.first().copied().unwrap_or(&[]);
    let unit = node.fixed.map_or(0.0, |f| f.unit());
    let each = |f: &dyn Fn(Interval) -> Interval| x.iter().map(|c| f(*c)).collect::<Channels>();
    match &node.op {
        Op::Input => {
            let bound = node.range.map_or(f64::INFINITY, |r| r.bound);
            vec![Interval::symmetric(bound); map_of(&node.shape).map_or(1, |(c, _)| c)]
        }
        Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } => {
            let Some(shape) = graph.conv_shape(id) else { return vec![Interval::symmetric(f64::INFINITY)] };
            let operand = graph.node(graph.operand(id)).fixed.map_or(1.0, |f| f.unit());
            let (weight_unit, bias_unit) = if node.fixed.is_some() { (unit / operand, unit) } else { (1.0, 1.0) };
            linear(graph, &shape, (*weight, weight_unit), bias.map(|b| (b, bias_unit)), x)
        }
        Op::Affine { scale, shift } => {
            let (a, b) = (values(graph, *scale), values(graph, *shift));
            x.iter()
                .enumerate()
                .map(|(i, c)| {
                    let s = b.get(i).copied().unwrap_or(0.0);
                    c.scaled(a.get(i).copied().unwrap_or(1.0)).plus(Interval { lo: s, hi: s })
                })
                .collect()
        }
        Op::Add => x.iter().zip(operands[1]).map(|(a, b)| a.plus(*b)).collect(),
        Op::Sub => x.iter().zip(operands[1]).map(|(a, b)| a.plus(b.scaled(-1.0))).collect(),
        Op::Pad { .. } => each(&Interval::with_zero),
        Op::AvgPool { .. } => each(&Interval::with_zero),
        Op::MaxPool { .. } => x.to_vec(),
        Op::SumPool { divisor, .. } => {
            let Some(pool) = graph.pool_shape(id) else { return vec![Interval::symmetric(f64::INFINITY)] };
            let (fewest, most) = pool.positions();
            let divisor = *divisor as f64;
            each(&|c| c.scaled(fewest as f64 / divisor).hull(c.scaled(most as f64 / divisor)))
        }
        Op::Divide { numerator, divisors, .. } => {
            let one = *numerator as f64;
            let factors = divisors.iter().map(|d| (one / *d as f64).round() / one);
            let (lo, hi) = factors.fold((f64::INFINITY, 0.0f64), |(lo, hi), f| (lo.min(f), hi.max(f)));
            each(&|c| c.scaled(lo).hull(c.scaled(hi)))
        }
        Op::Gather { axis: 1, indices } => indices.iter().map(|i| x.get(*i).copied().unwrap_or(hull(x))).collect(),
        Op::Scatter { axis: 1, size, indices } if x.len() == indices.len() => {
            let mut all = vec![Interval { lo: 0.0, hi: 0.0 }; *size];
            for (c, i) in x.iter().zip(indices) {
                if let Some(at) = all.get_mut(*i) {
                    *at = *c;
                }
            }
            all
        }
        Op::Scatter { .. } => each(&Interval::with_zero),
        Op::Concat { axis: 1, .. } => operands.iter().flat_map(|o| o.iter().copied()).collect(),
        Op::Concat { .. } => {
            let same = operands.iter().all(|o| o.len() == x.len());
            let join =
                |a: Channels, b: &&[Interval]| -> Channels { a.iter().zip(*b).map(|(a, b)| a.hull(*b)).collect() };
            if same { operands.iter().fold(x.to_vec(), join) } else { operands.iter().map(|o| hull(o)).collect() }
        }
        // The factors of a sample add up to one, also as integers.
        Op::Resample { axis: 1, samples, .. } => {
            let of = |i: usize| x.get(i).copied().unwrap_or(hull(x));
            samples.iter().map(|s| of(s.low).hull(of(s.high))).collect()
        }
        Op::Resample { .. } => x.to_vec(),
        Op::Gather { .. } | Op::Identity | Op::Remask | Op::Refresh => x.to_vec(),
        Op::Truncate { .. } => each(&|c| Interval { lo: c.lo - unit, hi: c.hi + unit }),
        Op::BlockRelu { blocks, .. } => x
            .iter()
            .zip(blocks)
            .map(|(c, b)| match b {
                Block::Patch { h: 1, w: 1 } => Interval { lo: c.lo.max(0.0), hi: c.hi.max(0.0) },
                Block::Patch { .. } => c.with_zero(),
                Block::Identity => *c,
                Block::Zero => Interval { lo: 0.0, hi: 0.0 },
            })
            .collect(),
        Op::Clip { low, high } => {
            // In integers the bounds are whole units.
            let whole = |b: &Option<f64>| b.map(|b| if unit > 0.0 { (b / unit).round() * unit } else { b });
            let (low, high) = (whole(low).unwrap_or(f64::NEG_INFINITY), whole(high).unwrap_or(f64::INFINITY));
            each(&|c| Interval { lo: c.lo.max(low).min(high), hi: c.hi.max(low).min(high) })
        }
        // A unit of the result is less than one of the operand by the bits of a position.
        Op::Tag { .. } => x.iter().enumerate().map(|(i, c)| Interval { lo: c.lo - i as f64 * unit, ..*c }).collect(),
        Op::LowBits { bits } => {
            let half = (f64::from(*bits) - 1.0).exp2();
            each(&|_| Interval { lo: -half, hi: half - 1.0 })
        }
        Op::Reshape { shape } => {
            let n = map_of(shape).map_or(1, |(c, _)| c);
            if n == x.len() {
                x.to_vec()
            } else if n > x.len() && !x.is_empty() && n.is_multiple_of(x.len()) && node.len() == n {
                x.iter().flat_map(|c| std::iter::repeat_n(*c, n / x.len())).collect()
            } else {
                vec![hull(x); n]
            }
        }
        Op::Transpose { perm } => {
            if perm.get(1) == Some(&1) {
                x.to_vec()
            } else {
                vec![hull(x); map_of(&node.shape).map_or(1, |(c, _)| c)]
            }
        }
    }
}

fn values(graph: &Graph, id: ConstId) -> Vec<f64> {
    match graph.get_const(id).map(|c| &c.data) {
        Some(ConstData::Float(v)) => v.iter().map(|x| f64::from(*x)).collect(),
        Some(ConstData::Int(v)) => v.iter().map(|x| *x as f64).collect(),
        None => Vec::new(),
    }
}

fn linear(
    graph: &Graph,
    shape: &ConvShape,
    weight: (ConstId, f64),
    bias: Option<(ConstId, f64)>,
    x: &[Interval],
) -> Channels {
    let taps = shape.window.kernel[0] * shape.window.kernel[1];
    let (per_in, per_out) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let padded = shape.window.pad != [0; 4];
    let w = values(graph, weight.0);
    let b = bias.map(|(b, unit)| (values(graph, b), unit));
    (0..shape.out_channels)
        .map(|o| {
            let offset = b.as_ref().map_or(0.0, |(v, unit)| v.get(o).copied().unwrap_or(0.0) * unit);
            let mut sum = Interval { lo: offset, hi: offset };
            for i in 0..per_in {
                // A dense layer sees [1, n] or a flattened map: one interval per input either way.
                let Some(c) = x.get(o / per_out * per_in + i) else { return Interval::symmetric(f64::INFINITY) };
                let c = if padded { c.with_zero() } else { *c };
                let start = (o * per_in + i) * taps;
                for v in w.get(start..start + taps).unwrap_or(&[]) {
                    sum = sum.plus(c.scaled(v * weight.1));
                }
            }
            sum
        })
        .collect()
}
