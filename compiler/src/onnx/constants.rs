//! Operators on constants: weights behind an Identity or Transpose, and the shape arithmetic that
//! exporters leave in front of a Reshape.

use std::rc::Rc;

use super::call::{Call, Value};
use super::error::{Outcome, Problem, REEXPORT, fault, mismatch};
use super::literal::{Data, Literal, MAX_CONST, checked_len, strides, too_large};
use super::node::axis_of;
use super::reshape::{permutation, squeezed, unsqueezed, wished_shape};

/// The value of a node all of whose operands are constant; `None` where the operator is not among
/// those evaluated here.
pub(super) fn evaluate(call: &mut Call) -> Outcome<Option<Literal>> {
    let view = call.view;
    let whole = || call.literal(0, "data");
    let value = match view.operator() {
        "Constant" => constant(call)?,
        "ConstantOfShape" => constant_of_shape(call)?,
        "Identity" | "Dropout" => (*whole()?).clone(),
        "Cast" => cast(call, whole()?.as_ref())?,
        "Shape" => shape_of(call)?,
        "Size" => size_of(call)?,
        "Transpose" => {
            let x = whole()?;
            x.transposed(&permutation(call, x.shape.len())?)?
        }
        "Reshape" => {
            let x = whole()?;
            let wish = call.literal(1, "shape")?;
            x.reshaped(wished_shape(call, &x.shape, wish.integers()?)?)?
        }
        "Squeeze" => {
            let x = whole()?;
            x.reshaped(squeezed(call, &x.shape, false)?)?
        }
        "Unsqueeze" => {
            let x = whole()?;
            x.reshaped(unsqueezed(call, &x.shape)?)?
        }
        "Equal" => equal(call)?,
        "Where" => choose(call)?,
        "Concat" => concat(call)?,
        "Gather" => gather(call)?,
        "Slice" => slice(call)?,
        "Add" | "Sub" | "Mul" | "Div" => whole()?.binary(&*call.literal(1, "B")?, view.operator())?,
        "ReduceProd" => {
            let x = whole()?;
            let product = x.integers()?.iter().try_fold(1i64, |p, &d| p.checked_mul(d));
            let product = product.ok_or_else(|| mismatch("integer arithmetic overflows"))?;
            let axes = call.integers("axes", 1, "axes")?.unwrap_or_default();
            if x.shape.len() != 1 || !matches!(axes.as_slice(), [] | [0] | [-1]) {
                return Ok(None);
            }
            let shape = if view.flag("keepdims", true)? { vec![1] } else { vec![] };
            Literal { name: x.name.clone(), shape, data: Data::Int(vec![product]) }
        }
        "Neg" => {
            let x = whole()?;
            let minus = Literal { name: x.name.clone(), shape: vec![], data: Data::Int(vec![-1]) };
            match &x.data {
                Data::Int(_) => x.binary(&minus, "Mul")?,
                Data::Float(v) => Literal { data: Data::Float(v.iter().map(|v| -v).collect()), ..(*x).clone() },
            }
        }
        "Floor" | "Ceil" => {
            let x = whole()?;
            let round = if view.operator() == "Floor" { f32::floor } else { f32::ceil };
            match &x.data {
                Data::Int(_) => (*x).clone(),
                Data::Float(v) => Literal { data: Data::Float(v.iter().map(|v| round(*v)).collect()), ..(*x).clone() },
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// The shape of an operand, with a batch of 1 (`start` and `end` from opset 15 on).
pub(super) fn shape_of(call: &Call) -> Outcome<Literal> {
    let view = call.view;
    view.only(&["start", "end"])?;
    let shape = operand_shape(call)?;
    let rank = shape.len() as i64;
    let bound = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
    let start = bound(view.int("start")?.unwrap_or(0));
    let end = bound(view.int("end")?.unwrap_or(rank)).max(start);
    Ok(Literal::ints(&view.name, shape[start..end].iter().map(|&d| d as i64).collect()))
}

/// The number of elements of an operand, for one image.
pub(super) fn size_of(call: &Call) -> Outcome<Literal> {
    let len: usize = operand_shape(call)?.iter().product();
    Ok(Literal { name: call.view.name.clone(), shape: vec![], data: Data::Int(vec![len as i64]) })
}

fn operand_shape(call: &Call) -> Outcome<Vec<usize>> {
    match call.operand(0) {
        Some(Value::Traced(t)) => Ok(t.shape.clone()),
        _ => Ok(call.literal(0, "data")?.shape.clone()),
    }
}

fn constant(call: &Call) -> Outcome<Literal> {
    let view = call.view;
    view.only(&["value", "value_float", "value_floats", "value_int", "value_ints"])?;
    let scalar = |data| Literal { name: view.name.clone(), shape: vec![], data };
    if let Some(proto) = view.tensor("value")? {
        return Literal::decode(proto, &view.name);
    }
    if view.has("value_float") {
        return Ok(scalar(Data::Float(vec![view.float("value_float", 0.0)?])));
    }
    if let Some(v) = view.floats("value_floats")? {
        return Ok(Literal { name: view.name.clone(), shape: vec![v.len()], data: Data::Float(v.to_vec()) });
    }
    if let Some(v) = view.int("value_int")? {
        return Ok(scalar(Data::Int(vec![v])));
    }
    match view.ints("value_ints")? {
        Some(v) => Ok(Literal::ints(&view.name, v.to_vec())),
        None => Err(view.bad_attribute("value", "is missing", REEXPORT)),
    }
}

fn constant_of_shape(call: &Call) -> Outcome<Literal> {
    let view = call.view;
    view.only(&["value"])?;
    let wish = call.literal(0, "shape")?;
    let shape: Option<Vec<usize>> = wish.integers()?.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape = shape.ok_or_else(|| mismatch(format!("`{}` is no shape", wish.name)))?;
    let len = checked_len(&shape, MAX_CONST).ok_or_else(|| too_large(&view.name, &shape))?;
    let data = match view.tensor("value")? {
        None => Data::Float(vec![0.0; len]),
        Some(proto) => match Literal::decode(proto, &view.name)?.data {
            Data::Float(v) if v.len() == 1 => Data::Float(vec![v[0]; len]),
            Data::Int(v) if v.len() == 1 => Data::Int(vec![v[0]; len]),
            _ => return Err(view.bad_attribute("value", "does not hold one element", REEXPORT)),
        },
    };
    Ok(Literal { name: view.name.clone(), shape, data })
}

fn cast(call: &Call, x: &Literal) -> Outcome<Literal> {
    let view = call.view;
    view.only(&["to", "saturate"])?;
    let to = view.int("to")?.unwrap_or(0);
    let data = match (to, &x.data) {
        (1 | 10 | 11 | 16, Data::Float(v)) => Data::Float(v.clone()),
        (1 | 10 | 11 | 16, Data::Int(v)) => Data::Float(v.iter().map(|&i| i as f32).collect()),
        (2..=7 | 12 | 13, Data::Int(v)) => Data::Int(v.clone()),
        (2..=7 | 12 | 13, Data::Float(v)) => Data::Int(v.iter().map(|&f| f as i64).collect()),
        _ => return Err(view.bad_attribute("to", format!("is {to}, no supported type"), "cast to float or int64")),
    };
    Ok(Literal { data, ..x.clone() })
}

fn concat(call: &Call) -> Outcome<Literal> {
    call.view.only(&["axis"])?;
    let parts = (0..call.operands.len()).map(|i| call.literal(i, "part")).collect::<Outcome<Vec<Rc<Literal>>>>()?;
    let Some(first) = parts.first() else { return Err(mismatch("Concat of nothing")) };
    let axis = axis_of(call.view.int("axis")?.unwrap_or(1), first.shape.len());
    Literal::concat(&parts, axis.ok_or_else(|| mismatch("the axis of a constant Concat is outside of its shape"))?)
}

fn gather(call: &Call) -> Outcome<Literal> {
    call.view.only(&["axis"])?;
    let (x, indices) = (call.literal(0, "data")?, call.literal(1, "indices")?);
    let axis = axis_of(call.view.int("axis")?.unwrap_or(0), x.shape.len());
    let axis = axis.ok_or_else(|| mismatch("the axis of a constant Gather is outside of its shape"))?;
    let picks: Option<Vec<usize>> = indices.integers()?.iter().map(|&i| axis_of(i, x.shape[axis])).collect();
    let picks = picks.ok_or_else(|| mismatch(format!("indices of a constant Gather are outside of {:?}", x.shape)))?;
    let mut shape = x.shape[..axis].to_vec();
    shape.extend(&indices.shape);
    shape.extend(&x.shape[axis + 1..]);
    checked_len(&shape, MAX_CONST).ok_or_else(|| too_large(&x.name, &shape))?;
    let (own, inner) = (strides(&x.shape), strides(&indices.shape));
    let width = indices.shape.len();
    Ok(x.picked(&shape, |at| {
        let pick: usize = at[axis..axis + width].iter().zip(&inner).map(|(i, s)| i * s).sum();
        let head: usize = at[..axis].iter().zip(&own).map(|(i, s)| i * s).sum();
        let tail: usize = at[axis + width..].iter().zip(&own[axis + 1..]).map(|(i, s)| i * s).sum();
        head + picks[pick] * own[axis] + tail
    }))
}

fn slice(call: &Call) -> Outcome<Literal> {
    call.view.only(&["starts", "ends", "axes"])?;
    let x = call.literal(0, "data")?;
    let ranges = ranges(call, &x.shape)?;
    let shape: Vec<usize> = ranges.iter().map(Vec::len).collect();
    let own = strides(&x.shape);
    Ok(x.picked(&shape, |at| at.iter().zip(&ranges).zip(&own).map(|((i, r), s)| r[*i] * s).sum()))
}

/// Positions of every axis that a `Slice` takes from a tensor of `from`.
pub(super) fn ranges(call: &Call, from: &[usize]) -> Outcome<Vec<Vec<usize>>> {
    let list = |name, index| call.integers(name, index, "range");
    let (Some(starts), Some(ends)) = (list("starts", 1)?, list("ends", 2)?) else {
        return Err(fault(Problem::MissingOperand { index: 1, what: "starts" }, REEXPORT));
    };
    let axes = list("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(mismatch("the ranges of a Slice have different lengths"));
    }
    let mut ranges: Vec<Vec<usize>> = from.iter().map(|&n| (0..n).collect()).collect();
    for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let axis = axis_of(*axis, from.len()).ok_or_else(|| mismatch("an axis of a Slice is outside"))?;
        let n = from[axis] as i64;
        let wrap = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
        ranges[axis] = match *step {
            0 => return Err(mismatch("the step of a Slice is 0")),
            s if s > 0 => {
                let (from, to) = (wrap(*start).clamp(0, n), wrap(*end).clamp(0, n));
                (from..to).step_by(s.unsigned_abs() as usize).map(|i| i as usize).collect()
            }
            s => {
                let (from, to) = (wrap(*start).clamp(-1, n - 1), wrap(*end).clamp(-1, n - 1));
                (to + 1..=from).rev().step_by(s.unsigned_abs() as usize).map(|i| i as usize).collect()
            }
        };
    }
    Ok(ranges)
}

/// Element-wise equality, 1 or 0.
fn equal(call: &Call) -> Outcome<Literal> {
    call.view.only(&[])?;
    let difference = call.literal(0, "A")?.binary(&*call.literal(1, "B")?, "Sub")?;
    let data = match &difference.data {
        Data::Int(v) => v.iter().map(|d| i64::from(*d == 0)).collect(),
        Data::Float(v) => v.iter().map(|d| i64::from(*d == 0.0)).collect(),
    };
    Ok(Literal { data: Data::Int(data), ..difference })
}

/// Integers by a condition: `condition * X + (1 - condition) * Y`.
fn choose(call: &Call) -> Outcome<Literal> {
    call.view.only(&[])?;
    let condition = call.literal(0, "condition")?;
    let one = Literal { name: condition.name.clone(), shape: vec![], data: Data::Int(vec![1]) };
    let other = one.binary(&condition, "Sub")?.binary(&*call.literal(2, "Y")?, "Mul")?;
    condition.binary(&*call.literal(1, "X")?, "Mul")?.binary(&other, "Add")
}
