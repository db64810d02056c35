//! Operators that move elements or pass them on, and the softmax at the end.

use bcc_ir::graph::{ClientStep, Op};

use super::call::{Call, Traced};
use super::error::{Outcome, Problem, REEXPORT, fault, mismatch};
use super::literal::checked_len;
use super::node::axis_of;

/// A reshape by the parties, or by the client behind its softmax.
fn to_shape(call: &mut Call, x: &Traced, shape: Vec<usize>) -> Outcome<Traced> {
    let Some((source, steps)) = &x.client else { return call.emit_reshape(x, shape) };
    if shape.iter().product::<usize>() != x.shape.iter().product::<usize>() {
        return Err(mismatch(format!("{:?} does not hold as many elements as {shape:?}", x.shape)));
    }
    let mut steps = steps.clone();
    if shape != x.shape {
        steps.push(ClientStep::Reshape { shape: shape.clone() });
    }
    Ok(Traced { id: x.id, shape, client: Some((source.clone(), steps)) })
}

/// `Identity`, `Dropout` in inference, `Cast` between float types, `Concat` of one.
pub(super) fn identity(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["ratio", "seed", "to", "saturate", "axis"])?;
    let x = call.traced(0, "input")?;
    match view.operator() {
        "Cast" => {
            let to = view.int("to")?.unwrap_or(0);
            let is_index = |s: &ClientStep| matches!(s, ClientStep::ArgMax { .. });
            let integers = x.client.as_ref().is_some_and(|(_, steps)| steps.iter().any(is_index));
            let kept = [1, 10, 11, 16].contains(&to) || integers && [6, 7].contains(&to);
            if !kept {
                let reason = format!("is {to}, no float type");
                return Err(view.bad_attribute("to", reason, "keep values between layers as floats"));
            }
        }
        "Dropout" => {
            let training = call.optional(2, "training_mode")?;
            if training.is_some_and(|t| t.integers().is_ok_and(|v| v.first().is_some_and(|v| *v != 0))) {
                return Err(fault(
                    Problem::Mismatch("training_mode is true".into()),
                    "export the model in inference mode (model.eval())",
                ));
            }
        }
        _ => {}
    }
    if x.client.is_some() {
        return Ok(x);
    }
    call.emit(Op::Identity, &x)
}

/// `Transpose`; without `perm` the axes are reversed.
pub(super) fn transpose(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["perm"])?;
    let x = call.tensor(0, "data")?;
    let perm = permutation(call, x.shape.len())?;
    call.emit(Op::Transpose { perm }, &x)
}

pub(super) fn permutation(call: &Call, rank: usize) -> Outcome<Vec<usize>> {
    match call.view.ints("perm")? {
        None => Ok((0..rank).rev().collect()),
        Some(perm) => perm
            .iter()
            .map(|&p| usize::try_from(p).ok().filter(|p| *p < rank))
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(|| mismatch(format!("perm {perm:?} on {rank} axes"))),
    }
}

/// `Flatten` to `[prod(before axis), prod(from axis)]`.
pub(super) fn flatten(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["axis"])?;
    let x = call.traced(0, "input")?;
    let axis = call.view.int("axis")?.unwrap_or(1);
    let rank = x.shape.len();
    let axis = if axis == rank as i64 { Some(rank) } else { axis_of(axis, rank) };
    let axis = axis.ok_or_else(|| call.view.bad_attribute("axis", format!("is outside of {:?}", x.shape), REEXPORT))?;
    let shape = vec![x.shape[..axis].iter().product(), x.shape[axis..].iter().product()];
    to_shape(call, &x, shape)
}

/// `Reshape` to a constant shape.
pub(super) fn reshape(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["allowzero"])?;
    let x = call.traced(0, "data")?;
    let wish = call.literal(1, "shape")?;
    let shape = wished_shape(call, &x.shape, wish.integers()?)?;
    to_shape(call, &x, shape)
}

