//! Activations: Relu, clips, and ReLUs that leak.
//!
//! `Clip`, `Min` and `Max` with constants and `HardSigmoid` are one [`Op::Clip`], which decides as
//! many signs per pixel as it has bounds; a lower bound of 0 alone is a ReLU.
//!
//! `LeakyRelu` and `PRelu` decide one sign: with slope `s` per channel,
//!
//! ```text
//! y = (1 - s) ReLU(x) + s x
//! ```
//!
//! is a grouped 1x1 convolution of two channels that share a gate layer: one with a ReLU, one that
//! passes. Passing costs a bit and the lift, and no message of its own; the slopes are weights of
//! the server. Folding joins the convolution with the layer behind it where that alone reads it;
//! then nothing is multiplied twice. Multiplying inside of the gate instead would leave the slope's
//! fraction bits in the modulus, which takes a wider ring or a refresh in front of the next layer.

use bcc_ir::geometry::{Block, Window};
use bcc_ir::graph::{Op, map_of};

use super::arithmetic::{Spread, spread};
use super::call::{Call, Traced, Value};
use super::error::{Outcome, Problem, fault, mismatch};
use super::linear::affine;
use super::literal::{Data, Literal};

/// The operators of this module.
pub(super) const OPERATORS: [&str; 7] = ["Clip", "HardSigmoid", "LeakyRelu", "Max", "Min", "PRelu", "Relu"];

/// Bounds beyond this are none: exporters write the largest 32-bit float.
const NO_BOUND: f64 = 3.4e38;

pub(super) fn import(call: &mut Call) -> Outcome<Traced> {
    match call.view.operator() {
        "Clip" => clip(call),
        "HardSigmoid" => hard_sigmoid(call),
        "LeakyRelu" => leaky_relu(call),
        "PRelu" => prelu(call),
        "Min" | "Max" => extremum(call),
        _ => {
            call.view.only(&[])?;
            let x = call.tensor(0, "X")?;
            relu(call, &x)
        }
    }
}

fn channels(call: &Call, x: &Traced) -> Outcome<usize> {
    let operator = call.view.operator();
    map_of(&x.shape).map(|(c, _)| c).ok_or_else(|| {
        mismatch(format!("a {operator} on shape {:?} is not supported: it must be [1, c] or [1, c, h, w]", x.shape))
    })
}

/// An ordinary ReLU: every channel of axis 1 has the block 1x1, which a plan may enlarge.
fn relu(call: &mut Call, x: &Traced) -> Outcome<Traced> {
    let channels = channels(call, x)?;
    call.emit(Op::BlockRelu { blocks: vec![Block::RELU; channels], plannable: true }, x)
}

/// `min(max(x, low), high)`.
fn between(call: &mut Call, x: &Traced, low: Option<f64>, high: Option<f64>) -> Outcome<Traced> {
    match (low, high) {
        (None, None) => call.emit(Op::Identity, x),
        (Some(0.0), None) => relu(call, x),
        (Some(low), Some(high)) if low >= high => Err(fault(
            Problem::Mismatch(format!("the bounds {low} and {high} leave one value")),
            "remove the node and what it feeds, or correct its bounds",
        )),
        _ => {
            channels(call, x)?;
            call.emit(Op::Clip { low, high }, x)
        }
    }
}

fn bound(value: f64) -> Option<f64> {
    (value.abs() < NO_BOUND).then_some(value)
}

/// The one value of a constant.
fn scalar(c: &Literal) -> Outcome<f64> {
    let values: Vec<f64> = match &c.data {
        Data::Float(v) => v.iter().map(|x| f64::from(*x)).collect(),
        Data::Int(v) => v.iter().map(|x| *x as f64).collect(),
    };
    match values.split_first() {
        Some((first, rest)) if !first.is_nan() && rest.iter().all(|v| v == first) => Ok(*first),
        _ => Err(fault(
            Problem::Mismatch(format!("bound `{}` of shape {:?} is not one number", c.name, c.shape)),
            "use one bound for all elements",
        )),
    }
}

/// `Clip`; the bounds are attributes before opset 11 and operands from then on.
fn clip(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["min", "max", "consumed_inputs"])?;
    let x = call.tensor(0, "input")?;
    let (low, high) = if view.opset < 11 {
        (Some(f64::from(view.float("min", f32::MIN)?)), Some(f64::from(view.float("max", f32::MAX)?)))
    } else {
        view.only(&[])?;
        let read = |i, what| call.optional(i, what)?.map(|c| scalar(&c)).transpose();
        (read(1, "min")?, read(2, "max")?)
    };
    between(call, &x, low.and_then(bound), high.and_then(bound))
}

