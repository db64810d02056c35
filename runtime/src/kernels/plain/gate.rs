//! Gates of blocks and the lift of a modulus.

use bcc_ir::program::BlockMap;

use crate::buffer::mask;
use crate::kernels::blocks::{bit, for_runs};

/// The sum of every block.
#[inline(always)]
pub fn block_sum(bits: u8, map: &BlockMap, x: &[u64], out: &mut [u64]) {
    out.fill(0);
    for_runs(map, |block, run| {
        let sum = x[run].iter().fold(0u64, |sum, v| sum.wrapping_add(*v));
        out[block] = out[block].wrapping_add(sum);
    });
    out.iter_mut().for_each(|y| *y &= mask(bits));
}

/// `gate * x` for a secret gate that the dealer knows.
#[inline(always)]
pub fn gate(map: &BlockMap, gate: &[u64], x: &[u64], out: &mut [u64]) {
    for_runs(map, |block, run| {
        let keep = bit(gate, block).wrapping_neg();
        for (y, x) in out[run.clone()].iter_mut().zip(&x[run]) {
            *y = x & keep;
        }
    });
}

/// Operands of `select`: the public values and this party's shares.
#[derive(Clone, Copy)]
pub struct Select<'a> {
    /// Public `z - a mod 2^k`, by pixel.
    pub d: &'a [u64],
    /// Public `DReLU xor rho`, a plane over the blocks.
    pub delta: &'a [u64],
    /// Share of `a` modulo `2^k`, by pixel.
    pub a: &'a [u64],
    /// Share of `rho` modulo `2^L`, by block.
    pub r: &'a [u64],
    /// Share of `rho a` modulo `2^L`, by pixel.
    pub ra: &'a [u64],
    /// Where `k < L`: the wrap of the two halves of `a`, its top bit, and `rho` times that bit,
    /// shared modulo `2^(L - k)`, by pixel.
    pub lift: Option<[&'a [u64]; 3]>,
}

/// `eps = d + 2^(k-2) mod 2^k`: its top bit and `eps - te 2^k - 2^(k-2)`, which is `d` as a number
/// between `-2^(k-1) - 2^(k-2)` and `2^(k-1) - 2^(k-2)`, in 64 bits.
#[inline(always)]
pub fn public_part(k: u8, d: u64) -> (u64, u64) {
    let bias = 1u64 << (k - 2);
    let eps = d.wrapping_add(bias) & mask(k);
    let te = eps >> (k - 1);
    (te, eps.wrapping_sub(shifted(te, k)).wrapping_sub(bias))
}

/// `v 2^k` modulo `2^64`.
#[inline(always)]
fn shifted(v: u64, k: u8) -> u64 {
    if k < 64 { v << k } else { 0 }
}

/// One pixel of a share of `DReLU * z` before reduction: `te` and `pub` as in [`public_part`],
/// `lift` as in [`Select::lift`].
#[inline(always)]
pub fn select_pixel(k: u8, public: bool, d: u64, delta: u64, r: u64, [a, ra]: [u64; 2], lift: [u64; 3]) -> u64 {
    let (te, value) = public_part(k, d);
    let [w, ta, rta] = lift;
    let no_te = 1 - te;
    let a = a.wrapping_sub(shifted(w.wrapping_add(no_te.wrapping_mul(ta)), k));
    let ra = ra.wrapping_sub(shifted(no_te.wrapping_mul(rta), k));
    let own = if public { value } else { 0 };
    let kept = own.wrapping_add(a);
    let flipped = value.wrapping_mul(r).wrapping_add(ra);
    if delta == 1 { kept.wrapping_sub(flipped) } else { flipped }
}

/// This party's share of `DReLU * z` modulo `2^l`.
///
/// `DReLU = delta xor rho = delta + (1 - 2 delta) rho`, and `z = pub + a'` with `a'` the integer in
/// `[0, 2^k)` (less `2^k` where its top bit is set and that of `eps` is not), so
/// `DReLU z = delta (pub + a') + (1 - 2 delta) (pub rho + rho a')`: linear in what is shared. The
/// shares of `a` are modulo `2^k`; subtracting `2^k` times the dealt wrap of its halves makes them
/// shares modulo `2^l`. Nobody learns anything: the result is a share.
#[inline(always)]
pub fn select([k, l]: [u8; 2], map: &BlockMap, public: bool, s: Select<'_>, out: &mut [u64]) {
    let m = mask(l);
    for_runs(map, |block, run| {
        let (delta, r) = (bit(s.delta, block), s.r[block]);
        for p in run {
            let lift = s.lift.map_or([0; 3], |lift| lift.map(|x| x[p]));
            out[p] = select_pixel(k, public, s.d[p], delta, r, [s.a[p], s.ra[p]], lift) & m;
        }
    });
}

/// `eps - te 2^k - 2^(k-2)` modulo `2^l`: see [`public_part`].
#[inline(always)]
pub fn lift_public(k: u8, l: u8, d: &[u64], out: &mut [u64]) {
    for (y, d) in out.iter_mut().zip(d) {
        *y = public_part(k, *d).1 & mask(l);
    }
}

/// `- w - (1 - te) ta`.
#[inline(always)]
pub fn lift_correction(bits: u8, te: &[u64], w: &[u64], ta: &[u64], out: &mut [u64]) {
    for (i, y) in out.iter_mut().enumerate() {
        let no_te = 1 - bit(te, i);
        *y = w[i].wrapping_add(no_te * ta[i]).wrapping_neg() & mask(bits);
    }
}
