//! What a Block-ReLU sends, as a function of its blocks: the arithmetic of the modules `gate` and
//! `carry` without writing instructions.
//!
//! A planner prices single choices with it; tests hold it against the messages of lowered programs.

use bcc_ir::geometry::Block;
use bcc_ir::graph::{ClientShare, Graph, NodeId, Op};
use bcc_ir::program::{Message, carry_groups, carry_terms};

use super::{LowerOptions, gate};

/// Bytes that all parties send before the input and with it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bytes {
    /// Before the input.
    pub offline: f64,
    /// With the input.
    pub online: f64,
}

/// On what the traffic of a gate depends, beside its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateCost {
    /// Modulus of its result, in bits.
    pub ring: u8,
    /// Modulus of its operand, in bits.
    pub modulus: u8,
    /// Bits of a block sum that decide its sign.
    pub window: u8,
    /// Whether the client's share of the operand is dealt.
    pub dealt: bool,
}

/// Blocks and pixels of a gate's channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateSize {
    /// Sign decisions.
    pub blocks: usize,
    /// Pixels of channels with a sign.
    pub gated: usize,
    /// Pixels of channels that pass.
    pub passed: usize,
}

impl GateSize {
    /// Of channels with a map of `h x w` pixels.
    pub fn of(blocks: &[Block], [h, w]: [usize; 2]) -> GateSize {
        let mut size = GateSize::default();
        for b in blocks {
            size.blocks += b.drelus(h, w);
            match b {
                Block::Patch { .. } => size.gated += h * w,
                Block::Identity => size.passed += h * w,
                Block::Zero => {}
            }
        }
        size
    }
}

/// Ring elements in the messages of a gate: the bits of each, offline and online.
struct Elements {
    /// Per sign decision.
    blocks: [Vec<u8>; 2],
    /// Per gated pixel.
    gated: [Vec<u8>; 2],
    /// Per passed pixel.
    passed: [Vec<u8>; 2],
}

impl GateCost {
    /// Reads it off a quantized graph; `None` for other nodes.
    pub fn of(graph: &Graph, id: NodeId, options: LowerOptions) -> Option<GateCost> {
        let node = graph.node(id);
        let Op::BlockRelu { .. } = node.op else { return None };
        let (fixed, operand) = (node.fixed?, graph.node(graph.operand(id)).fixed?);
        let sum = node.range?.block_sum?.0 / fixed.unit();
        let window = gate::window(sum, operand.modulus, options.drelu_window)?.width();
        let dealt = operand.client == ClientShare::Dealt;
        Some(GateCost { ring: fixed.modulus, modulus: operand.modulus, window, dealt })
    }

    /// Planes of bits that comparisons deal, and that they open in both directions together.
    fn planes(&self) -> [usize; 2] {
        let nibbles = usize::from((self.window - 1).div_ceil(4));
        let (mut dealt, mut opened, mut inputs) = (15 * nibbles, 2 * nibbles - 1, nibbles);
        while inputs > 1 {
            let (bits, products) = carry_terms(inputs);
            dealt += products.len();
            opened += bits.len();
            inputs = carry_groups(inputs).len();
        }
        [dealt, 2 * opened]
    }

    fn elements(&self) -> Elements {
        let (k, l) = (self.modulus, self.ring);
        let lift = (k < l).then_some(l - k);
        let moved = if self.dealt { vec![] } else { vec![k] };
        let passed = match lift {
            None => [if self.dealt { vec![] } else { vec![l] }, vec![]],
            Some(lift) => [[&moved[..], &[lift; 2]].concat(), vec![lift]],
        };
        let lifts = lift.map_or(vec![], |lift| vec![lift; 3]);
        Elements { blocks: [vec![l], vec![]], gated: [[moved, vec![l], lifts].concat(), vec![k, l]], passed }
    }

    /// Bytes of one channel's choice, to be added up over the channels of a layer: messages' headers
    /// and the padding of elements and bit planes to whole bytes aside.
    pub fn choice(&self, block: Block, [h, w]: [usize; 2]) -> Bytes {
        let pixels = (h * w) as f64;
        let of = |bits: &[u8]| bits.iter().map(|b| f64::from(*b) / 8.0).sum::<f64>();
        let Elements { blocks, gated, passed } = self.elements();
        let [dealt, opened] = self.planes();
        match block {
            Block::Zero => Bytes::default(),
            Block::Identity => {
                let bit = if self.modulus < self.ring { 0.125 } else { 0.0 };
                Bytes { offline: of(&passed[0]) * pixels, online: (of(&passed[1]) + bit) * pixels }
            }
            Block::Patch { .. } => {
                let n = block.drelus(h, w) as f64;
                Bytes {
                    offline: n * (of(&blocks[0]) + dealt as f64 / 8.0) + pixels * of(&gated[0]),
                    online: n * (of(&blocks[1]) + opened as f64 / 8.0) + pixels * of(&gated[1]),
                }
            }
        }
    }

    /// Bytes that a whole gate sends, exactly, a header for each message included. Large messages have one for every
    /// further [piece](Message::pieces).
    pub fn total(&self, size: GateSize) -> [u64; 2] {
        let Elements { blocks, gated, passed } = self.elements();
        let of = |count: usize, bits: &[u8]| bits.iter().map(|b| (count * usize::from(*b)).div_ceil(8)).sum::<usize>();
        let [dealt, opened] = self.planes();
        let lifts = self.modulus < self.ring && size.passed > 0;
        let signs = size.gated > 0;
        let plane = size.blocks.div_ceil(8);
        let mut total = [0, 0];
        for (phase, total) in total.iter_mut().enumerate() {
            *total = of(size.blocks, &blocks[phase]) + of(size.gated, &gated[phase]) + of(size.passed, &passed[phase]);
            *total += [dealt, opened][phase] * if signs { plane } else { 0 };
        }
        total[1] += if lifts { size.passed.div_ceil(8) } else { 0 };
        let header = Message::HEADER as usize;
        // What the client moves, what the dealer gives, and in the full ring the re-mask of passed pixels.
        let remask = !self.dealt && size.passed > 0 && !lifts;
        let moved = !self.dealt && (signs || lifts);
        let dealer = signs || lifts;
        total[0] += header * (usize::from(moved) + usize::from(dealer) + usize::from(remask));
        let messages = match (signs, lifts) {
            (true, _) => self.messages() as usize,
            (false, true) => 2,
            (false, false) => 0,
        };
        total[1] += header * messages;
        total.map(|t| t as u64)
    }

    /// Online messages, each a round, of a gate with signs: the opening and the answer, and one either
    /// way for every two levels of carries after the first.
    pub fn messages(&self) -> u64 {
        2 + 2 * (self.levels() as u64 / 2)
    }

    /// Levels of the carry.
    fn levels(&self) -> usize {
        let mut inputs = usize::from((self.window - 1).div_ceil(4));
        let mut levels = 1;
        while inputs > 1 {
            inputs = carry_groups(inputs).len();
            levels += 1;
        }
        levels
    }
}
