//! What is run to learn the rates.

use bcc_ir::geometry::{ConvShape, PoolShape, Window};
use bcc_ir::program::{BlockMap, Inst, Source, Type, Width, carry_terms};
use bcc_ir::time::{Kind, Work, work};

use crate::buffer::Buffer;
use crate::element::{Element, by_width};
use crate::exec::{compute_into, overwrites};
use crate::kernels::keystream::Keystream;
use crate::kernels::{KernelSet, Kernels};
use crate::prg::{Drawer, Key, draw};
use crate::scratch::Scratch;
use crate::weights::fill;

/// Which of a kind's two cases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Shows the cost of a call.
    Small,
    /// Shows the cost of a unit.
    Large,
}

/// An instruction with the types of its operands and its result.
pub struct Case {
    /// The kind whose rate it shows.
    pub kind: Kind,
    /// Which case.
    pub size: Size,
    /// All that it takes.
    pub work: Work,
    inst: Inst,
    inputs: Vec<Type>,
    output: Type,
}

/// Modulus widths of most values: the ring of trained networks and what truncation leaves of it. Both fit 32 bits.
const RING: u8 = 32;
pub const CUT: u8 = 20;
/// The ring of larger ones, whose elements have 64 bits.
const WIDER: u8 = 40;

fn ring(bits: u8, len: usize) -> Type {
    Type::Ring { bits, len }
}

fn planes(planes: usize, len: usize) -> Type {
    Type::Bits { planes, len }
}

impl Case {
    fn width(&self) -> Width {
        let Type::Ring { bits, .. } = self.output else { return Width::Narrow };
        Width::of_bits(bits)
    }

    /// A convolution as a machine does it that has settled, or the arrangement of its weights.
    fn convolution<'a, E: Element>(
        &'a self,
        kernels: &'static dyn Kernels<E>,
        bits: u8,
        shape: &'a ConvShape,
        operands: &[Buffer],
    ) -> Box<dyn FnMut() + 'a> {
        let read = |i: usize| operands[i].elements::<E>().unwrap_or_default().to_vec();
        let (x, mut w, output) = (read(0), read(1), self.output.len());
        let narrow = self.kind == Kind::NarrowMacs;
        if narrow {
            w.iter_mut().for_each(|w| *w = *w & E::mask(15));
        }
        if self.kind == Kind::ConvWeights {
            return Box::new(move || drop(kernels.arrange(bits, false, shape, &w)));
        }
        let bytes = (size_of::<E>() * (x.len() + w.len() + output)) as u64;
        let copy = || x.iter().copied().collect::<Scratch<E>>();
        let set = || (copy(), kernels.arrange(bits, narrow, shape, &w), Scratch::zeros(output));
        let mut all = Turns::new(bytes, 4, set);
        Box::new(move || {
            let (x, arranged, out) = all.next();
            match arranged {
                Some(weights) => kernels.conv_arranged(weights, x, out),
                None => {
                    out.fill(E::ZERO);
                    kernels.conv(bits, shape, x, &w, out);
                }
            }
        })
    }

    /// A call on random operands, made before.
    pub fn prepare<'a>(&'a self, set: KernelSet) -> Box<dyn FnMut() + 'a> {
        let key = Key::new([5; 16]);
        let draw_one = |(ty, i): (&Type, u32)| draw(&key, i, *ty, self.width());
        let operands = || self.inputs.iter().zip(0..).map(draw_one).collect::<Vec<Buffer>>();
        let output = self.output;
        let bytes = |ty: &Type| 8 * Width::Narrow.words(*ty) as u64;
        match (&self.inst, output) {
            (Inst::Draw { stream }, _) => {
                let (keystream, mut drawer) = (Keystream::new(&key.0), Drawer::default());
                let mut results = Turns::new(bytes(&output), 8, || Buffer::zeros(output, Width::Narrow));
                Box::new(move || {
                    let result = results.next();
                    match output {
                        Type::Ring { bits, .. } => {
                            let all = result.elements_mut::<u32>().unwrap_or_default();
                            drawer.elements(&keystream, *stream, bits, 0, all);
                        }
                        Type::Bits { len, .. } => {
                            let all = result.planes_mut().unwrap_or_default();
                            drawer.planes(&keystream, *stream, len, 0..len, all);
                        }
                    }
                })
            }
            (Inst::Conv(shape), Type::Ring { bits, .. }) => {
                let operands = operands();
                by_width!(self.width(), E => self.convolution::<E>(set.of(), bits, shape, &operands))
            }
            (Inst::Weight { .. }, Type::Ring { bits, len }) => {
                let source = vec![(0..len as i64).collect::<Vec<i64>>()];
                Box::new(move || {
                    fill::<u32>(&source, 0, bits, &mut Scratch::any(len)).expect("they are in memory");
                })
            }
            (inst, _) => {
                let each = self.inputs.iter().map(bytes).sum::<u64>() + bytes(&output);
                let mut all = Turns::new(each, 8, || (operands(), Buffer::zeros(output, Width::Narrow)));
                Box::new(move || {
                    let (operands, result) = all.next();
                    let operands: Vec<&Buffer> = operands.iter().collect();
                    if !overwrites(inst) {
                        result.planes_mut().unwrap_or_default().fill(0);
                        result.elements_mut::<u32>().unwrap_or_default().fill(0);
                    }
                    let _ = compute_into::<u32>(set, inst, &operands, result);
                })
            }
        }
    }
}

