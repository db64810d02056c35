//! Cuts elements into strips, and results into the parts that tasks write.

use std::ops::Range;

use bcc_ir::program::steps::{Fused, STRIP, block_map, grain};
use bcc_ir::program::{BlockMap, Code, Phase, Type};

use super::compile::{Compiled, Source};
use crate::buffer::{Buffer, stride};
use crate::wire;
use crate::words::Words;

/// Some elements, and the channels and blocks that they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    pub elements: Range<usize>,
    pub channels: Range<usize>,
    pub blocks: Range<usize>,
}

/// The strips of a step.
pub fn strips(code: &Code, phase: Phase, fused: &Fused) -> Vec<Strip> {
    let map = fused.map.and_then(|i| block_map(&code.phases[phase.index()][i].inst));
    match map {
        Some(map) => of_channels(map, grain(code, phase, fused)),
        None => {
            let strip = |start| Strip { elements: start..(start + STRIP).min(fused.len), channels: 0..0, blocks: 0..0 };
            (0..fused.len).step_by(STRIP).map(strip).collect()
        }
    }
}

/// As few channels as make a strip and end at the grain.
fn of_channels(map: &BlockMap, grain: usize) -> Vec<Strip> {
    let [height, width] = map.map;
    let mut all = Vec::new();
    let mut next = Strip { elements: 0..0, channels: 0..0, blocks: 0..0 };
    for (c, [h, w]) in map.blocks.iter().enumerate() {
        next.elements.end += height * width;
        next.channels.end = c + 1;
        next.blocks.end += height.div_ceil(*h) * width.div_ceil(*w);
        let last = c + 1 == map.blocks.len();
        if last || next.elements.len() >= STRIP && next.elements.end.is_multiple_of(grain) {
            let (elements, blocks) = (next.elements.end, next.blocks.end);
            all.push(next);
            next = Strip { elements: elements..elements, channels: c + 1..c + 1, blocks: blocks..blocks };
        }
    }
    all
}

/// The pieces of channels of `size` elements that a strip has: the channel, the elements of the strip, and those of
/// the channel.
pub fn channels(
    strip: &Range<usize>,
    size: usize,
) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> + use<> {
    let strip = strip.clone();
    let size = size.max(1);
    (strip.start / size..strip.end.div_ceil(size)).map(move |c| {
        let (from, to) = ((c * size).max(strip.start), ((c + 1) * size).min(strip.end));
        (c, from - strip.start..to - strip.start, from - c * size..to - c * size)
    })
}

/// A task's part of a buffer that is kept: elements, or planes.
pub struct Kept<'a> {
    rows: Vec<&'a mut [u64]>,
    /// Words are of planes, of elements, or there is one for each block.
    unit: Unit,
    /// Word of the whole where the part starts.
    start: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Element,
    Plane,
    Block,
}

impl Unit {
    /// The words of a strip in the whole.
    fn words(self, strip: &Strip) -> Range<usize> {
        match self {
            Unit::Element => strip.elements.clone(),
            Unit::Plane => strip.elements.start / 64..strip.elements.end.div_ceil(64),
            Unit::Block => strip.blocks.clone(),
        }
    }
}

impl<'a> Kept<'a> {
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The words of a strip in the part.
    pub fn range(&self, strip: &Strip) -> Range<usize> {
        let words = self.unit.words(strip);
        words.start - self.start..words.end - self.start
    }

    /// A strip's words of a row.
    pub fn words(&mut self, row: usize, strip: &Strip) -> &mut [u64] {
        let range = self.range(strip);
        &mut self.rows[row][range]
    }

    /// Takes the only row out, to be [put](Self::put) back.
    pub fn take(&mut self) -> &'a mut [u64] {
        std::mem::take(&mut self.rows[0])
    }

    pub fn put(&mut self, row: &'a mut [u64]) {
        self.rows[0] = row;
    }
}

/// A task's part of a message.
pub struct Packed<'a> {
    rows: Vec<&'a mut [u8]>,
    start: usize,
}

impl Packed<'_> {
    /// Writes a strip's elements.
    pub fn pack(&mut self, ty: Type, strip: &Strip, from: &[u64]) {
        let range =
            wire::place(ty, strip.elements.start) - self.start..wire::place(ty, strip.elements.end) - self.start;
        let rows = self.rows.iter_mut().map(|row| &mut row[range.clone()]);
        wire::pack_part(ty, strip.elements.len(), from, rows);
    }
}

/// Where a task's results go.
pub struct Outputs<'a> {
    pub kept: Vec<Kept<'a>>,
    pub packs: Vec<Packed<'a>>,
    /// Elements of its longest strip.
    pub longest: usize,
}

