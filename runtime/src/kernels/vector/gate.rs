//! Gates row by row: what belongs to the block of each pixel is spread over a row first, where blocks are
//! larger than a pixel, and serves all rows of the blocks.

use std::ops::Range;

use bcc_ir::program::BlockMap;

use super::LANES;
use crate::element::Element;
use crate::kernels::Select;
use crate::kernels::blocks::{bit, spread_word, word_at};
use crate::scratch::Scratch;

/// Pixels that 1x1 blocks are worked on at a time.
const PART: usize = 8 * LANES;

/// Rows of a channel that share their blocks: pixels of each row, of which there are `rows` one behind the
/// other, and the blocks across.
struct Band {
    pixels: Range<usize>,
    rows: usize,
    blocks: Range<usize>,
    /// Width of a block.
    block: usize,
}

/// Calls `f` with every band; maps of 1x1 blocks are cut into parts of [`PART`] pixels instead.
#[inline(always)]
fn for_bands(map: &BlockMap, mut f: impl FnMut(Band)) {
    let [height, width] = map.map;
    let (mut block, mut pixel) = (0, 0);
    for &[bh, bw] in &map.blocks {
        let end = pixel + height * width;
        if [bh, bw] == [1, 1] {
            while pixel < end {
                let n = PART.min(end - pixel);
                f(Band { pixels: pixel..pixel + n, rows: 1, blocks: block..block + n, block: 1 });
                (pixel, block) = (pixel + n, block + n);
            }
        } else {
            let across = width.div_ceil(bw);
            for y in (0..height).step_by(bh) {
                let rows = bh.min(height - y);
                f(Band { pixels: pixel..pixel + width, rows, blocks: block..block + across, block: bw });
                (pixel, block) = (pixel + rows * width, block + across);
            }
        }
    }
}

/// Spreads values of blocks over the pixels of a row.
#[inline(always)]
fn spread<E: Element>(block: usize, values: impl Iterator<Item = E>, row: &mut [E]) {
    if block == 1 {
        row.iter_mut().zip(values).for_each(|(y, v)| *y = v);
    } else {
        row.chunks_mut(block).zip(values).for_each(|(y, v)| y.fill(v));
    }
}

/// All ones where the bit of a block is set, for every pixel of a row.
#[inline(always)]
fn spread_bits<E: Element>(band: &Band, plane: &[u64], row: &mut [E]) {
    if band.block == 1 {
        for (i, row) in row.chunks_mut(64).enumerate() {
            spread_word(word_at(plane, band.blocks.start + 64 * i), row);
            row.iter_mut().for_each(|y| *y = y.neg());
        }
        return;
    }
    spread(band.block, band.blocks.clone().map(|b| E::of(bit(plane, b)).neg()), row);
}

/// [`plain::gate::block_sum`](crate::kernels::plain::gate::block_sum).
#[inline(always)]
pub fn block_sum<E: Element>(bits: u8, map: &BlockMap, x: &[E], out: &mut [E]) {
    let m = E::mask(bits);
    let width = map.map[1];
    let mut sums = Scratch::<E>::any(width);
    for_bands(map, |band| {
        let out = &mut out[band.blocks.clone()];
        if band.block == 1 && band.rows == 1 {
            for (y, x) in out.iter_mut().zip(&x[band.pixels.clone()]) {
                *y = *x & m;
            }
            return;
        }
        sums.fill(E::ZERO);
        for row in x[band.pixels.start..].chunks_exact(width).take(band.rows) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum = sum.plus(*x);
            }
        }
        for (y, sums) in out.iter_mut().zip(sums.chunks(band.block)) {
            *y = sums.iter().fold(E::ZERO, |a, b| a.plus(*b)) & m;
        }
    });
}

