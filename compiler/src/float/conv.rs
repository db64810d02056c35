//! Convolution as a matrix product over gathered patches, a band of output rows at a time.

use std::ops::Range;

use bcc_ir::geometry::ConvShape;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};

/// Elements of the patch matrix of one band: it stays in the second-level cache.
const BAND: usize = 1 << 18;

/// `x` is `[in_channels, h, w]`, `weight` `[out, in / groups, kh, kw]`; the result `[out, oh, ow]`.
pub(super) fn conv(x: &[f32], weight: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
    let [oh, ow] = shape.output().expect("shapes are inferred before a run");
    let pixels = oh * ow;
    let mut y = vec![0.0; shape.out_channels * pixels];
    if let Some(bias) = bias {
        y.chunks_exact_mut(pixels).zip(bias).for_each(|(map, b)| map.fill(*b));
    }
    let inputs = shape.in_channels / shape.groups;
    let outputs = shape.out_channels / shape.groups;
    let in_len = inputs * shape.input[0] * shape.input[1];
    let [kh, kw] = shape.window.kernel;
    let depth = inputs * kh * kw;
    let groups =
        x.chunks_exact(in_len).zip(weight.chunks_exact(outputs * depth)).zip(y.chunks_exact_mut(outputs * pixels));
    let mut patches = Vec::new();
    for ((x, weight), y) in groups {
        if inputs == 1 && outputs == 1 {
            single_channel(x, weight, y, shape, [oh, ow]);
            continue;
        }
        let weight = matrix(weight, outputs, depth);
        let mut y = ArrayViewMut2::from_shape((outputs, pixels), y).expect("a group's output is outputs x pixels");
        if is_pointwise(shape) {
            general_mat_mul(1.0, &weight, &matrix(x, depth, pixels), 1.0, &mut y);
            continue;
        }
        let band = (BAND / (depth * ow)).clamp(1, oh);
        for top in (0..oh).step_by(band) {
            let rows = band.min(oh - top);
            gather_patches(x, &mut patches, shape, top..top + rows, ow);
            let mut part = y.slice_mut(s![.., top * ow..(top + rows) * ow]);
            general_mat_mul(1.0, &weight, &matrix(&patches, depth, rows * ow), 1.0, &mut part);
        }
    }
    y
}

/// The gradient of [`conv`] at its operand: adds to `out`, shaped as the operand, the transposed
/// convolution of `g`, shaped as the result.
pub(super) fn backward(g: &[f32], weight: &[f32], shape: &ConvShape, out: &mut [f32]) {
    let [oh, ow] = shape.output().expect("shapes are inferred before a run");
    let pixels = oh * ow;
    let inputs = shape.in_channels / shape.groups;
    let outputs = shape.out_channels / shape.groups;
    let in_len = inputs * shape.input[0] * shape.input[1];
    let [kh, kw] = shape.window.kernel;
    let depth = inputs * kh * kw;
    let groups =
        out.chunks_exact_mut(in_len).zip(weight.chunks_exact(outputs * depth)).zip(g.chunks_exact(outputs * pixels));
    let mut patches: Vec<f32> = Vec::new();
    for ((out, weight), g) in groups {
        if inputs == 1 && outputs == 1 {
            single_channel_backward(g, weight, out, shape, [oh, ow]);
            continue;
        }
        let transposed = matrix(weight, outputs, depth).reversed_axes();
        let g = matrix(g, outputs, pixels);
        if is_pointwise(shape) {
            let mut out = ArrayViewMut2::from_shape((depth, pixels), out).expect("an operand is inputs x pixels");
            general_mat_mul(1.0, &transposed, &g, 1.0, &mut out);
            continue;
        }
        let band = (BAND / (depth * ow)).clamp(1, oh);
        for top in (0..oh).step_by(band) {
            let rows = band.min(oh - top);
            patches.resize(depth * rows * ow, 0.0);
            let mut part = ArrayViewMut2::from_shape((depth, rows * ow), &mut patches[..]).expect("sized above");
            general_mat_mul(1.0, &transposed, &g.slice(s![.., top * ow..(top + rows) * ow]), 0.0, &mut part);
            scatter_patches(&patches, out, shape, top..top + rows, ow);
        }
    }
}

/// `weight` is `[out, in]`.
pub(super) fn dense(x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let dot = |row: &[f32]| -> f32 {
        let lanes = row.chunks(16).zip(x.chunks(16)).fold([0f32; 16], |mut sum, (w, x)| {
            sum.iter_mut().zip(w.iter().zip(x)).for_each(|(s, (w, x))| *s += w * x);
            sum
        });
        lanes.iter().sum()
    };
    let mut y: Vec<f32> = weight.chunks_exact(x.len()).map(dot).collect();
    if let Some(bias) = bias {
        y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
    y
}

fn matrix(data: &[f32], rows: usize, columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, columns), data).expect("operands have the sizes of their shapes")
}

/// The patch matrix of one group: `[in / groups * kh * kw, oh * ow]`.
pub(crate) fn patches_of(x: &[f32], shape: &ConvShape, group: usize) -> Vec<f32> {
    let [oh, ow] = shape.output().expect("shapes are inferred before a run");
    let in_len = shape.in_channels / shape.groups * shape.input[0] * shape.input[1];
    let mut patches = Vec::new();
    gather_patches(&x[group * in_len..(group + 1) * in_len], &mut patches, shape, 0..oh, ow);
    patches
}

