//! Cuts elements into strips, and results into the parts that tasks write.

use std::ops::Range;

use bcc_ir::program::steps::{Fused, STRIP, block_map, grain};
use bcc_ir::program::{BlockMap, Code, Phase, Type};

use super::compile::{Compiled, Source};
use crate::buffer::{Buffer, stride};
use crate::element::Element;
use crate::exec::compute::{Data, Target};
use crate::kernels::packed;
use crate::scratch::Scratch;
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

/// A task's part of a buffer that is kept.
pub enum Kept<'a, E> {
    /// Elements, or one for each block.
    Ring {
        /// The part.
        elements: &'a mut [E],
        /// There is one for each block.
        blocks: bool,
        /// Element of the whole where the part starts.
        start: usize,
    },
    /// Planes.
    Bits {
        /// The part of each.
        rows: Vec<&'a mut [u64]>,
        /// Word of a plane where the part starts.
        start: usize,
    },
}

/// Words of planes that hold the bits of a strip.
fn of_planes(strip: &Strip) -> Range<usize> {
    strip.elements.start / 64..strip.elements.end.div_ceil(64)
}

fn of_elements(strip: &Strip, blocks: bool) -> Range<usize> {
    if blocks { strip.blocks.clone() } else { strip.elements.clone() }
}

fn behind(range: Range<usize>, start: usize) -> Range<usize> {
    range.start - start..range.end - start
}

impl<'a, E: Element> Kept<'a, E> {
    /// The elements or the words of a strip in the part.
    pub fn range(&self, strip: &Strip) -> Range<usize> {
        match self {
            Kept::Ring { blocks, start, .. } => behind(of_elements(strip, *blocks), *start),
            Kept::Bits { start, .. } => behind(of_planes(strip), *start),
        }
    }

    /// Writes a strip's words of all planes, one behind the other.
    pub fn put_planes(&mut self, strip: &Strip, words: &[u64]) {
        let range = self.range(strip);
        if let Kept::Bits { rows, .. } = self {
            let planes = words.chunks_exact(range.len().max(1));
            rows.iter_mut().zip(planes).for_each(|(row, plane)| row[range.clone()].copy_from_slice(plane));
        }
    }

    /// The elements, or the words of the only plane, of a strip.
    pub fn data(&self, strip: &Strip) -> Data<'_, E> {
        let range = self.range(strip);
        match self {
            Kept::Ring { elements, .. } => Data::Ring(&elements[range]),
            Kept::Bits { rows, .. } => Data::Bits(&rows[0][range]),
        }
    }

    /// Takes what it is part of out, to be [put](Self::put) back: elements, or the only plane.
    pub fn take(&mut self) -> Target<'a, E> {
        match self {
            Kept::Ring { elements, .. } => Target::Ring(std::mem::take(elements)),
            Kept::Bits { rows, .. } => Target::Bits(std::mem::take(&mut rows[0])),
        }
    }

    pub fn put(&mut self, taken: Target<'a, E>) {
        match (self, taken) {
            (Kept::Ring { elements, .. }, Target::Ring(taken)) => *elements = taken,
            (Kept::Bits { rows, .. }, Target::Bits(taken)) => rows[0] = taken,
            _ => {}
        }
    }
}

/// A task's part of a message.
pub struct Packed<'a> {
    rows: Vec<&'a mut [u8]>,
    start: usize,
}

impl Packed<'_> {
    /// Writes a strip's elements.
    pub fn pack<E: Element>(&mut self, ty: Type, strip: &Strip, from: Data<'_, E>) {
        let range = behind(wire::place(ty, strip.elements.start)..wire::place(ty, strip.elements.end), self.start);
        let mut rows = self.rows.iter_mut().map(|row| &mut row[range.clone()]);
        match (ty, from) {
            (Type::Ring { bits, .. }, Data::Ring(from)) => rows.for_each(|row| packed::pack(bits, from, row)),
            (Type::Bits { .. }, Data::Bits(from)) => wire::pack_planes(strip.elements.len(), from, &mut rows),
            _ => {}
        }
    }
}

/// Where a task's results go.
pub struct Outputs<'a, E> {
    pub kept: Vec<Kept<'a, E>>,
    pub packs: Vec<Packed<'a>>,
    /// Elements of its longest strip.
    pub longest: usize,
}

