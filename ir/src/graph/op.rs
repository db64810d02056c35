//! Operators of the graph.

use serde::{Deserialize, Serialize};

use super::{ConstId, Sample};
use crate::geometry::{Block, Window};

/// What a node computes. Operand shapes are those of the operand nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// The client's input. No operand.
    Input,
    /// Convolution of a `[1, c, h, w]` map; weight `[out, c / groups, kh, kw]`, bias `[out]`.
    Conv {
        /// Weights.
        weight: ConstId,
        /// Bias.
        bias: Option<ConstId>,
        /// Window.
        window: Window,
        /// Channel groups.
        groups: usize,
    },
    /// Fully connected layer on `[1, in]`; weight `[out, in]`, bias `[out]`.
    Dense {
        /// Weights.
        weight: ConstId,
        /// Bias.
        bias: Option<ConstId>,
    },
    /// Per-channel affine map `scale[c] * x + shift[c]` (batch normalization, additions and
    /// multiplications by constants). Folded away or turned into a depthwise convolution.
    Affine {
        /// Factors, `[channels]`.
        scale: ConstId,
        /// Offsets, `[channels]`.
        shift: ConstId,
    },
    /// Element-wise sum of two tensors of one shape.
    Add,
    /// Element-wise difference of two tensors of one shape.
    Sub,
    /// Zeros around the map: top, left, bottom, right. No negative padding.
    Pad {
        /// Rows and columns added: top, left, bottom, right.
        pad: [usize; 4],
    },
    /// Average over a window; see [`PoolShape::divisor`](crate::PoolShape::divisor).
    AvgPool {
        /// Window, its padding grown for `ceil_mode`.
        window: Window,
        /// Padding that counts in the divisor: top, left, bottom, right.
        counted: [usize; 4],
    },
    /// Sum over a window, zeros in the padding, divided by `divisor`: the division is only noted in
    /// the gain of the result. Only in quantized graphs.
    SumPool {
        /// Window.
        window: Window,
        /// By how much the gain falls.
        divisor: usize,
    },
    /// Maximum over a window; positions in the padding do not take part. Replaced in canonical
    /// graphs by gathers, differences, ReLUs and sums.
    MaxPool {
        /// Window, its padding grown for `ceil_mode`.
        window: Window,
    },
    /// Picks positions along one axis: `y[.., j, ..] = x[.., indices[j], ..]`.
    Gather {
        /// Axis of the operand.
        axis: usize,
        /// Positions on that axis.
        indices: Vec<usize>,
    },
    /// Places positions along one axis, zeros elsewhere: `y[.., indices[j], ..] = x[.., j, ..]`.
    Scatter {
        /// Axis of the operand.
        axis: usize,
        /// Length of that axis in the result.
        size: usize,
        /// Positions in the result, ascending, one per position of the operand.
        indices: Vec<usize>,
    },
    /// Tensors one behind the other along one axis; of the other axes they have the same.
    Concat {
        /// Axis of the operands.
        axis: usize,
        /// Number of operands, up to 255.
        parts: usize,
    },
    /// Interpolates along one axis, see [`Sample`]. The fraction grows by `bits`.
    Resample {
        /// Axis of the operand.
        axis: usize,
        /// One entry per position of that axis in the result.
        samples: Vec<Sample>,
        /// Bits of the factors; 0 before quantization, where the factors are real.
        bits: u8,
    },
    /// Same elements, another shape.
    Reshape {
        /// The new shape.
        shape: Vec<usize>,
    },
    /// Permutes axes: output axis `i` is operand axis `perm[i]`.
    Transpose {
        /// The permutation.
        perm: Vec<usize>,
    },
    /// Passes its operand on (Identity, Dropout); removed by folding.
    Identity,
    /// Sign-gated pass of patches: one entry per channel (axis 1); see [`Block`]. A block whose
    /// sum is zero passes.
    BlockRelu {
        /// One choice per channel.
        blocks: Vec<Block>,
        /// Whether a plan may choose the blocks; false inside a maximum, which is exact.
        plannable: bool,
    },
    /// `min(max(x, low), high)`, exactly: one sign decision per pixel and bound. At least one bound
    /// is there, both are finite, and `low < high`.
    Clip {
        /// Lower bound.
        low: Option<f64>,
        /// Upper bound.
        high: Option<f64>,
    },
    /// `2^bits x - i` in units of a result with `bits` more fraction bits, `i` the position on axis 1:
    /// equal values differ by their position, the first is the largest, and the value itself does not
    /// change by a unit of the operand. At most `2^bits` positions. The modulus grows by `bits`, up
    /// to the ring.
    Tag {
        /// Bits of a position.
        bits: u8,
    },
    /// The integer modulo `2^bits`: of a tagged value, the position's negative. Only in quantized graphs.
    LowBits {
        /// Bits that are left.
        bits: u8,
    },
    /// Drops `bits` fraction bits and as many bits of modulus, rounding error centred.
    Truncate {
        /// Bits dropped.
        bits: u8,
    },
    /// Multiplies position `p` of every map by the public integer nearest to
    /// `numerator / divisors[p]`; the fraction grows by `shift` bits, the gain by
    /// `2^shift / numerator`. Only in quantized graphs.
    Divide {
        /// What is divided, at least 1.
        numerator: u64,
        /// Bits of fraction that it stands for.
        shift: u8,
        /// Divisor of each position of the map, row-major.
        divisors: Vec<usize>,
    },
    /// Makes the client's share a dealt one, in the same modulus. No online message.
    Remask,
    /// Lifts the value to a larger modulus and makes the client's share a dealt one.
    Refresh,
}

