//! Runs fused steps: strip by strip, on all cores.
//!
//! A strip has some thousand elements, so that the values of all its instructions stay in the caches. Between the
//! instructions they are in scratch memory, from which what is read later is taken to its buffer and what is sent to its
//! message; masks are drawn and what was received is unpacked into it.

mod compile;
mod cut;

use std::time::{Duration, Instant};

use bcc_ir::program::steps::{Fused, Strip, strips};
use bcc_ir::program::{BlockMap, BufferId, Inst, Phase, Type};
use rayon::prelude::*;

use self::compile::{Compiled, Op, Source};
use self::cut::{Outputs, Slot};
use super::ExecError;
use super::compute::{Data, Operand, Target, compute, overwrites};
use super::lane::{Fixed, Lane};
use super::outgoing::Parts;
use crate::buffer::{Buffer, stride};
use crate::element::{Element, by_width};
use crate::kernels::blocks::shifted;
use crate::kernels::{Kernels, packed};
use crate::prg::Drawer;
use crate::wire::{self, WireError};

/// Tasks for each thread, so that one that is held up does not hold up all.
const TASKS: usize = 4;

/// Seconds of computing by layer.
pub type Spent = Vec<(u32, Duration)>;

/// Why a strip cannot be computed.
pub enum Trouble {
    /// A received part has bits set past its end.
    Excess(BufferId),
    /// The program was not verified.
    Operands,
}

/// Runs a step in a lane; `parts` are the bytes of its sent results, in their order. A step that is for some elements
/// only comes after the one for those before them, and goes on with its results.
pub fn run(
    fixed: &Fixed<'_>,
    lane: &mut Lane,
    phase: Phase,
    fused: &Fused,
    parts: Parts<'_>,
) -> Result<Spent, ExecError> {
    let unverified = |reason| ExecError::Unverified { role: fixed.role, phase, index: fused.instructions[0], reason };
    compile::bring_aside(fixed, lane, phase, fused)?;
    let types = &fixed.program.code(fixed.role).buffers;
    let kept = |b: &BufferId| match fused.elements.start {
        0 => Some(Buffer::any(types[*b as usize], fixed.width)),
        _ => lane.take(*b),
    };
    let kept: Option<Vec<Buffer>> = fused.kept.iter().map(kept).collect();
    let mut kept = kept.ok_or(unverified("the elements before are missing"))?;
    let done = by_width!(fixed.width, E => {
        let compiled = Compiled::<E>::new(fixed, lane, phase, fused).ok_or(unverified("an operand is missing"))?;
        work(fixed, &compiled, phase, fused, &mut kept, parts)
    });
    match done {
        Ok(spent) => {
            for (b, buffer) in fused.kept.iter().zip(kept) {
                fixed.write(lane, *b, buffer);
            }
            Ok(spent.concat())
        }
        Err(Trouble::Operands) => Err(unverified("operands do not fit")),
        Err(Trouble::Excess(b)) => Err(fixed.malformed(lane, b, WireError::Excess { ty: types[b as usize] })),
    }
}

/// Does all strips, in as many tasks as are worth it.
fn work<E: Element>(
    fixed: &Fixed<'_>,
    compiled: &Compiled<'_, E>,
    phase: Phase,
    fused: &Fused,
    kept: &mut [Buffer],
    parts: Parts<'_>,
) -> Result<Vec<Spent>, Trouble> {
    let strips = strips(fixed.program.code(fixed.role), phase, fused);
    let threads = rayon::current_num_threads();
    let tasks = if fused.shared() && threads > 1 { TASKS * threads } else { 1 };
    let tasks = cut::tasks(&strips, tasks, compiled, fused.len, kept, parts).ok_or(Trouble::Operands)?;
    let work = |(strips, outputs): (&[Strip], Outputs<'_, E>)| Task::new(fixed, compiled, outputs).work(strips);
    match tasks.len() {
        1 => tasks.into_iter().map(work).collect(),
        _ => tasks.into_par_iter().map(work).collect(),
    }
}

/// Some strips, one after the other.
struct Task<'a, E: Element> {
    fixed: &'a Fixed<'a>,
    compiled: &'a Compiled<'a, E>,
    outputs: Outputs<'a, E>,
    slots: Vec<Slot<E>>,
    drawer: Drawer,
    /// The channels of a strip.
    blocks: BlockMap,
}

