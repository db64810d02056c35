//! Local instructions: from operands to the result, through the kernels.

use std::ops::Range;

use bcc_ir::program::{BlockMap, Inst, Type};
use rayon::prelude::*;

use crate::buffer::{Buffer, stride};
use crate::kernels::{Kernels, Masked, Select};

/// Elements that one task of the thread pool computes; whole words of a plane of bits.
const PART: usize = 1 << 15;

/// Whether a result of so many elements or words is not worth handing to several threads.
fn whole(len: usize) -> bool {
    len < 2 * PART || rayon::current_num_threads() == 1
}

/// Computes a result part by part: `f` gets a range of elements and their place.
fn parts(out: &mut [u64], f: impl Fn(Range<usize>, &mut [u64]) + Sync) {
    if whole(out.len()) {
        return f(0..out.len(), out);
    }
    let part = |(i, out): (usize, &mut [u64])| f(i * PART..i * PART + out.len(), out);
    out.par_chunks_mut(PART).enumerate().for_each(part);
}

/// Channels of a map whose blocks start at a word of a plane, and where their pixels and blocks are.
struct Maps {
    map: BlockMap,
    pixels: Range<usize>,
    blocks: Range<usize>,
}

/// Cuts a map into some parts of about [`PART`] pixels.
fn cut(map: &BlockMap) -> Vec<Maps> {
    let [height, width] = map.map;
    let mut all = Vec::new();
    let (mut channel, mut pixel, mut block) = (0, 0, 0);
    let (mut pixels, mut blocks) = (0, 0);
    for (c, [h, w]) in map.blocks.iter().enumerate() {
        pixels += height * width;
        blocks += height.div_ceil(*h) * width.div_ceil(*w);
        let last = c + 1 == map.blocks.len();
        if last || (pixels - pixel >= PART && blocks % 64 == 0) {
            let map = BlockMap { map: map.map, blocks: map.blocks[channel..=c].to_vec() };
            all.push(Maps { map, pixels: pixel..pixels, blocks: block..blocks });
            (channel, pixel, block) = (c + 1, pixels, blocks);
        }
    }
    all
}

/// Computes a result over maps part by part; `place` says which part of it belongs to some channels.
fn map_parts(
    map: &BlockMap,
    mut out: &mut [u64],
    place: impl Fn(&Maps) -> Range<usize>,
    f: impl Fn(&Maps, &mut [u64]) + Sync,
) {
    if whole(map.pixels()) {
        let (pixels, blocks) = (0..map.pixels(), 0..map.count());
        return f(&Maps { map: map.clone(), pixels, blocks }, out);
    }
    let mut all = Vec::new();
    for maps in cut(map) {
        let (part, rest) = out.split_at_mut(place(&maps).len());
        all.push((maps, part));
        out = rest;
    }
    all.into_par_iter().for_each(|(maps, out)| f(&maps, out));
}

