//! Links between threads of one process.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::{Header, Link, LinkError, Payload};

/// One end of a link between two threads. Frames wait in an unbounded queue.
pub struct MemoryLink {
    to: Option<Sender<Vec<u8>>>,
    from: Receiver<Vec<u8>>,
    /// The next frame, once somebody has looked at it.
    next: Option<Vec<u8>>,
    current: Vec<u8>,
}

/// The two ends of a link.
pub fn memory_pair() -> (MemoryLink, MemoryLink) {
    let (to_b, from_a) = channel();
    let (to_a, from_b) = channel();
    let end = |to, from| MemoryLink { to: Some(to), from, next: None, current: Vec::new() };
    (end(to_b, from_b), end(to_a, from_a))
}

impl Link for MemoryLink {
    fn send(&mut self, frame: Vec<u8>) -> Result<(), LinkError> {
        self.to.as_ref().ok_or(LinkError::Closed)?.send(frame).map_err(|_| LinkError::Closed)
    }

    fn peek(&mut self, timeout: Duration) -> Result<Option<[u8; Header::BYTES]>, LinkError> {
        if self.next.is_none() {
            self.next = match self.from.recv_timeout(timeout) {
                Ok(frame) => Some(frame),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(LinkError::Closed),
            };
        }
        Ok(self.next.as_ref().and_then(|f| f.first_chunk()).copied())
    }

    fn header(&mut self, timeout: Duration) -> Result<[u8; Header::BYTES], LinkError> {
        self.current = match self.next.take() {
            Some(frame) => frame,
            None => self.from.recv_timeout(timeout).map_err(|e| match e {
                RecvTimeoutError::Timeout => LinkError::Timeout,
                RecvTimeoutError::Disconnected => LinkError::Closed,
            })?,
        };
        let header = self.current.first_chunk::<{ Header::BYTES }>();
        header.copied().ok_or(LinkError::Truncated { got: self.current.len(), want: Header::BYTES })
    }

    fn payload(&mut self, len: usize, _timeout: Duration) -> Result<Payload, LinkError> {
        let bytes = std::mem::take(&mut self.current);
        let got = bytes.len().saturating_sub(Header::BYTES);
        if got != len {
            return Err(LinkError::Truncated { got, want: len });
        }
        Ok(Payload::of_frame(bytes))
    }

    fn finish(&mut self, _timeout: Duration) -> Result<(), LinkError> {
        self.to = None;
        Ok(())
    }
}
