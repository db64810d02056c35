//! Messages between a party and its two peers: counted, labelled with their round, checked.

mod error;
pub mod frame;
mod memory;
mod payload;
mod shape;
mod spare;
mod tcp;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bcc_ir::program::{Message, Phase, Role};

pub use error::{ChannelError, LinkError};
pub use frame::{Control, Header, new_frame};
pub use memory::{MemoryLink, memory_pair};
pub use payload::Payload;
pub use shape::{Shape, ShapeError};
pub use spare::give as give_frame;
pub use tcp::{TcpLink, accept, connect};

/// One connection to one peer. Frames arrive whole and in order.
pub trait Link: Send {
    /// Hands a whole frame over. Never waits for the peer: two parties that send each other large
    /// frames at the same time do not block each other.
    fn send(&mut self, frame: Vec<u8>) -> Result<(), LinkError>;

    /// The next frame's header, left where it is; `None` if it has not arrived within `timeout`.
    fn peek(&mut self, timeout: Duration) -> Result<Option<[u8; Header::BYTES]>, LinkError>;

    /// Waits for the next frame's header.
    fn header(&mut self, timeout: Duration) -> Result<[u8; Header::BYTES], LinkError>;

    /// The bytes behind the header that was read last. Called with the announced length after
    /// the caller has checked it.
    fn payload(&mut self, len: usize, timeout: Duration) -> Result<Payload, LinkError>;

    /// From now on, where nothing else is sent, frames [`frame::alive`] tell the peer that this party has not
    /// gone, and whom it waits for. To be called after the handshake.
    fn keep_alive(&mut self, waits_for: Option<Role>) {
        let _ = waits_for;
    }

    /// Waits until everything is written, then tells the peer that no more comes.
    fn finish(&mut self, timeout: Duration) -> Result<(), LinkError>;
}

/// Unread frames of a peer that has gone, among which its reason is looked for.
const LAST_WORDS: usize = 1000;

/// A frame as the hooks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Sender.
    pub from: Role,
    /// Receiver.
    pub to: Role,
    /// Phase.
    pub phase: Phase,
    /// Inference, from 0 (0 in setup); of several in lockstep the first.
    pub inference: u32,
    /// Number of the message in the program.
    pub message: u32,
    /// Number of its piece.
    pub piece: u32,
    /// How many frames the sender has sent before.
    pub number: u64,
}

/// What becomes of a frame that a test has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is sent, with the changes made.
    Deliver,
    /// It is lost.
    Drop,
    /// The sender dies before sending it.
    Kill,
}

/// Sees every sent message with header and payload, before `Tamper`.
pub type Recorder = Arc<dyn Fn(&FrameInfo, &[u8]) + Send + Sync>;
/// Changes or stops frames on their way, header included.
pub type Tamper = Arc<dyn Fn(&FrameInfo, &mut Vec<u8>) -> Fate + Send + Sync>;

/// Hooks for tests. Control frames (handshake, ready, goodbye) do not pass through them.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Sees all messages.
    pub recorder: Option<Recorder>,
    /// Changes messages.
    pub tamper: Option<Tamper>,
}

/// Traffic of one phase at one party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTraffic {
    /// Bytes of messages sent, the headers of all pieces included.
    pub bytes: u64,
    /// Largest round of a message sent or received: the longest chain of messages of which each
    /// could only be sent when the one before had arrived, once for all inferences in lockstep.
    pub rounds: u64,
}

/// A party's links, counters and round labels.
pub struct Channels {
    me: Role,
    links: [Option<Box<dyn Link>>; 3],
    timeout: Duration,
    hooks: Hooks,
    phase: Phase,
    inference: u32,
    depth: u32,
    sent: u64,
    traffic: [PhaseTraffic; 3],
    waited: Duration,
}

impl Channels {
    /// Links by role of the peer; `timeout` is the longest silence that is waited through, be it before a
    /// frame or within. A peer that computes is not silent ([`Link::keep_alive`]).
    pub fn new(me: Role, mut links: [Option<Box<dyn Link>>; 3], timeout: Duration, hooks: Hooks) -> Self {
        links.iter_mut().flatten().for_each(|link| link.keep_alive(None));
        Channels {
            me,
            links,
            timeout,
            hooks,
            phase: Phase::Setup,
            inference: 0,
            depth: 0,
            sent: 0,
            traffic: [PhaseTraffic::default(); 3],
            waited: Duration::ZERO,
        }
    }

    /// Changes the longest wait.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Starts a phase: rounds count from here.
    pub fn begin(&mut self, phase: Phase, inference: u32) {
        (self.phase, self.inference, self.depth) = (phase, inference, 0);
    }

    /// Traffic by phase, over all inferences so far.
    pub fn traffic(&self) -> [PhaseTraffic; 3] {
        self.traffic
    }

    /// Time spent on waiting for frames and on taking them from the system.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The inference at work, from 0.
    pub fn inference(&self) -> u32 {
        self.inference
    }

