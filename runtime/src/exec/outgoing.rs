//! Messages that are being put together.

use std::ops::Range;

use bcc_ir::program::steps::Step;
use bcc_ir::program::{Inst, Instruction, Message};

use crate::channel::{Header, new_frame};
use crate::wire::Piece;

/// Where parts of a message go, in a lane: for each part the pieces that have not been sent.
pub type Parts<'a> = Vec<Vec<Piece<&'a mut [u8]>>>;

/// The message that is sent next.
pub fn next_message(steps: &[Step], code: &[Instruction]) -> Option<usize> {
    steps.iter().filter_map(Step::single).find_map(|index| match code[index].inst {
        Inst::Send { message } => Some(message as usize),
        _ => None,
    })
}

/// A message that is being put together.
pub struct Outgoing<'a> {
    message: &'a Message,
    /// Its pieces; `None` when one has been sent.
    frames: Vec<Option<Vec<u8>>>,
    lanes: usize,
    /// Parts that are there.
    packed: Vec<bool>,
}

impl<'a> Outgoing<'a> {
    /// A message of so many inferences in lockstep, of which nothing is there.
    pub fn new(message: &'a Message, lanes: usize) -> Self {
        let frame = |piece| Some(new_frame(Header::BYTES + lanes * message.piece_bytes(piece) as usize));
        let frames = (0..message.pieces()).map(frame).collect();
        Outgoing { message, frames, lanes, packed: vec![false; message.parts.len()] }
    }

    /// Parts of some pieces that nobody has asked for.
    pub fn rest(&self, pieces: Range<usize>) -> Vec<usize> {
        let there = |part: &usize| pieces.clone().any(|piece| !self.message.cut(*part, piece).is_empty());
        (0..self.packed.len()).filter(|part| !self.packed[*part] && there(part)).collect()
    }

    /// The bytes of some parts, given with anything, in every lane; they are taken for packed.
    pub fn parts<T>(&mut self, some: &[(T, usize)]) -> Vec<Parts<'_>> {
        some.iter().for_each(|(_, part)| self.packed[*part] = true);
        let mut lanes: Vec<Parts<'_>> = (0..self.lanes).map(|_| some.iter().map(|_| Vec::new()).collect()).collect();
        for (piece, frame) in self.frames.iter_mut().enumerate() {
            let Some(frame) = frame else { continue };
            let mut rest = &mut frame[Header::BYTES..];
            for lane in &mut lanes {
                for (part, (elements, bytes)) in self.message.shares(piece).enumerate() {
                    let (bytes, behind) = std::mem::take(&mut rest).split_at_mut(bytes);
                    rest = behind;
                    let wanted = some.iter().position(|(_, wanted)| *wanted == part).filter(|_| !elements.is_empty());
                    if let Some(at) = wanted {
                        lane[at].push(Piece { elements, bytes });
                    }
                }
            }
        }
        lanes
    }

    /// Takes a piece, to be sent.
    pub fn take(&mut self, piece: usize) -> Option<Vec<u8>> {
        self.frames.get_mut(piece)?.take()
    }
}
