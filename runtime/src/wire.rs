//! Buffers as bytes: ring elements in the bits of their modulus, lowest first, one behind the other, the last
//! byte padded with zeros; planes of bits, each padded to whole bytes.

use std::ops::Range;

use bcc_ir::program::Type;
use rayon::prelude::*;
use thiserror::Error;

use crate::buffer::{Buffer, Values, stride, tail_mask};
use crate::element::{Element, Width, by_width};
use crate::kernels::packed::{self, packed_len};

/// Elements that one task of the thread pool converts: whole groups of them.
const PART: usize = 1 << 15;

/// Bytes that are no buffer of the expected type.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// Wrong number of bytes.
    #[error("{got} bytes for {ty}, which takes {}", ty.wire_bytes())]
    Length {
        /// The expected type.
        ty: Type,
        /// Bytes there are.
        got: usize,
    },
    /// A bit behind the elements or past the end of a plane is set.
    #[error("bits past the end are set in a part of type {ty}")]
    Excess {
        /// The expected type.
        ty: Type,
    },
}

/// Some elements of a buffer and their bytes, as if they were all of it; the first one's number is a multiple of 64.
#[derive(Debug)]
pub struct Piece<B> {
    /// The elements.
    pub elements: Range<usize>,
    /// Their bytes.
    pub bytes: B,
}

impl<B> Piece<B> {
    /// Which of some elements it has; none if the range is empty.
    pub fn within(&self, all: &Range<usize>) -> Range<usize> {
        all.start.max(self.elements.start)..all.end.min(self.elements.end)
    }
}

/// Writes a buffer's bytes, [`Type::wire_bytes`] many.
pub fn pack(buffer: &Buffer, out: &mut [u8]) {
    pack_piece(buffer, Piece { elements: 0..buffer.ty().len(), bytes: out });
}

/// Writes the bytes of some of a buffer's elements.
pub fn pack_piece(buffer: &Buffer, piece: Piece<&mut [u8]>) {
    let Piece { elements, bytes } = piece;
    match buffer {
        Buffer::Ring { bits, values: Values::Narrow(all) } => pack_all::<u32>(*bits, &all[elements], bytes),
        Buffer::Ring { bits, values: Values::Wide(all) } => pack_all::<u64>(*bits, &all[elements], bytes),
        Buffer::Bits { len, words, .. } => {
            let rows = rows(buffer.ty().resized(elements.len()), bytes);
            pack_planes(*len, words, elements, rows);
        }
    }
}

fn pack_all<E: Element>(bits: u8, all: &[E], out: &mut [u8]) {
    if all.len() >= 2 * PART {
        let places = out.par_chunks_mut(packed_len(bits, PART)).zip(all.par_chunks(PART));
        places.for_each(|(out, values)| packed::pack(bits, values, out));
    } else {
        packed::pack(bits, all, out);
    }
}

/// The rows of a buffer's bytes: one of ring elements, one of each plane.
pub fn rows(ty: Type, bytes: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    let row = match ty {
        Type::Ring { .. } => bytes.len(),
        Type::Bits { len, .. } => len.div_ceil(8),
    };
    bytes.chunks_mut(row.max(1))
}

/// Where element `at` of a buffer starts in its row, for a multiple of 8, and where the row ends, for their number.
pub fn place(ty: Type, at: usize) -> usize {
    match ty {
        Type::Ring { bits, .. } => packed_len(bits, at),
        Type::Bits { .. } => at.div_ceil(8),
    }
}

/// Writes some bits of planes of `len` bits into a row of bytes each; the first one's number is a multiple of 64.
pub fn pack_planes<'a>(len: usize, words: &[u64], part: Range<usize>, rows: impl Iterator<Item = &'a mut [u8]>) {
    for (plane, row) in words.chunks_exact(stride(len).max(1)).zip(rows) {
        let plane = &plane[part.start / 64..part.end.div_ceil(64)];
        if cfg!(target_endian = "little") {
            row.copy_from_slice(&bytemuck::cast_slice(plane)[..row.len()]);
            continue;
        }
        let (whole, last) = row.as_chunks_mut();
        whole.iter_mut().zip(plane).for_each(|(b, w)| *b = w.to_le_bytes());
        if let Some(word) = plane.last() {
            last.copy_from_slice(&word.to_le_bytes()[..last.len()]);
        }
    }
}

/// The bits `part` of planes from a piece of them, to the planes of `len` bits that `out` has, from `at` on; the part's
/// first bit is a multiple of 8 in the piece, `at` of 64. Whether no bit is set behind them.
pub fn unpack_planes(piece: &Piece<&[u8]>, part: Range<usize>, (len, at): (usize, usize), out: &mut [u64]) -> bool {
    let mut clean = true;
    let rows = piece.bytes.chunks_exact(piece.elements.len().div_ceil(8).max(1));
    let places = (part.start - piece.elements.start).div_ceil(8)..(part.end - piece.elements.start).div_ceil(8);
    for (plane, row) in out.chunks_exact_mut(stride(len).max(1)).zip(rows) {
        clean &= unpack_plane(&row[places.clone()], part.len(), &mut plane[at / 64..(at + part.len()).div_ceil(64)]);
    }
    clean
}

fn unpack_plane(row: &[u8], len: usize, plane: &mut [u64]) -> bool {
    let (whole, last) = row.as_chunks::<8>();
    if cfg!(target_endian = "little") {
        bytemuck::cast_slice_mut(plane)[..8 * whole.len()].copy_from_slice(whole.as_flattened());
    } else {
        plane.iter_mut().zip(whole).for_each(|(w, b)| *w = u64::from_le_bytes(*b));
    }
    if !last.is_empty() {
        let mut word = [0u8; 8];
        word[..last.len()].copy_from_slice(last);
        plane[whole.len()] = u64::from_le_bytes(word);
    }
    plane[plane.len() - 1] & !tail_mask(len) == 0
}

