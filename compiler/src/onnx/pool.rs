//! Windows and pools.

use bcc_ir::geometry::{PoolShape, Window};
use bcc_ir::graph::Op;

use super::call::{Call, Traced};
use super::error::{Outcome, Problem, REEXPORT, fault, mismatch};
use super::node::{NodeView, axis_of};

/// Padding (top, left, bottom, right) from `pads` or `auto_pad` on an `[h, w]` map.
pub(super) fn padding(view: &NodeView, window: &Window, input: [usize; 2]) -> Outcome<[usize; 4]> {
    let pads = view.extents::<4>("pads", 0)?;
    let auto = view.string("auto_pad")?.unwrap_or_else(|| "NOTSET".into());
    let upper = match auto.as_str() {
        "NOTSET" | "" => return Ok(pads.unwrap_or([0; 4])),
        "VALID" => return Ok([0; 4]),
        "SAME_UPPER" => true,
        "SAME_LOWER" => false,
        other => return Err(view.bad_attribute("auto_pad", format!("is `{other}`"), REEXPORT)),
    };
    let mut pad = [0; 4];
    for i in 0..2 {
        let outputs = input[i].div_ceil(window.stride[i]);
        let reach = (outputs.saturating_sub(1)) * window.stride[i] + window.dilation[i] * (window.kernel[i] - 1) + 1;
        let total = reach.saturating_sub(input[i]);
        let (less, more) = (total / 2, total.div_ceil(2));
        (pad[i], pad[i + 2]) = if upper { (less, more) } else { (more, less) };
    }
    Ok(pad)
}

/// A pool's window over `[1, c, h, w]`, its padding fitted to `ceil_mode`, and the declared padding.
fn pool_window(call: &Call, x: &Traced) -> Outcome<(Window, [usize; 4])> {
    let view = call.view;
    let &[1, _, h, w] = x.shape.as_slice() else {
        return Err(mismatch(format!("a pool of shape {:?} is not supported: it must be [1, c, h, w]", x.shape)));
    };
    let kernel = view
        .extents::<2>("kernel_shape", 1)?
        .ok_or_else(|| view.bad_attribute("kernel_shape", "is missing", REEXPORT))?;
    let mut window = Window::new(kernel);
    window.stride = view.extents("strides", 1)?.unwrap_or([1, 1]);
    window.dilation = view.extents("dilations", 1)?.unwrap_or([1, 1]);
    window.pad = padding(view, &window, [h, w])?;
    let declared = window.pad;
    let same = view.string("auto_pad")?.is_some_and(|a| a.starts_with("SAME"));
    if view.flag("ceil_mode", false)? && !same {
        for (i, n) in [h, w].into_iter().enumerate() {
            let span = window.dilation[i] * (kernel[i] - 1) + 1;
            let stride = window.stride[i];
            let padded = n + window.pad[i] + window.pad[i + 2];
            let Some(room) = padded.checked_sub(span) else {
                return Err(mismatch(format!("window {window} does not fit a {h}x{w} map")));
            };
            let mut outputs = room.div_ceil(stride) + 1;
            // A window that would start beyond the map and its leading padding is left out.
            if (outputs - 1) * stride >= n + window.pad[i] {
                outputs -= 1;
            }
            window.pad[i + 2] = ((outputs - 1) * stride + span).saturating_sub(n + window.pad[i]);
        }
    }
    Ok((window, declared))
}

/// Refuses windows that lie in the padding altogether: their result is undefined.
fn check_windows(shape: &PoolShape) -> Outcome<()> {
    let output = shape.window.output(shape.input[0], shape.input[1]);
    let Some([oh, ow]) = output.filter(|o| o.iter().all(|n| *n <= 1 << 20)) else {
        return Err(mismatch(format!(
            "window {} does not fit a {}x{} map",
            shape.window, shape.input[0], shape.input[1]
        )));
    };
    let real = |i: usize, o: usize| {
        (0..shape.window.kernel[i])
            .any(|t| usize::try_from(shape.window.position(i, o, t)).is_ok_and(|p| p < shape.input[i]))
    };
    if (0..oh).all(|y| real(0, y)) && (0..ow).all(|x| real(1, x)) {
        return Ok(());
    }
    Err(fault(
        Problem::Mismatch(format!("some windows of {shape} lie in the padding altogether")),
        "reduce the padding below the window's size",
    ))
}

