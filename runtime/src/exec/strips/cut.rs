//! Shares the strips of a step out to tasks, with the parts of its results that they write.

use std::ops::Range;

use bcc_ir::program::Type;
use bcc_ir::program::steps::Strip;

use super::compile::{Compiled, Source};
use crate::buffer::{Buffer, stride};
use crate::element::Element;
use crate::exec::compute::{Data, Target};
use crate::exec::outgoing::Parts;
use crate::kernels::packed;
use crate::scratch::Scratch;
use crate::wire::{self, Piece};
use crate::words::Words;

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
    /// The rows of its elements, by piece.
    pieces: Vec<Piece<Vec<&'a mut [u8]>>>,
}

impl Packed<'_> {
    /// Writes a strip's elements.
    pub fn pack<E: Element>(&mut self, ty: Type, strip: &Strip, from: Data<'_, E>) {
        let all = &strip.elements;
        for piece in &mut self.pieces {
            let part = piece.within(all);
            if part.is_empty() {
                continue;
            }
            let places =
                behind(wire::place(ty, part.start)..wire::place(ty, part.end), wire::place(ty, piece.elements.start));
            let mut rows = piece.bytes.iter_mut().map(|row| &mut row[places.clone()]);
            let part = behind(part, all.start);
            match (ty, from) {
                (Type::Ring { bits, .. }, Data::Ring(from)) => {
                    rows.for_each(|row| packed::pack(bits, &from[part.clone()], row));
                }
                (Type::Bits { .. }, Data::Bits(from)) => wire::pack_planes(all.len(), from, part, &mut rows),
                _ => {}
            }
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

/// Shares strips, of `elements` in all, out to about `count` tasks, with their parts of what is kept and sent; `None` if
/// a buffer's elements have another width.
pub fn tasks<'a, 's, E: Element>(
    strips: &'s [Strip],
    count: usize,
    compiled: &Compiled<'_, E>,
    elements: usize,
    kept: &'a mut [Buffer],
    sent: Parts<'a>,
) -> Option<Vec<(&'s [Strip], Outputs<'a, E>)>> {
    let shares: Vec<&[Strip]> = strips.chunks(strips.len().div_ceil(count.max(1)).max(1)).collect();
    let mut tasks: Vec<(&[Strip], Outputs<'a, E>)> = Vec::with_capacity(shares.len());
    for strips in shares {
        let longest = strips.iter().map(|s| s.elements.len()).max().unwrap_or(0);
        tasks.push((strips, Outputs { kept: Vec::new(), packs: Vec::new(), longest }));
    }
    for buffer in kept {
        match buffer.ty() {
            Type::Ring { len, .. } => {
                let blocks = len != elements;
                let before = strips.first().map_or(0, |s| of_elements(s, blocks).start);
                let mut rest = &mut buffer.elements_mut()?[before..];
                for (strips, outputs) in &mut tasks {
                    let range = whole(strips, |s| of_elements(s, blocks));
                    let elements = split(&mut rest, range.len());
                    outputs.kept.push(Kept::Ring { elements, blocks, start: range.start });
                }
            }
            Type::Bits { len, .. } => {
                let before = strips.first().map_or(0, |s| of_planes(s).start);
                let rows = buffer.planes_mut()?.chunks_mut(stride(len).max(1));
                let mut rows: Vec<&mut [u64]> = rows.map(|row| &mut row[before..]).collect();
                for (strips, outputs) in &mut tasks {
                    let range = whole(strips, of_planes);
                    let rows = rows.iter_mut().map(|row| split(row, range.len())).collect();
                    outputs.kept.push(Kept::Bits { rows, start: range.start });
                }
            }
        }
    }
    for (pieces, ty) in sent.into_iter().zip(&compiled.sent) {
        let mut pieces = pieces.into_iter();
        let mut piece: Option<Piece<Vec<&mut [u8]>>> = None;
        for (strips, outputs) in &mut tasks {
            let Range { mut start, end } = whole(strips, |s| s.elements.clone());
            let mut own = Vec::new();
            while start < end {
                // What is left of a piece, then the next one.
                let mut rest = match piece.take() {
                    Some(rest) => rest,
                    None => {
                        let Piece { elements, bytes } = pieces.next()?;
                        let rows = wire::rows(ty.resized(elements.len()), bytes).collect();
                        Piece { elements, bytes: rows }
                    }
                };
                if rest.elements.start > start {
                    return None;
                }
                let stop = end.min(rest.elements.end);
                if stop <= start {
                    continue;
                }
                // Its front may be done.
                let place = |at: usize| wire::place(*ty, at) - wire::place(*ty, rest.elements.start);
                let (from, to) = (place(start), place(stop));
                let take = |row: &mut &'a mut [u8]| {
                    split(row, from);
                    split(row, to - from)
                };
                own.push(Piece { elements: start..stop, bytes: rest.bytes.iter_mut().map(take).collect() });
                start = stop;
                rest.elements.start = stop;
                piece = (stop < rest.elements.end).then_some(rest);
            }
            outputs.packs.push(Packed { pieces: own });
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
    fn pieces_of_channels_make_up_the_strip() {
        let pieces: Vec<_> = channels(&(70..205), 50).collect();
        let want = [(1, 0..30, 20..50), (2, 30..80, 0..50), (3, 80..130, 0..50), (4, 130..135, 0..5)];
        assert_eq!(pieces, want);
    }
}
