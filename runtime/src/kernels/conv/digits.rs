//! Integers modulo `2^k` as signed digits of at most 16 bits, and the products of digits that make a
//! product; or as their bytes, where the processor multiplies whole tiles of those; or as they are, where it multiplies
//! 32 bits as fast.
//!
//! `v = sum of d_i 2^(p_i)` and `w = sum of e_j 2^(q_j)`, modulo `2^k`, so `v w` is the sum of
//! `d_i e_j 2^(p_i + q_j)` over the pairs with `p_i + q_j < k`. Processors multiply 16-bit integers at
//! many times the rate of 64-bit ones, but sum them up in 32 bits. That is enough where
//! `k - (p_i + q_j) <= 32`, since the sum counts modulo that power of two only; where it is not, digits are
//! so narrow that the sum over [`SLICE`] products of each pair stays below `2^31`.
//!
//! Bytes have no sign but the higher one of weights of 16 bits. Sums of at most eight pairs over a slice of them stay below
//! `2^31` too, so all are exact.

use std::sync::OnceLock;

use super::tile::{Pair, Products};
use super::window::{BYTE_SUMS, Rows, Window};
use crate::element::Element;

/// Products that are summed up in 32 bits, for each pair of digits.
pub const SLICE: usize = 240;

/// Bits of the widest digit.
const WIDEST: u8 = 16;

/// Most digits of an operand: bytes of 64 bits.
pub const MOST: usize = 8;

/// How an operand is taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Bits of every digit, the lowest first.
    widths: Vec<u8>,
}

impl Split {
    /// Number of digits.
    pub fn len(&self) -> usize {
        self.widths.len()
    }

    /// Position of a digit's lowest bit.
    pub fn start(&self, digit: usize) -> u8 {
        self.widths[..digit].iter().sum()
    }

    /// What is added before digits are cut out: half of every digit's range but the last one's, which is taken
    /// off again behind. It makes digits signed without a carry from one to the next. What the last digit has
    /// in excess counts `2^k` or more.
    #[inline(always)]
    fn bias(&self) -> u64 {
        let low = &self.widths[..self.len() - 1];
        (0..low.len()).fold(0u64, |sum, i| sum.wrapping_add(1 << (self.start(i) + low[i] - 1)))
    }

    /// How a digit is cut out of a value with bias: its lowest bit, its bits, half of its range.
    #[inline(always)]
    fn cut(&self, digit: usize) -> (u8, u64, u16) {
        let last = digit + 1 == self.len();
        let width = if last { WIDEST } else { self.widths[digit] };
        (self.start(digit), u64::MAX >> (64 - width), if last { 0 } else { 1 << (width - 1) })
    }

    /// Whether values of at most 32 bits are cut into halves.
    fn halves(&self) -> bool {
        matches!(self.widths[..], [WIDEST, ..=WIDEST])
    }

    /// Digit number `digit` of pairs of values.
    #[inline(always)]
    pub fn pairs<E: Element, const N: usize>(&self, digit: usize, first: &[E; N], second: &[E; N]) -> [Pair; N] {
        if self.halves() {
            // The low half is its own digit; of the high one the sign of the low one is taken off.
            let pair = |low: u32, high: u32| low & 0xffff | high << 16;
            let carried = |v: E| v.low().wrapping_add(0x8000);
            return match digit {
                0 => std::array::from_fn(|i| pair(first[i].low(), second[i].low())),
                _ => std::array::from_fn(|i| carried(first[i]) >> 16 | carried(second[i]) & 0xffff_0000),
            };
        }
        let (bias, (start, mask, half)) = (self.bias(), self.cut(digit));
        let mask = mask as u32;
        let words = |values: &[E; N]| -> [u32; N] {
            if start <= WIDEST {
                // Within the lower half, which is what carries come from.
                values.map(|v| v.low().wrapping_add(bias as u32) >> start)
            } else {
                values.map(|v| (v.plus(E::of(bias)) >> start).low())
            }
        };
        let (first, second) = (words(first), words(second));
        let mut out: [Pair; N] = [0; N];
        for ((y, a), b) in out.iter_mut().zip(first).zip(second) {
            *y = a & mask | (b & mask) << 16;
        }
        // Both halves alike, so their order does not matter.
        bytemuck::cast_slice_mut(&mut out).iter_mut().for_each(|d: &mut u16| *d = d.wrapping_sub(half));
        out
    }
}

/// Pairs of digits that count the same power of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The exponent.
    pub shift: u8,
    /// Digits of the left and of the right operand.
    pub pairs: Vec<[usize; 2]>,
}

/// How products modulo a power of two are made of products of digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Digits of the left operand.
    pub left: Split,
    /// Digits of the right operand.
    pub right: Split,
    /// Terms whose sums over a slice are exact.
    pub exact: Vec<Term>,
    /// Terms that count modulo `2^32` at most, by their exponents. No exponent is 32 or more above the first:
    /// all can be added up in 32 bits.
    pub wrapping: Vec<Term>,
    /// What operands are taken apart to.
    pub products: Products,
    /// The products of bytes.
    pub windows: Vec<Window>,
}

