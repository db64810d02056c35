//! What the three parties execute.
//!
//! A [`Program`] holds, for every role, three flat lists of instructions ([`Code`]): setup (once
//! per model), offline (once per inference, before the input) and online. Instructions read and
//! write numbered buffers with static types; every buffer is written once. A message has a static
//! size, a draw names its randomness stream. So traffic and rounds are read off the program
//! ([`traffic`]) and are what the runtime sends, and [`verify`] proves that the program is well
//! formed and that every message is masked by a stream its receiver cannot draw from.
//!
//! The program is public. Weights are not in it; the server's weights file ([`file`]) holds them.

pub mod file;
mod leak;
mod print;
pub mod traffic;
mod typing;
mod verify;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::geometry::{Block, ConvShape, PoolShape};
use crate::graph::ClientStep;

pub use verify::{Fault, Faults, Verified, verify};

/// Version of the program's structure and of the instructions' meaning.
pub const VERSION: u32 = 1;

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
    /// Bytes on the wire: ring elements take the whole bytes of their modulus, a plane of bits is
    /// padded to whole bytes.
    pub fn wire_bytes(self) -> u64 {
        match self {
            Type::Ring { bits, len } => u64::from(bits.div_ceil(8)) * len as u64,
            Type::Bits { planes, len } => planes as u64 * len.div_ceil(8) as u64,
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

/// A message: one frame on one link. All its parts travel together.
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
    /// Bytes of the frame header that every message carries.
    pub const HEADER: u64 = 16;

    /// Bytes on the wire, header included.
    pub fn wire_bytes(&self) -> u64 {
        Self::HEADER + self.parts.iter().map(|p| p.wire_bytes()).sum::<u64>()
    }
}

/// A number of a buffer within one role.
pub type BufferId = u32;

/// Blocks of the gated channels of one layer, over a buffer of `blocks.len()` maps of
/// `map[0] x map[1]` pixels. Blocks are numbered channel by channel, row by row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMap {
    /// Height and width of a map.
    pub map: [usize; 2],
    /// Rows and columns of a block, for every channel.
    pub blocks: Vec<[usize; 2]>,
}

impl BlockMap {
    /// Number of pixels.
    pub fn pixels(&self) -> usize {
        self.blocks.len() * self.map[0] * self.map[1]
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        let [h, w] = self.map;
        self.blocks.iter().map(|&[bh, bw]| Block::Patch { h: bh, w: bw }.drelus(h, w)).sum()
    }

    /// Pixels of the largest block.
    pub fn largest(&self) -> usize {
        self.blocks.iter().map(|&[h, w]| h.min(self.map[0]) * w.min(self.map[1])).max().unwrap_or(0)
    }
}

/// Where a channel of an assembled tensor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The next channel of that operand.
    Operand(u8),
    /// Zeros.
    Zero,
}