/// Bytes of operands and results that are used in turn: more than the second-level cache holds, as of what strips work on
/// some comes from messages and buffers, and other parties take their turn in between. Every processor has as many.
const TURNS: u64 = 3 << 20;

/// As many of a kind, one after the other and again.
struct Turns<T> {
    all: Vec<T>,
    next: usize,
}

impl<T> Turns<T> {
    /// Of so many bytes each, at least `least`: fewer of what is a part of a layer would stay in the cache.
    fn new(bytes: u64, least: u64, mut make: impl FnMut() -> T) -> Self {
        // More small ones tell no more.
        let count = (TURNS / bytes.max(1)).clamp(least, 64);
        Turns { all: (0..count).map(|_| make()).collect(), next: 0 }
    }

    fn next(&mut self) -> &mut T {
        self.next = (self.next + 1) % self.all.len();
        &mut self.all[self.next]
    }
}

/// Elements of the small and the large case of a pass that runs in strips: the large one is a strip.
const LENGTHS: [(Size, usize); 2] = [(Size::Small, 1 << 8), (Size::Large, 1 << 12)];
/// The same of one that goes over whole buffers: the large one's hold 1 MiB, so that operands and result are in the
/// third-level cache or behind it, as those of large layers are.
const WHOLE: [(Size, usize); 2] = [(Size::Small, 1 << 8), (Size::Large, 1 << 17)];

fn window(kernel: usize) -> Window {
    Window { pad: [kernel / 2; 4], ..Window::new([kernel, kernel]) }
}

fn square(in_channels: usize, size: usize, out_channels: usize, kernel: usize) -> ConvShape {
    ConvShape { in_channels, input: [size, size], out_channels, groups: 1, window: window(kernel) }
}

/// A convolution of some milliseconds.
pub fn large_convolution() -> Case {
    let shape = square(64, 56, 64, 3);
    let len = |n: Option<usize>| ring(RING, n.unwrap_or(0));
    Case {
        kind: Kind::ConvMacs,
        size: Size::Large,
        work: Work::default(),
        inst: Inst::Conv(shape),
        inputs: vec![len(shape.input_len()), len(shape.weight_len())],
        output: len(shape.output_len()),
    }
}

