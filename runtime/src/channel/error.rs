//! Why messages do not come or go.

use std::time::Duration;

use bcc_ir::program::Role;
use thiserror::Error;

/// What a link reports; [`ChannelError`] adds who and what.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Nothing came for the given time.
    #[error("nothing arrived in time")]
    Timeout,
    /// The other end is gone.
    #[error("the connection was closed")]
    Closed,
    /// A frame ended early.
    #[error("a frame broke off after {got} of {want} bytes")]
    Truncated {
        /// Bytes that came.
        got: usize,
        /// Bytes announced.
        want: usize,
    },
    /// The system failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Why a message did not come or go.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// Nothing came.
    #[error("no message from the {peer} for {} s (waiting for {waiting})", seconds(timeout))]
    Timeout {
        /// Whom we wait for.
        peer: Role,
        /// For how long.
        timeout: Duration,
        /// What we wait for.
        waiting: String,
    },
    /// The peer is gone.
    #[error("the {peer} closed the connection ({waiting})")]
    Closed {
        /// Who.
        peer: Role,
        /// What we waited for or sent.
        waiting: String,
    },
    /// The peer says that it stopped, and why.
    #[error("the {peer} stopped: {reason}")]
    Aborted {
        /// Who.
        peer: Role,
        /// Its reason.
        reason: String,
    },
    /// Another message came than the program says.
    #[error("the {peer} sent {got} where the {me} waits for {waiting}; both must run the same program")]
    Unexpected {
        /// Sender.
        peer: Role,
        /// Receiver.
        me: Role,
        /// What came.
        got: String,
        /// What should have come.
        waiting: String,
    },
    /// A message of another size came.
    #[error("the {peer} announced {got} bytes for {waiting}, the {me} expects {want}; both must run the same program")]
    Length {
        /// Sender.
        peer: Role,
        /// Receiver.
        me: Role,
        /// Message.
        waiting: String,
        /// Announced.
        got: u64,
        /// Expected.
        want: u64,
    },
    /// A message broke off.
    #[error("the {peer}'s frame broke off after {got} of {want} bytes ({waiting})")]
    Truncated {
        /// Sender.
        peer: Role,
        /// Message.
        waiting: String,
        /// Bytes that came.
        got: usize,
        /// Bytes announced.
        want: usize,
    },
    /// There is no connection to the peer.
    #[error("the {me} has no connection to the {peer} ({waiting})")]
    NoLink {
        /// This party.
        me: Role,
        /// The peer.
        peer: Role,
        /// Message.
        waiting: String,
    },
    /// The system failed.
    #[error("connection to the {peer} failed ({waiting}): {source}")]
    Io {
        /// The peer.
        peer: Role,
        /// Message.
        waiting: String,
        /// Reason.
        source: std::io::Error,
    },
    /// A test hook killed this party.
    #[error("the {0} was killed by a test")]
    Killed(Role),
}

fn seconds(timeout: &Duration) -> f64 {
    (timeout.as_secs_f64() * 10.0).round() / 10.0
}
