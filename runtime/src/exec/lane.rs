//! The buffers of an inference, and the instructions that work on them alone.

use std::ops::Range;
use std::sync::Arc;

use bcc_ir::geometry::ConvShape;
use bcc_ir::program::{BufferId, Code, Inst, Instruction, Phase, Program, Role, Scope, Type};

use super::compute::compute_whole;
use super::{ExecError, Observer, narrow_weights, pair_index};
use crate::buffer::Buffer;
use crate::channel::Payload;
use crate::element::{Width, by_width};
use crate::kernels::{Arranged, KernelSet};
use crate::plan::Plan;
use crate::prg::{self, Key};
use crate::weights::{self, WeightSource};
use crate::wire::{self, WireError};
use crate::words::Words;

/// One inference at work, or the setup.
#[derive(Default)]
pub struct Lane {
    /// Number of the inference, from 0.
    pub inference: u32,
    /// Keys of the inference's streams.
    pub keys: [Option<Key>; 2],
    /// The client's encoded input, until it is read.
    pub input: Option<Words>,
    /// The opened output at the client, modulo its port's modulus.
    pub output: Option<Vec<u64>>,
    buffers: Vec<Option<Buffer>>,
    /// Buffers that the observer has seen: a mask that is drawn again is the same.
    shown: Vec<bool>,
    /// What was received before the input and is read with it: as bytes, which are fewer, until it is read.
    sealed: Vec<Option<Sealed>>,
}

/// A part of a message: the pieces that have come.
struct Sealed {
    pieces: Vec<wire::Piece<(Arc<Payload>, Range<usize>)>>,
    message: u32,
}

impl Lane {
    pub(super) fn new(code: &Code, inference: u32, keys: [Option<Key>; 2]) -> Lane {
        let buffers = code.buffers.iter().map(|_| None).collect();
        let sealed = code.buffers.iter().map(|_| None).collect();
        let shown = vec![false; code.buffers.len()];
        Lane { inference, keys, buffers, shown, sealed, ..Lane::default() }
    }

    pub(super) fn get(&self, b: BufferId) -> Option<&Buffer> {
        self.buffers.get(b as usize)?.as_ref()
    }

    /// Notes where some elements of a buffer are, until they are read: in which bytes of a message's piece.
    pub(super) fn seal(
        &mut self,
        b: BufferId,
        message: u32,
        elements: Range<usize>,
        bytes: (Arc<Payload>, Range<usize>),
    ) {
        let Some(place) = self.sealed.get_mut(b as usize) else { return };
        let piece = wire::Piece { elements, bytes };
        match place {
            Some(sealed) if piece.elements.start > 0 => sealed.pieces.push(piece),
            _ => *place = Some(Sealed { pieces: vec![piece], message }),
        }
    }

    /// The bytes of a buffer that was received and not yet brought.
    pub(super) fn received(&self, b: BufferId) -> Option<Vec<wire::Piece<&[u8]>>> {
        let pieces = &self.sealed.get(b as usize)?.as_ref()?.pieces;
        let bytes = pieces.iter().map(|p| p.bytes.0.bytes().get(p.bytes.1.clone()));
        let piece = |(p, bytes): (&wire::Piece<_>, Option<_>)| {
            Some(wire::Piece { elements: p.elements.clone(), bytes: bytes? })
        };
        pieces.iter().zip(bytes).map(piece).collect()
    }

    /// Takes a buffer that is being made.
    pub(super) fn take(&mut self, b: BufferId) -> Option<Buffer> {
        self.buffers.get_mut(b as usize)?.take()
    }

    pub(super) fn forget(&mut self, buffers: &[BufferId]) {
        for b in buffers.iter().map(|b| *b as usize) {
            (self.buffers[b], self.sealed[b]) = (None, None);
        }
    }
}

/// A convolution that reads a buffer as its weights.
struct Reader {
    bits: u8,
    shape: ConvShape,
    /// Nobody else reads them behind the setup.
    alone: bool,
}

