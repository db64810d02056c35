//! Links over TCP.
//!
//! Every link has a thread that writes: [`Link::send`] only puts a frame into its queue, so a
//! party always gets to its next receive and two parties that send each other more than the
//! system's buffers hold do not wait for each other in a circle. A small frame goes to the system at once, as far as it
//! takes it without waiting and nothing is queued: that thread need not be woken for it. The queue is unbounded; what
//! bounds it is that the dealer waits for earlier inferences to end. Where a slow network is imposed, that thread
//! holds frames back ([`Shape`]).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bcc_ir::program::Role;

use super::frame::{BEAT, SLOWEST, alive};
use super::shape::{Flight, Line, Shape};
use super::{Control, Header, Link, LinkError, Payload, spare};

/// Bytes of the largest frame that is written at once.
const SMALL: usize = 1 << 15;
/// Before the handshake is over.
const SILENT: u32 = u32::MAX;
/// A TCP connection to a peer.
pub struct TcpLink {
    stream: TcpStream,
    queue: Option<Sender<(Option<Flight>, Vec<u8>)>>,
    /// Frames that are queued and not yet written.
    queued: Arc<AtomicUsize>,
    /// Held by who writes, so that frames are never mixed.
    turn: Arc<Mutex<()>>,
    written: Receiver<Result<(), std::io::Error>>,
    /// The `depth` of the frames that show this party alive; none are sent while it is [`SILENT`].
    alive: Arc<AtomicU32>,
    /// Of a shaped link.
    line: Option<Line>,
    /// Nothing is held back any more.
    hurry: Arc<AtomicBool>,
}

/// Connects, trying again until `timeout` has passed: the other party may start later.
pub fn connect(address: &str, timeout: Duration) -> std::io::Result<TcpLink> {
    let deadline = Instant::now() + timeout;
    loop {
        let attempt = address.to_socket_addrs().and_then(|addresses| {
            let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
            for a in addresses {
                let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(10));
                match TcpStream::connect_timeout(&a, left) {
                    Ok(stream) => return Ok(stream),
                    Err(e) => last = e,
                }
            }
            Err(last)
        });
        match attempt {
            Ok(stream) => return TcpLink::new(stream, timeout),
            Err(e) if Instant::now() >= deadline => return Err(e),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Accepts one connection; waits for ever without a `wait`. `timeout` is the new link's limit for
/// writing to a peer that does not read.
pub fn accept(listener: &TcpListener, wait: Option<Duration>, timeout: Duration) -> std::io::Result<TcpLink> {
    let Some(wait) = wait else {
        listener.set_nonblocking(false)?;
        return TcpLink::new(listener.accept()?.0, timeout);
    };
    let deadline = Instant::now() + wait;
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return TcpLink::new(stream, timeout),
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return Err(std::io::Error::new(ErrorKind::TimedOut, "nobody connected in time"));
            }
            Err(e) => return Err(e),
        }
    }
}

/// There is nothing that a thread that panicked could have left half done.
fn lock(turn: &Mutex<()>) -> MutexGuard<'_, ()> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many bytes the system takes without waiting. An error shows again when the rest is written.
#[cfg(unix)]
fn write_now(stream: &TcpStream, bytes: &[u8]) -> usize {
    use rustix::net::{SendFlags, send};
    send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).unwrap_or(0)
}

/// Nothing, where there is no such way.
#[cfg(not(unix))]
fn write_now(_stream: &TcpStream, _bytes: &[u8]) -> usize {
    0
}

impl TcpLink {
    /// A link over a connected stream. Writing fails when the peer reads nothing for `timeout`.
    pub fn new(stream: TcpStream, timeout: Duration) -> std::io::Result<TcpLink> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(timeout))?;
        let mut writer = stream.try_clone()?;
        let (queue, frames) = channel::<(Option<Flight>, Vec<u8>)>();
        let (done, written) = channel();
        let (queued, turn) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
        let (waiting, writing) = (queued.clone(), turn.clone());
        let state = Arc::new(AtomicU32::new(SILENT));
        let beats = state.clone();
        let hurry = Arc::new(AtomicBool::new(false));
        let hurried = hurry.clone();
        thread::Builder::new().name("bcr-writer".into()).spawn(move || {
            let beat = |writer: &mut TcpStream, holds: bool| match beats.load(Ordering::Relaxed) {
                SILENT => Ok(()),
                // Whoever has a frame on its way keeps nobody waiting.
                depth => writer.write_all(&Header { depth: if holds { 0 } else { depth }, ..alive(None) }.bytes()),
            };
            let mut write = || {
                loop {
                    match frames.recv_timeout(BEAT) {
                        Ok((flight, frame)) => {
                            let turn = lock(&writing);
                            match flight {
                                None => writer.write_all(&frame)?,
                                Some(f) => f.write(&frame, &mut writer, &hurried, |writer| beat(writer, true))?,
                            }
                            waiting.fetch_sub(1, Ordering::AcqRel);
                            drop(turn);
                            spare::give(frame);
                        }
                        Err(RecvTimeoutError::Timeout) => {
                            // The rest of a frame may have been queued just now.
                            let _turn = lock(&writing);
                            if waiting.load(Ordering::Acquire) == 0 {
                                beat(&mut writer, false)?;
                            }
                        }
                        Err(RecvTimeoutError::Disconnected) => return writer.shutdown(Shutdown::Write),
                    }
                }
            };
            let result = write();
            // Nobody listens any more if the link was dropped.
            let _ = done.send(result);
        })?;
        Ok(TcpLink { stream, queue: Some(queue), queued, turn, written, alive: state, line: None, hurry })
    }

    /// Imposes a network on what is sent from here on; each end shapes its own direction. A peer that is kept from
    /// reading by a slow link to somebody else may be so for longer than its patience: writing waits for it.
    pub fn shaped(mut self, shape: Option<Shape>) -> std::io::Result<TcpLink> {
        if let Some(shape) = shape {
            self.stream.set_write_timeout(None)?;
            self.line = Some(Line::new(shape));
        }
        Ok(self)
    }

    /// Fills `into`; `timeout` limits the wait for the next bytes, and, with [`SLOWEST`], for all.
    fn read(&mut self, into: &mut [u8], timeout: Duration) -> Result<(), LinkError> {
        let want = into.len();
        let mut got = 0;
        let deadline = Instant::now() + timeout + Duration::from_secs(want as u64 / SLOWEST);
        while got < want {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LinkError::Timeout);
            }
            self.stream.set_read_timeout(Some(timeout.min(left).max(Duration::from_millis(1))))?;
            match self.stream.read(&mut into[got..]) {
                Ok(0) if got == 0 => return Err(LinkError::Closed),
                Ok(0) => return Err(LinkError::Truncated { got, want }),
                Ok(n) => got += n,
                Err(e) => match e.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(LinkError::Timeout),
                    ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                        return Err(LinkError::Closed);
                    }
                    _ => return Err(LinkError::Io(e)),
                },
            }
        }
        Ok(())
    }
}

