//! Carries of nibbles and of groups, [`LANES`] words of every plane at a time.

use std::sync::OnceLock;

use bcc_ir::program::carry_terms;

use super::{LANES, Words};
use crate::buffer::stride;
use crate::kernels::Masked;

/// [`plain::compare::nibble_products`](crate::kernels::plain::compare::nibble_products).
#[inline(always)]
pub fn nibble_products(len: usize, t: &[u64], out: &mut [u64]) {
    let n = stride(len);
    for (t, out) in t.chunks_exact(4 * n).zip(out.chunks_exact_mut(15 * n)) {
        for at in (0..n).step_by(LANES) {
            let mut products = [Words::ONES; 16];
            for set in 1..16usize {
                let lowest = set & set.wrapping_neg();
                products[set] = if set == lowest {
                    let plane = set.trailing_zeros() as usize;
                    Words::load(&t[plane * n..][..n], at)
                } else {
                    products[lowest] & products[set ^ lowest]
                };
                products[set].store(&mut out[(set - 1) * n..][..n], at);
            }
        }
    }
}

/// [`plain::compare::nibble_open`](crate::kernels::plain::compare::nibble_open), the sums over sets nested
/// position by position: `f(set) = f0 e_u + f1` where `f0` sums the sets without position `u`.
#[inline(always)]
pub fn nibble_open(len: usize, public: bool, e: &[u64], products: &[u64], out: &mut [u64]) {
    let n = stride(len);
    let nibbles = e.chunks_exact(4 * n).zip(products.chunks_exact(15 * n));
    let all = if public { Words::ONES } else { Words::ZERO };
    for (j, (e, products)) in nibbles.enumerate() {
        let generate = if j == 0 { 0 } else { 2 * j - 1 };
        for at in (0..n).step_by(LANES) {
            let planes = e;
            let mut e = [Words::ZERO; 4];
            for (e, plane) in e.iter_mut().zip(planes.chunks_exact(n)) {
                *e = Words::load(plane, at);
            }
            // Product of the sets, the public empty one first.
            let mut t = [all; 16];
            for (t, plane) in t[1..].iter_mut().zip(products.chunks_exact(n)) {
                *t = Words::load(plane, at);
            }
            // Sets by their lowest position, 3 to 0.
            let above3 = |without, with| without & e[3] ^ with;
            let g3 = t[8] & e[3];
            let g2 = above3(t[4], t[12]) & e[2];
            let g1 = above3(t[2] & e[2] ^ t[6], t[10] & e[2] ^ t[14]) & e[1];
            let low = |k: usize| {
                let pair = |k: usize| t[k + 1] & e[1] ^ t[k + 3];
                pair(k) & e[2] ^ pair(k + 4)
            };
            let g0 = above3(low(0), low(8)) & e[0];
            (g3 ^ g2 ^ g1 ^ g0).store(&mut out[generate * n..][..n], at);
            if j > 0 {
                let p0 = |k: usize| t[k] & e[0] ^ t[k + 1];
                let p1 = |k: usize| p0(k) & e[1] ^ p0(k + 2);
                let p2 = |k: usize| p1(k) & e[2] ^ p1(k + 4);
                above3(p2(0), p2(8)).store(&mut out[2 * j * n..][..n], at);
            }
        }
    }
}

/// What a term of an opened bit is multiplied with.
#[derive(Clone, Copy, PartialEq)]
enum Factor {
    Public,
    Lambda(usize),
    Product(usize),
}

/// How a level of carries is computed: found once.
struct Level {
    /// Planes that are multiplied for each dealt product.
    products: Vec<Vec<usize>>,
    /// For each opened bit the summands: a factor, and planes of public bits.
    bits: Vec<Vec<(Factor, Vec<usize>)>>,
}

/// Most inputs of a level: 64 bits are 16 nibbles.
const MOST: usize = 16;
static LEVELS: [OnceLock<Level>; MOST + 1] = [const { OnceLock::new() }; MOST + 1];

impl Level {
    fn of(inputs: usize) -> Option<&'static Level> {
        Some(LEVELS.get(inputs)?.get_or_init(|| Level::new(inputs)))
    }

    fn new(inputs: usize) -> Level {
        let (bits, products) = carry_terms(inputs);
        // A product of masked bits is a sum over the sets of masks among them.
        let summands = |term: &Vec<usize>| {
            let summand = |chosen: usize| {
                let (set, rest): (Vec<usize>, Vec<usize>) = (0..term.len()).partition(|i| chosen >> i & 1 == 1);
                let set: Vec<usize> = set.into_iter().map(|i| term[i]).collect();
                let factor = match set[..] {
                    [] => Factor::Public,
                    [one] => Factor::Lambda(one),
                    _ => Factor::Product(products.iter().position(|p| *p == set)?),
                };
                Some((factor, rest.into_iter().map(|i| term[i]).collect()))
            };
            (0..1usize << term.len()).filter_map(summand).collect::<Vec<_>>()
        };
        let bits = bits.iter().map(|bit| bit.terms.iter().flat_map(summands).collect()).collect();
        Level { products, bits }
    }
}

/// [`plain::compare::carry_products`](crate::kernels::plain::compare::carry_products).
#[inline(always)]
pub fn carry_products(inputs: usize, len: usize, lambda: &[u64], out: &mut [u64]) {
    let (n, Some(level)) = (stride(len), Level::of(inputs)) else { return };
    for (set, out) in level.products.iter().zip(out.chunks_exact_mut(n)) {
        for at in (0..n).step_by(LANES) {
            let product = set.iter().fold(Words::ONES, |y, plane| y & Words::load(&lambda[plane * n..][..n], at));
            product.store(out, at);
        }
    }
}

/// [`plain::compare::carry_open`](crate::kernels::plain::compare::carry_open).
#[inline(always)]
pub fn carry_open(inputs: usize, len: usize, public: bool, masked: Masked<'_>, out: &mut [u64]) {
    let (n, Some(level)) = (stride(len), Level::of(inputs)) else { return };
    for (summands, out) in level.bits.iter().zip(out.chunks_exact_mut(n)) {
        for at in (0..n).step_by(LANES) {
            let mut sum = Words::ZERO;
            for (factor, planes) in summands {
                let start = match factor {
                    Factor::Public if public => Words::ONES,
                    Factor::Public => continue,
                    Factor::Lambda(plane) => Words::load(&masked.lambda[plane * n..][..n], at),
                    Factor::Product(plane) => Words::load(&masked.products[plane * n..][..n], at),
                };
                sum = sum ^ planes.iter().fold(start, |y, plane| y & Words::load(&masked.hat[plane * n..][..n], at));
            }
            sum.store(out, at);
        }
    }
}
