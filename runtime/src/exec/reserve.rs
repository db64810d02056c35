//! Takes the memory of inferences before they begin.
//!
//! A page that is touched for the first time costs the system more than a pass over it. What an inference will hold
//! follows from the program, so a rehearsal takes and gives back memory in the order of its steps, without computing,
//! and what that leaves to be handed out again is touched once, in the setup.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use bcc_ir::program::steps::{Fused, Step, read_aside, strips};
use bcc_ir::program::{BufferId, Inst, Instruction, Phase};

use super::lane::Fixed;
use crate::channel::{Header, give_frame, new_frame};
use crate::element::by_width;
use crate::words::{KEPT, Words, touch_kept};

/// Messages that are on their way while the next one is made.
const UNDERWAY: usize = 2;

/// Memory that is held until dropped, and counted.
struct Taken {
    words: Words,
    /// Words of all that is held.
    all: Rc<Cell<usize>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.words.len());
    }
}

/// What holds a buffer.
enum Held {
    /// Memory of its own.
    Words(#[allow(dead_code, reason = "held until dropped")] Vec<Taken>),
    /// The pieces of a message that it came in.
    Message(#[allow(dead_code, reason = "held until dropped")] Vec<Rc<Taken>>),
}

/// Takes the memory of `lanes` inferences in lockstep and leaves it to be handed out.
pub fn reserve(fixed: &Fixed<'_>, phases: &[Phase], lanes: usize) {
    let mut rehearsal =
        Rehearsal { fixed, lanes, held: BTreeMap::new(), frames: VecDeque::new(), taken: Rc::default() };
    for phase in phases {
        let all = &fixed.program.code(fixed.role).phases[phase.index()];
        for (step, drops) in
            fixed.plan.lifetimes.steps[phase.index()].iter().zip(&fixed.plan.lifetimes.drops[phase.index()])
        {
            rehearsal.step(step, *phase, all);
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
    /// By message, its pieces.
    frames: VecDeque<Vec<Vec<u8>>>,
    /// Words of all that is held.
    taken: Rc<Cell<usize>>,
}

impl Rehearsal<'_> {
    /// Takes so many words. What would be held beyond what may be kept is left out: it could not be handed out again.
    fn take(&self, words: usize) -> Taken {
        let fits = self.taken.get() + words <= KEPT;
        let words = if fits { Words::any(words) } else { Words::default() };
        self.taken.set(self.taken.get() + words.len());
        Taken { words, all: self.taken.clone() }
    }

    fn step(&mut self, step: &Step, phase: Phase, all: &[Instruction]) {
        match step {
            Step::Fused(fused) => {
                let _scratch = self.scratch(fused, phase, all);
                for i in &fused.instructions {
                    read_aside(&all[*i]).for_each(|b| self.bring(b));
                }
                fused.kept.iter().for_each(|b| self.make(*b));
            }
            Step::One(index) | Step::Piece { index, .. } | Step::Rows { index, .. } => {
                let instruction = &all[*index];
                match instruction.inst {
                    Inst::Send { message } => {
                        // All pieces are there before the first one goes.
                        if !matches!(step, Step::Piece { piece: 1.., .. }) {
                            let pieces = self.payloads(message, &Step::One(*index)).into_iter();
                            self.frames.push_back(pieces.map(|bytes| new_frame(Header::BYTES + bytes)).collect());
                        }
                        if self.frames.len() > UNDERWAY {
                            self.frames.pop_front().into_iter().flatten().for_each(give_frame);
                        }
                    }
                    Inst::Receive { message } => {
                        for bytes in self.payloads(message, step) {
                            let payload = Rc::new(self.take(bytes.div_ceil(8)));
                            for b in &instruction.outputs {
                                match self.held.get_mut(b) {
                                    Some(Held::Message(pieces)) => pieces.push(payload.clone()),
                                    Some(Held::Words(_)) => {}
                                    None => drop(self.held.insert(*b, Held::Message(vec![payload.clone()]))),
                                }
                            }
                        }
                    }
                    _ => {
                        instruction.inputs.iter().for_each(|b| self.bring(*b));
                        let arranged = instruction.inputs.get(1).and_then(|w| self.fixed.arranged(*w));
                        let _working: Vec<Taken> = match (&instruction.inst, arranged) {
                            (Inst::Conv(_), Some(weights)) => {
                                vec![self.take(by_width!(self.fixed.width, E => weights.working_words::<E>()))]
                            }
                            _ => Vec::new(),
                        };
                        instruction.outputs.iter().for_each(|b| self.make(*b));
                    }
                }
            }
        }
    }

    /// What each thread has for the values of a strip.
    fn scratch(&self, fused: &Fused, phase: Phase, all: &[Instruction]) -> Vec<Taken> {
        let code = self.fixed.program.code(self.fixed.role);
        let instructions = fused.instructions.iter().map(|i| &all[*i]);
        let values: BTreeSet<BufferId> =
            instructions.flat_map(|i| i.inputs.iter().chain(&i.outputs)).copied().collect();
        let longest = strips(code, phase, fused).iter().map(|s| s.elements.len()).max().unwrap_or(0);
        let words = |b: &BufferId| self.fixed.width.words(code.buffers[*b as usize].resized(longest));
        let threads = if fused.shared() { rayon::current_num_threads() } else { 1 };
        (0..threads).flat_map(|_| values.iter().map(|b| self.take(words(b)))).collect()
    }

    /// Bytes of the pieces of a message that a step sends or receives, in all lanes.
    fn payloads(&self, message: u32, step: &Step) -> Vec<usize> {
        let Some(m) = self.fixed.program.messages.get(message as usize) else { return Vec::new() };
        step.pieces(m).map(|piece| self.lanes * m.piece_bytes(piece) as usize).collect()
    }

    fn make(&mut self, b: BufferId) {
        let words = self.fixed.width.words(self.fixed.program.code(self.fixed.role).buffers[b as usize]);
        self.held.insert(b, Held::Words((0..self.lanes).map(|_| self.take(words)).collect()));
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
        self.frames.drain(..).flatten().for_each(give_frame);
    }
}
