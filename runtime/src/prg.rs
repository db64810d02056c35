//! Randomness: AES-128 in counter mode, exactly as [`bcc_ir::program::Stream`] documents it.

use std::ops::Range;

use bcc_ir::program::Type;
use rayon::prelude::*;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::buffer::{Buffer, stride, tail_mask};
use crate::element::{Element, Width, by_width};
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
pub fn draw(key: &Key, stream: u32, ty: Type, width: Width) -> Buffer {
    fn fill<E: Element>(keystream: &Keystream, stream: u32, bits: u8, out: &mut [E]) {
        let task = |(i, part): (usize, &mut [E])| Drawer::default().elements(keystream, stream, bits, i * TASK, part);
        if out.len() <= TASK {
            task((0, out));
        } else {
            out.par_chunks_mut(TASK).enumerate().for_each(task);
        }
    }
    let keystream = Keystream::new(&key.0);
    let mut buffer = Buffer::any(ty, width);
    match ty {
        Type::Ring { bits, .. } => by_width!(width, E => {
            fill::<E>(&keystream, stream, bits, buffer.elements_mut().unwrap_or_default());
        }),
        Type::Bits { len, .. } => {
            let words = buffer.planes_mut().unwrap_or_default();
            fill(&keystream, stream, 64, words);
            if len > 0 {
                words.chunks_exact_mut(stride(len)).for_each(|plane| plane[stride(len) - 1] &= tail_mask(len));
            }
        }
    }
    buffer
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
    /// The bits `part` of a stream's planes of `len` bits, one after the other, each in whole words: a part starts at a
    /// word.
    pub fn planes(&mut self, keystream: &Keystream, stream: u32, len: usize, part: Range<usize>, out: &mut [u64]) {
        let words = stride(part.len()).max(1);
        for (p, plane) in out.chunks_exact_mut(words).enumerate() {
            self.elements(keystream, stream, 64, p * stride(len) + part.start / 64, plane);
            plane[words - 1] &= tail_mask(part.len());
        }
    }

    /// The elements `first..` of a stream of such modulo `2^bits`.
    pub fn elements<E: Element>(
        &mut self,
        keystream: &Keystream,
        stream: u32,
        bits: u8,
        first: usize,
        mut out: &mut [E],
    ) {
        let width = usize::from(bits.div_ceil(8));
        let mut next = first;
        if cfg!(target_endian = "little") && width == size_of::<E>() && (first * width).is_multiple_of(16) {
            // Integers as they are.
            let (whole, rest) = out.split_at_mut(out.len() * width / 16 * (16 / width));
            keystream.fill(stream.into(), (first * width / 16) as u64, bytemuck::cast_slice_mut(whole));
            if bits < E::BITS {
                whole.iter_mut().for_each(|v| *v = *v & E::mask(bits));
            }
            (next, out) = (first + whole.len(), rest);
        }
        for (i, part) in out.chunks_mut(CHUNK).enumerate() {
            let start = (next + i * CHUNK) * width;
            let (block, skip) = (start / 16, start % 16);
            let used = (skip + part.len() * width).div_ceil(16);
            keystream.fill(stream.into(), block as u64, &mut self.blocks[..used]);
            bytes::widen(bits, &self.blocks.as_flattened()[skip..], part);
        }
    }
}

#[cfg(test)]
mod tests {
    use aes::Aes128Enc;
    use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

    use super::*;
    use crate::buffer::mask;

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
                for held in [Width::of_bits(bits), Width::Wide] {
                    let drawn = draw(&Key(key), 5, Type::Ring { bits, len }, held).words();
                    for i in (0..len).step_by(97).chain([len - 1]) {
                        let mut word = [0; 8];
                        word[..width].copy_from_slice(&bytes[i * width..(i + 1) * width]);
                        assert_eq!(drawn[i], u64::from_le_bytes(word) & mask(bits), "{bits} bits, element {i}");
                    }
                }
            }
        }
    }

    fn parts_of_elements<E: Element>(bits: u8, len: usize) {
        let (key, mut drawer) = (Key([8; 16]), Drawer::default());
        let keystream = Keystream::new(&key.0);
        let whole = draw(&key, 4, Type::Ring { bits, len }, E::WIDTH);
        let whole: &[E] = whole.elements().unwrap();
        for range in [0..len, 0..8, 24..72, 72..len, 1..len, 3..8] {
            let mut got = vec![E::ZERO; range.len()];
            drawer.elements(&keystream, 4, bits, range.start, &mut got);
            assert_eq!(got, whole[range.clone()], "{bits} bits, {range:?}");
        }
    }

    #[test]
    fn parts_are_those_of_the_whole() {
        for (bits, len) in [(20, 1000), (24, 999), (31, 1001), (32, 1001)] {
            parts_of_elements::<u32>(bits, len);
        }
        for (bits, len) in [(20, 1000), (40, 1000), (63, 1001), (64, 1001)] {
            parts_of_elements::<u64>(bits, len);
        }
        let (key, mut drawer) = (Key([8; 16]), Drawer::default());
        let keystream = Keystream::new(&key.0);
        for (planes, len) in [(5, 1000), (3, 1030)] {
            let whole = draw(&key, 4, Type::Bits { planes, len }, Width::Wide).words();
            for range in [0..len, 0..64, 192..576, 576..len] {
                let n = stride(range.len());
                let plane = |p: usize| &whole[p * stride(len) + range.start / 64..][..n];
                let want: Vec<u64> = (0..planes).flat_map(plane).copied().collect();
                let mut got = vec![0; planes * n];
                drawer.planes(&keystream, 4, len, range.clone(), &mut got);
                assert_eq!(got, want, "{planes} planes, {range:?}");
            }
        }
    }

    #[test]
    fn bit_draws_follow_the_definition() {
        let key = [9; 16];
        for (planes, len) in [(1, 1), (3, 64), (2, 65), (15, 200)] {
            let drawn = draw(&Key(key), 2, Type::Bits { planes, len }, Width::Wide);
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