/// The words of a strip, `words` of a part in scratch memory.
pub fn read<'b>(
    source: &Source<'b>,
    kept: &'b [Kept<'_>],
    slots: &'b [Words],
    ty: Type,
    strip: &Strip,
    words: usize,
) -> &'b [u64] {
    match source {
        Source::Slot(i) => slots[*i].get(..words).unwrap_or(&slots[*i]),
        Source::Kept(i) => &kept[*i].rows[0][kept[*i].range(strip)],
        Source::Part(all) => match ty {
            Type::Ring { .. } => &all[strip.elements.clone()],
            Type::Bits { .. } => &all[Unit::Plane.words(strip)],
        },
        Source::Blocks(all) => &all[strip.blocks.clone()],
        Source::Whole(all) => all,
    }
}

/// Shares strips out to about `count` tasks, with their parts of what is kept and sent.
pub fn tasks<'a, 's>(
    strips: &'s [Strip],
    count: usize,
    compiled: &Compiled<'_>,
    kept: &'a mut [Buffer],
    sent: Vec<&'a mut [u8]>,
) -> Vec<(&'s [Strip], Outputs<'a>)> {
    let shares: Vec<&[Strip]> = strips.chunks(strips.len().div_ceil(count.max(1)).max(1)).collect();
    let mut tasks: Vec<(&[Strip], Outputs<'a>)> = Vec::with_capacity(shares.len());
    for strips in shares {
        let longest = strips.iter().map(|s| s.elements.len()).max().unwrap_or(0);
        tasks.push((strips, Outputs { kept: Vec::new(), packs: Vec::new(), longest }));
    }
    let elements = strips.last().map_or(0, |s| s.elements.end);
    for (buffer, ty) in kept.iter_mut().zip(&compiled.kept) {
        let (unit, row) = match *ty {
            Type::Ring { len, .. } if len == elements => (Unit::Element, len),
            Type::Ring { len, .. } => (Unit::Block, len),
            Type::Bits { len, .. } => (Unit::Plane, stride(len)),
        };
        let mut rows: Vec<&mut [u64]> = buffer.words_mut().chunks_mut(row.max(1)).collect();
        for (strips, outputs) in &mut tasks {
            let range = whole(strips, |s| unit.words(s));
            let rows = rows.iter_mut().map(|row| split(row, range.len())).collect();
            outputs.kept.push(Kept { rows, unit, start: range.start });
        }
    }
    for (bytes, ty) in sent.into_iter().zip(&compiled.sent) {
        let mut rows: Vec<&mut [u8]> = wire::rows(*ty, bytes).collect();
        for (strips, outputs) in &mut tasks {
            let range = whole(strips, |s| wire::place(*ty, s.elements.start)..wire::place(*ty, s.elements.end));
            let rows = rows.iter_mut().map(|row| split(row, range.len())).collect();
            outputs.packs.push(Packed { rows, start: range.start });
        }
    }
    tasks
}

/// From the first strip's start to the last one's end.
fn whole(strips: &[Strip], range: impl Fn(&Strip) -> Range<usize>) -> Range<usize> {
    match strips {
        [] => 0..0,
        [first, ..] => range(first).start..range(&strips[strips.len() - 1]).end,
    }
}

/// Takes the front of a row off.
fn split<'a, T>(row: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    let (front, rest) = std::mem::take(row).split_at_mut(len);
    *row = rest;
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_are_whole_channels_that_end_at_the_grain() {
        let map = BlockMap { map: [5, 5], blocks: [[2, 2], [5, 1], [1, 1]].repeat(200) };
        for grain in [8, 64] {
            let strips = of_channels(&map, grain);
            let (mut elements, mut channels, mut blocks) = (0, 0, 0);
            for s in &strips {
                assert_eq!((s.elements.start, s.channels.start, s.blocks.start), (elements, channels, blocks));
                (elements, channels, blocks) = (s.elements.end, s.channels.end, s.blocks.end);
                assert!(elements == 25 * channels && (elements.is_multiple_of(grain) || channels == 600));
            }
            assert!(strips.len() > 2 && (elements, blocks) == (map.pixels(), map.count()));
        }
    }

    #[test]
    fn pieces_of_channels_make_up_the_strip() {
        let pieces: Vec<_> = channels(&(70..205), 50).collect();
        let want = [(1, 0..30, 20..50), (2, 30..80, 0..50), (3, 80..130, 0..50), (4, 130..135, 0..5)];
        assert_eq!(pieces, want);
    }
}
