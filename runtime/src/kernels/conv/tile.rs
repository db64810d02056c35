//! The inner kernel of a matrix product of pairs of 16-bit digits, of 32-bit integers, or of bytes.
#![allow(unsafe_code)]

use std::time::Instant;

use bcc_ir::program::Width;

use super::matrix::{Digit, product};
use super::target::Place;
use super::window::{BYTE_ROWS, BYTE_SUMS, ByteOperands, ByteSums, GROUP, Rows, Window};
use crate::element::Element;

/// Rows of the product that one call makes.
pub const ROWS: usize = 4;
/// Columns of the product that one call makes.
pub const COLUMNS: usize = 16;

/// An entry: two 16-bit integers that follow each other in depth, the first one in the low half; or four bytes; or one
/// integer of 32 bits.
pub type Pair = u32;

/// Has some memory brought to the caches.
#[inline(always)]
pub fn prefetch<T>(memory: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in memory.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing; the address is that of memory at hand.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    let _ = memory;
}

/// A piece of work. `work` and all that it calls should be `inline(always)`: only then are they compiled for
/// the instruction set of the [`Tile`] that runs them. (Closures cannot be made to.)
pub trait Job {
    /// Does it.
    fn work(self);
}

/// The inner kernel for one instruction set.
pub trait Tile: Send + Sync {
    /// Name of the kernel set.
    fn name(&self) -> &'static str;

    /// Does a job, compiled for the instruction set.
    fn run(&self, job: impl Job) {
        job.work();
    }

    /// `sums[r][c] += sum over i of left[i][r] * right[i][c]`, products of entries of such digits, modulo `2^32`. Only the
    /// first `columns` columns are needed.
    fn multiply<D: Digit>(
        &self,
        left: &[[Pair; ROWS]],
        right: &[[Pair; COLUMNS]],
        columns: usize,
        sums: &mut [[i32; COLUMNS]; ROWS],
    );

    /// Products of bytes: `sums.0[k][r][c]` is the sum over entries and the window's steps that have bit `k` of
    /// `left[r] * right[c]`, products of the four bytes of entries of the digits that the step names, modulo `2^32`.
    fn multiply_bytes(&self, window: &Window, operands: ByteOperands<'_>, sums: &mut ByteSums) {
        plain_bytes(window, operands, sums);
    }

    /// Puts such sums together, each by its exponent, and adds them to a place, or writes them there if they are the
    /// `first`.
    fn join_bytes<E: Element>(&self, sums: &ByteSums, window: &Window, place: &Place<'_, E>, first: bool) {
        let part = |k: usize, row: usize, c: usize| {
            let more = if window.same { 0 } else { 8 * k as u8 };
            E::signed(sums.0[k][row][c]).up(window.shift + more)
        };
        for row in 0..place.rows() {
            let all = |c: usize| (0..BYTE_SUMS).fold(E::ZERO, |sum, k| sum.plus(part(k, row, c)));
            place.add(row, first, std::array::from_fn(all));
        }
    }

    /// Transposes a tile whose rows are pixels and writes it to a place whose rows are channels; its columns are the
    /// pixels of which `valid` has a one, the lowest for the first.
    fn spread<E: Element>(&self, tile: &[[E; COLUMNS]; BYTE_ROWS], valid: u16, place: Place<'_, E>) {
        for channel in 0..place.rows() {
            let mut row = [E::ZERO; COLUMNS];
            let pixels = tile.iter().enumerate().filter(|(i, _)| valid >> i & 1 == 1);
            row.iter_mut().zip(pixels).for_each(|(y, (_, pixel))| *y = pixel[channel]);
            place.add(channel, true, row);
        }
    }

    /// Writes the columns of a tile as rows, every `step`th of `to`, as many as it has.
    fn transpose(&self, tile: &[[Pair; COLUMNS]; BYTE_ROWS], to: &mut [[Pair; BYTE_ROWS]], step: usize) {
        for (column, to) in to.iter_mut().step_by(step).enumerate().take(COLUMNS) {
            to.iter_mut().zip(tile).for_each(|(y, row)| *y = row[column]);
        }
    }

    /// What it multiplies best of those that it can, for elements of a width.
    fn products(&self, width: Width) -> Products;
}

/// What operands are taken apart to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// Digits of at most 16 bits.
    Digits,
    /// Nothing: whole integers of 32 bits.
    Whole,
    /// Bytes.
    Bytes,
}

