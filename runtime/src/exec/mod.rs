//! The interpreter of one role.

mod compute;
mod meter;

use std::ops::Range;
use std::sync::Arc;

use bcc_ir::program::{BufferId, Inst, Pair, Phase, Program, Role, Scope, Type};
use bcc_ir::time::narrow_weights;
use thiserror::Error;
use zeroize::Zeroizing;

pub use compute::compute;
pub use meter::Meter;

use crate::buffer::Buffer;
use crate::channel::{ChannelError, Channels, Payload, new_frame};
use crate::kernels::{Arranged, Kernels};
use crate::plan::Plan;
use crate::prg::{self, Key};
use crate::weights::WeightSource;
use crate::wire::{self, WireError};
use crate::words::{Words, erase_kept};

/// Why a role's code cannot go on.
#[derive(Debug, Error)]
pub enum ExecError {
    /// A message did not come or go.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A message's content does not have its type.
    #[error("the {from} sent '{message}' malformed: {source}")]
    Wire {
        /// The sender.
        from: Role,
        /// The message.
        message: String,
        /// What does not fit.
        source: WireError,
    },
    /// The weights do not fit the program.
    #[error("weight '{name}' has {got} elements, the program asks for {want}; use the weights file written with it")]
    Weight {
        /// Its name.
        name: String,
        /// Elements found.
        got: usize,
        /// Elements expected.
        want: usize,
    },
    /// The program asks for something that this role does not have: it was not verified.
    #[error("the {role}'s {phase} instruction {index} cannot run: {reason}; the program was not verified")]
    Unverified {
        /// Role.
        role: Role,
        /// Phase.
        phase: Phase,
        /// Number of the instruction.
        index: usize,
        /// What is missing.
        reason: &'static str,
    },
}

/// Keys of the streams that a role can draw, by [`Pair`] (client-dealer, server-dealer).
#[derive(Default)]
pub struct Keys {
    /// Keys of this model's setup.
    pub model: [Option<Key>; 2],
    /// Keys of this inference.
    pub inference: [Option<Key>; 2],
}

/// Index of a pair in [`Keys`].
pub fn pair_index(pair: Pair) -> usize {
    match pair {
        Pair::ClientDealer => 0,
        Pair::ServerDealer => 1,
    }
}

/// Sees every buffer of every role when it is written: role, inference, number, value. For checks
/// that open the shares of [`Program::taps`]; never set where parties are real.
pub type Observer = Arc<dyn Fn(Role, u32, BufferId, &Buffer) + Send + Sync>;

/// One role at work: its code and its buffers.
pub struct Machine<'a> {
    program: &'a Program,
    role: Role,
    kernels: &'a dyn Kernels,
    weights: Option<&'a dyn WeightSource>,
    plan: Plan,
    buffers: Vec<Option<Buffer>>,
    /// What was received before the input and is read with it: as bytes, which are fewer, until it is read.
    sealed: Vec<Option<Sealed>>,
    /// Weights of convolutions as the kernels read them, by buffer.
    arranged: Vec<Option<Arranged>>,
    observer: Option<Observer>,
    meter: Meter,
}

/// A part of a message.
struct Sealed {
    payload: Arc<Payload>,
    bytes: Range<usize>,
    message: u32,
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.buffers.clear();
        self.arranged.clear();
        erase_kept();
    }
}

/// A buffer as bytes on the wire, to be stored.
pub type Stored = (Type, Zeroizing<Vec<u8>>);

/// What an inference reads and yields at the client.
#[derive(Default)]
pub struct Io {
    /// The encoded input.
    pub input: Option<Words>,
    /// The opened output, modulo its port's modulus.
    pub output: Option<Vec<u64>>,
}

impl<'a> Machine<'a> {
    /// A role of a verified program. Only the server has weights.
    pub fn new(
        program: &'a Program,
        role: Role,
        kernels: &'a dyn Kernels,
        weights: Option<&'a dyn WeightSource>,
        observer: Option<Observer>,
    ) -> Self {
        let code = program.code(role);
        let buffers = code.buffers.iter().map(|_| None).collect();
        let arranged = code.buffers.iter().map(|_| None).collect();
        let sealed = code.buffers.iter().map(|_| None).collect();
        let (plan, meter) = (Plan::new(code), Meter::new(program));
        Machine { program, role, kernels, weights, plan, buffers, sealed, arranged, observer, meter }
    }

