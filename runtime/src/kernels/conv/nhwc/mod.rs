//! Convolutions by tiles of bytes whose rows are pixels and whose columns are output channels.
//!
//! Maps are held with their channels last (NHWC), 64 of them side by side as bytes of one digit: the row of a tile. What the
//! taps of a window read for 16 neighbouring outputs are then tiles that begin elsewhere in the same map, and are loaded
//! from there: nothing is gathered. Neighbours are taken across the ends of rows, with the padding between them, where that
//! makes fewer tiles; what is computed there is dropped.

mod grid;
mod maps;
mod weights;

use std::ops::Range;

use bcc_ir::geometry::ConvShape;
use bcc_ir::time::DEEP;
use rayon::prelude::*;

use self::grid::Block;
pub use self::grid::Grid;
use self::maps::Maps;
pub use self::weights::Weights;
use super::digits::{Scheme, Split};
use super::matrix::{Digit, portion};
use super::right::single;
use super::target::{self, Shared};
use super::tile::{COLUMNS, Job, Pair, Tile};
use super::window::{BYTE_ROWS, ByteOperands, ByteSums, GROUP};
use crate::element::Element;
use crate::scratch::Scratch;

/// Channels of an entry.
const DEPTH: usize = <u8 as Digit>::DEPTH;
/// Channels that lie side by side.
const CHUNK: usize = GROUP * DEPTH;
/// Most groups of a slice of the depth, and most tiles of weights: with the pixels they fill the first-level cache.
const GROUPS: usize = 9;
const TILES: usize = 36;
/// Most blocks of pixels of a task, which reads a panel's weights for all of them.
const BLOCKS: usize = 16;

// A sum in 32 bits has one product at most with each byte of a slice's weights.
const _: () = assert!(TILES * CHUNK * 255 * 255 < 1 << 31);

/// The layout of a convolution's maps, if it is computed so: windows of single pixels need no gathering, and few channels
/// would be padding for the most part.
pub fn grid(shape: &ConvShape) -> Option<Grid> {
    let suits = !single(&shape.window) && shape.in_channels / shape.groups.max(1) >= DEEP;
    suits.then(|| Grid::new(shape)).flatten()
}

/// Words of memory that maps of a group's channels take.
pub fn words(split: &Split, grid: &Grid) -> usize {
    grid.pixels * split.len() * GROUP * size_of::<Pair>() / size_of::<u64>()
}

/// Rows `rows` of the output channels of one group, which reads the maps `x`; `out` is theirs. They start at a multiple of
/// [`COLUMNS`].
pub fn product<T: Tile, E: Element>(
    tile: &T,
    (scheme, mask): (&Scheme, E),
    grid: &Grid,
    weights: &Weights,
    rows: Range<usize>,
    x: &[E],
    out: &mut [E],
) {
    assert!(rows.start.is_multiple_of(COLUMNS), "rows are taken panel by panel");
    let maps = Maps::new(tile, &scheme.left, grid, x);
    let panels = rows.start / COLUMNS..rows.end.div_ceil(COLUMNS);
    let blocks = grid.blocks.len();
    let tiles = blocks.div_ceil(BLOCKS);
    // Few tiles: share the channels among tasks too.
    let threads = rayon::current_num_threads();
    let parts = if threads == 1 { 1 } else { (4 * threads).div_ceil(tiles.max(1)).min(panels.len()) };
    let (all, out) = (grid.starts(scheme.left.len()), Shared::new(out));
    (0..tiles * parts).into_par_iter().for_each(|task| {
        let (t, part) = (task / parts, task % parts);
        tile.run(Rectangle {
            tile,
            scheme,
            mask,
            row: grid.step * scheme.left.len() * GROUP,
            maps: maps.entries(),
            starts: &all,
            taps: grid.taps(),
            blocks: &grid.blocks[portion(0..blocks, t, tiles)],
            weights,
            panels: portion(panels.clone(), part, parts),
            rows: rows.clone(),
            pixels: grid.outputs,
            out: &out,
        });
    });
}

