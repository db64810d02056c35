//! Products of bytes, as tiles of them are multiplied.

use super::tile::COLUMNS;

/// Rows of a product of bytes.
pub const BYTE_ROWS: usize = 16;
/// Entries in depth that a product of bytes takes at a time.
pub const GROUP: usize = 16;
/// Exponents that are summed up side by side.
pub const BYTE_SUMS: usize = 4;

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

/// The products of one byte of the right operands with some of the left ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteStep {
    /// The right operand's byte.
    pub right: usize,
    /// The left operand's byte whose product is in sum 0; it need not be there.
    pub left: isize,
    /// By bit, sums that it has a product for, of bytes without sign.
    pub unsigned: u64,
    /// The same where the left byte has a sign.
    pub signed: u64,
}

/// What products a window has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Of the four lowest bytes of both operands, all that have one of the four lowest exponents: ten.
    Four,
    /// As [`Four`](Self::Four), of left operands of two bytes, the second of which has a sign: seven.
    Two,
    /// Others.
    Steps,
}

/// Products of bytes of some exponents, which are summed up side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
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
    /// The products of `left` and `right` bytes whose exponent is one of [`BYTE_SUMS`] from `8 first` on, and below
    /// `8 right`; if `signed` the highest byte of the left has a sign.
    pub fn new(left: usize, signed: bool, right: usize, first: usize) -> Window {
        let same = first + 1 == right;
        let step = |j: usize| {
            let mut step = ByteStep { right: j, left: first as isize - j as isize, unsigned: 0, signed: 0 };
            let turn = if same { j % BYTE_SUMS } else { 0 };
            step.left -= turn as isize;
            for k in (0..BYTE_SUMS).filter(|k| first + k < right) {
                match (first + k).checked_sub(j) {
                    Some(i) if signed && i + 1 == left => step.signed |= 1 << (k + turn),
                    Some(i) if i < left => step.unsigned |= 1 << (k + turn),
                    _ => {}
                }
            }
            step
        };
        let steps = (0..right).map(step).filter(|s| s.unsigned | s.signed != 0).collect();
        let pattern = match (left, signed) {
            _ if first > 0 || right < BYTE_SUMS => Pattern::Steps,
            (2, true) => Pattern::Two,
            (BYTE_SUMS.., false) => Pattern::Four,
            _ => Pattern::Steps,
        };
        Window { steps, pattern, shift: 8 * first as u8, same }
    }
}
