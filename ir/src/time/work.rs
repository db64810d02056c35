//! What instructions do, counted.

use serde::{Deserialize, Serialize};

use crate::geometry::{ConvShape, PoolShape};
use crate::program::{BlockMap, Inst, Phase, Program, Role, Type, WeightWidth, Width, carry_terms};

/// A kind of work. Names (`conv_macs` and so on) are stable: rate files and JSON use them. Elements are of 32 bits, in
/// programs that hold them in 64 bits each counts as two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Multiply-accumulates of elements of 32 bits in a convolution with at least [`NARROW`] output channels in a
    /// group, padding counted.
    ConvMacs,
    /// The same with weights that are integers of at most 16 bits.
    NarrowMacs,
    /// Multiply-accumulates of 16-bit digits in such a convolution of elements of 64 bits: [`digit_products`] for
    /// each of its own.
    DigitMacs,
    /// Operand elements that such a convolution gathers: one for each tap and output pixel.
    ConvTaps,
    /// The same where windows have several pixels and groups at least [`DEEP`] channels: some processors read such operands
    /// where the maps lie.
    DeepTaps,
    /// Halves of 32 bits of the weights that such a convolution reads, each once for all pixels; of wider ones as many
    /// as they have digits.
    ConvReads,
    /// Elements of its result. What the kernels do for every some hundred products of each, such as adding sums to it, is in
    /// the cost of the products.
    ConvSums,
    /// Weights that are arranged for such a convolution, once, when the setup has them.
    ConvWeights,
    /// Multiply-accumulates of a convolution with fewer output channels in a group, depthwise ones
    /// above all.
    DepthwiseMacs,
    /// Multiply-accumulates of a fully connected layer.
    DenseMacs,
    /// Taps of a sum over windows, padding counted.
    PoolTaps,
    /// Result elements of a pass over ring elements: sums, reductions, truncations, lifts.
    Elements,
    /// Result elements of a transposition.
    Transposed,
    /// Result elements of a gather, a padding or an assembly.
    Gathered,
    /// Elements taken from the weights file.
    Weights,
    /// Bytes of randomness: whole bytes of every ring element, whole words of every plane.
    DrawnBytes,
    /// Ring elements that randomness is made into; words of planes are the randomness itself.
    DrawnElements,
    /// 64-bit words of bit planes that an exclusive or or a choice of planes writes.
    BitWords,
    /// Ring elements taken apart into bit planes.
    ToBits,
    /// Ring elements made of bits.
    FromBits,
    /// Pairs of ring elements compared for a wrap.
    Wraps,
    /// Pixels that are summed by block or gated by a secret bit.
    BlockElements,
    /// Pixels whose share of a gated value is computed.
    SelectElements,
    /// Rows of blocks of several pixels that sums go through.
    SumRuns,
    /// Rows of blocks of several pixels that the dealer's gates go through.
    GateRuns,
    /// Rows of blocks of several pixels that selections go through.
    SelectRuns,
    /// Words of nibbles whose products the dealer computes: one for 64 nibbles.
    NibbleProducts,
    /// Words of nibbles that are opened: one for 64 nibbles.
    NibbleOpens,
    /// Word operations of the dealer's products for carries.
    CarryProducts,
    /// Word operations of opening carries.
    CarryOpens,
    /// Bytes of messages handed to the link; a call is a message or a piece of one, small things made for it included.
    SentBytes,
    /// Bytes of messages taken from the link and checked; a call is a message or a piece of one.
    ReceivedBytes,
    /// Bytes of messages that elements and planes are made to, by the step that has them.
    PackedBytes,
    /// Bytes of received messages that are made into elements and planes, by every step that reads them.
    UnpackedBytes,
    /// Bytes of memory that a role uses for the first time, whatever the instruction.
    FreshBytes,
}

/// Output channels in a group from which a convolution counts as [`Kind::ConvMacs`].
pub const NARROW: usize = 4;

/// Input channels in a group from which windows of several pixels count as [`Kind::DeepTaps`].
pub const DEEP: usize = 48;

