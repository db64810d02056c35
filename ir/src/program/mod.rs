//! What the three parties execute.
//!
//! A [`Program`] holds, for every role, three flat lists of instructions ([`Code`]): setup (once
//! per model), offline (once per inference, before the input) and online. Instructions read and
//! write numbered buffers with static types; every buffer is written once. A message has a static
//! size, a draw names its randomness stream. So traffic and rounds are read off the program
//! ([`traffic`]) and are what the runtime sends, and [`verify()`] proves that the program is well
//! formed and that every message is masked by a stream its receiver cannot draw from.
//!
//! The program is public. Weights are not in it; the server's weights file ([`mod@file`]) holds them.

mod carry;
pub mod file;
mod inst;
mod leak;
mod lifetimes;
mod pieces;
mod print;
pub mod steps;
pub mod traffic;
mod typing;
mod verify;
mod weights;
mod width;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::graph::ClientStep;

pub use carry::{CarryBit, carry_groups, carry_terms, subsets};
pub use inst::{BlockMap, Inst, Instruction, Source};
pub use lifetimes::Lifetimes;
pub use verify::{Fault, Faults, Verified, verify};
pub use width::Width;

/// Version of the program's structure and of the instructions' meaning.
pub const VERSION: u32 = 3;

/// A party.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Owns the input, learns the output.
    Client,
    /// Owns the weights.
    Server,
    /// Deals correlated randomness before the input exists.
    Dealer,
}

impl Role {
    /// All roles, in index order.
    pub const ALL: [Role; 3] = [Role::Client, Role::Server, Role::Dealer];

    /// 0, 1, 2.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Client => "client",
            Role::Server => "server",
            Role::Dealer => "dealer",
        })
    }
}

/// When an instruction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Once per model.
    Setup,
    /// Once per inference, before the input exists.
    Offline,
    /// With the input.
    Online,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Phase; 3] = [Phase::Setup, Phase::Offline, Phase::Online];

    /// 0, 1, 2.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Setup => "setup",
            Phase::Offline => "offline",
            Phase::Online => "online",
        })
    }
}

/// Type of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Type {
    /// `len` integers modulo `2^bits`, `1 <= bits <= 64`.
    Ring {
        /// Modulus width.
        bits: u8,
        /// Elements.
        len: usize,
    },
    /// `planes` rows of `len` bits each.
    Bits {
        /// Rows.
        planes: usize,
        /// Bits in a row.
        len: usize,
    },
}

impl Type {
    /// Bytes on the wire: ring elements take the bits of their modulus, all of them together are padded to whole
    /// bytes, and so is every plane of bits.
    pub fn wire_bytes(self) -> u64 {
        match self {
            Type::Ring { bits, len } => (u64::from(bits) * len as u64).div_ceil(8),
            Type::Bits { planes, len } => planes as u64 * len.div_ceil(8) as u64,
        }
    }

    /// Bytes of keystream that a draw reads: the whole bytes of every ring element, the whole 64-bit words of every
    /// plane.
    pub fn drawn_bytes(self) -> u64 {
        match self {
            Type::Ring { bits, len } => u64::from(bits.div_ceil(8)) * len as u64,
            Type::Bits { planes, len } => 8 * planes as u64 * len.div_ceil(64) as u64,
        }
    }

    /// Elements of a ring buffer, bits of one plane of a bit buffer.
    pub fn len(self) -> usize {
        match self {
            Type::Ring { len, .. } | Type::Bits { len, .. } => len,
        }
    }

    /// Whether there is no element.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Ring { bits, len } => write!(f, "z{bits}[{len}]"),
            Type::Bits { planes: 1, len } => write!(f, "b[{len}]"),
            Type::Bits { planes, len } => write!(f, "b[{planes}x{len}]"),
        }
    }
}

/// Who shares a stream's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Pair {
    /// Client and dealer.
    ClientDealer,
    /// Server and dealer.
    ServerDealer,
}

impl Pair {
    /// Whether `role` holds the key.
    pub fn holds(self, role: Role) -> bool {
        match self {
            Pair::ClientDealer => role != Role::Server,
            Pair::ServerDealer => role != Role::Client,
        }
    }
}

