//! Takes the memory of inferences before they begin.
//!
//! A page that is touched for the first time costs the system more than a pass over it. What an inference will hold
//! follows from the program, so a rehearsal takes and gives back memory in the order of its steps, without computing,
//! and what that leaves to be handed out again is touched once, in the setup.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bcc_ir::program::steps::{Step, read_aside};
use bcc_ir::program::{BufferId, Inst, Instruction, Message, Phase};

use super::lane::Fixed;
use crate::channel::{Header, give_frame, new_frame};
use crate::element::by_width;
use crate::words::{Words, touch_kept};

/// Messages that are on their way while the next one is made.
const UNDERWAY: usize = 2;

/// What holds a buffer.
enum Held {
    /// Memory of its own.
    Words(#[allow(dead_code, reason = "held until dropped")] Vec<Words>),
    /// A message that it came in.
    Message(#[allow(dead_code, reason = "held until dropped")] Rc<Words>),
}

/// Takes the memory of `lanes` inferences in lockstep and leaves it to be handed out.
pub fn reserve(fixed: &Fixed<'_>, phases: &[Phase], lanes: usize) {
    let mut rehearsal = Rehearsal { fixed, lanes, held: BTreeMap::new(), frames: VecDeque::new() };
    for phase in phases {
        let all = &fixed.program.code(fixed.role).phases[phase.index()];
        for (step, drops) in
            fixed.plan.lifetimes.steps[phase.index()].iter().zip(&fixed.plan.lifetimes.drops[phase.index()])
        {
            rehearsal.step(step, all);
            drops.iter().for_each(|b| drop(rehearsal.held.remove(b)));
        }
    }
    drop(rehearsal);
    touch_kept();
}

struct Rehearsal<'a> {
    fixed: &'a Fixed<'a>,
    lanes: usize,
    held: BTreeMap<BufferId, Held>,
    frames: VecDeque<Vec<u8>>,
}

impl Rehearsal<'_> {
    fn step(&mut self, step: &Step, all: &[Instruction]) {
        match step {
            Step::Fused(fused) => {
                for i in &fused.instructions {
                    read_aside(&all[*i]).for_each(|b| self.bring(b));
                }
                fused.kept.iter().for_each(|b| self.make(*b));
            }
            Step::One(index) => {
                let instruction = &all[*index];
                match instruction.inst {
                    Inst::Send { message } => {
                        if let Some(bytes) = self.payload(message) {
                            self.frames.push_back(new_frame(Header::BYTES + bytes));
                        }
                        if self.frames.len() > UNDERWAY {
                            self.frames.pop_front().into_iter().for_each(give_frame);
                        }
                    }
                    Inst::Receive { message } => {
                        let words = self.payload(message).map_or(0, |bytes| bytes.div_ceil(8));
                        let payload = Rc::new(Words::any(words));
                        for b in &instruction.outputs {
                            self.held.insert(*b, Held::Message(payload.clone()));
                        }
                    }
                    _ => {
                        instruction.inputs.iter().for_each(|b| self.bring(*b));
                        let arranged = instruction.inputs.get(1).and_then(|w| self.fixed.arranged(*w));
                        let _working: Vec<Words> = match (&instruction.inst, arranged) {
                            (Inst::Conv(_), Some(weights)) => {
                                vec![Words::any(by_width!(self.fixed.width, E => weights.working_words::<E>()))]
                            }
                            _ => Vec::new(),
                        };
                        instruction.outputs.iter().for_each(|b| self.make(*b));
                    }
                }
            }
        }
    }

    /// Bytes of a message's parts in all lanes.
    fn payload(&self, message: u32) -> Option<usize> {
        let m: &Message = self.fixed.program.messages.get(message as usize)?;
        Some(self.lanes * m.parts.iter().map(|ty| ty.wire_bytes() as usize).sum::<usize>())
    }

    fn make(&mut self, b: BufferId) {
        let words = self.fixed.width.words(self.fixed.program.code(self.fixed.role).buffers[b as usize]);
        self.held.insert(b, Held::Words((0..self.lanes).map(|_| Words::any(words)).collect()));
    }

    /// As a buffer that is read as a whole.
    fn bring(&mut self, b: BufferId) {
        match self.held.get(&b) {
            Some(Held::Words(_)) => {}
            Some(Held::Message(_)) => self.make(b),
            None if self.fixed.plan.lifetimes.streams[b as usize].is_some() => self.make(b),
            None => {}
        }
    }
}

impl Drop for Rehearsal<'_> {
    fn drop(&mut self) {
        self.frames.drain(..).for_each(give_frame);
    }
}
