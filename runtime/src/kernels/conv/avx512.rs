//! Tiles of sums by AVX-512: put together, and transposed.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_cvtsi32_si128, _mm512_add_epi32, _mm512_add_epi64, _mm512_and_si512, _mm512_castsi512_si256,
    _mm512_cvtepi32_epi64, _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_mask_storeu_epi32,
    _mm512_mask_storeu_epi64, _mm512_maskz_compress_epi32, _mm512_maskz_compress_epi64, _mm512_set1_epi32,
    _mm512_set1_epi64, _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4,
    _mm512_sll_epi32, _mm512_sll_epi64, _mm512_slli_epi32, _mm512_slli_epi64, _mm512_storeu_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use bcc_ir::program::Width;

use super::target::Place;
use super::tile::{COLUMNS, Pair};
use super::window::{BYTE_ROWS, ByteSums};
use crate::element::Element;

/// [`Tile::join_bytes`](super::tile::Tile::join_bytes); `SAME` and `FIRST` say whether the window's sums have the same
/// exponent and whether the place has nothing yet.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn join<E: Element, const SAME: bool, const FIRST: bool>(sums: &ByteSums, shift: u8, mut place: Place<'_, E>) {
    let up = _mm_cvtsi32_si128(shift.into());
    let mask = match E::WIDTH {
        Width::Narrow => _mm512_set1_epi32(place.mask().low() as i32),
        Width::Wide => _mm512_set1_epi64(place.mask().word() as i64),
    };
    // Whole tiles apart, whose rows are of a length that is known.
    if place.rows() == BYTE_ROWS && place.columns() == COLUMNS {
        for row in 0..BYTE_ROWS {
            let to: *mut E = place.row(row).as_mut_ptr();
            for half in 0..COLUMNS / lanes::<E>() {
                // SAFETY: both halves, or a register of elements of 32 bits, are in the row.
                unsafe {
                    let to: *mut __m512i = to.add(half * lanes::<E>()).cast();
                    let mut all = joined::<E, SAME>(sums, row, half, shift, up);
                    if !FIRST {
                        all = if E::WIDTH == Width::Narrow {
                            _mm512_add_epi32(all, _mm512_loadu_si512(to))
                        } else {
                            _mm512_add_epi64(all, _mm512_loadu_si512(to))
                        };
                    }
                    _mm512_storeu_si512(to, _mm512_and_si512(all, mask));
                }
            }
        }
        return;
    }
    for row in 0..place.rows() {
        let mut sum = [E::ZERO; COLUMNS];
        for half in 0..COLUMNS / lanes::<E>() {
            // SAFETY: as above.
            unsafe {
                let to: *mut __m512i = sum.as_mut_ptr().add(half * lanes::<E>()).cast();
                _mm512_storeu_si512(to, joined::<E, SAME>(sums, row, half, shift, up));
            }
        }
        place.add(row, FIRST, sum);
    }
}

/// Elements of a register.
const fn lanes<E>() -> usize {
    size_of::<__m512i>() / size_of::<E>()
}

/// The sums of a row, of elements of 64 bits those of one half, each by its exponent.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn joined<E: Element, const SAME: bool>(sums: &ByteSums, row: usize, half: usize, shift: u8, up: __m128i) -> __m512i {
    let parts = [part(sums, 0, row), part(sums, 1, row), part(sums, 2, row), part(sums, 3, row)];
    match E::WIDTH {
        Width::Narrow => {
            let [a, mut b, mut c, mut d] = parts;
            if !SAME {
                b = _mm512_slli_epi32::<8>(b);
                c = _mm512_slli_epi32::<16>(c);
                // As shifts and shuffles are of two ports: bytes 0, 4, 8 and 12 go up by three, others are zeros.
                let bytes = _mm512_set4_epi32(0x0c80_8080, 0x0880_8080, 0x0480_8080, 0x0080_8080);
                d = _mm512_shuffle_epi8(d, bytes);
            }
            let sum = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
            // More than 31 bits leave zeros.
            if shift == 0 { sum } else { _mm512_sll_epi32(sum, up) }
        }
        Width::Wide => {
            let [a, mut b, mut c, mut d] =
                [wide(parts[0], half), wide(parts[1], half), wide(parts[2], half), wide(parts[3], half)];
            if !SAME {
                b = _mm512_slli_epi64::<8>(b);
                c = _mm512_slli_epi64::<16>(c);
                d = _mm512_slli_epi64::<24>(d);
            }
            let sum = _mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d));
            if shift == 0 { sum } else { _mm512_sll_epi64(sum, up) }
        }
    }
}

/// A row of sums of an exponent.
#[inline]
#[target_feature(enable = "avx512f")]
fn part(ByteSums(sums): &ByteSums, exponent: usize, row: usize) -> __m512i {
    // SAFETY: a row is as long as the register.
    unsafe { _mm512_loadu_si512(sums[exponent][row].as_ptr().cast()) }
}

/// Half of the sums of a row with 64 bits each.
#[inline]
#[target_feature(enable = "avx512f")]
fn wide(sums: __m512i, half: usize) -> __m512i {
    _mm512_cvtepi32_epi64(match half {
        0 => _mm512_castsi512_si256(sums),
        _ => _mm512_extracti64x4_epi64::<1>(sums),
    })
}

