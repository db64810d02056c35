//! The carry of a public plus a secret number, bit-sliced: every word holds one bit of 64
//! comparisons.
//!
//! Source: `block_relu` and `carry_out` of the reference protocol. Who learns what: the dealer
//! knows `t` and all masks; client and server know the public `e` and the opened, masked bits;
//! shares of products reach the server only under the client's stream.

use bcc_ir::program::carry_terms;

use crate::buffer::stride;

/// Products of the mask bits of a nibble: for nibble `j` and each set `J` (1..15), plane
/// `15 j + J - 1` is the product of `t[4 j + i]`, `i` in `J`. The dealer alone computes this.
#[inline(always)]
pub fn nibble_products(len: usize, t: &[u64], out: &mut [u64]) {
    let n = stride(len);
    for (t, out) in t.chunks_exact(4 * n).zip(out.chunks_exact_mut(15 * n)) {
        for w in 0..n {
            for set in 1..16 {
                out[(set - 1) * n + w] =
                    (0..4).filter(|i| set >> i & 1 == 1).fold(u64::MAX, |product, i| product & t[i * n + w]);
            }
        }
    }
}

/// XOR shares of generate and propagate of `e + t` for every nibble.
///
/// With `g_i = e_i t_i` and `p_i = e_i xor t_i`, the term `p_3 .. p_(i+1) g_i` of `G` expands into
/// the products of the sets `J` whose lowest position is `i`, each with the public coefficient
/// `e_i` times all `e_u` with `u > i` outside `J`. So every `J` belongs to one term of `G` only:
///
/// `G = xor over J of t_J e_min(J) product(e_u: u > min(J), u not in J)`
///
/// `P = p_3 p_2 p_1 p_0 = xor over J, the empty set included, of t_J product(e_u: u not in J)`
///
/// A party that holds XOR shares of the `t_J` evaluates both on its shares; the public term of the
/// empty set is added by one of the two. Nobody learns anything here: the result is a share.
#[inline(always)]
pub fn nibble_open(len: usize, public: bool, e: &[u64], products: &[u64], out: &mut [u64]) {
    let n = stride(len);
    let nibbles = e.chunks_exact(4 * n).zip(products.chunks_exact(15 * n));
    for (j, (e, products)) in nibbles.enumerate() {
        let generate = if j == 0 { 0 } else { 2 * j - 1 };
        for w in 0..n {
            let e = [e[w], e[n + w], e[2 * n + w], e[3 * n + w]];
            let without = |set: usize, from: usize| {
                (from..4).filter(|u| set >> u & 1 == 0).fold(u64::MAX, |product, u| product & e[u])
            };
            let mut g = 0;
            let mut p = if public { without(0, 0) } else { 0 };
            for set in 1..16usize {
                let lowest = set.trailing_zeros() as usize;
                let t = products[(set - 1) * n + w];
                g ^= t & e[lowest] & without(set, lowest);
                p ^= t & without(set, 0);
            }
            out[generate * n + w] = g;
            if j > 0 {
                out[2 * j * n + w] = p;
            }
        }
    }
}

/// Products of two and more mask bits that [`carry_open`] needs, in the order of
/// [`carry_terms`]. The dealer alone computes this.
#[inline(always)]
pub fn carry_products(inputs: usize, len: usize, lambda: &[u64], out: &mut [u64]) {
    let n = stride(len);
    let (_, products) = carry_terms(inputs);
    for (set, out) in products.iter().zip(out.chunks_exact_mut(n)) {
        for (w, y) in out.iter_mut().enumerate() {
            *y = set.iter().fold(u64::MAX, |product, plane| product & lambda[plane * n + w]);
        }
    }
}

/// XOR shares of generate and propagate of every group of up to four inputs.
///
/// An input bit is `hat xor lambda`, `hat` public to client and server. A product of input bits
/// over a set `T` is `xor over J in T of product(hat_u: u in T, not in J) lambda_J`; `lambda_J` is
/// a share of one mask bit or of a dealt product. One of the two parties adds the terms with empty
/// `J`. Nobody learns anything here: the result is a share.
#[inline(always)]
pub fn carry_open(inputs: usize, len: usize, public: bool, masked: Masked<'_>, out: &mut [u64]) {
    let n = stride(len);
    let (bits, products) = carry_terms(inputs);
    for (bit, out) in bits.iter().zip(out.chunks_exact_mut(n)) {
        for term in &bit.terms {
            for chosen in 0..1usize << term.len() {
                let (set, rest): (Vec<usize>, Vec<usize>) = (0..term.len()).partition(|i| chosen >> i & 1 == 1);
                let set: Vec<usize> = set.into_iter().map(|i| term[i]).collect();
                let factor = match set[..] {
                    [] if public => None,
                    [] => continue,
                    [one] => Some(&masked.lambda[one * n..][..n]),
                    _ => {
                        let Some(index) = products.iter().position(|p| *p == set) else { continue };
                        Some(&masked.products[index * n..][..n])
                    }
                };
                for (w, y) in out.iter_mut().enumerate() {
                    let start = factor.map_or(u64::MAX, |f| f[w]);
                    *y ^= rest.iter().fold(start, |product, i| product & masked.hat[term[*i] * n + w]);
                }
            }
        }
    }
}

/// What a party knows of the input bits of a carry level: planes `G0, G1, P1, ..`.
#[derive(Clone, Copy)]
pub struct Masked<'a> {
    /// The public masked bits.
    pub hat: &'a [u64],
    /// XOR shares of the masks.
    pub lambda: &'a [u64],
    /// XOR shares of the products of masks, in the order of [`carry_terms`].
    pub products: &'a [u64],
}