    /// Lifetimes of its buffers.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where its time went in the phases run.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Runs a phase.
    pub fn run(&mut self, phase: Phase, keys: &Keys, channels: &mut Channels, io: &mut Io) -> Result<(), ExecError> {
        let program = self.program;
        self.meter.start(channels.waited());
        for (index, instruction) in program.code(self.role).phases[phase.index()].iter().enumerate() {
            self.unseal(&instruction.inputs, channels.inference())?;
            let unverified = |reason| ExecError::Unverified { role: self.role, phase, index, reason };
            match &instruction.inst {
                Inst::Send { message } => {
                    let m = program.messages.get(*message as usize).ok_or(unverified("unknown message"))?;
                    let mut frame = new_frame(m.wire_bytes() as usize);
                    for b in &instruction.inputs {
                        wire::pack(self.buffer(*b).ok_or(unverified("an operand is missing"))?, &mut frame);
                    }
                    channels.send(*message, m, frame)?;
                }
                Inst::Receive { message } => {
                    let m = program.messages.get(*message as usize).ok_or(unverified("unknown message"))?;
                    let payload = Arc::new(channels.receive(*message, m)?);
                    let mut start = 0;
                    for (b, ty) in instruction.outputs.iter().zip(&m.parts) {
                        let end = start + ty.wire_bytes() as usize;
                        let part = Sealed { payload: payload.clone(), bytes: start..end, message: *message };
                        self.sealed[*b as usize] = Some(part);
                        if phase != Phase::Offline || !self.plan.sealed[*b as usize] {
                            self.unseal(&[*b], channels.inference())?;
                        }
                        start = end;
                    }
                }
                Inst::Output => {
                    let value = instruction.inputs.first().and_then(|b| self.buffer(*b));
                    io.output = Some(value.ok_or(unverified("the output is missing"))?.words().to_vec());
                }
                _ => self.local(phase, index, keys, io, channels.inference())?,
            }
            self.drop_dead(phase, index);
            self.meter.count(phase, instruction.layer, channels.waited());
        }
        Ok(())
    }

    /// Makes the setup's buffers again without messages, from those that it received, given in the
    /// order of [`Plan::received`].
    pub fn resume(&mut self, received: Vec<Buffer>, keys: &Keys) -> Result<(), ExecError> {
        for (b, buffer) in self.plan.received.clone().into_iter().zip(received) {
            self.write(b, buffer, 0);
        }
        self.replay(self.plan.resume.clone(), keys)
    }

    /// Takes up an inference behind its offline phase, from its buffers in the order of
    /// [`Plan::carried`].
    pub fn restore(&mut self, carried: Vec<Buffer>, inference: u32) -> Result<(), ExecError> {
        let missing = |m: &Self| {
            let code = &m.program.code(m.role).phases[Phase::Setup.index()];
            let here = |b: &BufferId| m.buffers[*b as usize].is_some() || m.arranged[*b as usize].is_some();
            let made = |i: usize| code[i].outputs.iter().all(here);
            m.plan.rebuild.iter().enumerate().any(|(i, run)| *run && !made(i))
        };
        for (b, buffer) in self.plan.carried.clone().into_iter().zip(carried) {
            self.write(b, buffer, inference);
        }
        if missing(self) { self.replay(self.plan.rebuild.clone(), &Keys::default()) } else { Ok(()) }
    }

    /// Arranges the setup's weights for the kernels, once for all inferences; what nobody else reads of them is
    /// erased. Behind this [`received`](Self::received) is incomplete.
    pub fn settle(&mut self) {
        let code = self.program.code(self.role);
        let later = || code.phases[Phase::Offline.index()].iter().chain(&code.phases[Phase::Online.index()]);
        let narrow = narrow_weights(self.program, self.role);
        let mut only = vec![true; code.buffers.len()];
        for i in later() {
            let others = if matches!(i.inst, Inst::Conv(_)) { &i.inputs[..1] } else { &i.inputs[..] };
            others.iter().for_each(|b| only[*b as usize] = false);
        }
        for i in later() {
            let (Inst::Conv(shape), [_, w]) = (&i.inst, &i.inputs[..]) else { continue };
            let Some(Type::Ring { bits, .. }) = i.outputs.first().map(|b| code.buffers[*b as usize]) else { continue };
            let w = *w as usize;
            let Some(Buffer::Ring { values, .. }) = &self.buffers[w] else { continue };
            if self.arranged[w].is_none() {
                self.arranged[w] = self.kernels.arrange(bits, narrow[w], shape, values);
            }
            if only[w] && self.arranged[w].as_ref().is_some_and(|a| a.fits(bits, shape)) {
                self.buffers[w] = None;
            }
        }
    }

    fn replay(&mut self, run: Vec<bool>, keys: &Keys) -> Result<(), ExecError> {
        let program = self.program;
        let code = &program.code(self.role).phases[Phase::Setup.index()];
        for (index, instruction) in code.iter().enumerate().filter(|(i, _)| run[*i]) {
            if !matches!(instruction.inst, Inst::Receive { .. }) {
                self.local(Phase::Setup, index, keys, &mut Io::default(), 0)?;
            }
            self.drop_dead(Phase::Setup, index);
        }
        Ok(())
    }

    /// Makes received bytes into buffers.
    fn unseal(&mut self, buffers: &[BufferId], inference: u32) -> Result<(), ExecError> {
        let program = self.program;
        for b in buffers {
            let Some(part) = self.sealed.get_mut(*b as usize).and_then(Option::take) else { continue };
            let ty = program.code(self.role).buffers[*b as usize];
            let m = &program.messages[part.message as usize];
            let malformed = |source| ExecError::Wire { from: m.from, message: m.name.clone(), source };
            let bytes = part.payload.bytes().get(part.bytes.clone()).unwrap_or(&[]);
            let buffer = wire::unpack(ty, bytes).map_err(malformed)?;
            self.write(*b, buffer, inference);
        }
        Ok(())
    }

