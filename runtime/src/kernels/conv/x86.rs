//! The inner kernels for AVX2 and AVX-512.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mullo_epi32, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_dpwssd_epi32, _mm512_loadu_si512,
    _mm512_madd_epi16, _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
};

use bcc_ir::program::Width;

use super::amx;
use super::avx512;
use super::matrix::Digit;
use super::target::Place;
use super::tile::{COLUMNS, Job, Pair, Products, ROWS, Tile, faster_last};
use super::window::{BYTE_ROWS, ByteOperands, ByteSums, Window};
use crate::element::Element;

/// Steps in depth whose sums the AVX-512 kernel keeps apart, so that additions need not wait.
const STEPS: usize = 4;

/// AVX2.
#[derive(Clone, Copy)]
pub struct Avx2(Products);

impl Avx2 {
    /// If the processor has AVX2, for digits and for whole integers, the faster one last.
    pub fn all() -> Vec<Self> {
        match is_x86_feature_detected!("avx2") {
            true => faster_last(Avx2(Products::Digits), Avx2(Products::Whole)).into(),
            false => Vec::new(),
        }
    }

    #[target_feature(enable = "avx2")]
    fn inside(job: impl Job) {
        job.work();
    }

    /// `HALVES` times 8 columns of products of whole integers, or of pairs of digits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tile<const HALVES: usize, D: Digit>(
        left: &[[Pair; ROWS]],
        right: &[[Pair; COLUMNS]],
        sums: &mut [[i32; COLUMNS]; ROWS],
    ) {
        let mut acc = [[_mm256_setzero_si256(); HALVES]; ROWS];
        for (r, left) in right.iter().zip(left) {
            // SAFETY: a row of 16 columns holds both halves.
            let r: [__m256i; HALVES] =
                std::array::from_fn(|h| unsafe { _mm256_loadu_si256(r.as_ptr().add(8 * h).cast()) });
            for (acc, l) in acc.iter_mut().zip(left) {
                let l = _mm256_set1_epi32(*l as i32);
                for (acc, r) in acc.iter_mut().zip(r) {
                    let product = if D::DEPTH == 1 { _mm256_mullo_epi32(l, r) } else { _mm256_madd_epi16(l, r) };
                    *acc = _mm256_add_epi32(*acc, product);
                }
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            for (h, acc) in acc.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe {
                    let to: *mut __m256i = sums.as_mut_ptr().add(8 * h).cast();
                    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), acc));
                }
            }
        }
    }
}

impl Tile for Avx2 {
    fn name(&self) -> &'static str {
        if self.0 == Products::Whole { "avx2, 32-bit products" } else { "avx2" }
    }

    fn products(&self, width: Width) -> Products {
        self.0.of(width)
    }

    fn run(&self, job: impl Job) {
        // SAFETY: `all` has found AVX2.
        unsafe { Self::inside(job) }
    }

    #[inline(always)]
    fn multiply<D: Digit>(
        &self,
        left: &[[Pair; ROWS]],
        right: &[[Pair; COLUMNS]],
        columns: usize,
        sums: &mut [[i32; COLUMNS]; ROWS],
    ) {
        // SAFETY: `all` has found AVX2.
        unsafe {
            if columns > COLUMNS / 2 {
                Self::tile::<2, D>(left, right, sums)
            } else {
                Self::tile::<1, D>(left, right, sums)
            }
        }
    }
}

/// AVX-512 with 16-bit and 64-bit multiplication.
#[derive(Clone, Copy)]
pub struct Avx512 {
    products: Products,
    /// Products of digits are summed up by the instruction that makes them.
    vnni: bool,
}

impl Avx512 {
    /// If the processor has AVX-512 F, BW and DQ: for digits and for whole integers, the faster one last; then for bytes, if
    /// it multiplies tiles of them.
    pub fn all() -> Vec<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        if !has {
            return Vec::new();
        }
        let of = |products| Avx512 { products, vnni: false };
        let digits = of(Products::Digits);
        let vnni = is_x86_feature_detected!("avx512vnni");
        let mut all: Vec<Self> = vnni.then_some(digits).into_iter().collect();
        all.extend(faster_last(Avx512 { vnni, ..digits }, of(Products::Whole)));
        all.extend(amx::available().then_some(of(Products::Bytes)));
        all
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    fn inside(job: impl Job) {
        job.work();
    }
}