impl Kind {
    /// All kinds, in index order.
    pub const ALL: [Kind; 35] = [
        Kind::ConvMacs,
        Kind::NarrowMacs,
        Kind::DigitMacs,
        Kind::ConvTaps,
        Kind::DeepTaps,
        Kind::ConvReads,
        Kind::ConvSums,
        Kind::ConvWeights,
        Kind::DepthwiseMacs,
        Kind::DenseMacs,
        Kind::PoolTaps,
        Kind::Elements,
        Kind::Transposed,
        Kind::Gathered,
        Kind::Weights,
        Kind::DrawnBytes,
        Kind::DrawnElements,
        Kind::BitWords,
        Kind::ToBits,
        Kind::FromBits,
        Kind::Wraps,
        Kind::BlockElements,
        Kind::SelectElements,
        Kind::SumRuns,
        Kind::GateRuns,
        Kind::SelectRuns,
        Kind::NibbleProducts,
        Kind::NibbleOpens,
        Kind::CarryProducts,
        Kind::CarryOpens,
        Kind::SentBytes,
        Kind::ReceivedBytes,
        Kind::PackedBytes,
        Kind::UnpackedBytes,
        Kind::FreshBytes,
    ];

    /// Position in [`Kind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ConvMacs => "conv_macs",
            Kind::NarrowMacs => "narrow_macs",
            Kind::DigitMacs => "digit_macs",
            Kind::ConvTaps => "conv_taps",
            Kind::DeepTaps => "deep_taps",
            Kind::ConvReads => "conv_reads",
            Kind::ConvSums => "conv_sums",
            Kind::ConvWeights => "conv_weights",
            Kind::DepthwiseMacs => "depthwise_macs",
            Kind::DenseMacs => "dense_macs",
            Kind::PoolTaps => "pool_taps",
            Kind::Elements => "elements",
            Kind::Transposed => "transposed",
            Kind::Gathered => "gathered",
            Kind::Weights => "weights",
            Kind::DrawnBytes => "drawn_bytes",
            Kind::DrawnElements => "drawn_elements",
            Kind::BitWords => "bit_words",
            Kind::ToBits => "to_bits",
            Kind::FromBits => "from_bits",
            Kind::Wraps => "wraps",
            Kind::BlockElements => "block_elements",
            Kind::SelectElements => "select_elements",
            Kind::SumRuns => "sum_runs",
            Kind::GateRuns => "gate_runs",
            Kind::SelectRuns => "select_runs",
            Kind::NibbleProducts => "nibble_products",
            Kind::NibbleOpens => "nibble_opens",
            Kind::CarryProducts => "carry_products",
            Kind::CarryOpens => "carry_opens",
            Kind::SentBytes => "sent_bytes",
            Kind::ReceivedBytes => "received_bytes",
            Kind::PackedBytes => "packed_bytes",
            Kind::UnpackedBytes => "unpacked_bytes",
            Kind::FreshBytes => "fresh_bytes",
        }
    }

    /// Whether its cost is that of the memory of elements.
    fn of_elements(self) -> bool {
        matches!(
            self,
            Kind::ConvTaps
                | Kind::DeepTaps
                | Kind::ConvSums
                | Kind::DepthwiseMacs
                | Kind::DenseMacs
                | Kind::PoolTaps
                | Kind::Elements
                | Kind::Transposed
                | Kind::Gathered
                | Kind::Weights
                | Kind::DrawnElements
                | Kind::ToBits
                | Kind::FromBits
                | Kind::Wraps
                | Kind::BlockElements
                | Kind::SelectElements
        )
    }

    /// Whether it is the system's part of messages, or its giving memory: not of kernels.
    pub fn of_system(self) -> bool {
        matches!(self, Kind::SentBytes | Kind::ReceivedBytes | Kind::FreshBytes)
    }

    /// Units that a thread takes at a time where several share an instruction that runs by itself; `None` where one
    /// thread does it all.
    pub fn grain(self) -> Option<u64> {
        match self {
            Kind::ConvMacs | Kind::NarrowMacs | Kind::DigitMacs | Kind::DepthwiseMacs | Kind::DenseMacs => {
                Some(1 << 16)
            }
            Kind::DrawnElements | Kind::ConvSums => Some(1 << 14),
            _ => None,
        }
    }
}

