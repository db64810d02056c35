//! The integers that hold ring elements: 32 bits where every modulus of a program fits, else 64.

use std::fmt::Debug;
use std::ops::{BitAnd, BitOr, BitXor, Not, Shl, Shr};

pub use bcc_ir::program::Width;
use bytemuck::Pod;

use crate::buffer::Values;
use crate::kernels::{KernelSet, Kernels};

/// An unsigned integer that holds ring elements. Arithmetic is modulo its size, of which every smaller power of two is a
/// divisor, so elements modulo `2^k` are computed with whole integers and reduced by a mask.
pub trait Element:
    Pod
    + Ord
    + Debug
    + Send
    + Sync
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
    + Not<Output = Self>
    + Shl<u8, Output = Self>
    + Shr<u8, Output = Self>
{
    /// Bits of the integer: the widest modulus.
    const BITS: u8;
    /// Which of the two it is.
    const WIDTH: Width;
    /// Zero.
    const ZERO: Self;

    /// The low bits of a word.
    fn of(word: u64) -> Self;
    /// As a word.
    fn word(self) -> u64;
    /// The low 32 bits.
    fn low(self) -> u32;
    /// The low bits of a number with its sign.
    fn signed(value: i32) -> Self;
    /// `self + other`.
    fn plus(self, other: Self) -> Self;
    /// `self - other`.
    fn minus(self, other: Self) -> Self;
    /// `self * other`.
    fn times(self, other: Self) -> Self;
    /// Its kernels in a set.
    fn kernels(set: KernelSet) -> &'static dyn Kernels<Self>;
    /// Elements of a buffer, if they are of this width.
    fn slice(values: &Values) -> Option<&[Self]>;
    /// As [`slice`](Self::slice), to be written.
    fn slice_mut(values: &mut Values) -> Option<&mut [Self]>;

    /// `2^bits - 1`, for 1 bit to all.
    #[inline(always)]
    fn mask(bits: u8) -> Self {
        !Self::ZERO >> (Self::BITS - bits.clamp(1, Self::BITS))
    }

    /// `self 2^by`, 0 if nothing of it is left.
    #[inline(always)]
    fn up(self, by: u8) -> Self {
        if by < Self::BITS { self << by } else { Self::ZERO }
    }

    /// `-self`.
    #[inline(always)]
    fn neg(self) -> Self {
        Self::ZERO.minus(self)
    }
}

/// Evaluates an expression with a name for the integers of a width.
macro_rules! by_width {
    ($width:expr, $element:ident => $body:expr) => {
        match $width {
            bcc_ir::program::Width::Narrow => {
                type $element = u32;
                $body
            }
            bcc_ir::program::Width::Wide => {
                type $element = u64;
                $body
            }
        }
    };
}
pub(crate) use by_width;

macro_rules! element {
    ($integer:ty, $width:ident, $field:ident) => {
        impl Element for $integer {
            const BITS: u8 = <$integer>::BITS as u8;
            const WIDTH: Width = Width::$width;
            const ZERO: Self = 0;

            #[inline(always)]
            fn of(word: u64) -> Self {
                word as $integer
            }

            #[inline(always)]
            fn word(self) -> u64 {
                self.into()
            }

            #[inline(always)]
            fn low(self) -> u32 {
                self as u32
            }

            #[inline(always)]
            fn signed(value: i32) -> Self {
                value as $integer
            }

            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            #[inline(always)]
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            fn kernels(set: KernelSet) -> &'static dyn Kernels<Self> {
                set.$field
            }

            fn slice(values: &Values) -> Option<&[Self]> {
                if let Values::$width(all) = values { Some(all) } else { None }
            }

            fn slice_mut(values: &mut Values) -> Option<&mut [Self]> {
                if let Values::$width(all) = values { Some(all) } else { None }
            }
        }
    };
}

element!(u32, Narrow, narrow);
element!(u64, Wide, wide);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_shifts() {
        assert_eq!((u32::mask(1), u32::mask(31), u32::mask(32)), (1, u32::MAX / 2, u32::MAX));
        assert_eq!((u64::mask(33), u64::mask(64)), ((1 << 33) - 1, u64::MAX));
        assert_eq!((1u32.up(31), 1u32.up(32), 1u64.up(32), 1u64.up(64)), (1 << 31, 0, 1 << 32, 0));
        assert_eq!((u32::signed(-1), u64::signed(-1), 1u32.neg()), (u32::MAX, u64::MAX, u32::MAX));
    }
}
