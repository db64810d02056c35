//! Element-wise operators and those that move elements.

use bcc_ir::geometry::Block;
use bcc_ir::graph::map_of;

/// Gates every patch of every channel by the sign of its sum; a sum of zero passes.
pub(crate) fn block_relu(x: &mut [f32], shape: &[usize], blocks: &[Block]) {
    let Some((_, [h, w])) = map_of(shape) else { return };
    for (map, block) in x.chunks_exact_mut(h * w).zip(blocks) {
        match *block {
            Block::Identity => {}
            Block::Zero => map.fill(0.0),
            Block::RELU => map.iter_mut().for_each(|v| *v = v.max(0.0)),
            Block::Patch { h: bh, w: bw } => {
                for top in (0..h).step_by(bh) {
                    for left in (0..w).step_by(bw) {
                        let columns = left..w.min(left + bw);
                        let rows = top..h.min(top + bh);
                        let row = |r: usize| r * w + columns.start..r * w + columns.end;
                        let sum: f64 = rows.clone().flat_map(|r| &map[row(r)]).map(|v| f64::from(*v)).sum();
                        if sum < 0.0 {
                            rows.for_each(|r| map[row(r)].fill(0.0));
                        }
                    }
                }
            }
        }
    }
}

/// Multiplies `x` by the gates that [`block_relu`] derives from `z`.
pub(super) fn gate_by(x: &mut [f32], z: &[f32], shape: &[usize], blocks: &[Block]) {
    let Some((_, [h, w])) = map_of(shape) else { return };
    for ((x, z), block) in x.chunks_exact_mut(h * w).zip(z.chunks_exact(h * w)).zip(blocks) {
        match *block {
            Block::Identity => {}
            Block::Zero => x.fill(0.0),
            Block::RELU => x.iter_mut().zip(z).for_each(|(x, z)| {
                if *z < 0.0 {
                    *x = 0.0;
                }
            }),
            Block::Patch { h: bh, w: bw } => {
                for top in (0..h).step_by(bh) {
                    for left in (0..w).step_by(bw) {
                        let rows = top..h.min(top + bh);
                        let row = |r: usize| r * w + left..r * w + w.min(left + bw);
                        let sum: f64 = rows.clone().flat_map(|r| &z[row(r)]).map(|v| f64::from(*v)).sum();
                        if sum < 0.0 {
                            rows.for_each(|r| x[row(r)].fill(0.0));
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn affine(x: &mut [f32], scale: &[f32], shift: &[f32]) {
    let per_channel = x.len() / scale.len();
    for (map, (a, b)) in x.chunks_exact_mut(per_channel).zip(scale.iter().zip(shift)) {
        map.iter_mut().for_each(|v| *v = a * *v + b);
    }
}

/// Zeros around a `[1, c, h, w]` map: top, left, bottom, right.
pub(super) fn pad(x: &[f32], shape: &[usize], [top, left, bottom, right]: [usize; 4]) -> Vec<f32> {
    let [c, h, w] = [shape[1], shape[2], shape[3]];
    let (oh, ow) = (h + top + bottom, w + left + right);
    let mut y = vec![0.0; c * oh * ow];
    for (row, source) in x.chunks_exact(w).enumerate() {
        let at = (row / h * oh + row % h + top) * ow + left;
        y[at..at + w].copy_from_slice(source);
    }
    y
}

/// Cuts the border off again: the gradient of [`pad`].
pub(super) fn pad_backward(g: &[f32], shape: &[usize], [top, left, bottom, right]: [usize; 4], out: &mut [f32]) {
    let [h, w] = [shape[2], shape[3]];
    let (oh, ow) = (h + top + bottom, w + left + right);
    for (row, target) in out.chunks_exact_mut(w).enumerate() {
        let at = (row / h * oh + row % h + top) * ow + left;
        target.copy_from_slice(&g[at..at + w]);
    }
}

pub(super) fn gather(x: &[f32], shape: &[usize], axis: usize, indices: &[usize]) -> Vec<f32> {
    let inner: usize = shape[axis + 1..].iter().product();
    let mut y = Vec::with_capacity(x.len() / shape[axis] * indices.len());
    for slab in x.chunks_exact(shape[axis] * inner) {
        for &i in indices {
            y.extend_from_slice(&slab[i * inner..(i + 1) * inner]);
        }
    }
    y
}

/// Adds every picked element to its place: the gradient of [`gather`].
pub(super) fn gather_backward(g: &[f32], shape: &[usize], axis: usize, indices: &[usize], out: &mut [f32]) {
    let inner: usize = shape[axis + 1..].iter().product();
    let slabs = out.chunks_exact_mut(shape[axis] * inner).zip(g.chunks_exact(indices.len() * inner));
    for (out, g) in slabs {
        for (&i, g) in indices.iter().zip(g.chunks_exact(inner)) {
            out[i * inner..(i + 1) * inner].iter_mut().zip(g).for_each(|(o, g)| *o += g);
        }
    }
}

pub(super) fn scatter(x: &[f32], shape: &[usize], axis: usize, size: usize, indices: &[usize]) -> Vec<f32> {
    let inner: usize = shape[axis + 1..].iter().product();
    let mut y = vec![0.0; x.len() / shape[axis] * size];
    for (slab, source) in y.chunks_exact_mut(size * inner).zip(x.chunks_exact(shape[axis] * inner)) {
        for (piece, i) in source.chunks_exact(inner).zip(indices) {
            slab[i * inner..(i + 1) * inner].copy_from_slice(piece);
        }
    }
    y
}

pub(super) fn transpose(x: &[f32], shape: &[usize], perm: &[usize]) -> Vec<f32> {
    let view = ndarray::ArrayView::from_shape(shape, x).expect("a value has as many elements as its shape");
    view.permuted_axes(perm).iter().copied().collect()
}

pub(super) fn softmax(x: &mut [f32], shape: &[usize], axis: usize) {
    let inner: usize = shape[axis + 1..].iter().product();
    let n = shape[axis];
    for slab in x.chunks_exact_mut(n * inner) {
        for i in 0..inner {
            let at = |j: usize| j * inner + i;
            let top = (0..n).map(|j| slab[at(j)]).fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = (0..n).map(|j| f64::from(slab[at(j)] - top).exp()).sum();
            for j in 0..n {
                slab[at(j)] = (f64::from(slab[at(j)] - top).exp() / total) as f32;
            }
        }
    }
}
