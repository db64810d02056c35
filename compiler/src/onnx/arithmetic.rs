//! Sums, differences, products and quotients: of tensors, and with constants.

use bcc_ir::graph::Op;

use super::call::{Call, Traced, Value};
use super::error::{Outcome, Problem, fault, mismatch};
use super::linear::affine;
use super::literal::{Literal, broadcast_steps, for_each_index};
use super::resize::stretched;

/// `Add`, `Sub`, `Mul`, `Div` with at least one operand computed from the input.
pub(super) fn binary(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&[])?;
    let operator = call.view.operator();
    match (call.operand(0).cloned(), call.operand(1).cloned()) {
        (Some(Value::Literal(c)), _) => {
            let x = call.tensor(1, "B")?;
            with_constant(call, &x, &c, operator, true)
        }
        (_, Some(Value::Literal(c))) => {
            let x = call.tensor(0, "A")?;
            with_constant(call, &x, &c, operator, false)
        }
        _ => {
            let (a, b) = (call.tensor(0, "A")?, call.tensor(1, "B")?);
            let op = match operator {
                "Add" => Op::Add,
                "Sub" => Op::Sub,
                _ => {
                    return Err(fault(
                        Problem::Mismatch(format!(
                            "{operator} of two tensors computed from the input is not supported"
                        )),
                        "use a network without gates or attention (such as squeeze-and-excitation)",
                    ));
                }
            };
            let (a, b) = broadcast(call, &a, &b)?;
            call.emit_pair(op, a.id, b.id)
        }
    }
}

/// Brings two tensors to one shape: axes of one element are repeated.
fn broadcast(call: &mut Call, a: &Traced, b: &Traced) -> Outcome<(Traced, Traced)> {
    if a.shape == b.shape {
        return Ok((a.clone(), b.clone()));
    }
    let rank = a.shape.len().max(b.shape.len());
    let size = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    let shape: Vec<usize> = (0..rank).map(|i| size(&a.shape, i).max(size(&b.shape, i))).collect();
    let wide = (stretched(call, a, &shape, "/a")?, stretched(call, b, &shape, "/b")?);
    if let (Some(wide_a), Some(wide_b)) = wide {
        return Ok((wide_a, wide_b));
    }
    Err(fault(
        Problem::Mismatch(format!("operands of shapes {:?} and {:?} do not broadcast", a.shape, b.shape)),
        "bring both to one shape",
    ))
}

fn same_shape(a: &Traced, b: &Traced) -> Outcome<()> {
    if a.shape == b.shape {
        return Ok(());
    }
    Err(fault(
        Problem::Mismatch(format!("operands have shapes {:?} and {:?}", a.shape, b.shape)),
        "bring both to one shape; a Sum does not broadcast, an Add does",
    ))
}

/// `Sum` of any number of tensors and constants.
pub(super) fn sum(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&[])?;
    let mut tensors = Vec::new();
    let mut constants = Vec::new();
    for i in 0..call.operands.len() {
        match call.operand(i) {
            Some(Value::Literal(c)) => constants.push(c.clone()),
            _ => tensors.push(call.tensor(i, "summand")?),
        }
    }
    let Some((first, rest)) = tensors.split_first() else { return Err(mismatch("Sum of no tensor")) };
    let last = rest.len() + constants.len();
    if last == 0 {
        return call.emit(Op::Identity, first);
    }
    // The last step bears the node's name.
    let suffix = |step: usize| if step == last { String::new() } else { format!("/sum{step}") };
    let mut total = first.clone();
    for (i, t) in rest.iter().enumerate() {
        same_shape(&total, t)?;
        total = call.draft.emit(call.view, &suffix(i + 1), Op::Add, &[total.id, t.id])?;
    }
    for (i, c) in constants.iter().enumerate() {
        total = shifted(call, &total, c, "Add", false, &suffix(rest.len() + i + 1))?;
    }
    Ok(total)
}

fn with_constant(call: &mut Call, x: &Traced, c: &Literal, operator: &str, constant_first: bool) -> Outcome<Traced> {
    shifted(call, x, c, operator, constant_first, "")
}

