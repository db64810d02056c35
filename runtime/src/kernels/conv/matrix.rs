//! What an entry of the product's matrices holds: two digits that follow each other in depth, or a whole integer.

use bytemuck::Pod;

use super::digits::{SLICE, Split};
use super::tile::{COLUMNS, Pair, pair};
use crate::element::Element;

/// A digit, or a whole integer. All functions are compiled for the instruction set of the job that calls them.
pub trait Digit: Pod + Send + Sync {
    /// Digits of an entry.
    const DEPTH: usize;
    /// Entries of a slice of the depth.
    const ENTRIES: usize;

    /// Digit number `digit` of every value.
    fn write<E: Element>(split: &Split, digit: usize, values: &[E], to: &mut [Self]);

    /// An entry of up to [`DEPTH`](Self::DEPTH) digits.
    fn entry(digits: &[Self]) -> Pair;

    /// Entries of columns: rows of digits, of which there are [`DEPTH`](Self::DEPTH).
    fn entries(rows: [&[Self; COLUMNS]; 2]) -> [Pair; COLUMNS];

    /// As [`entries`](Self::entries), of digit number `digit` of elements.
    fn cut<E: Element>(split: &Split, digit: usize, rows: [&[E; COLUMNS]; 2]) -> [Pair; COLUMNS];

    /// The products of two entries' digits added up, modulo `2^32`.
    fn product(left: Pair, right: Pair) -> i32;
}

impl Digit for i16 {
    const DEPTH: usize = 2;
    const ENTRIES: usize = SLICE / 2;

    #[inline(always)]
    fn write<E: Element>(split: &Split, digit: usize, values: &[E], to: &mut [Self]) {
        split.write(digit, values, to);
    }

    #[inline(always)]
    fn entry(digits: &[Self]) -> Pair {
        pair(digits[0], digits.get(1).copied().unwrap_or(0))
    }

    #[inline(always)]
    fn entries([first, second]: [&[Self; COLUMNS]; 2]) -> [Pair; COLUMNS] {
        std::array::from_fn(|i| pair(first[i], second[i]))
    }

    #[inline(always)]
    fn cut<E: Element>(split: &Split, digit: usize, [first, second]: [&[E; COLUMNS]; 2]) -> [Pair; COLUMNS] {
        split.pairs(digit, first, second)
    }

    #[inline(always)]
    fn product(left: Pair, right: Pair) -> i32 {
        let halves = |p: Pair| (i32::from(p as i16), i32::from((p >> 16) as i16));
        let ((l0, l1), (r0, r1)) = (halves(left), halves(right));
        (l0 * r0).wrapping_add(l1 * r1)
    }
}

impl Digit for u32 {
    const DEPTH: usize = 1;
    const ENTRIES: usize = SLICE;

    #[inline(always)]
    fn write<E: Element>(_split: &Split, _digit: usize, values: &[E], to: &mut [Self]) {
        to.iter_mut().zip(values).for_each(|(y, v)| *y = v.low());
    }

    #[inline(always)]
    fn entry(digits: &[Self]) -> Pair {
        digits[0]
    }

    #[inline(always)]
    fn entries([row, _]: [&[Self; COLUMNS]; 2]) -> [Pair; COLUMNS] {
        *row
    }

    #[inline(always)]
    fn cut<E: Element>(_split: &Split, _digit: usize, [row, _]: [&[E; COLUMNS]; 2]) -> [Pair; COLUMNS] {
        row.map(E::low)
    }

    #[inline(always)]
    fn product(left: Pair, right: Pair) -> i32 {
        left.wrapping_mul(right) as i32
    }
}