/// Units and calls by kind; adds up. An instruction is one call of each kind that it has units of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    units: [u64; Kind::ALL.len()],
    calls: [u64; Kind::ALL.len()],
}

impl Default for Work {
    fn default() -> Work {
        Work { units: [0; Kind::ALL.len()], calls: [0; Kind::ALL.len()] }
    }
}

impl Work {
    /// One call with `units` units.
    pub fn of(kind: Kind, units: u64) -> Work {
        Work::default().and(kind, units)
    }

    /// One more call.
    #[must_use]
    pub fn and(mut self, kind: Kind, units: u64) -> Work {
        self.units[kind.index()] += units;
        self.calls[kind.index()] += 1;
        self
    }

    /// Adds other work.
    pub fn add(&mut self, other: &Work) {
        for i in 0..Kind::ALL.len() {
            self.units[i] += other.units[i];
            self.calls[i] += other.calls[i];
        }
    }

    /// So many of so many units, in as many calls.
    pub(super) fn part(mut self, [some, all]: [u64; 2]) -> Work {
        let of = |n: u64| (u128::from(n) * u128::from(some)).div_ceil(u128::from(all.max(1)));
        self.units.iter_mut().for_each(|n| *n = u64::try_from(of(*n)).unwrap_or(u64::MAX));
        self
    }

    /// The same so many times, in so many calls each.
    pub(super) fn times(mut self, units: u64, calls: u64) -> Work {
        self.units.iter_mut().for_each(|n| *n = n.saturating_mul(units));
        self.calls.iter_mut().for_each(|n| *n = n.saturating_mul(calls));
        self
    }

    /// The same with elements held in integers of that size.
    fn held(mut self, width: Width) -> Work {
        let size = (width.bytes() / Width::Narrow.bytes()) as u64;
        let units = self.units.iter_mut().zip(Kind::ALL);
        units.filter(|(_, kind)| kind.of_elements()).for_each(|(n, _)| *n = n.saturating_mul(size));
        self
    }

    /// Units of a kind.
    pub fn units(&self, kind: Kind) -> u64 {
        self.units[kind.index()]
    }

    /// Calls of a kind.
    pub fn calls(&self, kind: Kind) -> u64 {
        self.calls[kind.index()]
    }

    /// Kinds that occur, with units and calls, in index order.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64, u64)> {
        Kind::ALL.into_iter().map(|k| (k, self.units(k), self.calls(k))).filter(|(_, _, calls)| *calls > 0)
    }

    /// How many of `threads` threads it keeps busy, as one instruction.
    pub fn parallelism(&self, threads: u32) -> u32 {
        let of = |(kind, units, _): (Kind, u64, u64)| match kind.grain() {
            Some(grain) => u32::try_from(units / grain).unwrap_or(u32::MAX).clamp(1, threads.max(1)),
            None => 1,
        };
        self.iter().map(of).max().unwrap_or(1)
    }
}

/// Words of a plane of `len` bits.
fn words(len: usize) -> u64 {
    len.div_ceil(64) as u64
}

/// Products of 16-bit digits that a multiplication modulo `2^bits` takes; `narrow` if one factor is an integer
/// of at most 16 bits with its sign.
pub fn digit_products(bits: u8, narrow: bool) -> u64 {
    match (bits, narrow) {
        (..=16, _) => 1,
        (..=32, true) => 2,
        (..=41, true) => 3,
        (..=50, true) => 4,
        (..=59, true) => 5,
        (_, true) => 6,
        (..=32, _) => 3,
        (..=40, _) => 6,
        (..=44, _) => 8,
        (..=48, _) => 10,
        (..=52, _) => 11,
        (..=56, _) => 13,
        (..=59, _) => 15,
        (..=63, _) => 17,
        _ => 19,
    }
}