/// `x op c`, or `c op x`, as an affine map per channel, or per element where it must be.
fn shifted(
    call: &mut Call,
    x: &Traced,
    c: &Literal,
    operator: &str,
    constant_first: bool,
    suffix: &str,
) -> Outcome<Traced> {
    let line = |v: f32| -> Outcome<(f64, f64)> {
        let v = f64::from(v);
        Ok(match (operator, constant_first) {
            ("Add", _) => (1.0, v),
            ("Sub", false) => (1.0, -v),
            ("Sub", true) => (-1.0, v),
            ("Mul", _) => (v, 0.0),
            ("Div", false) if v != 0.0 => (1.0 / v, 0.0),
            ("Div", false) => return Err(mismatch(format!("divides by `{}`, which holds a zero", c.name))),
            _ => {
                return Err(fault(
                    Problem::Mismatch("divides a constant by a tensor computed from the input".into()),
                    "remove the division; only a constant divisor is supported",
                ));
            }
        })
    };
    let split = |values: Vec<f32>| -> Outcome<(Vec<f32>, Vec<f32>)> {
        let lines = values.into_iter().map(line).collect::<Outcome<Vec<_>>>()?;
        Ok(lines.iter().map(|l| (l.0 as f32, l.1 as f32)).unzip())
    };
    let rank = x.shape.len();
    let per_axis = || match matches!(rank, 2 | 4) && x.shape[0] == 1 {
        true => Ok(()),
        false => Err(mismatch(format!(
            "{operator} with a constant on shape {:?}: it must be [1, c] or [1, c, h, w]",
            x.shape
        ))),
    };
    let (axis, values) = match spread(c, &x.shape)? {
        Spread::Same(value) => {
            per_axis()?;
            (1, vec![value; x.shape[1]])
        }
        Spread::Along(axis, values) => {
            per_axis()?;
            (axis, values)
        }
        Spread::Each(values) => {
            // Every element is a channel.
            let shape = vec![1, values.len()];
            let (scale, shift) = split(values)?;
            let flat = call.emit_as(&format!("{suffix}/flat"), Op::Reshape { shape }, x)?;
            let mapped = affine(call, &flat, scale, shift, &format!("{suffix}/each"))?;
            return call.emit_as(suffix, Op::Reshape { shape: x.shape.clone() }, &mapped);
        }
    };
    let (scale, shift) = split(values)?;
    if axis == 1 {
        return affine(call, x, scale, shift, suffix);
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(1, axis);
    let turned = call.emit_as(&format!("{suffix}/turn"), Op::Transpose { perm: perm.clone() }, x)?;
    let mapped = affine(call, &turned, scale, shift, suffix)?;
    call.emit_as(&format!("{suffix}/back"), Op::Transpose { perm }, &mapped)
}

/// How a constant varies over a tensor that it is broadcast to.
pub(super) enum Spread {
    /// The same value everywhere.
    Same(f32),
    /// Along one axis: its values there.
    Along(usize, Vec<f32>),
    /// Along several axes: one value per element, row-major.
    Each(Vec<f32>),
}

/// How a constant varies over a tensor of a shape.
pub(super) fn spread(c: &Literal, shape: &[usize]) -> Outcome<Spread> {
    let values = c.floats()?;
    let skip = c.shape.len().saturating_sub(shape.len());
    let fits = c.shape[..skip].is_empty()
        && c.shape.iter().rev().zip(shape.iter().rev()).all(|(have, want)| have == want || *have == 1)
        && !values.is_empty();
    if !fits {
        return Err(fault(
            Problem::Mismatch(format!("constant `{}` of shape {:?} does not broadcast to {shape:?}", c.name, c.shape)),
            "use a scalar or one value per channel; a constant for a batch of more than 1 is not supported",
        ));
    }
    if values.iter().all(|v| *v == values[0]) {
        return Ok(Spread::Same(values[0]));
    }
    let steps = broadcast_steps(&c.shape, shape);
    let mut varying = Vec::new();
    for (axis, &step) in steps.iter().enumerate().filter(|(_, s)| **s > 0) {
        let mut differs = false;
        for_each_index(&c.shape, |at| {
            let own = axis - (shape.len() - c.shape.len());
            let flat: usize = at.iter().enumerate().map(|(i, p)| p * steps[i + shape.len() - c.shape.len()]).sum();
            differs |= values[flat] != values[flat - at[own] * step];
        });
        if differs {
            varying.push((axis, step));
        }
    }
    match varying.as_slice() {
        [(axis, step)] => Ok(Spread::Along(*axis, (0..shape[*axis]).map(|i| values[i * step]).collect())),
        _ => {
            let mut all = Vec::with_capacity(shape.iter().product());
            for_each_index(shape, |at| all.push(values[at.iter().zip(&steps).map(|(i, s)| i * s).sum::<usize>()]));
            Ok(Spread::Each(all))
        }
    }
}
