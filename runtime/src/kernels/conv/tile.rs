//! The inner kernel of a matrix product of 16-bit integers.
#![allow(unsafe_code)]

/// Rows of the product that one call makes.
pub const ROWS: usize = 4;
/// Columns of the product that one call makes.
pub const COLUMNS: usize = 16;

/// Two 16-bit integers that follow each other in depth, the first one in the low half.
pub type Pair = u32;

/// Puts a pair together.
#[inline(always)]
pub fn pair(first: i16, second: i16) -> Pair {
    u32::from(first as u16) | u32::from(second as u16) << 16
}

/// A piece of work. `work` and all that it calls should be `inline(always)`: only then are they compiled for
/// the instruction set of the [`Tile`] that runs them. (Closures cannot be made to.)
pub trait Job {
    /// Does it.
    fn work(self);
}

/// The inner kernel for one instruction set.
pub trait Tile: Send + Sync {
    /// Name of the kernel set.
    fn name(&self) -> &'static str;

    /// Does a job, compiled for the instruction set.
    fn run(&self, job: impl Job) {
        job.work();
    }

    /// `sums[r][c] += sum over i of left[r][i] * right[i][c]`, the products of both halves, modulo `2^32`.
    /// All rows are as long as `right`. Only the first `columns` columns are needed.
    fn multiply(
        &self,
        left: [&[Pair]; ROWS],
        right: &[[Pair; COLUMNS]],
        columns: usize,
        sums: &mut [[i32; COLUMNS]; ROWS],
    );
}

/// What the compiler makes of plain loops.
#[derive(Clone, Copy)]
pub struct Portable;

impl Tile for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    fn multiply(
        &self,
        left: [&[Pair]; ROWS],
        right: &[[Pair; COLUMNS]],
        _columns: usize,
        sums: &mut [[i32; COLUMNS]; ROWS],
    ) {
        let halves = |p: Pair| (i32::from(p as i16), i32::from((p >> 16) as i16));
        for (left, sums) in left.iter().zip(sums) {
            for (l, right) in left.iter().zip(right) {
                let (l0, l1) = halves(*l);
                for (y, r) in sums.iter_mut().zip(right) {
                    let (r0, r1) = halves(*r);
                    *y = y.wrapping_add(l0 * r0).wrapping_add(l1 * r1);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32,
        _mm256_setzero_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_loadu_si512, _mm512_madd_epi16,
        _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
    };

    use super::{COLUMNS, Job, Pair, ROWS, Tile};

    /// Steps in depth whose sums the AVX-512 kernel keeps apart, so that additions need not wait.
    const STEPS: usize = 4;

    /// AVX2.
    #[derive(Clone, Copy)]
    pub struct Avx2(());

    impl Avx2 {
        /// If the processor has AVX2.
        pub fn new() -> Option<Self> {
            is_x86_feature_detected!("avx2").then_some(Avx2(()))
        }

        #[target_feature(enable = "avx2")]
        fn inside(job: impl Job) {
            job.work();
        }

        /// `HALVES` times 8 columns.
        #[inline]
        #[target_feature(enable = "avx2")]
        fn tile<const HALVES: usize>(
            left: [&[Pair]; ROWS],
            right: &[[Pair; COLUMNS]],
            sums: &mut [[i32; COLUMNS]; ROWS],
        ) {
            let mut acc = [[_mm256_setzero_si256(); HALVES]; ROWS];
            for ((((r, l0), l1), l2), l3) in right.iter().zip(left[0]).zip(left[1]).zip(left[2]).zip(left[3]) {
                // SAFETY: a row of 16 columns holds both halves.
                let r: [__m256i; HALVES] =
                    std::array::from_fn(|h| unsafe { _mm256_loadu_si256(r.as_ptr().add(8 * h).cast()) });
                for (acc, l) in acc.iter_mut().zip([l0, l1, l2, l3]) {
                    let l = _mm256_set1_epi32(*l as i32);
                    for (acc, r) in acc.iter_mut().zip(r) {
                        *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(l, r));
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
            "avx2"
        }

        fn run(&self, job: impl Job) {
            // SAFETY: `new` has found AVX2.
            unsafe { Self::inside(job) }
        }

        #[inline(always)]
        fn multiply(
            &self,
            left: [&[Pair]; ROWS],
            right: &[[Pair; COLUMNS]],
            columns: usize,
            sums: &mut [[i32; COLUMNS]; ROWS],
        ) {
            // SAFETY: `new` has found AVX2.
            unsafe {
                if columns > COLUMNS / 2 {
                    Self::tile::<2>(left, right, sums)
                } else {
                    Self::tile::<1>(left, right, sums)
                }
            }
        }
    }

    /// AVX-512 with 16-bit and 64-bit multiplication.
    #[derive(Clone, Copy)]
    pub struct Avx512(());

    impl Avx512 {
        /// If the processor has AVX-512 F, BW and DQ.
        pub fn new() -> Option<Self> {
            let all = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            all.then_some(Avx512(()))
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
        fn inside(job: impl Job) {
            job.work();
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        fn tile(left: [&[Pair]; ROWS], right: &[[Pair; COLUMNS]], sums: &mut [[i32; COLUMNS]; ROWS]) {
            let left = left.map(|l| &l[..right.len()]);
            let mut acc = [[_mm512_setzero_si512(); ROWS]; STEPS];
            let (whole, rest) = right.as_chunks::<STEPS>();
            let step = |i: usize, r: &[Pair; COLUMNS], acc: &mut [__m512i; ROWS]| {
                // SAFETY: a row of 16 columns is as long as the register.
                let r = unsafe { _mm512_loadu_si512(r.as_ptr().cast()) };
                for (acc, left) in acc.iter_mut().zip(left) {
                    *acc = _mm512_add_epi32(*acc, _mm512_madd_epi16(_mm512_set1_epi32(left[i] as i32), r));
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
    }

    impl Tile for Avx512 {
        fn name(&self) -> &'static str {
            "avx512"
        }

        fn run(&self, job: impl Job) {
            // SAFETY: `new` has found AVX-512 F, BW and DQ.
            unsafe { Self::inside(job) }
        }

        #[inline(always)]
        fn multiply(
            &self,
            left: [&[Pair]; ROWS],
            right: &[[Pair; COLUMNS]],
            _columns: usize,
            sums: &mut [[i32; COLUMNS]; ROWS],
        ) {
            // SAFETY: `new` has found AVX-512 F and BW.
            unsafe { Self::tile(left, right, sums) }
        }
    }
}
