//! Convolution as a blocked matrix product of digits.
//!
//! Weights are the left matrix, `out_group x depth` with `depth` one column per input channel and tap; the
//! right matrix, `depth x pixels`, exists only as panels of one tile of output pixels and one slice of the
//! depth. Tiles are independent tasks.

use std::marker::PhantomData;
use std::ops::Range;

use bcc_ir::geometry::ConvShape;
use rayon::prelude::*;
use zeroize::Zeroize;

use super::digits::{SLICE, Scheme, Split, Term};
use super::matrix::Digit;
use super::right::{Right, TILE};
use super::tile::{COLUMNS, Job, Pair, ROWS, Tile};
use crate::element::{Element, Width};
use crate::scratch::Scratch;

/// The left matrix of a group as planes of digits. Rows are padded to a whole number of [`ROWS`]; a plane
/// holds slice after slice of the depth, each [`ROWS`] rows after the other, and of these one entry of each row, then
/// the next ones, as the product reads them.
struct Left {
    entries: Scratch<Pair>,
    /// Entries of a row.
    depth: usize,
    /// Rows, padded.
    rows: usize,
}

/// A digit of one slice of all rows.
struct OneSlice<'a, D, E> {
    split: &'a Split,
    digit: usize,
    w: &'a [E],
    depth: usize,
    first: usize,
    /// Entries of a row in this slice.
    entries: usize,
    to: &'a mut [Pair],
    of: PhantomData<D>,
}

impl<D: Digit, E: Element> Job for OneSlice<'_, D, E> {
    #[inline(always)]
    fn work(self) {
        let mut digits = [D::zeroed(); SLICE];
        let panels = self.to.chunks_exact_mut(self.entries * ROWS).zip(self.w.chunks(self.depth * ROWS));
        for (to, rows) in panels {
            for (row, w) in rows.chunks_exact(self.depth).enumerate() {
                let w = &w[self.first..self.depth.min(self.first + SLICE)];
                let digits = &mut digits[..w.len()];
                D::write(self.split, self.digit, w, digits);
                let places = to.iter_mut().skip(row).step_by(ROWS);
                places.zip(digits.chunks(D::DEPTH)).for_each(|(y, d)| *y = D::entry(d));
            }
        }
        bytemuck::cast_slice_mut::<D, u8>(&mut digits).zeroize();
    }
}

impl Left {
    fn new<D: Digit, T: Tile, E: Element>(tile: &T, split: &Split, w: &[E], rows: usize, depth: usize) -> Left {
        let padded = rows.next_multiple_of(ROWS);
        let plane = padded * depth.div_ceil(D::DEPTH);
        let mut entries = Scratch::zeros(split.len() * plane);
        for (digit, plane) in entries.chunks_exact_mut(plane).enumerate() {
            plane.par_chunks_mut(padded * D::ENTRIES).enumerate().for_each(|(i, to)| {
                let entries = to.len() / padded;
                let of = PhantomData::<D>;
                tile.run(OneSlice { split, digit, w, depth, first: i * SLICE, entries, to, of });
            });
        }
        Left { entries, depth: depth.div_ceil(D::DEPTH), rows: padded }
    }

    /// [`ROWS`] rows of a digit in a slice.
    #[inline(always)]
    fn panel(&self, digit: usize, panel: usize, slice: Range<usize>) -> &[[Pair; ROWS]] {
        let n = slice.len();
        let first = (digit * self.depth + slice.start) * self.rows + panel * ROWS * n;
        self.entries[first..first + ROWS * n].as_chunks().0
    }
}

/// The output, written by tasks at places that do not overlap.
struct Shared<'a, E> {
    start: *mut E,
    len: usize,
    borrow: PhantomData<&'a mut [E]>,
}

// SAFETY: the pointer is only used in `Shared::add`, whose callers write disjoint places.
#[allow(unsafe_code)]
unsafe impl<E: Element> Sync for Shared<'_, E> {}

