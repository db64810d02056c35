//! Gates of blocks and the lift of a modulus.

use bcc_ir::program::BlockMap;

use crate::element::Element;
use crate::kernels::blocks::{bit, for_runs};

/// The sum of every block.
#[inline(always)]
pub fn block_sum<E: Element>(bits: u8, map: &BlockMap, x: &[E], out: &mut [E]) {
    out.fill(E::ZERO);
    for_runs(map, |block, run| {
        let sum = x[run].iter().fold(E::ZERO, |sum, v| sum.plus(*v));
        out[block] = out[block].plus(sum);
    });
    out.iter_mut().for_each(|y| *y = *y & E::mask(bits));
}

/// `gate * x` for a secret gate that the dealer knows.
#[inline(always)]
pub fn gate<E: Element>(map: &BlockMap, gate: &[u64], x: &[E], out: &mut [E]) {
    for_runs(map, |block, run| {
        let keep = E::of(bit(gate, block)).neg();
        for (y, x) in out[run.clone()].iter_mut().zip(&x[run]) {
            *y = *x & keep;
        }
    });
}

/// Operands of `select`: the public values and this party's shares.
#[derive(Clone, Copy)]
pub struct Select<'a, E> {
    /// Public `z - a mod 2^k`, by pixel.
    pub d: &'a [E],
    /// Public `DReLU xor rho`, a plane over the blocks.
    pub delta: &'a [u64],
    /// Share of `a` modulo `2^k`, by pixel.
    pub a: &'a [E],
    /// Share of `rho` modulo `2^L`, by block.
    pub r: &'a [E],
    /// Share of `rho a` modulo `2^L`, by pixel.
    pub ra: &'a [E],
    /// Where `k < L`: the wrap of the two halves of `a`, its top bit, and `rho` times that bit,
    /// shared modulo `2^(L - k)`, by pixel.
    pub lift: Option<[&'a [E]; 3]>,
}

/// `eps = d + 2^(k-2) mod 2^k`: its top bit and `eps - te 2^k - 2^(k-2)`, which is `d` as a number
/// between `-2^(k-1) - 2^(k-2)` and `2^(k-1) - 2^(k-2)`, modulo the integer's size.
#[inline(always)]
pub fn public_part<E: Element>(k: u8, d: E) -> (E, E) {
    let bias = E::of(1) << (k - 2);
    let eps = d.plus(bias) & E::mask(k);
    let te = eps >> (k - 1);
    (te, eps.minus(te.up(k)).minus(bias))
}

/// One pixel of a share of `DReLU * z` before reduction: `te` and `pub` as in [`public_part`],
/// `lift` as in [`Select::lift`].
#[inline(always)]
pub fn select_pixel<E: Element>(k: u8, public: bool, d: E, delta: u64, r: E, [a, ra]: [E; 2], lift: [E; 3]) -> E {
    let (te, value) = public_part(k, d);
    let [w, ta, rta] = lift;
    let no_te = E::of(1).minus(te);
    let a = a.minus(w.plus(no_te.times(ta)).up(k));
    let ra = ra.minus(no_te.times(rta).up(k));
    let own = if public { value } else { E::ZERO };
    let kept = own.plus(a);
    let flipped = value.times(r).plus(ra);
    if delta == 1 { kept.minus(flipped) } else { flipped }
}

/// This party's share of `DReLU * z` modulo `2^l`.
///
/// `DReLU = delta xor rho = delta + (1 - 2 delta) rho`, and `z = pub + a'` with `a'` the integer in
/// `[0, 2^k)` (less `2^k` where its top bit is set and that of `eps` is not), so
/// `DReLU z = delta (pub + a') + (1 - 2 delta) (pub rho + rho a')`: linear in what is shared. The
/// shares of `a` are modulo `2^k`; subtracting `2^k` times the dealt wrap of its halves makes them
/// shares modulo `2^l`. Nobody learns anything: the result is a share.
#[inline(always)]
pub fn select<E: Element>([k, l]: [u8; 2], map: &BlockMap, public: bool, s: Select<'_, E>, out: &mut [E]) {
    let m = E::mask(l);
    for_runs(map, |block, run| {
        let (delta, r) = (bit(s.delta, block), s.r[block]);
        for p in run {
            let lift = s.lift.map_or([E::ZERO; 3], |lift| lift.map(|x| x[p]));
            out[p] = select_pixel(k, public, s.d[p], delta, r, [s.a[p], s.ra[p]], lift) & m;
        }
    });
}

/// `eps - te 2^k - 2^(k-2)` modulo `2^l`: see [`public_part`].
#[inline(always)]
pub fn lift_public<E: Element>(k: u8, l: u8, d: &[E], out: &mut [E]) {
    for (y, d) in out.iter_mut().zip(d) {
        *y = public_part(k, *d).1 & E::mask(l);
    }
}

/// `- w - (1 - te) ta`.
#[inline(always)]
pub fn lift_correction<E: Element>(bits: u8, te: &[u64], w: &[E], ta: &[E], out: &mut [E]) {
    for (i, y) in out.iter_mut().enumerate() {
        let no_te = E::of(1 - bit(te, i));
        *y = w[i].plus(no_te.times(ta[i])).neg() & E::mask(bits);
    }
}
