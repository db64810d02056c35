//! The greeting on a link: program, versions and the kind of session are compared, keys agreed.
//!
//! Whoever opened the connection speaks first; the other side answers with its own greeting before
//! it judges, so both name the difference. Then each shows that it derived the same keys. The
//! parties are not authenticated here.

use std::time::Duration;

use bcc_ir::program::{Role, VERSION};
use thiserror::Error;

use crate::channel::frame::control;
use crate::channel::{Control, Header, Link, LinkError, Payload};
use crate::keys::{PairSecret, Secrets};

/// Version of greeting, frames and key derivation.
pub const PROTOCOL: u32 = 3;

const MAGIC: [u8; 8] = *b"BCCRUN\r\n";
const BYTES: usize = 120;

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Offline and online phase, inference by inference.
    Stream = 1,
    /// Offline phases only; their results are stored.
    Prepare = 2,
    /// Online phases only, from stored material; without the dealer.
    Stored = 4,
}

impl Mode {
    fn from_bits(bits: u8) -> Option<Mode> {
        [Mode::Stream, Mode::Prepare, Mode::Stored].into_iter().find(|m| *m as u8 == bits)
    }

    fn purpose(self) -> &'static str {
        match self {
            Mode::Stream => "inferences with fresh offline material",
            Mode::Prepare => "making offline material ahead",
            Mode::Stored => "inferences from stored offline material",
        }
    }
}

/// A greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the protocol.
    pub protocol: u32,
    /// Version of the program's instructions.
    pub program: u32,
    /// Who speaks.
    pub role: Role,
    /// [`Mode`] that the client asks for; modes that server or dealer offer, added up.
    pub modes: u8,
    /// Inferences that the client asks for in lockstep, at least 1.
    pub batch: u16,
    /// Inferences that the client asks for.
    pub count: u32,
    /// Digest of the program.
    pub digest: [u8; 32],
    /// X25519 public key of this link.
    pub public: [u8; 32],
    /// Setup that the speaker holds, or zero.
    pub setup: [u8; 16],
    /// Server: name of the setup that is made if the three do not hold the same.
    pub fresh_setup: [u8; 16],
}

/// Why a link cannot be used.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The link failed.
    #[error("{who} did not greet: {source}")]
    Link {
        /// The other side.
        who: String,
        /// How it failed.
        source: LinkError,
    },
    /// The other side gave up and said why.
    #[error("{who} stopped: {reason}")]
    Aborted {
        /// The other side.
        who: String,
        /// Its reason.
        reason: String,
    },
    /// The other side is something else.
    #[error("{who} is no bcc party; check the address")]
    Foreign {
        /// The other side.
        who: String,
    },
    /// Another version.
    #[error(
        "the {peer} speaks {what} version {theirs}, this {me} version {ours}; install the same version of bcr for all parties"
    )]
    Version {
        /// The other side.
        peer: Role,
        /// This side.
        me: Role,
        /// What differs.
        what: &'static str,
        /// Its version.
        theirs: u32,
        /// This side's.
        ours: u32,
    },
    /// Another role than expected.
    #[error("this {me} expected {expected} and met a {peer}; check the addresses")]
    Role {
        /// The role met.
        peer: Role,
        /// This side.
        me: Role,
        /// What was expected.
        expected: String,
    },
    /// Another program.
    #[error(
        "the {peer} runs program {theirs}, this {me} runs {ours}; give all parties the program.bcc of one compilation"
    )]
    Program {
        /// The other side.
        peer: Role,
        /// This side.
        me: Role,
        /// Start of its digest.
        theirs: String,
        /// Start of this side's.
        ours: String,
    },
    /// A kind of session that one side does not offer.
    #[error("the client asks for {wanted}, which the {peer} does not offer; {remedy}")]
    Mode {
        /// What is asked for.
        wanted: &'static str,
        /// Who does not offer it.
        peer: Role,
        /// What to do.
        remedy: &'static str,
    },
    /// A public key that fixes the shared secret.
    #[error("the {peer} sent a degenerate public key; do not use this connection")]
    WeakKey {
        /// The other side.
        peer: Role,
    },
    /// The derived keys differ.
    #[error("the {peer} derived other keys: somebody changed the greeting on its way; do not use this connection")]
    Confirmation {
        /// The other side.
        peer: Role,
    },
}

