//! The clear twin of a compiled network: a quantized graph run on plain integers.
//!
//! Every node but [`Op::Truncate`] has one exact integer result, which the three parties' result
//! equals. A truncation by `f` bits yields `floor(v / 2^f)` or one more, depending on the client's
//! masks; the twin rounds to the nearest, which is one of the two.

use std::collections::BTreeMap;

use bcc_ir::geometry::{Block, ConvShape, PoolShape};
use bcc_ir::graph::{ConstData, ConstId, Graph, NodeId, Op, resample};
use thiserror::Error;

use crate::float::concat;

/// Why a value cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TwinError {
    /// An input of another length than the network's.
    #[error("the input has {found} values, the network takes {expected}")]
    Length {
        /// Values given.
        found: usize,
        /// Values taken.
        expected: usize,
    },
    /// A value beyond what its modulus holds.
    #[error("node \"{node}\" reaches {value} units, more than its {modulus} bits hold")]
    Overflow {
        /// Node.
        node: String,
        /// The value.
        value: i64,
        /// Modulus width.
        modulus: u8,
    },
    /// A block's sum beyond what the modulus holds: its sign would be decided wrongly.
    #[error("a block of \"{node}\" sums up to {value} units, more than {modulus} bits hold")]
    BlockSum {
        /// Node.
        node: String,
        /// The sum.
        value: i128,
        /// Modulus width.
        modulus: u8,
    },
    /// An operator that quantized graphs do not have.
    #[error("node \"{0}\" does not belong to a quantized graph")]
    Unquantized(String),
}

/// Encodes real values for a node: the nearest integers to `x * 2^frac / gain`.
pub fn encode(graph: &Graph, id: NodeId, values: &[f32]) -> Vec<i64> {
    let unit = graph.node(id).fixed.map_or(1.0, |f| f.unit());
    values.iter().map(|x| (f64::from(*x) / unit).round() as i64).collect()
}

/// Decodes integers of a node to real values.
pub fn decode(graph: &Graph, id: NodeId, values: &[i64]) -> Vec<f64> {
    let unit = graph.node(id).fixed.map_or(1.0, |f| f.unit());
    values.iter().map(|v| *v as f64 * unit).collect()
}

/// Runs a quantized graph; `see` gets every node's integers. Yields those of the output.
pub fn run(graph: &Graph, input: &[i64], see: &mut dyn FnMut(NodeId, &[i64])) -> Result<Vec<i64>, TwinError> {
    let mut values: BTreeMap<NodeId, Vec<i64>> = BTreeMap::new();
    let mut left: BTreeMap<NodeId, usize> = graph.topo().into_iter().map(|id| (id, graph.users(id).len())).collect();
    left.entry(graph.output().unwrap_or_default()).and_modify(|n| *n += 1);
    for id in graph.topo() {
        let node = graph.node(id);
        let value = if matches!(node.op, Op::Input) {
            if input.len() != node.len() {
                return Err(TwinError::Length { found: input.len(), expected: node.len() });
            }
            input.to_vec()
        } else {
            let operands: Vec<&[i64]> = graph.operands(id).iter().map(|o| values[o].as_slice()).collect();
            step(graph, id, &operands)?
        };
        fits(graph, id, &value)?;
        see(id, &value);
        values.insert(id, value);
        let mut operands = graph.operands(id);
        operands.dedup();
        for o in operands {
            let users = left.entry(o).or_default();
            *users = users.saturating_sub(1);
            if *users == 0 {
                values.remove(&o);
            }
        }
    }
    Ok(graph.output().and_then(|o| values.remove(&o)).unwrap_or_default())
}

/// Checks that values lie within half the modulus of their node.
pub fn fits(graph: &Graph, id: NodeId, values: &[i64]) -> Result<(), TwinError> {
    let node = graph.node(id);
    let modulus = node.fixed.map_or(64, |f| f.modulus);
    let half = 1i128 << (modulus - 1);
    match values.iter().find(|v| i128::from(**v) < -half || i128::from(**v) >= half) {
        Some(&value) => Err(TwinError::Overflow { node: node.name.clone(), value, modulus }),
        None => Ok(()),
    }
}

