//! Keystream: AES-128 of a stream's number and a counter, sixteen blocks or more at a time where the processor encrypts
//! two or four in an instruction.
#![allow(unsafe_code)]

use aes::Aes128Enc;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, Zeroizing};

/// A block of keystream.
pub type Block = [u8; 16];

/// An expanded key.
pub enum Keystream {
    /// By the `aes` crate, with what it finds.
    Plain(Box<Aes128Enc>),
    /// Eleven round keys, and whether four blocks go in an instruction, not two.
    #[cfg(target_arch = "x86_64")]
    Vaes(Zeroizing<[Block; 11]>, bool),
}

impl Keystream {
    /// The best that the processor has.
    pub fn new(key: &Block) -> Keystream {
        #[cfg(target_arch = "x86_64")]
        if x86::available() {
            // SAFETY: the instructions were just found.
            return Keystream::Vaes(Zeroizing::new(unsafe { x86::expand(key) }), x86::four());
        }
        Keystream::plain(key)
    }

    fn plain(key: &Block) -> Keystream {
        Keystream::Plain(Box::new(Aes128Enc::new(&Array::from(*key))))
    }

    /// Blocks `first..` of a stream: AES of the stream's number and the block's, each 8 bytes, little-endian.
    pub fn fill(&self, stream: u64, first: u64, out: &mut [Block]) {
        match self {
            Keystream::Plain(cipher) => {
                for (block, counter) in out.iter_mut().zip(first..) {
                    block[..8].copy_from_slice(&stream.to_le_bytes());
                    block[8..].copy_from_slice(&counter.to_le_bytes());
                }
                cipher.encrypt_blocks(Array::cast_slice_from_core_mut(out));
            }
            #[cfg(target_arch = "x86_64")]
            Keystream::Vaes(keys, four) => {
                let mut next = first;
                let mut out = out;
                if *four {
                    let whole = out.len() / x86::MANY * x86::MANY;
                    let (all, rest) = out.split_at_mut(whole);
                    // SAFETY: such a key is made only where the instructions are.
                    unsafe { x86::fill_many(keys, stream, next, all.as_chunks_mut().0) };
                    (next, out) = (next.wrapping_add(whole as u64), rest);
                }
                let (whole, rest) = out.as_chunks_mut();
                // SAFETY: as above.
                unsafe { x86::fill(keys, stream, next, whole) };
                if !rest.is_empty() {
                    let mut last = [[[0; 16]; x86::BLOCKS]; 1];
                    let next = next.wrapping_add((whole.len() * x86::BLOCKS) as u64);
                    // SAFETY: as above.
                    unsafe { x86::fill(keys, stream, next, &mut last) };
                    rest.copy_from_slice(&last[0][..rest.len()]);
                    last.as_flattened_mut().as_flattened_mut().zeroize();
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, __m512i, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_shuffle_epi32, _mm_slli_si128,
        _mm_storeu_si128, _mm_xor_si128, _mm256_add_epi64, _mm256_aesenc_epi128, _mm256_aesenclast_epi128,
        _mm256_broadcastsi128_si256, _mm256_set_epi64x, _mm256_storeu_si256, _mm256_xor_si256, _mm512_add_epi64,
        _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_set_epi64, _mm512_storeu_si512,
        _mm512_xor_si512,
    };

    use super::Block;

    /// Blocks that are encrypted side by side: enough to hide the latency of an instruction.
    pub const BLOCKS: usize = 16;
    const PAIRS: usize = BLOCKS / 2;

    pub fn available() -> bool {
        is_x86_feature_detected!("vaes") && is_x86_feature_detected!("aes") && is_x86_feature_detected!("avx2")
    }

    /// Whether four blocks can be encrypted in an instruction.
    pub fn four() -> bool {
        is_x86_feature_detected!("avx512f")
    }

    /// Blocks that are encrypted side by side there.
    pub const MANY: usize = 32;
    const FOURS: usize = MANY / 4;

    /// The round keys of FIPS 197, section 5.2.
    #[target_feature(enable = "aes,avx2")]
    pub fn expand(key: &Block) -> [Block; 11] {
        let mut keys = [[0; 16]; 11];
        keys[0] = *key;
        #[inline]
        #[target_feature(enable = "aes,avx2")]
        fn next<const RCON: i32>(keys: &mut [Block; 11], round: usize) {
            // SAFETY: 16 bytes.
            let last: __m128i = unsafe { _mm_loadu_si128(keys[round - 1].as_ptr().cast()) };
            let word = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<RCON>(last));
            let mut sum = last;
            sum = _mm_xor_si128(sum, _mm_slli_si128::<4>(sum));
            sum = _mm_xor_si128(sum, _mm_slli_si128::<8>(sum));
            // SAFETY: 16 bytes.
            unsafe { _mm_storeu_si128(keys[round].as_mut_ptr().cast(), _mm_xor_si128(sum, word)) };
        }
        next::<0x01>(&mut keys, 1);
        next::<0x02>(&mut keys, 2);
        next::<0x04>(&mut keys, 3);
        next::<0x08>(&mut keys, 4);
        next::<0x10>(&mut keys, 5);
        next::<0x20>(&mut keys, 6);
        next::<0x40>(&mut keys, 7);
        next::<0x80>(&mut keys, 8);
        next::<0x1b>(&mut keys, 9);
        next::<0x36>(&mut keys, 10);
        keys
    }

    /// Keystream from block `first` on.
    #[target_feature(enable = "aes,avx2,vaes")]
    pub fn fill(keys: &[Block; 11], stream: u64, first: u64, out: &mut [[Block; BLOCKS]]) {
        // SAFETY: 16 bytes each.
        let keys: [__m256i; 11] =
            std::array::from_fn(|i| unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(keys[i].as_ptr().cast())) });
        let [stream, first] = [stream as i64, first as i64];
        let mut at = _mm256_set_epi64x(first.wrapping_add(1), stream, first, stream);
        let two = _mm256_set_epi64x(2, 0, 2, 0);
        for blocks in out {
            let mut v = [at; PAIRS];
            for pair in &mut v {
                *pair = _mm256_xor_si256(at, keys[0]);
                at = _mm256_add_epi64(at, two);
            }
            for key in &keys[1..10] {
                for pair in &mut v {
                    *pair = _mm256_aesenc_epi128(*pair, *key);
                }
            }
            for (pair, place) in v.iter().zip(blocks.as_chunks_mut::<2>().0) {
                // SAFETY: 32 bytes.
                unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), _mm256_aesenclast_epi128(*pair, keys[10])) };
            }
        }
    }

    /// As [`fill`], four blocks in an instruction.
    #[target_feature(enable = "aes,avx512f,vaes")]
    pub fn fill_many(keys: &[Block; 11], stream: u64, first: u64, out: &mut [[Block; MANY]]) {
        // SAFETY: 16 bytes each.
        let keys: [__m512i; 11] =
            std::array::from_fn(|i| unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(keys[i].as_ptr().cast())) });
        let (stream, at) = (stream as i64, |more: u64| first.wrapping_add(more) as i64);
        let mut at = _mm512_set_epi64(at(3), stream, at(2), stream, at(1), stream, at(0), stream);
        let four = _mm512_set_epi64(4, 0, 4, 0, 4, 0, 4, 0);
        for blocks in out {
            let mut v = [at; FOURS];
            for four_blocks in &mut v {
                *four_blocks = _mm512_xor_si512(at, keys[0]);
                at = _mm512_add_epi64(at, four);
            }
            for key in &keys[1..10] {
                for four_blocks in &mut v {
                    *four_blocks = _mm512_aesenc_epi128(*four_blocks, *key);
                }
            }
            for (v, place) in v.iter().zip(blocks.as_chunks_mut::<4>().0) {
                // SAFETY: 64 bytes.
                unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), _mm512_aesenclast_epi128(*v, keys[10])) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_keystream_is_the_plain_one() {
        for seed in 0..20u8 {
            let key: Block = std::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(seed.wrapping_mul(101)));
            for (stream, first) in
                [(0, 0), (7, 13), (u64::from(u32::MAX), u64::from(u32::MAX) - 3), (3, u64::MAX - 140)]
            {
                for count in [0, 1, 2, 15, 16, 17, 31, 32, 33, 40, 49, 100] {
                    let mut plain = vec![[2; 16]; count];
                    Keystream::plain(&key).fill(stream, first, &mut plain);
                    let mut keystreams = vec![Keystream::new(&key)];
                    // Two blocks at a time where four can be.
                    #[cfg(target_arch = "x86_64")]
                    if let Keystream::Vaes(keys, _) = &keystreams[0] {
                        keystreams.push(Keystream::Vaes(keys.clone(), false));
                    }
                    for keystream in keystreams {
                        let mut fast = vec![[1; 16]; count];
                        keystream.fill(stream, first, &mut fast);
                        assert_eq!(fast, plain, "{count} blocks from {first}");
                    }
                }
            }
        }
    }
}