/// What serves all inferences.
pub(super) struct Fixed<'a> {
    pub program: &'a Program,
    pub role: Role,
    pub plan: Plan,
    /// Keys of the model's streams.
    pub keys: [Option<Key>; 2],
    /// Buffers of the setup.
    pub shared: Lane,
    pub kernels: KernelSet,
    /// Of all ring elements.
    pub width: Width,
    weights: Option<&'a dyn WeightSource>,
    /// Weights of convolutions as the kernels read them, by buffer.
    arranged: Vec<Option<Arranged>>,
    /// By buffer.
    readers: Vec<Option<Reader>>,
    narrow: Vec<bool>,
    observer: Option<Observer>,
}

impl<'a> Fixed<'a> {
    pub fn new(
        program: &'a Program,
        role: Role,
        kernels: KernelSet,
        weights: Option<&'a dyn WeightSource>,
        observer: Option<Observer>,
    ) -> Self {
        let code = program.code(role);
        Fixed {
            program,
            role,
            plan: Plan::new(code, &program.messages, observer.is_some()),
            keys: [None, None],
            shared: Lane::new(code, 0, [None, None]),
            kernels,
            width: Width::of(program),
            weights,
            arranged: code.buffers.iter().map(|_| None).collect(),
            readers: readers(code),
            narrow: narrow_weights(program, role),
            observer,
        }
    }

    pub fn clear(&mut self) {
        self.shared = Lane::default();
        self.arranged.clear();
    }

