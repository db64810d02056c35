//! Element-wise operators and those that move elements.

use std::ops::{Deref, Range};

use bcc_ir::geometry::Block;
use bcc_ir::graph::{Sample, map_of};

/// A patch of a map: its rows, and its columns in each of them.
pub(crate) struct Patch {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Patch {
    /// All patches of up to `bh x bw` pixels of an `h x w` map, row by row.
    pub(crate) fn all([h, w]: [usize; 2], [bh, bw]: [usize; 2]) -> impl Iterator<Item = Patch> {
        let from = move |top: usize| {
            let patch = move |left: usize| Patch { rows: top..h.min(top + bh), columns: left..w.min(left + bw) };
            (0..w).step_by(bw).map(patch)
        };
        (0..h).step_by(bh).flat_map(from)
    }

    fn runs(&self, w: usize) -> impl Iterator<Item = Range<usize>> {
        let columns = self.columns.clone();
        self.rows.clone().map(move |r| r * w + columns.start..r * w + columns.end)
    }

    /// Sum over its pixels in a map of `w` columns.
    pub(crate) fn sum(&self, map: &[f32], w: usize) -> f64 {
        self.runs(w).flat_map(|run| &map[run]).map(|v| f64::from(*v)).sum()
    }

    fn clear(&self, map: &mut [f32], w: usize) {
        self.runs(w).for_each(|run| map[run].fill(0.0));
    }
}

/// Gates every patch of every channel by the sign of its sum; a sum of zero passes.
pub(crate) fn block_relu(x: &mut [f32], shape: &[usize], blocks: &[Block]) {
    let Some((_, [h, w])) = map_of(shape) else { return };
    for (map, block) in x.chunks_exact_mut(h * w).zip(blocks) {
        match *block {
            Block::Identity => {}
            Block::Zero => map.fill(0.0),
            Block::RELU => map.iter_mut().for_each(|v| *v = v.max(0.0)),
            Block::Patch { h: bh, w: bw } => {
                for patch in Patch::all([h, w], [bh, bw]) {
                    if patch.sum(map, w) < 0.0 {
                        patch.clear(map, w);
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
                Patch::all([h, w], [bh, bw]).filter(|p| p.sum(z, w) < 0.0).for_each(|p| p.clear(x, w));
            }
        }
    }
}

/// `min(max(x, low), high)`.
pub(super) fn clip(x: &mut [f32], low: Option<f64>, high: Option<f64>) {
    let low = low.map_or(f32::NEG_INFINITY, |b| b as f32);
    let high = high.map_or(f32::INFINITY, |b| b as f32);
    // A value that is no number stays one, for the range pass to report.
    x.iter_mut().for_each(|v| *v = if v.is_nan() { *v } else { v.max(low).min(high) });
}

/// Clears `x` where `z` lies outside of the bounds: the gradient of [`clip`].
pub(super) fn clip_by(x: &mut [f32], z: &[f32], low: Option<f64>, high: Option<f64>) {
    let outside = |z: f64| low.is_some_and(|b| z < b) || high.is_some_and(|b| z > b);
    x.iter_mut().zip(z).filter(|(_, z)| outside(f64::from(**z))).for_each(|(x, _)| *x = 0.0);
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

/// Parts one behind the other, given the elements of each that lie together.
pub(crate) fn concat<T: Copy, P: Deref<Target = [T]>>(parts: &[P], rows: &[usize]) -> Vec<T> {
    let mut y = Vec::with_capacity(parts.iter().map(|p| p.len()).sum());
    for o in 0..parts[0].len() / rows[0] {
        for (part, row) in parts.iter().zip(rows) {
            y.extend_from_slice(&part[o * row..(o + 1) * row]);
        }
    }
    y
}

/// Gives both elements of every sample their share: the gradient of [`resample`](bcc_ir::graph::resample).
pub(super) fn resample_backward(g: &[f32], shape: &[usize], axis: usize, samples: &[Sample], out: &mut [f32]) {
    let inner: usize = shape[axis + 1..].iter().product();
    let slabs = out.chunks_exact_mut(shape[axis] * inner).zip(g.chunks_exact(samples.len() * inner));
    for (out, g) in slabs {
        for (s, g) in samples.iter().zip(g.chunks_exact(inner)) {
            let w = s.weight as f32;
            for (position, share) in [(s.low, 1.0 - w), (s.high, w)] {
                out[position * inner..][..inner].iter_mut().zip(g).for_each(|(o, g)| *o += share * g);
            }
        }
    }
}