/// Whether output pixels read exactly the input pixels of their own position.
fn is_pointwise(shape: &ConvShape) -> bool {
    let w = &shape.window;
    w.kernel == [1, 1] && w.stride == [1, 1] && w.pad == [0; 4]
}

/// Output columns whose tap lies inside a row of `width`, and the input column of the first one.
fn span(shape: &ConvShape, tap: usize, ow: usize) -> (Range<usize>, usize) {
    let (stride, width) = (shape.window.stride[1], shape.input[1] as isize);
    let origin = shape.window.position(1, 0, tap);
    let first = if origin < 0 { origin.unsigned_abs().div_ceil(stride) } else { 0 };
    let end = if origin >= width { 0 } else { ((width - origin) as usize).div_ceil(stride) };
    let (first, end) = (first.min(ow), end.min(ow));
    let start = shape.window.position(1, first, tap).max(0) as usize;
    (first..end.max(first), start)
}

/// What one tap reads of a map for some output rows: for every row (counted from the first of them) that
/// has any, the output columns and the pixels of the map for them, the latter `stride` apart.
fn tap_rows(
    shape: &ConvShape,
    [ky, kx]: [usize; 2],
    rows: Range<usize>,
    ow: usize,
) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let [h, w] = shape.input;
    let window = shape.window;
    let (columns, start) = span(shape, kx, ow);
    rows.enumerate().filter_map(move |(i, oy)| {
        let iy = usize::try_from(window.position(0, oy, ky)).ok().filter(|y| *y < h)?;
        (!columns.is_empty()).then(|| (i, columns.clone(), iy * w + start..(iy + 1) * w))
    })
}

/// The patch matrix of some output rows: one row per input channel and tap, one column per pixel.
fn gather_patches(x: &[f32], patches: &mut Vec<f32>, shape: &ConvShape, rows: Range<usize>, ow: usize) {
    let pixels = shape.input[0] * shape.input[1];
    let [kh, kw] = shape.window.kernel;
    let stride = shape.window.stride[1];
    patches.clear();
    patches.resize(x.len() / pixels * kh * kw * rows.len() * ow, 0.0);
    let mut lines = patches.chunks_exact_mut(rows.len() * ow);
    for map in x.chunks_exact(pixels) {
        for ky in 0..kh {
            for (kx, lines) in (0..kw).zip(&mut lines) {
                for (i, columns, source) in tap_rows(shape, [ky, kx], rows.clone(), ow) {
                    let line = &mut lines[i * ow..(i + 1) * ow][columns];
                    let source = &map[source];
                    if stride == 1 {
                        line.copy_from_slice(&source[..line.len()]);
                    } else {
                        line.iter_mut().zip(source.iter().step_by(stride)).for_each(|(l, s)| *l = *s);
                    }
                }
            }
        }
    }
}

/// Adds the entries of a patch matrix, made as by [`gather_patches`], to the pixels they stand for.
fn scatter_patches(patches: &[f32], out: &mut [f32], shape: &ConvShape, rows: Range<usize>, ow: usize) {
    let [kh, kw] = shape.window.kernel;
    let stride = shape.window.stride[1];
    let mut lines = patches.chunks_exact(rows.len() * ow);
    for map in out.chunks_exact_mut(shape.input[0] * shape.input[1]) {
        for ky in 0..kh {
            for (kx, lines) in (0..kw).zip(&mut lines) {
                for (i, columns, target) in tap_rows(shape, [ky, kx], rows.clone(), ow) {
                    let line = &lines[i * ow..(i + 1) * ow][columns];
                    map[target].iter_mut().step_by(stride).zip(line).for_each(|(t, l)| *t += l);
                }
            }
        }
    }
}

/// One channel in, one channel out: a depthwise group.
fn single_channel(x: &[f32], weight: &[f32], y: &mut [f32], shape: &ConvShape, [oh, ow]: [usize; 2]) {
    let [kh, kw] = shape.window.kernel;
    let stride = shape.window.stride[1];
    for kx in 0..kw {
        for ky in 0..kh {
            let factor = weight[ky * kw + kx];
            for (oy, columns, source) in tap_rows(shape, [ky, kx], 0..oh, ow) {
                let line = &mut y[oy * ow..(oy + 1) * ow][columns];
                line.iter_mut().zip(x[source].iter().step_by(stride)).for_each(|(l, s)| *l += factor * s);
            }
        }
    }
}

/// The gradient of [`single_channel`] at its operand.
fn single_channel_backward(g: &[f32], weight: &[f32], out: &mut [f32], shape: &ConvShape, [oh, ow]: [usize; 2]) {
    let [kh, kw] = shape.window.kernel;
    let stride = shape.window.stride[1];
    for kx in 0..kw {
        for ky in 0..kh {
            let factor = weight[ky * kw + kx];
            for (oy, columns, target) in tap_rows(shape, [ky, kx], 0..oh, ow) {
                let line = &g[oy * ow..(oy + 1) * ow][columns];
                out[target].iter_mut().step_by(stride).zip(line).for_each(|(t, l)| *t += factor * l);
            }
        }
    }
}
