//! The interpreter of one role.
//!
//! Several inferences can be at work in lockstep, each in a lane of its own: their parts of a message travel in
//! one frame, so that they share its round.

mod compute;
mod lane;
mod meter;
mod outgoing;
mod reserve;
mod strips;

use std::sync::Arc;

use bcc_ir::program::file::FileError;
use bcc_ir::program::steps::Step;
use bcc_ir::program::{BufferId, Inst, Pair, Phase, Program, Role, Type};
use bcc_ir::time::narrow_weights;
use rayon::prelude::*;
use thiserror::Error;
use zeroize::Zeroizing;

pub use compute::{compute_into, compute_whole, overwrites};
pub use lane::Lane;
pub use meter::Meter;

use crate::buffer::Buffer;
use crate::channel::{ChannelError, Channels};
use crate::element::Width;
use crate::kernels::KernelSet;
use crate::plan::Plan;
use crate::prg::Key;
use crate::weights::WeightSource;
use crate::wire::{self, WireError};
use crate::words::erase_kept;
use lane::Fixed;
use outgoing::{Outgoing, Parts, next_message};

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
    /// The weights cannot be read.
    #[error(transparent)]
    WeightFile(#[from] FileError),
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

/// Index of a pair in the keys of its streams: client-dealer, server-dealer.
pub fn pair_index(pair: Pair) -> usize {
    match pair {
        Pair::ClientDealer => 0,
        Pair::ServerDealer => 1,
    }
}

/// Sees every buffer of every role when it is written first: role, inference, number, value. For checks
/// that open the shares of [`Program::taps`]; never set where parties are real.
pub type Observer = Arc<dyn Fn(Role, u32, BufferId, &Buffer) + Send + Sync>;

/// One role at work: its code, what serves all inferences, and the inferences at work.
pub struct Machine<'a> {
    fixed: Fixed<'a>,
    lanes: Vec<Lane>,
    meter: Meter,
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.lanes.clear();
        self.fixed.clear();
        erase_kept();
    }
}

/// A buffer as bytes on the wire, to be stored.
pub type Stored = (Type, Zeroizing<Vec<u8>>);

impl<'a> Machine<'a> {
    /// A role of a verified program. Only the server has weights.
    pub fn new(
        program: &'a Program,
        role: Role,
        kernels: KernelSet,
        weights: Option<&'a dyn WeightSource>,
        observer: Option<Observer>,
    ) -> Self {
        let fixed = Fixed::new(program, role, kernels, weights, observer);
        Machine { fixed, lanes: Vec::new(), meter: Meter::new(program) }
    }

    /// Lifetimes of its buffers.
    pub fn plan(&self) -> &Plan {
        &self.fixed.plan
    }

    /// The integers that hold its ring elements.
    pub fn width(&self) -> Width {
        self.fixed.width
    }

    /// Where its time went in the phases run.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Runs the setup with the keys of the model's streams, by [`pair_index`].
    pub fn setup(&mut self, keys: &[Option<Key>; 2], channels: &mut Channels) -> Result<(), ExecError> {
        self.fixed.keys = keys.clone();
        self.lanes = vec![Lane::new(self.fixed.program.code(self.fixed.role), 0, [None, None])];
        let done = self.run(Phase::Setup, channels);
        self.fixed.shared = self.lanes.pop().unwrap_or_default();
        done
    }

    /// Begins inferences, in lockstep: their lanes.
    pub fn begin(&mut self, lanes: Vec<Lane>) {
        self.lanes = lanes;
    }

    /// An empty lane for inference `inference`, with the keys of its streams, by [`pair_index`].
    pub fn lane(&self, inference: u32, keys: [Option<Key>; 2]) -> Lane {
        Lane::new(self.fixed.program.code(self.fixed.role), inference, keys)
    }

    /// The inferences at work.
    pub fn lanes(&mut self) -> &mut [Lane] {
        &mut self.lanes
    }

