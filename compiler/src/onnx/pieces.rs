//! Operators that join tensors and cut them: `Concat`, `Slice`, `Split`.

use std::rc::Rc;

use bcc_ir::graph::Op;

use super::call::{Call, Traced, Value};
use super::constants::ranges;
use super::error::{Outcome, Problem, REEXPORT, fault, mismatch};
use super::literal::strides;
use super::node::axis_of;

/// `Concat` of tensors computed from the input.
pub(super) fn concat(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["axis"])?;
    let mut parts = Vec::with_capacity(call.operands.len());
    for i in 0..call.operands.len() {
        if let Some(Value::Literal(c)) = call.operand(i) {
            return Err(fault(
                Problem::Mismatch(format!("joins the constant `{}` with tensors computed from the input", c.name)),
                "remove the constant part and the weights that read it",
            ));
        }
        parts.push(call.tensor(i, "part")?);
    }
    let Some(first) = parts.first() else { return Err(mismatch("Concat of nothing")) };
    let axis = call.view.int("axis")?.unwrap_or(1);
    let rank = first.shape.len();
    let axis = axis_of(axis, rank).filter(|a| *a > 0).ok_or_else(|| {
        call.view.bad_attribute("axis", format!("is {axis} on {rank} axes"), "join channels or pixels")
    })?;
    if parts.len() == 1 {
        let first = first.clone();
        return call.emit(Op::Identity, &first);
    }
    let ids: Vec<_> = parts.iter().map(|p| p.id).collect();
    call.draft.emit(call.view, "", Op::Concat { axis, parts: ids.len() }, &ids)
}

/// Picks positions of every axis; the last step bears the node's name with the suffix.
fn picked(call: &mut Call, x: &Traced, ranges: Vec<Vec<usize>>, suffix: &str) -> Outcome<Traced> {
    let axes: Vec<(usize, Vec<usize>)> =
        ranges.into_iter().enumerate().filter(|(i, r)| !r.iter().copied().eq(0..x.shape[*i])).collect();
    let last = axes.len();
    let mut value = x.clone();
    for (i, (axis, indices)) in axes.into_iter().enumerate() {
        let name = if i + 1 == last { suffix.to_string() } else { format!("{suffix}/axis{axis}") };
        value = call.emit_as(&name, Op::Gather { axis, indices }, &value)?;
    }
    if last == 0 { call.emit_as(suffix, Op::Identity, x) } else { Ok(value) }
}

/// `Slice` by constant ranges.
pub(super) fn slice(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["starts", "ends", "axes"])?;
    let x = call.tensor(0, "data")?;
    let ranges = ranges(call, &x.shape)?;
    picked(call, &x, ranges, "")
}

/// `Split` into parts of given sizes, or of equal ones; one value per output.
pub(super) fn split(call: &mut Call) -> Outcome<Vec<Value>> {
    let view = call.view;
    view.only(&["axis", "num_outputs", "split"])?;
    let constant = match call.operand(0) {
        Some(Value::Literal(l)) => Some(l.clone()),
        _ => None,
    };
    let x = if constant.is_some() { None } else { Some(call.tensor(0, "input")?) };
    let shape = x.as_ref().map(|x| x.shape.clone()).or(constant.as_ref().map(|c| c.shape.clone())).unwrap_or_default();
    let axis = view.int("axis")?.unwrap_or(0);
    let axis = axis_of(axis, shape.len())
        .ok_or_else(|| view.bad_attribute("axis", format!("is {axis} on {} axes", shape.len()), REEXPORT))?;
    let size = shape[axis];
    let outputs = view.proto.output.len();
    let sizes: Vec<usize> = match call.integers("split", 1, "split")? {
        Some(list) => {
            let sizes: Option<Vec<usize>> = list.iter().map(|s| usize::try_from(*s).ok()).collect();
            sizes.ok_or_else(|| mismatch(format!("cannot split an axis of {size} into {list:?}")))?
        }
        None => {
            let each = size.div_ceil(outputs.max(1)).max(1);
            let uneven = !size.is_multiple_of(outputs.max(1)) && view.opset < 18;
            if uneven {
                return Err(mismatch(format!("cannot split an axis of {size} into {outputs} equal parts")));
            }
            (0..outputs).map(|i| each.min(size.saturating_sub(i * each))).collect()
        }
    };
    let total = sizes.iter().try_fold(0usize, |n, s| n.checked_add(*s));
    if sizes.len() != outputs || total != Some(size) || sizes.contains(&0) {
        return Err(mismatch(format!("cannot split an axis of {size} into {outputs} parts of {sizes:?}")));
    }
    let mut values = Vec::with_capacity(outputs);
    let mut first = 0;
    for (i, size) in sizes.into_iter().enumerate() {
        let mut ranges: Vec<Vec<usize>> = shape.iter().map(|&n| (0..n).collect()).collect();
        ranges[axis] = (first..first + size).collect();
        first += size;
        values.push(match (&x, &constant) {
            (Some(x), _) => {
                let suffix = if i == 0 { String::new() } else { format!("/{i}") };
                Value::Traced(picked(call, x, ranges, &suffix)?)
            }
            (None, Some(c)) => {
                let own = strides(&c.shape);
                let part: Vec<usize> = ranges.iter().map(Vec::len).collect();
                let at = |at: &[usize]| at.iter().zip(&ranges).zip(&own).map(|((i, r), s)| r[*i] * s).sum();
                Value::Literal(Rc::new(c.picked(&part, at)))
            }
            (None, None) => Value::Lost,
        });
    }
    Ok(values)
}
