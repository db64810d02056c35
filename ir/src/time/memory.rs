//! Memory that a role uses for the first time: the system gives it page by page, which takes about
//! as long as a pass over it.

use std::collections::BTreeMap;

use crate::program::steps::{Step, read_aside};
use crate::program::{BufferId, Code, Inst, Lifetimes, Phase, Program, Type, Width};

/// Bytes that a runtime takes in the setup at most, for what inferences will hold, and keeps.
pub const RESERVED: u64 = 1 << 30;

/// Bytes of a buffer in memory: whole 64-bit words.
pub(super) fn memory(ty: Type, width: Width) -> u64 {
    8 * width.words(ty) as u64
}

/// What a role holds at a time.
struct Held {
    width: Width,
    /// Bytes of each buffer, as a whole or as it came.
    buffers: BTreeMap<BufferId, (u64, bool)>,
    now: u64,
    most: u64,
}

impl Held {
    fn take(&mut self, b: BufferId, bytes: u64, whole: bool) {
        let (before, _) = self.buffers.insert(b, (bytes, whole)).unwrap_or_default();
        self.now = self.now + bytes - before;
    }

    /// As a whole, for somebody who reads all of it: received bytes are unpacked, masks drawn.
    fn bring(&mut self, code: &Code, lifetimes: &Lifetimes, b: BufferId) {
        let here = self.buffers.get(&b).map(|(_, whole)| *whole);
        if here == Some(false) || here.is_none() && lifetimes.streams[b as usize].is_some() {
            self.take(b, memory(code.buffers[b as usize], self.width), true);
        }
    }

    /// By how much more is held than ever before, with some bytes for a moment.
    fn fresh(&mut self, moment: u64) -> u64 {
        let fresh = (self.now + moment).saturating_sub(self.most);
        self.most += fresh;
        fresh
    }
}

/// By phase and step, by how many bytes it raises the most that the role has held so far. What inferences need beyond
/// the setup is taken at its end, up to [`RESERVED`].
pub(super) fn fresh_bytes(program: &Program, code: &Code, width: Width, lifetimes: &Lifetimes) -> [Vec<u64>; 3] {
    let mut held = Held { width, buffers: BTreeMap::new(), now: 0, most: 0 };
    let mut fresh = Phase::ALL.map(|phase| {
        let all = &code.phases[phase.index()];
        let step = |(step, drops): (&Step, &Vec<BufferId>)| {
            let mut moment = 0;
            match step {
                Step::Fused(fused) => {
                    for i in &fused.instructions {
                        read_aside(&all[*i]).for_each(|b| held.bring(code, lifetimes, b));
                    }
                    fused.kept.iter().for_each(|b| held.take(*b, memory(code.buffers[*b as usize], width), true));
                }
                Step::One(index) | Step::Piece { index, .. } | Step::Rows { index, .. } => match all[*index].inst {
                    Inst::Send { message } => {
                        moment = program.messages.get(message as usize).map_or(0, |m| m.wire_bytes());
                    }
                    Inst::Receive { .. } if matches!(step, Step::Piece { piece: 1.., .. }) => {}
                    // All of it with the first piece.
                    Inst::Receive { .. } => {
                        for b in &all[*index].outputs {
                            held.take(*b, code.buffers[*b as usize].wire_bytes(), false);
                        }
                    }
                    _ => {
                        all[*index].inputs.iter().for_each(|b| held.bring(code, lifetimes, *b));
                        for b in &all[*index].outputs {
                            held.take(*b, memory(code.buffers[*b as usize], width), true);
                        }
                    }
                },
            }
            let fresh = held.fresh(moment);
            for b in drops {
                held.take(*b, 0, false);
                held.buffers.remove(b);
            }
            fresh
        };
        lifetimes.steps[phase.index()].iter().zip(&lifetimes.drops[phase.index()]).map(step).collect::<Vec<u64>>()
    });
    let [setup, offline, online] = &mut fresh;
    if let Some(last) = setup.last_mut() {
        let mut left = RESERVED;
        for bytes in offline.iter_mut().chain(online) {
            let reserved = left.min(*bytes);
            (*bytes, *last, left) = (*bytes - reserved, *last + reserved, left - reserved);
        }
    }
    fresh
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Instruction;

    fn ring(len: usize) -> Type {
        Type::Ring { bits: 8, len }
    }

    fn i(inst: Inst, inputs: &[u32], outputs: &[u32]) -> Instruction {
        Instruction { inst, inputs: inputs.to_vec(), outputs: outputs.to_vec(), layer: 0 }
    }

    fn fresh(code: &Code) -> [Vec<u64>; 3] {
        fresh_bytes(&crate::time::tests::empty(), code, Width::Wide, &Lifetimes::new(code, &[], false))
    }

    #[test]
    fn buffers_come_and_go() {
        let code = Code {
            buffers: vec![ring(10), ring(10), ring(30), Type::Bits { planes: 3, len: 65 }],
            phases: [
                vec![],
                vec![
                    i(Inst::Zero, &[], &[0]),
                    i(Inst::Output, &[0], &[]),
                    i(Inst::Zero, &[], &[1]),
                    i(Inst::Zero, &[], &[2]),
                ],
                vec![i(Inst::Output, &[2], &[]), i(Inst::Zero, &[], &[3]), i(Inst::Output, &[1], &[])],
            ],
        };
        // Held: 80, 80, 80, 320; online 320, then 80 and 48.
        assert_eq!(fresh(&code), [vec![], vec![80, 0, 0, 240], vec![0; 3]]);
    }

    #[test]
    fn what_is_not_held_as_a_whole() {
        let code = Code {
            buffers: vec![ring(10), ring(20), ring(40), ring(20), ring(20), ring(40)],
            phases: [
                vec![],
                vec![
                    // Read online alone: drawn there.
                    i(Inst::Draw { stream: 0 }, &[], &[0]),
                    // Drawn, added up and made to bits in strips.
                    i(Inst::Draw { stream: 1 }, &[], &[1]),
                    i(Inst::Add, &[1, 1], &[3]),
                    i(Inst::Add, &[3, 1], &[4]),
                    i(Inst::Receive { message: 0 }, &[], &[2]),
                ],
                vec![i(Inst::Output, &[0], &[]), i(Inst::Reduce, &[2], &[5]), i(Inst::Output, &[5, 4], &[])],
            ],
        };
        // Only the second sum is kept: 160, and 40 as received. Online 80 for a moment, then 320 more.
        assert_eq!(fresh(&code), [vec![], vec![160, 40], vec![80, 240, 0]]);
    }

    #[test]
    fn the_setup_takes_it_ahead() {
        let code = Code {
            buffers: vec![ring(10), ring(1 << 28)],
            phases: [
                vec![i(Inst::Zero, &[], &[0])],
                vec![i(Inst::Zero, &[], &[1])],
                vec![i(Inst::Output, &[1, 0], &[])],
            ],
        };
        assert_eq!(fresh(&code), [vec![80 + RESERVED], vec![(1 << 31) - RESERVED], vec![0]]);
    }
}