    /// Runs a phase of the inferences at work.
    pub fn run(&mut self, phase: Phase, channels: &mut Channels) -> Result<(), ExecError> {
        let Machine { fixed, lanes, meter } = self;
        let code = &fixed.program.code(fixed.role).phases[phase.index()];
        let steps = &fixed.plan.lifetimes.steps[phase.index()];
        let mut outgoing = None;
        meter.start(channels.waited());
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Fused(fused) => {
                    let parts = match fused.sent.is_empty() {
                        true => lanes.iter().map(|_| Vec::new()).collect(),
                        false => {
                            if outgoing.is_none() {
                                let message = next_message(&steps[at..], code);
                                let message = message.and_then(|m| fixed.program.messages.get(m));
                                let index = fused.instructions[0];
                                let reason = "unknown message";
                                let unverified = ExecError::Unverified { role: fixed.role, phase, index, reason };
                                outgoing = Some(Outgoing::new(message.ok_or(unverified)?, lanes.len()));
                            }
                            outgoing.as_mut().map_or_else(Vec::new, |message| message.parts(&fused.sent))
                        }
                    };
                    let run = |(lane, parts): (&mut Lane, Parts<'_>)| strips::run(fixed, lane, phase, fused, parts);
                    let spent = match &mut lanes[..] {
                        [lane] => parts.into_iter().map(|parts| run((lane, parts))).collect::<Result<Vec<_>, _>>(),
                        _ => lanes.par_iter_mut().zip(parts).map(run).collect(),
                    };
                    meter.share(phase, &spent?.concat(), channels.waited());
                }
                Step::One(index) | Step::Piece { index, .. } => {
                    fixed.one(lanes, phase, *index, step, channels, &mut outgoing)?;
                    meter.count(phase, code[*index].layer, channels.waited());
                }
                Step::Rows { index, channels: rows } => {
                    each(lanes, |lane| fixed.rows(lane, phase, *index, rows))?;
                    meter.count(phase, code[*index].layer, channels.waited());
                }
            }
            lanes.iter_mut().for_each(|lane| lane.forget(&fixed.plan.lifetimes.drops[phase.index()][at]));
        }
        Ok(())
    }

    /// Makes the setup's buffers again without messages, from those that it received, given in the
    /// order of [`Plan::received`].
    pub fn resume<E: From<ExecError>>(
        &mut self,
        received: impl Iterator<Item = Result<Buffer, E>>,
        keys: &[Option<Key>; 2],
    ) -> Result<(), E> {
        self.fixed.keys = keys.clone();
        let run = self.fixed.plan.resume.clone();
        self.fixed.replay(&run, received)
    }

    /// A lane behind its offline phase, from its buffers in the order of [`Plan::carried`].
    pub fn restore(&mut self, carried: Vec<Buffer>, inference: u32, keys: [Option<Key>; 2]) -> Result<Lane, ExecError> {
        let mut lane = self.lane(inference, keys);
        let f = &mut self.fixed;
        for (b, buffer) in f.plan.carried.clone().into_iter().zip(carried) {
            f.write(&mut lane, b, buffer);
        }
        if !f.rebuilt() {
            let run = f.plan.rebuild.clone();
            f.replay::<ExecError>(&run, std::iter::empty())?;
        }
        Ok(lane)
    }

    /// Arranges the setup's weights for the kernels, once for all inferences; what nobody else reads of them is
    /// erased. Behind this [`received`](Self::received) is incomplete.
    pub fn settle(&mut self) {
        self.fixed.settle();
    }

    /// Takes the memory of `lanes` inferences in lockstep, so that the phases find it.
    pub fn reserve(&self, phases: &[Phase], lanes: usize) {
        reserve::reserve(&self.fixed, phases, lanes);
    }

    /// Copies of the buffers that a setup received, as bytes on the wire.
    pub fn received(&self) -> Vec<Stored> {
        self.fixed.plan.received.iter().filter_map(|b| self.fixed.shared.get(*b)).map(packed).collect()
    }

    /// Takes the buffers that the online phase needs out of a lane, as bytes on the wire.
    pub fn take_carried(&mut self, lane: usize) -> Result<Vec<Stored>, ExecError> {
        let Machine { fixed, lanes, .. } = self;
        let Some(lane) = lanes.get_mut(lane) else { return Ok(Vec::new()) };
        let carried = &fixed.plan.carried;
        fixed.bring(lane, carried)?;
        let taken = carried.iter().filter_map(|b| fixed.buffer(lane, *b)).map(packed).collect();
        lane.forget(carried);
        Ok(taken)
    }
}