/// As [`digit_products`], where operands are taken apart to bytes.
pub fn byte_products(bits: u8, narrow: bool) -> u64 {
    let bytes = u64::from(bits.div_ceil(8));
    if narrow && bits > 16 { 2 * bytes - 1 } else { bytes * (bytes + 1) / 2 }
}

pub(super) fn conv(shape: &ConvShape, bits: u8, narrow: bool, width: Width) -> Work {
    let [h, w] = shape.output().unwrap_or([0, 0]);
    let pixels = (h * w) as u64;
    let taps = shape.window.kernel.iter().product::<usize>() as u64;
    let weights = shape.weight_len().unwrap_or(0) as u64;
    let macs = weights * pixels;
    if shape.out_channels / shape.groups.max(1) < NARROW {
        Work::of(Kind::DepthwiseMacs, macs)
    } else if shape.input == [1, 1] && shape.window.kernel == [1, 1] {
        Work::of(Kind::DenseMacs, macs)
    } else {
        let (products, reads) = match (width, narrow) {
            (Width::Narrow, false) => (Work::of(Kind::ConvMacs, macs), 2),
            (Width::Narrow, true) => (Work::of(Kind::NarrowMacs, macs), 1),
            (Width::Wide, narrow) => {
                let digits = if narrow { 1 } else { u64::from(bits.div_ceil(16)) };
                (Work::of(Kind::DigitMacs, macs * digit_products(bits, narrow)), digits)
            }
        };
        let channels = shape.in_channels / shape.groups.max(1);
        let gathered = if taps > 1 && channels >= DEEP { Kind::DeepTaps } else { Kind::ConvTaps };
        products
            .and(gathered, shape.in_channels as u64 * taps * pixels)
            .and(Kind::ConvReads, weights * reads)
            .and(Kind::ConvSums, shape.out_channels as u64 * pixels)
    }
}

fn pool(shape: &PoolShape) -> u64 {
    let [h, w] = shape.window.output(shape.input[0], shape.input[1]).unwrap_or([0, 0]);
    let [kh, kw] = shape.window.kernel;
    (shape.channels * h * w * kh * kw) as u64
}

/// Rows of blocks of several pixels: single ones are taken many at a time.
fn runs(map: &BlockMap) -> u64 {
    let [h, w] = map.map;
    let several = map.blocks.iter().filter(|[bh, bw]| bh * bw > 1);
    several.map(|&[_, bw]| (h * w.div_ceil(bw.max(1))) as u64).sum()
}

/// Word operations of [`Inst::CarryProducts`] and [`Inst::CarryOpen`] for one word of a plane.
fn carry_operations(inputs: u8) -> (u64, u64) {
    let (bits, products) = carry_terms(usize::from(inputs));
    let products = products.iter().map(|set| set.len() as u64).sum();
    // Every subset of a term takes its dealt product and the public bits of the rest.
    let term = |n: u32| (0..1u64 << n).map(|chosen| u64::from(n - chosen.count_ones()) + 1).sum::<u64>();
    let opens = bits.iter().flat_map(|b| &b.terms).map(|t| term(t.len() as u32)).sum();
    (products, opens)
}