/// One node's integers from those of its operands.
pub fn step(graph: &Graph, id: NodeId, operands: &[&[i64]]) -> Result<Vec<i64>, TwinError> {
    let node = graph.node(id);
    let unquantized = || TwinError::Unquantized(node.name.clone());
    let x = operands.first().copied().unwrap_or(&[]);
    let shape = graph.operands(id).first().map(|o| graph.node(*o).shape.clone()).unwrap_or_default();
    Ok(match &node.op {
        Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } => {
            let shape = graph.conv_shape(id).ok_or_else(unquantized)?;
            let ints = |c: ConstId| match &graph.constant(c).data {
                ConstData::Int(v) => Ok(v.as_slice()),
                ConstData::Float(_) => Err(unquantized()),
            };
            conv(&shape, x, ints(*weight)?, bias.map(ints).transpose()?)
        }
        Op::Add => x.iter().zip(operands[1]).map(|(a, b)| a.wrapping_add(*b)).collect(),
        Op::Sub => x.iter().zip(operands[1]).map(|(a, b)| a.wrapping_sub(*b)).collect(),
        Op::Truncate { bits } => {
            let half = if *bits == 0 { 0 } else { 1i64 << (bits - 1) };
            x.iter().map(|v| v.wrapping_add(half) >> bits).collect()
        }
        Op::SumPool { .. } => sum_pool(&graph.pool_shape(id).ok_or_else(unquantized)?, x),
        Op::Divide { numerator, divisors, .. } => {
            let factors: Vec<i64> = divisors.iter().map(|d| (*numerator as f64 / *d as f64).round() as i64).collect();
            x.chunks_exact(factors.len())
                .flat_map(|c| c.iter().zip(&factors).map(|(v, f)| v.wrapping_mul(*f)))
                .collect()
        }
        Op::BlockRelu { blocks, .. } => {
            let modulus = graph.node(graph.operand(id)).fixed.map_or(64, |f| f.modulus);
            block_relu(blocks, node.map().ok_or_else(unquantized)?.1, x, modulus)
                .map_err(|value| TwinError::BlockSum { node: node.name.clone(), value, modulus })?
        }
        Op::Clip { low, high } => {
            let unit = node.fixed.ok_or_else(unquantized)?.unit();
            let units = |b: &Option<f64>| b.map(|b| (b / unit).round() as i64);
            let (low, high) = (units(low).unwrap_or(i64::MIN), units(high).unwrap_or(i64::MAX));
            x.iter().map(|v| (*v).max(low).min(high)).collect()
        }
        Op::Tag { bits } => {
            let per_channel = node.map().map_or(1, |(_, [h, w])| h * w);
            let tag = |(i, v): (usize, &i64)| (v << bits).wrapping_sub((i / per_channel) as i64);
            x.iter().enumerate().map(tag).collect()
        }
        Op::LowBits { bits } => x.iter().map(|v| (v << (64 - bits)) >> (64 - bits)).collect(),
        Op::Gather { axis, indices } => {
            let inner: usize = shape[axis + 1..].iter().product();
            let rows = x.chunks_exact(shape[*axis] * inner);
            rows.flat_map(|r| indices.iter().flat_map(move |i| &r[i * inner..(i + 1) * inner])).copied().collect()
        }
        Op::Scatter { axis, size, indices } => {
            let inner: usize = shape[axis + 1..].iter().product();
            let mut out = vec![0; x.len() / shape[*axis] * size];
            for (slab, source) in out.chunks_exact_mut(size * inner).zip(x.chunks_exact(shape[*axis] * inner)) {
                for (piece, i) in source.chunks_exact(inner).zip(indices) {
                    slab[i * inner..(i + 1) * inner].copy_from_slice(piece);
                }
            }
            out
        }
        Op::Concat { axis, .. } => concat(operands, &graph.rows(id, *axis)),
        Op::Resample { axis, samples, bits } => resample(x, &shape, *axis, samples, |s, a, b| {
            let [low, high] = s.factors(*bits).map(|f| f as i64);
            a.wrapping_mul(low).wrapping_add(b.wrapping_mul(high))
        }),
        Op::Pad { pad: [t, l, b, r] } => {
            let &[_, _, h, w] = shape.as_slice() else { return Err(unquantized()) };
            let (oh, ow) = (h + t + b, w + l + r);
            let mut out = vec![0; x.len() / (h * w) * oh * ow];
            for (map, source) in out.chunks_exact_mut(oh * ow).zip(x.chunks_exact(h * w)) {
                for y in 0..h {
                    map[(y + t) * ow + l..][..w].copy_from_slice(&source[y * w..][..w]);
                }
            }
            out
        }
        Op::Transpose { perm } => transpose(&shape, perm, x),
        Op::Reshape { .. } | Op::Remask | Op::Refresh => x.to_vec(),
        Op::Input | Op::Affine { .. } | Op::AvgPool { .. } | Op::MaxPool { .. } | Op::Identity => {
            return Err(unquantized());
        }
    })
}

