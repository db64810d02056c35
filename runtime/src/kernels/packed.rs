//! Elements on the wire: as many bits as their modulus has, one behind the other, lowest first.
#![allow(unsafe_code)]

use super::bytes;
use crate::element::Element;
#[cfg(target_arch = "x86_64")]
use crate::element::Width;

/// Elements whose bits end at a byte together, whatever the modulus.
pub const GROUP: usize = 8;
/// Pairs that are put together at a time.
const PAIRS: usize = 128;

/// Bytes that `len` elements of `bits` bits take.
pub fn packed_len(bits: u8, len: usize) -> usize {
    (usize::from(bits) * len).div_ceil(8)
}

/// Writes reduced elements into exactly their bytes.
pub fn pack<E: Element>(bits: u8, values: &[E], out: &mut [u8]) {
    assert!((1..=E::BITS).contains(&bits) && out.len() == packed_len(bits, values.len()), "the bytes of all elements");
    let width = usize::from(bits);
    if width.is_multiple_of(8) {
        bytes::narrow(width / 8, values, out);
        return;
    }
    let whole = values.len() / GROUP * GROUP;
    let (values, last) = values.split_at(whole);
    let (mut out, end) = out.split_at_mut(whole / GROUP * width);
    let mut values = values;
    #[cfg(target_arch = "x86_64")]
    if E::WIDTH == Width::Narrow && is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found, and elements have 31 bits at most.
        let done = unsafe { x86::pack(width, bytemuck::cast_slice(values), out) };
        (values, out) = (&values[done..], &mut out[done / GROUP * width..]);
    }
    if E::BITS == 64 && width.is_multiple_of(4) && width <= 32 {
        let mut pairs = [0u64; PAIRS];
        for (values, out) in values.chunks(2 * PAIRS).zip(out.chunks_mut(PAIRS * width / 4)) {
            for (pair, v) in pairs.iter_mut().zip(values.chunks_exact(2)) {
                *pair = v[0].word() | v[1].word() << width;
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
fn pack_each<E: Element>(width: usize, values: &[E], out: &mut [u8]) {
    let (mut held, mut bits, mut at) = (0u128, 0, 0);
    for v in values {
        held |= u128::from(v.word()) << bits;
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
pub fn unpack<E: Element>(bits: u8, bytes: &[u8], out: &mut [E]) -> bool {
    assert!((1..=E::BITS).contains(&bits) && bytes.len() == packed_len(bits, out.len()), "the bytes of all elements");
    let width = usize::from(bits);
    if width.is_multiple_of(8) {
        bytes::widen(bits, bytes, out);
        return true;
    }
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found; elements are not wider than that.
        done = unsafe {
            match E::WIDTH {
                Width::Narrow => x86::unpack_narrow(width, bytes, bytemuck::cast_slice_mut(out)),
                Width::Wide if width <= x86::WIDEST => x86::unpack(width, bytes, bytemuck::cast_slice_mut(out)),
                Width::Wide => 0,
            }
        };
    }
    for (i, y) in out.iter_mut().enumerate().skip(done) {
        let (from, shift) = (i * width / 8, i * width % 8);
        let mut word = [0u8; 16];
        let end = bytes.len().min(from + 9);
        word[..end - from].copy_from_slice(&bytes[from..end]);
        *y = E::of((u128::from_le_bytes(word) >> shift) as u64) & E::mask(bits);
    }
    let used = out.len() * width % 8;
    used == 0 || bytes.last().is_none_or(|b| b >> used == 0)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_cvtsi64_si128, _mm_loadu_si128, _mm_or_si128, _mm_shuffle_epi8, _mm_storeu_si128,
        _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_or_si256,
        _mm256_set_m128i, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_shuffle_epi8, _mm256_sll_epi64,
        _mm256_sllv_epi32, _mm256_sllv_epi64, _mm256_srli_epi64, _mm256_srlv_epi32, _mm256_srlv_epi64,
        _mm256_storeu_si256, _mm256_unpackhi_epi64, _mm256_unpacklo_epi64,
    };

    use super::GROUP;
    use crate::element::Element;

    /// An element of 64 bits is within eight bytes from the one it starts in.
    pub const WIDEST: usize = 56;

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load<T: bytemuck::Pod, const N: usize>(from: &[T; N]) -> __m256i {
        const { assert!(size_of::<[T; N]>() == 32, "a register") };
        // SAFETY: 32 bytes.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

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
        Quad { from, spread: load(&spread), shift: load(&shift) }
    }

    /// As many groups of elements as can be read whole registers at a time.
    ///
    /// # Safety
    /// `width` is at most [`WIDEST`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn unpack(width: usize, bytes: &[u8], out: &mut [u64]) -> usize {
        let quads = [quad(width, 0), quad(width, 4)];
        let low = _mm256_set1_epi64x(u64::mask(width as u8) as i64);
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

    /// As [`unpack`], of elements of 32 bits: four lie in 16 bytes from the first one's. What of an element is in a
    /// fifth byte is brought apart.
    ///
    /// # Safety
    /// `width` is at most 32.
    #[target_feature(enable = "avx2")]
    pub unsafe fn unpack_narrow(width: usize, bytes: &[u8], out: &mut [u32]) -> usize {
        let second = 4 * width / 8;
        let start = |element: usize| element * width / 8 - element / 4 * second;
        let shift = |element: usize| element * width % 8;
        let spread: [u8; 32] = std::array::from_fn(|i| (start(i / 4) + i % 4) as u8);
        let fifth: [u8; 32] =
            std::array::from_fn(
                |i| {
                    if i % 4 == 0 && shift(i / 4) + width > 32 { (start(i / 4) + 4) as u8 } else { 0x80 }
                },
            );
        let down: [u32; 8] = std::array::from_fn(|i| shift(i) as u32);
        let (spread, fifth, down_by, up_by) = (load(&spread), load(&fifth), load(&down), load(&down.map(|s| 32 - s)));
        let low = _mm256_set1_epi32(u32::mask(width as u8) as i32);
        let mut done = 0;
        while done + GROUP <= out.len() && done / GROUP * width + second + 16 <= bytes.len() {
            // SAFETY: both halves end within `bytes`; there is place for the group.
            unsafe {
                let from = bytes.as_ptr().add(done / GROUP * width);
                let half = |at: usize| _mm_loadu_si128(from.add(at).cast());
                let all = _mm256_set_m128i(half(second), half(0));
                let main = _mm256_srlv_epi32(_mm256_shuffle_epi8(all, spread), down_by);
                let more = _mm256_sllv_epi32(_mm256_shuffle_epi8(all, fifth), up_by);
                let values = _mm256_and_si256(_mm256_or_si256(main, more), low);
                _mm256_storeu_si256(out.as_mut_ptr().add(done).cast(), values);
            }
            done += GROUP;
        }
        done
    }

    /// As many groups as whole registers take. Four elements of `w` bits make up a half's 128 bits, the second half's
    /// moved up to where the first one's end within a byte. Each store runs over into what the next one writes.
    ///
    /// # Safety
    /// `width` is at most 31.
    #[target_feature(enable = "avx2")]
    pub unsafe fn pack(width: usize, values: &[u32], out: &mut [u8]) -> usize {
        let pair = 2 * width as u64;
        let (second, odd) = (4 * width / 8, (4 * width % 8) as u64);
        // Shifts by 64 and more leave nothing.
        let none = |by: Option<u64>| by.unwrap_or(64);
        let lanes = |f: &dyn Fn(u64) -> [u64; 2]| -> [u64; 4] {
            let ([a, b], [c, d]) = (f(0), f(odd));
            [a, b, c, d]
        };
        let first_up = load(&lanes(&|by| [by, 64]));
        let first_down = load(&lanes(&|by| [64, 64 - by]));
        let second_up = load(&lanes(&|by| [pair + by, none((pair + by).checked_sub(64))]));
        let second_down = load(&lanes(&|by| [64, none(64u64.checked_sub(pair + by))]));
        // The byte that both halves share.
        let mut shared = [0x80u8; 16];
        if odd > 0 {
            shared[0] = second as u8;
        }
        // SAFETY: 16 bytes.
        let shared: __m128i = unsafe { _mm_loadu_si128(shared.as_ptr().cast()) };
        let (even, by) = (_mm256_set1_epi64x(i64::from(u32::MAX)), _mm_cvtsi64_si128(width as i64));
        let mut done = 0;
        while done + GROUP <= values.len() && done / GROUP * width + second + 16 <= out.len() {
            // SAFETY: there is a group more, and both stores end within `out`.
            unsafe {
                let v = _mm256_loadu_si256(values.as_ptr().add(done).cast());
                let odd = _mm256_sll_epi64(_mm256_srli_epi64::<32>(v), by);
                let pairs = _mm256_or_si256(_mm256_and_si256(v, even), odd);
                let (a, b) = (_mm256_unpacklo_epi64(pairs, pairs), _mm256_unpackhi_epi64(pairs, pairs));
                let a = _mm256_or_si256(_mm256_sllv_epi64(a, first_up), _mm256_srlv_epi64(a, first_down));
                let b = _mm256_or_si256(_mm256_sllv_epi64(b, second_up), _mm256_srlv_epi64(b, second_down));
                let all = _mm256_or_si256(a, b);
                let (low, high) = (_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
                let to = out.as_mut_ptr().add(done / GROUP * width);
                _mm_storeu_si128(to.cast(), low);
                _mm_storeu_si128(to.add(second).cast(), _mm_or_si128(high, _mm_shuffle_epi8(low, shared)));
            }
            done += GROUP;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<E: Element>() {
        for bits in 1..=E::BITS {
            for len in (0..40).chain([255, 256, 257, 1000]) {
                let value = |i: u64| E::of(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits));
                let values: Vec<E> = (1..=len).map(value).collect();
                let mut packed = vec![0xff; packed_len(bits, values.len())];
                pack(bits, &values, &mut packed);
                for (i, v) in values.iter().enumerate() {
                    for b in 0..usize::from(bits) {
                        let at = i * usize::from(bits) + b;
                        let bit = v.word() >> b & 1;
                        assert_eq!(u64::from(packed[at / 8] >> (at % 8) & 1), bit, "{bits} bits, element {i}");
                    }
                }
                let mut back = vec![E::of(1); values.len()];
                assert!(unpack(bits, &packed, &mut back) && back == values, "{len} elements of {bits} bits");
                let used = values.len() * usize::from(bits) % 8;
                if used > 0 {
                    *packed.last_mut().unwrap() |= 1 << used;
                    assert!(!unpack(bits, &packed, &mut back) && back == values);
                }
            }
        }
    }

    #[test]
    fn there_and_back_for_every_width_and_length() {
        there_and_back::<u32>();
        there_and_back::<u64>();
    }
}
