//! From the instructions of a fused step to what is done for every strip: where operands come from and results go.

use bcc_ir::program::steps::{Fused, block_map, read_aside};
use bcc_ir::program::{BlockMap, BufferId, Inst, Phase, Type};

use super::{ExecError, Fixed, Lane};
use crate::element::Element;
use crate::exec::compute::Data;
use crate::kernels::keystream::Keystream;
use crate::wire::Piece;

/// Where a value is.
#[derive(Clone, Copy)]
pub enum Source<'a, E> {
    /// In scratch memory.
    Slot(usize),
    /// In its part of a buffer that is kept: elements, or one plane.
    Kept(usize),
    /// In a buffer, of which the strip has a part: elements, or one plane.
    Part(Data<'a, E>),
    /// In a buffer with an element for each block.
    Blocks(&'a [E]),
    /// In a buffer of which all is read.
    Whole(Data<'a, E>),
}

/// What is done for a strip.
pub enum Op<'a, E> {
    /// Draws a part of a stream.
    Draw { keystream: usize, stream: u32, ty: Type, slot: usize },
    /// Makes words of a received part.
    Unpack { buffer: BufferId, ty: Type, pieces: Vec<Piece<&'a [u8]>>, slot: usize },
    /// Brings the strip's words of several planes together.
    Planes { ty: Type, words: &'a [u64], slot: usize },
    /// Takes the bits of the strip's blocks.
    Blocks { words: &'a [u64], slot: usize },
    /// Computes.
    Run { inst: &'a Inst, operands: Vec<(Source<'a, E>, Type)>, ty: Type, to: Source<'a, E> },
    /// Takes planes to a buffer that is kept.
    Keep { slot: usize, ty: Type, kept: usize },
    /// Takes a result to its message.
    Pack { from: Source<'a, E>, ty: Type, part: usize },
}

/// A step, ready to run.
pub struct Compiled<'a, E> {
    /// What is done for every strip, each for a layer.
    pub ops: Vec<(Op<'a, E>, u32)>,
    /// Scratch memory for each slot: so many planes, or elements.
    pub slots: Vec<Option<usize>>,
    pub keystreams: Vec<Keystream>,
    /// Blocks of several pixels.
    pub map: Option<&'a BlockMap>,
    /// Types of what is sent, in the step's order.
    pub sent: Vec<Type>,
}

/// Brings what is read as a whole. Who looks at all buffers is shown what was received before it is read.
pub fn bring_aside(fixed: &Fixed<'_>, lane: &mut Lane, phase: Phase, fused: &Fused) -> Result<(), ExecError> {
    let all = &fixed.program.code(fixed.role).phases[phase.index()];
    for i in &fused.instructions {
        if fixed.observed() {
            fixed.bring(lane, &all[*i].inputs)?;
        } else {
            fixed.bring(lane, &read_aside(&all[*i]).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// A value that is in scratch memory.
struct Value {
    planes: Option<usize>,
    /// The operation that reads it last.
    last: usize,
}

struct Compiler<'a, E> {
    fixed: &'a Fixed<'a>,
    lane: &'a Lane,
    keys: Vec<([usize; 2], Keystream)>,
    ops: Vec<(Op<'a, E>, u32)>,
    /// Slots are numbers of values first.
    values: Vec<Value>,
    /// Where buffers are, read by element or as the bits of blocks.
    found: Vec<(BufferId, bool, Source<'a, E>)>,
}

impl<'a, E: Element> Compiled<'a, E> {
    /// Compiles a step for a lane; `None` if an operand is missing.
    pub fn new(fixed: &'a Fixed<'a>, lane: &'a Lane, phase: Phase, fused: &'a Fused) -> Option<Compiled<'a, E>> {
        let code = fixed.program.code(fixed.role);
        let all = &code.phases[phase.index()];
        let ty = |b: &BufferId| code.buffers.get(*b as usize).copied();
        let mut c = Compiler { fixed, lane, keys: Vec::new(), ops: Vec::new(), values: Vec::new(), found: Vec::new() };
        for i in &fused.instructions {
            let instruction = &all[*i];
            let layer = instruction.layer;
            let aside: Vec<BufferId> = read_aside(instruction).collect();
            let mut operands = Vec::with_capacity(instruction.inputs.len());
            for b in &instruction.inputs {
                let source = if aside.contains(b) {
                    c.aside(&instruction.inst, *b, layer)?
                } else {
                    c.operand(fused, *b, ty(b)?, layer)?
                };
                operands.push((source, ty(b)?));
            }
            let &[b] = &instruction.outputs[..] else { return None };
            let out = ty(&b)?;
            let planes = planes(out);
            let kept = fused.kept.iter().position(|k| *k == b);
            let to = match kept {
                Some(at) if planes.is_none_or(|n| n == 1) => Source::Kept(at),
                _ => c.value(planes),
            };
            c.reads(operands.iter().map(|(source, _)| source));
            c.ops.push((Op::Run { inst: &instruction.inst, operands, ty: out, to }, layer));
            if let (Source::Slot(slot), Some(kept)) = (to, kept) {
                c.reads([to].iter());
                c.ops.push((Op::Keep { slot, ty: out, kept }, layer));
            }
            if let Some(part) = fused.sent.iter().position(|(sent, _)| *sent == b) {
                c.reads([to].iter());
                c.ops.push((Op::Pack { from: to, ty: out, part }, layer));
            }
            c.found.push((b, false, to));
        }
        let types = |all: Vec<BufferId>| all.iter().map(ty).collect::<Option<Vec<_>>>();
        let slots = c.place();
        Some(Compiled {
            ops: c.ops,
            slots,
            keystreams: c.keys.into_iter().map(|(_, keystream)| keystream).collect(),
            map: fused.map.and_then(|i| block_map(&all[i].inst)),
            sent: types(fused.sent.iter().map(|(b, _)| *b).collect())?,
        })
    }
}

fn planes(ty: Type) -> Option<usize> {
    match ty {
        Type::Ring { .. } => None,
        Type::Bits { planes, .. } => Some(planes),
    }
}

impl<'a, E: Element> Compiler<'a, E> {
    fn value(&mut self, planes: Option<usize>) -> Source<'a, E> {
        self.values.push(Value { planes, last: self.ops.len() });
        Source::Slot(self.values.len() - 1)
    }

    /// Notes that the next operation uses values.
    fn reads<'b>(&mut self, sources: impl Iterator<Item = &'b Source<'a, E>>)
    where
        'a: 'b,
    {
        for source in sources {
            if let Source::Slot(value) = source {
                self.values[*value].last = self.ops.len();
            }
        }
    }

    /// A value that an operation makes for the next ones.
    fn load(
        &mut self,
        b: BufferId,
        bits: bool,
        planes: Option<usize>,
        layer: u32,
        op: impl FnOnce(usize) -> Op<'a, E>,
    ) -> Source<'a, E> {
        let source = self.value(planes);
        if let Source::Slot(slot) = source {
            self.ops.push((op(slot), layer));
        }
        self.found.push((b, bits, source));
        source
    }

    /// An operand that is read element by element.
    fn operand(&mut self, fused: &Fused, b: BufferId, ty: Type, layer: u32) -> Option<Source<'a, E>> {
        if let Some((_, _, source)) = self.found.iter().find(|(found, bits, _)| (*found, *bits) == (b, false)) {
            return Some(*source);
        }
        let planes = planes(ty);
        if let Some(buffer) = self.fixed.buffer(self.lane, b) {
            return Some(match Data::of(buffer)? {
                Data::Bits(words) if planes != Some(1) => {
                    self.load(b, false, planes, layer, |slot| Op::Planes { ty, words, slot })
                }
                data => Source::Part(data),
            });
        }
        if fused.drawn.contains(&b) {
            let stream = self.fixed.plan.lifetimes.streams[b as usize]?;
            let (id, key) = self.fixed.key(self.lane, stream)?;
            let keystream = match self.keys.iter().position(|(known, _)| *known == id) {
                Some(known) => known,
                None => {
                    self.keys.push((id, Keystream::new(&key.0)));
                    self.keys.len() - 1
                }
            };
            return Some(self.load(b, false, planes, layer, |slot| Op::Draw { keystream, stream, ty, slot }));
        }
        let pieces = self.lane.received(b)?;
        let fits = |p: &Piece<&[u8]>| p.bytes.len() as u64 == ty.resized(p.elements.len()).wire_bytes();
        if !pieces.iter().all(fits) {
            return None;
        }
        Some(self.load(b, false, planes, layer, |slot| Op::Unpack { buffer: b, ty, pieces, slot }))
    }

    /// An operand that is read by channel or by block.
    fn aside(&mut self, inst: &Inst, b: BufferId, layer: u32) -> Option<Source<'a, E>> {
        let data = Data::of(self.fixed.buffer(self.lane, b)?)?;
        if block_map(inst).is_none() {
            return Some(Source::Whole(data));
        }
        match data {
            Data::Ring(elements) => Some(Source::Blocks(elements)),
            Data::Bits(words) => {
                let known = self.found.iter().find(|(found, bits, _)| (*found, *bits) == (b, true));
                let known = known.map(|(_, _, source)| *source);
                Some(known.unwrap_or_else(|| self.load(b, true, Some(1), layer, |slot| Op::Blocks { words, slot })))
            }
        }
    }

    /// Puts values that are not needed at the same time into the same slots.
    fn place(&mut self) -> Vec<Option<usize>> {
        let mut slots: Vec<Option<usize>> = Vec::new();
        // By slot, the operation behind which it is free.
        let mut until: Vec<usize> = Vec::new();
        let mut of = vec![usize::MAX; self.values.len()];
        for (at, (op, _)) in self.ops.iter_mut().enumerate() {
            let mut place = |value: &mut usize| {
                if of[*value] == usize::MAX {
                    let Value { planes, last } = self.values[*value];
                    let free = (0..slots.len()).find(|s| until[*s] < at && slots[*s] == planes);
                    let slot = free.unwrap_or_else(|| {
                        slots.push(planes);
                        until.push(0);
                        slots.len() - 1
                    });
                    (of[*value], until[slot]) = (slot, last);
                }
                *value = of[*value];
            };
            match op {
                Op::Draw { slot, .. }
                | Op::Unpack { slot, .. }
                | Op::Planes { slot, .. }
                | Op::Blocks { slot, .. }
                | Op::Keep { slot, .. } => place(slot),
                Op::Pack { from, .. } => sources([from], place),
                Op::Run { operands, to, .. } => sources(operands.iter_mut().map(|(s, _)| s).chain([to]), place),
            }
        }
        slots
    }
}

fn sources<'s, 'a: 's, E: Element>(
    all: impl IntoIterator<Item = &'s mut Source<'a, E>>,
    mut place: impl FnMut(&mut usize),
) {
    for source in all {
        if let Source::Slot(value) = source {
            place(value);
        }
    }
}
