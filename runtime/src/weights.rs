//! Where the server's weights come from.

use bcc_ir::program::Program;
use bcc_ir::program::file::{FileError, Weights};
use zeroize::Zeroizing;

use crate::buffer::mask;
use crate::element::Element;

/// Integers by entry of [`Program::weights`]. Only the server has one.
pub trait WeightSource: Send + Sync {
    /// Elements of entry `index`; 0 for an unknown one.
    fn len(&self, index: usize) -> usize;

    /// Gives the elements of entry `index` modulo `2^bits`, some at a time.
    fn parts(&self, index: usize, bits: u8, take: &mut dyn FnMut(&[u64])) -> Result<(), FileError>;
}

impl WeightSource for Weights {
    fn len(&self, index: usize) -> usize {
        Weights::len(self, index)
    }

    fn parts(&self, index: usize, bits: u8, take: &mut dyn FnMut(&[u64])) -> Result<(), FileError> {
        Weights::parts(self, index, bits, take)
    }
}

impl WeightSource for Vec<Vec<i64>> {
    fn len(&self, index: usize) -> usize {
        self.get(index).map_or(0, Vec::len)
    }

    fn parts(&self, index: usize, bits: u8, take: &mut dyn FnMut(&[u64])) -> Result<(), FileError> {
        let part = |some: &[i64]| Zeroizing::new(some.iter().map(|v| *v as u64 & mask(bits)).collect::<Vec<_>>());
        self.get(index).into_iter().flat_map(|all| all.chunks(PART)).for_each(|some| take(&part(some)));
        Ok(())
    }
}

/// Elements that are given at a time.
const PART: usize = 1 << 12;

/// Writes entry `index` modulo `2^bits` into as many elements. After an error they hold anything.
pub fn fill<E: Element>(source: &dyn WeightSource, index: usize, bits: u8, out: &mut [E]) -> Result<(), FileError> {
    let mut places = out.iter_mut();
    source.parts(index, bits, &mut |part| part.iter().zip(places.by_ref()).for_each(|(v, y)| *y = E::of(*v)))
}

/// BLAKE3 digest of all weights: a stored setup is good for the very weights it was made from, as
/// the same mask over two sets of weights would give their difference away.
pub fn fingerprint(program: &Program, weights: &dyn WeightSource) -> Result<[u8; 32], FileError> {
    let mut hash = blake3::Hasher::new_derive_key("bcc 2026 weights fingerprint v1");
    for index in 0..program.weights.len() {
        hash.update(&(weights.len(index) as u64).to_le_bytes());
        weights.parts(index, 64, &mut |part| {
            let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(part.iter().flat_map(|v| v.to_le_bytes()).collect());
            hash.update(&bytes);
        })?;
    }
    Ok(*hash.finalize().as_bytes())
}