impl<'a> Fixed<'a> {
    /// Runs one instruction in all lanes; of a message that is sent or received, one piece, or all of them.
    fn one(
        &self,
        lanes: &mut [Lane],
        phase: Phase,
        index: usize,
        step: &Step,
        channels: &mut Channels,
        outgoing: &mut Option<Outgoing<'a>>,
    ) -> Result<(), ExecError> {
        let program = self.program;
        let instruction = &program.code(self.role).phases[phase.index()][index];
        let unverified = |reason| ExecError::Unverified { role: self.role, phase, index, reason };
        let message = |m: u32| program.messages.get(m as usize).ok_or(unverified("unknown message"));
        match &instruction.inst {
            Inst::Send { message: number } => {
                let m = message(*number)?;
                let out = outgoing.get_or_insert_with(|| Outgoing::new(m, lanes.len()));
                let rest = out.rest(step.pieces(m));
                if !rest.is_empty() {
                    let rest: Vec<(BufferId, usize)> = rest.iter().map(|p| (instruction.inputs[*p], *p)).collect();
                    let buffers: Vec<BufferId> = rest.iter().map(|(b, _)| *b).collect();
                    each(lanes, |lane| self.bring(lane, &buffers))?;
                    for (lane, parts) in lanes.iter().zip(out.parts(&rest)) {
                        for (b, pieces) in buffers.iter().zip(parts) {
                            let buffer = self.buffer(lane, *b).ok_or(unverified("an operand is missing"))?;
                            pieces.into_iter().for_each(|piece| wire::pack_piece(buffer, piece));
                        }
                    }
                }
                for piece in step.pieces(m) {
                    let frame = out.take(piece).ok_or(unverified("a piece is sent twice"))?;
                    channels.send(*number, m, piece, frame)?;
                }
                if step.pieces(m).end == m.pieces() {
                    *outgoing = None;
                }
            }
            Inst::Receive { message: number } => {
                let m = message(*number)?;
                for piece in step.pieces(m) {
                    let payload = Arc::new(channels.receive(*number, m, piece, lanes.len())?);
                    let mut start = 0;
                    for lane in lanes.iter_mut() {
                        for (b, (elements, bytes)) in instruction.outputs.iter().zip(m.shares(piece)) {
                            let end = start + bytes;
                            if !elements.is_empty() {
                                lane.seal(*b, *number, elements, (payload.clone(), start..end));
                            }
                            start = end;
                        }
                    }
                }
                // What the setup receives is read for as long as there are inferences.
                if phase == Phase::Setup {
                    each(lanes, |lane| self.bring(lane, &instruction.outputs))?;
                }
            }
            Inst::Output => {
                each(lanes, |lane| self.bring(lane, &instruction.inputs))?;
                for lane in lanes.iter_mut() {
                    let value = instruction.inputs.first().and_then(|b| self.buffer(lane, *b));
                    lane.output = Some(value.ok_or(unverified("the output is missing"))?.words());
                }
            }
            _ => each(lanes, |lane| self.local(lane, phase, index))?,
        }
        Ok(())
    }
}

/// Does the same in every lane; in several at the same time, if there are several.
fn each(lanes: &mut [Lane], f: impl Fn(&mut Lane) -> Result<(), ExecError> + Send + Sync) -> Result<(), ExecError> {
    match lanes {
        [lane] => f(lane),
        _ => lanes.par_iter_mut().try_for_each(f),
    }
}

fn packed(buffer: &Buffer) -> Stored {
    let mut bytes = Zeroizing::new(vec![0; buffer.ty().wire_bytes() as usize]);
    wire::pack(buffer, &mut bytes);
    (buffer.ty(), bytes)
}