impl<E: Element> Shared<'_, E> {
    /// Adds `values` to the elements from `at` on, or writes them there if they are the `first`, and keeps the bits of
    /// `mask`.
    ///
    /// # Safety
    /// No two tasks may touch the same element at the same time.
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn add(&self, at: usize, first: bool, values: &[E], mask: E) {
        assert!(at + values.len() <= self.len, "a tile lies inside the output");
        // SAFETY: the range is inside the exclusively borrowed output, and by the function's
        // contract nobody else touches it now.
        let to = unsafe { std::slice::from_raw_parts_mut(self.start.add(at), values.len()) };
        if first {
            to.iter_mut().zip(values).for_each(|(y, v)| *y = *v & mask);
        } else {
            to.iter_mut().zip(values).for_each(|(y, v)| *y = y.plus(*v) & mask);
        }
    }
}

/// Weights of a convolution as the product reads them.
pub struct Arranged {
    bits: u8,
    shape: ConvShape,
    scheme: &'static Scheme,
    groups: Vec<Left>,
}

impl Arranged {
    /// Arranges `w`. `narrow` if all weights are integers of at most 16 bits with their sign.
    pub fn new<T: Tile, E: Element>(tile: &T, bits: u8, narrow: bool, shape: &ConvShape, w: &[E]) -> Arranged {
        let whole = tile.whole() && E::WIDTH == Width::Narrow;
        let scheme = if whole { Scheme::whole() } else { Scheme::of(bits, narrow) };
        let rows = shape.out_channels / shape.groups;
        let depth = shape.in_channels / shape.groups * shape.window.kernel[0] * shape.window.kernel[1];
        let left = |w: &[E]| match whole {
            true => Left::new::<u32, _, _>(tile, &scheme.left, w, rows, depth),
            false => Left::new::<i16, _, _>(tile, &scheme.left, w, rows, depth),
        };
        let groups = w.chunks_exact(rows * depth).map(left).collect();
        Arranged { bits, shape: *shape, scheme, groups }
    }