/// Some pixels and output channels.
struct Rectangle<'a, T, E> {
    tile: &'a T,
    scheme: &'a Scheme,
    mask: E,
    /// The maps, from a pixel to the next output's, and where each group of the depth begins for the first output.
    maps: &'a [Pair],
    row: usize,
    starts: &'a [usize],
    /// Groups that a chunk of channels has.
    taps: usize,
    blocks: &'a [Block],
    weights: &'a Weights,
    panels: Range<usize>,
    /// Output channels that `out` has, each of so many pixels.
    rows: Range<usize>,
    pixels: usize,
    out: &'a Shared<'a, E>,
}

impl<T: Tile, E: Element> Job for Rectangle<'_, T, E> {
    #[inline(always)]
    fn work(self) {
        let mut tiles = Scratch::<[[E; COLUMNS]; BYTE_ROWS]>::any(self.panels.len() * self.blocks.len());
        let mut sums = ByteSums::zeros();
        let depth = self.starts.len();
        let slices = depth.div_ceil(GROUPS.min(TILES / self.scheme.right.len())).max(1);
        for i in 0..slices {
            let slice = portion(0..depth, i, slices);
            let mut tiles = tiles.iter_mut();
            for panel in self.panels.clone() {
                for (block, tile) in self.blocks.iter().zip(&mut tiles) {
                    if block.taps == (0..self.taps) {
                        self.add(block, panel, slice.clone(), slice.start == 0, &mut sums, tile);
                    } else {
                        self.add_some(block, panel, slice.clone(), &mut sums, tile);
                    }
                    if i + 1 == slices {
                        self.finish(block, panel, tile);
                    }
                }
            }
        }
    }
}

impl<T: Tile, E: Element> Rectangle<'_, T, E> {
    /// Adds what the groups of a slice give whose taps count.
    #[inline(always)]
    fn add_some(
        &self,
        block: &Block,
        panel: usize,
        slice: Range<usize>,
        sums: &mut ByteSums,
        tile: &mut [[E; COLUMNS]; BYTE_ROWS],
    ) {
        if slice.start == 0 {
            tile.as_flattened_mut().fill(E::ZERO);
        }
        for chunk in slice.start / self.taps..slice.end.div_ceil(self.taps) {
            let [start, end] = [block.taps.start, block.taps.end].map(|tap| chunk * self.taps + tap);
            let counts = start.max(slice.start)..end.min(slice.end);
            if !counts.is_empty() {
                self.add(block, panel, counts, false, sums, tile);
            }
        }
    }

    /// Adds what a slice gives to the sums of a tile, or writes it there if it is the first.
    #[inline(always)]
    fn add(
        &self,
        block: &Block,
        panel: usize,
        slice: Range<usize>,
        first: bool,
        sums: &mut ByteSums,
        tile: &mut [[E; COLUMNS]; BYTE_ROWS],
    ) {
        let digits = [self.scheme.left.len(), self.scheme.right.len()];
        let operands = ByteOperands {
            digits,
            left: &self.maps[block.pixel * digits[0] * GROUP..],
            starts: &self.starts[slice.clone()],
            row: self.row,
            right: self.weights.panel(panel, slice.clone()),
        };
        let own = Shared::new(tile.as_flattened_mut());
        let part = target::Rectangle { at: 0, rows: BYTE_ROWS, pixels: COLUMNS, columns: COLUMNS };
        // SAFETY: the tile is this task's.
        #[allow(unsafe_code)]
        let place = unsafe { own.place(part, first, self.mask) };
        for (i, window) in self.scheme.windows.iter().enumerate() {
            self.tile.multiply_bytes(window, operands, sums);
            self.tile.join_bytes(sums, window, &place, place.first() && i == 0);
        }
    }

    /// Writes a tile to the output.
    #[inline(always)]
    fn finish(&self, block: &Block, panel: usize, tile: &[[E; COLUMNS]; BYTE_ROWS]) {
        let row = panel * COLUMNS;
        let part = target::Rectangle {
            at: (row - self.rows.start) * self.pixels + block.output,
            rows: COLUMNS.min(self.rows.end - row),
            pixels: self.pixels,
            columns: block.valid.count_ones() as usize,
        };
        // SAFETY: tasks differ in their pixels or in their channels.
        #[allow(unsafe_code)]
        let place = unsafe { self.out.place(part, true, self.mask) };
        self.tile.spread(tile, block.valid, place);
    }
}