/// The rows of a tile.
#[inline]
#[target_feature(enable = "avx512f")]
fn rows(tile: &[[u32; COLUMNS]; BYTE_ROWS]) -> [__m512i; BYTE_ROWS] {
    let mut rows = [_mm512_setzero_si512(); BYTE_ROWS];
    // No closure, which would be compiled for itself.
    for (to, row) in rows.iter_mut().zip(tile) {
        // SAFETY: a row is as long as the register.
        *to = unsafe { _mm512_loadu_si512(row.as_ptr().cast()) };
    }
    rows
}

/// [`Tile::transpose`](super::tile::Tile::transpose).
#[inline]
#[target_feature(enable = "avx512f")]
pub fn transpose(tile: &[[Pair; COLUMNS]; BYTE_ROWS], to: &mut [[Pair; BYTE_ROWS]], step: usize) {
    for (to, row) in to.iter_mut().step_by(step).zip(transposed(rows(tile))) {
        // SAFETY: a row is as long as the register.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), row) };
    }
}

/// Quarters of four registers, transposed.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    // Both lower quarters of two, both higher ones; of those the first ones, the second ones.
    let low = [_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d)];
    let high = [_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(c, d)];
    [
        _mm512_shuffle_i32x4::<0x88>(low[0], low[1]),
        _mm512_shuffle_i32x4::<0xdd>(low[0], low[1]),
        _mm512_shuffle_i32x4::<0x88>(high[0], high[1]),
        _mm512_shuffle_i32x4::<0xdd>(high[0], high[1]),
    ]
}

/// 16 rows of 16 elements of 32 bits, transposed.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut all = rows;
    for four in all.as_chunks_mut::<4>().0 {
        // In each quarter two columns of two rows, then one of four.
        let [a, b, c, d] = *four;
        let low = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
        let high = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
        *four = [
            _mm512_unpacklo_epi64(low[0], low[1]),
            _mm512_unpackhi_epi64(low[0], low[1]),
            _mm512_unpacklo_epi64(high[0], high[1]),
            _mm512_unpackhi_epi64(high[0], high[1]),
        ];
    }
    for i in 0..4 {
        let [a, b, c, d] = quarters([all[i], all[4 + i], all[8 + i], all[12 + i]]);
        (all[i], all[4 + i], all[8 + i], all[12 + i]) = (a, b, c, d);
    }
    all
}

/// 8 rows of 8 elements of 64 bits, transposed.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed_wide(rows: [__m512i; 8]) -> [__m512i; 8] {
    let mut all = rows;
    for two in all.as_chunks_mut::<2>().0 {
        *two = [_mm512_unpacklo_epi64(two[0], two[1]), _mm512_unpackhi_epi64(two[0], two[1])];
    }
    for i in 0..2 {
        let [a, b, c, d] = quarters([all[i], all[2 + i], all[4 + i], all[6 + i]]);
        (all[i], all[2 + i], all[4 + i], all[6 + i]) = (a, b, c, d);
    }
    all
}

/// [`Tile::spread`](super::tile::Tile::spread) of elements of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn spread_narrow<E: Element>(tile: &[[u32; COLUMNS]; BYTE_ROWS], valid: u16, mut place: Place<'_, E>) {
    assert!(size_of::<E>() == size_of::<u32>(), "elements have 32 bits");
    let channels = transposed(rows(tile));
    for (channel, pixels) in channels.into_iter().enumerate().take(place.rows()) {
        let to = place.row(channel);
        assert!(to.len() == valid.count_ones() as usize, "a column for every pixel");
        let first = (1u32 << to.len()).wrapping_sub(1) as u16;
        // SAFETY: as many elements are written as there are.
        unsafe { _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), first, _mm512_maskz_compress_epi32(valid, pixels)) };
    }
}

/// [`Tile::spread`](super::tile::Tile::spread) of elements of 64 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn spread_wide<E: Element>(tile: &[[u64; COLUMNS]; BYTE_ROWS], valid: u16, mut place: Place<'_, E>) {
    assert!(size_of::<E>() == size_of::<u64>(), "elements have 64 bits");
    for half in 0..COLUMNS / 8 {
        let mut pixels = [[_mm512_setzero_si512(); 8]; 2];
        for (to, row) in pixels.as_flattened_mut().iter_mut().zip(tile) {
            // SAFETY: half a row is as long as the register.
            *to = unsafe { _mm512_loadu_si512(row[8 * half..][..8].as_ptr().cast()) };
        }
        let [low, high] = [transposed_wide(pixels[0]), transposed_wide(pixels[1])];
        for (i, (low, high)) in low.into_iter().zip(high).enumerate() {
            let channel = 8 * half + i;
            if channel >= place.rows() {
                return;
            }
            let to = place.row(channel);
            let mut at = 0;
            for (pixels, valid) in [(low, valid as u8), (high, (valid >> 8) as u8)] {
                let to = &mut to[at..][..valid.count_ones() as usize];
                let first = (1u32 << to.len()).wrapping_sub(1) as u8;
                let pixels = _mm512_maskz_compress_epi64(valid, pixels);
                // SAFETY: as many elements are written as there are.
                unsafe { _mm512_mask_storeu_epi64(to.as_mut_ptr().cast(), first, pixels) };
                at += to.len();
            }
        }
    }
}
