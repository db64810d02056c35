//! Bit planes.

use crate::buffer::{stride, tail_mask};
use crate::element::Element;
use crate::kernels::blocks::bit;

/// `a xor b`.
#[inline(always)]
pub fn xor(a: &[u64], b: &[u64], out: &mut [u64]) {
    for ((y, a), b) in out.iter_mut().zip(a).zip(b) {
        *y = a ^ b;
    }
}

/// `1 xor a xor b`, over planes of `len` bits.
#[inline(always)]
pub fn xnor(len: usize, a: &[u64], b: &[u64], out: &mut [u64]) {
    for ((y, a), b) in out.iter_mut().zip(a).zip(b) {
        *y = !(a ^ b);
    }
    if len > 0 {
        out.chunks_exact_mut(stride(len)).for_each(|plane| plane[stride(len) - 1] &= tail_mask(len));
    }
}

/// Plane `p` of the output is plane `picks[p].1` of operand `picks[p].0`.
#[inline(always)]
pub fn planes(len: usize, picks: &[(u8, u32)], operands: &[&[u64]], out: &mut [u64]) {
    let n = stride(len);
    for (&(operand, plane), y) in picks.iter().zip(out.chunks_exact_mut(n)) {
        y.copy_from_slice(&operands[usize::from(operand)][plane as usize * n..][..n]);
    }
}

/// Plane `pad + p` holds bit `low + p` of every element; `out` is zero before.
#[inline(always)]
pub fn to_bits<E: Element>(low: u8, pad: u8, x: &[E], out: &mut [u64]) {
    let planes = out.chunks_exact_mut(stride(x.len())).skip(usize::from(pad));
    for (p, plane) in planes.enumerate() {
        for (word, values) in plane.iter_mut().zip(x.chunks(64)) {
            for (i, v) in values.iter().enumerate() {
                *word |= (v.word() >> (usize::from(low) + p) & 1) << i;
            }
        }
    }
}

/// 0 or 1 for every bit of a plane.
#[inline(always)]
pub fn to_ring<E: Element>(plane: &[u64], out: &mut [E]) {
    for (i, y) in out.iter_mut().enumerate() {
        *y = E::of(bit(plane, i));
    }
}

/// Whether `a + b >= 2^k`; `out` is zero before.
#[inline(always)]
pub fn wrap<E: Element>(k: u8, a: &[E], b: &[E], out: &mut [u64]) {
    for ((word, a), b) in out.iter_mut().zip(a.chunks(64)).zip(b.chunks(64)) {
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            // The sum wrapped exactly if it came out smaller than an operand.
            *word |= u64::from(a.plus(*b) & E::mask(k) < *a) << i;
        }
    }
}