impl Scheme {
    /// For operands modulo `2^bits`, 1 to 64; `narrow` if the left ones are integers of at most 16 bits with
    /// their sign.
    pub fn of(bits: u8, narrow: bool) -> &'static Scheme {
        static ALL: [[OnceLock<Scheme>; 65]; 2] = [const { [const { OnceLock::new() }; 65] }; 2];
        let bits = bits.clamp(1, 64);
        ALL[usize::from(narrow)][usize::from(bits)].get_or_init(|| Scheme::best(bits, narrow && bits > WIDEST))
    }

    /// For operands modulo `2^32` or less that are multiplied as they are.
    pub fn whole() -> &'static Scheme {
        static WHOLE: OnceLock<Scheme> = OnceLock::new();
        WHOLE.get_or_init(|| {
            let split = Split { widths: vec![32] };
            let wrapping = vec![Term { shift: 0, pairs: vec![[0, 0]] }];
            let (exact, products, windows) = (Vec::new(), Products::Whole, Vec::new());
            Scheme { left: split.clone(), right: split, exact, wrapping, products, windows }
        })
    }

    /// As [`of`](Self::of), for operands that are taken apart to bytes, of which the left ones are `rows`; `narrow` if
    /// weights are such integers.
    pub fn of_bytes(rows: Rows, bits: u8, narrow: bool) -> &'static Scheme {
        type All = [[OnceLock<Scheme>; MOST + 1]; 2];
        static ALL: [All; 2] = [const { [const { [const { OnceLock::new() }; MOST + 1] }; 2] }; 2];
        let pixel = usize::from(bits.clamp(1, 64).div_ceil(8));
        let signed = narrow && bits > WIDEST;
        ALL[usize::from(rows == Rows::Pixels)][usize::from(signed)][pixel].get_or_init(|| {
            let weight = if signed { 2 } else { pixel };
            let [weights, pixels] = [weight, pixel].map(|bytes| Split { widths: vec![8; bytes] });
            let [left, right] = match rows {
                Rows::Channels => [weights, pixels],
                Rows::Pixels => [pixels, weights],
            };
            let window = |first| Window::new(rows, weight, signed, pixel, first);
            Scheme {
                left,
                right,
                exact: Vec::new(),
                wrapping: Vec::new(),
                products: Products::Bytes,
                windows: (0..pixel).step_by(BYTE_SUMS).map(window).collect(),
            }
        })
    }

    /// The scheme of the fewest pairs, of those the one of the fewest terms.
    fn best(bits: u8, narrow: bool) -> Scheme {
        let mut best = None;
        extend(bits, narrow, &mut Vec::new(), &mut best);
        best.expect("digits of 8 bits fit every modulus")
    }

    fn new(bits: u8, left: Split, right: Split) -> Scheme {
        let mut terms: Vec<Term> = Vec::new();
        for i in 0..left.len() {
            for j in 0..right.len() {
                let shift = left.start(i) + right.start(j);
                if shift < bits {
                    match terms.iter_mut().find(|t| t.shift == shift) {
                        Some(term) => term.pairs.push([i, j]),
                        None => terms.push(Term { shift, pairs: vec![[i, j]] }),
                    }
                }
            }
        }
        terms.sort_unstable_by_key(|t| t.shift);
        let (exact, wrapping) = terms.into_iter().partition(|t| bits - t.shift > 32);
        Scheme { left, right, exact, wrapping, products: Products::Digits, windows: Vec::new() }
    }

    /// What is least where it is best: the number of pairs, then that of terms.
    fn cost(&self) -> (usize, usize) {
        (self.pairs(), self.exact.len() + self.wrapping.len())
    }

    /// Multiplications of digits that a multiplication takes.
    pub fn pairs(&self) -> usize {
        self.exact.iter().chain(&self.wrapping).map(|t| t.pairs.len()).sum()
    }

    /// Whether every sum that must be exact is.
    fn is_exact(&self) -> bool {
        self.exact.iter().all(|t| {
            let largest = |[i, j]: &[usize; 2]| 1u64 << (self.left.widths[*i] - 1 + self.right.widths[*j] - 1);
            t.pairs.iter().map(largest).sum::<u64>() * (SLICE as u64) < 1 << 31
        })
    }
}

