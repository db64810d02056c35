//! Resizing by separable filters, in the integer arithmetic of Pillow's `Image.resize`, so that a network sees the
//! pixels that it was trained on. Recent versions of Pillow resize columns before rows for some sizes; there pixels
//! differ by the rounding in between (one level for the bilinear filter).
//!
//! A result pixel at `i` has its centre at `c = (i + 1/2) * s` of the source, `s` the ratio of sizes. Its value is the
//! mean of the source pixels, weighted by the filter at distance `(j + 1/2 - c) / max(s, 1)`: when shrinking, the filter
//! widens with `s`, which is what avoids aliasing. Weights are rounded to 22 fraction bits, and rows are resized before
//! columns, each rounded to 8 bits.

use super::preprocess::Filter;

const BITS: u32 = 22;

/// Half the width of a filter, in pixels of the larger of source and result.
fn support(filter: Filter) -> f64 {
    match filter {
        Filter::Bicubic => 2.0,
        Filter::Bilinear | Filter::Nearest => 1.0,
    }
}

fn weight(filter: Filter, x: f64) -> f64 {
    let x = x.abs();
    match filter {
        // Keys' cubic with a = -1/2.
        Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        Filter::Bilinear if x < 1.0 => 1.0 - x,
        _ => 0.0,
    }
}

/// The source pixels of every result pixel on an axis: the first, and the weights from there on.
fn taps(filter: Filter, from: usize, to: usize) -> Vec<(usize, Vec<i64>)> {
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let reach = support(filter) * wide;
    let one = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - reach + 0.5).max(0.0) as usize;
        let end = ((center + reach + 0.5) as usize).min(from);
        let weights: Vec<f64> =
            (first..end).map(|j| weight(filter, (j as f64 - center + 0.5) * (1.0 / wide))).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |w: &f64| (w / sum * f64::from(1u32 << BITS)).round() as i64;
        (first, weights.iter().map(fixed).collect())
    };
    (0..to).map(one).collect()
}

/// Index in the source of every result index on an axis, for the nearest pixel. Where a centre falls between two pixels,
/// the rounding of repeated additions decides, as it does in Pillow.
pub(super) fn nearest(from: usize, to: usize) -> impl Iterator<Item = usize> + Clone {
    let step = from as f64 / to as f64;
    std::iter::successors(Some(0.5 * step), move |x| Some(x + step)).map(move |x| (x as usize).min(from - 1)).take(to)
}

/// Resizes interleaved 8-bit pixels of three channels from `from` (height, width) to `to`.
pub(super) fn resize(pixels: &[u8], from: [usize; 2], to: [usize; 2], filter: Filter) -> Vec<u8> {
    if filter == Filter::Nearest {
        let columns: Vec<usize> = nearest(from[1], to[1]).collect();
        let pixel = |y: usize, x: usize| &pixels[3 * (y * from[1] + x)..][..3];
        return nearest(from[0], to[0]).flat_map(|y| columns.iter().flat_map(move |&x| pixel(y, x))).copied().collect();
    }
    let rows = match from[1] == to[1] {
        true => pixels.to_vec(),
        false => along(pixels, [from[0], from[1], 3], to[1], &taps(filter, from[1], to[1])),
    };
    match from[0] == to[0] {
        true => rows,
        false => along(&rows, [1, from[0], 3 * to[1]], to[0], &taps(filter, from[0], to[0])),
    }
}

/// Resizes the middle axis of `[outer, n, inner]` to `to`.
fn along(pixels: &[u8], [outer, n, inner]: [usize; 3], to: usize, taps: &[(usize, Vec<i64>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(outer * to * inner);
    for slab in pixels.chunks_exact(n * inner) {
        for (first, weights) in taps {
            for c in 0..inner {
                let half = 1i64 << (BITS - 1);
                let sum =
                    weights.iter().enumerate().fold(half, |s, (j, w)| s + w * i64::from(slab[(first + j) * inner + c]));
                out.push((sum >> BITS).clamp(0, 255) as u8);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_pictures_stay() {
        let flat = vec![200u8; 3 * 7 * 5];
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Nearest] {
            for to in [[7, 5], [3, 2], [20, 31], [1, 1]] {
                assert_eq!(resize(&flat, [7, 5], to, filter), vec![200u8; 3 * to[0] * to[1]], "{filter:?} {to:?}");
            }
        }
    }

    /// Values that Pillow 13.0 gives, for sizes at which it resizes rows first, for the picture
    /// `p[y][x][c] = (37 y^2 + 11 x y + 5 x + 83 c) mod 256`.
    #[test]
    fn as_pillow() {
        let (h, w) = (9, 12);
        let value = |y: usize, x: usize, c: usize| ((37 * y * y + 11 * x * y + 5 * x + 83 * c) % 256) as u8;
        let pixels: Vec<u8> =
            (0..h).flat_map(|y| (0..w).flat_map(move |x| (0..3).map(move |c| value(y, x, c)))).collect();
        let sum = |to, filter| {
            let out = resize(&pixels, [h, w], to, filter);
            let weighted = out.iter().enumerate().map(|(i, v)| (i as u64 % 251 + 1) * u64::from(*v)).sum::<u64>();
            (out[..4].to_vec(), weighted)
        };
        for (to, filter, first, weighted) in PILLOW {
            assert_eq!(sum(*to, *filter), (first.to_vec(), *weighted), "{to:?} {filter:?}");
        }
    }

    /// Size, filter, the first four bytes, and the sum of all bytes times their position modulo 251, from 1.
    const PILLOW: &[([usize; 2], Filter, [u8; 4], u64)] = &[
        ([4, 5], Filter::Bilinear, [59, 108, 174, 72], 233436),
        ([4, 5], Filter::Bicubic, [53, 105, 179, 66], 233495),
        ([4, 5], Filter::Nearest, [53, 136, 219, 85], 229276),
        ([9, 6], Filter::Bilinear, [4, 87, 170, 13], 1690048),
        ([9, 6], Filter::Bicubic, [3, 86, 169, 12], 1689536),
        ([9, 6], Filter::Nearest, [5, 88, 171, 15], 1703958),
        ([20, 30], Filter::Bilinear, [0, 83, 166, 0], 28077514),
        ([20, 30], Filter::Bicubic, [0, 80, 163, 0], 28104120),
        ([20, 30], Filter::Nearest, [0, 83, 166, 0], 28095823),
        ([5, 17], Filter::Nearest, [0, 83, 166, 5], 4066926),
        ([9, 12], Filter::Bilinear, [0, 83, 166, 5], 4387301),
        ([9, 12], Filter::Bicubic, [0, 83, 166, 5], 4387301),
        ([9, 12], Filter::Nearest, [0, 83, 166, 5], 4387301),
    ];
}