/// What an instruction does. Unless said otherwise it works element by element and its result is
/// reduced modulo the output's modulus, which is at most that of every operand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inst {
    /// `() -> any`: values of a stream. Drawing a stream twice in one role gives the same values.
    Draw {
        /// Stream.
        stream: u32,
    },
    /// `() -> ring`, server only: integers of the weights file.
    Weight {
        /// Entry of [`Program::weights`].
        index: u32,
    },
    /// `() -> ring`, client only, online only: the encoded input.
    Input,
    /// `() -> ring or bits`: zeros.
    Zero,
    /// `(parts..) -> ()`.
    Send {
        /// Message.
        message: u32,
    },
    /// `() -> parts..`.
    Receive {
        /// Message.
        message: u32,
    },
    /// `(ring) -> ()`, client only, online only: the opened output.
    Output,

    /// `(ring a, ring b) -> ring`: `a + b`.
    Add,
    /// `(ring a, ring b) -> ring`: `a - b`.
    Sub,
    /// `(ring) -> ring`: the same value in a smaller modulus.
    Reduce,
    /// `(ring a) -> ring`: `a + value`.
    AddConst {
        /// The constant.
        value: u64,
    },
    /// `(ring a) -> ring`: `(a + carry * 2^bits mod 2^k) >> bits`, where `k` is the operand's
    /// modulus width; the output's is `k - bits`.
    Truncate {
        /// Bits dropped.
        bits: u8,
        /// 1 at the party that adds the centring unit, else 0.
        carry: u8,
    },
    /// `(ring low, ring high) -> ring`: `low + 2^shift * high`. Operands may be narrower than the
    /// output; each is taken as the integer in `[0, 2^bits)`.
    Join {
        /// Bits by which `high` is shifted.
        shift: u8,
    },
    /// `(ring x, ring w) -> ring`: convolution.
    Conv(ConvShape),
    /// `(ring x, ring b) -> ring`: adds `b[c]` to every element of channel `c`; `x` holds `b`'s
    /// length many channels of equal size.
    AddBias,
    /// `(ring x) -> ring`: multiplies element `p` of every channel by `factors[p]`; `x` holds a
    /// whole number of channels of `factors.len()` elements.
    Scale {
        /// Public factors, one per map position.
        factors: Vec<u64>,
    },
    /// `(ring x) -> ring`: sum over each window, zeros in the padding.
    SumPool(PoolShape),
    /// `(ring x) -> ring`: `y[o, j, i] = x[o, indices[j], i]` for `x` of shape
    /// `[outer, axis, inner]`.
    Gather {
        /// Product of the axes before.
        outer: usize,
        /// Length of the operand's axis.
        axis: usize,
        /// Product of the axes behind.
        inner: usize,
        /// Positions.
        indices: Vec<usize>,
    },
    /// `(ring x) -> ring`: output axis `i` is operand axis `perm[i]`.
    Transpose {
        /// The operand's shape.
        shape: Vec<usize>,
        /// The permutation.
        perm: Vec<usize>,
    },
    /// `(ring x) -> ring`: zeros around each of the maps.
    Pad {
        /// Number of maps.
        channels: usize,
        /// Height and width of the operand's maps.
        input: [usize; 2],
        /// Added rows and columns: top, left, bottom, right.
        pad: [usize; 4],
    },
    /// `(ring..) -> ring`: channels of `inner` elements, each the next one of an operand or zero.
    Assemble {
        /// Elements of a channel.
        inner: usize,
        /// One entry per channel of the output.
        sources: Vec<Source>,
    },

    /// `(bits a, bits b) -> bits`: exclusive or.
    Xor,
    /// `(bits a, bits b) -> bits`: `1 xor a xor b`.
    Xnor,
    /// `(bits..) -> bits`: plane `p` of the output is plane `picks[p].1` of operand `picks[p].0`.
    Planes {
        /// Operand and plane.
        picks: Vec<(u8, u32)>,
    },
    /// `(ring) -> bits`: `pad` planes of zeros, then bits `low .. low + count` of every element.
    ToBits {
        /// First bit.
        low: u8,
        /// Number of bits.
        count: u8,
        /// Planes of zeros below them.
        pad: u8,
    },
    /// `(bits, one plane) -> ring`: 0 or 1.
    ToRing,
    /// `(ring a, ring b) -> bits, one plane`: whether `a + b >= 2^k`, both operands modulo `2^k`.
    Wrap,

    /// `(ring x) -> ring`: the sum of every block.
    BlockSum(BlockMap),
    /// Dealer. `(bits t, 4 q planes) -> bits, 15 q planes`: for nibble `j` and each non-empty set
    /// `J` of its positions (as a 4-bit number 1..15, position 0 the lowest bit), plane
    /// `15 j + J - 1` is the product of the bits `t[4 j + i]`, `i` in `J`.
    NibbleProducts,
    /// Client, server. `(bits e, 4 q planes; bits shares of the products, 15 q planes) -> bits,
    /// 2 q - 1 planes`: XOR shares of generate `G` and propagate `P` of `e + t` for every nibble,
    /// in the order `G0, G1, P1, G2, P2, ..`. With `g_i = e_i t_i`, `p_i = e_i xor t_i`:
    /// `G = g3 + p3 g2 + p3 p2 g1 + p3 p2 p1 g0`, `P = p3 p2 p1 p0` (mod 2), expanded into the
    /// products of the `t_i` with public coefficients. The party with `public` adds the terms
    /// without any `t_i` (they occur in `P` alone).
    NibbleOpen {
        /// Whether this party adds the public terms.
        public: bool,
    },
    /// Dealer. `(bits lambda, 2 n - 1 planes) -> bits`: products of two and more mask bits that
    /// [`Inst::CarryOpen`] needs, in the order of [`carry_terms`].
    CarryProducts {
        /// Inputs `n` of this level.
        inputs: u8,
    },
    /// Client, server. `(bits hat, 2 n - 1 planes; bits lambda share, 2 n - 1 planes; bits shares
    /// of the products) -> bits`: XOR shares of generate and propagate of every group of up to
    /// four inputs (see [`carry_groups`]), in the order `G0, G1, P1, ..` over the groups that hold
    /// more than one input. A masked bit is `hat xor lambda`, so a product of masked bits expands
    /// into public coefficients times products of lambdas. The party with `public` adds the terms
    /// without any lambda.
    CarryOpen {
        /// Inputs `n` of this level.
        inputs: u8,
        /// Whether this party adds the public terms.
        public: bool,
    },
    /// Dealer. `(bits gate, one plane over blocks; ring x over pixels) -> ring`: `gate * x`, `x`
    /// taken as the integer in `[0, 2^bits)`; the output may be wider than `x`.
    Gate(BlockMap),
    /// Client, server. This party's share of `DReLU * z` in the output's modulus `2^L`.
    ///
    /// Operands: `d` (ring k, pixels: the public `z - a mod 2^k`), `delta` (bits, blocks: the
    /// public `DReLU xor rho`), and shares `a` (ring k), `r` of rho (ring L, blocks), `ra` of
    /// `rho * a` (ring L, pixels); where `k < L` also `w` of the wrap of the two halves of `a`,
    /// `ta` of the top bit of `a`, `rta` of `rho` times that bit (ring L - k, pixels each).
    ///
    /// With `eps = d + 2^(k-2) mod 2^k` and its top bit `te`:
    /// `pub = eps - te 2^k - 2^(k-2)`, `A = a - 2^k w - (1 - te) 2^k ta`,
    /// `R = ra - (1 - te) 2^k rta`, and the share is
    /// `delta (public * pub + A) + (1 - 2 delta) (pub r + R)`.
    Select {
        /// Blocks and pixels.
        map: BlockMap,
        /// Whether this party adds the public term.
        public: bool,
    },
    /// `(ring k d) -> ring L`: `eps - te 2^k - 2^(k-2)` as in [`Inst::Select`].
    LiftPublic,
    /// `(bits te, ring w, ring ta) -> ring`: `- w - (1 - te) ta`.
    LiftCorrection,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// What it does.
    pub inst: Inst,
    /// Operands.
    pub inputs: Vec<BufferId>,
    /// Results; each buffer is written once.
    pub outputs: Vec<BufferId>,
    /// Layer it belongs to.
    pub layer: u32,
}

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

