//! Convolution as a blocked matrix product of digits.
//!
//! Weights are the left matrix, `out_group x depth` with `depth` one column per input channel and tap; the
//! right matrix, `depth x pixels`, exists only as panels of one tile of output pixels and one slice of the
//! depth. Tiles are independent tasks.

use std::marker::PhantomData;
use std::ops::Range;

use bcc_ir::geometry::ConvShape;
use rayon::prelude::*;

use super::digits::{MOST, Scheme, Split};
use super::matrix::{DEEPEST, Digit, Operands, portion};
use super::nhwc;
use super::right::{Right, block_at};
use super::target::{self, Shared};
use super::tile::{COLUMNS, Job, Pair, Products, Tile};
use super::window::{ByteSums, Rows};
use crate::element::Element;
use crate::scratch::Scratch;
use crate::words::erase;

/// The left matrix of a group as entries of digits: slice after slice of the depth, of each panel after panel of
/// [`Digit::ROWS`] rows, and of these group after group of entries, one digit after the other. An entry is of one tap and
/// as many channels as it has digits.
struct Left {
    entries: Scratch<Pair>,
    /// Entries of a row, padded.
    depth: usize,
    /// Rows, padded.
    rows: usize,
    digits: usize,
}

/// A panel of rows in one slice.
struct OnePanel<'a, D, E> {
    split: &'a Split,
    /// The rows, one after the other.
    w: &'a [E],
    /// Values of a row, of which each channel has so many.
    depth: usize,
    taps: usize,
    /// The entries of the slice.
    slice: Range<usize>,
    to: &'a mut [Pair],
    of: PhantomData<D>,
}

impl<D: Digit, E: Element> Job for OnePanel<'_, D, E> {
    #[inline(always)]
    fn work(self) {
        let (group, digits) = (D::group(self.slice.len()), self.split.len());
        let mut values = [[E::ZERO; COLUMNS]; DEEPEST];
        let mut entries = [[0; COLUMNS]; MOST];
        for (row, w) in self.w.chunks_exact(self.depth).enumerate() {
            for start in self.slice.clone().step_by(COLUMNS) {
                let n = COLUMNS.min(self.slice.end - start);
                for i in 0..n {
                    let (channels, tap) = ((start + i) / self.taps * D::DEPTH, (start + i) % self.taps);
                    for (c, values) in values.iter_mut().enumerate().take(D::DEPTH) {
                        values[i] = w.get((channels + c) * self.taps + tap).copied().unwrap_or(E::ZERO);
                    }
                }
                D::cut(self.split, values.each_ref(), &mut entries, 1);
                for (i, e) in (start - self.slice.start..).enumerate().take(n) {
                    let at = block_at(group, digits, 0, e / group * group) * D::ROWS;
                    for (digit, entries) in entries.iter().enumerate().take(digits) {
                        self.to[at + digit * group * D::ROWS + D::left_at(group, e % group, row)] = entries[i];
                    }
                }
            }
        }
        erase(&mut values);
        erase(&mut entries);
    }
}

impl Left {
    /// Of `w`, rows of so many channels with so many taps each.
    fn new<D: Digit, T: Tile, E: Element>(tile: &T, split: &Split, w: &[E], [channels, taps]: [usize; 2]) -> Left {
        let depth = channels * taps;
        let padded = (w.len() / depth).next_multiple_of(D::ROWS);
        let whole = (channels.div_ceil(D::DEPTH) * taps).next_multiple_of(D::WHOLE);
        let digits = split.len();
        let mut entries = Scratch::zeros(digits * padded * whole);
        cut_slices::<D, _>(&mut entries, digits * padded, whole).into_par_iter().for_each(|(slice, to)| {
            let panels = to.par_chunks_exact_mut(digits * D::ROWS * slice.len()).zip(w.par_chunks(depth * D::ROWS));
            panels.for_each(|(to, w)| {
                tile.run(OnePanel { split, w, depth, taps, slice: slice.clone(), to, of: PhantomData::<D> });
            });
        });
        Left { entries, depth: whole, rows: padded, digits }
    }

