//! `Resize` and `Upsample`, and stretching axes of one element.
//!
//! Every axis of another size in the result is resampled on its own: by picking positions (nearest),
//! or by interpolation between two neighbours (linear). Coordinates are computed in 32-bit floats, as
//! the usual runtimes do, since rounding decides between neighbours.

use bcc_ir::graph::{ClientStep, Op, Sample};

use super::call::{Call, Traced};
use super::error::{Outcome, Problem, REEXPORT, fault, mismatch};
use super::literal::{Literal, checked_len};
use super::node::axis_of;

/// Most elements of a resized axis.
const MAX_SIZE: f32 = 65536.0;

/// Where an element of the result lies on the axis before.
#[derive(Clone, Copy)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    TfHalfPixelForNn,
    AlignCorners,
    Asymmetric,
}

#[derive(Clone, Copy)]
enum Mode {
    /// With the rounding of a coordinate.
    Nearest(fn(f32) -> f32),
    Linear,
}

/// One axis: sizes before and after, and their ratio as the file states it.
struct Axis {
    from: usize,
    to: usize,
    scale: f32,
}

impl Coordinates {
    fn of(self, axis: &Axis, o: usize) -> f32 {
        let (o, from, to, scale) = (o as f32, axis.from as f32, axis.to as f32, axis.scale);
        match self {
            Coordinates::HalfPixel => (o + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = to / (scale * from);
                from / 2.0 * (1.0 - adjustment) + (o + 0.5) / scale - 0.5
            }
            Coordinates::PytorchHalfPixel if axis.to == 1 => 0.0,
            Coordinates::PytorchHalfPixel => (o + 0.5) / scale - 0.5,
            Coordinates::TfHalfPixelForNn => (o + 0.5) / scale,
            Coordinates::AlignCorners if axis.to == 1 => 0.0,
            Coordinates::AlignCorners => o * (from - 1.0) / (to - 1.0),
            Coordinates::Asymmetric => o / scale,
        }
    }
}

impl Mode {
    fn sample(self, axis: &Axis, x: f32) -> Sample {
        let last = axis.from - 1;
        match self {
            Mode::Nearest(round) => Sample::at(round(x).clamp(0.0, last as f32) as usize),
            Mode::Linear => {
                let x = x.clamp(0.0, last as f32);
                let (low, weight) = (x.floor() as usize, f64::from(x.fract()));
                if weight == 0.0 { Sample::at(low) } else { Sample { low, high: (low + 1).min(last), weight } }
            }
        }
    }
}

/// `Resize`, or `Upsample` of the older operator sets, whose coordinates are asymmetric.
pub(super) fn resize(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&[
        "antialias",
        "axes",
        "coordinate_transformation_mode",
        "cubic_coeff_a",
        "exclude_outside",
        "extrapolation_value",
        "keep_aspect_ratio_policy",
        "mode",
        "nearest_mode",
        "scales",
    ])?;
    let x = call.traced(0, "X")?;
    let old = view.operator() == "Upsample" || view.opset < 11;
    let coordinates = if old { Coordinates::Asymmetric } else { coordinates(call)? };
    let mode = mode(call, old)?;
    let axes = axes(call, &x.shape, old)?;
    if let Some(policy) = view.string("keep_aspect_ratio_policy")?.filter(|p| p != "stretch") {
        return Err(view.bad_attribute(
            "keep_aspect_ratio_policy",
            format!("is `{policy}`"),
            "give the size of every axis, with `stretch`",
        ));
    }
    let shrinks = axes.iter().any(|(_, a)| a.to < a.from || a.scale < 1.0);
    if shrinks && view.flag("antialias", false)? {
        return Err(view.bad_attribute("antialias", "is 1 where the map shrinks", "pool before the resize instead"));
    }
    if shrinks && old && matches!(mode, Mode::Nearest(_)) {
        return Err(fault(
            Problem::Mismatch("how nearest neighbours shrink a map is not defined before opset 11".into()),
            "convert the model to opset 11 or above",
        ));
    }
    let samples = axes.into_iter().map(|(axis, a)| {
        (axis, a.from, (0..a.to).map(|o| mode.sample(&a, coordinates.of(&a, o))).collect::<Vec<Sample>>())
    });
    let changed = samples.filter(|(_, from, s)| !s.iter().copied().eq((0..*from).map(Sample::at)));
    let changed = changed.map(|(axis, _, s)| (axis, s)).collect();
    resampled(call, &x, changed)
}

