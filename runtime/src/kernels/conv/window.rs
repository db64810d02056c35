//! Products of bytes, as tiles of them are multiplied.

use super::tile::{COLUMNS, Pair};
use crate::words::erase;

/// Rows of a product of bytes.
pub const BYTE_ROWS: usize = 16;
/// Entries in depth that a product of bytes takes at a time.
pub const GROUP: usize = 16;
/// Exponents that are summed up side by side.
pub const BYTE_SUMS: usize = 4;

/// What the rows of a product are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Output channels: weights are the left operand, pixels the right one.
    Channels,
    /// Pixels: weights are the right operand.
    Pixels,
}

impl Rows {
    /// Entries from a left digit to the next: digits of weights are tiles of their own, those of a pixel follow each other.
    pub const fn digit(self) -> usize {
        match self {
            Rows::Channels => GROUP * BYTE_ROWS,
            Rows::Pixels => GROUP,
        }
    }
}

/// Operands of products of bytes: some groups of [`GROUP`] entries in depth.
#[derive(Clone, Copy)]
pub struct ByteOperands<'a> {
    /// Digits of left and right entries.
    pub digits: [usize; 2],
    /// Left entries: [`GROUP`] of a row and a digit lie side by side.
    pub left: &'a [Pair],
    /// Where each group begins there.
    pub starts: &'a [usize],
    /// From a row to the next.
    pub row: usize,
    /// Right entries, a column each: group after group, in each digit after digit.
    pub right: &'a [[Pair; COLUMNS]],
}

impl ByteOperands<'_> {
    /// Whether all groups lie inside, [`BYTE_ROWS`] rows of each.
    #[inline(always)]
    pub fn inside(&self, rows: Rows) -> bool {
        let [left, right] = self.digits;
        let reach = (BYTE_ROWS - 1) * self.row + left.saturating_sub(1) * rows.digit() + GROUP;
        let room = self.left.len().checked_sub(reach);
        left > 0
            && room.is_some_and(|room| self.starts.iter().all(|s| *s <= room))
            && self.right.len() == self.starts.len() * right * GROUP
    }
}

/// Sums of products of bytes, by exponent, row and column.
#[repr(align(64))]
pub struct ByteSums(pub [[[i32; COLUMNS]; BYTE_ROWS]; BYTE_SUMS]);

impl ByteSums {
    /// Zeros.
    #[inline(always)]
    pub fn zeros() -> ByteSums {
        ByteSums([[[0; COLUMNS]; BYTE_ROWS]; BYTE_SUMS])
    }
}

/// They are of shares.
impl Drop for ByteSums {
    fn drop(&mut self) {
        erase(&mut self.0);
    }
}

/// The products of one byte of the right operands with some of the left ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteStep {
    /// The right operand's byte.
    pub right: usize,
    /// The left operand's byte whose product is in sum 0; it need not be there.
    pub left: isize,
    /// By bit, sums that it has a product for, of bytes without sign.
    pub unsigned: u64,
    /// The same where the weight's byte has a sign.
    pub signed: u64,
}

impl ByteStep {
    /// Whether it has products, all of bytes that operands of so many digits have.
    #[inline(always)]
    pub fn inside(&self, [left, right]: [usize; 2]) -> bool {
        let which = (self.unsigned | self.signed) & 0xf;
        let [first, last] = [which.trailing_zeros(), 63u32.wrapping_sub(which.leading_zeros())];
        which != 0
            && self.left + first as isize >= 0
            && self.left + (last as isize) < left as isize
            && self.right < right
    }
}

/// What products a window has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Of the four lowest bytes of both operands, all that have one of the four lowest exponents: ten.
    Four,
    /// As [`Four`](Self::Four), of weights of two bytes, the second of which has a sign: seven.
    Two,
    /// Others.
    Steps,
}

/// Products of bytes of some exponents, which are summed up side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which operand has the weights.
    pub rows: Rows,
    /// The products.
    pub steps: Vec<ByteStep>,
    /// What they are.
    pub pattern: Pattern,
    /// Exponent of the first sum.
    pub shift: u8,
    /// Whether it is that of all sums, not 8 more for each: one exponent alone has all sums, so that additions need not
    /// wait for each other.
    pub same: bool,
}

impl Window {
    /// The products of bytes whose exponent is one of [`BYTE_SUMS`] from `8 first` on, and below `8 pixel`, the bytes of a
    /// pixel; if `signed` the highest of a weight's `weight` bytes has a sign.
    pub fn new(rows: Rows, weight: usize, signed: bool, pixel: usize, first: usize) -> Window {
        let same = first + 1 == pixel;
        let [left, right] = match rows {
            Rows::Channels => [weight, pixel],
            Rows::Pixels => [pixel, weight],
        };
        let step = |j: usize| {
            let mut step = ByteStep { right: j, left: first as isize - j as isize, unsigned: 0, signed: 0 };
            let turn = if same { j % BYTE_SUMS } else { 0 };
            step.left -= turn as isize;
            for k in (0..BYTE_SUMS).filter(|k| first + k < pixel) {
                let Some(i) = (first + k).checked_sub(j).filter(|i| *i < left) else { continue };
                let byte = if rows == Rows::Channels { i } else { j };
                let of = if signed && byte + 1 == weight { &mut step.signed } else { &mut step.unsigned };
                *of |= 1 << (k + turn);
            }
            step
        };
        let steps = (0..right).map(step).filter(|s| s.unsigned | s.signed != 0).collect();
        let pattern = match (weight, signed) {
            _ if first > 0 || pixel < BYTE_SUMS => Pattern::Steps,
            (2, true) => Pattern::Two,
            (BYTE_SUMS.., false) => Pattern::Four,
            _ => Pattern::Steps,
        };
        Window { rows, steps, pattern, shift: 8 * first as u8, same }
    }
}
