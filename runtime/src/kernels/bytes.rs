//! Elements and their whole bytes, little-endian.
#![allow(unsafe_code)]

use crate::element::Element;

/// The low `bits` bits of elements of whole bytes each, 1 to all that they have; `bytes` holds at least as many as `out`.
pub fn widen<E: Element>(bits: u8, bytes: &[u8], out: &mut [E]) {
    let (width, mask) = (usize::from(bits.div_ceil(8)), E::mask(bits));
    assert!((1..=size_of::<E>()).contains(&width) && bytes.len() / width >= out.len(), "there are bytes for all");
    if cfg!(target_endian = "little") && bits == E::BITS {
        let all = bytemuck::cast_slice_mut(out);
        all.copy_from_slice(&bytes[..all.len()]);
        return;
    }
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found.
        done = unsafe { x86::widen(width, mask, bytes, out) };
    }
    for (y, b) in out[done..].iter_mut().zip(bytes[done * width..].chunks_exact(width)) {
        let mut word = [0u8; 8];
        word[..width].copy_from_slice(b);
        *y = E::of(u64::from_le_bytes(word)) & mask;
    }
}

/// The low `width` bytes of every value, 1 to all that it has; `out` has exactly that length.
pub fn narrow<E: Element>(width: usize, values: &[E], out: &mut [u8]) {
    assert!((1..=size_of::<E>()).contains(&width) && values.len() * width == out.len(), "there are bytes for all");
    if cfg!(target_endian = "little") && width == size_of::<E>() {
        out.copy_from_slice(bytemuck::cast_slice(values));
        return;
    }
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found.
        done = unsafe { x86::narrow(width, values, out) };
    }
    for (v, b) in values[done..].iter().zip(out[done * width..].chunks_exact_mut(width)) {
        b.copy_from_slice(&v.word().to_le_bytes()[..width]);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm_storeu_si128, _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
        _mm256_loadu_si256, _mm256_set_m128i, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_shuffle_epi8,
        _mm256_storeu_si256,
    };

    use crate::element::{Element, Width};

    /// For every byte of a half, where it comes from; 0x80 makes zeros.
    type Shuffle = [u8; 32];

    /// By the width of elements in bytes, of integers of `size` bytes: how their bytes are spread, or gathered again.
    const fn shuffles(size: usize, spread: bool) -> [Shuffle; 9] {
        let mut all = [[0x80; 32]; 9];
        let mut width = 1;
        while width <= size {
            let mut i = 0;
            while i < 32 {
                let at = i % 16;
                if spread && at % size < width {
                    all[width][i] = (at / size * width + at % size) as u8;
                } else if !spread && at < 16 / size * width {
                    all[width][i] = (at / width * size + at % width) as u8;
                }
                i += 1;
            }
            width += 1;
        }
        all
    }

    static SPREAD: [[Shuffle; 9]; 2] = [shuffles(4, true), shuffles(8, true)];
    static GATHER: [[Shuffle; 9]; 2] = [shuffles(4, false), shuffles(8, false)];

    /// As many elements as whole registers take, one half after the other.
    #[target_feature(enable = "avx2")]
    pub fn widen<E: Element>(width: usize, mask: E, bytes: &[u8], out: &mut [E]) -> usize {
        let half = 16 / size_of::<E>();
        let spread = &SPREAD[usize::from(E::WIDTH == Width::Wide)][width];
        // SAFETY: 32 bytes.
        let spread = unsafe { _mm256_loadu_si256(spread.as_ptr().cast()) };
        let mask = match E::WIDTH {
            Width::Narrow => _mm256_set1_epi32(mask.low() as i32),
            Width::Wide => _mm256_set1_epi64x(mask.word() as i64),
        };
        let mut done = 0;
        while done + 2 * half <= out.len() && (done + half) * width + 16 <= bytes.len() {
            // SAFETY: both halves end within `bytes`, and there is room for the elements of a register.
            unsafe {
                let from = bytes.as_ptr().add(done * width);
                let halves =
                    _mm256_set_m128i(_mm_loadu_si128(from.add(half * width).cast()), _mm_loadu_si128(from.cast()));
                let to = out.as_mut_ptr().add(done);
                _mm256_storeu_si256(to.cast(), _mm256_and_si256(_mm256_shuffle_epi8(halves, spread), mask));
            }
            done += 2 * half;
        }
        done
    }

    /// As many elements as whole registers take; each store runs over into what the next one writes.
    #[target_feature(enable = "avx2")]
    pub fn narrow<E: Element>(width: usize, values: &[E], out: &mut [u8]) -> usize {
        let half = 16 / size_of::<E>();
        let gather = &GATHER[usize::from(E::WIDTH == Width::Wide)][width];
        // SAFETY: 32 bytes.
        let gather = unsafe { _mm256_loadu_si256(gather.as_ptr().cast()) };
        let mut done = 0;
        while done + 2 * half <= values.len() && (done + half) * width + 16 <= out.len() {
            // SAFETY: there are as many more values, and both halves end within `out`.
            unsafe {
                let v = _mm256_loadu_si256(values.as_ptr().add(done).cast());
                let bytes = _mm256_shuffle_epi8(v, gather);
                let to = out.as_mut_ptr().add(done * width);
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
                _mm_storeu_si128(to.add(half * width).cast(), _mm256_extracti128_si256::<1>(bytes));
            }
            done += 2 * half;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<E: Element>() {
        for width in 1..=size_of::<E>() {
            for len in (0..40).chain([1000]) {
                let value = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 8 * width);
                let values: Vec<E> = (1..=len).map(|i| E::of(value(i))).collect();
                let mut bytes = vec![0u8; values.len() * width];
                narrow(width, &values, &mut bytes);
                let plain: Vec<u8> = values.iter().flat_map(|v| v.word().to_le_bytes()[..width].to_vec()).collect();
                assert_eq!(bytes, plain, "{len} elements of {width} bytes");
                for more in [0, 3, 20] {
                    bytes.resize(plain.len() + more, 0xff);
                    let mut back = vec![E::ZERO; values.len()];
                    widen(8 * width as u8, &bytes, &mut back);
                    assert_eq!(back, values, "{len} elements of {width} bytes");
                    widen(8 * width as u8 - 3, &bytes, &mut back);
                    let short: Vec<E> = values.iter().map(|v| *v & E::mask(8 * width as u8 - 3)).collect();
                    assert_eq!(back, short, "{len} elements of {width} bytes less 3 bits");
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
