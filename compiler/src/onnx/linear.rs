//! Convolutions, matrix products, batch normalization.

use bcc_ir::geometry::Window;
use bcc_ir::graph::{Op, map_of};

use super::call::{Call, Traced};
use super::error::{Outcome, Problem, fault, mismatch};
use super::literal::{Literal, broadcast_steps, for_each_index};
use super::pool::padding;

/// `Conv`: weights `[out, in / groups, kh, kw]`, two-dimensional maps only.
pub(super) fn conv(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"])?;
    let x = call.tensor(0, "X")?;
    let weight = call.literal(1, "W")?;
    let bias = call.optional(2, "B")?;
    let (&[_, _, h, w], &[out, _, kh, kw]) = (x.shape.as_slice(), weight.shape.as_slice()) else {
        return Err(fault(
            Problem::Mismatch(format!(
                "operand {:?} and weights {:?} are not two-dimensional maps",
                x.shape, weight.shape
            )),
            "only two-dimensional convolutions are supported",
        ));
    };
    if weight.data.len() == 0 {
        return Err(mismatch(format!("the weights have shape {:?}, without any element", weight.shape)));
    }
    if let Some(kernel) = view.extents::<2>("kernel_shape", 1)?
        && kernel != [kh, kw]
    {
        return Err(mismatch(format!("kernel_shape {kernel:?} contradicts weights {:?}", weight.shape)));
    }
    let groups = view.int("group")?.unwrap_or(1);
    let groups = usize::try_from(groups).ok().filter(|g| *g > 0 && out.is_multiple_of(*g)).ok_or_else(|| {
        view.bad_attribute("group", format!("is {groups} for {out} output channels"), super::error::REEXPORT)
    })?;
    let mut window = Window::new([kh, kw]);
    window.stride = view.extents("strides", 1)?.unwrap_or([1, 1]);
    window.dilation = view.extents("dilations", 1)?.unwrap_or([1, 1]);
    window.pad = padding(view, &window, [h, w])?;
    let id = call.draft.constant(&weight.name, weight.shape.clone(), weight.floats()?);
    let bias = match bias {
        None => None,
        Some(b) if b.shape == [out] => Some(call.draft.constant(&b.name, vec![out], b.floats()?)),
        Some(b) => return Err(mismatch(format!("the bias has shape {:?}, not [{out}]", b.shape))),
    };
    call.emit(Op::Conv { weight: id, bias, window, groups }, &x)
}

/// `BatchNormalization` in inference: `scale = gamma / sqrt(var + eps)`, `shift = beta - mean * scale`.
pub(super) fn batch_norm(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["epsilon", "momentum", "spatial", "training_mode"])?;
    if view.flag("training_mode", false)? {
        return Err(view.bad_attribute("training_mode", "is 1", "export the model in inference mode (model.eval())"));
    }
    if !view.flag("spatial", true)? {
        return Err(view.bad_attribute("spatial", "is 0", "normalize per channel"));
    }
    let x = call.tensor(0, "X")?;
    let Some((channels, _)) = map_of(&x.shape) else {
        return Err(mismatch(format!("cannot normalize shape {:?}: it must be [1, c] or [1, c, h, w]", x.shape)));
    };
    let epsilon = f64::from(view.float("epsilon", 1e-5)?);
    let mut parts = Vec::new();
    for (i, what) in [(1, "scale"), (2, "B"), (3, "mean"), (4, "var")] {
        let part = call.literal(i, what)?;
        if part.shape != [channels] {
            return Err(mismatch(format!("`{}` ({what}) has shape {:?}, not [{channels}]", part.name, part.shape)));
        }
        parts.push(part.floats()?);
    }
    if let Some(c) = parts[3].iter().position(|v| f64::from(*v) + epsilon <= 0.0) {
        return Err(mismatch(format!("the variance of channel {c} is {}, not positive", parts[3][c])));
    }
    let mut scale = Vec::with_capacity(channels);
    let mut shift = Vec::with_capacity(channels);
    for (((gamma, beta), mean), var) in parts[0].iter().zip(&parts[1]).zip(&parts[2]).zip(&parts[3]) {
        let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(|v| f64::from(*v));
        let factor = gamma / (var + epsilon).sqrt();
        scale.push(factor as f32);
        shift.push((beta - mean * factor) as f32);
    }
    affine(call, &x, scale, shift, "")
}