    /// Copies of the buffers that a setup received, as bytes on the wire.
    pub fn received(&self) -> Vec<Stored> {
        self.plan.received.iter().filter_map(|b| self.buffer(*b)).map(packed).collect()
    }

    /// Takes the buffers that the online phase needs out of the machine, as bytes on the wire.
    pub fn take_carried(&mut self, inference: u32) -> Result<Vec<Stored>, ExecError> {
        self.unseal(&self.plan.carried.clone(), inference)?;
        let written = |code: &[bcc_ir::program::Instruction], b: BufferId| code.iter().any(|i| i.outputs.contains(&b));
        let setup = &self.program.code(self.role).phases[Phase::Setup.index()];
        let taken = self.plan.carried.iter().filter_map(|b| self.buffer(*b)).map(packed).collect();
        for b in self.plan.carried.clone() {
            if !written(setup, b) {
                self.buffers[b as usize] = None;
            }
        }
        Ok(taken)
    }

    fn local(&mut self, phase: Phase, index: usize, keys: &Keys, io: &mut Io, inference: u32) -> Result<(), ExecError> {
        let program = self.program;
        let code = program.code(self.role);
        let instruction = &code.phases[phase.index()][index];
        let unverified = |reason| ExecError::Unverified { role: self.role, phase, index, reason };
        let target = *instruction.outputs.first().ok_or(unverified("no result"))?;
        let ty = *code.buffers.get(target as usize).ok_or(unverified("unknown buffer"))?;
        if let Some(arranged) = self.arranged_for(&instruction.inst, &instruction.inputs, ty) {
            let x = instruction.inputs.first().and_then(|b| self.buffer(*b));
            let x = x.ok_or(unverified("an operand is missing"))?;
            let mut out = Buffer::zeros(ty);
            self.kernels.conv_arranged(arranged, x.words(), out.words_mut());
            self.write(target, out, inference);
            return Ok(());
        }
        let buffer = match &instruction.inst {
            Inst::Draw { stream } => {
                let s = program.streams.get(*stream as usize).ok_or(unverified("unknown stream"))?;
                let held = match s.scope {
                    Scope::Model => &keys.model,
                    Scope::Inference => &keys.inference,
                };
                let key = held[pair_index(s.pair)].as_ref().ok_or(unverified("the stream's key is not here"))?;
                prg::draw(key, *stream, ty)
            }
            Inst::Weight { index } => {
                let source = self.weights.ok_or(unverified("there are no weights here"))?;
                let Type::Ring { bits, len } = ty else { return Err(unverified("weights are ring elements")) };
                let values = source.ring(*index as usize, bits);
                if values.len() != len {
                    let name = program.weights.get(*index as usize).map_or("unknown", |w| &w.name);
                    return Err(ExecError::Weight { name: name.into(), got: values.len(), want: len });
                }
                Buffer::ring(bits, values)
            }
            Inst::Input => {
                let input = io.input.take().ok_or(unverified("there is no input"))?;
                let buffer = Buffer::Ring { bits: program.input.modulus, values: input };
                if buffer.ty() != ty {
                    return Err(unverified("the input has another type"));
                }
                buffer
            }
            inst => {
                let mut operands = Vec::with_capacity(instruction.inputs.len());
                for b in &instruction.inputs {
                    operands.push(self.buffer(*b).ok_or(unverified("an operand is missing"))?);
                }
                compute(self.kernels, inst, &operands, ty).ok_or(unverified("operands do not fit"))?
            }
        };
        self.write(target, buffer, inference);
        Ok(())
    }

    /// The arranged weights of a convolution.
    fn arranged_for(&self, inst: &Inst, inputs: &[BufferId], out: Type) -> Option<&Arranged> {
        let (Inst::Conv(shape), Type::Ring { bits, .. }, [_, w]) = (inst, out, inputs) else { return None };
        self.arranged.get(*w as usize)?.as_ref().filter(|a| a.fits(bits, shape))
    }

    fn buffer(&self, b: BufferId) -> Option<&Buffer> {
        self.buffers.get(b as usize)?.as_ref()
    }

    fn write(&mut self, b: BufferId, buffer: Buffer, inference: u32) {
        if let Some(observer) = &self.observer {
            observer(self.role, inference, b, &buffer);
        }
        if let Some(place) = self.buffers.get_mut(b as usize) {
            *place = Some(buffer);
        }
    }

    fn drop_dead(&mut self, phase: Phase, index: usize) {
        for b in &self.plan.drops[phase.index()][index] {
            self.buffers[*b as usize] = None;
        }
    }
}

fn packed(buffer: &Buffer) -> Stored {
    let mut bytes = Vec::with_capacity(buffer.ty().wire_bytes() as usize + 8);
    wire::pack(buffer, &mut bytes);
    (buffer.ty(), Zeroizing::new(bytes))
}