/// Whether an instruction is known to write every word of its result; the others start from zeros.
fn overwrites(inst: &Inst) -> bool {
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

/// Computes a local instruction on operands and result of the types that the program's verifier
/// proved; `None` for an instruction that is not local or operands that cannot be.
pub fn compute(k: &dyn Kernels, inst: &Inst, operands: &[&Buffer], ty: Type) -> Option<Buffer> {
    let x = |i: usize| operands.get(i).map(|b| b.words());
    let width = |i: usize| match operands.get(i)?.ty() {
        Type::Ring { bits, .. } => Some(bits),
        Type::Bits { .. } => None,
    };
    let len = ty.len();
    let bits = match ty {
        Type::Ring { bits, .. } => bits,
        Type::Bits { .. } => 1,
    };
    let mut result = if overwrites(inst) { Buffer::any(ty) } else { Buffer::zeros(ty) };
    let out = result.words_mut();
    match inst {
        Inst::Zero => {}
        Inst::Add => {
            let (a, b) = (x(0)?, x(1)?);
            parts(out, |r, out| k.add(bits, &a[r.clone()], &b[r], out));
        }
        Inst::Sub => {
            let (a, b) = (x(0)?, x(1)?);
            parts(out, |r, out| k.sub(bits, &a[r.clone()], &b[r], out));
        }
        Inst::Reduce => {
            let a = x(0)?;
            parts(out, |r, out| k.add_const(bits, &a[r], 0, out));
        }
        Inst::AddConst { value } => {
            let a = x(0)?;
            parts(out, |r, out| k.add_const(bits, &a[r], *value, out));
        }
        Inst::Truncate { bits: drop, carry } => {
            let (from, a) = (width(0)?, x(0)?);
            parts(out, |r, out| k.truncate(from, *drop, *carry, &a[r], out));
        }
        Inst::Join { shift } => {
            let (low, high) = (x(0)?, x(1)?);
            parts(out, |r, out| k.join(bits, *shift, &low[r.clone()], &high[r], out));
        }
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
            let all: Vec<&[u64]> = operands.iter().map(|b| b.words()).collect();
            k.assemble(bits, *inner, sources, &all, out);
        }
        Inst::Xor => {
            let (a, b) = (x(0)?, x(1)?);
            parts(out, |r, out| k.xor(&a[r.clone()], &b[r], out));
        }
        Inst::Xnor => k.xnor(len, x(0)?, x(1)?, out),
        Inst::Planes { picks } => {
            let all: Vec<&[u64]> = operands.iter().map(|b| b.words()).collect();
            k.planes(len, picks, &all, out);
        }
        Inst::ToBits { low, pad, .. } => k.to_bits(*low, *pad, x(0)?, out),
        Inst::ToRing => {
            let plane = x(0)?;
            parts(out, |r, out| k.to_ring(&plane[r.start / 64..], out));
        }
        Inst::Wrap => k.wrap(width(0)?, x(0)?, x(1)?, out),
        Inst::BlockSum(map) => {
            let x = x(0)?;
            let sum = |m: &Maps, out: &mut [u64]| k.block_sum(bits, &m.map, &x[m.pixels.clone()], out);
            map_parts(map, out, |m| m.blocks.clone(), sum);
        }
        Inst::NibbleProducts => {
            let (t, n) = (x(0)?, stride(len).max(1));
            if whole(out.len()) {
                k.nibble_products(len, t, out);
            } else {
                let nibbles = out.par_chunks_exact_mut(15 * n).zip(t.par_chunks_exact(4 * n));
                nibbles.for_each(|(out, t)| k.nibble_products(len, t, out));
            }
        }
        Inst::NibbleOpen { public } => k.nibble_open(len, *public, x(0)?, x(1)?, out),
        Inst::CarryProducts { inputs } => k.carry_products(usize::from(*inputs), len, x(0)?, out),
        Inst::CarryOpen { inputs, public } => {
            let masked = Masked { hat: x(0)?, lambda: x(1)?, products: x(2)? };
            k.carry_open(usize::from(*inputs), len, *public, masked, out);
        }
        Inst::Gate(map) => {
            let (gate, x) = (x(0)?, x(1)?);
            let of = |m: &Maps, out: &mut [u64]| {
                k.gate(&m.map, &gate[m.blocks.start / 64..], &x[m.pixels.clone()], out);
            };
            map_parts(map, out, |m| m.pixels.clone(), of);
        }
        Inst::Select { map, public } => {
            let lift = if operands.len() > 5 { Some([x(5)?, x(6)?, x(7)?]) } else { None };
            let s = Select { d: x(0)?, delta: x(1)?, a: x(2)?, r: x(3)?, ra: x(4)?, lift };
            let moduli = [width(0)?, bits];
            let of = |m: &Maps, out: &mut [u64]| {
                let p = || m.pixels.clone();
                let part = Select {
                    d: &s.d[p()],
                    delta: &s.delta[m.blocks.start / 64..],
                    a: &s.a[p()],
                    r: &s.r[m.blocks.clone()],
                    ra: &s.ra[p()],
                    lift: s.lift.map(|lift| lift.map(|x| &x[p()])),
                };
                k.select(moduli, &m.map, *public, part, out);
            };
            map_parts(map, out, |m| m.pixels.clone(), of);
        }
        Inst::LiftPublic => {
            let (from, d) = (width(0)?, x(0)?);
            parts(out, |r, out| k.lift_public(from, bits, &d[r], out));
        }
        Inst::LiftCorrection => {
            let (te, w, ta) = (x(0)?, x(1)?, x(2)?);
            parts(out, |r, out| k.lift_correction(bits, &te[r.start / 64..], &w[r.clone()], &ta[r], out));
        }
        Inst::Draw { .. }
        | Inst::Weight { .. }
        | Inst::Input
        | Inst::Send { .. }
        | Inst::Receive { .. }
        | Inst::Output => return None,
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;
    use crate::prg::{Key, draw};

    /// Of the same length as a whole and in parts.
    #[test]
    fn parts_make_up_the_whole() {
        let k = kernels::plain();
        let many = [3 * PART + 77, 2 * PART, 100];
        let ring = |stream, bits, len| draw(&Key::new([8; 16]), stream, Type::Ring { bits, len });
        for len in many {
            let plane = draw(&Key::new([8; 16]), 9, Type::Bits { planes: 1, len });
            let (a, b) = (ring(1, 20, len), ring(2, 20, len));
            let ty = Type::Ring { bits: 20, len };
            let whole = |f: &dyn Fn(&mut [u64])| {
                let mut out = vec![0; len];
                f(&mut out);
                out
            };
            let same = |inst: Inst, operands: &[&Buffer], ty, want: Vec<u64>| {
                assert!(compute(k, &inst, operands, ty).is_some_and(|y| y.words() == want), "{inst:?} of {len}");
            };
            same(Inst::Add, &[&a, &b], ty, whole(&|y| k.add(20, a.words(), b.words(), y)));
            same(Inst::Sub, &[&a, &b], ty, whole(&|y| k.sub(20, a.words(), b.words(), y)));
            same(Inst::ToRing, &[&plane], ty, whole(&|y| k.to_ring(plane.words(), y)));
            let truncate = Inst::Truncate { bits: 5, carry: 1 };
            same(truncate, &[&a], Type::Ring { bits: 15, len }, whole(&|y| k.truncate(20, 5, 1, a.words(), y)));
            let join = whole(&|y| k.join(30, 10, a.words(), b.words(), y));
            same(Inst::Join { shift: 10 }, &[&a, &b], Type::Ring { bits: 30, len }, join);
            let lift = whole(&|y| k.lift_correction(12, plane.words(), a.words(), b.words(), y));
            same(Inst::LiftCorrection, &[&plane, &a, &b], Type::Ring { bits: 12, len }, lift);
        }
    }

    #[test]
    fn parts_of_maps_make_up_the_whole() {
        let k = kernels::plain();
        // Blocks of many sizes, so that few channels start at a word of the plane.
        let sizes = [[1, 1], [2, 3], [4, 4], [1, 1], [28, 28], [3, 1], [1, 1], [1, 1]];
        let blocks = (0..300).map(|c| sizes[c % sizes.len()]).collect();
        let map = BlockMap { map: [28, 28], blocks };
        assert!(cut(&map).len() > 2 && cut(&map).iter().all(|m| m.blocks.start % 64 == 0));
        let (n, blocks) = (map.pixels(), map.count());
        let ring = |stream, bits, len| draw(&Key::new([9; 16]), stream, Type::Ring { bits, len });
        let plane = draw(&Key::new([9; 16]), 1, Type::Bits { planes: 1, len: blocks });
        let x: Vec<Buffer> = (2..8).map(|i| ring(i, 20, n)).collect();
        let (r, ty) = (ring(8, 32, blocks), Type::Ring { bits: 32, len: n });

        let mut want = vec![0; blocks];
        k.block_sum(20, &map, x[0].words(), &mut want);
        let sums = Type::Ring { bits: 20, len: blocks };
        assert!(compute(k, &Inst::BlockSum(map.clone()), &[&x[0]], sums).is_some_and(|y| y.words() == want));

        let mut want = vec![0; n];
        k.gate(&map, plane.words(), x[0].words(), &mut want);
        assert!(compute(k, &Inst::Gate(map.clone()), &[&plane, &x[0]], ty).is_some_and(|y| y.words() == want));

        let [d, a, ra, w, ta, rta] = [0, 1, 2, 3, 4, 5].map(|i| &x[i]);
        let lift = Some([w.words(), ta.words(), rta.words()]);
        let s = Select { d: d.words(), delta: plane.words(), a: a.words(), r: r.words(), ra: ra.words(), lift };
        k.select([20, 32], &map, true, s, &mut want);
        let inst = Inst::Select { map: map.clone(), public: true };
        let got = compute(k, &inst, &[d, &plane, a, &r, ra, w, ta, rta], ty);
        assert!(got.is_some_and(|y| y.words() == want));
    }
}
