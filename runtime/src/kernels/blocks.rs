//! Walks over the pixels of blocks.

use std::ops::Range;

use bcc_ir::program::BlockMap;

use crate::buffer::tail_mask;
use crate::element::Element;

/// Calls `f` with a block's number and a range of its pixels, for every row of every block; ranges
/// come in the order of the pixels.
#[inline(always)]
pub fn for_runs(map: &BlockMap, mut f: impl FnMut(usize, Range<usize>)) {
    let [height, width] = map.map;
    let (mut first_block, mut pixel) = (0, 0);
    for &[bh, bw] in &map.blocks {
        let across = width.div_ceil(bw);
        for y in 0..height {
            let row = first_block + y / bh * across;
            for bx in 0..across {
                let end = pixel + bw.min(width - bx * bw);
                f(row + bx, pixel..end);
                pixel = end;
            }
        }
        first_block += across * height.div_ceil(bh);
    }
}

/// Bit `i` of a plane, 0 or 1.
#[inline(always)]
pub fn bit(plane: &[u64], i: usize) -> u64 {
    plane[i / 64] >> (i % 64) & 1
}

/// Up to 64 bits of a plane from `start` on, zeros behind its end.
#[inline(always)]
pub fn word_at(plane: &[u64], start: usize) -> u64 {
    let (first, shift) = (start / 64, start % 64);
    let word = |i: usize| plane.get(i).copied().unwrap_or(0);
    if shift == 0 { word(first) } else { word(first) >> shift | word(first + 1) << (64 - shift) }
}

/// An element for each of the lowest bits of a word, as many as there is room for: 0 or 1.
#[inline(always)]
pub fn spread_word<E: Element>(word: u64, out: &mut [E]) {
    // Halves, which processors shift by different counts at a time.
    for (half, out) in [word as u32, (word >> 32) as u32].into_iter().zip(out.chunks_mut(32)) {
        out.iter_mut().zip(0u32..).for_each(|(y, i)| *y = E::signed((half >> i & 1) as i32));
    }
}

/// The bits of a range of a plane, from the first bit of `out` on, zeros behind.
pub fn shifted(plane: &[u64], range: Range<usize>, out: &mut [u64]) {
    out.iter_mut().enumerate().for_each(|(i, y)| *y = word_at(plane, range.start + 64 * i));
    if let Some(last) = out.last_mut() {
        *last &= tail_mask(range.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_a_range() {
        let plane = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 0x5555];
        for range in [0..64, 0..1, 3..64, 3..68, 63..129, 64..150, 130..192] {
            let mut out = vec![u64::MAX; range.len().div_ceil(64)];
            shifted(&plane, range.clone(), &mut out);
            assert!(range.clone().all(|i| bit(&plane, i) == bit(&out, i - range.start)), "{range:?}");
            assert!((range.len()..64 * out.len()).all(|i| bit(&out, i) == 0), "{range:?}");
        }
    }

    #[test]
    fn runs_number_blocks_row_by_row() {
        let map = BlockMap { map: [3, 5], blocks: vec![[2, 3], [1, 1], [9, 9]] };
        let mut ids = vec![usize::MAX; map.pixels()];
        for_runs(&map, |block, range| ids[range].fill(block));
        let first = [0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3];
        assert_eq!(ids[..15], first);
        assert!(ids[15..30].iter().copied().eq(4..19));
        assert!(ids[30..].iter().all(|b| *b == 19) && map.count() == 20);
    }
}
