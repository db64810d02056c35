//! What frames carry, as it was received.

use super::{Header, spare};
use crate::words::Words;

/// Bytes of a received frame behind its header.
pub struct Payload(Content);

enum Content {
    /// The whole frame.
    Frame(Vec<u8>),
    /// That many bytes.
    Read(Words, usize),
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Content::Frame(frame) = &mut self.0 {
            spare::give(std::mem::take(frame));
        }
    }
}

impl Payload {
    /// That of a frame, which has a header.
    pub(super) fn of_frame(frame: Vec<u8>) -> Payload {
        Payload(Content::Frame(frame))
    }

    /// Room for `len` bytes, to be filled.
    pub(super) fn room(len: usize) -> Payload {
        Payload(Content::Read(Words::any(len.div_ceil(8)), len))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Content::Frame(frame) => &frame[Header::BYTES..],
            Content::Read(words, len) => &bytemuck::cast_slice(words)[..*len],
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Content::Frame(frame) => &mut frame[Header::BYTES..],
            Content::Read(words, len) => &mut bytemuck::cast_slice_mut(words)[..*len],
        }
    }
}
