//! Frames: 16 bytes of header (index u32, round u24, piece u8, payload length u64, little-endian) and the
//! payload.

use std::fmt;
use std::time::Duration;

use bcc_ir::program::Role;

use super::spare;

/// How often a link that is kept alive shows it, where nothing else is sent.
pub(super) const BEAT: Duration = Duration::from_millis(200);
/// Bytes per second that a peer must manage: one that sends a byte now and then is not waited for.
pub(super) const SLOWEST: u64 = 1024;
/// Longest reason of an abort.
pub const ABORT_LIMIT: usize = 1024;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the message in the program, or a [`Control`].
    pub index: u32,
    /// Round that the message belongs to, from 1; of 24 bits.
    pub depth: u32,
    /// Number of the message's piece, from 0.
    pub piece: u8,
    /// Bytes behind the header.
    pub len: u64,
}

impl Header {
    /// Bytes of a header.
    pub const BYTES: usize = bcc_ir::program::Message::HEADER as usize;

    /// Its bytes.
    pub fn bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.index.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.depth.to_le_bytes());
        bytes[7] = self.piece;
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// The header of given bytes.
    pub fn parse(bytes: [u8; Self::BYTES]) -> Self {
        let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let len = u64::from(word(8)) | u64::from(word(12)) << 32;
        Header { index: word(0), depth: word(4) & 0xff_ffff, piece: bytes[7], len }
    }
}

/// Frames outside the program, which no phase counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Control {
    /// Handshake, first part.
    Hello = 0xffff_ff00,
    /// Handshake, second part: both derived the same keys.
    Confirm,
    /// Client to server and back: which stored material to use.
    Material,
    /// Client and server: ready for the next phase.
    Ready,
    /// Client or server to the dealer: an inference is done.
    Done,
    /// End of the session, with the sender's counters.
    Goodbye,
    /// The sender stops, with its reason.
    Abort,
    /// The sender is alive and computes, or waits for a party: [`alive`].
    Alive,
}

impl Control {
    const ALL: [Control; 8] = [
        Control::Hello,
        Control::Confirm,
        Control::Material,
        Control::Ready,
        Control::Done,
        Control::Goodbye,
        Control::Abort,
        Control::Alive,
    ];

    /// The control frame of that index.
    pub fn from_index(index: u32) -> Option<Control> {
        Self::ALL.into_iter().find(|c| *c as u32 == index)
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Control::Hello => "its greeting",
            Control::Confirm => "its key confirmation",
            Control::Material => "the choice of stored material",
            Control::Ready => "its word that it is ready for the next phase",
            Control::Done => "the end of an inference",
            Control::Goodbye => "its goodbye",
            Control::Abort => "its reason to stop",
            Control::Alive => "a sign of life",
        })
    }
}

/// A frame of `bytes` in all, of any content, all of which is to be written.
pub fn new_frame(bytes: usize) -> Vec<u8> {
    let mut frame = spare::take(bytes);
    frame.resize(bytes, 0);
    // So that tests notice what was not written.
    if cfg!(debug_assertions) {
        frame.fill(0xa5);
    }
    frame
}

/// A sign of life, which is a header alone: whom the sender waits for, if it does not compute, stands in the
/// place of the round.
pub fn alive(waits_for: Option<Role>) -> Header {
    Header { index: Control::Alive as u32, depth: waits_for.map_or(0, |r| r.index() as u32 + 1), piece: 0, len: 0 }
}

/// Reads a sign of life: whom its sender waits for. `None` for other headers.
pub fn parse_alive(header: Header) -> Option<Option<Role>> {
    [None, Some(Role::Client), Some(Role::Server), Some(Role::Dealer)].into_iter().find(|w| alive(*w) == header)
}

/// A control frame.
pub fn control(control: Control, payload: &[u8]) -> Vec<u8> {
    let mut frame = new_frame(Header::BYTES + payload.len());
    let header = Header { index: control as u32, depth: 0, piece: 0, len: payload.len() as u64 };
    frame[..Header::BYTES].copy_from_slice(&header.bytes());
    frame[Header::BYTES..].copy_from_slice(payload);
    frame
}

/// The frame that says why its sender stops.
pub fn abort(reason: &str) -> Vec<u8> {
    let end = (0..=ABORT_LIMIT.min(reason.len())).rev().find(|i| reason.is_char_boundary(*i)).unwrap_or(0);
    control(Control::Abort, &reason.as_bytes()[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_roundtrip() {
        let header = Header { index: 7, depth: 9, piece: 3, len: 1 << 40 | 5 };
        assert_eq!(Header::parse(header.bytes()), header);
        assert_eq!(header.bytes()[..9], [7, 0, 0, 0, 9, 0, 0, 3, 5]);
        for c in Control::ALL {
            assert_eq!(Control::from_index(c as u32), Some(c));
        }
    }
}
