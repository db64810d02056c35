//! Element by element.

use crate::element::Element;

/// `a + b`.
#[inline(always)]
pub fn add<E: Element>(bits: u8, a: &[E], b: &[E], out: &mut [E]) {
    let m = E::mask(bits);
    for ((y, a), b) in out.iter_mut().zip(a).zip(b) {
        *y = a.plus(*b) & m;
    }
}

/// `a - b`.
#[inline(always)]
pub fn sub<E: Element>(bits: u8, a: &[E], b: &[E], out: &mut [E]) {
    let m = E::mask(bits);
    for ((y, a), b) in out.iter_mut().zip(a).zip(b) {
        *y = a.minus(*b) & m;
    }
}

/// `a + value`.
#[inline(always)]
pub fn add_const<E: Element>(bits: u8, a: &[E], value: E, out: &mut [E]) {
    let m = E::mask(bits);
    for (y, a) in out.iter_mut().zip(a) {
        *y = a.plus(value) & m;
    }
}

/// `(a + carry 2^drop mod 2^k) >> drop`.
#[inline(always)]
pub fn truncate<E: Element>(k: u8, drop: u8, carry: u8, a: &[E], out: &mut [E]) {
    let (m, unit) = (E::mask(k), E::of(carry.into()).up(drop));
    for (y, a) in out.iter_mut().zip(a) {
        *y = (a.plus(unit) & m) >> drop;
    }
}

/// `low + 2^shift high`.
#[inline(always)]
pub fn join<E: Element>(bits: u8, shift: u8, low: &[E], high: &[E], out: &mut [E]) {
    let m = E::mask(bits);
    for ((y, l), h) in out.iter_mut().zip(low).zip(high) {
        *y = l.plus(h.up(shift)) & m;
    }
}

/// `x + b[channel]`.
#[inline(always)]
pub fn add_bias<E: Element>(bits: u8, x: &[E], b: &[E], out: &mut [E]) {
    let size = x.len() / b.len();
    for ((y, x), b) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)).zip(b) {
        add_const(bits, x, *b, y);
    }
}

/// `x * factors[position]`.
#[inline(always)]
pub fn scale<E: Element>(bits: u8, factors: &[u64], x: &[E], out: &mut [E]) {
    let m = E::mask(bits);
    for (y, x) in out.chunks_exact_mut(factors.len()).zip(x.chunks_exact(factors.len())) {
        for ((y, x), f) in y.iter_mut().zip(x).zip(factors) {
            *y = x.times(E::of(*f)) & m;
        }
    }
}
