//! Local instructions: from operands to the result, through the kernels.

use bcc_ir::program::{BlockMap, Inst, Type};

use crate::buffer::Buffer;
use crate::element::{Element, Width, by_width};
use crate::kernels::{KernelSet, Kernels, Masked, Select};

/// What an instruction reads: elements, or the words of planes.
#[derive(Clone, Copy)]
pub enum Data<'a, E> {
    /// Elements.
    Ring(&'a [E]),
    /// Words of planes.
    Bits(&'a [u64]),
}

impl<'a, E: Element> Data<'a, E> {
    /// All of a buffer; `None` if its elements have another width.
    pub fn of(buffer: &'a Buffer) -> Option<Self> {
        buffer.elements().map(Data::Ring).or(buffer.planes().map(Data::Bits))
    }

    /// The elements.
    pub fn elements(self) -> Option<&'a [E]> {
        if let Data::Ring(all) = self { Some(all) } else { None }
    }

    /// The words.
    pub fn planes(self) -> Option<&'a [u64]> {
        if let Data::Bits(all) = self { Some(all) } else { None }
    }
}

/// Where an instruction's result goes.
pub enum Target<'a, E> {
    /// Elements.
    Ring(&'a mut [E]),
    /// Words of planes.
    Bits(&'a mut [u64]),
}

/// An operand.
#[derive(Clone, Copy)]
pub struct Operand<'a, E> {
    /// Type of the buffer that it is, or is part of.
    pub ty: Type,
    /// What is read.
    pub data: Data<'a, E>,
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

/// The result of a local instruction on whole buffers, whose elements have this width.
pub fn compute_whole(k: KernelSet, inst: &Inst, operands: &[&Buffer], ty: Type, width: Width) -> Option<Buffer> {
    let mut out = if overwrites(inst) { Buffer::any(ty, width) } else { Buffer::zeros(ty, width) };
    by_width!(width, E => compute_into::<E>(k, inst, operands, &mut out)?);
    Some(out)
}

/// As [`compute_whole`], into a buffer of the result's type, which is zero where the instruction does not
/// [overwrite](overwrites) it.
pub fn compute_into<E: Element>(k: KernelSet, inst: &Inst, operands: &[&Buffer], out: &mut Buffer) -> Option<()> {
    let mut all = Vec::with_capacity(operands.len());
    for b in operands {
        all.push(Operand::<E> { ty: b.ty(), data: Data::of(b)? });
    }
    let ty = out.ty();
    let target = match ty {
        Type::Ring { .. } => Target::Ring(out.elements_mut()?),
        Type::Bits { .. } => Target::Bits(out.planes_mut()?),
    };
    compute(k.of(), inst, &all, None, (ty, ty.len()), target)
}

/// Computes a local instruction on operands and a result of the types that the program's verifier proved; `map`
/// stands in for the instruction's blocks where there are some of its channels only, `len` are the elements of
/// the result. `None` for an instruction that is not local or operands that cannot be.
pub fn compute<E: Element>(
    k: &dyn Kernels<E>,
    inst: &Inst,
    operands: &[Operand<'_, E>],
    map: Option<&BlockMap>,
    (ty, len): (Type, usize),
    out: Target<'_, E>,
) -> Option<()> {
    let x = |i: usize| operands.get(i)?.data.elements();
    let p = |i: usize| operands.get(i)?.data.planes();
    let width = |i: usize| match operands.get(i)?.ty {
        Type::Ring { bits, .. } => Some(bits),
        Type::Bits { .. } => None,
    };
    let bits = match ty {
        Type::Ring { bits, .. } => bits,
        Type::Bits { .. } => 1,
    };
    match (inst, out) {
        (Inst::Zero, _) => {}
        (_, Target::Ring(out)) => match inst {
            Inst::Add => k.add(bits, x(0)?, x(1)?, out),
            Inst::Sub => k.sub(bits, x(0)?, x(1)?, out),
            Inst::Reduce => k.add_const(bits, x(0)?, E::ZERO, out),
            Inst::AddConst { value } => k.add_const(bits, x(0)?, E::of(*value), out),
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
                let all = (0..operands.len()).map(x).collect::<Option<Vec<_>>>()?;
                k.assemble(bits, *inner, sources, &all, out);
            }
            Inst::ToRing => k.to_ring(p(0)?, out),
            Inst::BlockSum(all) => k.block_sum(bits, map.unwrap_or(all), x(0)?, out),
            Inst::Gate(all) => k.gate(map.unwrap_or(all), p(0)?, x(1)?, out),
            Inst::Select { map: all, public } => {
                let lift = if operands.len() > 5 { Some([x(5)?, x(6)?, x(7)?]) } else { None };
                let s = Select { d: x(0)?, delta: p(1)?, a: x(2)?, r: x(3)?, ra: x(4)?, lift };
                k.select([width(0)?, bits], map.unwrap_or(all), *public, s, out);
            }
            Inst::LiftPublic => k.lift_public(width(0)?, bits, x(0)?, out),
            Inst::LiftCorrection => k.lift_correction(bits, p(0)?, x(1)?, x(2)?, out),
            _ => return None,
        },
        (_, Target::Bits(out)) => match inst {
            Inst::Xor => k.xor(p(0)?, p(1)?, out),
            Inst::Xnor => k.xnor(len, p(0)?, p(1)?, out),
            Inst::Planes { picks } => {
                let all = (0..operands.len()).map(p).collect::<Option<Vec<_>>>()?;
                k.planes(len, picks, &all, out);
            }
            Inst::ToBits { low, pad, .. } => k.to_bits(*low, *pad, x(0)?, out),
            Inst::Wrap => k.wrap(width(0)?, x(0)?, x(1)?, out),
            Inst::NibbleProducts => k.nibble_products(len, p(0)?, out),
            Inst::NibbleOpen { public } => k.nibble_open(len, *public, p(0)?, p(1)?, out),
            Inst::CarryProducts { inputs } => k.carry_products(usize::from(*inputs), len, p(0)?, out),
            Inst::CarryOpen { inputs, public } => {
                let masked = Masked { hat: p(0)?, lambda: p(1)?, products: p(2)? };
                k.carry_open(usize::from(*inputs), len, *public, masked, out);
            }
            _ => return None,
        },
    }
    Some(())
}