/// A per-channel affine map on axis 1, its constants named after the node.
pub(super) fn affine(call: &mut Call, x: &Traced, scale: Vec<f32>, shift: Vec<f32>, suffix: &str) -> Outcome<Traced> {
    let name = &call.view.name;
    if let Some((list, i)) =
        [&scale, &shift].iter().find_map(|l| l.iter().position(|v| !v.is_finite()).map(|i| (*l, i)))
    {
        let tensor = format!("{name}.affine");
        return Err(fault(
            Problem::NonFinite { tensor, index: i, value: list[i].into() },
            "check this node's constants: its factors do not fit 32-bit floats",
        ));
    }
    let (scale_name, shift_name) = (format!("{name}.scale"), format!("{name}.shift"));
    let scale = call.draft.constant(&scale_name, vec![scale.len()], scale);
    let shift = call.draft.constant(&shift_name, vec![shift.len()], shift);
    call.emit_as(suffix, Op::Affine { scale, shift }, x)
}

/// `Gemm` with a constant B: `alpha * A * B + beta * C`.
pub(super) fn gemm(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["alpha", "beta", "transA", "transB"])?;
    let a = call.tensor(0, "A")?;
    let b = call.literal(1, "B")?;
    let c = call.optional(2, "C")?;
    if view.flag("transA", false)? {
        return Err(view.bad_attribute("transA", "is 1", "transpose A before the node"));
    }
    let (alpha, beta) = (view.float("alpha", 1.0)?, view.float("beta", 1.0)?);
    let &[rows, columns] = b.shape.as_slice() else {
        return Err(mismatch(format!("B has shape {:?}, not that of a matrix", b.shape)));
    };
    let transposed = if view.flag("transB", false)? { (*b).clone() } else { b.transposed(&[1, 0])? };
    let (inputs, outputs) = if view.flag("transB", false)? { (columns, rows) } else { (rows, columns) };
    if a.shape != [1, inputs] {
        return Err(mismatch(format!("A has shape {:?}, not [1, {inputs}] as B asks", a.shape)));
    }
    let weight = scaled(&transposed, alpha)?;
    let weight = call.draft.constant(&b.name, vec![outputs, inputs], weight);
    let bias = match c {
        None => None,
        Some(c) => {
            let whole = [1, outputs];
            let fits = c.shape.len() <= 2
                && c.shape.iter().rev().zip(whole.iter().rev()).all(|(have, want)| have == want || *have == 1);
            if !fits {
                return Err(mismatch(format!("C has shape {:?}, which does not broadcast to {whole:?}", c.shape)));
            }
            let values = scaled(&c, beta)?;
            let steps = broadcast_steps(&c.shape, &whole);
            let mut bias = Vec::with_capacity(outputs);
            for_each_index(&whole, |at| bias.push(values[at[1] * steps[1]]));
            Some(call.draft.constant(&c.name, vec![outputs], bias))
        }
    };
    call.emit(Op::Dense { weight, bias }, &a)
}

fn scaled(literal: &Literal, factor: f32) -> Outcome<Vec<f32>> {
    let mut values = literal.floats()?;
    if factor != 1.0 {
        values.iter_mut().for_each(|v| *v = (f64::from(*v) * f64::from(factor)) as f32);
    }
    Ok(values)
}

/// `MatMul` of a tensor that is one row, of any rank, with a constant matrix.
pub(super) fn matmul(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&[])?;
    let a = call.tensor(0, "A")?;
    let b = call.literal(1, "B")?;
    let &[inputs, outputs] = b.shape.as_slice() else {
        return Err(mismatch(format!("B has shape {:?}; only a constant matrix is supported", b.shape)));
    };
    let Some((&last, leading)) = a.shape.split_last().filter(|(_, leading)| !leading.is_empty()) else {
        return Err(mismatch(format!("A has shape {:?}", a.shape)));
    };
    if last != inputs {
        return Err(mismatch(format!("A has shape {:?}, B {:?}", a.shape, b.shape)));
    }
    if leading.iter().product::<usize>() != 1 {
        return Err(fault(
            Problem::Mismatch(format!("A has shape {:?}: several rows", a.shape)),
            "flatten the operand to one row, or use a 1x1 convolution",
        ));
    }
    let weight = call.draft.constant(&b.name, vec![outputs, inputs], b.transposed(&[1, 0])?.floats()?);
    let dense = Op::Dense { weight, bias: None };
    if a.shape.len() == 2 {
        return call.emit(dense, &a);
    }
    let row = call.emit_as("/row", Op::Reshape { shape: vec![1, inputs] }, &a)?;
    let product = call.emit(dense, &row)?;
    let mut shape = a.shape.clone();
    shape[a.shape.len() - 1] = outputs;
    call.emit_as("/shape", Op::Reshape { shape }, &product)
}