/// The shape that a `Reshape` asks for: 0 keeps an axis, -1 takes what is left.
pub(super) fn wished_shape(call: &Call, from: &[usize], wish: &[i64]) -> Outcome<Vec<usize>> {
    let all_zero_meant = call.view.flag("allowzero", false)?;
    let total: usize = from.iter().product();
    let impossible = || mismatch(format!("cannot reshape {from:?} to {wish:?}"));
    let mut shape = Vec::with_capacity(wish.len());
    let mut open = None;
    for (i, &d) in wish.iter().enumerate() {
        shape.push(match d {
            // The declared batch is compiled as a batch of one.
            d if i == 0 && Some(d) == call.draft.batch && from.first() == Some(&1) => 1,
            0 if !all_zero_meant => *from.get(i).ok_or_else(impossible)?,
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            d => usize::try_from(d).map_err(|_| impossible())?,
        });
    }
    let known = checked_len(&shape, usize::MAX).ok_or_else(impossible)?;
    if let Some(i) = open {
        if known == 0 || !total.is_multiple_of(known) {
            return Err(impossible());
        }
        shape[i] = total / known;
    } else if known != total {
        return Err(impossible());
    }
    Ok(shape)
}

/// `Squeeze`: drops axes of size 1, all of them where none are named (the batch axis stays).
pub(super) fn squeeze(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["axes"])?;
    let x = call.traced(0, "data")?;
    let shape = squeezed(call, &x.shape, true)?;
    to_shape(call, &x, shape)
}

pub(super) fn squeezed(call: &Call, from: &[usize], keep_batch: bool) -> Outcome<Vec<usize>> {
    let rank = from.len();
    let axes = match call.integers("axes", 1, "axes")? {
        None => (usize::from(keep_batch)..rank).filter(|&i| from[i] == 1).collect(),
        Some(list) => {
            let axes: Option<Vec<usize>> = list.iter().map(|&a| axis_of(a, rank).filter(|&a| from[a] == 1)).collect();
            axes.ok_or_else(|| mismatch(format!("cannot squeeze axes {list:?} of {from:?}")))?
        }
    };
    Ok(from.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| *d).collect())
}

/// `Unsqueeze`: inserts axes of size 1.
pub(super) fn unsqueeze(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["axes"])?;
    let x = call.traced(0, "data")?;
    let shape = unsqueezed(call, &x.shape)?;
    to_shape(call, &x, shape)
}

pub(super) fn unsqueezed(call: &Call, from: &[usize]) -> Outcome<Vec<usize>> {
    let list = call.integers("axes", 1, "axes")?.unwrap_or_default();
    let rank = from.len() + list.len();
    let axes: Option<Vec<usize>> = list.iter().map(|&a| axis_of(a, rank)).collect();
    let mut axes = axes.ok_or_else(|| mismatch(format!("axes {list:?} of {rank}")))?;
    axes.sort_unstable();
    axes.dedup();
    if axes.len() != list.len() || rank > 16 {
        return Err(mismatch(format!("cannot insert axes {list:?} into {from:?}")));
    }
    let mut rest = from.iter();
    Ok((0..rank).map(|i| if axes.contains(&i) { 1 } else { rest.next().copied().unwrap_or(1) }).collect())
}

/// `Softmax`, which the client computes on the opened result. Before opset 13 it works on the
/// tensor flattened to a matrix at `axis`.
pub(super) fn softmax(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["axis"])?;
    let x = call.tensor(0, "input")?;
    let rank = x.shape.len();
    let matrix = view.opset < 13;
    let axis = view.int("axis")?.unwrap_or(if matrix { 1 } else { -1 });
    let axis =
        axis_of(axis, rank).ok_or_else(|| view.bad_attribute("axis", format!("is {axis} on {rank} axes"), REEXPORT))?;
    let rest: usize = x.shape[axis..].iter().product();
    let steps = if !matrix || rest == x.shape[axis] {
        vec![ClientStep::Softmax { axis }]
    } else {
        let rows = x.shape[..axis].iter().product();
        vec![
            ClientStep::Reshape { shape: vec![rows, rest] },
            ClientStep::Softmax { axis: 1 },
            ClientStep::Reshape { shape: x.shape.clone() },
        ]
    };
    let source = format!("softmax `{}`", view.name);
    Ok(Traced { id: x.id, shape: x.shape, client: Some((source, steps)) })
}