    fn setup(&self) -> &'a [Instruction] {
        &self.program.code(self.role).phases[Phase::Setup.index()]
    }

    /// A buffer of the lane or of the setup.
    pub fn buffer<'b>(&'b self, lane: &'b Lane, b: BufferId) -> Option<&'b Buffer> {
        lane.get(b).or_else(|| self.shared.get(b))
    }

    pub fn write(&self, lane: &mut Lane, b: BufferId, buffer: Buffer) {
        if let (Some(observer), Some(shown)) = (&self.observer, lane.shown.get_mut(b as usize))
            && !std::mem::replace(shown, true)
        {
            observer(self.role, lane.inference, b, &buffer);
        }
        if let Some(place) = lane.buffers.get_mut(b as usize) {
            *place = Some(buffer);
        }
    }

    /// Whether somebody looks at all buffers.
    pub fn observed(&self) -> bool {
        self.observer.is_some()
    }

    /// Makes buffers of received bytes, and draws what was not kept.
    pub fn bring(&self, lane: &mut Lane, buffers: &[BufferId]) -> Result<(), ExecError> {
        for b in buffers {
            let (ty, at) = (self.program.code(self.role).buffers[*b as usize], *b as usize);
            if let Some(pieces) = lane.received(*b) {
                let buffer = wire::unpack_pieces(ty, self.width, &pieces);
                let buffer = buffer.map_err(|source| self.malformed(lane, *b, source))?;
                lane.sealed[at] = None;
                self.write(lane, *b, buffer);
            } else if let Some(stream) = self.plan.lifetimes.streams[at]
                && lane.get(*b).is_none()
                && let Some(buffer) = self.draw(lane, stream, ty)
            {
                self.write(lane, *b, buffer);
            }
        }
        Ok(())
    }

    /// What is wrong with a received buffer.
    pub fn malformed(&self, lane: &Lane, b: BufferId, source: WireError) -> ExecError {
        let message = lane.sealed.get(b as usize).and_then(Option::as_ref).map_or(0, |part| part.message);
        let m = &self.program.messages[message as usize];
        ExecError::Wire { from: m.from, message: m.name.clone(), source }
    }

    /// The key of a stream, and which of all it is; `None` where it is not held.
    pub fn key<'k>(&'k self, lane: &'k Lane, stream: u32) -> Option<([usize; 2], &'k Key)> {
        let s = self.program.streams.get(stream as usize)?;
        let (scope, held) = match s.scope {
            Scope::Model => (0, &self.keys),
            Scope::Inference => (1, &lane.keys),
        };
        let pair = pair_index(s.pair);
        held[pair].as_ref().map(|key| ([scope, pair], key))
    }

    /// The values of a stream; `None` without its key.
    fn draw(&self, lane: &Lane, stream: u32, ty: Type) -> Option<Buffer> {
        self.key(lane, stream).map(|(_, key)| prg::draw(key, stream, ty, self.width))
    }

    /// Runs an instruction that sends and receives nothing.
    pub fn local(&self, lane: &mut Lane, phase: Phase, index: usize) -> Result<(), ExecError> {
        let program = self.program;
        let code = program.code(self.role);
        let instruction = &code.phases[phase.index()][index];
        let unverified = |reason| ExecError::Unverified { role: self.role, phase, index, reason };
        let target = *instruction.outputs.first().ok_or(unverified("no result"))?;
        let ty = *code.buffers.get(target as usize).ok_or(unverified("unknown buffer"))?;
        if let Some(arranged) = self.arranged_for(&instruction.inst, &instruction.inputs, ty) {
            return self.rows(lane, phase, index, &(0..arranged.channels()));
        }
        self.bring(lane, &instruction.inputs)?;
        let buffer = match &instruction.inst {
            Inst::Draw { stream } => {
                self.draw(lane, *stream, ty).ok_or(unverified("the stream or its key is not here"))?
            }
            Inst::Weight { index } => {
                let source = self.weights.ok_or(unverified("there are no weights here"))?;
                let Type::Ring { bits, len } = ty else { return Err(unverified("weights are ring elements")) };
                let got = source.len(*index as usize);
                if got != len {
                    let name = program.weights.get(*index as usize).map_or("unknown", |w| &w.name);
                    return Err(ExecError::Weight { name: name.into(), got, want: len });
                }
                let mut buffer = Buffer::any(ty, self.width);
                by_width!(self.width, E => {
                    weights::fill::<E>(source, *index as usize, bits, buffer.elements_mut().unwrap_or_default())?;
                });
                buffer
            }
            Inst::Input => {
                let input = lane.input.take().ok_or(unverified("there is no input"))?;
                let buffer = Buffer::ring(program.input.modulus, self.width, &input);
                if buffer.ty() != ty {
                    return Err(unverified("the input has another type"));
                }
                buffer
            }
            inst => {
                let mut operands = Vec::with_capacity(instruction.inputs.len());
                for b in &instruction.inputs {
                    operands.push(self.buffer(lane, *b).ok_or(unverified("an operand is missing"))?);
                }
                compute_whole(self.kernels, inst, &operands, ty, self.width).ok_or(unverified("operands do not fit"))?
            }
        };
        self.write(lane, target, buffer);
        Ok(())
    }

    /// Computes some output channels of a convolution: all with the first ones, where its weights are not arranged.
    pub fn rows(&self, lane: &mut Lane, phase: Phase, index: usize, channels: &Range<usize>) -> Result<(), ExecError> {
        let code = self.program.code(self.role);
        let Instruction { inst, inputs, outputs, .. } = &code.phases[phase.index()][index];
        let unverified = |reason| ExecError::Unverified { role: self.role, phase, index, reason };
        let target = *outputs.first().ok_or(unverified("no result"))?;
        let ty = *code.buffers.get(target as usize).ok_or(unverified("unknown buffer"))?;
        let Some(arranged) = self.arranged_for(inst, inputs, ty) else {
            return if channels.start == 0 { self.local(lane, phase, index) } else { Ok(()) };
        };
        self.bring(lane, inputs)?;
        let mut out = match channels.start {
            0 => Buffer::any(ty, self.width),
            _ => lane.take(target).ok_or(unverified("the channels before are missing"))?,
        };
        let x = inputs.first().and_then(|b| self.buffer(lane, *b)).ok_or(unverified("an operand is missing"))?;
        let size = ty.len() / arranged.channels().max(1);
        by_width!(self.width, E => {
            let x = x.elements().ok_or(unverified("operands do not fit"))?;
            let y = out.elements_mut().ok_or(unverified("operands do not fit"))?;
            let y = &mut y[channels.start * size..channels.end * size];
            self.kernels.of::<E>().conv_rows(arranged, channels.clone(), x, y);
        });
        self.write(lane, target, out);
        Ok(())
    }

    /// The arranged weights of a convolution.
    fn arranged_for(&self, inst: &Inst, inputs: &[BufferId], out: Type) -> Option<&Arranged> {
        let (Inst::Conv(shape), Type::Ring { bits, .. }, [_, w]) = (inst, out, inputs) else { return None };
        self.arranged.get(*w as usize)?.as_ref().filter(|a| a.fits(bits, shape))
    }

    /// Weights that are arranged for a convolution.
    pub fn arranged(&self, b: BufferId) -> Option<&Arranged> {
        self.arranged.get(b as usize)?.as_ref()
    }

    /// Runs setup instructions again, without messages; `received` are the buffers of [`Plan::received`].
    pub fn replay<E: From<ExecError>>(
        &mut self,
        run: &[bool],
        received: impl Iterator<Item = Result<Buffer, E>>,
    ) -> Result<(), E> {
        let mut lane = std::mem::take(&mut self.shared);
        let mut last = vec![0; self.arranged.len()];
        for (index, instruction) in self.setup().iter().enumerate().filter(|(i, _)| run[*i]) {
            instruction.inputs.iter().chain(&instruction.outputs).for_each(|b| last[*b as usize] = index);
        }
        let mut received = self.plan.received.clone().into_iter().zip(received);
        for (index, instruction) in self.setup().iter().enumerate().filter(|(i, _)| run[*i]) {
            if matches!(instruction.inst, Inst::Receive { .. }) {
                for (b, buffer) in received.by_ref().take(instruction.outputs.len()) {
                    self.write(&mut lane, b, buffer?);
                }
            } else {
                self.local(&mut lane, Phase::Setup, index)?;
            }
            lane.forget(&self.plan.lifetimes.drops[Phase::Setup.index()][index]);
            // At once, so that the elements of all weights are not there at a time.
            for b in instruction.inputs.iter().chain(&instruction.outputs).filter(|b| last[**b as usize] == index) {
                self.arrange(&mut lane, *b);
            }
        }
        self.shared = lane;
        Ok(())
    }

    /// Whether all is there that an inference from stored material needs of the setup.
    pub fn rebuilt(&self) -> bool {
        let here = |b: &BufferId| self.shared.get(*b).is_some() || self.arranged[*b as usize].is_some();
        self.setup().iter().zip(&self.plan.rebuild).all(|(i, run)| !run || i.outputs.iter().all(here))
    }

    /// Arranges all weights of the setup that are not yet.
    pub fn settle(&mut self) {
        let mut lane = std::mem::take(&mut self.shared);
        (0..self.arranged.len()).for_each(|b| self.arrange(&mut lane, b as BufferId));
        self.shared = lane;
    }

    /// Arranges a buffer if it holds weights, and erases what nobody else reads of them.
    fn arrange(&mut self, lane: &mut Lane, b: BufferId) {
        let b = b as usize;
        let (Some(reader), Some(Some(buffer))) = (&self.readers[b], lane.buffers.get(b)) else { return };
        if self.arranged[b].is_none() {
            by_width!(self.width, E => {
                let (k, narrow) = (self.kernels.of::<E>(), self.narrow[b]);
                let arrange = |values| k.arrange(reader.bits, narrow, &reader.shape, values);
                self.arranged[b] = buffer.elements().and_then(arrange);
            });
        }
        if reader.alone && self.arranged[b].is_some() {
            lane.buffers[b] = None;
        }
    }
}

/// The convolutions that read buffers as their weights; of several that read the same, the first.
fn readers(code: &Code) -> Vec<Option<Reader>> {
    let later = || code.phases[Phase::Offline.index()].iter().chain(&code.phases[Phase::Online.index()]);
    let mut readers: Vec<Option<Reader>> = code.buffers.iter().map(|_| None).collect();
    for i in later() {
        let (Inst::Conv(shape), [_, w], [y]) = (&i.inst, &i.inputs[..], &i.outputs[..]) else { continue };
        let Some(Type::Ring { bits, .. }) = code.buffers.get(*y as usize) else { continue };
        let same = |r: &Reader| (r.bits, &r.shape) == (*bits, shape);
        match &mut readers[*w as usize] {
            Some(reader) => reader.alone &= same(reader),
            none => *none = Some(Reader { bits: *bits, shape: *shape, alone: true }),
        }
    }
    for i in later() {
        let others = if matches!(i.inst, Inst::Conv(_)) { &i.inputs[..1] } else { &i.inputs[..] };
        others.iter().for_each(|b| readers[*b as usize].iter_mut().for_each(|r| r.alone = false));
    }
    readers
}
