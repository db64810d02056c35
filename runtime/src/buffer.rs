//! What instructions read and write.

use bcc_ir::program::Type;

use crate::element::{Element, Width, by_width};
use crate::scratch::Scratch;
use crate::words::Words;

/// Ring elements.
pub enum Values {
    /// In 32 bits each.
    Narrow(Scratch<u32>),
    /// In 64 bits each.
    Wide(Scratch<u64>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::Narrow(all) => all.len(),
            Values::Wide(all) => all.len(),
        }
    }
}

/// A buffer of an executing role: shares, masks, keys of the selection. It is erased when dropped
/// and has no `Debug`.
pub enum Buffer {
    /// Integers modulo `2^bits`, reduced.
    Ring {
        /// Modulus width, 1 to 64.
        bits: u8,
        /// The elements.
        values: Values,
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
    pub fn zeros(ty: Type, width: Width) -> Self {
        Buffer::within(ty, width, Words::zeros(width.words(ty)))
    }

    /// A buffer of a type with any content, to be written before it is read.
    pub fn any(ty: Type, width: Width) -> Self {
        Buffer::within(ty, width, Words::any(width.words(ty)))
    }

    /// A buffer of a type in that memory, which has its [size](Width::words).
    fn within(ty: Type, width: Width, words: Words) -> Self {
        match (ty, width) {
            (Type::Ring { bits, len }, Width::Narrow) => {
                Buffer::Ring { bits, values: Values::Narrow(Scratch::within(words, len)) }
            }
            (Type::Ring { bits, len }, Width::Wide) => {
                Buffer::Ring { bits, values: Values::Wide(Scratch::within(words, len)) }
            }
            (Type::Bits { planes, len }, _) => Buffer::Bits { planes, len, words },
        }
    }

    /// A ring buffer of values that are reduced here.
    pub fn ring(bits: u8, width: Width, values: &[u64]) -> Self {
        let mut buffer = Buffer::any(Type::Ring { bits, len: values.len() }, width);
        by_width!(width, E => {
            let elements = buffer.elements_mut::<E>().unwrap_or_default();
            elements.iter_mut().zip(values).for_each(|(y, v)| *y = E::of(*v) & E::mask(bits));
        });
        buffer
    }

    /// Its type.
    pub fn ty(&self) -> Type {
        match self {
            Buffer::Ring { bits, values } => Type::Ring { bits: *bits, len: values.len() },
            Buffer::Bits { planes, len, .. } => Type::Bits { planes: *planes, len: *len },
        }
    }

    /// The elements, if there are some of this width.
    pub fn elements<E: Element>(&self) -> Option<&[E]> {
        if let Buffer::Ring { values, .. } = self { E::slice(values) } else { None }
    }

    /// The elements, if there are some of this width.
    pub fn elements_mut<E: Element>(&mut self) -> Option<&mut [E]> {
        if let Buffer::Ring { values, .. } = self { E::slice_mut(values) } else { None }
    }

    /// The words of the planes, if there are some.
    pub fn planes(&self) -> Option<&[u64]> {
        if let Buffer::Bits { words, .. } = self { Some(words) } else { None }
    }

    /// The words of the planes, if there are some.
    pub fn planes_mut(&mut self) -> Option<&mut [u64]> {
        if let Buffer::Bits { words, .. } = self { Some(words) } else { None }
    }

    /// A copy of the elements, each in a word, or of the words of the planes.
    pub fn words(&self) -> Vec<u64> {
        match self {
            Buffer::Ring { values: Values::Narrow(all), .. } => all.iter().map(|v| v.word()).collect(),
            Buffer::Ring { values: Values::Wide(all), .. } => all.to_vec(),
            Buffer::Bits { words, .. } => words.to_vec(),
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
    fn elements_of_both_widths() {
        let (narrow, wide) =
            (Buffer::ring(20, Width::Narrow, &[1 << 20, 7]), Buffer::ring(40, Width::Wide, &[1 << 40, 7]));
        assert!(narrow.elements::<u32>() == Some(&[0, 7]) && narrow.elements::<u64>().is_none());
        assert!(wide.elements::<u64>() == Some(&[0, 7]) && wide.words() == narrow.words() && wide.planes().is_none());
    }

    #[test]
    fn zeros_have_their_type() {
        for ty in [Type::Ring { bits: 20, len: 7 }, Type::Bits { planes: 3, len: 65 }] {
            for width in [Width::Narrow, Width::Wide] {
                assert!(Buffer::zeros(ty, width).ty() == ty && Buffer::any(ty, width).ty() == ty);
            }
        }
    }
}