    /// A panel of `rows` rows in a slice.
    #[inline(always)]
    fn panel(&self, rows: usize, panel: usize, slice: Range<usize>) -> &[Pair] {
        let first = self.digits * (slice.start * self.rows + panel * rows * slice.len());
        &self.entries[first..][..self.digits * rows * slice.len()]
    }
}

/// Weights of a convolution as the product reads them.
pub struct Arranged {
    bits: u8,
    shape: ConvShape,
    scheme: &'static Scheme,
    groups: Groups,
}

/// The weights of each group.
enum Groups {
    /// The left matrix.
    Left(Vec<Left>),
    /// For pixels as rows, and how the maps are laid out.
    Nhwc(nhwc::Grid, Vec<nhwc::Weights>),
}

impl Arranged {
    /// Arranges `w`. `narrow` if all weights are integers of at most 16 bits with their sign.
    pub fn new<T: Tile, E: Element>(tile: &T, bits: u8, narrow: bool, shape: &ConvShape, w: &[E]) -> Arranged {
        let rows = shape.out_channels / shape.groups;
        let deep = [shape.in_channels / shape.groups, shape.window.kernel[0] * shape.window.kernel[1]];
        let groups = w.chunks_exact(rows * deep[0] * deep[1]);
        let products = tile.products(E::WIDTH);
        if products == Products::Bytes
            && let Some(grid) = nhwc::grid(shape)
        {
            let scheme = Scheme::of_bytes(Rows::Pixels, bits, narrow);
            let groups = groups.map(|w| nhwc::Weights::new(tile, &scheme.right, shape, w)).collect();
            return Arranged { bits, shape: *shape, scheme, groups: Groups::Nhwc(grid, groups) };
        }
        let scheme = match products {
            Products::Whole => Scheme::whole(),
            Products::Digits => Scheme::of(bits, narrow),
            Products::Bytes => Scheme::of_bytes(Rows::Channels, bits, narrow),
        };
        let left = |w: &[E]| match scheme.products {
            Products::Whole => Left::new::<u32, _, _>(tile, &scheme.left, w, deep),
            Products::Digits => Left::new::<i16, _, _>(tile, &scheme.left, w, deep),
            Products::Bytes => Left::new::<u8, _, _>(tile, &scheme.left, w, deep),
        };
        Arranged { bits, shape: *shape, scheme, groups: Groups::Left(groups.map(left).collect()) }
    }

    /// Words of memory that a convolution with them takes beside operands and result, but for what each task does.
    pub fn working_words<E: Element>(&self) -> usize {
        let channels = self.shape.in_channels / self.shape.groups.max(1);
        if let Groups::Nhwc(grid, _) = &self.groups {
            return nhwc::words(&self.scheme.left, grid);
        }
        match self.scheme.products {
            Products::Whole => Right::<u32, E>::words(&self.scheme.right, &self.shape, channels),
            Products::Digits => Right::<i16, E>::words(&self.scheme.right, &self.shape, channels),
            Products::Bytes => Right::<u8, E>::words(&self.scheme.right, &self.shape, channels),
        }
    }

    /// Output channels of the convolution.
    pub fn channels(&self) -> usize {
        self.shape.out_channels
    }

    /// Whether it was made for this convolution.
    pub fn fits(&self, bits: u8, shape: &ConvShape) -> bool {
        (self.bits, &self.shape) == (bits, shape)
    }
}