impl Link for TcpLink {
    fn send(&mut self, frame: Vec<u8>) -> Result<(), LinkError> {
        let flight = self.line.as_mut().map(|line| line.take(Instant::now(), frame.len()));
        let header = frame.first_chunk().copied().map(Header::parse);
        if header.is_some_and(|h| h.index == Control::Abort as u32) {
            // What is before the sender's last word is not needed, only that one.
            self.hurry.store(true, Ordering::Relaxed);
        }
        let queue = self.queue.as_ref().ok_or(LinkError::Closed)?;
        let mut frame = frame;
        // Nobody else queues frames, so there are none as long as there are none.
        let at_once = flight.is_none() && frame.len() <= SMALL && self.queued.load(Ordering::Acquire) == 0;
        let turn = if at_once { self.turn.try_lock().ok() } else { None };
        if turn.is_some() {
            let taken = write_now(&self.stream, &frame);
            if taken == frame.len() {
                spare::give(frame);
                return Ok(());
            }
            frame.drain(..taken);
        }
        self.queued.fetch_add(1, Ordering::AcqRel);
        queue.send((flight, frame)).map_err(|_| LinkError::Closed)
    }

    fn peek(&mut self, timeout: Duration) -> Result<Option<[u8; Header::BYTES]>, LinkError> {
        let mut header = [0; Header::BYTES];
        self.stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        match self.stream.peek(&mut header) {
            Ok(0) => Err(LinkError::Closed),
            Ok(Header::BYTES) => Ok(Some(header)),
            Ok(_) => {
                // The rest comes later; a look returns at once now.
                thread::sleep(timeout);
                Ok(None)
            }
            Err(e) => match e.kind() {
                ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(None),
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Err(LinkError::Closed),
                _ => Err(LinkError::Io(e)),
            },
        }
    }

    fn header(&mut self, timeout: Duration) -> Result<[u8; Header::BYTES], LinkError> {
        let mut header = [0; Header::BYTES];
        self.read(&mut header, timeout)?;
        Ok(header)
    }

    fn payload(&mut self, len: usize, timeout: Duration) -> Result<Payload, LinkError> {
        let mut payload = Payload::room(len);
        match self.read(payload.bytes_mut(), timeout) {
            // The header was there, so the frame has broken off.
            Err(LinkError::Closed) => Err(LinkError::Truncated { got: 0, want: len }),
            other => other.map(|()| payload),
        }
    }

    fn keep_alive(&mut self, waits_for: Option<Role>) {
        self.alive.store(alive(waits_for).depth, Ordering::Relaxed);
    }

    fn finish(&mut self, timeout: Duration) -> Result<(), LinkError> {
        self.queue = None;
        let line = self.line.as_ref().filter(|_| !self.hurry.load(Ordering::Relaxed));
        let held = line.map_or(Duration::ZERO, |line| line.held(Instant::now()));
        match self.written.recv_timeout(timeout.saturating_add(held)) {
            Ok(Ok(())) => {}
            Ok(Err(e)) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                return Err(LinkError::Closed);
            }
            Ok(Err(e)) => return Err(LinkError::Io(e)),
            Err(RecvTimeoutError::Timeout) => return Err(LinkError::Timeout),
            Err(RecvTimeoutError::Disconnected) => return Err(LinkError::Closed),
        }
        // A socket closed with unread bytes resets the connection, and the peer might lose our
        // last frame: read until the peer closes too, within reason.
        let deadline = Instant::now() + timeout.min(Duration::from_secs(1));
        let mut rest = [0u8; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return Ok(());
            }
            match self.stream.read(&mut rest) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => {}
            }
        }
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.queue = None;
        self.hurry.store(true, Ordering::Relaxed);
        // Ends a write that a silent peer blocks.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