/// [`plain::gate::gate`](crate::kernels::plain::gate::gate).
#[inline(always)]
pub fn gate<E: Element>(map: &BlockMap, gate: &[u64], x: &[E], out: &mut [E]) {
    let mut keep = Scratch::<E>::any(PART.max(map.map[1]));
    for_bands(map, |band| {
        let n = band.pixels.len();
        let keep = &mut keep[..n];
        spread_bits(&band, gate, keep);
        for row in 0..band.rows {
            let pixels = band.pixels.start + row * n..band.pixels.end + row * n;
            for ((y, x), keep) in out[pixels.clone()].iter_mut().zip(&x[pixels]).zip(keep.iter()) {
                *y = *x & *keep;
            }
        }
    });
}

/// What a row of selections reads besides the pixels.
struct Row<'a, E> {
    k: u8,
    mask: E,
    public: bool,
    /// All ones where `delta` is set, by pixel.
    delta: &'a [E],
    /// Share of `rho`, by pixel.
    r: &'a [E],
}

/// [`plain::gate::select`](crate::kernels::plain::gate::select).
#[inline(always)]
pub fn select<E: Element>(moduli: [u8; 2], map: &BlockMap, public: bool, s: Select<'_, E>, out: &mut [E]) {
    let [k, l] = moduli;
    let size = PART.max(map.map[1]);
    let (mut deltas, mut shares) = (Scratch::<E>::any(size), Scratch::<E>::any(size));
    for_bands(map, |band| {
        let n = band.pixels.len();
        spread_bits(&band, s.delta, &mut deltas[..n]);
        let r = if band.block == 1 && band.rows == 1 {
            &s.r[band.blocks.clone()]
        } else {
            spread(band.block, s.r[band.blocks.clone()].iter().copied(), &mut shares[..n]);
            &shares[..n]
        };
        let row = Row { k, mask: E::mask(l), public, delta: &deltas[..n], r };
        for i in 0..band.rows {
            let p = band.pixels.start + i * n..band.pixels.end + i * n;
            let lift = s.lift.map(|lift| lift.map(|x| &x[p.clone()]));
            select_row(&row, &s.d[p.clone()], [&s.a[p.clone()], &s.ra[p.clone()]], lift, &mut out[p]);
        }
    });
}

#[inline(always)]
fn select_row<E: Element>(row: &Row<'_, E>, d: &[E], [a, ra]: [&[E]; 2], lift: Option<[&[E]; 3]>, out: &mut [E]) {
    let n = out.len();
    let (delta, r, d, a, ra) = (&row.delta[..n], &row.r[..n], &d[..n], &a[..n], &ra[..n]);
    let (k, bias, low) = (row.k, E::of(1) << (row.k - 2), E::mask(row.k));
    // Of a full ring `te` counts nothing.
    let unit = E::of(1).up(k);
    let own = if row.public { !E::ZERO } else { E::ZERO };
    let finish = |i: usize, value: E, a: E, ra: E| {
        let kept = (value & own).plus(a);
        let flipped = value.times(r[i]).plus(ra);
        flipped.plus(delta[i] & kept.minus(flipped).minus(flipped)) & row.mask
    };
    match lift {
        Some([w, ta, rta]) => {
            let (w, ta, rta) = (&w[..n], &ta[..n], &rta[..n]);
            for i in 0..n {
                let eps = d[i].plus(bias) & low;
                let te = eps >> (k - 1);
                let no_te = te.minus(E::of(1));
                let value = eps.minus(unit & te.neg()).minus(bias);
                let a = a[i].minus(w[i].plus(ta[i] & no_te) << k);
                let ra = ra[i].minus((rta[i] & no_te) << k);
                out[i] = finish(i, value, a, ra);
            }
        }
        None => {
            for i in 0..n {
                let eps = d[i].plus(bias) & low;
                let te = eps >> (k - 1);
                let value = eps.minus(unit & te.neg()).minus(bias);
                out[i] = finish(i, value, a[i], ra[i]);
            }
        }
    }
}
