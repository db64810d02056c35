//! Runs fused steps: strip by strip, on all cores.
//!
//! A strip has some thousand elements, so that the values of all its instructions stay in the caches. Between the
//! instructions they are in scratch memory, from which what is read later is taken to its buffer and what is sent to its
//! message; masks are drawn and what was received is unpacked into it.

mod compile;
mod cut;

use std::time::{Duration, Instant};

use bcc_ir::program::steps::{Fused, SHARED};
use bcc_ir::program::{BlockMap, BufferId, Inst, Phase, Type};
use rayon::prelude::*;

use self::compile::{Compiled, Op, Source};
use self::cut::{Outputs, Strip};
use super::ExecError;
use super::compute::{Operand, compute, overwrites};
use super::lane::{Fixed, Lane};
use crate::buffer::{Buffer, stride};
use crate::kernels::blocks::shifted;
use crate::prg::Drawer;
use crate::wire::{self, WireError};
use crate::words::Words;

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

/// Runs a step in a lane; `parts` are the bytes of its sent results, in their order.
pub fn run(
    fixed: &Fixed<'_>,
    lane: &mut Lane,
    phase: Phase,
    fused: &Fused,
    parts: Vec<&mut [u8]>,
) -> Result<Spent, ExecError> {
    let unverified = |reason| ExecError::Unverified { role: fixed.role, phase, index: fused.instructions[0], reason };
    compile::bring_aside(fixed, lane, phase, fused)?;
    let types = &fixed.program.code(fixed.role).buffers;
    let mut kept: Vec<Buffer> = fused.kept.iter().map(|b| Buffer::any(types[*b as usize])).collect();
    let done = {
        let compiled = Compiled::new(fixed, lane, phase, fused).ok_or(unverified("an operand is missing"))?;
        let strips = cut::strips(fixed.program.code(fixed.role), phase, fused);
        let threads = rayon::current_num_threads();
        let tasks = if fused.len * fused.instructions.len() < SHARED || threads == 1 { 1 } else { TASKS * threads };
        let tasks = cut::tasks(&strips, tasks, &compiled, &mut kept, parts);
        let work = |(strips, outputs): (&[Strip], Outputs<'_>)| Task::new(fixed, &compiled, outputs).work(strips);
        match tasks.len() {
            1 => tasks.into_iter().map(work).collect::<Result<Vec<Spent>, Trouble>>(),
            _ => tasks.into_par_iter().map(work).collect(),
        }
    };
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

/// Some strips, one after the other.
struct Task<'a> {
    fixed: &'a Fixed<'a>,
    compiled: &'a Compiled<'a>,
    outputs: Outputs<'a>,
    slots: Vec<Words>,
    drawer: Drawer,
    /// The channels of a strip.
    blocks: BlockMap,
}

impl<'a> Task<'a> {
    fn new(fixed: &'a Fixed<'a>, compiled: &'a Compiled<'a>, outputs: Outputs<'a>) -> Self {
        let longest = outputs.longest;
        let slots = compiled.slots.iter().map(|planes| Words::any(planes.map_or(longest, |p| p * stride(longest))));
        Task {
            fixed,
            compiled,
            outputs,
            slots: slots.collect(),
            drawer: Drawer::default(),
            blocks: BlockMap { map: [1, 0], blocks: vec![[1, 1]] },
        }
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

    fn step(&mut self, op: &Op<'a>, strip: &Strip) -> Result<(), Trouble> {
        let len = strip.elements.len();
        match op {
            Op::Draw { keystream, stream, ty, slot } => {
                let out = &mut self.slots[*slot][..words(*ty, len)];
                self.drawer.part(&self.compiled.keystreams[*keystream], *stream, *ty, strip.elements.clone(), out);
            }
            Op::Unpack { buffer, ty, bytes, slot } => {
                let out = &mut self.slots[*slot][..words(*ty, len)];
                if !wire::unpack_part(*ty, bytes, strip.elements.clone(), out) {
                    return Err(Trouble::Excess(*buffer));
                }
            }
            Op::Planes { ty, words: all, slot } => {
                let (n, whole) = (stride(len), stride(ty.len()));
                let planes = self.slots[*slot][..words(*ty, len)].chunks_exact_mut(n).zip(all.chunks_exact(whole));
                planes.for_each(|(to, from)| to.copy_from_slice(&from[strip.elements.start / 64..][..n]));
            }
            Op::Blocks { words: plane, slot } => {
                let out = &mut self.slots[*slot][..stride(strip.blocks.len())];
                shifted(plane, strip.blocks.clone(), out);
            }
            Op::Pack { from, ty, part } => {
                let Outputs { kept, packs, .. } = &mut self.outputs;
                let from = cut::read(from, kept, &self.slots, *ty, strip, words(*ty, len));
                packs[*part].pack(*ty, strip, from);
            }
            Op::Keep { slot, kept } => {
                let n = stride(len);
                for (p, plane) in self.slots[*slot].chunks_exact(n).enumerate().take(self.outputs.kept[*kept].rows()) {
                    self.outputs.kept[*kept].words(p, strip).copy_from_slice(plane);
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
        operands: &[(Source<'a>, Type)],
        ty: Type,
        to: &Source<'a>,
        strip: &Strip,
    ) -> Result<(), Trouble> {
        let len = strip.elements.len();
        // The result is taken out of where it lies, so that operands can be read from there.
        let mut slot = Words::default();
        let mut row: &mut [u64] = &mut [];
        let out: &mut [u64] = match to {
            Source::Slot(i) => {
                slot = std::mem::take(&mut self.slots[*i]);
                &mut slot[..words(ty, len)]
            }
            Source::Kept(i) => {
                row = self.outputs.kept[*i].take();
                let range = self.outputs.kept[*i].range(strip);
                &mut row[range]
            }
            _ => return Err(Trouble::Operands),
        };
        let mut all: [Operand<'_>; 8] = [Operand { ty, words: &[] }; 8];
        for (place, (source, ty)) in all.iter_mut().zip(operands) {
            let words = cut::read(source, &self.outputs.kept, &self.slots, *ty, strip, words(*ty, len));
            *place = Operand { ty: *ty, words };
        }
        let all = all.get(..operands.len()).ok_or(Trouble::Operands)?;
        let k = self.fixed.kernels;
        let bits = if let Type::Ring { bits, .. } = ty { bits } else { 1 };
        match (inst, all) {
            // By channel, of which the strip has parts.
            (Inst::AddBias, [x, bias]) => {
                let channel = ty.len() / bias.words.len().max(1);
                for (c, place, range) in cut::channels(&strip.elements, channel) {
                    debug_assert_eq!(range.len(), place.len());
                    k.add_const(bits, &x.words[place.clone()], bias.words[c], &mut out[place]);
                }
            }
            (Inst::Gather { inner, indices, .. }, [x]) => {
                for (c, place, range) in cut::channels(&strip.elements, *inner) {
                    let from = indices[c] * inner;
                    k.add_const(bits, &x.words[from + range.start..from + range.end], 0, &mut out[place]);
                }
            }
            _ => {
                if !overwrites(inst) {
                    out.fill(0);
                }
                let n = if matches!(inst, Inst::BlockSum(_)) { strip.blocks.len() } else { len };
                compute(k, inst, all, Some(&self.blocks), (ty, n), out).ok_or(Trouble::Operands)?;
            }
        }
        match to {
            Source::Kept(i) => self.outputs.kept[*i].put(row),
            Source::Slot(i) => self.slots[*i] = slot,
            _ => {}
        }
        Ok(())
    }
}

/// Words of `len` elements of a type.
fn words(ty: Type, len: usize) -> usize {
    match ty {
        Type::Ring { .. } => len,
        Type::Bits { planes, .. } => planes * stride(len),
    }
}
