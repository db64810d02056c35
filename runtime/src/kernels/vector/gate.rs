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

/// All bands; maps of 1x1 blocks are cut into parts of [`PART`] pixels instead. An iterator, as a closure for each band would
/// be compiled for no instruction set.
struct Bands<'a> {
    map: &'a BlockMap,
    channel: usize,
    /// Row of the channel, or pixel of one with 1x1 blocks.
    at: usize,
    block: usize,
    pixel: usize,
}

#[inline(always)]
fn bands(map: &BlockMap) -> Bands<'_> {
    Bands { map, channel: 0, at: 0, block: 0, pixel: 0 }
}

impl Iterator for Bands<'_> {
    type Item = Band;

    #[inline(always)]
    fn next(&mut self) -> Option<Band> {
        let [height, width] = self.map.map;
        let [bh, bw] = *self.map.blocks.get(self.channel)?;
        let (single, pixel, block) = ([bh, bw] == [1, 1], self.pixel, self.block);
        let (end, step) = if single { (height * width, PART) } else { (height, bh) };
        let n = step.min(end - self.at);
        self.at += n;
        if self.at == end {
            (self.channel, self.at) = (self.channel + 1, 0);
        }
        let (rows, pixels, blocks) = if single { (1, n, n) } else { (n, width, width.div_ceil(bw)) };
        (self.pixel, self.block) = (pixel + rows * pixels, block + blocks);
        let block_width = if single { 1 } else { bw };
        Some(Band { pixels: pixel..pixel + pixels, rows, blocks: block..block + blocks, block: block_width })
    }
}

/// Spreads values of blocks over the pixels of a row.
#[inline(always)]
fn spread<E: Element>(block: usize, values: impl Iterator<Item = E>, row: &mut [E]) {
    if block == 1 {
        for (y, v) in row.iter_mut().zip(values) {
            *y = v;
        }
        return;
    }
    for (y, v) in row.chunks_mut(block).zip(values) {
        for y in y {
            *y = v;
        }
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
    for band in bands(map) {
        let out = &mut out[band.blocks.clone()];
        if band.block == 1 && band.rows == 1 {
            for (y, x) in out.iter_mut().zip(&x[band.pixels.clone()]) {
                *y = *x & m;
            }
            continue;
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
    }
}

/// [`plain::gate::gate`](crate::kernels::plain::gate::gate).
#[inline(always)]
pub fn gate<E: Element>(map: &BlockMap, gate: &[u64], x: &[E], out: &mut [E]) {
    let mut keep = Scratch::<E>::any(PART.max(map.map[1]));
    for band in bands(map) {
        let n = band.pixels.len();
        let keep = &mut keep[..n];
        spread_bits(&band, gate, keep);
        for row in 0..band.rows {
            let pixels = band.pixels.start + row * n..band.pixels.end + row * n;
            for ((y, x), keep) in out[pixels.clone()].iter_mut().zip(&x[pixels]).zip(keep.iter()) {
                *y = *x & *keep;
            }
        }
    }
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
    for band in bands(map) {
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
    }
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
