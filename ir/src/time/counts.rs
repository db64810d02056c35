//! What a program takes of a machine, whatever its kernels: with the machine's rates, a bound on the time.

use serde::Serialize;

use super::memory::memory;
use super::{Kind, byte_products, digit_products, narrow_weights, work};
use crate::geometry::ConvShape;
use crate::program::{Code, Inst, Instruction, Phase, Program, Role, Type, Width};

/// What instructions take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Multiply-accumulates of convolutions with wide weights, padding counted.
    pub wide_macs: u64,
    /// Multiply-accumulates of convolutions with weights of at most 16 bits.
    pub narrow_macs: u64,
    /// Products of 16-bit digits that both take, were all convolutions made of those.
    pub digit_products: u64,
    /// Products of bytes that both take, were all made of those.
    pub byte_products: u64,
    /// Bytes of randomness: whole bytes of every ring element, whole words of every plane.
    pub drawn_bytes: u64,
    /// Bytes handed to links, headers included.
    pub sent_bytes: u64,
    /// Bytes of operands, each read once by every instruction, and of messages that are received.
    pub read_bytes: u64,
    /// Bytes of results, and of messages that are sent.
    pub written_bytes: u64,
}

impl Count {
    /// Adds another one.
    pub fn add(&mut self, other: &Count) {
        self.wide_macs += other.wide_macs;
        self.narrow_macs += other.narrow_macs;
        self.digit_products += other.digit_products;
        self.byte_products += other.byte_products;
        self.drawn_bytes += other.drawn_bytes;
        self.sent_bytes += other.sent_bytes;
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// What one setup and one inference take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Of client, server, dealer, for setup, offline and online.
    pub phases: [[Count; 3]; 3],
}

impl Counts {
    /// Of a role in a phase.
    pub fn of(&self, role: Role, phase: Phase) -> &Count {
        &self.phases[phase.index()][role.index()]
    }

    /// Of all roles in a phase.
    pub fn phase(&self, phase: Phase) -> Count {
        let mut all = Count::default();
        self.phases[phase.index()].iter().for_each(|c| all.add(c));
        all
    }
}

/// Least bytes of weights as the product of digits reads them: two for each digit.
fn arranged(shape: &ConvShape, bits: u8, narrow: bool) -> u64 {
    let digits = if narrow { 1 } else { bits.div_ceil(16) };
    2 * u64::from(digits) * shape.weight_len().unwrap_or(0) as u64
}

fn instruction(program: &Program, code: &Code, width: Width, narrow: &[bool], i: &Instruction) -> Count {
    let types = |ids: &[u32]| ids.iter().filter_map(|b| code.buffers.get(*b as usize).copied()).collect::<Vec<_>>();
    let (inputs, outputs) = (types(&i.inputs), types(&i.outputs));
    let bytes = |all: &[Type]| all.iter().map(|ty| memory(*ty, width)).sum::<u64>();
    let mut count = Count { read_bytes: bytes(&inputs), written_bytes: bytes(&outputs), ..Count::default() };
    let message = |m: u32| program.messages.get(m as usize).map_or(0, |m| m.wire_bytes());
    match (&i.inst, &inputs[..], &outputs[..]) {
        (Inst::Draw { .. }, _, [ty]) => {
            count.drawn_bytes = ty.drawn_bytes();
        }
        (Inst::Send { message: m }, _, _) => {
            count.sent_bytes = message(*m);
            count.written_bytes += message(*m);
        }
        (Inst::Receive { message: m }, _, _) => count.read_bytes += message(*m),
        // Those that choose need not read the rest.
        (Inst::Gather { .. } | Inst::Planes { .. } | Inst::Assemble { .. }, _, _) => {
            count.read_bytes = count.read_bytes.min(count.written_bytes);
        }
        (Inst::Conv(shape), [x, _], [Type::Ring { bits, .. }]) => {
            let narrow = i.inputs.get(1).and_then(|w| narrow.get(*w as usize)).copied().unwrap_or(false);
            let [h, w] = shape.output().unwrap_or([0, 0]);
            let macs = (shape.weight_len().unwrap_or(0) * h * w) as u64;
            if narrow {
                count.narrow_macs = macs;
            } else {
                count.wide_macs = macs;
            }
            count.digit_products = macs * digit_products(*bits, narrow);
            count.byte_products = macs * byte_products(*bits, narrow);
            if work(&i.inst, &inputs, &outputs, Width::Narrow, false).calls(Kind::ConvMacs) > 0 {
                count.read_bytes = memory(*x, width) + arranged(shape, *bits, narrow);
            }
        }
        _ => {}
    }
    count
}

/// Counts what a verified program takes. Buffers are counted as they are held: 4 or 8 bytes a ring element, bits in
/// whole words of planes; weights of convolutions as digits. Reading the weights file is left out.
pub fn counts(program: &Program) -> Counts {
    let mut all = Counts::default();
    for role in Role::ALL {
        let (code, width) = (program.code(role), Width::of(program));
        let narrow = narrow_weights(program, role);
        for phase in Phase::ALL {
            let sum = &mut all.phases[phase.index()][role.index()];
            let of = |i| instruction(program, code, width, &narrow, i);
            code.phases[phase.index()].iter().map(of).for_each(|c| sum.add(&c));
        }
    }
    all
}
