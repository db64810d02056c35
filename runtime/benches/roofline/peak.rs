//! Products of 16-bit digits, and of 32-bit integers: the inner loops of convolutions on operands in the first-level
//! cache, and multiplications alone.
#![allow(unsafe_code)]

/// Rows and columns of sums that the loop keeps in registers, as the convolution's tile does.
pub const ROWS: usize = 4;
/// See [`ROWS`].
pub const COLUMNS: usize = 16;
/// Steps in depth, of two digits each.
const DEPTH: usize = 120;
/// Multiplications that do not wait for each other.
const CHAINS: usize = 12;
/// Multiplications in each of those in a call.
const STEPS: usize = 1000;

/// Operands: pairs of digits.
pub struct Operands {
    left: Vec<[u32; ROWS]>,
    right: Vec<[u32; COLUMNS]>,
}

impl Operands {
    /// Small digits.
    pub fn new() -> Operands {
        Operands { left: vec![[0x0003_0001; ROWS]; DEPTH], right: vec![[0x0002_fffe; COLUMNS]; DEPTH] }
    }
}

/// The loops for one instruction set.
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// Sums of products of digits, from the cache.
    pub sums: fn(&Operands) -> i32,
    /// Sums of products of 32-bit integers, from the cache: half as many.
    pub integers: fn(&Operands) -> i32,
    /// Products of digits in a call of `sums`.
    pub summed: usize,
    /// Multiplications alone, of a register by itself and a constant.
    pub products: Option<fn(i32) -> i32>,
    /// Products of digits in a call of `products`.
    pub multiplied: usize,
}

const SUMMED: usize = DEPTH * 2 * ROWS * COLUMNS;

/// All sets that the processor has.
pub fn sets() -> Vec<Set> {
    let mut all = vec![Set {
        name: "portable",
        sums: portable,
        integers: portable_integers,
        summed: SUMMED,
        products: None,
        multiplied: 0,
    }];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            // SAFETY: AVX2 was just found.
            let (sums, products) =
                (|o: &Operands| unsafe { x86::avx2::<false>(o) }, |v| unsafe { x86::avx2_products(v) });
            // SAFETY: as above.
            let integers = |o: &Operands| unsafe { x86::avx2::<true>(o) };
            let multiplied = 16 * CHAINS * STEPS;
            all.push(Set { name: "avx2", sums, integers, summed: SUMMED, products: Some(products), multiplied });
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            // SAFETY: AVX-512 F and BW were just found.
            let (sums, products) =
                (|o: &Operands| unsafe { x86::avx512::<false>(o) }, |v| unsafe { x86::avx512_products(v) });
            // SAFETY: as above.
            let integers = |o: &Operands| unsafe { x86::avx512::<true>(o) };
            let multiplied = 32 * CHAINS * STEPS;
            all.push(Set { name: "avx512", sums, integers, summed: SUMMED, products: Some(products), multiplied });
            if is_x86_feature_detected!("avx512vnni") {
                // SAFETY: AVX-512 F and VNNI were just found.
                let sums = |o: &Operands| unsafe { x86::vnni(o) };
                all.push(Set { name: "vnni", sums, integers, summed: SUMMED, products: None, multiplied: 0 });
            }
        }
    }
    all
}

fn portable(o: &Operands) -> i32 {
    let halves = |p: u32| (i32::from(p as i16), i32::from((p >> 16) as i16));
    let mut sums = [[0i32; COLUMNS]; ROWS];
    for (left, right) in o.left.iter().zip(&o.right) {
        for (sums, l) in sums.iter_mut().zip(left) {
            let (l0, l1) = halves(*l);
            for (y, r) in sums.iter_mut().zip(right) {
                let (r0, r1) = halves(*r);
                *y = y.wrapping_add(l0 * r0).wrapping_add(l1 * r1);
            }
        }
    }
    sums.as_flattened().iter().fold(0, |all, s| all.wrapping_add(*s))
}