fn convolutions(add: &mut dyn FnMut(Kind, Size, Inst, Vec<Type>, Type)) {
    let shapes = [
        (Kind::ConvMacs, Size::Small, square(8, 16, 8, 1)),
        (Kind::ConvMacs, Size::Large, square(128, 14, 64, 3)),
        (Kind::NarrowMacs, Size::Small, square(8, 16, 8, 1)),
        (Kind::NarrowMacs, Size::Large, square(128, 14, 64, 3)),
        (Kind::DigitMacs, Size::Small, square(8, 16, 8, 1)),
        (Kind::DigitMacs, Size::Large, square(128, 14, 64, 3)),
        // Few outputs for what is gathered; few pixels for the weights, more of them than caches hold. All take about a
        // millisecond or less, so that many runs are not interrupted.
        (Kind::ConvTaps, Size::Large, square(32, 16, 8, 3)),
        (Kind::DeepTaps, Size::Large, square(64, 28, 16, 3)),
        (Kind::ConvReads, Size::Large, square(512, 2, 512, 3)),
        // Few products for each output.
        (Kind::ConvSums, Size::Large, square(4, 32, 64, 1)),
        (Kind::ConvWeights, Size::Large, square(128, 4, 128, 3)),
        (Kind::DepthwiseMacs, Size::Small, ConvShape { groups: 2, ..square(2, 4, 2, 3) }),
        (Kind::DepthwiseMacs, Size::Large, ConvShape { groups: 64, ..square(64, 28, 64, 3) }),
        (Kind::DenseMacs, Size::Small, ConvShape::dense(16, 16)),
        (Kind::DenseMacs, Size::Large, ConvShape::dense(512, 512)),
    ];
    for (kind, size, shape) in shapes {
        let (Some(x), Some(w), Some(y)) = (shape.input_len(), shape.weight_len(), shape.output_len()) else { continue };
        let bits = if kind == Kind::DigitMacs { WIDER } else { RING };
        add(kind, size, Inst::Conv(shape), vec![ring(bits, x), ring(bits, w)], ring(bits, y));
    }
}

fn blocks(add: &mut dyn FnMut(Kind, Size, Inst, Vec<Type>, Type)) {
    let map = |channels, side, block: usize| BlockMap { map: [side, side], blocks: vec![[block, block]; channels] };
    let sum = |map: &BlockMap| (vec![ring(CUT, map.pixels())], ring(CUT, map.count()));
    for (size, map) in [(Size::Small, map(1, 8, 1)), (Size::Large, map(4, 32, 1))] {
        let (inputs, output) = sum(&map);
        add(Kind::BlockElements, size, Inst::BlockSum(map), inputs, output);
    }
    let several = map(4, 32, 5);
    let (inputs, output) = sum(&several);
    add(Kind::SumRuns, Size::Large, Inst::BlockSum(several.clone()), inputs, output);
    let gated = ring(RING, several.pixels());
    let inputs = vec![planes(1, several.count()), ring(CUT, several.pixels())];
    add(Kind::GateRuns, Size::Large, Inst::Gate(several.clone()), inputs, gated);
    let selects = [
        (Kind::SelectElements, Size::Small, map(1, 8, 1)),
        (Kind::SelectElements, Size::Large, map(4, 32, 1)),
        (Kind::SelectRuns, Size::Large, several),
    ];
    for (kind, size, map) in selects {
        let (pixels, count, high) = (map.pixels(), map.count(), ring(RING - CUT, map.pixels()));
        let inputs = vec![
            ring(CUT, pixels),
            planes(1, count),
            ring(CUT, pixels),
            ring(RING, count),
            ring(RING, pixels),
            high,
            high,
            high,
        ];
        add(kind, size, Inst::Select { map, public: true }, inputs, ring(RING, pixels));
    }
}

