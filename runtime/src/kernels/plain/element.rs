//! Element by element.

use crate::buffer::mask;

/// `a + b`.
#[inline(always)]
pub fn add(bits: u8, a: &[u64], b: &[u64], out: &mut [u64]) {
    let m = mask(bits);
    for ((y, a), b) in out.iter_mut().zip(a).zip(b) {
        *y = a.wrapping_add(*b) & m;
    }
}

/// `a - b`.
#[inline(always)]
pub fn sub(bits: u8, a: &[u64], b: &[u64], out: &mut [u64]) {
    let m = mask(bits);
    for ((y, a), b) in out.iter_mut().zip(a).zip(b) {
        *y = a.wrapping_sub(*b) & m;
    }
}

/// `a + value`.
#[inline(always)]
pub fn add_const(bits: u8, a: &[u64], value: u64, out: &mut [u64]) {
    let m = mask(bits);
    for (y, a) in out.iter_mut().zip(a) {
        *y = a.wrapping_add(value) & m;
    }
}

/// `(a + carry 2^drop mod 2^k) >> drop`.
#[inline(always)]
pub fn truncate(k: u8, drop: u8, carry: u8, a: &[u64], out: &mut [u64]) {
    let (m, unit) = (mask(k), u64::from(carry) << drop);
    for (y, a) in out.iter_mut().zip(a) {
        *y = (a.wrapping_add(unit) & m) >> drop;
    }
}

/// `low + 2^shift high`.
#[inline(always)]
pub fn join(bits: u8, shift: u8, low: &[u64], high: &[u64], out: &mut [u64]) {
    let m = mask(bits);
    for ((y, l), h) in out.iter_mut().zip(low).zip(high) {
        *y = l.wrapping_add(h << shift) & m;
    }
}

/// `x + b[channel]`.
#[inline(always)]
pub fn add_bias(bits: u8, x: &[u64], b: &[u64], out: &mut [u64]) {
    let size = x.len() / b.len();
    for ((y, x), b) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)).zip(b) {
        add_const(bits, x, *b, y);
    }
}

/// `x * factors[position]`.
#[inline(always)]
pub fn scale(bits: u8, factors: &[u64], x: &[u64], out: &mut [u64]) {
    let m = mask(bits);
    for (y, x) in out.chunks_exact_mut(factors.len()).zip(x.chunks_exact(factors.len())) {
        for ((y, x), f) in y.iter_mut().zip(x).zip(factors) {
            *y = x.wrapping_mul(*f) & m;
        }
    }
}
