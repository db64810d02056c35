//! Weights as the right operand.

use std::ops::Range;

use bcc_ir::geometry::ConvShape;
use rayon::prelude::*;

use super::{CHUNK, DEPTH, GROUP};
use crate::element::Element;
use crate::kernels::conv::digits::{MOST, Split};
use crate::kernels::conv::matrix::{DEEPEST, Digit};
use crate::kernels::conv::tile::{COLUMNS, Job, Pair, Tile};
use crate::scratch::Scratch;
use crate::words::erase;

/// The weights of one group of a convolution: panel after panel of [`COLUMNS`] output channels, of each group after group of
/// entries, a tap of a chunk of channels, in each digit after digit.
pub struct Weights {
    entries: Scratch<[Pair; COLUMNS]>,
    /// Entries of a panel and of a group, all digits.
    panel: usize,
    group: usize,
}

impl Weights {
    /// Of `w`, one row of weights for each output channel.
    pub fn new<T: Tile, E: Element>(tile: &T, split: &Split, shape: &ConvShape, w: &[E]) -> Weights {
        let channels = shape.in_channels / shape.groups;
        let taps = shape.window.kernel.iter().product::<usize>();
        let group = split.len() * GROUP;
        let panel = channels.div_ceil(CHUNK) * taps * group;
        let rows = COLUMNS * channels * taps;
        let mut entries = Scratch::any(w.len().div_ceil(rows) * panel);
        entries.par_chunks_exact_mut(panel).zip(w.par_chunks(rows)).for_each(|(to, w)| {
            tile.run(Panel { split, w, channels, taps, to });
        });
        Weights { entries, panel, group }
    }

    /// Some groups of a panel.
    #[inline(always)]
    pub fn panel(&self, panel: usize, groups: Range<usize>) -> &[[Pair; COLUMNS]] {
        &self.entries[panel * self.panel..][groups.start * self.group..groups.end * self.group]
    }
}

/// A panel.
struct Panel<'a, E> {
    split: &'a Split,
    /// Rows of weights, at most [`COLUMNS`].
    w: &'a [E],
    /// Channels of a row, and weights of each.
    channels: usize,
    taps: usize,
    to: &'a mut [[Pair; COLUMNS]],
}

impl<E: Element> Job for Panel<'_, E> {
    #[inline(always)]
    fn work(self) {
        let Panel { split, w, channels, taps, to } = self;
        let digits = split.len();
        let mut values = [[E::ZERO; COLUMNS]; DEEPEST];
        let mut entries = [[0; COLUMNS]; MOST];
        for entry in 0..channels.div_ceil(CHUNK) * GROUP {
            for tap in 0..taps {
                for (c, values) in (DEPTH * entry..).zip(&mut values) {
                    values.fill(E::ZERO);
                    if c < channels {
                        let rows = w.chunks_exact(channels * taps);
                        values.iter_mut().zip(rows).for_each(|(v, row)| *v = row[c * taps + tap]);
                    }
                }
                u8::cut(split, values.each_ref(), &mut entries, 1);
                let group = (entry / GROUP * taps + tap) * digits * GROUP;
                for (digit, entries) in entries.iter().enumerate().take(digits) {
                    to[group + digit * GROUP + entry % GROUP] = *entries;
                }
            }
        }
        erase(&mut values);
        erase(&mut entries);
    }
}