impl<'a, E: Element> Task<'a, E> {
    fn new(fixed: &'a Fixed<'a>, compiled: &'a Compiled<'a, E>, outputs: Outputs<'a, E>) -> Self {
        let slots = compiled.slots.iter().map(|planes| Slot::new(*planes, outputs.longest)).collect();
        let blocks = BlockMap { map: [1, 0], blocks: vec![[1, 1]] };
        Task { fixed, compiled, outputs, slots, drawer: Drawer::default(), blocks }
    }

    fn work(mut self, strips: &[Strip]) -> Result<Spent, Trouble> {
        let mut spent: Spent = Vec::new();
        let mut last = Instant::now();
        let mut layer = self.compiled.ops.first().map_or(0, |(_, layer)| *layer);
        let mut count = |layer: u32| {
            let now = Instant::now();
            let took = now.duration_since(last);
            last = now;
            match spent.iter_mut().find(|(l, _)| *l == layer) {
                Some((_, all)) => *all += took,
                None => spent.push((layer, took)),
            }
        };
        for strip in strips {
            match self.compiled.map {
                Some(map) => {
                    self.blocks.map = map.map;
                    self.blocks.blocks.clear();
                    self.blocks.blocks.extend_from_slice(&map.blocks[strip.channels.clone()]);
                }
                None => self.blocks.map[1] = strip.elements.len(),
            }
            for (op, of) in &self.compiled.ops {
                if *of != layer {
                    count(layer);
                    layer = *of;
                }
                self.step(op, strip)?;
            }
        }
        count(layer);
        Ok(spent)
    }

    fn step(&mut self, op: &Op<'a, E>, strip: &Strip) -> Result<(), Trouble> {
        let part = || strip.elements.clone();
        match op {
            Op::Draw { keystream, stream, ty, slot } => {
                let keystream = &self.compiled.keystreams[*keystream];
                match (*ty, self.slots[*slot].target(*ty, part().len())) {
                    (Type::Ring { bits, .. }, Target::Ring(out)) => {
                        self.drawer.elements(keystream, *stream, bits, part().start, out);
                    }
                    (Type::Bits { len, .. }, Target::Bits(out)) => {
                        self.drawer.planes(keystream, *stream, len, part(), out);
                    }
                    _ => return Err(Trouble::Operands),
                }
            }
            Op::Unpack { buffer, ty, pieces, slot } => {
                let all = part();
                let (mut clean, mut done) = (true, 0);
                for piece in pieces {
                    let here = piece.within(&all);
                    if here.is_empty() {
                        continue;
                    }
                    let at = here.start - all.start;
                    done += here.len();
                    clean &= match (*ty, self.slots[*slot].target(*ty, all.len())) {
                        (Type::Ring { bits, .. }, Target::Ring(out)) => {
                            let place = |at: usize| wire::place(*ty, at) - wire::place(*ty, piece.elements.start);
                            let bytes = &piece.bytes[place(here.start)..place(here.end)];
                            packed::unpack(bits, bytes, &mut out[at..at + here.len()])
                        }
                        (Type::Bits { .. }, Target::Bits(out)) => {
                            wire::unpack_planes(piece, here, (all.len(), at), out)
                        }
                        _ => return Err(Trouble::Operands),
                    };
                }
                if done != all.len() {
                    return Err(Trouble::Operands);
                }
                if !clean {
                    return Err(Trouble::Excess(*buffer));
                }
            }
            Op::Planes { ty, words: all, slot } => {
                let (n, whole) = (stride(part().len()), stride(ty.len()));
                if let Target::Bits(out) = self.slots[*slot].target(*ty, part().len()) {
                    let planes = out.chunks_exact_mut(n).zip(all.chunks_exact(whole));
                    planes.for_each(|(to, from)| to.copy_from_slice(&from[part().start / 64..][..n]));
                }
            }
            Op::Blocks { words: plane, slot } => {
                if let Slot::Bits(out) = &mut self.slots[*slot] {
                    shifted(plane, strip.blocks.clone(), &mut out[..stride(strip.blocks.len())]);
                }
            }
            Op::Pack { from, ty, part } => {
                let Outputs { kept, packs, .. } = &mut self.outputs;
                packs[*part].pack(*ty, strip, cut::read(from, kept, &self.slots, *ty, strip));
            }
            Op::Keep { slot, ty, kept } => {
                if let Data::Bits(words) = self.slots[*slot].data(*ty, part().len()) {
                    self.outputs.kept[*kept].put_planes(strip, words);
                }
            }
            Op::Run { inst, operands, ty, to } => self.run(inst, operands, *ty, to, strip)?,
        }
        Ok(())
    }