/// Tries every list of widths, 8 to 16 bits each, that begins with `widths` and fills `bits`.
fn extend(bits: u8, narrow: bool, widths: &mut Vec<u8>, best: &mut Option<Scheme>) {
    let left = if narrow { vec![WIDEST] } else { widths.clone() };
    let scheme = Scheme::new(bits, Split { widths: left }, Split { widths: widths.clone() });
    let filled: u8 = widths.iter().sum();
    if !widths.is_empty() {
        // More digits make more pairs and larger sums.
        if best.as_ref().is_some_and(|b| scheme.cost() >= b.cost()) || !scheme.is_exact() {
            return;
        }
        if filled == bits {
            *best = Some(scheme);
            return;
        }
    }
    for width in (WIDEST / 2..=WIDEST.min(bits - filled)).rev() {
        widths.push(width);
        extend(bits, narrow, widths, best);
        widths.pop();
    }
    if bits - filled < WIDEST / 2 {
        widths.push(bits - filled);
        extend(bits, narrow, widths, best);
        widths.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::mask;

    fn values(bits: u8) -> Vec<u64> {
        let spread = (0..200u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 40));
        let edges = (0..bits).flat_map(|b| [1u64 << b, (1u64 << b).wrapping_sub(1), (1u64 << b).wrapping_neg()]);
        spread.chain(edges).map(|v| v & mask(bits)).collect()
    }

    #[test]
    fn digits_add_up_and_keep_their_range() {
        for bits in 1..=64 {
            for narrow in [false, true] {
                let split = &Scheme::of(bits, narrow).right;
                let values = values(bits);
                let mut sums = vec![0u64; values.len()];
                for d in 0..split.len() {
                    for (sum, value) in sums.iter_mut().zip(&values) {
                        let [both] = split.pairs(d, &[*value], &[!*value]);
                        let [other] = split.pairs(d, &[!*value], &[*value]);
                        assert_eq!(both, other.rotate_left(16));
                        let digit = both as i16;
                        let half = 1i32 << (split.widths[d] - 1);
                        assert!(d + 1 == split.len() || (-half..half).contains(&digit.into()), "{bits}: {split:?}");
                        *sum = sum.wrapping_add((i64::from(digit) as u64) << split.start(d));
                    }
                }
                assert!(sums.iter().zip(&values).all(|(s, v)| s & mask(bits) == *v), "{bits} bits: {split:?}");
            }
        }
    }

    #[test]
    fn terms_are_exact_where_they_must_be() {
        for bits in 1..=64 {
            for narrow in [false, true] {
                let scheme = Scheme::of(bits, narrow);
                assert!(scheme.is_exact(), "{bits}: {scheme:?}");
                let mut seen: Vec<[usize; 2]> =
                    scheme.exact.iter().chain(&scheme.wrapping).flat_map(|t| t.pairs.clone()).collect();
                seen.sort_unstable();
                let count = seen.len();
                seen.dedup();
                assert_eq!(seen.len(), count);
                let shifts: Vec<u8> = scheme.wrapping.iter().map(|t| t.shift).collect();
                assert!(shifts.is_sorted() && shifts.iter().all(|s| s - shifts[0] < 32 && bits - s <= 32));
            }
        }
    }

    #[test]
    fn every_pair_of_bytes_that_counts() {
        let cases = (1..=64u8).flat_map(|bits| [false, true].map(|narrow| (bits, narrow)));
        for ((bits, narrow), rows) in cases.flat_map(|c| [Rows::Channels, Rows::Pixels].map(|rows| (c, rows))) {
            let scheme = Scheme::of_bytes(rows, bits, narrow);
            let mut seen = Vec::new();
            for window in &scheme.windows {
                for (step, k) in window.steps.iter().flat_map(|s| (0..BYTE_SUMS).map(move |k| (s, k))) {
                    let (unsigned, signed) = (step.unsigned >> k & 1 == 1, step.signed >> k & 1 == 1);
                    let i = (step.left + k as isize) as usize;
                    if unsigned || signed {
                        let more = if window.same { 0 } else { k };
                        assert_eq!(i + step.right, usize::from(window.shift / 8) + more);
                        let weight = if rows == Rows::Channels { i } else { step.right };
                        assert_eq!(signed, narrow && bits > WIDEST && weight == 1);
                        assert!(!(unsigned && signed));
                        seen.push([i, step.right]);
                    }
                }
            }
            let all = (0..scheme.left.len()).flat_map(|i| (0..scheme.right.len()).map(move |j| [i, j]));
            let mut want: Vec<[usize; 2]> = all.filter(|[i, j]| 8 * (i + j) < usize::from(bits)).collect();
            seen.sort_unstable();
            want.sort_unstable();
            assert_eq!(seen, want, "{bits} bits");
        }
    }

    #[test]
    fn as_many_products_as_the_model_of_time_counts() {
        let pairs = |bits, narrow| Scheme::of(bits, narrow).pairs() as u64;
        for bits in 1..=64 {
            for narrow in [false, true] {
                assert_eq!(pairs(bits, narrow), bcc_ir::time::digit_products(bits, narrow), "{bits} bits");
                for rows in [Rows::Channels, Rows::Pixels] {
                    let steps = Scheme::of_bytes(rows, bits, narrow).windows.iter().flat_map(|w| &w.steps);
                    let bytes: u32 = steps.map(|s| (s.unsigned | s.signed).count_ones()).sum();
                    assert_eq!(u64::from(bytes), bcc_ir::time::byte_products(bits, narrow), "{bits} bits");
                }
            }
        }
    }
}
