//! The inner kernel of a matrix product of pairs of 16-bit digits, or of 32-bit integers.
#![allow(unsafe_code)]

use std::time::Instant;

use super::matrix::Digit;

/// Rows of the product that one call makes.
pub const ROWS: usize = 4;
/// Columns of the product that one call makes.
pub const COLUMNS: usize = 16;

/// Two 16-bit integers that follow each other in depth, the first one in the low half; or one of 32 bits.
pub type Pair = u32;

/// Puts a pair together.
#[inline(always)]
pub fn pair(first: i16, second: i16) -> Pair {
    u32::from(first as u16) | u32::from(second as u16) << 16
}

/// Has some memory brought to the caches.
#[inline(always)]
pub fn prefetch<T>(memory: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in memory.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing; the address is that of memory at hand.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    let _ = memory;
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

    /// `sums[r][c] += sum over i of left[i][r] * right[i][c]`, products of entries of such digits, modulo `2^32`. Only the
    /// first `columns` columns are needed.
    fn multiply<D: Digit>(
        &self,
        left: &[[Pair; ROWS]],
        right: &[[Pair; COLUMNS]],
        columns: usize,
        sums: &mut [[i32; COLUMNS]; ROWS],
    );

    /// Whether whole integers of 32 bits are multiplied, not digits.
    fn whole(&self) -> bool;
}

/// Whether whole products cost so little that digits are not worth making: it takes three pairs of digits for two
/// products of 32 bits, two where one factor has 16, and packing. The best of some short runs counts.
pub fn whole_is_faster<T: Tile>(tile: &T) -> bool {
    const DEPTH: usize = 120;
    let left = [[0x0123_4567u32; ROWS]; DEPTH];
    let right = [[0x0089_abcdu32; COLUMNS]; DEPTH];
    let best = |multiply: &dyn Fn(&mut [[i32; COLUMNS]; ROWS])| {
        let mut sums = [[0; COLUMNS]; ROWS];
        let run = |_| {
            let start = Instant::now();
            (0..4).for_each(|_| multiply(std::hint::black_box(&mut sums)));
            start.elapsed()
        };
        (0..50).map(run).min().unwrap_or_default().as_secs_f64()
    };
    let whole = best(&|sums| tile.multiply::<u32>(&left, &right, COLUMNS, sums));
    whole < 1.25 * best(&|sums| tile.multiply::<i16>(&left, &right, COLUMNS, sums))
}

/// What the compiler makes of plain loops.
#[derive(Clone, Copy)]
pub struct Portable {
    /// Multiplies whole integers.
    pub whole: bool,
}

impl Tile for Portable {
    fn name(&self) -> &'static str {
        if self.whole { "portable, 32-bit products" } else { "portable" }
    }

    fn whole(&self) -> bool {
        self.whole
    }

    #[inline(always)]
    fn multiply<D: Digit>(
        &self,
        left: &[[Pair; ROWS]],
        right: &[[Pair; COLUMNS]],
        _columns: usize,
        sums: &mut [[i32; COLUMNS]; ROWS],
    ) {
        for (row, sums) in sums.iter_mut().enumerate() {
            for (left, right) in left.iter().zip(right) {
                for (y, r) in sums.iter_mut().zip(right) {
                    *y = y.wrapping_add(D::product(left[row], *r));
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
        __m256i, __m512i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mullo_epi32,
        _mm256_set1_epi32, _mm256_setzero_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_loadu_si512,
        _mm512_madd_epi16, _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
    };

    use super::{COLUMNS, Digit, Job, Pair, ROWS, Tile};

    /// Steps in depth whose sums the AVX-512 kernel keeps apart, so that additions need not wait.
    const STEPS: usize = 4;

    /// AVX2.
    #[derive(Clone, Copy)]
    pub struct Avx2 {
        whole: bool,
    }

    impl Avx2 {
        /// If the processor has AVX2: one that multiplies whole integers, or digits.
        pub fn new(whole: bool) -> Option<Self> {
            is_x86_feature_detected!("avx2").then_some(Avx2 { whole })
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
            if self.whole { "avx2, 32-bit products" } else { "avx2" }
        }

        fn whole(&self) -> bool {
            self.whole
        }

        fn run(&self, job: impl Job) {
            // SAFETY: `new` has found AVX2.
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
            // SAFETY: `new` has found AVX2.
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
        whole: bool,
    }

    impl Avx512 {
        /// If the processor has AVX-512 F, BW and DQ: one that multiplies whole integers, or digits.
        pub fn new(whole: bool) -> Option<Self> {
            let all = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            all.then_some(Avx512 { whole })
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
        fn inside(job: impl Job) {
            job.work();
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        fn tile<D: Digit>(left: &[[Pair; ROWS]], right: &[[Pair; COLUMNS]], sums: &mut [[i32; COLUMNS]; ROWS]) {
            let left = &left[..right.len()];
            let mut acc = [[_mm512_setzero_si512(); ROWS]; STEPS];
            let (whole, rest) = right.as_chunks::<STEPS>();
            let step = |i: usize, r: &[Pair; COLUMNS], acc: &mut [__m512i; ROWS]| {
                // SAFETY: a row of 16 columns is as long as the register.
                let r = unsafe { _mm512_loadu_si512(r.as_ptr().cast()) };
                for (acc, l) in acc.iter_mut().zip(left[i]) {
                    let l = _mm512_set1_epi32(l as i32);
                    let product = if D::DEPTH == 1 { _mm512_mullo_epi32(l, r) } else { _mm512_madd_epi16(l, r) };
                    *acc = _mm512_add_epi32(*acc, product);
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
            if self.whole { "avx512, 32-bit products" } else { "avx512" }
        }

        fn whole(&self) -> bool {
            self.whole
        }

        fn run(&self, job: impl Job) {
            // SAFETY: `new` has found AVX-512 F, BW and DQ.
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
            // SAFETY: `new` has found AVX-512 F and BW.
            unsafe { Self::tile::<D>(left, right, sums) }
        }
    }
}
