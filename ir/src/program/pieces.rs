//! Large messages travel in pieces, so that one is made or read while another is on its way.
//!
//! A piece is a frame of its own, with its own header. What is cut are the parts with the most elements: each piece has
//! the same share of all of them, so that whoever has a piece can go on with these elements, strip by strip. The parts
//! before the first of them travel with the first piece, those behind it with the last one. Both ends read this off the
//! message's type.

use std::ops::Range;

use super::steps::STRIP;
use super::{Message, Phase, Type};

/// Bytes of parts that are cut, from which there is one more piece.
const PIECE_BYTES: u64 = 1 << 17;
/// Pieces of a message at most: what is gained by one more gets less, what it costs does not.
const MOST: u64 = 8;

impl Type {
    /// The same with so many elements.
    #[must_use]
    pub fn resized(self, len: usize) -> Type {
        match self {
            Type::Ring { bits, .. } => Type::Ring { bits, len },
            Type::Bits { planes, .. } => Type::Bits { planes, len },
        }
    }
}

impl Message {
    /// Elements of the parts that are cut.
    pub fn longest(&self) -> usize {
        self.parts.iter().map(|ty| ty.len()).max().unwrap_or(0)
    }

    /// Number of pieces. What the setup sends is nothing that anybody waits for to go on.
    pub fn pieces(&self) -> usize {
        let longest = self.longest();
        let bytes: u64 = self.parts.iter().filter(|ty| ty.len() == longest).map(|ty| ty.wire_bytes()).sum();
        let most = if self.phase == Phase::Setup { 1 } else { MOST.min((longest / STRIP) as u64) };
        (bytes / PIECE_BYTES).min(most).max(1) as usize
    }

    /// Elements of a part that a piece has.
    pub fn cut(&self, part: usize, piece: usize) -> Range<usize> {
        let (pieces, longest) = (self.pieces(), self.longest());
        let len = self.parts.get(part).map_or(0, |ty| ty.len());
        if len == longest {
            return self.edge(piece)..self.edge(piece + 1);
        }
        let first = self.parts.iter().position(|ty| ty.len() == longest).unwrap_or(0);
        let with = if part < first { 0 } else { pieces - 1 };
        if piece == with { 0..len } else { 0..0 }
    }

    /// Element at which a piece of the longest parts begins: strips begin there too.
    pub fn edge(&self, piece: usize) -> usize {
        let (pieces, longest) = (self.pieces(), self.longest());
        match piece {
            0 => 0,
            p if p >= pieces => longest,
            p => longest / STRIP * p / pieces * STRIP,
        }
    }

    /// What a piece has of every part, in order: the elements, and how many bytes they take.
    pub fn shares(&self, piece: usize) -> impl Iterator<Item = (Range<usize>, usize)> + '_ {
        self.parts.iter().enumerate().map(move |(part, ty)| {
            let elements = self.cut(part, piece);
            let bytes = ty.resized(elements.len()).wire_bytes() as usize;
            (elements, bytes)
        })
    }

    /// Bytes of a piece's payload, of one inference.
    pub fn piece_bytes(&self, piece: usize) -> u64 {
        self.shares(piece).map(|(_, bytes)| bytes as u64).sum()
    }

    /// Bytes of the payload of all pieces, of one inference.
    pub fn payload_bytes(&self) -> u64 {
        self.parts.iter().map(|ty| ty.wire_bytes()).sum()
    }

    /// Bytes on the wire, the headers of all pieces included.
    pub fn wire_bytes(&self) -> u64 {
        self.headers() + self.payload_bytes()
    }

    /// As [`wire_bytes`](Self::wire_bytes), of `lanes` inferences in lockstep: they share the headers. A message of
    /// the setup is one for all.
    pub fn batch_bytes(&self, lanes: u16) -> u64 {
        match self.phase {
            Phase::Setup => self.wire_bytes(),
            Phase::Offline | Phase::Online => self.headers() + u64::from(lanes) * self.payload_bytes(),
        }
    }

    /// Bytes of a piece on the wire, of `lanes` inferences in lockstep, its header included.
    pub fn piece_batch_bytes(&self, piece: usize, lanes: u16) -> u64 {
        let lanes = if self.phase == Phase::Setup { 1 } else { u64::from(lanes) };
        Self::HEADER + lanes * self.piece_bytes(piece)
    }

    fn headers(&self) -> u64 {
        Self::HEADER * self.pieces() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Role;

    fn message(phase: Phase, parts: Vec<Type>) -> Message {
        Message { name: "m".into(), from: Role::Client, to: Role::Server, phase, layer: 0, parts, reveal: false }
    }

    #[test]
    fn pieces_make_up_the_message() {
        let ring = |bits, len| Type::Ring { bits, len };
        let plane = |planes, len| Type::Bits { planes, len };
        let cases = [
            (vec![ring(25, 10)], 1),
            (vec![ring(25, 802_816)], 8),
            (vec![ring(18, 200_700), plane(7, 200_700)], 4),
            (vec![plane(3, 77), ring(21, 100_005), plane(1, 99), ring(4, 12)], 2),
            (vec![plane(64, 5000)], 1),
            (vec![], 1),
        ];
        for (parts, pieces) in cases {
            let m = message(Phase::Online, parts);
            assert_eq!(m.pieces(), pieces, "{:?}", m.parts);
            for (part, ty) in m.parts.iter().enumerate() {
                let mut end = 0;
                for piece in 0..pieces {
                    let cut = m.cut(part, piece);
                    assert!(cut.is_empty() || cut.start == end && cut.start.is_multiple_of(64), "{:?}", m.parts);
                    end = end.max(cut.end);
                }
                assert_eq!(end, ty.len());
            }
            assert_eq!((0..pieces).map(|p| m.piece_bytes(p)).sum::<u64>(), m.payload_bytes());
            assert_eq!(m.wire_bytes(), 16 * pieces as u64 + m.payload_bytes());
            assert_eq!(message(Phase::Setup, m.parts).pieces(), 1);
        }
        let m = message(Phase::Offline, vec![plane(3, 77), ring(21, 100_005), plane(1, 99)]);
        assert_eq!([0, 1, 2].map(|part| m.cut(part, 0)), [0..77, 0..49152, 0..0]);
        assert_eq!([0, 1, 2].map(|part| m.cut(part, 1)), [0..0, 49152..100_005, 0..99]);
        assert_eq!(m.batch_bytes(3), 32 + 3 * m.payload_bytes());
    }
}
