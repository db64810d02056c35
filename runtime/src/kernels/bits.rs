//! Bits moved by words.

use crate::buffer::stride;

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

/// [`super::Kernels::to_bits`], 64 elements at a time.
#[inline(always)]
pub fn to_bits(low: u8, pad: u8, x: &[u64], out: &mut [u64]) {
    let n = stride(x.len());
    if n == 0 {
        return;
    }
    let planes = &mut out[usize::from(pad) * n..];
    let count = planes.len() / n;
    for (word, values) in x.chunks(64).enumerate() {
        let mut m = [0u64; 64];
        for (y, v) in m.iter_mut().zip(values) {
            *y = v >> low;
        }
        transpose64(&mut m);
        for (p, bits) in m.iter().enumerate().take(count) {
            planes[p * n + word] = *bits;
        }
    }
}