fn coordinates(call: &Call) -> Outcome<Coordinates> {
    let name = "coordinate_transformation_mode";
    Ok(match call.view.string(name)?.as_deref() {
        None | Some("half_pixel") => Coordinates::HalfPixel,
        Some("half_pixel_symmetric") => Coordinates::HalfPixelSymmetric,
        Some("pytorch_half_pixel") => Coordinates::PytorchHalfPixel,
        Some("tf_half_pixel_for_nn") => Coordinates::TfHalfPixelForNn,
        Some("align_corners") => Coordinates::AlignCorners,
        Some("asymmetric") => Coordinates::Asymmetric,
        Some(other) => {
            let remedy = "use half_pixel, pytorch_half_pixel, align_corners or asymmetric";
            return Err(call.view.bad_attribute(name, format!("is `{other}`"), remedy));
        }
    })
}

fn mode(call: &Call, old: bool) -> Outcome<Mode> {
    let view = call.view;
    match view.string("mode")?.as_deref() {
        Some("linear" | "bilinear") => return Ok(Mode::Linear),
        None | Some("nearest") => {}
        Some(other) => {
            return Err(view.bad_attribute("mode", format!("is `{other}`"), "use nearest or linear interpolation"));
        }
    }
    if old {
        return Ok(Mode::Nearest(f32::floor));
    }
    Ok(Mode::Nearest(match view.string("nearest_mode")?.as_deref() {
        None | Some("round_prefer_floor") => |x| (x - 0.5).ceil(),
        Some("round_prefer_ceil") => |x| (x + 0.5).floor(),
        Some("floor") => f32::floor,
        Some("ceil") => f32::ceil,
        Some(other) => {
            return Err(view.bad_attribute("nearest_mode", format!("is `{other}`"), "use round_prefer_floor"));
        }
    }))
}

/// The axes that scales or sizes are given for.
fn axes(call: &Call, shape: &[usize], old: bool) -> Outcome<Vec<(usize, Axis)>> {
    let view = call.view;
    let rank = shape.len();
    let named: Vec<usize> = match view.ints("axes")? {
        None => (0..rank).collect(),
        Some(list) => {
            let axes: Option<Vec<usize>> = list.iter().map(|&a| axis_of(a, rank)).collect();
            axes.ok_or_else(|| view.bad_attribute("axes", format!("is {list:?} on {rank} axes"), REEXPORT))?
        }
    };
    let given = |literal: Option<std::rc::Rc<Literal>>| literal.filter(|l| l.data.len() > 0);
    let scales = match view.floats("scales")? {
        Some(list) => Some(list.to_vec()),
        None => given(call.optional(if old { 1 } else { 2 }, "scales")?).map(|l| l.floats()).transpose()?,
    };
    let sizes = if old { None } else { given(call.optional(3, "sizes")?) };
    let sizes = sizes.map(|l| l.integers().map(<[i64]>::to_vec)).transpose()?;
    let count = |n: usize, what: &str| {
        let fits = n == named.len();
        if fits { Ok(()) } else { Err(mismatch(format!("{n} {what} for {} axes of {shape:?}", named.len()))) }
    };
    let too_large = |v: String| fault(Problem::TooLarge(v), REEXPORT);
    let mut all = Vec::with_capacity(named.len());
    match (scales, sizes) {
        (Some(scales), None) => {
            count(scales.len(), "scales")?;
            for (&axis, scale) in named.iter().zip(scales) {
                let to = (shape[axis] as f32 * scale).floor();
                if scale <= 0.0 || to < 1.0 {
                    return Err(mismatch(format!("scale {scale} leaves nothing of an axis of {}", shape[axis])));
                }
                if to > MAX_SIZE {
                    return Err(too_large(format!("an axis of {} scaled by {scale}", shape[axis])));
                }
                all.push((axis, Axis { from: shape[axis], to: to as usize, scale }));
            }
        }
        (None, Some(sizes)) => {
            count(sizes.len(), "sizes")?;
            for (&axis, size) in named.iter().zip(sizes) {
                // The declared batch is compiled as a batch of one.
                let size = if axis == 0 && Some(size) == call.draft.batch { 1 } else { size };
                if size < 1 {
                    return Err(mismatch(format!("a size of {size}")));
                }
                if size as f32 > MAX_SIZE {
                    return Err(too_large(format!("a size of {size}")));
                }
                let to = size as usize;
                all.push((axis, Axis { from: shape[axis], to, scale: to as f32 / shape[axis] as f32 }));
            }
        }
        (None, None) => return Err(fault(Problem::MissingOperand { index: 2, what: "scales or sizes" }, REEXPORT)),
        (Some(_), Some(_)) => return Err(mismatch("both scales and sizes are given")),
    }
    if all.iter().any(|(axis, a)| *axis == 0 && a.to != a.from) {
        return Err(mismatch("the batch is resized"));
    }
    Ok(all)
}