/// `MaxPool`; positions in the padding take no part.
pub(super) fn max_pool(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"])?;
    let x = call.tensor(0, "X")?;
    let (window, _) = pool_window(call, &x)?;
    check_windows(&PoolShape { channels: x.shape[1], input: [x.shape[2], x.shape[3]], window, counted: [0; 4] })?;
    call.emit(Op::MaxPool { window }, &x)
}

/// `AveragePool`; with `count_include_pad` the declared padding counts in the divisor, what
/// `ceil_mode` adds never does.
pub(super) fn average_pool(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"])?;
    let x = call.tensor(0, "X")?;
    let (window, declared) = pool_window(call, &x)?;
    let counted = if view.flag("count_include_pad", false)? { declared } else { [0; 4] };
    check_windows(&PoolShape { channels: x.shape[1], input: [x.shape[2], x.shape[3]], window, counted })?;
    call.emit(Op::AvgPool { window, counted }, &x)
}

/// `GlobalAveragePool` and `GlobalMaxPool`.
pub(super) fn global(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&[])?;
    let x = call.tensor(0, "X")?;
    let &[1, _, h, w] = x.shape.as_slice() else {
        return Err(mismatch(format!(
            "a global pool of shape {:?} is not supported: it must be [1, c, h, w]",
            x.shape
        )));
    };
    let window = Window::new([h, w]);
    let op = match call.view.operator() {
        "GlobalMaxPool" => Op::MaxPool { window },
        _ => Op::AvgPool { window, counted: [0; 4] },
    };
    call.emit(op, &x)
}

/// `ReduceMean` and `ReduceMax` over one or both spatial axes of `[1, c, h, w]` or `[1, h, w, c]`.
pub(super) fn reduce(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["axes", "keepdims", "noop_with_empty_axes"])?;
    let x = call.tensor(0, "data")?;
    let what = if view.operator() == "ReduceMax" { "maximum" } else { "mean" };
    let keep = view.flag("keepdims", true)?;
    let given = call.integers("axes", 1, "axes")?.unwrap_or_default();
    if given.is_empty() && view.flag("noop_with_empty_axes", false)? {
        return call.emit(Op::Identity, &x);
    }
    let rank = x.shape.len();
    let axes: Option<Vec<usize>> = given.iter().map(|&a| axis_of(a, rank)).collect();
    let mut axes = axes.ok_or_else(|| mismatch(format!("axes {given:?} of shape {:?}", x.shape)))?;
    axes.sort_unstable();
    axes.dedup();
    let channels_last = rank == 4 && axes.as_slice() == [1, 2];
    if rank != 4 || axes.is_empty() || !(channels_last || axes.iter().all(|a| *a >= 2)) {
        return Err(fault(
            Problem::Mismatch(format!("a {what} over axes {given:?} of shape {:?} is not supported", x.shape)),
            format!("take the {what} over the height and width of a map"),
        ));
    }
    let mut kept = x.shape.clone();
    for &a in &axes {
        kept[a] = 1;
    }
    let mut squeezed = x.shape.clone();
    for &a in axes.iter().rev() {
        squeezed.remove(a);
    }
    let shape = if keep { kept.clone() } else { squeezed };
    let map = if channels_last { call.emit_as("/nchw", Op::Transpose { perm: vec![0, 3, 1, 2] }, &x)? } else { x };
    let kernel = if channels_last {
        [map.shape[2], map.shape[3]]
    } else {
        [2, 3].map(|a| if axes.contains(&a) { map.shape[a] } else { 1 })
    };
    let window = Window { stride: kernel, ..Window::new(kernel) };
    let op = if what == "mean" { Op::AvgPool { window, counted: [0; 4] } } else { Op::MaxPool { window } };
    let reduced = call.emit(op, &map)?;
    if reduced.shape == shape {
        return Ok(reduced);
    }
    call.emit_as("/shape", Op::Reshape { shape }, &reduced)
}