/// Some output channels of a convolution, reduced; `out`, theirs, may hold anything. They start at a multiple of
/// [`ROWS`](bcc_ir::program::steps::ROWS) in their group.
pub fn product<T: Tile, E: Element>(tile: &T, weights: &Arranged, channels: Range<usize>, x: &[E], out: &mut [E]) {
    let Arranged { bits, shape, scheme, groups } = weights;
    let mask = E::mask(*bits);
    match groups {
        Groups::Nhwc(grid, groups) => in_groups(shape, groups, channels, x, out, |weights, rows, x, out| {
            nhwc::product(tile, (scheme, mask), grid, weights, rows, x, out);
        }),
        Groups::Left(groups) => {
            in_groups(shape, groups, channels, x, out, |left, rows, x, out| match scheme.products {
                Products::Whole => product_of::<u32, T, E>(tile, (scheme, mask), shape, left, rows, x, out),
                Products::Digits => product_of::<i16, T, E>(tile, (scheme, mask), shape, left, rows, x, out),
                Products::Bytes => product_of::<u8, T, E>(tile, (scheme, mask), shape, left, rows, x, out),
            })
        }
    }
}

/// Has some output channels computed, those of each group by themselves, with its part of operands and result.
fn in_groups<E: Element, W>(
    shape: &ConvShape,
    groups: &[W],
    channels: Range<usize>,
    x: &[E],
    mut out: &mut [E],
    compute: impl Fn(&W, Range<usize>, &[E], &mut [E]),
) {
    let Some([height, width]) = shape.output() else { return };
    let out_group = shape.out_channels / shape.groups;
    let maps = shape.in_channels / shape.groups * shape.input[0] * shape.input[1];
    for (group, weights) in groups.iter().enumerate() {
        let in_this = |c: usize| c.saturating_sub(group * out_group).min(out_group);
        let rows = in_this(channels.start)..in_this(channels.end);
        if !rows.is_empty() {
            let (here, rest) = out.split_at_mut(rows.len() * height * width);
            out = rest;
            compute(weights, rows, &x[group * maps..][..maps], here);
        }
    }
}

/// Rows of the product of a group's left matrix and the maps `x`.
fn product_of<D: Digit, T: Tile, E: Element>(
    tile: &T,
    (scheme, mask): (&Scheme, E),
    shape: &ConvShape,
    left: &Left,
    rows: Range<usize>,
    x: &[E],
    out: &mut [E],
) {
    let pixels = out.len() / rows.len();
    let blocks = pixels.div_ceil(COLUMNS);
    let tiles = blocks.div_ceil(D::BLOCKS);
    // As many blocks of columns in each, or one more.
    let columns = |t: usize| {
        let blocks = portion(0..blocks, t, tiles);
        blocks.start * COLUMNS..pixels.min(blocks.end * COLUMNS)
    };
    assert!(rows.start.is_multiple_of(D::ROWS), "rows are taken panel by panel");
    let panels = rows.start / D::ROWS..rows.end.div_ceil(D::ROWS);
    // Few tiles: share the rows among tasks too, which read a right side that is packed before.
    let most = panels.len().div_ceil(ROWS_OF_TASK / D::ROWS);
    let parts = (2 * rayon::current_num_threads()).div_ceil(tiles).min(most).max(1);
    let right = Right::<D, E>::new(tile, &scheme.right, shape, shape.in_channels / shape.groups, x);
    let target = Shared::new(out);
    let rectangle = |t: usize, part: usize| Rectangle {
        tile,
        scheme,
        mask,
        left,
        right: &right,
        packed: None,
        target: &target,
        rows: rows.clone(),
        pixels,
        panels: portion(panels.clone(), part, parts),
        columns: columns(t),
    };
    if parts == 1 {
        (0..tiles).into_par_iter().for_each(|t| tile.run(rectangle(t, 0)));
        return;
    }
    for t in 0..tiles {
        let Range { start: first, end } = columns(t);
        let count = end - first;
        let row = scheme.right.len() * count.div_ceil(COLUMNS);
        let mut packed = Scratch::<[Pair; COLUMNS]>::any(row * left.depth);
        cut_slices::<D, _>(&mut packed, row, left.depth).into_par_iter().for_each(|(entries, to)| {
            tile.run(OnePack { right: &right, entries, first, count, to });
        });
        let packed = Some(&packed[..]);
        (0..parts).into_par_iter().for_each(|part| tile.run(Rectangle { packed, ..rectangle(t, part) }));
    }
}