/// Resamples axes, ascending, by the parties or by the client behind its softmax; the last step
/// bears the node's name.
fn resampled(call: &mut Call, x: &Traced, mut axes: Vec<(usize, Vec<Sample>)>) -> Outcome<Traced> {
    axes.sort_by_key(|(axis, _)| *axis);
    let mut shape = x.shape.clone();
    for (axis, samples) in &axes {
        shape[*axis] = samples.len();
    }
    if checked_len(&shape, 1 << 31).is_none() {
        return Err(fault(Problem::TooLarge(format!("a tensor of shape {shape:?}")), REEXPORT));
    }
    if let Some((source, steps)) = &x.client {
        let mut steps = steps.clone();
        steps.extend(axes.into_iter().map(|(axis, samples)| ClientStep::Resample { axis, samples }));
        return Ok(Traced { id: x.id, shape, client: Some((source.clone(), steps)) });
    }
    let last = axes.len();
    let mut value = x.clone();
    for (i, (axis, samples)) in axes.into_iter().enumerate() {
        let suffix = if i + 1 == last { String::new() } else { format!("/axis{axis}") };
        value = call.emit_as(&suffix, Op::resampling(axis, samples), &value)?;
    }
    if last == 0 { call.emit(Op::Identity, x) } else { Ok(value) }
}

/// Repeats axes of one element, and adds such axes in front, up to a shape; the last step bears the
/// node's name with the suffix. `None` where that does not lead to the shape.
pub(super) fn stretched(call: &mut Call, x: &Traced, shape: &[usize], suffix: &str) -> Outcome<Option<Traced>> {
    let Some(new) = shape.len().checked_sub(x.shape.len()) else { return Ok(None) };
    let mut from = vec![1; new];
    from.extend(&x.shape);
    let axes: Vec<usize> = (0..shape.len()).filter(|i| from[*i] != shape[*i]).collect();
    if axes.iter().any(|i| from[*i] != 1) {
        return Ok(None);
    }
    let mut value = x.clone();
    if new > 0 {
        let name = if axes.is_empty() { suffix.to_string() } else { format!("{suffix}/rank") };
        value = call.emit_as(&name, Op::Reshape { shape: from }, &value)?;
    }
    for (i, axis) in axes.iter().enumerate() {
        let name = if i + 1 == axes.len() { suffix.to_string() } else { format!("{suffix}/axis{axis}") };
        let indices = vec![0; shape[*axis]];
        value = call.emit_as(&name, Op::Gather { axis: *axis, indices }, &value)?;
    }
    Ok(Some(value))
}

/// `Expand` to a constant shape.
pub(super) fn expand(call: &mut Call) -> Outcome<Traced> {
    call.view.only(&[])?;
    let x = call.tensor(0, "input")?;
    let wish = call.literal(1, "shape")?;
    let wish = wish.integers()?;
    let impossible = || mismatch(format!("cannot expand {:?} to {wish:?}", x.shape));
    let rank = wish.len().max(x.shape.len());
    let mut shape = Vec::with_capacity(rank);
    for i in 0..rank {
        let own = (i + x.shape.len()).checked_sub(rank).map(|j| x.shape[j]);
        let asked = (i + wish.len()).checked_sub(rank).map(|j| wish[j]);
        shape.push(match (own, asked) {
            // The declared batch is compiled as a batch of one.
            (Some(n), Some(d)) if i == 0 && Some(d) == call.draft.batch => n,
            (Some(n), None | Some(1)) => n,
            (_, Some(d)) => usize::try_from(d).ok().filter(|d| *d <= 1 << 31).ok_or_else(impossible)?,
            (None, None) => 1,
        });
    }
    if checked_len(&shape, 1 << 31).is_none() {
        return Err(fault(Problem::TooLarge(format!("a tensor of shape {shape:?}")), REEXPORT));
    }
    if shape == x.shape {
        return call.emit(Op::Identity, &x);
    }
    stretched(call, &x, &shape, "")?.ok_or_else(impossible)
}
