//! Interpolation along one axis: `y[o] = (1 - w) x[low] + w x[high]`.
//!
//! In fixed point with `b` bits the factors are `2^b - r` and `r = round(2^b w)`. They add up to
//! `2^b`, so a result lies between its two elements as the real one does, and differs from it by at
//! most `2^-(b + 1) |x[high] - x[low]|`; not at all where every `2^b w` is an integer.

use serde::{Deserialize, Serialize};

/// Where one element of a resampled axis comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Position of the one element.
    pub low: usize,
    /// Position of the other.
    pub high: usize,
    /// Share of the other, from 0 to 1; the one has the rest.
    pub weight: f64,
}

impl Sample {
    /// One element alone.
    pub fn at(position: usize) -> Self {
        Sample { low: position, high: position, weight: 0.0 }
    }

    /// Factors of the two elements with `bits` bits; their sum is `2^bits`.
    pub fn factors(&self, bits: u8) -> [u64; 2] {
        let one = 1u64 << bits.min(62);
        let high = ((self.weight * one as f64).round() as u64).min(one);
        [one - high, high]
    }

    /// Whether it refers to an axis of `size` elements and weighs sensibly.
    pub fn fits(&self, size: usize) -> bool {
        self.low < size && self.high < size && (0.0..=1.0).contains(&self.weight)
    }

    /// The value between two elements.
    pub fn between(&self, low: f64, high: f64) -> f64 {
        low + self.weight * (high - low)
    }
}

/// Resamples an axis of a tensor of shape `shape`, row-major; `between` mixes the two elements of a sample.
///
/// # Panics
/// Where the tensor has another shape, or a sample lies outside of the axis.
pub fn resample<T: Copy>(
    x: &[T],
    shape: &[usize],
    axis: usize,
    samples: &[Sample],
    between: impl Fn(&Sample, T, T) -> T,
) -> Vec<T> {
    let inner: usize = shape[axis + 1..].iter().product();
    let mut y = Vec::with_capacity(x.len() / shape[axis] * samples.len());
    for slab in x.chunks_exact(shape[axis] * inner) {
        for s in samples {
            let row = |p: usize| &slab[p * inner..(p + 1) * inner];
            y.extend(row(s.low).iter().zip(row(s.high)).map(|(a, b)| between(s, *a, *b)));
        }
    }
    y
}

/// Fewest bits, at most `most`, with which all factors are exact.
pub fn exact_bits(samples: &[Sample], most: u8) -> Option<u8> {
    let exact = |bits: u8| samples.iter().all(|s| (s.weight * f64::from(bits).exp2()).fract() == 0.0);
    (0..=most).find(|b| exact(*b))
}

/// Whether every one of `size` elements has a part in some sample.
pub fn covers(samples: &[Sample], size: usize) -> bool {
    let mut seen = vec![false; size];
    for s in samples.iter().filter(|s| s.fits(size)) {
        seen[s.low] |= s.weight < 1.0;
        seen[s.high] |= s.weight > 0.0;
    }
    !seen.contains(&false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_complementary_and_near() {
        for i in 0..=300 {
            let s = Sample { low: 0, high: 1, weight: f64::from(i) / 300.0 };
            for bits in [0, 1, 6, 12, 20] {
                let [low, high] = s.factors(bits);
                assert_eq!(low + high, 1 << bits);
                assert!((high as f64 / f64::from(bits).exp2() - s.weight).abs() <= f64::from(bits + 1).exp2().recip());
            }
        }
        let of = |weights: &[f64]| -> Vec<Sample> {
            weights.iter().map(|w| Sample { low: 0, high: 1, weight: *w }).collect()
        };
        assert_eq!(exact_bits(&of(&[0.0, 1.0]), 12), Some(0));
        assert_eq!(exact_bits(&of(&[0.25, 0.5]), 12), Some(2));
        assert_eq!(exact_bits(&of(&[1.0 / 3.0]), 12), None);
        assert!(covers(&of(&[0.5]), 2) && !covers(&of(&[1.0]), 2) && !covers(&of(&[0.5]), 3));
    }
}