/// `Pad`, with zeros or with elements of the tensor; not of the batch axis.
pub(super) fn pad(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["mode", "pads", "value"])?;
    let x = call.tensor(0, "data")?;
    let mode = view.string("mode")?.unwrap_or_else(|| "constant".into());
    if !["constant", "reflect", "edge", "wrap"].contains(&mode.as_str()) {
        let remedy = "pad with zeros, or by reflect, edge or wrap";
        return Err(view.bad_attribute("mode", format!("is `{mode}`"), remedy));
    }
    let value = match call.optional(2, "constant_value")? {
        Some(v) => v.floats()?.first().copied().unwrap_or(0.0),
        None => view.float("value", 0.0)?,
    };
    if value != 0.0 && mode == "constant" {
        return Err(fault(Problem::Mismatch(format!("pads with {value}")), "pad with zeros"));
    }
    let given = call.integers("pads", 1, "pads")?.ok_or_else(|| mismatch("no pads are given"))?;
    let rank = x.shape.len();
    let axes: Vec<usize> = match call.optional(3, "axes")? {
        None => (0..rank).collect(),
        Some(list) => {
            let axes: Option<Vec<usize>> = list.integers()?.iter().map(|&a| axis_of(a, rank)).collect();
            axes.ok_or_else(|| mismatch(format!("axes of {rank}")))?
        }
    };
    if given.len() != 2 * axes.len() {
        return Err(mismatch(format!("{} pads for {} axes", given.len(), axes.len())));
    }
    if let Some(v) = given.iter().find(|v| **v < 0) {
        return Err(fault(Problem::Mismatch(format!("crops by a padding of {v}")), "use padding of 0 or more"));
    }
    let mut around = vec![[0usize; 2]; rank];
    for (i, &axis) in axes.iter().enumerate() {
        for (side, &v) in [given[i], given[axes.len() + i]].iter().enumerate() {
            around[axis][side] = usize::try_from(v)
                .ok()
                .filter(|v| *v <= 1 << 16)
                .ok_or_else(|| fault(Problem::TooLarge(format!("a padding of {v}")), REEXPORT))?;
        }
    }
    if around.iter().all(|a| *a == [0, 0]) {
        return call.emit(Op::Identity, &x);
    }
    if around[0] != [0, 0] {
        return Err(fault(
            Problem::Mismatch(format!("pads the batch axis of {:?} by {:?}", x.shape, around[0])),
            "pad channels, height and width only",
        ));
    }
    if mode != "constant" {
        return by_picking(call, &x, &mode, &around);
    }
    let four = |h: [usize; 2], w: [usize; 2]| Op::Pad { pad: [h[0], w[0], h[1], w[1]] };
    match around.as_slice() {
        [[0, 0], [0, 0], h, w] => call.emit(four(*h, *w), &x),
        [[0, 0], h, w, [0, 0]] => {
            let map = call.emit_as("/nchw", Op::Transpose { perm: vec![0, 3, 1, 2] }, &x)?;
            let padded = call.emit(four(*h, *w), &map)?;
            call.emit_as("/nhwc", Op::Transpose { perm: vec![0, 2, 3, 1] }, &padded)
        }
        _ => {
            let padded = axes_of(&around);
            let mut value = x;
            for (i, &axis) in padded.iter().enumerate() {
                let [before, after] = around[axis];
                let n = value.shape[axis];
                let op = Op::Scatter { axis, size: before + n + after, indices: (before..before + n).collect() };
                value = call.emit_as(&step_suffix(i, &padded), op, &value)?;
            }
            Ok(value)
        }
    }
}

/// Axes that are padded.
fn axes_of(around: &[[usize; 2]]) -> Vec<usize> {
    (0..around.len()).filter(|i| around[*i] != [0, 0]).collect()
}

/// The last of several steps bears the node's name.
fn step_suffix(step: usize, axes: &[usize]) -> String {
    if step + 1 == axes.len() { String::new() } else { format!("/axis{}", axes[step]) }
}

/// Pads with elements of the tensor itself.
fn by_picking(call: &mut Call, x: &Traced, mode: &str, around: &[[usize; 2]]) -> Outcome<Traced> {
    let padded = axes_of(around);
    let mut value = x.clone();
    for (i, &axis) in padded.iter().enumerate() {
        let (n, [before, after]) = (x.shape[axis] as isize, around[axis].map(|v| v as isize));
        if mode == "reflect" && before.max(after) >= n {
            return Err(mismatch(format!("reflects {} elements of an axis of {n}", before.max(after))));
        }
        let position = |p: isize| match mode {
            "reflect" if p < 0 => -p,
            "reflect" if p >= n => 2 * (n - 1) - p,
            "wrap" => p.rem_euclid(n),
            _ => p.clamp(0, n - 1),
        };
        let indices = (-before..n + after).map(|p| position(p).unsigned_abs()).collect();
        value = call.emit_as(&step_suffix(i, &padded), Op::Gather { axis, indices }, &value)?;
    }
    Ok(value)
}
