//! Randomness: AES-128 in counter mode, exactly as [`bcc_ir::program::Stream`] documents it.

use bcc_ir::program::Type;
use rayon::prelude::*;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::buffer::{Buffer, mask, stride, tail_mask};
use crate::kernels::bytes;
use crate::kernels::keystream::Keystream;

/// A 16-byte key that two parties share. Erased when dropped; has no `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key(pub(crate) [u8; 16]);

impl Key {
    /// A key of given bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Key(bytes)
    }
}

/// Elements made from one run of keystream; their bytes are whole blocks for every width.
const CHUNK: usize = 256;
/// Elements that one task of the thread pool makes.
const TASK: usize = 64 * CHUNK;
/// Blocks of a chunk of the widest elements.
const BLOCKS: usize = CHUNK * 8 / 16;

/// Values of stream number `stream` under `key`, of the stream's type.
pub fn draw(key: &Key, stream: u32, ty: Type) -> Buffer {
    let keystream = Keystream::new(&key.0);
    let mut out = Buffer::any(ty);
    match ty {
        Type::Ring { bits, .. } => fill(&keystream, stream, bits, out.words_mut()),
        Type::Bits { len, .. } => {
            let words = out.words_mut();
            fill(&keystream, stream, 64, words);
            if len > 0 {
                words.chunks_exact_mut(stride(len)).for_each(|plane| plane[stride(len) - 1] &= tail_mask(len));
            }
        }
    }
    out
}

fn fill(keystream: &Keystream, stream: u32, bits: u8, out: &mut [u64]) {
    if out.len() <= TASK {
        fill_from(keystream, stream, bits, 0, out);
    } else {
        out.par_chunks_mut(TASK).enumerate().for_each(|(i, part)| fill_from(keystream, stream, bits, i * TASK, part));
    }
}

/// Fills `out` with the elements `first..` of a stream; `first` is a multiple of [`CHUNK`].
fn fill_from(keystream: &Keystream, stream: u32, bits: u8, first: usize, out: &mut [u64]) {
    let width = usize::from(bits.div_ceil(8));
    let mut blocks = [[0u8; 16]; BLOCKS + 1];
    for (i, part) in out.chunks_mut(CHUNK).enumerate() {
        let start = (first + i * CHUNK) * width / 16;
        let used = (part.len() * width).div_ceil(16);
        keystream.fill(stream.into(), start as u64, &mut blocks[..used]);
        bytes::widen(width, blocks.as_flattened(), part);
        if usize::from(bits) != 8 * width {
            part.iter_mut().for_each(|v| *v &= mask(bits));
        }
    }
    blocks.zeroize();
}

#[cfg(test)]
mod tests {
    use aes::Aes128Enc;
    use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

    use super::*;

    fn keystream(key: [u8; 16], stream: u64, bytes: usize) -> Vec<u8> {
        let cipher = Aes128Enc::new(&Array::from(key));
        let mut all = Vec::new();
        for j in 0..bytes.div_ceil(16) as u64 {
            let mut block = [0; 16];
            block[..8].copy_from_slice(&stream.to_le_bytes());
            block[8..].copy_from_slice(&j.to_le_bytes());
            let mut block = Array::from(block);
            cipher.encrypt_block(&mut block);
            all.extend_from_slice(&block);
        }
        all
    }

    #[test]
    fn fips_197_appendix_c1() {
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        let mut block = Array::from(std::array::from_fn::<u8, 16, _>(|i| (i * 0x11) as u8));
        Aes128Enc::new(&Array::from(key)).encrypt_block(&mut block);
        let want = [0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a];
        assert_eq!(block.as_slice(), want);
    }

    #[test]
    fn ring_draws_follow_the_definition() {
        let key = [7; 16];
        for bits in [1u8, 7, 8, 9, 20, 32, 33, 40, 52, 63, 64] {
            for len in [1usize, 255, 256, 257, TASK + 300] {
                let width = usize::from(bits.div_ceil(8));
                let bytes = keystream(key, 5, len * width);
                let drawn = draw(&Key(key), 5, Type::Ring { bits, len });
                for i in (0..len).step_by(97).chain([len - 1]) {
                    let mut word = [0; 8];
                    word[..width].copy_from_slice(&bytes[i * width..(i + 1) * width]);
                    assert_eq!(drawn.words()[i], u64::from_le_bytes(word) & mask(bits), "{bits} bits, element {i}");
                }
            }
        }
    }

    #[test]
    fn bit_draws_follow_the_definition() {
        let key = [9; 16];
        for (planes, len) in [(1, 1), (3, 64), (2, 65), (15, 200)] {
            let drawn = draw(&Key(key), 2, Type::Bits { planes, len });
            let bytes = keystream(key, 2, planes * stride(len) * 8);
            for (i, w) in drawn.words().iter().enumerate() {
                let mut want = u64::from_le_bytes(bytes[8 * i..8 * i + 8].try_into().unwrap());
                if i % stride(len) == stride(len) - 1 {
                    want &= tail_mask(len);
                }
                assert_eq!(*w, want);
            }
        }
    }
}
