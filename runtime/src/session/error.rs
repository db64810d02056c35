//! Why a session ends early.

use bcc_ir::program::Role;
use thiserror::Error;

use crate::channel::ChannelError;
use crate::exec::ExecError;
use crate::handshake::HandshakeError;
use crate::port::InputError;
use crate::store::StoreError;
use crate::vault::VaultError;

/// Why a session ends early.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The input cannot be used.
    #[error("input {number}: {source}")]
    Input {
        /// Number of the input, from 0.
        number: usize,
        /// What is wrong.
        source: InputError,
    },
    /// The code stopped.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A control message did not come or go.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The parties do not fit together.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The stored setup cannot be used.
    #[error(transparent)]
    State(#[from] VaultError),
    /// Stored material cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Client and server hold no material of the same name.
    #[error(
        "client and server have no unused offline material in common (the client has {client} pieces); \
         make some with bcr prepare"
    )]
    NoMaterial {
        /// Pieces at the client.
        client: usize,
    },
    /// No directory for material was given.
    #[error("the {0} needs a directory for offline material (--material)")]
    NoStore(Role),
    /// A connection could not be made.
    #[error("cannot connect to {what}: {source}; is it running, and is the address right?")]
    Connect {
        /// Whom, with the address.
        what: String,
        /// Reason.
        source: std::io::Error,
    },
    /// Nobody came.
    #[error("the {me} waits for {what} to connect: {source}")]
    Accept {
        /// This side.
        me: Role,
        /// Whom.
        what: String,
        /// Reason.
        source: std::io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The caller asked for something that does not go together.
    #[error("{0}")]
    Usage(&'static str),
    /// The client asked for a kind of session that this side does not know.
    #[error("the {0} sent a goodbye without counters; install the same version of bcr for all parties")]
    Farewell(Role),
    /// A party's thread panicked.
    #[error("the {0} crashed; this is a bug in bcr")]
    Crashed(Role),
}

impl SessionError {
    /// How likely this is the cause and not a consequence of another party's error: larger is
    /// likelier.
    pub fn rank(&self) -> u8 {
        let channel = match self {
            SessionError::Channel(e) | SessionError::Exec(ExecError::Channel(e)) => Some(e),
            _ => None,
        };
        match (self, channel) {
            (_, Some(ChannelError::Aborted { .. })) => 0,
            (SessionError::Handshake(HandshakeError::Aborted { .. } | HandshakeError::Link { .. }), _) => 1,
            (SessionError::Accept { .. } | SessionError::Connect { .. }, _) => 1,
            (_, Some(ChannelError::Closed { .. } | ChannelError::Truncated { got: 0, .. })) => 2,
            (_, Some(ChannelError::Timeout { .. })) => 3,
            (_, Some(ChannelError::Killed(_))) => 5,
            _ => 4,
        }
    }

    /// Whether a test hook killed this party: it must vanish without a word.
    pub(crate) fn killed(&self) -> bool {
        let (SessionError::Channel(e) | SessionError::Exec(ExecError::Channel(e))) = self else { return false };
        matches!(e, ChannelError::Killed(_))
    }
}
