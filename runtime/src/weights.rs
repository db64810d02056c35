//! Where the server's weights come from.

use bcc_ir::program::Program;
use bcc_ir::program::file::Weights;

use crate::buffer::mask;

/// Integers by entry of [`Program::weights`]. Only the server has one.
pub trait WeightSource: Send + Sync {
    /// Entry `index` modulo `2^bits`; empty for an unknown entry.
    fn ring(&self, index: usize, bits: u8) -> Vec<u64>;
}

impl WeightSource for Weights {
    fn ring(&self, index: usize, bits: u8) -> Vec<u64> {
        Weights::ring(self, index, bits)
    }
}

impl WeightSource for Vec<Vec<i64>> {
    fn ring(&self, index: usize, bits: u8) -> Vec<u64> {
        self.get(index).map_or_else(Vec::new, |w| w.iter().map(|v| *v as u64 & mask(bits)).collect())
    }
}

/// BLAKE3 digest of all weights: a stored setup is good for the very weights it was made from, as
/// the same mask over two sets of weights would give their difference away.
pub fn fingerprint(program: &Program, weights: &dyn WeightSource) -> [u8; 32] {
    let mut hash = blake3::Hasher::new_derive_key("bcc 2026 weights fingerprint v1");
    for index in 0..program.weights.len() {
        let values = weights.ring(index, 64);
        hash.update(&(values.len() as u64).to_le_bytes());
        for chunk in values.chunks(1024) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
            hash.update(&bytes);
        }
    }
    *hash.finalize().as_bytes()
}
