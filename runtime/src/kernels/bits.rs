//! Bits of ring elements as planes.
#![allow(unsafe_code)]

use crate::buffer::stride;
use crate::element::Element;
use crate::kernels::blocks::spread_word;

/// Transposes a 64 x 64 matrix of bits: bit `c` of word `r` becomes bit `r` of word `c`.
#[inline(always)]
pub fn transpose64(m: &mut [u64; 64]) {
    let mut width = 32;
    let mut low = u64::MAX >> 32;
    while width > 0 {
        let mut r = 0;
        while r < 64 {
            // Swap the upper right and the lower left quarter of each square of 2 `width` rows.
            let t = ((m[r] >> width) ^ m[r + width]) & low;
            m[r] ^= t << width;
            m[r + width] ^= t;
            r = (r + width + 1) & !width;
        }
        width /= 2;
        low ^= low << width;
    }
}

/// [`super::Kernels::to_ring`], 64 elements at a time.
#[inline(always)]
pub fn to_ring<E: Element>(plane: &[u64], out: &mut [E]) {
    out.chunks_mut(64).zip(plane).for_each(|(out, word)| spread_word(*word, out));
}

/// [`super::Kernels::to_bits`], 64 elements at a time.
#[inline(always)]
pub fn to_bits<E: Element>(low: u8, pad: u8, x: &[E], out: &mut [u64]) {
    let n = stride(x.len());
    if n == 0 {
        return;
    }
    let planes = &mut out[usize::from(pad) * n..];
    let count = planes.len() / n;
    for (word, values) in x.chunks(64).enumerate() {
        let mut m = [0u64; 64];
        for (y, v) in m.iter_mut().zip(values) {
            *y = v.word() >> low;
        }
        transpose64(&mut m);
        for (p, bits) in m.iter().enumerate().take(count) {
            planes[p * n + word] = *bits;
        }
    }
}