/// `Min` and `Max` of one tensor and constants.
fn extremum(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&[])?;
    let lower = call.view.operator() == "Max";
    let (mut tensor, mut limit) = (None, None);
    for i in 0..call.operands.len() {
        match call.operand(i) {
            Some(Value::Literal(c)) => {
                let c = scalar(c)?;
                limit = Some(limit.map_or(c, |l: f64| if lower { l.max(c) } else { l.min(c) }));
            }
            _ if tensor.is_none() => tensor = Some(call.tensor(i, "data")?),
            _ => {
                return Err(fault(
                    Problem::Mismatch(format!("{} of two tensors is not supported", call.view.operator())),
                    "use constant bounds; a maximum over positions is a MaxPool",
                ));
            }
        }
    }
    let Some(x) = tensor else { return Err(mismatch("there is no tensor among the operands")) };
    let limit = limit.and_then(bound);
    let (low, high) = if lower { (limit, None) } else { (None, limit) };
    between(call, &x, low, high)
}

/// `max(0, min(1, alpha x + beta))`.
fn hard_sigmoid(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["alpha", "beta"])?;
    let (alpha, beta) = (call.view.float("alpha", 0.2)?, call.view.float("beta", 0.5)?);
    let x = call.tensor(0, "X")?;
    let n = channels(call, &x)?;
    let line = affine(call, &x, vec![alpha; n], vec![beta; n], "/line")?;
    between(call, &line, Some(0.0), Some(1.0))
}

fn leaky_relu(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["alpha", "consumed_inputs"])?;
    let alpha = call.view.float("alpha", 0.01)?;
    let x = call.tensor(0, "X")?;
    if alpha == 0.0 {
        return relu(call, &x);
    }
    let slopes = vec![alpha; channels(call, &x)?];
    leaking(call, &x, &slopes, "")
}

/// `PRelu`, its slopes a scalar or one value along one axis.
fn prelu(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["consumed_inputs"])?;
    let (x, slope) = (call.tensor(0, "X")?, call.literal(1, "slope")?);
    let n = channels(call, &x)?;
    // A vector with one slope per channel does not broadcast, but is what it means.
    if slope.shape == [n] && x.shape.len() == 4 && x.shape[3] != n {
        return leaking(call, &x, &slope.floats()?, "");
    }
    match spread(&slope, &x.shape)? {
        Spread::Same(value) => leaking(call, &x, &vec![value; n], ""),
        Spread::Along(1, values) => leaking(call, &x, &values, ""),
        Spread::Each(_) => Err(fault(
            Problem::Mismatch(format!("slope `{}` of shape {:?} varies within a channel", slope.name, slope.shape)),
            "use a scalar or one value per channel",
        )),
        Spread::Along(axis, values) => {
            let mut perm: Vec<usize> = (0..x.shape.len()).collect();
            perm.swap(1, axis);
            let turned = call.emit_as("/turn", Op::Transpose { perm: perm.clone() }, &x)?;
            let y = leaking(call, &turned, &values, "/leak")?;
            call.emit(Op::Transpose { perm }, &y)
        }
    }
}

/// `(1 - s) ReLU(x) + s x` with a slope per channel; see the module.
fn leaking(call: &mut Call, x: &Traced, slopes: &[f32], suffix: &str) -> Outcome<Traced> {
    let n = slopes.len();
    let vector = x.shape.len() == 2;
    let x = if vector { call.emit_as("/map", Op::Reshape { shape: vec![1, n, 1, 1] }, x)? } else { x.clone() };
    let indices = (0..2 * n).map(|i| i / 2).collect();
    let both = call.emit_as(&format!("{suffix}/both"), Op::Gather { axis: 1, indices }, &x)?;
    let blocks = [Block::RELU, Block::Identity].repeat(n);
    let gated = call.emit_as(&format!("{suffix}/gate"), Op::BlockRelu { blocks, plannable: false }, &both)?;
    let weights: Vec<f32> = slopes.iter().flat_map(|s| [(1.0 - f64::from(*s)) as f32, *s]).collect();
    if let Some(i) = weights.iter().position(|w| !w.is_finite()) {
        let tensor = format!("{}.slope", call.view.name);
        return Err(fault(
            Problem::NonFinite { tensor, index: i / 2, value: weights[i].into() },
            "check the slopes of this node",
        ));
    }
    let weight = call.draft.constant(&format!("{}.slope", call.view.name), vec![n, 2, 1, 1], weights);
    let conv = Op::Conv { weight, bias: None, window: Window::new([1, 1]), groups: n };
    if !vector {
        return call.emit_as(suffix, conv, &gated);
    }
    let y = call.emit_as("/slope", conv, &gated)?;
    call.emit_as(suffix, Op::Reshape { shape: vec![1, n] }, &y)
}
