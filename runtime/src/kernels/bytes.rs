//! Elements and their whole bytes, little-endian.
#![allow(unsafe_code)]

/// Elements of `width` bytes each, 1 to 8; `bytes` holds at least as many as `out`. The result is the union of
/// the bits of all.
pub fn widen(width: usize, bytes: &[u8], out: &mut [u64]) -> u64 {
    assert!((1..=8).contains(&width) && bytes.len() / width >= out.len(), "there are bytes for every element");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found.
        let (done, seen) = unsafe { x86::widen(width, bytes, out) };
        return seen | widen_each(width, &bytes[done * width..], &mut out[done..]);
    }
    widen_each(width, bytes, out)
}

fn widen_each(width: usize, bytes: &[u8], out: &mut [u64]) -> u64 {
    let mut seen = 0;
    for (y, b) in out.iter_mut().zip(bytes.chunks_exact(width)) {
        let mut word = [0u8; 8];
        word[..width].copy_from_slice(b);
        *y = u64::from_le_bytes(word);
        seen |= *y;
    }
    seen
}

/// The low `width` bytes of every value, 1 to 8; `out` has exactly that length.
pub fn narrow(width: usize, values: &[u64], out: &mut [u8]) {
    assert!((1..=8).contains(&width) && values.len() * width == out.len(), "there are bytes for every element");
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found.
        done = unsafe { x86::narrow(width, values, out) };
    }
    for (v, b) in values[done..].iter().zip(out[done * width..].chunks_exact_mut(width)) {
        b.copy_from_slice(&v.to_le_bytes()[..width]);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm_storeu_si128, _mm256_castsi256_si128, _mm256_extracti128_si256,
        _mm256_loadu_si256, _mm256_or_si256, _mm256_set_m128i, _mm256_setzero_si256, _mm256_shuffle_epi8,
        _mm256_storeu_si256,
    };

    /// For every byte of a half, where it comes from; 0x80 makes zeros.
    fn shuffle(from: impl Fn(usize) -> Option<usize>) -> [u8; 32] {
        std::array::from_fn(|i| from(i % 16).map_or(0x80, |b| b as u8))
    }

    /// As many elements as whole registers take, four at a time, two in each half; the union of their bits.
    #[target_feature(enable = "avx2")]
    pub fn widen(width: usize, bytes: &[u8], out: &mut [u64]) -> (usize, u64) {
        let spread = shuffle(|i| (i % 8 < width).then_some(i / 8 * width + i % 8));
        // SAFETY: 32 bytes.
        let spread = unsafe { _mm256_loadu_si256(spread.as_ptr().cast()) };
        let mut seen = _mm256_setzero_si256();
        let mut done = 0;
        while done + 4 <= out.len() && (done + 2) * width + 16 <= bytes.len() {
            // SAFETY: both halves end within `bytes`, and there is room for four elements.
            unsafe {
                let from = bytes.as_ptr().add(done * width);
                let halves =
                    _mm256_set_m128i(_mm_loadu_si128(from.add(2 * width).cast()), _mm_loadu_si128(from.cast()));
                let values = _mm256_shuffle_epi8(halves, spread);
                seen = _mm256_or_si256(seen, values);
                _mm256_storeu_si256(out.as_mut_ptr().add(done).cast(), values);
            }
            done += 4;
        }
        let mut lanes = [0u64; 4];
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), seen) };
        (done, lanes.iter().fold(0, |a, b| a | b))
    }

    /// As many elements as whole registers take; each store runs over into what the next one writes.
    #[target_feature(enable = "avx2")]
    pub fn narrow(width: usize, values: &[u64], out: &mut [u8]) -> usize {
        let gather = shuffle(|i| (i < 2 * width).then_some(i / width * 8 + i % width));
        // SAFETY: 32 bytes.
        let gather = unsafe { _mm256_loadu_si256(gather.as_ptr().cast()) };
        let mut done = 0;
        while done + 4 <= values.len() && (done + 2) * width + 16 <= out.len() {
            // SAFETY: there are four more values, and both halves end within `out`.
            unsafe {
                let v: __m256i = _mm256_loadu_si256(values.as_ptr().add(done).cast());
                let bytes = _mm256_shuffle_epi8(v, gather);
                let to = out.as_mut_ptr().add(done * width);
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
                _mm_storeu_si128(to.add(2 * width).cast(), _mm256_extracti128_si256::<1>(bytes));
            }
            done += 4;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_for_every_width_and_length() {
        for width in 1..=8 {
            for len in (0..40).chain([1000]) {
                let values: Vec<u64> =
                    (1..=len).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 8 * width)).collect();
                let mut bytes = vec![0u8; values.len() * width];
                narrow(width, &values, &mut bytes);
                let plain: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()[..width].to_vec()).collect();
                assert_eq!(bytes, plain, "{len} elements of {width} bytes");
                for more in [0, 3, 20] {
                    bytes.resize(plain.len() + more, 0xff);
                    let mut back = vec![0; values.len()];
                    let seen = widen(width, &bytes, &mut back);
                    assert_eq!(back, values, "{len} elements of {width} bytes");
                    assert_eq!(seen, values.iter().fold(0, |a, b| a | b));
                }
            }
        }
    }
}
