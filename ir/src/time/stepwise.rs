//! The work of a role's steps.

use super::memory::fresh_bytes;
use super::work::conv;
use super::{Kind, Work, narrow_weights, work};
use crate::program::steps::{Fused, STRIP, Step, read_aside};
use crate::program::{BufferId, Inst, Instruction, Lifetimes, Phase, Program, Role, Width};

/// What a step takes.
#[derive(Clone, Debug, PartialEq)]
pub struct StepWork {
    /// The step.
    pub step: Step,
    /// Its work, by layer of the program.
    pub layers: Vec<(u32, Work)>,
}

impl StepWork {
    /// The work of all layers.
    pub fn total(&self) -> Work {
        let mut all = Work::default();
        self.layers.iter().for_each(|(_, work)| all.add(work));
        all
    }

    fn add(&mut self, layer: u32, work: &Work) {
        match self.layers.iter_mut().find(|(l, _)| *l == layer) {
            Some((_, all)) => all.add(work),
            None => self.layers.push((layer, *work)),
        }
    }

    /// How many of `threads` threads it keeps busy.
    pub fn parallelism(&self, threads: u32) -> u32 {
        match &self.step {
            Step::One(_) | Step::Piece { .. } | Step::Rows { .. } => self.total().parallelism(threads),
            Step::Fused(fused) if !fused.shared() => 1,
            Step::Fused(fused) => (strips(fused) as u32).clamp(1, threads.max(1)),
        }
    }
}

fn strips(fused: &Fused) -> u64 {
    fused.elements.len().div_ceil(STRIP) as u64
}

/// What of its instructions' work a step does.
struct Share {
    /// So many of so many.
    of: [u64; 2],
    /// In so many calls each.
    calls: u64,
    /// Nothing is left behind it.
    last: bool,
}

fn share(program: &Program, all: &[Instruction], step: &Step) -> Share {
    let message = |index: usize| match all[index].inst {
        Inst::Send { message } | Inst::Receive { message } => program.messages.get(message as usize),
        _ => None,
    };
    let whole = Share { of: [1, 1], calls: 1, last: true };
    match step {
        Step::One(index) => Share { calls: message(*index).map_or(1, |m| m.pieces() as u64), ..whole },
        Step::Piece { index, piece } => {
            let of = message(*index).map_or([1, 1], |m| [m.piece_bytes(*piece), m.payload_bytes()]);
            Share { of, ..whole }
        }
        Step::Fused(f) => Share { of: [f.elements.len() as u64, f.len as u64], last: f.elements.end == f.len, ..whole },
        Step::Rows { index, channels } => match &all[*index].inst {
            Inst::Conv(shape) => Share { of: [channels.len() as u64, shape.out_channels as u64], ..whole },
            _ => whole,
        },
    }
}