fn conv(shape: &ConvShape, x: &[i64], w: &[i64], bias: Option<&[i64]>) -> Vec<i64> {
    let [oh, ow] = shape.output().unwrap_or([0, 0]);
    let [h, wd] = shape.input;
    let [kh, kw] = shape.window.kernel;
    let (per_in, per_out) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let mut out = vec![0i64; shape.out_channels * oh * ow];
    for (o, map) in out.chunks_exact_mut(oh * ow).enumerate() {
        if let Some(b) = bias {
            map.fill(b[o]);
        }
        for i in 0..per_in {
            let source = &x[(o / per_out * per_in + i) * h * wd..][..h * wd];
            for ky in 0..kh {
                for kx in 0..kw {
                    let f = w[((o * per_in + i) * kh + ky) * kw + kx];
                    for y in 0..oh {
                        let sy = shape.window.position(0, y, ky);
                        if sy < 0 || sy >= h as isize {
                            continue;
                        }
                        let row = &source[sy as usize * wd..][..wd];
                        for (xo, v) in map[y * ow..][..ow].iter_mut().enumerate() {
                            let sx = shape.window.position(1, xo, kx);
                            if sx >= 0 && sx < wd as isize {
                                *v = v.wrapping_add(f.wrapping_mul(row[sx as usize]));
                            }
                        }
                    }
                }
            }
        }
    }
    out
}

fn sum_pool(pool: &PoolShape, x: &[i64]) -> Vec<i64> {
    let [h, w] = pool.input;
    let [oh, ow] = pool.window.output(h, w).unwrap_or([0, 0]);
    let taps = |axis: usize, o: usize, n: usize| {
        (0..pool.window.kernel[axis])
            .map(move |t| pool.window.position(axis, o, t))
            .filter(move |p| (0..n as isize).contains(p))
            .map(|p| p as usize)
    };
    let mut out = Vec::with_capacity(pool.channels * oh * ow);
    for map in x.chunks_exact(h * w) {
        for y in 0..oh {
            for xo in 0..ow {
                let sum = taps(0, y, h).flat_map(|sy| taps(1, xo, w).map(move |sx| map[sy * w + sx]));
                out.push(sum.fold(0i64, i64::wrapping_add));
            }
        }
    }
    out
}

/// The gated maps, or a block's sum that the modulus does not hold.
fn block_relu(blocks: &[Block], [h, w]: [usize; 2], x: &[i64], modulus: u8) -> Result<Vec<i64>, i128> {
    let half = 1i128 << (modulus - 1);
    let mut out = x.to_vec();
    for (block, map) in blocks.iter().zip(out.chunks_exact_mut(h * w)) {
        match *block {
            Block::Identity => {}
            Block::Zero => map.fill(0),
            Block::Patch { h: bh, w: bw } => {
                for y in (0..h).step_by(bh) {
                    for xo in (0..w).step_by(bw) {
                        let pixels = (y..(y + bh).min(h)).flat_map(|r| (xo..(xo + bw).min(w)).map(move |c| r * w + c));
                        let sum: i128 = pixels.clone().map(|p| i128::from(map[p])).sum();
                        if !(-half..half).contains(&sum) {
                            return Err(sum);
                        }
                        if sum < 0 {
                            pixels.for_each(|p| map[p] = 0);
                        }
                    }
                }
            }
        }
    }
    Ok(out)
}

fn transpose(shape: &[usize], perm: &[usize], x: &[i64]) -> Vec<i64> {
    let mut strides = vec![1usize; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * shape[i + 1];
    }
    let mut out = Vec::with_capacity(x.len());
    let mut index = vec![0usize; perm.len()];
    for _ in 0..x.len() {
        out.push(x[perm.iter().zip(&index).map(|(p, i)| strides[*p] * i).sum::<usize>()]);
        for axis in (0..perm.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[perm[axis]] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}
