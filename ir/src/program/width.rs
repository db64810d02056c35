//! The integers that hold ring elements.

use super::{Program, Role, Type};

/// Which integers hold the ring elements of a program: all are of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits.
    Narrow,
    /// 64 bits.
    Wide,
}

impl Width {
    /// The narrowest that holds elements modulo `2^bits`.
    pub fn of_bits(bits: u8) -> Width {
        if u32::from(bits) <= u32::BITS { Width::Narrow } else { Width::Wide }
    }

    /// The narrowest that holds all elements of a program.
    pub fn of(program: &Program) -> Width {
        let buffers = Role::ALL.into_iter().flat_map(|role| &program.code(role).buffers);
        let bits = |ty: &Type| match ty {
            Type::Ring { bits, .. } => *bits,
            Type::Bits { .. } => 1,
        };
        Width::of_bits(buffers.map(bits).max().unwrap_or(1))
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Width::Narrow => size_of::<u32>(),
            Width::Wide => size_of::<u64>(),
        }
    }

    /// 64-bit words that a buffer takes in memory.
    pub fn words(self, ty: Type) -> usize {
        match ty {
            Type::Ring { len, .. } => len.saturating_mul(self.bytes()).div_ceil(size_of::<u64>()),
            Type::Bits { planes, len } => planes.saturating_mul(len.div_ceil(64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_both_widths() {
        assert_eq!((Width::of_bits(32), Width::of_bits(33)), (Width::Narrow, Width::Wide));
        let words = |ty| (Width::Narrow.words(ty), Width::Wide.words(ty));
        assert_eq!(words(Type::Ring { bits: 8, len: 5 }), (3, 5));
        assert_eq!(words(Type::Bits { planes: 3, len: 65 }), (6, 6));
    }
}