/// A buffer of type `ty` from exactly its bytes.
pub fn unpack(ty: Type, width: Width, bytes: &[u8]) -> Result<Buffer, WireError> {
    unpack_pieces(ty, width, &[Piece { elements: 0..ty.len(), bytes }])
}

/// A buffer of type `ty` from the pieces that it came in, in order.
pub fn unpack_pieces(ty: Type, width: Width, pieces: &[Piece<&[u8]>]) -> Result<Buffer, WireError> {
    let whole = |p: &Piece<&[u8]>| p.bytes.len() as u64 == ty.resized(p.elements.len()).wire_bytes();
    let end = pieces.iter().try_fold(0, |end, p| (whole(p) && p.elements.start == end).then_some(p.elements.end));
    if end != Some(ty.len()) {
        return Err(WireError::Length { ty, got: pieces.iter().map(|p| p.bytes.len()).sum() });
    }
    let mut buffer = Buffer::any(ty, width);
    let mut clean = true;
    for piece in pieces {
        let elements = piece.elements.clone();
        clean &= match ty {
            Type::Ring { bits, .. } => by_width!(width, E => {
                let all = buffer.elements_mut().unwrap_or_default();
                unpack_all::<E>(bits, piece.bytes, &mut all[elements])
            }),
            Type::Bits { len, .. } => {
                let at = elements.start;
                unpack_planes(piece, elements, (len, at), buffer.planes_mut().unwrap_or_default())
            }
        };
    }
    if clean { Ok(buffer) } else { Err(WireError::Excess { ty }) }
}

fn unpack_all<E: Element>(bits: u8, bytes: &[u8], out: &mut [E]) -> bool {
    if out.len() >= 2 * PART {
        let places = out.par_chunks_mut(PART).zip(bytes.par_chunks(packed_len(bits, PART)));
        places.map(|(out, bytes)| packed::unpack(bits, bytes, out)).reduce(|| true, |a, b| a & b)
    } else {
        packed::unpack(bits, bytes, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::{Key, draw};

    #[test]
    fn roundtrip_of_every_width() {
        let mut types: Vec<Type> =
            (1..=64).flat_map(|bits| [1, 2, 3, 4, 7, 8, 9, 64].map(|len| Type::Ring { bits, len })).collect();
        types.extend([20, 32, 40].map(|bits| Type::Ring { bits, len: 3 * PART + 5 }));
        types.extend([1, 7, 8, 9, 63, 64, 65, 200].map(|len| Type::Bits { planes: 3, len }));
        for (i, ty) in types.into_iter().enumerate() {
            let narrowest = match ty {
                Type::Ring { bits, .. } => Width::of_bits(bits),
                Type::Bits { .. } => Width::Narrow,
            };
            let mut sent = Vec::new();
            for width in [narrowest, Width::Wide] {
                let buffer = draw(&Key::new([3; 16]), i as u32, ty, width);
                let mut bytes = vec![0xff; ty.wire_bytes() as usize];
                pack(&buffer, &mut bytes);
                let back = unpack(ty, width, &bytes).unwrap();
                assert!(back.words() == buffer.words() && back.ty() == ty, "{ty}");
                sent.push(bytes);
            }
            assert!(sent[0] == sent[1], "{ty}");
        }
    }

    #[test]
    fn pieces_are_the_buffer() {
        for ty in [Type::Ring { bits: 21, len: 300 }, Type::Bits { planes: 3, len: 300 }] {
            let buffer = draw(&Key::new([4; 16]), 1, ty, Width::Narrow);
            let cut = [0..128, 128..192, 192..300];
            let mut bytes = cut.clone().map(|cut| vec![0xff; ty.resized(cut.len()).wire_bytes() as usize]);
            for (elements, bytes) in cut.clone().into_iter().zip(&mut bytes) {
                pack_piece(&buffer, Piece { elements, bytes });
            }
            assert_eq!(bytes.iter().map(Vec::len).sum::<usize>() as u64, ty.wire_bytes());
            let piece = |i: usize| Piece { elements: cut[i].clone(), bytes: &bytes[i][..] };
            let back = unpack_pieces(ty, Width::Narrow, &[piece(0), piece(1), piece(2)]).unwrap();
            assert!(back.words() == buffer.words(), "{ty}");
            for wrong in [vec![piece(0), piece(1)], vec![piece(1), piece(2)], vec![piece(0), piece(2)], vec![]] {
                let refused = unpack_pieces(ty, Width::Narrow, &wrong).err();
                assert!(matches!(refused, Some(WireError::Length { .. })), "{ty}");
            }
        }
    }

    #[test]
    fn refuses_excess_bits_and_lengths() {
        let ty = Type::Ring { bits: 20, len: 3 };
        assert_eq!(unpack(ty, Width::Narrow, &[0; 7]).err(), Some(WireError::Length { ty, got: 7 }));
        assert_eq!(unpack(ty, Width::Narrow, &[0, 0, 0, 0, 0, 0, 0, 0x10]).err(), Some(WireError::Excess { ty }));
        assert!(unpack(ty, Width::Narrow, &[1, 0, 0x20, 0, 0, 3, 0, 0x0f]).is_ok_and(|b| b.words() == [1, 2, 0xf0003]));
        let ty = Type::Bits { planes: 2, len: 3 };
        assert_eq!(unpack(ty, Width::Narrow, &[7, 8]).err(), Some(WireError::Excess { ty }));
        assert!(unpack(ty, Width::Narrow, &[7, 5]).is_ok());
    }
}