    /// Computes an instruction.
    fn run(
        &mut self,
        inst: &Inst,
        operands: &[(Source<'a, E>, Type)],
        ty: Type,
        to: &Source<'a, E>,
        strip: &Strip,
    ) -> Result<(), Trouble> {
        let len = strip.elements.len();
        // The result is taken out of where it lies, so that operands can be read from there.
        match to {
            Source::Slot(i) => {
                let mut slot = std::mem::take(&mut self.slots[*i]);
                self.compute(inst, operands, ty, strip, slot.target(ty, len))?;
                self.slots[*i] = slot;
            }
            Source::Kept(i) => {
                let mut row = self.outputs.kept[*i].take();
                let range = self.outputs.kept[*i].range(strip);
                let out = match &mut row {
                    Target::Ring(row) => Target::Ring(&mut row[range]),
                    Target::Bits(row) => Target::Bits(&mut row[range]),
                };
                self.compute(inst, operands, ty, strip, out)?;
                self.outputs.kept[*i].put(row);
            }
            _ => return Err(Trouble::Operands),
        }
        Ok(())
    }

    fn compute(
        &self,
        inst: &Inst,
        operands: &[(Source<'a, E>, Type)],
        ty: Type,
        strip: &Strip,
        mut out: Target<'_, E>,
    ) -> Result<(), Trouble> {
        let mut all = [Operand { ty, data: Data::Bits(&[]) }; 8];
        for (place, (source, ty)) in all.iter_mut().zip(operands) {
            *place = Operand { ty: *ty, data: cut::read(source, &self.outputs.kept, &self.slots, *ty, strip) };
        }
        let all = all.get(..operands.len()).ok_or(Trouble::Operands)?;
        let k: &dyn Kernels<E> = self.fixed.kernels.of();
        let bits = if let Type::Ring { bits, .. } = ty { bits } else { 1 };
        let elements = |i: usize| all[i].data.elements().ok_or(Trouble::Operands);
        match (inst, &mut out) {
            // By channel, of which the strip has parts.
            (Inst::AddBias, Target::Ring(out)) if all.len() == 2 => {
                let (x, bias) = (elements(0)?, elements(1)?);
                let channel = ty.len() / bias.len().max(1);
                for (c, place, range) in cut::channels(&strip.elements, channel) {
                    debug_assert_eq!(range.len(), place.len());
                    k.add_const(bits, &x[place.clone()], bias[c], &mut out[place]);
                }
            }
            (Inst::Gather { inner, indices, .. }, Target::Ring(out)) if all.len() == 1 => {
                let x = elements(0)?;
                for (c, place, range) in cut::channels(&strip.elements, *inner) {
                    let from = indices[c] * inner;
                    k.add_const(bits, &x[from + range.start..from + range.end], E::ZERO, &mut out[place]);
                }
            }
            _ => {
                if !overwrites(inst) {
                    match &mut out {
                        Target::Ring(out) => out.fill(E::ZERO),
                        Target::Bits(out) => out.fill(0),
                    }
                }
                let n = if matches!(inst, Inst::BlockSum(_)) { strip.blocks.len() } else { strip.elements.len() };
                compute(k, inst, all, Some(&self.blocks), (ty, n), out).ok_or(Trouble::Operands)?;
            }
        }
        Ok(())
    }
}