impl Products {
    /// Wider elements are taken apart.
    pub fn of(self, width: Width) -> Products {
        match (self, width) {
            (Products::Whole, Width::Wide) => Products::Digits,
            _ => self,
        }
    }
}

/// [`Tile::multiply_bytes`] as it reads.
#[inline(always)]
fn plain_bytes(window: &Window, operands: ByteOperands<'_>, ByteSums(sums): &mut ByteSums) {
    let ByteOperands { digits, left, starts, row, right } = operands;
    sums.as_flattened_mut().as_flattened_mut().fill(0);
    let rights = right.as_chunks::<GROUP>().0.chunks_exact(digits[1]);
    for (start, rights) in starts.iter().zip(rights) {
        for (step, k) in window.steps.iter().flat_map(|s| (0..BYTE_SUMS).map(move |k| (s, k))) {
            let signed = step.signed >> k & 1 == 1;
            if !signed && step.unsigned >> k & 1 == 0 {
                continue;
            }
            let digit = start + step.left.wrapping_add_unsigned(k) as usize * window.rows.digit();
            let [of_left, of_right] = match window.rows {
                Rows::Channels => [signed, false],
                Rows::Pixels => [false, signed],
            };
            for (r, sums) in sums[k].iter_mut().enumerate() {
                for (left, right) in left[digit + r * row..].iter().zip(&rights[step.right]) {
                    let l = bytes(*left, of_left);
                    for (sum, right) in sums.iter_mut().zip(right) {
                        let r = bytes(*right, of_right);
                        let products = l[0] * r[0] + l[1] * r[1] + l[2] * r[2] + l[3] * r[3];
                        *sum = sum.wrapping_add(products);
                    }
                }
            }
        }
    }
}

/// The bytes of an entry, with their sign or without.
#[inline(always)]
fn bytes(entry: Pair, signed: bool) -> [i32; 4] {
    let bytes = entry.to_le_bytes();
    if signed { bytes.map(|b| i32::from(b as i8)) } else { bytes.map(i32::from) }
}

/// Of two tiles, one for digits and one for whole products, the faster one last. Whole products are not worth less
/// than that: it takes three pairs of digits for two products of 32 bits, two where one factor has 16, and packing.
/// The best of some short runs counts.
pub fn faster_last<T: Tile>(digits: T, whole: T) -> [T; 2] {
    const DEPTH: usize = 120;
    let left = [[0x0123_4567u32; ROWS]; DEPTH];
    let right = [[0x0089_abcdu32; COLUMNS]; DEPTH];
    let best = |multiply: &dyn Fn(&mut [[i32; COLUMNS]; ROWS])| {
        let mut sums = [[0; COLUMNS]; ROWS];
        let run = |_| {
            let start = Instant::now();
            (0..4).for_each(|_| multiply(std::hint::black_box(&mut sums)));
            start.elapsed()
        };
        (0..50).map(run).min().unwrap_or_default().as_secs_f64()
    };
    let of_whole = best(&|sums| whole.multiply::<u32>(&left, &right, COLUMNS, sums));
    let of_digits = best(&|sums| digits.multiply::<i16>(&left, &right, COLUMNS, sums));
    if of_whole < 1.25 * of_digits { [digits, whole] } else { [whole, digits] }
}

/// What the compiler makes of plain loops.
#[derive(Clone, Copy)]
pub struct Portable(pub Products);

impl Tile for Portable {
    fn name(&self) -> &'static str {
        match self.0 {
            Products::Digits => "portable",
            Products::Whole => "portable, 32-bit products",
            Products::Bytes => "portable, bytes",
        }
    }

    fn products(&self, width: Width) -> Products {
        self.0.of(width)
    }

    #[inline(always)]
    fn multiply<D: Digit>(
        &self,
        left: &[[Pair; ROWS]],
        right: &[[Pair; COLUMNS]],
        _columns: usize,
        sums: &mut [[i32; COLUMNS]; ROWS],
    ) {
        for (row, sums) in sums.iter_mut().enumerate() {
            for (left, right) in left.iter().zip(right) {
                for (y, r) in sums.iter_mut().zip(right) {
                    *y = y.wrapping_add(product::<D>(left[row], *r));
                }
            }
        }
    }
}