/// [`to_bits`], or what is faster on this processor.
pub fn to_bits_fast<E: Element>(low: u8, pad: u8, x: &[E], out: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found.
        unsafe { x86::to_bits(low, pad, x, out) };
        return;
    }
    to_bits(low, pad, x, out);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm_cvtsi64_si128, _mm_loadu_si128, _mm256_add_epi8, _mm256_loadu_si256, _mm256_movemask_epi8,
        _mm256_set_m128i, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srl_epi32, _mm256_srl_epi64,
        _mm256_unpackhi_epi16, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi16,
        _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    };

    use crate::buffer::stride;
    use crate::element::{Element, Width};

    /// Puts byte `j` of both elements of a half side by side, for every `j`.
    const PAIRS: [u8; 32] = {
        let mut from = [0; 32];
        let mut i = 0;
        while i < 32 {
            from[i] = (i % 16 / 2 + i % 2 * 8) as u8;
            i += 1;
        }
        from
    };

    /// Bytes 0 to 7 of 32 elements, shifted down by `low` bits: of each byte a register with one byte for every
    /// element.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn byte_planes(x: &[u64; 32], low: u8) -> [__m256i; 8] {
        let by = _mm_cvtsi64_si128(i64::from(low));
        // SAFETY: 32 bytes.
        let pairs = unsafe { _mm256_loadu_si256(PAIRS.as_ptr().cast()) };
        // Two elements in each half, elements 0 to 15 in the lower ones: transposing the 16-bit units of every
        // half leaves each byte's elements in order.
        let v: [__m256i; 8] = std::array::from_fn(|i| {
            // SAFETY: two elements from `2 i` and from `16 + 2 i` on.
            let both = unsafe {
                let from = x.as_ptr().add(2 * i);
                _mm256_set_m128i(_mm_loadu_si128(from.add(16).cast()), _mm_loadu_si128(from.cast()))
            };
            _mm256_shuffle_epi8(_mm256_srl_epi64(both, by), pairs)
        });
        let mut a = [_mm256_setzero_si256(); 8];
        for i in 0..4 {
            a[2 * i] = _mm256_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
            a[2 * i + 1] = _mm256_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
        }
        // `a[2 i + h]` has units `4 h .. 4 h + 4` of elements `4 i .. 4 i + 4`.
        let mut b = [_mm256_setzero_si256(); 8];
        for i in 0..2 {
            for h in 0..2 {
                b[4 * i + 2 * h] = _mm256_unpacklo_epi32(a[4 * i + h], a[4 * i + 2 + h]);
                b[4 * i + 2 * h + 1] = _mm256_unpackhi_epi32(a[4 * i + h], a[4 * i + 2 + h]);
            }
        }
        // `b[4 i + q]` has units `2 q, 2 q + 1` of elements `8 i .. 8 i + 8`.
        let mut planes = [_mm256_setzero_si256(); 8];
        for q in 0..4 {
            planes[2 * q] = _mm256_unpacklo_epi64(b[q], b[4 + q]);
            planes[2 * q + 1] = _mm256_unpackhi_epi64(b[q], b[4 + q]);
        }
        planes
    }

    /// Puts byte `j` of the four elements of a half side by side, for every `j`.
    const FOURS: [u8; 32] = {
        let mut from = [0; 32];
        let mut i = 0;
        while i < 32 {
            from[i] = (i % 16 / 4 + i % 4 * 4) as u8;
            i += 1;
        }
        from
    };

    /// As [`byte_planes`], of elements of 32 bits: bytes 0 to 3.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn byte_planes_narrow(x: &[u32; 32], low: u8) -> [__m256i; 4] {
        let by = _mm_cvtsi64_si128(i64::from(low));
        // SAFETY: 32 bytes.
        let fours = unsafe { _mm256_loadu_si256(FOURS.as_ptr().cast()) };
        // Four elements in each half, elements 0 to 15 in the lower ones.
        let v: [__m256i; 4] = std::array::from_fn(|i| {
            // SAFETY: four elements from `4 i` and from `16 + 4 i` on.
            let both = unsafe {
                let from = x.as_ptr().add(4 * i);
                _mm256_set_m128i(_mm_loadu_si128(from.add(16).cast()), _mm_loadu_si128(from.cast()))
            };
            _mm256_shuffle_epi8(_mm256_srl_epi32(both, by), fours)
        });
        let a = [_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1])];
        let b = [_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3])];
        std::array::from_fn(|byte| {
            let (a, b) = (a[byte / 2], b[byte / 2]);
            if byte % 2 == 0 { _mm256_unpacklo_epi64(a, b) } else { _mm256_unpackhi_epi64(a, b) }
        })
    }

    /// Writes word `word` of planes from the bytes of 64 elements.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn planes<const BYTES: usize>(halves: [[__m256i; BYTES]; 2], n: usize, word: usize, planes: &mut [u64]) {
        let count = planes.len() / n;
        let [mut first, mut second] = halves;
        for byte in 0..count.div_ceil(8).min(BYTES) {
            let (a, b) = (&mut first[byte], &mut second[byte]);
            for bit in (0..8).rev() {
                let p = 8 * byte + bit;
                if p < count {
                    let bits = |v| u64::from(_mm256_movemask_epi8(v) as u32);
                    planes[p * n + word] = bits(*a) | bits(*b) << 32;
                }
                (*a, *b) = (_mm256_add_epi8(*a, *a), _mm256_add_epi8(*b, *b));
            }
        }
    }

    /// [`super::to_bits`] by the signs of bytes.
    #[target_feature(enable = "avx2")]
    pub fn to_bits<E: Element>(low: u8, pad: u8, x: &[E], out: &mut [u64]) {
        let n = stride(x.len());
        if n == 0 {
            return;
        }
        let out = &mut out[usize::from(pad) * n..];
        for (word, values) in x.chunks(64).enumerate() {
            let mut part = [E::ZERO; 64];
            let all: &[E; 64] = match values.first_chunk() {
                Some(all) => all,
                None => {
                    part[..values.len()].copy_from_slice(values);
                    &part
                }
            };
            match E::WIDTH {
                Width::Narrow => {
                    let halves: &[[u32; 32]] = bytemuck::cast_slice(all);
                    planes([byte_planes_narrow(&halves[0], low), byte_planes_narrow(&halves[1], low)], n, word, out);
                }
                Width::Wide => {
                    let halves: &[[u64; 32]] = bytemuck::cast_slice(all);
                    planes([byte_planes(&halves[0], low), byte_planes(&halves[1], low)], n, word, out);
                }
            }
        }
    }
}