/// How long a stream's key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// One key per model: drawn in setup.
    Model,
    /// A fresh key for every inference.
    Inference,
}

/// A named randomness stream: uniform values that exactly two parties can draw.
///
/// Stream number `i` under a 16-byte key is the AES-128 encryption of the blocks
/// `(i as u64 LE, j as u64 LE)`, `j = 0, 1, ..`. A ring draw reads the whole bytes of its modulus
/// per element, little-endian, and drops the bits above it; a bit draw reads whole 64-bit
/// little-endian words per plane and drops the bits past `len`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// What the values are, in the protocol's letters, with the layer's name.
    pub name: String,
    /// Who holds the key.
    pub pair: Pair,
    /// Which key.
    pub scope: Scope,
    /// Type of the drawn buffer.
    pub ty: Type,
}

/// A message, on one link: one frame, or several if it is large ([`Message::pieces`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What it carries.
    pub name: String,
    /// Sender.
    pub from: Role,
    /// Receiver.
    pub to: Role,
    /// Phase of both the send and the receive.
    pub phase: Phase,
    /// Layer it belongs to.
    pub layer: u32,
    /// Types of its parts, in order.
    pub parts: Vec<Type>,
    /// The one message that is not masked: the server's share of the output, for the client.
    pub reveal: bool,
}

impl Message {
    /// Bytes of the header that every frame carries.
    pub const HEADER: u64 = 16;
}

/// A number of a buffer within one role.
pub type BufferId = u32;

/// A role's share of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Types of the buffers.
    pub buffers: Vec<Type>,
    /// Instructions by [`Phase`].
    pub phases: [Vec<Instruction>; 3],
}

/// Input or output of the network, as the client sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Shape, with the batch axis of 1.
    pub shape: Vec<usize>,
    /// Fraction bits.
    pub frac: u8,
    /// Modulus width in bits.
    pub modulus: u8,
    /// Public factor: the integer `v` stands for `gain * v / 2^frac`.
    pub gain: f64,
    /// Largest magnitude: the client refuses an input beyond it.
    pub bound: f64,
}

/// One layer, for reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Name of the graph node.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Shape of its result.
    pub shape: Vec<usize>,
    /// Fraction bits of its result.
    pub frac: u8,
    /// Modulus width of its result.
    pub modulus: u8,
    /// Sign decisions.
    pub drelus: u64,
}

/// How an entry of the weights file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WeightWidth {
    /// 16-bit signed integers.
    I16,
    /// 32-bit signed integers.
    I32,
    /// 64-bit signed integers.
    I64,
}

/// An entry of the weights file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightEntry {
    /// Name of the constant.
    pub name: String,
    /// Elements.
    pub len: usize,
    /// Storage.
    pub width: WeightWidth,
}

/// Where both shares of a graph node's value are, for checks that open every value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tap {
    /// Name of the graph node.
    pub node: String,
    /// The client's share.
    pub client: BufferId,
    /// The server's share.
    pub server: BufferId,
    /// Fraction bits.
    pub frac: u8,
    /// Modulus width in bits.
    pub modulus: u8,
    /// Public factor.
    pub gain: f64,
}

/// A compiled network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Name of the network.
    pub name: String,
    /// Ring width L in bits.
    pub ring: u8,
    /// The client's input.
    pub input: Port,
    /// The client's output, before the epilogue.
    pub output: Port,
    /// What the client does in the clear with the output.
    pub epilogue: Vec<ClientStep>,
    /// Layers.
    pub layers: Vec<Layer>,
    /// Entries of the weights file.
    pub weights: Vec<WeightEntry>,
    /// Randomness streams.
    pub streams: Vec<Stream>,
    /// Messages.
    pub messages: Vec<Message>,
    /// Code by [`Role`].
    pub roles: [Code; 3],
    /// Values by graph node.
    pub taps: Vec<Tap>,
}

impl Program {
    /// A role's code.
    pub fn code(&self, role: Role) -> &Code {
        &self.roles[role.index()]
    }
}
