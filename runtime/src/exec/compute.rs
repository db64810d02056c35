//! Local instructions: from operands to the result, through the kernels.

use bcc_ir::program::{BlockMap, Inst, Type};

use crate::buffer::Buffer;
use crate::kernels::{Kernels, Masked, Select};

/// An operand: the elements or the words of the planes that an instruction reads.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// Type of the buffer that it is, or is part of.
    pub ty: Type,
    /// The words.
    pub words: &'a [u64],
}

/// Whether an instruction is known to write every word of its result; the others start from zeros.
pub fn overwrites(inst: &Inst) -> bool {
    matches!(
        inst,
        Inst::Add
            | Inst::Sub
            | Inst::Reduce
            | Inst::AddConst { .. }
            | Inst::Truncate { .. }
            | Inst::Join { .. }
            | Inst::AddBias
            | Inst::Scale { .. }
            | Inst::SumPool(_)
            | Inst::Gather { .. }
            | Inst::Transpose { .. }
            | Inst::Xor
            | Inst::Xnor
            | Inst::Planes { .. }
            | Inst::ToRing
            | Inst::BlockSum(_)
            | Inst::NibbleProducts
            | Inst::NibbleOpen { .. }
            | Inst::CarryProducts { .. }
            | Inst::Gate(_)
            | Inst::Select { .. }
            | Inst::LiftPublic
            | Inst::LiftCorrection
    )
}

/// The result of a local instruction on whole buffers.
pub fn compute_whole(k: &dyn Kernels, inst: &Inst, operands: &[&Buffer], ty: Type) -> Option<Buffer> {
    let mut all = Vec::with_capacity(operands.len());
    all.extend(operands.iter().map(|b| Operand { ty: b.ty(), words: b.words() }));
    let mut out = if overwrites(inst) { Buffer::any(ty) } else { Buffer::zeros(ty) };
    compute(k, inst, &all, None, (ty, ty.len()), out.words_mut())?;
    Some(out)
}

/// Computes a local instruction on operands and a result of the types that the program's verifier proved; `map`
/// stands in for the instruction's blocks where there are some of its channels only, `len` are the elements of
/// the result. `None` for an instruction that is not local or operands that cannot be.
pub fn compute(
    k: &dyn Kernels,
    inst: &Inst,
    operands: &[Operand<'_>],
    map: Option<&BlockMap>,
    (ty, len): (Type, usize),
    out: &mut [u64],
) -> Option<()> {
    let x = |i: usize| operands.get(i).map(|b| b.words);
    let width = |i: usize| match operands.get(i)?.ty {
        Type::Ring { bits, .. } => Some(bits),
        Type::Bits { .. } => None,
    };
    let bits = match ty {
        Type::Ring { bits, .. } => bits,
        Type::Bits { .. } => 1,
    };
    match inst {
        Inst::Zero => {}
        Inst::Add => k.add(bits, x(0)?, x(1)?, out),
        Inst::Sub => k.sub(bits, x(0)?, x(1)?, out),
        Inst::Reduce => k.add_const(bits, x(0)?, 0, out),
        Inst::AddConst { value } => k.add_const(bits, x(0)?, *value, out),
        Inst::Truncate { bits: drop, carry } => k.truncate(width(0)?, *drop, *carry, x(0)?, out),
        Inst::Join { shift } => k.join(bits, *shift, x(0)?, x(1)?, out),
        Inst::Conv(shape) => k.conv(bits, shape, x(0)?, x(1)?, out),
        Inst::AddBias => k.add_bias(bits, x(0)?, x(1)?, out),
        Inst::Scale { factors } => k.scale(bits, factors, x(0)?, out),
        Inst::SumPool(shape) => k.sum_pool(bits, shape, x(0)?, out),
        Inst::Gather { outer, axis, inner, indices } => {
            k.gather(bits, [*outer, *axis, *inner], indices, x(0)?, out);
        }
        Inst::Transpose { shape, perm } => k.transpose(bits, shape, perm, x(0)?, out),
        Inst::Pad { input, pad, .. } => k.pad(bits, *input, *pad, x(0)?, out),
        Inst::Assemble { inner, sources } => {
            let all: Vec<&[u64]> = operands.iter().map(|b| b.words).collect();
            k.assemble(bits, *inner, sources, &all, out);
        }
        Inst::Xor => k.xor(x(0)?, x(1)?, out),
        Inst::Xnor => k.xnor(len, x(0)?, x(1)?, out),
        Inst::Planes { picks } => {
            let all: Vec<&[u64]> = operands.iter().map(|b| b.words).collect();
            k.planes(len, picks, &all, out);
        }
        Inst::ToBits { low, pad, .. } => k.to_bits(*low, *pad, x(0)?, out),
        Inst::ToRing => k.to_ring(x(0)?, out),
        Inst::Wrap => k.wrap(width(0)?, x(0)?, x(1)?, out),
        Inst::BlockSum(all) => k.block_sum(bits, map.unwrap_or(all), x(0)?, out),
        Inst::NibbleProducts => k.nibble_products(len, x(0)?, out),
        Inst::NibbleOpen { public } => k.nibble_open(len, *public, x(0)?, x(1)?, out),
        Inst::CarryProducts { inputs } => k.carry_products(usize::from(*inputs), len, x(0)?, out),
        Inst::CarryOpen { inputs, public } => {
            let masked = Masked { hat: x(0)?, lambda: x(1)?, products: x(2)? };
            k.carry_open(usize::from(*inputs), len, *public, masked, out);
        }
        Inst::Gate(all) => k.gate(map.unwrap_or(all), x(0)?, x(1)?, out),
        Inst::Select { map: all, public } => {
            let lift = if operands.len() > 5 { Some([x(5)?, x(6)?, x(7)?]) } else { None };
            let s = Select { d: x(0)?, delta: x(1)?, a: x(2)?, r: x(3)?, ra: x(4)?, lift };
            k.select([width(0)?, bits], map.unwrap_or(all), *public, s, out);
        }
        Inst::LiftPublic => k.lift_public(width(0)?, bits, x(0)?, out),
        Inst::LiftCorrection => k.lift_correction(bits, x(0)?, x(1)?, x(2)?, out),
        Inst::Draw { .. }
        | Inst::Weight { .. }
        | Inst::Input
        | Inst::Send { .. }
        | Inst::Receive { .. }
        | Inst::Output => return None,
    }
    Some(())
}