    /// Peers that there is a link to.
    pub fn peers(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|r| self.links[r.index()].is_some()).collect()
    }

    fn describe(&self, message: &Message) -> String {
        format!("'{}', {}", message.name, message.phase)
    }

    fn link(&mut self, peer: Role, waiting: &str) -> Result<&mut Box<dyn Link>, ChannelError> {
        let me = self.me;
        self.links[peer.index()].as_mut().ok_or(ChannelError::NoLink { me, peer, waiting: waiting.into() })
    }

    fn fault(&self, peer: Role, waiting: String, error: LinkError) -> ChannelError {
        match error {
            LinkError::Timeout => ChannelError::Timeout { peer, timeout: self.timeout, waiting },
            LinkError::Closed => ChannelError::Closed { peer, waiting },
            LinkError::Truncated { got, want } => ChannelError::Truncated { peer, waiting, got, want },
            LinkError::Io(source) => ChannelError::Io { peer, waiting, source },
        }
    }

    /// Sends a piece of message `index` of the program; `frame` has room for the header in front.
    pub fn send(
        &mut self,
        index: u32,
        message: &Message,
        piece: usize,
        mut frame: Vec<u8>,
    ) -> Result<(), ChannelError> {
        let label = self.depth + 1;
        let header = Header { index, depth: label, piece: piece as u8, len: (frame.len() - Header::BYTES) as u64 };
        frame[..Header::BYTES].copy_from_slice(&header.bytes());
        let phase = self.phase;
        let info = FrameInfo {
            from: self.me,
            to: message.to,
            phase,
            inference: self.inference,
            message: index,
            piece: piece as u32,
            number: self.sent,
        };
        self.sent += 1;
        if let Some(recorder) = &self.hooks.recorder {
            recorder(&info, &frame);
        }
        let counter = &mut self.traffic[phase.index()];
        counter.rounds = counter.rounds.max(u64::from(label));
        counter.bytes += frame.len() as u64;
        if let Some(tamper) = &self.hooks.tamper {
            match tamper(&info, &mut frame) {
                Fate::Deliver => {}
                Fate::Drop => return Ok(()),
                Fate::Kill => return Err(ChannelError::Killed(self.me)),
            }
        }
        let what = format!("sending {}", self.describe(message));
        self.hand_over(message.to, what, frame)
    }

    /// Gives a frame to a link. A peer that has gone may have left its reason to read.
    fn hand_over(&mut self, peer: Role, what: String, frame: Vec<u8>) -> Result<(), ChannelError> {
        let Err(error) = self.link(peer, &what)?.send(frame) else { return Ok(()) };
        let reason = self.link(peer, &what)?;
        for _ in 0..LAST_WORDS {
            let Ok(bytes) = reason.header(Duration::from_millis(50)) else { break };
            let header = Header::parse(bytes);
            if header.len > frame::ABORT_LIMIT as u64 {
                break;
            }
            let Ok(payload) = reason.payload(header.len as usize, Duration::from_millis(50)) else { break };
            if header.index == Control::Abort as u32 {
                let reason = String::from_utf8_lossy(payload.bytes()).into_owned();
                return Err(ChannelError::Aborted { peer, reason });
            }
        }
        Err(self.fault(peer, what, error))
    }

    /// Waits for a piece of message `index` of the program, of `lanes` inferences in lockstep. Its length is compared
    /// with the program's before any memory is taken for it.
    pub fn receive(
        &mut self,
        index: u32,
        message: &Message,
        piece: usize,
        lanes: usize,
    ) -> Result<Payload, ChannelError> {
        let waiting = self.describe(message);
        let want = message.piece_bytes(piece).saturating_mul(lanes as u64);
        let header = self.header(message.from, &waiting)?;
        if (header.index, usize::from(header.piece)) != (index, piece) {
            let number = |index: u32, piece: usize| match piece {
                0 => format!("message {index}"),
                _ => format!("piece {piece} of message {index}"),
            };
            let got = match Control::from_index(header.index) {
                Some(control) => control.to_string(),
                None => number(header.index, header.piece.into()),
            };
            let waiting = format!("{waiting} ({})", number(index, piece));
            return Err(ChannelError::Unexpected { peer: message.from, me: self.me, got, waiting });
        }
        if header.len != want {
            return Err(ChannelError::Length { peer: message.from, me: self.me, waiting, got: header.len, want });
        }
        let payload = self.payload(message.from, want as usize, &waiting)?;
        self.depth = self.depth.max(header.depth);
        let counter = &mut self.traffic[self.phase.index()];
        counter.rounds = counter.rounds.max(u64::from(header.depth));
        Ok(payload)
    }

    /// The header of the peer's next frame that is no sign of life. A peer that computes renews the wait. One
    /// that waits itself does not, but says for whom, so that whoever gives up first names the party that hangs.
    fn header(&mut self, peer: Role, waiting: &str) -> Result<Header, ChannelError> {
        let start = Instant::now();
        self.show_waiting(Some(peer));
        let header = self.next_header(peer, waiting);
        self.show_waiting(None);
        self.waited += start.elapsed();
        let header = header?;
        if header.index == Control::Abort as u32 {
            let len = header.len.min(frame::ABORT_LIMIT as u64) as usize;
            let payload = self.payload(peer, len, waiting)?;
            let reason = String::from_utf8_lossy(payload.bytes()).into_owned();
            return Err(ChannelError::Aborted { peer, reason });
        }
        Ok(header)
    }

    fn next_header(&mut self, peer: Role, waiting: &str) -> Result<Header, ChannelError> {
        let (timeout, me) = (self.timeout, self.me);
        let mut deadline = Instant::now() + timeout;
        let mut behind = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let header = match (self.link(peer, waiting)?.header(left), behind) {
                (Ok(bytes), _) => Header::parse(bytes),
                (Err(LinkError::Timeout), Some(other)) if other != me => {
                    let waiting = format!("{waiting}; the {peer} itself waits for the {other}");
                    return Err(self.fault(peer, waiting, LinkError::Timeout));
                }
                (Err(e), _) => return Err(self.fault(peer, waiting.into(), e)),
            };
            match frame::parse_alive(header) {
                Some(None) => (deadline, behind) = (Instant::now() + timeout, None),
                Some(other) => behind = other,
                None => return Ok(header),
            }
        }
    }

    /// Lets the peers know whom this party waits for, or that it computes.
    pub fn show_waiting(&mut self, for_whom: Option<Role>) {
        self.links.iter_mut().flatten().for_each(|link| link.keep_alive(for_whom));
    }

    fn payload(&mut self, peer: Role, len: usize, waiting: &str) -> Result<Payload, ChannelError> {
        let (start, timeout) = (Instant::now(), self.timeout);
        let payload = self.link(peer, waiting)?.payload(len, timeout);
        self.waited += start.elapsed();
        payload.map_err(|e| self.fault(peer, waiting.into(), e))
    }

    /// Sends a control frame, which no phase counts.
    pub fn send_control(&mut self, peer: Role, control: Control, payload: &[u8]) -> Result<(), ChannelError> {
        self.hand_over(peer, format!("sending {control}"), frame::control(control, payload))
    }

    /// Waits for a control frame of at most `limit` bytes.
    pub fn receive_control(&mut self, peer: Role, control: Control, limit: usize) -> Result<Payload, ChannelError> {
        let waiting = control.to_string();
        let header = self.header(peer, &waiting)?;
        if header.index != control as u32 {
            let got = Control::from_index(header.index).map_or(format!("message {}", header.index), |c| c.to_string());
            return Err(ChannelError::Unexpected { peer, me: self.me, got, waiting });
        }
        if header.len > limit as u64 {
            let (got, want) = (header.len, limit as u64);
            return Err(ChannelError::Length { peer, me: self.me, waiting, got, want });
        }
        self.payload(peer, header.len as usize, &waiting)
    }

    /// Index of the frame that a peer has sent next, if one arrives within `wait`; it stays there to be
    /// received. One look is rarely the last: whom this party waits for is for the caller to [show](Self::show_waiting).
    pub fn next_index(&mut self, peer: Role, wait: Duration) -> Result<Option<u32>, ChannelError> {
        let waiting = "waiting for its next word";
        let header = self.link(peer, waiting)?.peek(wait).map_err(|e| self.fault(peer, waiting.into(), e))?;
        let header = header.map(Header::parse);
        if header.is_some_and(|h| frame::parse_alive(h).is_some()) {
            let timeout = self.timeout;
            let read = self.link(peer, waiting)?.header(timeout);
            return read.map(|_| None).map_err(|e| self.fault(peer, waiting.into(), e));
        }
        Ok(header.map(|h| h.index))
    }

    /// Tells all peers why this party stops, as far as they still listen, and closes the links.
    pub fn abort(&mut self, reason: &str) {
        let frame = frame::abort(reason);
        leave(self.links.iter_mut().flatten(), &frame);
        self.links = [None, None, None];
    }

    /// Closes all links after both sides have said goodbye.
    pub fn finish(&mut self) -> Result<(), ChannelError> {
        for peer in Role::ALL {
            let timeout = self.timeout;
            if let Some(mut link) = self.links[peer.index()].take() {
                link.finish(timeout).map_err(|e| self.fault(peer, "closing".into(), e))?;
            }
        }
        Ok(())
    }
}

/// Sends every peer a last frame and closes the links. All are told before any is waited for: one
/// of them may be the one that is gone.
pub fn leave<'a>(links: impl Iterator<Item = &'a mut Box<dyn Link>>, frame: &[u8]) {
    let told: Vec<_> = links.filter_map(|link| link.send(frame.to_vec()).is_ok().then_some(link)).collect();
    for link in told {
        let _ = link.finish(Duration::from_secs(1));
    }
}
