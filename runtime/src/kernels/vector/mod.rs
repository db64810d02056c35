//! Kernels in a form that compilers vectorise: rows of pixels and groups of words without branches. Each
//! is compiled for every instruction set; the [plain](super::plain) ones have the algebra.

pub mod compare;
pub mod gate;

use std::ops::{BitAnd, BitXor};

/// Words that are worked on together: a cache line.
pub const LANES: usize = 8;

/// As many words.
#[derive(Clone, Copy)]
pub struct Words([u64; LANES]);

impl Words {
    /// All bits set.
    pub const ONES: Words = Words([u64::MAX; LANES]);
    /// None.
    pub const ZERO: Words = Words([0; LANES]);

    /// Words from `at` on, zeros past the end.
    #[inline(always)]
    pub fn load(from: &[u64], at: usize) -> Words {
        match from[at..].first_chunk::<LANES>() {
            Some(words) => Words(*words),
            None => {
                let mut words = [0; LANES];
                words[..from.len() - at].copy_from_slice(&from[at..]);
                Words(words)
            }
        }
    }

    /// Writes them from `at` on, as far as there is room.
    #[inline(always)]
    pub fn store(self, to: &mut [u64], at: usize) {
        match to[at..].first_chunk_mut::<LANES>() {
            Some(words) => *words = self.0,
            None => {
                let left = to.len() - at;
                to[at..].copy_from_slice(&self.0[..left]);
            }
        }
    }
}

impl BitAnd for Words {
    type Output = Words;

    #[inline(always)]
    fn bitand(mut self, other: Words) -> Words {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a &= b;
        }
        self
    }
}

impl BitXor for Words {
    type Output = Words;

    #[inline(always)]
    fn bitxor(mut self, other: Words) -> Words {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a ^= b;
        }
        self
    }
}