fn names(roles: &[Role]) -> String {
    let names: Vec<String> = roles.iter().map(|r| format!("the {r}")).collect();
    if names.is_empty() { "nobody else".into() } else { names.join(" or ") }
}

impl Hello {
    fn bytes(&self) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.protocol.to_le_bytes());
        out[12..16].copy_from_slice(&self.program.to_le_bytes());
        out[16] = self.role as u8;
        out[17] = self.modes;
        out[18..20].copy_from_slice(&self.batch.to_le_bytes());
        out[20..24].copy_from_slice(&self.count.to_le_bytes());
        out[24..56].copy_from_slice(&self.digest);
        out[56..88].copy_from_slice(&self.public);
        out[88..104].copy_from_slice(&self.setup);
        out[104..].copy_from_slice(&self.fresh_setup);
        out
    }

    /// Reads the fields that every version has in the same place; of another version's greeting
    /// the rest may be missing.
    fn parse(bytes: &[u8]) -> Option<Hello> {
        let mut all = [0u8; BYTES];
        let known = bytes.len().min(BYTES);
        all[..known].copy_from_slice(&bytes[..known]);
        let word = |i: usize| u32::from_le_bytes([all[i], all[i + 1], all[i + 2], all[i + 3]]);
        let role = Role::ALL.into_iter().find(|r| *r as u8 == all[16])?;
        if known < 24 || all[..8] != MAGIC || (word(8) == PROTOCOL && bytes.len() != BYTES) {
            return None;
        }
        Some(Hello {
            protocol: word(8),
            program: word(12),
            role,
            modes: all[17],
            batch: u16::from_le_bytes([all[18], all[19]]).max(1),
            count: word(20),
            digest: array(&all[24..56]),
            public: array(&all[56..88]),
            setup: array(&all[88..104]),
            fresh_setup: array(&all[104..]),
        })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

/// A party's side of its greetings.
pub struct Greeter<'a> {
    /// This party's greeting; the public key is filled in by link.
    pub hello: Hello,
    /// Its secrets.
    pub secrets: &'a Secrets,
    /// Longest wait.
    pub timeout: Duration,
}

/// The other side of a link after the greeting.
pub struct Met {
    /// Its greeting.
    pub hello: Hello,
    /// What the two share.
    pub secret: PairSecret,
}