fn portable_integers(o: &Operands) -> i32 {
    let mut sums = [[0u32; COLUMNS]; ROWS];
    for (left, right) in o.left.iter().zip(&o.right) {
        for (sums, l) in sums.iter_mut().zip(left) {
            sums.iter_mut().zip(right).for_each(|(y, r)| *y = y.wrapping_add(l.wrapping_mul(*r)));
        }
    }
    sums.as_flattened().iter().fold(0u32, |all, s| all.wrapping_add(*s)) as i32
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_extract_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mullo_epi32,
        _mm256_set1_epi32, _mm256_setzero_si256, _mm512_add_epi32, _mm512_dpwssd_epi32, _mm512_loadu_si512,
        _mm512_madd_epi16, _mm512_mullo_epi32, _mm512_reduce_add_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    };

    use super::{CHAINS, Operands, ROWS, STEPS};

    #[target_feature(enable = "avx2")]
    pub fn avx2<const INTEGERS: bool>(o: &Operands) -> i32 {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (left, right) in o.left.iter().zip(&o.right) {
            // SAFETY: a row of 16 columns holds two registers.
            let right: [__m256i; 2] =
                std::array::from_fn(|h| unsafe { _mm256_loadu_si256(right.as_ptr().add(8 * h).cast()) });
            for (sums, l) in sums.iter_mut().zip(left) {
                let l = _mm256_set1_epi32(*l as i32);
                for (sum, r) in sums.iter_mut().zip(right) {
                    let product = if INTEGERS { _mm256_mullo_epi32(l, r) } else { _mm256_madd_epi16(l, r) };
                    *sum = _mm256_add_epi32(*sum, product);
                }
            }
        }
        let all = sums.as_flattened().iter().fold(_mm256_setzero_si256(), |all, s| _mm256_add_epi32(all, *s));
        _mm256_extract_epi32::<0>(all)
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2_products(value: i32) -> i32 {
        let factor = _mm256_set1_epi32(value);
        let mut chains = [factor; CHAINS];
        for _ in 0..STEPS {
            chains.iter_mut().for_each(|c| *c = _mm256_madd_epi16(*c, factor));
        }
        _mm256_extract_epi32::<0>(chains.iter().fold(factor, |all, c| _mm256_add_epi32(all, *c)))
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn avx512<const INTEGERS: bool>(o: &Operands) -> i32 {
        // Sums of four steps apart, so that additions need not wait.
        let mut sums = [[_mm512_setzero_si512(); ROWS]; 4];
        for (left, right) in o.left.as_chunks::<4>().0.iter().zip(o.right.as_chunks::<4>().0) {
            for ((sums, left), right) in sums.iter_mut().zip(left).zip(right) {
                // SAFETY: a row of 16 columns is as long as the register.
                let right = unsafe { _mm512_loadu_si512(right.as_ptr().cast()) };
                for (sum, l) in sums.iter_mut().zip(left) {
                    let l = _mm512_set1_epi32(*l as i32);
                    let product = if INTEGERS { _mm512_mullo_epi32(l, right) } else { _mm512_madd_epi16(l, right) };
                    *sum = _mm512_add_epi32(*sum, product);
                }
            }
        }
        let all = sums.as_flattened().iter().fold(_mm512_setzero_si512(), |all, s| _mm512_add_epi32(all, *s));
        _mm512_reduce_add_epi32(all)
    }

    /// As [`avx512`], of digits, summed up by the instruction that multiplies.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni(o: &Operands) -> i32 {
        let mut sums = [[_mm512_setzero_si512(); ROWS]; 4];
        for (left, right) in o.left.as_chunks::<4>().0.iter().zip(o.right.as_chunks::<4>().0) {
            for ((sums, left), right) in sums.iter_mut().zip(left).zip(right) {
                // SAFETY: a row of 16 columns is as long as the register.
                let right = unsafe { _mm512_loadu_si512(right.as_ptr().cast()) };
                for (sum, l) in sums.iter_mut().zip(left) {
                    *sum = _mm512_dpwssd_epi32(*sum, _mm512_set1_epi32(*l as i32), right);
                }
            }
        }
        let all = sums.as_flattened().iter().fold(_mm512_setzero_si512(), |all, s| _mm512_add_epi32(all, *s));
        _mm512_reduce_add_epi32(all)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn avx512_products(value: i32) -> i32 {
        let factor = _mm512_set1_epi32(value);
        let mut chains = [factor; CHAINS];
        for _ in 0..STEPS {
            chains.iter_mut().for_each(|c| *c = _mm512_madd_epi16(*c, factor));
        }
        _mm512_reduce_add_epi32(chains.iter().fold(factor, |all, c| _mm512_add_epi32(all, *c)))
    }
}