impl Op {
    /// The operator that resamples an axis: a gather where every sample is one element.
    pub fn resampling(axis: usize, samples: Vec<Sample>) -> Op {
        match samples.iter().all(|s| s.weight == 0.0 || s.low == s.high) {
            true => Op::Gather { axis, indices: samples.iter().map(|s| s.low).collect() },
            false => Op::Resample { axis, samples, bits: 0 },
        }
    }

    /// Number of operands.
    pub fn arity(&self) -> usize {
        match self {
            Op::Input => 0,
            Op::Add | Op::Sub => 2,
            Op::Concat { parts, .. } => *parts,
            _ => 1,
        }
    }

    /// Constants it reads.
    pub fn consts(&self) -> Vec<ConstId> {
        match self {
            Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } => {
                std::iter::once(*weight).chain(*bias).collect()
            }
            Op::Affine { scale, shift } => vec![*scale, *shift],
            _ => Vec::new(),
        }
    }

    /// The operator's name in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input => "input",
            Op::Conv { .. } => "conv",
            Op::Dense { .. } => "dense",
            Op::Affine { .. } => "affine",
            Op::Add => "add",
            Op::Sub => "sub",
            Op::Pad { .. } => "pad",
            Op::AvgPool { .. } => "avg_pool",
            Op::SumPool { .. } => "sum_pool",
            Op::MaxPool { .. } => "max_pool",
            Op::Gather { .. } => "gather",
            Op::Scatter { .. } => "scatter",
            Op::Concat { .. } => "concat",
            Op::Resample { .. } => "resample",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Identity => "identity",
            Op::BlockRelu { .. } => "block_relu",
            Op::Clip { .. } => "clip",
            Op::Tag { .. } => "tag",
            Op::LowBits { .. } => "low_bits",
            Op::Truncate { .. } => "truncate",
            Op::Divide { .. } => "divide",
            Op::Remask => "remask",
            Op::Refresh => "refresh",
        }
    }

    /// Bounds of a clip that are there, the lower one first; none for other operators.
    pub fn clip_bounds(&self) -> Vec<f64> {
        match self {
            Op::Clip { low, high } => low.iter().chain(high).copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it multiplies by weights of the server.
    pub fn is_linear_layer(&self) -> bool {
        matches!(self, Op::Conv { .. } | Op::Dense { .. })
    }
}
