//! What an entry of the product's matrices holds: a whole integer, or two or four digits that follow each other in
//! depth.

use std::ops::Range;

use super::digits::{SLICE, Scheme, Split, Term};
use super::target::Place;
use super::tile::{COLUMNS, Pair, ROWS, Tile};
use super::window::{BYTE_ROWS, ByteOperands, ByteSums, GROUP};
use crate::element::Element;

/// Most digits of an entry.
pub const DEEPEST: usize = 4;

/// Most blocks of columns of a task, whatever the digits.
pub const MOST_BLOCKS: usize = 8;

/// Part `i` of `count`: all are as long as each other, or one longer.
#[inline(always)]
pub fn portion(all: Range<usize>, i: usize, count: usize) -> Range<usize> {
    all.start + all.len() * i / count..all.start + all.len() * (i + 1) / count
}

/// A slice of one panel of rows, and of one block of columns: digit after digit of every
/// [group](Digit::group) of entries.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    /// Rows, as [`Digit::left_at`] has them.
    pub left: &'a [Pair],
    /// Columns.
    pub right: &'a [[Pair; COLUMNS]],
}

/// A whole integer, or the type of a digit; what is not said otherwise is that of pairs of digits and of whole integers. All
/// functions are compiled for the instruction set of the job that calls them.
pub trait Digit: Sized + Send + Sync {
    /// Digits of an entry.
    const DEPTH: usize;
    /// Most entries of a slice of the depth.
    const ENTRIES: usize;
    /// Rows of a panel.
    const ROWS: usize = ROWS;
    /// The depth is a multiple of so many entries.
    const WHOLE: usize = 1;
    /// Whether a panel of rows stays in the caches while the columns change, not the other way round.
    const KEEPS_ROWS: bool = false;
    /// Most blocks of [`COLUMNS`] columns that a task has.
    const BLOCKS: usize = 4;

    /// The slices of a depth, as long as each other but for a [`WHOLE`](Self::WHOLE).
    #[inline(always)]
    fn slices(depth: usize) -> impl Iterator<Item = Range<usize>> {
        let parts = depth / Self::WHOLE;
        let count = depth.div_ceil(Self::ENTRIES).max(1);
        let slice = move |i: usize| portion(0..parts, i, count);
        (0..count).map(move |i| slice(i).start * Self::WHOLE..slice(i).end * Self::WHOLE)
    }

    /// Entries of a slice of `entries` that lie together, behind which come the next digit's.
    #[inline(always)]
    fn group(entries: usize) -> usize {
        entries
    }

    /// Where a row's entry is in a group of so many.
    #[inline(always)]
    fn left_at(_group: usize, entry: usize, row: usize) -> usize {
        entry * Self::ROWS + row
    }

    /// Entries of columns, whose digits are of the first [`DEPTH`](Self::DEPTH) rows: digit `d` goes to
    /// `to[d * step]`.
    fn cut<E: Element>(split: &Split, rows: [&[E; COLUMNS]; DEEPEST], to: &mut [[Pair; COLUMNS]], step: usize);

    /// Adds the product of operands to a place of the result; `sums` holds anything, before and after.
    #[inline(always)]
    fn add_tile<T: Tile, E: Element>(
        tile: &T,
        scheme: &Scheme,
        operands: Operands<'_>,
        place: &Place<'_, E>,
        _sums: &mut ByteSums,
    ) {
        add_terms::<Self, T, E>(tile, scheme, operands, place);
    }
}

impl Digit for i16 {
    const DEPTH: usize = 2;
    const ENTRIES: usize = SLICE / 2;

    #[inline(always)]
    fn cut<E: Element>(split: &Split, rows: [&[E; COLUMNS]; DEEPEST], to: &mut [[Pair; COLUMNS]], step: usize) {
        for digit in 0..split.len() {
            to[digit * step] = split.pairs(digit, rows[0], rows[1]);
        }
    }
}

impl Digit for u32 {
    const DEPTH: usize = 1;
    const ENTRIES: usize = SLICE;

    #[inline(always)]
    fn cut<E: Element>(_split: &Split, rows: [&[E; COLUMNS]; DEEPEST], to: &mut [[Pair; COLUMNS]], _step: usize) {
        to[0] = rows[0].map(E::low);
    }
}

/// Groups of entries in a slice whose left side is packed: with the right side's they fill the first-level cache.
const MOST_GROUPS: usize = 5;

impl Digit for u8 {
    const DEPTH: usize = 4;
    const ROWS: usize = BYTE_ROWS;
    const ENTRIES: usize = MOST_GROUPS * GROUP;
    const WHOLE: usize = GROUP;
    const KEEPS_ROWS: bool = true;
    const BLOCKS: usize = MOST_BLOCKS;

    #[inline(always)]
    fn group(_entries: usize) -> usize {
        GROUP
    }

    #[inline(always)]
    fn left_at(group: usize, entry: usize, row: usize) -> usize {
        row * group + entry
    }

    #[inline(always)]
    fn cut<E: Element>(split: &Split, rows: [&[E; COLUMNS]; DEEPEST], to: &mut [[Pair; COLUMNS]], step: usize) {
        for first in (0..split.len()).step_by(4) {
            let mut words = [[0; COLUMNS]; 4];
            for (words, row) in words.iter_mut().zip(rows) {
                for (word, v) in words.iter_mut().zip(row) {
                    *word = (*v >> (8 * first as u8)).low();
                }
            }
            let bytes = transposed(&words);
            for (digit, entries) in bytes.iter().enumerate().take(split.len() - first) {
                to[(first + digit) * step] = *entries;
            }
        }
    }