/// Work of every step of a role's code, by phase: its own, the memory that it uses for the first time in
/// one setup and one inference, and the arrangement of the weights that it makes.
pub fn code_work(program: &Program, role: Role) -> [Vec<StepWork>; 3] {
    let code = program.code(role);
    let (lifetimes, width) = (Lifetimes::new(code, &program.messages, false), Width::of(program));
    let (fresh, narrow) = (fresh_bytes(program, code, width, &lifetimes), narrow_weights(program, role));
    let mut arranged = vec![0; code.buffers.len()];
    for i in code.phases.iter().flatten() {
        if let (Inst::Conv(shape), [_, w]) = (&i.inst, &i.inputs[..])
            && conv(shape, 32, false, Width::Narrow).calls(Kind::ConvMacs) > 0
        {
            arranged[*w as usize] = shape.weight_len().unwrap_or(0) as u64;
        }
    }
    let types =
        |ids: &[BufferId]| ids.iter().filter_map(|b| code.buffers.get(*b as usize).copied()).collect::<Vec<_>>();
    let draw = |b: BufferId| work(&Inst::Draw { stream: 0 }, &[], &types(&[b]), width, false);
    let own = |i: &Instruction| {
        let narrow = i.inputs.get(1).is_some_and(|w| narrow[*w as usize]);
        work(&i.inst, &types(&i.inputs), &types(&i.outputs), width, narrow)
    };
    let bytes = |kind, b: BufferId| Work::of(kind, types(&[b]).iter().map(|ty| ty.wire_bytes()).sum());
    // Received buffers that nobody has made whole yet: they are still bytes.
    let mut packed = vec![false; code.buffers.len()];
    for i in code.phases.iter().flatten().filter(|i| matches!(i.inst, Inst::Receive { .. })) {
        i.outputs.iter().for_each(|b| packed[*b as usize] = true);
    }
    Phase::ALL.map(|phase| {
        let all = &code.phases[phase.index()];
        // What is sent and has been made to bytes by the step that made it.
        let steps = &lifetimes.steps[phase.index()];
        let sent_in_strips: Vec<BufferId> = steps.iter().flat_map(|s| s.sent()).collect();
        // Masks of an earlier phase that are drawn again for somebody who reads all of them.
        let mut again = vec![true; code.buffers.len()];
        let of = |(step, fresh): (&Step, &u64)| {
            let mut taken = StepWork { step: step.clone(), layers: Vec::new() };
            let share = share(program, all, step);
            // What strips draw and unpack is there for all instructions of the step.
            let mut read: Vec<BufferId> = Vec::new();
            let fused = if let Step::Fused(fused) = step { Some(fused) } else { None };
            for i in step.instructions().iter().map(|i| &all[*i]) {
                let aside: Vec<BufferId> = read_aside(i).collect();
                for b in &i.inputs {
                    let whole = fused.is_none() || aside.contains(b);
                    let first = !read.contains(b);
                    if first {
                        read.push(*b);
                    }
                    if packed[*b as usize] && whole {
                        packed[*b as usize] = false;
                        taken.add(i.layer, &bytes(Kind::UnpackedBytes, *b));
                    } else if packed[*b as usize] && first {
                        taken.add(i.layer, &bytes(Kind::UnpackedBytes, *b).part(share.of));
                    }
                    let before = lifetimes.streams[*b as usize].is_some() && lifetimes.written[*b as usize] != phase;
                    if fused.is_some_and(|f| f.drawn.contains(b)) {
                        if first {
                            taken.add(i.layer, &draw(*b).part(share.of));
                        }
                    } else if before && again[*b as usize] {
                        // Once for all parts of a step, by the last of them.
                        again[*b as usize] = !share.last;
                        taken.add(i.layer, &draw(*b).part(share.of));
                    }
                }
                if matches!(i.inst, Inst::Send { .. }) {
                    for b in i.inputs.iter().filter(|b| !sent_in_strips.contains(b)) {
                        taken.add(i.layer, &bytes(Kind::PackedBytes, *b).part(share.of));
                    }
                }
                for b in i.outputs.iter().filter(|b| step.sent().any(|sent| sent == **b)) {
                    taken.add(i.layer, &bytes(Kind::PackedBytes, *b).part(share.of));
                }
                let mut work = own(i).part(share.of).times(1, share.calls);
                let weights: u64 = i.outputs.iter().map(|b| arranged[*b as usize]).sum();
                if weights > 0 {
                    work = work.and(Kind::ConvWeights, weights);
                }
                taken.add(i.layer, &work);
            }
            if let Some(fused) = fused {
                // A call for every strip.
                taken.layers.iter_mut().for_each(|(_, work)| *work = work.times(1, strips(fused)));
            }
            if let Some((_, work)) = taken.layers.first_mut().filter(|_| *fresh > 0) {
                *work = work.and(Kind::FreshBytes, *fresh);
            }
            taken
        };
        steps.iter().zip(&fresh[phase.index()]).map(of).collect()
    })
}

/// Work of a role in a phase.
pub fn phase_work(program: &Program, role: Role, phase: Phase) -> Work {
    let mut total = Work::default();
    code_work(program, role)[phase.index()].iter().for_each(|step| total.add(&step.total()));
    total
}
