//! Maps with their channels last.

use std::ops::Range;

use rayon::prelude::*;

use super::grid::Grid;
use super::{CHUNK, DEPTH, GROUP};
use crate::element::Element;
use crate::kernels::conv::digits::{MOST, Split};
use crate::kernels::conv::matrix::{DEEPEST, Digit};
use crate::kernels::conv::right::rows_at;
use crate::kernels::conv::tile::{COLUMNS, Job, Pair, Tile};
use crate::kernels::conv::window::BYTE_ROWS;
use crate::scratch::Scratch;
use crate::words::erase;

/// Rows of a map that a task makes.
const ROWS: usize = 4;

/// The maps of a group's channels on a [`Grid`]: of every pixel digit after digit, each of them a byte of [`CHUNK`] channels.
pub struct Maps(Scratch<[Pair; GROUP]>);

// As many channels side by side as pixels: squares are transposed.
const _: () = assert!(GROUP == COLUMNS && BYTE_ROWS == COLUMNS);

impl Maps {
    /// Of `x`.
    pub fn new<T: Tile, E: Element>(tile: &T, split: &Split, grid: &Grid, x: &[E]) -> Maps {
        let digits = split.len();
        // What is behind the maps is read for pixels that are dropped.
        let mut all = Scratch::any(grid.pixels * digits);
        let channels = x.par_chunks(CHUNK * grid.input.iter().product::<usize>());
        all.par_chunks_mut(grid.plane * digits).zip(channels).for_each(|(to, x)| {
            let (before, to) = to.split_at_mut(grid.before * digits);
            before.fill([0; GROUP]);
            let bands = to.par_chunks_mut(ROWS * grid.pitch * digits).enumerate();
            bands.for_each(|(i, to)| {
                let places = ROWS * i..grid.kinds * grid.rows;
                tile.run(Band { tile, split, grid, x, places, to });
            });
        });
        Maps(all)
    }

    /// All entries.
    pub fn entries(&self) -> &[Pair] {
        self.0.as_flattened()
    }
}

/// Some rows of the maps of a chunk.
struct Band<'a, T, E> {
    tile: &'a T,
    split: &'a Split,
    grid: &'a Grid,
    /// The chunk's channels.
    x: &'a [E],
    /// The first row's place, and all behind it that there are.
    places: Range<usize>,
    to: &'a mut [[Pair; GROUP]],
}

impl<T: Tile, E: Element> Job for Band<'_, T, E> {
    #[inline(always)]
    fn work(self) {
        let Band { tile, split, grid, x, places, to } = self;
        let ([height, width], digits) = (grid.input, split.len());
        let mut tiles = [[[0; COLUMNS]; GROUP]; MOST];
        for (place, to) in places.zip(to.chunks_exact_mut(grid.pitch * digits)) {
            if !grid.read[place] {
                // But for the padding before the next row.
                to[(grid.pitch - grid.before) * digits..].fill([0; GROUP]);
                continue;
            }
            let Some(y) = grid.row_at(place).checked_sub(grid.top).filter(|y| *y < height) else {
                to.fill([0; GROUP]);
                continue;
            };
            let (to, padding) = to.split_at_mut(width * digits);
            padding.fill([0; GROUP]);
            for (i, to) in to.chunks_mut(COLUMNS * digits).enumerate() {
                for entry in 0..GROUP {
                    let mut spare = [[E::ZERO; COLUMNS]; DEEPEST];
                    let from = (DEPTH * entry * height + y) * width + i * COLUMNS;
                    let rows = rows_at::<u8, E>(x, from, height * width, &mut spare);
                    u8::cut(split, rows, &mut tiles.as_flattened_mut()[entry..], GROUP);
                }
                for (digit, entries) in tiles.iter().enumerate().take(digits) {
                    tile.transpose(entries, &mut to[digit..], digits);
                }
            }
        }
        erase(&mut tiles[..digits]);
    }
}