    #[inline(always)]
    fn add_tile<T: Tile, E: Element>(
        tile: &T,
        scheme: &Scheme,
        operands: Operands<'_>,
        place: &Place<'_, E>,
        sums: &mut ByteSums,
    ) {
        let digits = [scheme.left.len(), scheme.right.len()];
        let starts: [usize; MOST_GROUPS] = std::array::from_fn(|i| i * digits[0] * GROUP * BYTE_ROWS);
        let Operands { left, right } = operands;
        let starts = &starts[..right.len() / (digits[1] * GROUP)];
        for (i, window) in scheme.windows.iter().enumerate() {
            tile.multiply_bytes(window, ByteOperands { digits, left, starts, row: GROUP, right }, sums);
            tile.join_bytes(sums, window, place, place.first() && i == 0);
        }
    }
}

/// The bytes of four rows of words: entry `d` holds byte `d` of all four. Halves of two rows are merged, then bytes of two
/// of those; loop by loop, as compilers make vectors of such.
#[inline(always)]
fn transposed([a, b, c, d]: &[[u32; COLUMNS]; 4]) -> [[Pair; COLUMNS]; 4] {
    /// Bits of `x` where the mask has ones, otherwise of `y`: one instruction of AVX-512. Written as an "or" it is taken for a
    /// shuffle of bytes, which takes several.
    #[inline(always)]
    fn choose(mask: u32, x: u32, y: u32) -> u32 {
        (x ^ y) & mask ^ y
    }
    /// The low parts of two words, or the high ones, those of `x` below: halves, or the bytes of halves.
    #[inline(always)]
    fn merged<const HIGH: bool>(mask: u32, bits: u32, x: &[u32; COLUMNS], y: &[u32; COLUMNS]) -> [u32; COLUMNS] {
        let mut out = [0; COLUMNS];
        for i in 0..COLUMNS {
            out[i] = if HIGH { choose(mask, x[i] >> bits, y[i]) } else { choose(mask, x[i], y[i] << bits) };
        }
        out
    }
    const HALF: u32 = 0x0000_ffff;
    const BYTES: u32 = 0x00ff_00ff;
    // Rows 0 and 2, as then bytes of rows 1 and 3 come between them.
    let low = [merged::<false>(HALF, 16, a, c), merged::<false>(HALF, 16, b, d)];
    let high = [merged::<true>(HALF, 16, a, c), merged::<true>(HALF, 16, b, d)];
    [
        merged::<false>(BYTES, 8, &low[0], &low[1]),
        merged::<true>(BYTES, 8, &low[0], &low[1]),
        merged::<false>(BYTES, 8, &high[0], &high[1]),
        merged::<true>(BYTES, 8, &high[0], &high[1]),
    ]
}

/// Sums of pairs of digits by their exponents, or of whole integers.
#[inline(always)]
fn add_terms<D: Digit, T: Tile, E: Element>(
    tile: &T,
    scheme: &Scheme,
    Operands { left, right }: Operands<'_>,
    place: &Place<'_, E>,
) {
    let entries = right.len() / scheme.right.len();
    let left = left.as_chunks::<ROWS>().0;
    let add = |term: &Term, sums: &mut [[i32; COLUMNS]; ROWS]| {
        for &[l, r] in &term.pairs {
            let (left, right) = (&left[l * entries..][..entries], &right[r * entries..][..entries]);
            tile.multiply::<D>(left, right, place.columns(), sums);
        }
    };
    let mut sums = [[E::ZERO; COLUMNS]; ROWS];
    for term in &scheme.exact {
        let mut part = [[0i32; COLUMNS]; ROWS];
        add(term, &mut part);
        shift_in(&mut sums, &part, term.shift);
    }
    if let Some((first, rest)) = scheme.wrapping.split_first() {
        let mut low = [[0i32; COLUMNS]; ROWS];
        add(first, &mut low);
        for term in rest {
            let mut part = [[0i32; COLUMNS]; ROWS];
            add(term, &mut part);
            let shift = term.shift - first.shift;
            for (y, p) in low.iter_mut().zip(&part) {
                y.iter_mut().zip(p).for_each(|(y, p)| *y = y.wrapping_add(p << shift));
            }
        }
        shift_in(&mut sums, &low, first.shift);
    }
    for (row, sums) in sums.into_iter().enumerate().take(place.rows()) {
        place.add(row, place.first(), sums);
    }
}

/// `sums += part 2^shift`.
#[inline(always)]
fn shift_in<E: Element>(sums: &mut [[E; COLUMNS]; ROWS], part: &[[i32; COLUMNS]; ROWS], shift: u8) {
    for (y, p) in sums.iter_mut().zip(part) {
        y.iter_mut().zip(p).for_each(|(y, p)| *y = y.plus(E::signed(*p) << shift));
    }
}

/// The products of two entries' digits added up, modulo `2^32`: of a whole integer, or of two digits.
#[inline(always)]
pub fn product<D: Digit>(left: Pair, right: Pair) -> i32 {
    if D::DEPTH == 1 {
        return left.wrapping_mul(right) as i32;
    }
    let halves = |p: Pair| (i32::from(p as i16), i32::from((p >> 16) as i16));
    let ((l0, l1), (r0, r1)) = (halves(left), halves(right));
    (l0 * r0).wrapping_add(l1 * r1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_four_rows() {
        let row = |r: u32| {
            std::array::from_fn(|i| u32::from_le_bytes([0, 1, 2, 3].map(|b| (16 * i as u32 + 4 * r + b) as u8)))
        };
        let out = transposed(&[row(0), row(1), row(2), row(3)]);
        for (byte, entries) in out.iter().enumerate() {
            for (i, entry) in entries.iter().enumerate() {
                assert_eq!(entry.to_le_bytes(), [0, 4, 8, 12].map(|r| (16 * i + r + byte) as u8));
            }
        }
    }
}
