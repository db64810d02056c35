//! Tile kernels by instruction set, and bits moved by words.
#![allow(unsafe_code)]

use super::conv::{COLUMNS, ROWS, Tile};
#[cfg(target_arch = "x86_64")]
use super::{Blocked, Kernels};
use crate::buffer::stride;

/// What the compiler makes of plain loops.
pub struct Portable;

#[inline(always)]
fn multiply(left: &[[u64; ROWS]], right: &[[u64; COLUMNS]], sums: &mut [[u64; COLUMNS]; ROWS]) {
    // Four rows at a time: their sums stay in registers.
    for half in 0..ROWS / 4 {
        let mut acc = [[0u64; COLUMNS]; 4];
        for (l, r) in left.iter().zip(right) {
            for (i, acc) in acc.iter_mut().enumerate() {
                for (y, x) in acc.iter_mut().zip(r) {
                    *y = y.wrapping_add(l[4 * half + i].wrapping_mul(*x));
                }
            }
        }
        for (y, acc) in sums[4 * half..].iter_mut().zip(acc) {
            y.iter_mut().zip(acc).for_each(|(y, a)| *y = y.wrapping_add(a));
        }
    }
}

impl Tile for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    fn multiply(&self, left: &[[u64; ROWS]], right: &[[u64; COLUMNS]], sums: &mut [[u64; COLUMNS]; ROWS]) {
        multiply(left, right, sums);
    }
}

/// The portable loops compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// If the processor has AVX2.
    pub fn new() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }

    /// Its kernel set.
    pub fn set(self) -> &'static dyn Kernels {
        &Blocked(Avx2(()))
    }

    #[target_feature(enable = "avx2")]
    fn tile(left: &[[u64; ROWS]], right: &[[u64; COLUMNS]], sums: &mut [[u64; COLUMNS]; ROWS]) {
        multiply(left, right, sums);
    }
}

#[cfg(target_arch = "x86_64")]
impl Tile for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn multiply(&self, left: &[[u64; ROWS]], right: &[[u64; COLUMNS]], sums: &mut [[u64; COLUMNS]; ROWS]) {
        // SAFETY: `new` has found AVX2.
        unsafe { Self::tile(left, right, sums) }
    }
}

/// AVX-512 with 64-bit multiplication.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// If the processor has AVX-512 F and DQ.
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")).then_some(Avx512(()))
    }

    /// Its kernel set.
    pub fn set(self) -> &'static dyn Kernels {
        &Blocked(Avx512(()))
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    fn tile(left: &[[u64; ROWS]], right: &[[u64; COLUMNS]], sums: &mut [[u64; COLUMNS]; ROWS]) {
        use std::arch::x86_64::{
            _mm512_add_epi64, _mm512_loadu_epi64, _mm512_mullo_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
            _mm512_storeu_epi64,
        };
        let mut acc = [[_mm512_setzero_si512(); 2]; ROWS];
        for (l, r) in left.iter().zip(right) {
            let r: *const i64 = r.as_ptr().cast();
            // SAFETY: `r` points to 16 words.
            let (low, high) = unsafe { (_mm512_loadu_epi64(r), _mm512_loadu_epi64(r.add(8))) };
            for (acc, l) in acc.iter_mut().zip(l) {
                let l = _mm512_set1_epi64(*l as i64);
                acc[0] = _mm512_add_epi64(acc[0], _mm512_mullo_epi64(l, low));
                acc[1] = _mm512_add_epi64(acc[1], _mm512_mullo_epi64(l, high));
            }
        }
        for (y, acc) in sums.iter_mut().zip(acc) {
            let y: *mut i64 = y.as_mut_ptr().cast();
            // SAFETY: `y` points to 16 words.
            unsafe {
                _mm512_storeu_epi64(y, _mm512_add_epi64(_mm512_loadu_epi64(y), acc[0]));
                _mm512_storeu_epi64(y.add(8), _mm512_add_epi64(_mm512_loadu_epi64(y.add(8)), acc[1]));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    fn dot_product(a: &[u64], b: &[u64]) -> u64 {
        let (a8, a1) = a.as_chunks::<8>();
        let (b8, b1) = b.as_chunks::<8>();
        let mut lanes = [0u64; 8];
        for (a, b) in a8.iter().zip(b8) {
            for ((y, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *y = y.wrapping_add(a.wrapping_mul(*b));
            }
        }
        let tail = a1.iter().zip(b1).fold(0u64, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
        lanes.iter().fold(tail, |sum, v| sum.wrapping_add(*v))
    }
}

#[cfg(target_arch = "x86_64")]
impl Tile for Avx512 {
    fn name(&self) -> &'static str {
        "avx512"
    }

    fn multiply(&self, left: &[[u64; ROWS]], right: &[[u64; COLUMNS]], sums: &mut [[u64; COLUMNS]; ROWS]) {
        // SAFETY: `new` has found AVX-512 F and DQ.
        unsafe { Self::tile(left, right, sums) }
    }

    fn dot(&self, a: &[u64], b: &[u64]) -> u64 {
        // SAFETY: `new` has found AVX-512 F and DQ.
        unsafe { Self::dot_product(a, b) }
    }
}

/// Transposes a 64 x 64 matrix of bits: bit `c` of word `r` becomes bit `r` of word `c`.
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
