//! Elements in other places.

use bcc_ir::program::Source;

use crate::element::Element;

#[inline(always)]
fn copy<E: Element>(bits: u8, from: &[E], to: &mut [E]) {
    let m = E::mask(bits);
    for (y, x) in to.iter_mut().zip(from) {
        *y = *x & m;
    }
}

/// `y[o, j, i] = x[o, indices[j], i]` for `x` of shape `[outer, axis, inner]`.
#[inline(always)]
pub fn gather<E: Element>(bits: u8, [_, axis, inner]: [usize; 3], indices: &[usize], x: &[E], out: &mut [E]) {
    if inner == 0 || indices.is_empty() {
        return;
    }
    for (n, y) in out.chunks_exact_mut(inner).enumerate() {
        let (o, j) = (n / indices.len(), n % indices.len());
        copy(bits, &x[(o * axis + indices[j]) * inner..][..inner], y);
    }
}

/// Output axis `i` is operand axis `perm[i]`.
#[inline(always)]
pub fn transpose<E: Element>(bits: u8, shape: &[usize], perm: &[usize], x: &[E], out: &mut [E]) {
    let m = E::mask(bits);
    let steps: Vec<usize> = perm.iter().map(|&p| shape[p + 1..].iter().product()).collect();
    let sizes: Vec<usize> = perm.iter().map(|&p| shape[p]).collect();
    let mut at = vec![0; perm.len()];
    let mut from = 0;
    for y in out.iter_mut() {
        *y = x[from] & m;
        for axis in (0..at.len()).rev() {
            at[axis] += 1;
            from += steps[axis];
            if at[axis] < sizes[axis] {
                break;
            }
            from -= steps[axis] * sizes[axis];
            at[axis] = 0;
        }
    }
}

/// Zeros around each map of `input` pixels; `out` is zero before.
#[inline(always)]
pub fn pad<E: Element>(bits: u8, [h, w]: [usize; 2], [top, left, bottom, right]: [usize; 4], x: &[E], out: &mut [E]) {
    let wide = left + w + right;
    if h * w == 0 {
        return;
    }
    for (map, out) in x.chunks_exact(h * w).zip(out.chunks_exact_mut((top + h + bottom) * wide)) {
        for (row, out) in map.chunks_exact(w).zip(out.chunks_exact_mut(wide).skip(top)) {
            copy(bits, row, &mut out[left..left + w]);
        }
    }
}

/// Channels of `inner` elements, each the next one of an operand or zero; `out` is zero before.
#[inline(always)]
pub fn assemble<E: Element>(bits: u8, inner: usize, sources: &[Source], operands: &[&[E]], out: &mut [E]) {
    let mut next = vec![0; operands.len()];
    for (source, y) in sources.iter().zip(out.chunks_exact_mut(inner)) {
        if let Source::Operand(i) = source {
            let i = usize::from(*i);
            copy(bits, &operands[i][next[i]..][..inner], y);
            next[i] += inner;
        }
    }
}
