//! Randomness: AES-128 in counter mode, exactly as [`bcc_ir::program::Stream`] documents it.

use std::ops::Range;

use bcc_ir::program::Type;
use rayon::prelude::*;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::buffer::{Buffer, mask, stride, tail_mask};
use crate::kernels::bytes;
use crate::kernels::keystream::{Block, Keystream};

/// A 16-byte key that two parties share. Erased when dropped; has no `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key(pub(crate) [u8; 16]);

impl Key {
    /// A key of given bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Key(bytes)
    }
}

/// Elements made from one run of keystream.
const CHUNK: usize = 256;
/// Elements that one task of the thread pool makes.
const TASK: usize = 64 * CHUNK;
/// Blocks of a chunk of the widest elements, which may start within a block, and room behind them.
const BLOCKS: usize = CHUNK * 8 / 16 + 2;

/// Values of stream number `stream` under `key`, of the stream's type.
pub fn draw(key: &Key, stream: u32, ty: Type) -> Buffer {
    let keystream = Keystream::new(&key.0);
    let mut out = Buffer::any(ty);
    let words = out.words_mut();
    let bits = match ty {
        Type::Ring { bits, .. } => bits,
        Type::Bits { .. } => 64,
    };
    let task = |(i, part): (usize, &mut [u64])| Drawer::default().fill(&keystream, stream, bits, i * TASK, part);
    if words.len() <= TASK {
        task((0, words));
    } else {
        words.par_chunks_mut(TASK).enumerate().for_each(task);
    }
    if let Type::Bits { len, .. } = ty
        && len > 0
    {
        words.chunks_exact_mut(stride(len)).for_each(|plane| plane[stride(len) - 1] &= tail_mask(len));
    }
    out
}

/// Makes elements of keystream; holds some, which are erased with it.
pub struct Drawer {
    blocks: [Block; BLOCKS],
}

impl Default for Drawer {
    fn default() -> Self {
        Drawer { blocks: [[0; 16]; BLOCKS] }
    }
}

impl Drop for Drawer {
    fn drop(&mut self) {
        self.blocks.zeroize();
    }
}

impl Drawer {
    /// The elements `part` of a stream of type `ty`, its planes one after the other, each in whole words: a part of
    /// planes starts at a word.
    pub fn part(&mut self, keystream: &Keystream, stream: u32, ty: Type, part: Range<usize>, out: &mut [u64]) {
        match ty {
            Type::Ring { bits, .. } => self.fill(keystream, stream, bits, part.start, out),
            Type::Bits { len, .. } => {
                let words = stride(part.len()).max(1);
                for (p, plane) in out.chunks_exact_mut(words).enumerate() {
                    self.fill(keystream, stream, 64, p * stride(len) + part.start / 64, plane);
                    plane[words - 1] &= tail_mask(part.len());
                }
            }
        }
    }

    /// The elements `first..` of a stream.
    fn fill(&mut self, keystream: &Keystream, stream: u32, bits: u8, first: usize, out: &mut [u64]) {
        let width = usize::from(bits.div_ceil(8));
        if cfg!(target_endian = "little") && bits == 64 && first.is_multiple_of(2) {
            // Words as they are.
            let (whole, last) = out.as_chunks_mut::<2>();
            keystream.fill(stream.into(), first as u64 / 2, bytemuck::cast_slice_mut(whole));
            if let [last] = last {
                let at = (first + 2 * whole.len()) as u64 / 2;
                keystream.fill(stream.into(), at, &mut self.blocks[..1]);
                *last = bytemuck::cast::<_, [u64; 2]>(self.blocks[0])[0];
            }
            return;
        }
        for (i, part) in out.chunks_mut(CHUNK).enumerate() {
            let start = (first + i * CHUNK) * width;
            let (block, skip) = (start / 16, start % 16);
            let used = (skip + part.len() * width).div_ceil(16);
            keystream.fill(stream.into(), block as u64, &mut self.blocks[..used]);
            bytes::widen(width, &self.blocks.as_flattened()[skip..], part);
            if usize::from(bits) != 8 * width {
                part.iter_mut().for_each(|v| *v &= mask(bits));
            }
        }
    }
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
    fn parts_are_those_of_the_whole() {
        let (key, mut drawer) = (Key([8; 16]), Drawer::default());
        let keystream = Keystream::new(&key.0);
        for (ty, grain) in [
            (Type::Ring { bits: 20, len: 1000 }, 8),
            (Type::Ring { bits: 40, len: 1000 }, 8),
            (Type::Ring { bits: 64, len: 1001 }, 8),
            (Type::Bits { planes: 5, len: 1000 }, 64),
            (Type::Bits { planes: 3, len: 1030 }, 64),
        ] {
            let (whole, words) = (draw(&key, 4, ty), stride(ty.len()));
            for range in [0..ty.len(), 0..grain, 3 * grain..9 * grain, 9 * grain..ty.len()] {
                let (want, size): (Vec<u64>, usize) = match ty {
                    Type::Ring { .. } => (whole.words()[range.clone()].to_vec(), range.len()),
                    Type::Bits { planes, .. } => {
                        let n = stride(range.len());
                        let plane = |p: usize| &whole.words()[p * words + range.start / 64..][..n];
                        ((0..planes).flat_map(plane).copied().collect(), planes * n)
                    }
                };
                let mut got = vec![0; size];
                drawer.part(&keystream, 4, ty, range.clone(), &mut got);
                // Where a part ends within a word of a plane there is more of it in the whole.
                assert!(got == want || range.end < ty.len() && range.len() % 64 != 0, "{ty}, {range:?}");
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
