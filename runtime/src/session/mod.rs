//! A session: greeting, setup, inferences, farewell.
//!
//! | mode | client and server | dealer |
//! |---|---|---|
//! | stream | setup if the three do not hold the same one; offline and online, by inference | setup, offline phases, a bounded number of inferences ahead |
//! | prepare | setup, offline phases; each result is stored | the same |
//! | stored | online phases from stored material | not there |

mod error;
mod local;
mod party;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bcc_ir::program::{Program, Role};

pub use error::SessionError;
pub use local::{LocalOptions, RunOutput, Transport, run_local, run_local_all};
pub use party::run_party;

use crate::channel::{Hooks, Link, Shape};
use crate::exec::{Meter, Observer};
use crate::kernels::{self, KernelSet};
use crate::keys::Secrets;
use crate::port::Tensor;
use crate::stats::Stats;
use crate::weights::WeightSource;

/// How a party runs.
#[derive(Clone)]
pub struct Options {
    /// Kernels; the fastest available ones by default.
    pub kernels: KernelSet,
    /// Longest wait for a peer; 30 s by default.
    pub timeout: Duration,
    /// Inferences of the client that go on in lockstep, at least 1: they share rounds, and take as much memory
    /// each.
    pub batch: u16,
    /// Batches that the dealer may be ahead of the others, at least 1.
    pub run_ahead: u32,
    /// Directory that keeps the setup between sessions.
    pub state: Option<PathBuf>,
    /// Directory of stored offline material.
    pub material: Option<PathBuf>,
    /// A network that TCP links made with these options impose on what this party sends.
    pub shape: Option<Shape>,
    /// Test hooks on messages.
    pub hooks: Hooks,
    /// Test hook on buffers.
    pub observer: Option<Observer>,
    /// Called with the number of inferences done so far.
    pub progress: Option<Arc<dyn Fn(u32) + Send + Sync>>,
    /// Given secrets, for transcript tests; fresh ones by default.
    pub secrets: Option<Secrets>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            kernels: kernels::best(),
            timeout: Duration::from_secs(30),
            batch: 1,
            run_ahead: 2,
            state: None,
            material: None,
            shape: None,
            hooks: Hooks::default(),
            observer: None,
            progress: None,
            secrets: None,
        }
    }
}

/// One party of a session.
#[derive(Clone, Copy)]
pub struct Party<'a> {
    /// Its role.
    pub role: Role,
    /// The verified program.
    pub program: &'a Program,
    /// Digest of the program's file.
    pub digest: [u8; 32],
    /// The weights: at the server only.
    pub weights: Option<&'a dyn WeightSource>,
    /// How it runs.
    pub options: &'a Options,
}

/// What a party does in a session; the client decides for all.
pub enum Job {
    /// Client: inferences on inputs of the port's shape, in order.
    Infer {
        /// The inputs.
        inputs: Vec<Tensor>,
        /// Use stored offline material.
        stored: bool,
    },
    /// Client: make offline material for that many inferences.
    Prepare {
        /// How many.
        count: u32,
    },
    /// Server, dealer: whatever the client asks for.
    Serve,
}

/// A link to make.
pub struct Endpoint<'a> {
    /// The peer, where this side opens the connection; otherwise it says who it is.
    pub peer: Option<Role>,
    /// Makes the connection. An endpoint of the server to the dealer is only opened if the client
    /// asks for something that needs the dealer.
    pub open: Box<dyn FnOnce() -> Result<Box<dyn Link>, SessionError> + Send + 'a>,
}

/// One inference's output.
#[derive(Clone, PartialEq)]
pub struct Output {
    /// Real numbers after the epilogue.
    pub value: Tensor,
    /// The opened integers, before decoding and epilogue.
    pub integers: Vec<i64>,
}

/// What a session yields at one party.
pub struct PartyOutput {
    /// The client's outputs, in the order of the inputs; empty elsewhere.
    pub outputs: Vec<Output>,
    /// Of all parties that took part.
    pub stats: Stats,
    /// Where this party's time went.
    pub meter: Meter,
    /// Why the farewell failed, if it did after the outputs were there: they hold, but the counters
    /// of others are missing.
    pub unfinished: Option<SessionError>,
}