/// An inner kernel of AVX-512, with what it adds to a sum for two entries.
macro_rules! tile_512 {
    ($name:ident, $features:literal, |$acc:ident, $l:ident, $r:ident| $add:expr) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name<D: Digit>(left: &[[Pair; ROWS]], right: &[[Pair; COLUMNS]], sums: &mut [[i32; COLUMNS]; ROWS]) {
            let left = &left[..right.len()];
            let mut acc = [[_mm512_setzero_si512(); ROWS]; STEPS];
            let (whole, rest) = right.as_chunks::<STEPS>();
            let step = |i: usize, r: &[Pair; COLUMNS], acc: &mut [__m512i; ROWS]| {
                // SAFETY: a row of 16 columns is as long as the register.
                let $r = unsafe { _mm512_loadu_si512(r.as_ptr().cast()) };
                for (acc, l) in acc.iter_mut().zip(left[i]) {
                    let ($acc, $l) = (*acc, _mm512_set1_epi32(l as i32));
                    *acc = $add;
                }
            };
            for (i, r) in whole.iter().enumerate() {
                for (s, acc) in acc.iter_mut().enumerate() {
                    step(STEPS * i + s, &r[s], acc);
                }
            }
            for (i, r) in rest.iter().enumerate() {
                step(STEPS * whole.len() + i, r, &mut acc[i]);
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                unsafe {
                    let to: *mut __m512i = sums.as_mut_ptr().cast();
                    let all = acc.iter().fold(_mm512_loadu_si512(to), |sum, acc| _mm512_add_epi32(sum, acc[row]));
                    _mm512_storeu_si512(to, all);
                }
            }
        }
    };
}

tile_512!(tile_512, "avx512f,avx512bw", |acc, l, r| {
    let product = if D::DEPTH == 1 { _mm512_mullo_epi32(l, r) } else { _mm512_madd_epi16(l, r) };
    _mm512_add_epi32(acc, product)
});
// For digits alone.
tile_512!(tile_512_vnni, "avx512f,avx512bw,avx512vnni", |acc, l, r| _mm512_dpwssd_epi32(acc, l, r));

impl Tile for Avx512 {
    fn name(&self) -> &'static str {
        match self.products {
            Products::Digits if self.vnni => "avx512 with vnni",
            Products::Digits => "avx512",
            Products::Whole => "avx512, 32-bit products",
            Products::Bytes => "amx",
        }
    }

    fn products(&self, width: Width) -> Products {
        self.products.of(width)
    }

    fn run(&self, job: impl Job) {
        let _tiles = (self.products == Products::Bytes).then(amx::Tiles::new);
        // SAFETY: `all` has found AVX-512 F, BW and DQ.
        unsafe { Self::inside(job) }
    }

    #[inline(always)]
    fn multiply<D: Digit>(
        &self,
        left: &[[Pair; ROWS]],
        right: &[[Pair; COLUMNS]],
        _columns: usize,
        sums: &mut [[i32; COLUMNS]; ROWS],
    ) {
        // SAFETY: `all` has found AVX-512 F and BW, and VNNI where it is used.
        unsafe {
            if self.vnni && D::DEPTH > 1 {
                tile_512_vnni::<D>(left, right, sums);
            } else {
                tile_512::<D>(left, right, sums);
            }
        }
    }

    #[inline(always)]
    fn multiply_bytes(&self, window: &Window, operands: ByteOperands<'_>, sums: &mut ByteSums) {
        amx::multiply(window, operands, sums);
    }

    #[inline(always)]
    fn join_bytes<E: Element>(&self, sums: &ByteSums, window: &Window, place: &Place<'_, E>, first: bool) {
        // SAFETY: `all` has found AVX-512 F and BW.
        unsafe {
            match (window.same, first) {
                (false, false) => avx512::join::<E, false, false>(sums, window.shift, *place),
                (false, true) => avx512::join::<E, false, true>(sums, window.shift, *place),
                (true, false) => avx512::join::<E, true, false>(sums, window.shift, *place),
                (true, true) => avx512::join::<E, true, true>(sums, window.shift, *place),
            }
        }
    }

    #[inline(always)]
    fn spread<E: Element>(&self, tile: &[[E; COLUMNS]; BYTE_ROWS], valid: u16, place: Place<'_, E>) {
        // SAFETY: `all` has found AVX-512 F.
        unsafe {
            match E::WIDTH {
                Width::Narrow => avx512::spread_narrow(bytemuck::cast_ref(tile), valid, place),
                Width::Wide => avx512::spread_wide(bytemuck::cast_ref(tile), valid, place),
            }
        }
    }

    #[inline(always)]
    fn transpose(&self, tile: &[[Pair; COLUMNS]; BYTE_ROWS], to: &mut [[Pair; BYTE_ROWS]], step: usize) {
        // SAFETY: `all` has found AVX-512 F.
        unsafe { avx512::transpose(tile, to, step) }
    }
}