impl Greeter<'_> {
    /// Greets over a link that this side opened to `peer`.
    pub fn open(&self, link: &mut dyn Link, peer: Role) -> Result<Met, HandshakeError> {
        let who = format!("the {peer}");
        let own = Hello { public: self.secrets.public(peer), ..self.hello.clone() };
        self.send(link, Control::Hello, &own.bytes(), &who)?;
        let (theirs, bytes) = self.hear(link, &who, self.timeout)?;
        self.judge(&theirs, &[peer])?;
        self.confirm(link, theirs, [&own.bytes(), bytes.bytes()])
    }

    /// Greets over a link that one of `expected` opened.
    pub fn answer(&self, link: &mut dyn Link, expected: &[Role]) -> Result<Met, HandshakeError> {
        let who = format!("whoever connected in place of {}", names(expected));
        // It may itself still wait for somebody else: it gets time to say so.
        let (theirs, bytes) = self.hear(link, &who, 2 * self.timeout)?;
        let own = Hello { public: self.secrets.public(theirs.role), ..self.hello.clone() };
        self.send(link, Control::Hello, &own.bytes(), &who)?;
        self.judge(&theirs, expected)?;
        self.confirm(link, theirs, [bytes.bytes(), &own.bytes()])
    }

    fn send(&self, link: &mut dyn Link, kind: Control, payload: &[u8], who: &str) -> Result<(), HandshakeError> {
        link.send(control(kind, payload)).map_err(|source| HandshakeError::Link { who: who.into(), source })
    }

    fn receive(
        &self,
        link: &mut dyn Link,
        kind: Control,
        who: &str,
        patience: Duration,
    ) -> Result<Payload, HandshakeError> {
        let failed = |source| HandshakeError::Link { who: who.into(), source };
        let header = Header::parse(link.header(patience).map_err(failed)?);
        let kinds = [kind as u32, Control::Abort as u32];
        if !kinds.contains(&header.index) || header.len > 4096 {
            return Err(HandshakeError::Foreign { who: who.into() });
        }
        let payload = link.payload(header.len as usize, self.timeout).map_err(failed)?;
        if header.index == Control::Abort as u32 {
            let reason = String::from_utf8_lossy(payload.bytes()).into_owned();
            return Err(HandshakeError::Aborted { who: who.into(), reason });
        }
        Ok(payload)
    }

    fn hear(&self, link: &mut dyn Link, who: &str, patience: Duration) -> Result<(Hello, Payload), HandshakeError> {
        let payload = self.receive(link, Control::Hello, who, patience)?;
        let hello = Hello::parse(payload.bytes()).ok_or_else(|| HandshakeError::Foreign { who: who.into() })?;
        Ok((hello, payload))
    }

    fn judge(&self, theirs: &Hello, expected: &[Role]) -> Result<(), HandshakeError> {
        let (me, peer) = (self.hello.role, theirs.role);
        for (what, theirs, ours) in
            [("protocol", theirs.protocol, self.hello.protocol), ("program", theirs.program, self.hello.program)]
        {
            if theirs != ours {
                return Err(HandshakeError::Version { peer, me, what, theirs, ours });
            }
        }
        if !expected.contains(&peer) {
            return Err(HandshakeError::Role { peer, me, expected: names(expected) });
        }
        if theirs.digest != self.hello.digest {
            let short = |d: &[u8; 32]| d[..6].iter().map(|b| format!("{b:02x}")).collect();
            let (theirs, ours) = (short(&theirs.digest), short(&self.hello.digest));
            return Err(HandshakeError::Program { peer, me, theirs, ours });
        }
        let (client, other) = if me == Role::Client { (&self.hello, theirs) } else { (theirs, &self.hello) };
        if client.role == Role::Client && (client.mode().is_none() || client.modes & other.modes == 0) {
            let mode = Mode::from_bits(client.modes);
            let remedy = match mode {
                Some(Mode::Stored) => "start the server with --material and make material with bcr prepare",
                Some(Mode::Prepare) => "start the server with --material and --dealer",
                Some(Mode::Stream) => "start the server with --dealer, or the client with --material",
                None => "install the same version of bcr for all parties",
            };
            let wanted = mode.map_or("an unknown kind of session", Mode::purpose);
            return Err(HandshakeError::Mode { wanted, peer: other.role, remedy });
        }
        Ok(())
    }

    fn confirm(&self, link: &mut dyn Link, theirs: Hello, transcript: [&[u8]; 2]) -> Result<Met, HandshakeError> {
        let peer = theirs.role;
        let who = format!("the {peer}");
        let mut hash = blake3::Hasher::new();
        transcript.iter().for_each(|part| {
            hash.update(part);
        });
        let transcript = *hash.finalize().as_bytes();
        let secret = self.secrets.agree(peer, theirs.public, transcript).ok_or(HandshakeError::WeakKey { peer })?;
        self.send(link, Control::Confirm, &secret.confirmation(self.hello.role), &who)?;
        let shown = self.receive(link, Control::Confirm, &who, self.timeout)?;
        if shown.bytes() != secret.confirmation(peer) {
            return Err(HandshakeError::Confirmation { peer });
        }
        Ok(Met { hello: theirs, secret })
    }
}

impl Hello {
    /// A greeting of this version.
    pub fn new(role: Role, modes: u8, count: u32, digest: [u8; 32]) -> Hello {
        Hello {
            protocol: PROTOCOL,
            program: VERSION,
            role,
            modes,
            batch: 1,
            count,
            digest,
            public: [0; 32],
            setup: [0; 16],
            fresh_setup: [0; 16],
        }
    }

    /// The client's wish.
    pub fn mode(&self) -> Option<Mode> {
        Mode::from_bits(self.modes)
    }
}