/// Work of an instruction with operands and results of given types, as the verifier proved them, whose elements are held
/// in integers of that size. Weights of convolutions are taken for wide unless they are `narrow`.
pub fn work(inst: &Inst, inputs: &[Type], outputs: &[Type], width: Width, narrow: bool) -> Work {
    let out = outputs.first().copied().unwrap_or(Type::Bits { planes: 0, len: 0 });
    let first = inputs.first().copied().unwrap_or(out);
    let bytes = |parts: &[Type]| parts.iter().map(|t| t.wire_bytes()).sum::<u64>();
    let elements = out.len() as u64;
    let out_words = match out {
        Type::Ring { len, .. } => len as u64,
        Type::Bits { planes, len } => planes as u64 * words(len),
    };
    let nibbles = match first {
        Type::Bits { planes, len } => planes as u64 / 4 * words(len),
        Type::Ring { .. } => 0,
    };
    let work = match inst {
        Inst::Draw { .. } => match out {
            Type::Ring { .. } => Work::of(Kind::DrawnBytes, out.drawn_bytes()).and(Kind::DrawnElements, elements),
            Type::Bits { .. } => Work::of(Kind::DrawnBytes, out.drawn_bytes()),
        },
        Inst::Weight { .. } => Work::of(Kind::Weights, elements),
        Inst::Send { .. } => Work::of(Kind::SentBytes, bytes(inputs)),
        Inst::Receive { .. } => Work::of(Kind::ReceivedBytes, bytes(outputs)),
        // The integers and the numbers that are made of them are new memory, 8 bytes each.
        Inst::Output => {
            let n = first.len() as u64;
            Work::of(Kind::Elements, n).and(Kind::FreshBytes, 16 * n)
        }
        Inst::Zero => match out {
            Type::Ring { .. } => Work::of(Kind::Elements, elements),
            Type::Bits { .. } => Work::of(Kind::BitWords, out_words),
        },
        Inst::Input
        | Inst::Add
        | Inst::Sub
        | Inst::Reduce
        | Inst::AddConst { .. }
        | Inst::Truncate { .. }
        | Inst::Join { .. }
        | Inst::AddBias
        | Inst::Scale { .. }
        | Inst::LiftPublic
        | Inst::LiftCorrection => Work::of(Kind::Elements, elements),
        Inst::Conv(shape) => match out {
            Type::Ring { bits, .. } => conv(shape, bits, narrow, width),
            Type::Bits { .. } => Work::default(),
        },
        Inst::SumPool(shape) => Work::of(Kind::PoolTaps, pool(shape)),
        Inst::Transpose { .. } => Work::of(Kind::Transposed, elements),
        Inst::Gather { .. } | Inst::Pad { .. } | Inst::Assemble { .. } => Work::of(Kind::Gathered, elements),
        Inst::Xor | Inst::Xnor | Inst::Planes { .. } => Work::of(Kind::BitWords, out_words),
        Inst::ToBits { .. } => Work::of(Kind::ToBits, first.len() as u64),
        Inst::ToRing => Work::of(Kind::FromBits, elements),
        Inst::Wrap => Work::of(Kind::Wraps, first.len() as u64),
        Inst::BlockSum(map) => Work::of(Kind::BlockElements, map.pixels() as u64).and(Kind::SumRuns, runs(map)),
        Inst::Gate(map) => Work::of(Kind::BlockElements, map.pixels() as u64).and(Kind::GateRuns, runs(map)),
        Inst::Select { map, .. } => {
            Work::of(Kind::SelectElements, map.pixels() as u64).and(Kind::SelectRuns, runs(map))
        }
        Inst::NibbleProducts => Work::of(Kind::NibbleProducts, nibbles),
        Inst::NibbleOpen { .. } => Work::of(Kind::NibbleOpens, nibbles),
        Inst::CarryProducts { inputs } => {
            Work::of(Kind::CarryProducts, carry_operations(*inputs).0 * words(first.len()))
        }
        Inst::CarryOpen { inputs, .. } => Work::of(Kind::CarryOpens, carry_operations(*inputs).1 * words(first.len())),
    };
    work.held(width)
}

/// Buffers that hold weights of at most 16 bits, as they are in the weights file: convolutions with them take
/// fewer products.
pub fn narrow_weights(program: &Program, role: Role) -> Vec<bool> {
    let code = program.code(role);
    let mut narrow = vec![false; code.buffers.len()];
    for i in &code.phases[Phase::Setup.index()] {
        if let Inst::Weight { index } = i.inst {
            let short = program.weights.get(index as usize).is_some_and(|w| w.width == WeightWidth::I16);
            i.outputs.iter().for_each(|b| narrow[*b as usize] = short);
        }
    }
    narrow
}

#[cfg(test)]
mod tests;