    /// Words of memory that a convolution with them takes beside operands and result, but for what each task does.
    pub fn working_words<E: Element>(&self) -> usize {
        let channels = self.shape.in_channels / self.shape.groups.max(1);
        match self.scheme.whole {
            true => Right::<u32, E>::words(&self.scheme.right, &self.shape, channels),
            false => Right::<i16, E>::words(&self.scheme.right, &self.shape, channels),
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
/// [`ROWS`] in their group.
pub fn product<T: Tile, E: Element>(tile: &T, weights: &Arranged, channels: Range<usize>, x: &[E], out: &mut [E]) {
    match weights.scheme.whole {
        true => product_of::<u32, T, E>(tile, weights, channels, x, out),
        false => product_of::<i16, T, E>(tile, weights, channels, x, out),
    }
}

fn product_of<D: Digit, T: Tile, E: Element>(
    tile: &T,
    weights: &Arranged,
    channels: Range<usize>,
    x: &[E],
    mut out: &mut [E],
) {
    let Arranged { bits, shape, scheme, groups } = weights;
    let Some([height, width]) = shape.output() else { return };
    let pixels = height * width;
    let (in_group, out_group) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let map = shape.input[0] * shape.input[1];
    let tiles = pixels.div_ceil(TILE);
    for (group, left) in groups.iter().enumerate() {
        let in_this = |c: usize| c.saturating_sub(group * out_group).min(out_group);
        let rows = in_this(channels.start)..in_this(channels.end);
        if rows.is_empty() {
            continue;
        }
        assert!(rows.start.is_multiple_of(ROWS), "rows are taken panel by panel");
        let (from, panels) = (rows.start / ROWS, rows.len().div_ceil(ROWS));
        // Few tiles: share the rows among tasks too, which read a right side that is packed before.
        let parts = (4 * rayon::current_num_threads()).div_ceil(tiles).min(panels.div_ceil(8)).max(1);
        let right =
            Right::<D, E>::new(tile, &scheme.right, shape, in_group, &x[group * in_group * map..][..in_group * map]);
        let (target, rest) = out.split_at_mut(rows.len() * pixels);
        out = rest;
        let target = Shared { start: target.as_mut_ptr(), len: target.len(), borrow: PhantomData };
        let rectangle = |t: usize, part: usize| Rectangle {
            tile,
            scheme,
            mask: E::mask(*bits),
            left,
            right: &right,
            packed: None,
            target: &target,
            rows: rows.clone(),
            pixels,
            panels: from + part * panels / parts..from + (part + 1) * panels / parts,
            columns: t * TILE..pixels.min((t + 1) * TILE),
        };
        if parts == 1 {
            (0..tiles).into_par_iter().for_each(|t| tile.run(rectangle(t, 0)));
            continue;
        }
        for t in 0..tiles {
            let count = TILE.min(pixels - t * TILE);
            let row = scheme.right.len() * count.div_ceil(COLUMNS);
            let mut packed = Scratch::<[Pair; COLUMNS]>::any(row * left.depth);
            packed.par_chunks_mut(row * D::ENTRIES).enumerate().for_each(|(i, to)| {
                let entries = i * D::ENTRIES..i * D::ENTRIES + to.len() / row;
                tile.run(OnePack { right: &right, entries, first: t * TILE, count, to });
            });
            let packed = Some(&packed[..]);
            (0..parts).into_par_iter().for_each(|part| tile.run(Rectangle { packed, ..rectangle(t, part) }));
        }
    }
}

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
        let (scheme, blocks) = (self.scheme, count.div_ceil(COLUMNS));
        let row = scheme.right.len() * blocks;
        let own = if self.packed.is_some() { 0 } else { row * D::ENTRIES.min(self.left.depth) };
        let mut own = Scratch::<[Pair; COLUMNS]>::any(own);
        for start in (0..self.left.depth).step_by(D::ENTRIES) {
            let slice = start..(start + D::ENTRIES).min(self.left.depth);
            let packed = match self.packed {
                Some(all) => &all[row * slice.start..row * slice.end],
                None => {
                    self.right.pack(slice.clone(), first, count, &mut own);
                    &own
                }
            };
            for block in 0..blocks {
                for panel in self.panels.clone() {
                    self.add_tile(packed, blocks, block, panel, slice.clone());
                }
            }
        }
    }
}

impl<D: Digit, T: Tile, E: Element> Rectangle<'_, D, T, E> {
    /// Adds what a slice gives for one panel of rows and one block of columns.
    #[inline(always)]
    fn add_tile(&self, packed: &[[Pair; COLUMNS]], blocks: usize, block: usize, panel: usize, slice: Range<usize>) {
        let used = COLUMNS.min(self.columns.len() - block * COLUMNS);
        let add = |term: &Term, sums: &mut [[i32; COLUMNS]; ROWS]| {
            for &[l, r] in &term.pairs {
                let right = &packed[(r * blocks + block) * slice.len()..][..slice.len()];
                self.tile.multiply::<D>(self.left.panel(l, panel, slice.clone()), right, used, sums);
            }
        };
        let mut sums = [[E::ZERO; COLUMNS]; ROWS];
        for term in &self.scheme.exact {
            let mut part = [[0i32; COLUMNS]; ROWS];
            add(term, &mut part);
            shift_in(&mut sums, &part, term.shift);
        }
        if let Some((first, rest)) = self.scheme.wrapping.split_first() {
            let mut low = [[0i32; COLUMNS]; ROWS];
            add(first, &mut low);
            for term in rest {
                let mut part = [[0i32; COLUMNS]; ROWS];
                add(term, &mut part);
                let shift = term.shift - first.shift;
                for (y, p) in low.iter_mut().zip(&part) {
                    y.iter_mut().zip(p).for_each(|(y, p)| *y = y.wrapping_add(p << shift));
                }
            }
            shift_in(&mut sums, &low, first.shift);
        }
        let first = panel * ROWS;
        for (r, sums) in sums.iter().enumerate().take(self.rows.end - first) {
            let at = (first + r - self.rows.start) * self.pixels + self.columns.start + block * COLUMNS;
            // SAFETY: tasks differ in their pixels or in their rows.
            #[allow(unsafe_code)]
            unsafe {
                self.target.add(at, slice.start == 0, &sums[..used], self.mask);
            }
        }
    }
}

/// `sums += part 2^shift`.
#[inline(always)]
fn shift_in<E: Element>(sums: &mut [[E; COLUMNS]; ROWS], part: &[[i32; COLUMNS]; ROWS], shift: u8) {
    for (y, p) in sums.iter_mut().zip(part) {
        y.iter_mut().zip(p).for_each(|(y, p)| *y = y.plus(E::signed(*p) << shift));
    }
}
