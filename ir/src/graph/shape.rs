//! Shape inference: the shape of a node from its operator and its operands' shapes.

use thiserror::Error;

use super::{ConstId, Op, elements, map_of};
use crate::geometry::{Block, ConvShape};

/// Why an operator does not fit its operands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// Wrong number of operands.
    #[error("{op} takes {want} operands, not {got}")]
    Arity {
        /// Operator.
        op: &'static str,
        /// Operands it takes.
        want: usize,
        /// Operands given.
        got: usize,
    },
    /// A constant that is not there.
    #[error("{op} reads constant @{}, which does not exist", id.0)]
    MissingConst {
        /// Operator.
        op: &'static str,
        /// The reference.
        id: ConstId,
    },
    /// Operand shapes that the operator cannot work on.
    #[error("{op}: {reason}")]
    Mismatch {
        /// Operator.
        op: &'static str,
        /// What does not fit.
        reason: String,
    },
}

/// Shape of `op` over operands of the given shapes; `consts` looks up the shapes of constants.
pub fn infer_shape<'a>(
    op: &Op,
    operands: &[&[usize]],
    consts: impl Fn(ConstId) -> Option<&'a [usize]>,
) -> Result<Vec<usize>, ShapeError> {
    let name = op.name();
    let bad = |reason: String| ShapeError::Mismatch { op: name, reason };
    if operands.len() != op.arity() {
        return Err(ShapeError::Arity { op: name, want: op.arity(), got: operands.len() });
    }
    let constant = |id: ConstId| consts(id).ok_or(ShapeError::MissingConst { op: name, id });
    let vector = |id: Option<ConstId>, len: usize, what: &str| match id {
        None => Ok(()),
        Some(id) => {
            let shape = constant(id)?;
            if shape == [len] { Ok(()) } else { Err(bad(format!("{what} has shape {shape:?}, not [{len}]"))) }
        }
    };
    let x = operands.first().copied().unwrap_or(&[]);
    let map4 = || match *x {
        [1, c, h, w] => Ok((c, h, w)),
        _ => Err(bad(format!("operand has shape {x:?}, not [1, channels, height, width]"))),
    };
    let channels = || map_of(x).ok_or_else(|| bad(format!("operand has shape {x:?}, without a channel axis")));
    match op {
        Op::Input => Err(bad("the input's shape is declared, not inferred".into())),
        Op::Conv { weight, bias, window, groups } => {
            let (c, h, w) = map4()?;
            let ws = constant(*weight)?;
            let &[out, per_group, kh, kw] = ws else {
                return Err(bad(format!("weight has shape {ws:?}, not [out, in / groups, kh, kw]")));
            };
            if [kh, kw] != window.kernel || *groups == 0 || per_group.checked_mul(*groups) != Some(c) {
                return Err(bad(format!("weight {ws:?} does not fit {c} channels, groups {groups}, {window}")));
            }
            vector(*bias, out, "bias")?;
            let conv = ConvShape { in_channels: c, input: [h, w], out_channels: out, groups: *groups, window: *window };
            let [oh, ow] = conv.output().ok_or_else(|| bad(format!("{conv} has no output")))?;
            Ok(vec![1, out, oh, ow])
        }
        Op::Dense { weight, bias } => {
            let ws = constant(*weight)?;
            match (x, ws) {
                ([1, n], [out, inputs]) if n == inputs => {
                    vector(*bias, *out, "bias")?;
                    Ok(vec![1, *out])
                }
                _ => Err(bad(format!("weight {ws:?} does not fit operand {x:?}"))),
            }
        }
        Op::Affine { scale, shift } => {
            let (c, _) = channels()?;
            vector(Some(*scale), c, "scale")?;
            vector(Some(*shift), c, "shift")?;
            Ok(x.to_vec())
        }
        Op::Add | Op::Sub => {
            if operands[0] != operands[1] {
                return Err(bad(format!("operands have shapes {:?} and {:?}", operands[0], operands[1])));
            }
            Ok(x.to_vec())
        }
        Op::Pad { pad: [t, l, b, r] } => {
            let (c, h, w) = map4()?;
            let grown = |n: usize, low: usize, high: usize| n.checked_add(low)?.checked_add(high);
            match (grown(h, *t, *b), grown(w, *l, *r)) {
                (Some(h), Some(w)) => Ok(vec![1, c, h, w]),
                _ => Err(bad(format!("padding {t},{l},{b},{r} of a {h}x{w} map is too large"))),
            }
        }
        Op::AvgPool { window, .. } | Op::MaxPool { window } | Op::SumPool { window, .. } => {
            let (c, h, w) = map4()?;
            let [oh, ow] =
                window.output(h, w).ok_or_else(|| bad(format!("window {window} does not fit a {h}x{w} map")))?;
            Ok(vec![1, c, oh, ow])
        }
        Op::Gather { axis, indices } => {
            let mut shape = x.to_vec();
            let n = *shape.get(*axis).ok_or_else(|| bad(format!("axis {axis} of shape {x:?}")))?;
            if let Some(i) = indices.iter().find(|i| **i >= n) {
                return Err(bad(format!("index {i} on an axis of {n}")));
            }
            shape[*axis] = indices.len();
            Ok(shape)
        }
        Op::Scatter { axis, size, indices } => {
            let mut shape = x.to_vec();
            let n = *shape.get(*axis).ok_or_else(|| bad(format!("axis {axis} of shape {x:?}")))?;
            if indices.len() != n {
                return Err(bad(format!("{} indices for an axis of {n}", indices.len())));
            }
            if !indices.is_sorted_by(|a, b| a < b) {
                return Err(bad("its indices do not ascend".into()));
            }
            if let Some(i) = indices.last().filter(|i| **i >= *size) {
                return Err(bad(format!("index {i} on an axis of {size}")));
            }
            shape[*axis] = *size;
            Ok(shape)
        }
        Op::Concat { axis, parts } => {
            if !(1..=255).contains(parts) {
                return Err(bad(format!("{parts} operands; 1 to 255 can be joined")));
            }
            let mut shape = x.to_vec();
            if *axis >= shape.len() {
                return Err(bad(format!("axis {axis} of shape {x:?}")));
            }
            let mut size = 0usize;
            for o in operands {
                let fits = o.len() == x.len() && o.iter().zip(x).enumerate().all(|(i, (a, b))| i == *axis || a == b);
                if !fits {
                    return Err(bad(format!("operands of shapes {x:?} and {o:?} do not join along axis {axis}")));
                }
                size = size.saturating_add(o[*axis]);
            }
            shape[*axis] = size;
            Ok(shape)
        }
        Op::Resample { axis, samples, .. } => {
            let mut shape = x.to_vec();
            let n = *shape.get(*axis).ok_or_else(|| bad(format!("axis {axis} of shape {x:?}")))?;
            if !samples.iter().all(|s| s.fits(n)) {
                return Err(bad(format!("a sample outside of an axis of {n}, or a weight outside of 0 to 1")));
            }
            shape[*axis] = samples.len();
            Ok(shape)
        }
        Op::Reshape { shape } => {
            if elements(shape) != elements(x) {
                return Err(bad(format!("{x:?} does not hold as many elements as {shape:?}")));
            }
            Ok(shape.clone())
        }
        Op::Transpose { perm } => {
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..x.len()) {
                return Err(bad(format!("{perm:?} is no permutation of {} axes", x.len())));
            }
            Ok(perm.iter().map(|&p| x[p]).collect())
        }
        Op::BlockRelu { blocks, .. } => {
            let (c, _) = channels()?;
            if blocks.len() != c {
                return Err(bad(format!("{} blocks for {c} channels", blocks.len())));
            }
            if blocks.iter().any(|b| matches!(b, Block::Patch { h: 0, .. } | Block::Patch { w: 0, .. })) {
                return Err(bad("a block of no pixels".into()));
            }
            Ok(x.to_vec())
        }
        Op::Clip { low, high } => {
            let bounds = op.clip_bounds();
            let apart = low.zip(*high).is_none_or(|(low, high)| low < high);
            if bounds.is_empty() || !apart || bounds.iter().any(|b| !b.is_finite()) {
                return Err(bad(format!("bounds {low:?} and {high:?} leave no interval")));
            }
            channels()?;
            Ok(x.to_vec())
        }
        Op::Tag { bits } => {
            let (c, _) = channels()?;
            if !(1..=32).contains(bits) || c > 1 << bits {
                return Err(bad(format!("{bits} bits for {c} positions")));
            }
            Ok(x.to_vec())
        }
        Op::LowBits { bits } if !(1..=32).contains(bits) => Err(bad(format!("{bits} bits"))),
        Op::Divide { numerator, divisors, .. } => {
            let (_, [h, w]) = channels()?;
            if *numerator == 0 {
                return Err(bad("a numerator of 0".into()));
            }
            if divisors.len() != elements(&[h, w]) || divisors.contains(&0) {
                return Err(bad(format!("{} divisors for a {h}x{w} map (none may be 0)", divisors.len())));
            }
            Ok(x.to_vec())
        }
        Op::Identity | Op::Truncate { .. } | Op::LowBits { .. } | Op::Remask | Op::Refresh => Ok(x.to_vec()),
    }
}
