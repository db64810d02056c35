//! Instructions and what they mean.

use serde::{Deserialize, Serialize};

use super::BufferId;
use crate::geometry::{Block, ConvShape, PoolShape};

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
/// reduced modulo the output's modulus, which is at most that of every operand ([`Inst::Join`],
/// [`Inst::Gate`], [`Inst::Select`], [`Inst::LiftPublic`] and [`Inst::ToRing`] widen).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inst {
    /// `() -> any`: values of a stream. Drawing a stream twice in one role gives the same values.
    Draw {
        /// Stream.
        stream: u32,
    },
    /// `() -> ring`, server only: integers of the weights file.
    Weight {
        /// Entry of [`Program::weights`](super::Program::weights).
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
    /// `(ring a) -> ring`: `((a + carry * 2^bits) mod 2^k) >> bits`, where `k` is the operand's
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
    /// [`Inst::CarryOpen`] needs, in the order of [`carry_terms`](super::carry_terms).
    CarryProducts {
        /// Inputs `n` of this level.
        inputs: u8,
    },
    /// Client, server. `(bits hat, 2 n - 1 planes; bits lambda share, 2 n - 1 planes; bits shares
    /// of the products) -> bits`: XOR shares of generate and propagate of every group of up to
    /// four inputs (see [`carry_groups`](super::carry_groups)), in the order `G0, G1, P1, ..` over the groups that hold
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