/// Memory between instructions: elements, or the words of planes.
pub enum Slot<E> {
    Ring(Scratch<E>),
    Bits(Words),
}

impl<E: Element> Default for Slot<E> {
    fn default() -> Self {
        Slot::Bits(Words::default())
    }
}

impl<E: Element> Slot<E> {
    /// For strips of `len` elements: so many planes, or elements.
    pub fn new(planes: Option<usize>, len: usize) -> Self {
        match planes {
            Some(planes) => Slot::Bits(Words::any(planes * stride(len))),
            None => Slot::Ring(Scratch::any(len)),
        }
    }

    /// What `len` elements of a type take of it.
    pub fn data(&self, ty: Type, len: usize) -> Data<'_, E> {
        match self {
            Slot::Ring(all) => Data::Ring(&all[..len]),
            Slot::Bits(all) => Data::Bits(&all[..words(ty, len)]),
        }
    }

    /// As [`data`](Self::data), to be written.
    pub fn target(&mut self, ty: Type, len: usize) -> Target<'_, E> {
        match self {
            Slot::Ring(all) => Target::Ring(&mut all[..len]),
            Slot::Bits(all) => Target::Bits(&mut all[..words(ty, len)]),
        }
    }
}

/// Words of planes of `len` bits.
fn words(ty: Type, len: usize) -> usize {
    match ty {
        Type::Ring { .. } => 0,
        Type::Bits { planes, .. } => planes * stride(len),
    }
}

/// What a strip has of a value.
pub fn read<'b, E: Element>(
    source: &Source<'b, E>,
    kept: &'b [Kept<'_, E>],
    slots: &'b [Slot<E>],
    ty: Type,
    strip: &Strip,
) -> Data<'b, E> {
    match source {
        // Bits of blocks are fewer.
        Source::Slot(i) => slots[*i].data(ty, strip.elements.len()),
        Source::Kept(i) => kept[*i].data(strip),
        Source::Part(Data::Ring(all)) => Data::Ring(&all[strip.elements.clone()]),
        Source::Part(Data::Bits(all)) => Data::Bits(&all[of_planes(strip)]),
        Source::Blocks(all) => Data::Ring(&all[strip.blocks.clone()]),
        Source::Whole(all) => *all,
    }
}

/// Shares strips out to about `count` tasks, with their parts of what is kept and sent; `None` if a buffer's elements
/// have another width.
pub fn tasks<'a, 's, E: Element>(
    strips: &'s [Strip],
    count: usize,
    compiled: &Compiled<'_, E>,
    kept: &'a mut [Buffer],
    sent: Vec<&'a mut [u8]>,
) -> Option<Vec<(&'s [Strip], Outputs<'a, E>)>> {
    let shares: Vec<&[Strip]> = strips.chunks(strips.len().div_ceil(count.max(1)).max(1)).collect();
    let mut tasks: Vec<(&[Strip], Outputs<'a, E>)> = Vec::with_capacity(shares.len());
    for strips in shares {
        let longest = strips.iter().map(|s| s.elements.len()).max().unwrap_or(0);
        tasks.push((strips, Outputs { kept: Vec::new(), packs: Vec::new(), longest }));
    }
    let elements = strips.last().map_or(0, |s| s.elements.end);
    for buffer in kept {
        match buffer.ty() {
            Type::Ring { len, .. } => {
                let (blocks, mut rest) = (len != elements, buffer.elements_mut()?);
                for (strips, outputs) in &mut tasks {
                    let range = whole(strips, |s| of_elements(s, blocks));
                    let elements = split(&mut rest, range.len());
                    outputs.kept.push(Kept::Ring { elements, blocks, start: range.start });
                }
            }
            Type::Bits { len, .. } => {
                let mut rows: Vec<&mut [u64]> = buffer.planes_mut()?.chunks_mut(stride(len).max(1)).collect();
                for (strips, outputs) in &mut tasks {
                    let range = whole(strips, of_planes);
                    let rows = rows.iter_mut().map(|row| split(row, range.len())).collect();
                    outputs.kept.push(Kept::Bits { rows, start: range.start });
                }
            }
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
    Some(tasks)
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
