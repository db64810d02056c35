//! What instructions read and write.

use bcc_ir::program::Type;

use crate::words::Words;

/// A buffer of an executing role: shares, masks, keys of the selection. It is erased when dropped
/// and has no `Debug`.
pub enum Buffer {
    /// Integers modulo `2^bits`, reduced.
    Ring {
        /// Modulus width, 1 to 64.
        bits: u8,
        /// The elements.
        values: Words,
    },
    /// Rows of bits, each in whole 64-bit words; bits past `len` are zero.
    Bits {
        /// Rows.
        planes: usize,
        /// Bits in a row.
        len: usize,
        /// The rows one after the other, `len.div_ceil(64)` words each, lowest bit first.
        words: Words,
    },
}

impl Buffer {
    /// Zeros of a type.
    pub fn zeros(ty: Type) -> Self {
        match ty {
            Type::Ring { bits, len } => Buffer::Ring { bits, values: Words::zeros(len) },
            Type::Bits { planes, len } => Buffer::Bits { planes, len, words: Words::zeros(planes * stride(len)) },
        }
    }

    /// A buffer of a type with any content, to be written before it is read.
    pub fn any(ty: Type) -> Self {
        match ty {
            Type::Ring { bits, len } => Buffer::Ring { bits, values: Words::any(len) },
            Type::Bits { planes, len } => Buffer::Bits { planes, len, words: Words::any(planes * stride(len)) },
        }
    }

    /// A ring buffer of values that are reduced here.
    pub fn ring(bits: u8, mut values: Vec<u64>) -> Self {
        values.iter_mut().for_each(|v| *v &= mask(bits));
        Buffer::Ring { bits, values: values.into() }
    }

    /// Its type.
    pub fn ty(&self) -> Type {
        match self {
            Buffer::Ring { bits, values } => Type::Ring { bits: *bits, len: values.len() },
            Buffer::Bits { planes, len, .. } => Type::Bits { planes: *planes, len: *len },
        }
    }

    /// The elements, or the words of the planes.
    pub fn words(&self) -> &[u64] {
        match self {
            Buffer::Ring { values, .. } => values,
            Buffer::Bits { words, .. } => words,
        }
    }

    /// The elements, or the words of the planes.
    pub fn words_mut(&mut self) -> &mut [u64] {
        match self {
            Buffer::Ring { values, .. } => values,
            Buffer::Bits { words, .. } => words,
        }
    }
}

/// `2^bits - 1` for 1 to 64 bits.
pub fn mask(bits: u8) -> u64 {
    u64::MAX >> (64 - u32::from(bits.clamp(1, 64)))
}

/// 64-bit words of a plane of `len` bits.
pub fn stride(len: usize) -> usize {
    len.div_ceil(64)
}

/// The bits of a plane's last word that are in use.
pub fn tail_mask(len: usize) -> u64 {
    match len % 64 {
        0 => u64::MAX,
        r => (1 << r) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(mask(1), 1);
        assert_eq!(mask(63), u64::MAX / 2);
        assert_eq!(mask(64), u64::MAX);
        assert_eq!((tail_mask(64), tail_mask(65), stride(65)), (u64::MAX, 1, 2));
    }

    #[test]
    fn zeros_have_their_type() {
        for ty in [Type::Ring { bits: 20, len: 7 }, Type::Bits { planes: 3, len: 65 }] {
            assert!(Buffer::zeros(ty).ty() == ty);
        }
    }
}
