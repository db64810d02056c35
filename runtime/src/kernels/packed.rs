//! Elements on the wire: as many bits as their modulus has, one behind the other, lowest first.
#![allow(unsafe_code)]

use super::bytes;
use crate::buffer::mask;

/// Elements whose bits end at a byte together, whatever the modulus.
pub const GROUP: usize = 8;
/// Pairs that are put together at a time.
const PAIRS: usize = 128;

/// Bytes that `len` elements of `bits` bits take.
pub fn packed_len(bits: u8, len: usize) -> usize {
    (usize::from(bits) * len).div_ceil(8)
}

/// Writes reduced elements into exactly their bytes.
pub fn pack(bits: u8, values: &[u64], out: &mut [u8]) {
    assert!((1..=64).contains(&bits) && out.len() == packed_len(bits, values.len()), "the bytes of all elements");
    let width = usize::from(bits);
    if width.is_multiple_of(8) {
        bytes::narrow(width / 8, values, out);
        return;
    }
    let whole = values.len() / GROUP * GROUP;
    let (values, last) = values.split_at(whole);
    let (out, end) = out.split_at_mut(whole / GROUP * width);
    if width.is_multiple_of(4) && width <= 32 {
        let mut pairs = [0u64; PAIRS];
        for (values, out) in values.chunks(2 * PAIRS).zip(out.chunks_mut(PAIRS * width / 4)) {
            for (pair, v) in pairs.iter_mut().zip(values.chunks_exact(2)) {
                *pair = v[0] | v[1] << width;
            }
            bytes::narrow(width / 4, &pairs[..values.len() / 2], out);
        }
        zeroize::Zeroize::zeroize(&mut pairs);
    } else {
        for (values, out) in values.chunks_exact(GROUP).zip(out.chunks_exact_mut(width)) {
            pack_each(width, values, out);
        }
    }
    pack_each(width, last, end);
}

#[inline]
fn pack_each(width: usize, values: &[u64], out: &mut [u8]) {
    let (mut held, mut bits, mut at) = (0u128, 0, 0);
    for v in values {
        held |= u128::from(*v) << bits;
        bits += width;
        if bits >= 64 {
            out[at..at + 8].copy_from_slice(&(held as u64).to_le_bytes());
            (held, bits, at) = (held >> 64, bits - 64, at + 8);
        }
    }
    let rest = out.len() - at;
    out[at..].copy_from_slice(&(held as u64).to_le_bytes()[..rest]);
}

/// Reads as many elements as there is place for; whether no bit is set behind them.
pub fn unpack(bits: u8, bytes: &[u8], out: &mut [u64]) -> bool {
    assert!((1..=64).contains(&bits) && bytes.len() == packed_len(bits, out.len()), "the bytes of all elements");
    let width = usize::from(bits);
    if width.is_multiple_of(8) {
        bytes::widen(width / 8, bytes, out);
        return true;
    }
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if width <= x86::WIDEST && is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found, and elements are not wider than that.
        done = unsafe { x86::unpack(width, bytes, out) };
    }
    for (i, y) in out.iter_mut().enumerate().skip(done) {
        let (from, shift) = (i * width / 8, i * width % 8);
        let mut word = [0u8; 16];
        let end = bytes.len().min(from + 9);
        word[..end - from].copy_from_slice(&bytes[from..end]);
        *y = (u128::from_le_bytes(word) >> shift) as u64 & mask(bits);
    }
    let used = out.len() * width % 8;
    used == 0 || bytes.last().is_none_or(|b| b >> used == 0)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_loadu_si256, _mm256_set_m128i, _mm256_set1_epi64x,
        _mm256_shuffle_epi8, _mm256_srlv_epi64, _mm256_storeu_si256,
    };

    use super::GROUP;
    use crate::buffer::mask;

    /// An element is within eight bytes from the one it starts in.
    pub const WIDEST: usize = 56;

    /// Four elements: where the bytes of each half start, which of them are whose, and by how much elements are to
    /// be shifted.
    struct Quad {
        from: [usize; 2],
        spread: __m256i,
        shift: __m256i,
    }

    #[target_feature(enable = "avx2")]
    fn quad(width: usize, first: usize) -> Quad {
        let from = [0, 2].map(|i| (first + i) * width / 8);
        let spread: [u8; 32] = std::array::from_fn(|i| {
            let element = first + i / 8;
            (element * width / 8 - from[i / 16] + i % 8) as u8
        });
        let shift: [u64; 4] = std::array::from_fn(|i| ((first + i) * width % 8) as u64);
        // SAFETY: 32 bytes each.
        unsafe {
            let spread = _mm256_loadu_si256(spread.as_ptr().cast());
            Quad { from, spread, shift: _mm256_loadu_si256(shift.as_ptr().cast()) }
        }
    }

    /// As many groups of elements as can be read whole registers at a time.
    ///
    /// # Safety
    /// `width` is at most [`WIDEST`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn unpack(width: usize, bytes: &[u8], out: &mut [u64]) -> usize {
        let quads = [quad(width, 0), quad(width, 4)];
        let low = _mm256_set1_epi64x(mask(width as u8) as i64);
        let mut done = 0;
        while done + GROUP <= out.len() && done / GROUP * width + quads[1].from[1] + 16 <= bytes.len() {
            for (i, quad) in quads.iter().enumerate() {
                // SAFETY: all halves end within `bytes`: the last one does. There is place for the group.
                unsafe {
                    let from = bytes.as_ptr().add(done / GROUP * width);
                    let half = |h: usize| _mm_loadu_si128(from.add(quad.from[h]).cast());
                    let spread = _mm256_shuffle_epi8(_mm256_set_m128i(half(1), half(0)), quad.spread);
                    let values = _mm256_and_si256(_mm256_srlv_epi64(spread, quad.shift), low);
                    _mm256_storeu_si256(out.as_mut_ptr().add(done + 4 * i).cast(), values);
                }
            }
            done += GROUP;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_for_every_width_and_length() {
        for bits in 1..=64u8 {
            for len in (0..40).chain([255, 256, 257, 1000]) {
                let values: Vec<u64> =
                    (1..=len).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask(bits)).collect();
                let mut packed = vec![0xff; packed_len(bits, values.len())];
                pack(bits, &values, &mut packed);
                for (i, v) in values.iter().enumerate() {
                    for b in 0..usize::from(bits) {
                        let at = i * usize::from(bits) + b;
                        assert_eq!(u64::from(packed[at / 8] >> (at % 8) & 1), v >> b & 1, "{bits} bits, element {i}");
                    }
                }
                let mut back = vec![1; values.len()];
                assert!(unpack(bits, &packed, &mut back) && back == values, "{len} elements of {bits} bits");
                let used = values.len() * usize::from(bits) % 8;
                if used > 0 {
                    *packed.last_mut().unwrap() |= 1 << used;
                    assert!(!unpack(bits, &packed, &mut back) && back == values);
                }
            }
        }
    }
}