/// What has so many values for each entry of a depth, slice by slice.
fn cut_slices<D: Digit, T>(mut all: &mut [T], each: usize, depth: usize) -> Vec<(Range<usize>, &mut [T])> {
    let cut = |slice: Range<usize>| {
        let (part, rest) = std::mem::take(&mut all).split_at_mut(each * slice.len());
        all = rest;
        (slice, part)
    };
    D::slices(depth).map(cut).collect()
}

/// Rows that a task has at least, where they are shared among tasks.
const ROWS_OF_TASK: usize = 32;

/// A slice of some columns of the right side.
struct OnePack<'a, D, E> {
    right: &'a Right<'a, D, E>,
    entries: Range<usize>,
    first: usize,
    count: usize,
    to: &'a mut [[Pair; COLUMNS]],
}

impl<D: Digit, E: Element> Job for OnePack<'_, D, E> {
    #[inline(always)]
    fn work(self) {
        self.right.pack(self.entries, self.first, self.count, self.to);
    }
}

/// Some rows and columns of the product.
struct Rectangle<'a, D, T, E> {
    tile: &'a T,
    scheme: &'a Scheme,
    mask: E,
    left: &'a Left,
    right: &'a Right<'a, D, E>,
    /// The columns of the right side, slice after slice, where they are shared by several tasks.
    packed: Option<&'a [[Pair; COLUMNS]]>,
    target: &'a Shared<'a, E>,
    /// Rows that the target has.
    rows: Range<usize>,
    /// Columns of the whole product.
    pixels: usize,
    panels: Range<usize>,
    columns: Range<usize>,
}

impl<D: Digit, T: Tile, E: Element> Job for Rectangle<'_, D, T, E> {
    #[inline(always)]
    fn work(self) {
        let (first, count) = (self.columns.start, self.columns.len());
        let blocks = count.div_ceil(COLUMNS);
        let row = self.scheme.right.len() * blocks;
        let own = if self.packed.is_some() { 0 } else { row * D::ENTRIES.min(self.left.depth) };
        let mut own = Scratch::<[Pair; COLUMNS]>::any(own);
        let mut sums = ByteSums::zeros();
        for slice in D::slices(self.left.depth) {
            let packed = match self.packed {
                Some(all) => &all[row * slice.start..row * slice.end],
                None => {
                    self.right.pack(slice.clone(), first, count, &mut own);
                    &own[..row * slice.len()]
                }
            };
            if D::KEEPS_ROWS {
                for panel in self.panels.clone() {
                    for block in 0..blocks {
                        self.add_tile(packed, [block, panel], slice.clone(), &mut sums);
                    }
                }
            } else {
                for block in 0..blocks {
                    for panel in self.panels.clone() {
                        self.add_tile(packed, [block, panel], slice.clone(), &mut sums);
                    }
                }
            }
        }
    }
}

impl<D: Digit, T: Tile, E: Element> Rectangle<'_, D, T, E> {
    /// Adds what a slice gives for one panel of rows and one block of columns.
    #[inline(always)]
    fn add_tile(
        &self,
        packed: &[[Pair; COLUMNS]],
        [block, panel]: [usize; 2],
        slice: Range<usize>,
        sums: &mut ByteSums,
    ) {
        let size = self.scheme.right.len() * slice.len();
        let right = &packed[block * size..][..size];
        let operands = Operands { left: self.left.panel(D::ROWS, panel, slice.clone()), right };
        let row = panel * D::ROWS;
        let part = target::Rectangle {
            at: (row - self.rows.start) * self.pixels + self.columns.start + block * COLUMNS,
            rows: D::ROWS.min(self.rows.end - row),
            pixels: self.pixels,
            columns: COLUMNS.min(self.columns.len() - block * COLUMNS),
        };
        // SAFETY: tasks differ in their pixels or in their rows.
        #[allow(unsafe_code)]
        let place = unsafe { self.target.place(part, slice.start == 0, self.mask) };
        D::add_tile(self.tile, self.scheme, operands, &place, sums);
    }
}