fn comparisons(add: &mut dyn FnMut(Kind, Size, Inst, Vec<Type>, Type)) {
    // Comparisons of 20 bits: five nibbles, then a level of five inputs.
    let (nibbles, inputs) = (5usize, 5u8);
    let pairs = 2 * usize::from(inputs) - 1;
    let (bits, products) = carry_terms(usize::from(inputs));
    for (size, len) in LENGTHS {
        let t = planes(4 * nibbles, len);
        let all = planes(15 * nibbles, len);
        let dealt = planes(products.len(), len);
        add(Kind::NibbleProducts, size, Inst::NibbleProducts, vec![t], all);
        add(Kind::NibbleOpens, size, Inst::NibbleOpen { public: true }, vec![t, all], planes(2 * nibbles - 1, len));
        add(Kind::CarryProducts, size, Inst::CarryProducts { inputs }, vec![planes(pairs, len)], dealt);
        let open = Inst::CarryOpen { inputs, public: true };
        let operands = vec![planes(pairs, len), planes(pairs, len), dealt];
        add(Kind::CarryOpens, size, open, operands, planes(bits.len(), len));
    }
}

fn passes(add: &mut dyn FnMut(Kind, Size, Inst, Vec<Type>, Type)) {
    for (size, len) in LENGTHS {
        let pair = vec![ring(CUT, len); 2];
        add(Kind::Elements, size, Inst::Sub, pair.clone(), ring(CUT, len));
        let rows = planes(20, len);
        // Planes of a comparison's products have each a stretch of the keystream.
        let drawn = if size == Size::Small { 4 } else { 60 };
        add(Kind::DrawnBytes, size, Inst::Draw { stream: 0 }, vec![], planes(drawn, len));
        add(Kind::BitWords, size, Inst::Xor, vec![rows; 2], rows);
        add(Kind::ToBits, size, Inst::ToBits { low: 0, count: 19, pad: 1 }, vec![ring(CUT, len)], rows);
        add(Kind::FromBits, size, Inst::ToRing, vec![planes(1, len)], ring(RING, len));
        add(Kind::Wraps, size, Inst::Wrap, pair, planes(1, len));
    }
    for (size, len) in WHOLE {
        let one = vec![ring(CUT, len)];
        let shape = vec![len / 64, 64];
        add(Kind::Transposed, size, Inst::Transpose { shape, perm: vec![1, 0] }, one, ring(CUT, len));
        let sources = [Source::Operand(0), Source::Operand(1)].repeat(len / 128);
        let assembled = ring(CUT, sources.len() * 64);
        let halves = vec![ring(CUT, sources.len() * 32); 2];
        add(Kind::Gathered, size, Inst::Assemble { inner: 64, sources }, halves, assembled);
        add(Kind::Weights, size, Inst::Weight { index: 0 }, vec![], ring(RING, len));
    }
    add(Kind::DrawnElements, Size::Large, Inst::Draw { stream: 0 }, vec![], ring(CUT, 1 << 12));
    for (size, side) in [(Size::Small, 4), (Size::Large, 50)] {
        let pool = PoolShape { channels: side, input: [side, side], window: window(3), counted: [0; 4] };
        let len = side * side * side;
        add(Kind::PoolTaps, size, Inst::SumPool(pool), vec![ring(RING, len)], ring(RING, len));
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |kind, size, inst: Inst, inputs: Vec<Type>, output| {
        let work = match kind {
            Kind::ConvWeights => Work::of(kind, inputs[1].len() as u64),
            _ => {
                let width = if kind == Kind::DigitMacs { Width::Wide } else { Width::Narrow };
                work(&inst, &inputs, &[output], width, kind == Kind::NarrowMacs)
            }
        };
        all.push(Case { kind, size, work, inst, inputs, output });
    };
    convolutions(&mut add);
    passes(&mut add);
    blocks(&mut add);
    comparisons(&mut add);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::compute_whole;

    #[test]
    fn every_case_can_be_computed() {
        for case in cases() {
            let key = Key::new([5; 16]);
            let operands: Vec<Buffer> =
                case.inputs.iter().zip(0..).map(|(ty, i)| draw(&key, i, *ty, case.width())).collect();
            let all: Vec<&Buffer> = operands.iter().collect();
            let local = !matches!(case.inst, Inst::Draw { .. } | Inst::Weight { .. });
            let result = compute_whole(crate::kernels::plain(), &case.inst, &all, case.output, case.width());
            assert!(!local || result.is_some(), "{}", case.kind.name());
        }
    }
}
