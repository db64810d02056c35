//! Where the server's weights come from.

use bcc_ir::program::Program;
use bcc_ir::program::file::{FileError, Weights};

use crate::buffer::mask;
use crate::words::Words;

/// Integers by entry of [`Program::weights`]. Only the server has one.
pub trait WeightSource: Send + Sync {
    /// Elements of entry `index`; 0 for an unknown one.
    fn len(&self, index: usize) -> usize;

    /// Entry `index` modulo `2^bits`, into as many elements. After an error they hold anything.
    fn fill(&self, index: usize, bits: u8, out: &mut [u64]) -> Result<(), FileError>;
}

impl WeightSource for Weights {
    fn len(&self, index: usize) -> usize {
        Weights::len(self, index)
    }

    fn fill(&self, index: usize, bits: u8, out: &mut [u64]) -> Result<(), FileError> {
        Weights::fill(self, index, bits, out)
    }
}

impl WeightSource for Vec<Vec<i64>> {
    fn len(&self, index: usize) -> usize {
        self.get(index).map_or(0, Vec::len)
    }

    fn fill(&self, index: usize, bits: u8, out: &mut [u64]) -> Result<(), FileError> {
        out.iter_mut().zip(&self[index]).for_each(|(y, v)| *y = *v as u64 & mask(bits));
        Ok(())
    }
}

/// BLAKE3 digest of all weights: a stored setup is good for the very weights it was made from, as
/// the same mask over two sets of weights would give their difference away.
pub fn fingerprint(program: &Program, weights: &dyn WeightSource) -> Result<[u8; 32], FileError> {
    let mut hash = blake3::Hasher::new_derive_key("bcc 2026 weights fingerprint v1");
    for index in 0..program.weights.len() {
        let mut values = Words::any(weights.len(index));
        weights.fill(index, 64, &mut values)?;
        hash.update(&(values.len() as u64).to_le_bytes());
        for chunk in values.chunks(1024) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
            hash.update(&bytes);
        }
    }
    Ok(*hash.finalize().as_bytes())
}
