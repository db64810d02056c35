//! Tiles of sums by AVX-512: put together, and transposed.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_cvtsi32_si128, _mm512_add_epi32, _mm512_add_epi64, _mm512_castsi512_si256,
    _mm512_cvtepi32_epi64, _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_mask_storeu_epi32,
    _mm512_mask_storeu_epi64, _mm512_maskz_compress_epi32, _mm512_maskz_compress_epi64, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_sll_epi32, _mm512_sll_epi64, _mm512_slli_epi32, _mm512_slli_epi64,
    _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use bcc_ir::program::Width;

use super::target::Place;
use super::tile::{COLUMNS, Pair};
use super::window::{BYTE_ROWS, BYTE_SUMS, ByteSums};
use crate::element::Element;

/// All rows of [`Tile::join_bytes`](super::tile::Tile::join_bytes). Inlined where it is called, so that what a row does depends on nothing.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn join<E: Element, const SAME: bool>(sums: &ByteSums, shift: u8, place: Place<'_, E>, first: bool) {
    let shift = _mm_cvtsi32_si128(shift.into());
    for row in 0..place.rows() {
        let sums = match E::WIDTH {
            Width::Narrow => bytemuck::cast(join_narrow::<SAME>(sums, row, shift)),
            Width::Wide => bytemuck::cast(join_wide::<SAME>(sums, row, shift)),
        };
        place.add(row, first, sums);
    }
}

/// The sums of a row.
#[inline]
#[target_feature(enable = "avx512f")]
fn parts(ByteSums(sums): &ByteSums, row: usize) -> [__m512i; BYTE_SUMS] {
    // SAFETY: a row is as long as the register.
    std::array::from_fn(|k| unsafe { _mm512_loadu_si512(sums[k][row].as_ptr().cast()) })
}

/// A row of elements of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn join_narrow<const SAME: bool>(sums: &ByteSums, row: usize, shift: __m128i) -> [u32; COLUMNS] {
    let [a, b, c, d] = parts(sums, row);
    let [b, c, d] = match SAME {
        true => [b, c, d],
        false => [_mm512_slli_epi32::<8>(b), _mm512_slli_epi32::<16>(c), _mm512_slli_epi32::<24>(d)],
    };
    let sum = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
    // A shift of more than 31 bits leaves zeros.
    let all = _mm512_sll_epi32(sum, shift);
    let mut out = [0; COLUMNS];
    // SAFETY: as long as the register.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), all) };
    out
}

/// A row of elements of 64 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn join_wide<const SAME: bool>(sums: &ByteSums, row: usize, shift: __m128i) -> [u64; COLUMNS] {
    let parts = parts(sums, row);
    let mut out = [0; COLUMNS];
    let join = |[a, b, c, d]: [__m512i; BYTE_SUMS]| {
        let [b, c, d] = match SAME {
            true => [b, c, d],
            false => [_mm512_slli_epi64::<8>(b), _mm512_slli_epi64::<16>(c), _mm512_slli_epi64::<24>(d)],
        };
        let sum = _mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d));
        _mm512_sll_epi64(sum, shift)
    };
    let low = join(parts.map(|p| _mm512_cvtepi32_epi64(_mm512_castsi512_si256(p))));
    let high = join(parts.map(|p| _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(p))));
    // SAFETY: as long as the two registers.
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().cast(), low);
        _mm512_storeu_si512(out.as_mut_ptr().add(8).cast(), high);
    }
    out
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
pub fn transpose(tile: &mut [[Pair; COLUMNS]; BYTE_ROWS]) {
    let rows = transposed(rows(tile));
    for (to, row) in tile.iter_mut().zip(rows) {
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