/// Groups of a carry level over `inputs` inputs: sizes of the chunks of up to four, lowest first.
/// A chunk of one passes to the next level unopened.
pub fn carry_groups(inputs: usize) -> Vec<usize> {
    (0..inputs.div_ceil(4)).map(|i| (inputs - 4 * i).min(4)).collect()
}

/// One opened bit of a carry level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarryBit {
    /// Its XOR of products of input planes (plane numbers in the order `G0, G1, P1, ..`).
    pub terms: Vec<Vec<usize>>,
}

/// The opened bits of a carry level over `inputs` inputs and the products of mask bits (sets of
/// input planes, at least two each, sorted) that they need: groups in order, in a group first the
/// terms of `G` from the highest input down, then the one of `P` (no `P` for the lowest group);
/// within a term, sets by size, then lexicographically; a set that came before is not repeated.
pub fn carry_terms(inputs: usize) -> (Vec<CarryBit>, Vec<Vec<usize>>) {
    let generate = |i: usize| if i == 0 { 0 } else { 2 * i - 1 };
    let propagate = |i: usize| 2 * i;
    let mut bits = Vec::new();
    let mut products: Vec<Vec<usize>> = Vec::new();
    let mut first = 0;
    for (group, size) in carry_groups(inputs).into_iter().enumerate() {
        let top = first + size - 1;
        if size > 1 {
            let g: Vec<Vec<usize>> = (first..=top)
                .rev()
                .map(|i| {
                    let mut term: Vec<usize> = (i + 1..=top).map(propagate).collect();
                    term.push(generate(i));
                    term.sort_unstable();
                    term
                })
                .collect();
            bits.push(CarryBit { terms: g });
            if group > 0 {
                bits.push(CarryBit { terms: vec![(first..=top).map(propagate).collect()] });
            }
        }
        first = top + 1;
    }
    for bit in &bits {
        for term in &bit.terms {
            for size in 2..=term.len() {
                for set in subsets(term, size) {
                    if !products.contains(&set) {
                        products.push(set);
                    }
                }
            }
        }
    }
    (bits, products)
}

/// Subsets of `items` with `size` elements, in lexicographic order of positions.
pub fn subsets(items: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (i, &head) in items.iter().enumerate() {
        for mut tail in subsets(&items[i + 1..], size - 1) {
            tail.insert(0, head);
            all.push(tail);
        }
    }
    all
}
