//! Which instructions run together, strip by strip.
//!
//! Most instructions work element by element. Run one after the other, each reads its operands from memory and writes
//! its result there, for the next one to read. A [`Fused`] step runs many of them on a strip of elements that the
//! processor's caches hold, then on the next strip, so that what only they read never is in memory as a whole; masks are
//! drawn, received parts unpacked and sent parts packed strip by strip as well. (Database engines run queries like
//! this: Boncz, Zukowski and Nes, MonetDB/X100, CIDR 2005.)
//!
//! Between two messages the order of instructions is free but for what they read. So every step takes all
//! instructions between the messages around it that work on as many elements and read nothing later.

mod overlap;
mod strips;

use std::ops::Range;

use super::{BlockMap, BufferId, Code, Inst, Instruction, Message, Phase};

pub use overlap::ROWS;
pub use strips::{Strip, strips};

/// Elements of a strip, where its blocks allow.
pub const STRIP: usize = 4096;
/// Results of a step, one for each element and instruction, from which several threads share it.
const SHARED: usize = 1 << 18;

/// What runs next; instructions by their index in the phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// One instruction.
    One(usize),
    /// Several, strip by strip.
    Fused(Fused),
    /// One piece of a message is sent or received; `Step::One` of such an instruction is all pieces.
    Piece {
        /// The instruction.
        index: usize,
        /// The piece.
        piece: usize,
    },
    /// Some output channels of a convolution.
    Rows {
        /// The instruction.
        index: usize,
        /// The channels.
        channels: Range<usize>,
    },
}

impl Step {
    /// The instructions of the step.
    pub fn instructions(&self) -> &[usize] {
        match self {
            Step::One(index) | Step::Piece { index, .. } | Step::Rows { index, .. } => std::slice::from_ref(index),
            Step::Fused(fused) => &fused.instructions,
        }
    }

    /// What it makes bytes of a message of, where its elements are made.
    pub fn sent(&self) -> impl Iterator<Item = BufferId> + '_ {
        let fused = if let Step::Fused(fused) = self { &fused.sent[..] } else { &[] };
        fused.iter().map(|(b, _)| *b)
    }

    /// The instruction of a step that has but one.
    pub fn single(&self) -> Option<usize> {
        match self {
            Step::One(index) | Step::Piece { index, .. } | Step::Rows { index, .. } => Some(*index),
            Step::Fused(_) => None,
        }
    }

    /// The pieces of a message that a step sends or receives.
    pub fn pieces(&self, message: &Message) -> Range<usize> {
        match self {
            Step::Piece { piece, .. } => *piece..piece + 1,
            _ => 0..message.pieces(),
        }
    }
}

/// Instructions that run strip by strip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fused {
    /// The instructions, in order.
    pub instructions: Vec<usize>,
    /// Elements that all of them work on.
    pub len: usize,
    /// Those of them that this step is for: all, or some where pieces of messages come between.
    pub elements: Range<usize>,
    /// An instruction whose [`BlockMap`] has blocks of several pixels: strips are whole channels of it.
    pub map: Option<usize>,
    /// Masks that are drawn for these instructions alone.
    pub drawn: Vec<BufferId>,
    /// Results that are read behind the step.
    pub kept: Vec<BufferId>,
    /// Results that the message behind the step takes, with their places among its parts.
    pub sent: Vec<(BufferId, usize)>,
}

impl Fused {
    /// Whether it is worth several threads.
    pub fn shared(&self) -> bool {
        self.elements.len() * self.instructions.len() >= SHARED
    }
}

/// The map of an instruction that has blocks of several pixels.
pub fn block_map(inst: &Inst) -> Option<&BlockMap> {
    any_map(inst).filter(|map| map.count() < map.pixels())
}

fn any_map(inst: &Inst) -> Option<&BlockMap> {
    match inst {
        Inst::BlockSum(map) | Inst::Gate(map) | Inst::Select { map, .. } => Some(map),
        _ => None,
    }
}

/// Channels of less are not taken piece by piece.
const SHORT: usize = 16;

/// Elements that an instruction works on one by one; `None` if it is not of that kind.
fn elements(code: &Code, instruction: &Instruction) -> Option<usize> {
    let len = |b: &BufferId| code.buffers.get(*b as usize).map(|t| t.len());
    let out = instruction.outputs.first().and_then(len);
    let of = match &instruction.inst {
        Inst::Add
        | Inst::Sub
        | Inst::Reduce
        | Inst::AddConst { .. }
        | Inst::Truncate { .. }
        | Inst::Join { .. }
        | Inst::AddBias
        | Inst::Xor
        | Inst::Xnor
        | Inst::Planes { .. }
        | Inst::ToBits { .. }
        | Inst::ToRing
        | Inst::Wrap
        | Inst::NibbleProducts
        | Inst::NibbleOpen { .. }
        | Inst::CarryProducts { .. }
        | Inst::CarryOpen { .. }
        | Inst::LiftPublic
        | Inst::LiftCorrection => out,
        Inst::Gather { outer: 1, inner, .. } if *inner >= SHORT => out,
        Inst::BlockSum(map) | Inst::Gate(map) | Inst::Select { map, .. } => Some(map.pixels()),
        _ => None,
    };
    of.filter(|n| *n > 0)
}

/// Whether an instruction of that kind reads an operand otherwise: by channel or by block.
fn aside(inst: &Inst, operand: usize) -> bool {
    match inst {
        Inst::AddBias => operand == 1,
        Inst::Gather { .. } => true,
        Inst::Gate(_) => operand == 0 && block_map(inst).is_some(),
        Inst::Select { .. } => matches!(operand, 1 | 3) && block_map(inst).is_some(),
        _ => false,
    }
}

/// The operands of an instruction that it reads as a whole, whatever the strip.
pub fn read_aside(instruction: &Instruction) -> impl Iterator<Item = BufferId> + '_ {
    let at = |(i, b): (usize, &BufferId)| aside(&instruction.inst, i).then_some(*b);
    instruction.inputs.iter().enumerate().filter_map(at)
}

/// The steps of a role's code, by [`Phase`]; with `whole` no buffer is left out, for those who look at all of them, and
/// none is made in parts.
///
/// A draw has a step of its own where somebody in its phase reads all of it. One that is only read in a later phase has
/// none: it is drawn there.
pub fn steps(code: &Code, messages: &[Message], whole: bool) -> [Vec<Step>; 3] {
    let uses = Uses::new(code, whole);
    Phase::ALL.map(|phase| {
        let all = &code.phases[phase.index()];
        if phase == Phase::Setup {
            return (0..all.len()).map(Step::One).collect();
        }
        let mut planner = Planner { code, uses: &uses, phase, done: vec![false; all.len()], steps: Vec::new() };
        let mut start = 0;
        for (end, i) in all.iter().enumerate() {
            if matches!(i.inst, Inst::Send { .. } | Inst::Receive { .. }) {
                planner.segment(start..end);
                planner.steps.push(Step::One(end));
                planner.done[end] = true;
                start = end + 1;
            }
        }
        planner.segment(start..all.len());
        if whole { planner.steps } else { overlap::overlap(code, phase, messages, &planner.steps) }
    })
}

/// Who writes and reads buffers.
struct Uses {
    whole: bool,
    written: Vec<Option<(Phase, usize)>>,
    read: Vec<Vec<(Phase, usize)>>,
    /// By phase: masks that are only read element by element.
    drawn: [Vec<bool>; 3],
}

impl Uses {
    fn new(code: &Code, whole: bool) -> Uses {
        let n = code.buffers.len();
        let (mut written, mut read) = (vec![None; n], vec![Vec::new(); n]);
        let mut draws = vec![false; n];
        let mut apart = [(); 3].map(|()| vec![false; n]);
        for phase in Phase::ALL {
            for (i, instruction) in code.phases[phase.index()].iter().enumerate() {
                for b in instruction.outputs.iter().map(|b| *b as usize).filter(|b| *b < n) {
                    written[b] = Some((phase, i));
                    draws[b] = phase != Phase::Setup && matches!(instruction.inst, Inst::Draw { .. });
                }
                let fused = elements(code, instruction).is_some();
                for (operand, b) in instruction.inputs.iter().map(|b| *b as usize).enumerate().filter(|(_, b)| *b < n) {
                    read[b].push((phase, i));
                    apart[phase.index()][b] |= !fused || aside(&instruction.inst, operand);
                }
            }
        }
        let drawn =
            apart.map(|apart| apart.iter().zip(&draws).map(|(apart, draw)| *draw && !apart && !whole).collect());
        Uses { whole, written, read, drawn }
    }

    /// Whether the buffer is drawn strip by strip in a phase, by whoever reads it.
    fn drawn(&self, phase: Phase, b: BufferId) -> bool {
        self.drawn[phase.index()][b as usize]
    }
}

struct Planner<'a> {
    code: &'a Code,
    uses: &'a Uses,
    phase: Phase,
    done: Vec<bool>,
    steps: Vec<Step>,
}

impl Planner<'_> {
    /// Plans the instructions between two messages.
    fn segment(&mut self, range: Range<usize>) {
        let all = &self.code.phases[self.phase.index()];
        for i in range.clone() {
            if let (Inst::Draw { .. }, &[b]) = (&all[i].inst, &all[i].outputs[..]) {
                self.done[i] = true;
                let read = &self.uses.read[b as usize];
                let here = read.iter().any(|(phase, _)| *phase == self.phase);
                if read.is_empty() || here && !self.uses.drawn(self.phase, b) {
                    self.steps.push(Step::One(i));
                }
            }
        }
        for i in range.clone() {
            if self.done[i] {
                continue;
            }
            match elements(self.code, &all[i]) {
                Some(len) => self.fuse(i, len, &range),
                None => {
                    self.done[i] = true;
                    self.steps.push(Step::One(i));
                }
            }
        }
    }

    /// Plans all instructions from `first` on that can run together with it.
    fn fuse(&mut self, first: usize, len: usize, range: &Range<usize>) {
        let all = &self.code.phases[self.phase.index()];
        let (mut taken, mut map): (Vec<usize>, Option<usize>) = (Vec::new(), None);
        for i in (first..range.end).filter(|i| !self.done[*i]) {
            if elements(self.code, &all[i]) != Some(len) {
                continue;
            }
            let ready = all[i].inputs.iter().enumerate().all(|(operand, b)| match self.uses.written[*b as usize] {
                Some((phase, by)) if phase == self.phase && range.contains(&by) => {
                    self.done[by] || !aside(&all[i].inst, operand) && taken.contains(&by)
                }
                _ => true,
            });
            let own = any_map(&all[i].inst);
            let fits = match (own, map.and_then(|m| any_map(&all[m].inst))) {
                (Some(own), Some(map)) => own == map,
                _ => true,
            };
            if ready && fits {
                taken.push(i);
                map = map.or(own.map(|_| i));
            }
        }
        taken.iter().for_each(|i| self.done[*i] = true);
        let map = map.filter(|m| block_map(&all[*m].inst).is_some());
        let fused = self.fused(taken, len, map, range.end);
        self.steps.push(Step::Fused(fused));
    }

    /// What a step draws, keeps and sends; `end` is the instruction behind those between the messages.
    fn fused(&self, instructions: Vec<usize>, len: usize, map: Option<usize>, end: usize) -> Fused {
        let all = &self.code.phases[self.phase.index()];
        let message: &[BufferId] = match all.get(end) {
            Some(i) if matches!(i.inst, Inst::Send { .. }) => &i.inputs,
            _ => &[],
        };
        let (mut drawn, mut kept, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        for i in &instructions {
            for b in all[*i].inputs.iter().filter(|b| self.uses.drawn(self.phase, **b)) {
                if !drawn.contains(b) {
                    drawn.push(*b);
                }
            }
            for b in &all[*i].outputs {
                let whole = self.code.buffers[*b as usize].len() == len;
                let mut places = message.iter().enumerate().filter(|(_, part)| *part == b).map(|(at, _)| at);
                let place = match (places.next(), places.next()) {
                    (Some(place), None) if whole => Some(place),
                    _ => None,
                };
                sent.extend(place.map(|place| (*b, place)));
                let behind = |&(phase, reader): &(Phase, usize)| {
                    let inside = phase == self.phase && instructions.contains(&reader);
                    let packed = phase == self.phase && reader == end && place.is_some();
                    !inside && !packed
                };
                if self.uses.whole || !whole || self.uses.read[*b as usize].iter().any(behind) {
                    kept.push(*b);
                }
            }
        }
        Fused { instructions, len, elements: 0..len, map, drawn, kept, sent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Type;

    fn ring(len: usize) -> Type {
        Type::Ring { bits: 8, len }
    }

    fn plane(len: usize) -> Type {
        Type::Bits { planes: 1, len }
    }

    fn i(inst: Inst, inputs: &[u32], outputs: &[u32]) -> Instruction {
        Instruction { inst, inputs: inputs.to_vec(), outputs: outputs.to_vec(), layer: 0 }
    }

    fn online(buffers: Vec<Type>, all: Vec<Instruction>) -> Code {
        Code { buffers, phases: [vec![], vec![], all] }
    }

    fn fused(instructions: &[usize], len: usize) -> Fused {
        Fused {
            instructions: instructions.to_vec(),
            len,
            elements: 0..len,
            map: None,
            drawn: vec![],
            kept: vec![],
            sent: vec![],
        }
    }

    fn draw(b: u32) -> Instruction {
        i(Inst::Draw { stream: b }, &[], &[b])
    }

    #[test]
    fn what_is_read_inside_is_not_kept() {
        let code = online(
            vec![ring(100); 7].into_iter().chain([ring(50), ring(50)]).collect(),
            vec![
                draw(0),
                i(Inst::Receive { message: 0 }, &[], &[1, 7]),
                i(Inst::Add, &[0, 1], &[2]),
                i(Inst::AddConst { value: 1 }, &[7], &[8]),
                i(Inst::Sub, &[2, 0], &[3]),
                i(Inst::Add, &[3, 1], &[4]),
                i(Inst::Send { message: 1 }, &[8, 4, 3], &[]),
                i(Inst::Output, &[3], &[]),
            ],
        );
        let want = vec![
            Step::One(1),
            Step::Fused(Fused { drawn: vec![0], kept: vec![3], sent: vec![(3, 2), (4, 1)], ..fused(&[2, 4, 5], 100) }),
            Step::Fused(Fused { sent: vec![(8, 0)], ..fused(&[3], 50) }),
            Step::One(6),
            Step::One(7),
        ];
        assert_eq!(steps(&code, &[], false)[2], want);
        // Behind the draw and the message.
        let whole = Fused { kept: vec![2, 3, 4], sent: vec![(3, 2), (4, 1)], ..fused(&[2, 4, 5], 100) };
        assert_eq!(steps(&code, &[], true)[2][2], Step::Fused(whole));
    }

    #[test]
    fn a_mask_that_is_read_as_a_whole_is_drawn_before() {
        let code = online(
            vec![ring(100); 3],
            vec![i(Inst::Zero, &[], &[1]), draw(0), i(Inst::Add, &[0, 1], &[2]), i(Inst::Output, &[0], &[])],
        );
        let want = vec![Step::One(1), Step::One(0), Step::Fused(fused(&[2], 100)), Step::One(3)];
        assert_eq!(steps(&code, &[], false)[2], want);
    }

    #[test]
    fn sums_of_blocks_come_before_what_reads_them() {
        let map = BlockMap { map: [4, 4], blocks: vec![[2, 2], [1, 1]] };
        let (pixels, blocks) = (map.pixels(), map.count());
        let code = online(
            vec![ring(pixels), ring(pixels), ring(blocks), plane(blocks), ring(pixels), ring(pixels)],
            vec![
                i(Inst::Receive { message: 0 }, &[], &[0]),
                i(Inst::Add, &[0, 0], &[1]),
                i(Inst::BlockSum(map.clone()), &[1], &[2]),
                i(Inst::ToBits { low: 7, count: 1, pad: 0 }, &[2], &[3]),
                i(Inst::Gate(map.clone()), &[3, 1], &[4]),
                i(Inst::Add, &[4, 0], &[5]),
                i(Inst::Output, &[5], &[]),
            ],
        );
        let want = vec![
            Step::One(0),
            Step::Fused(Fused { map: Some(2), kept: vec![1, 2], ..fused(&[1, 2], pixels) }),
            Step::Fused(Fused { kept: vec![3], ..fused(&[3], blocks) }),
            Step::Fused(Fused { map: Some(4), kept: vec![5], ..fused(&[4, 5], pixels) }),
            Step::One(6),
        ];
        assert_eq!(steps(&code, &[], false)[2], want);
        // Blocks of a pixel each: all of it together.
        let ones = |i: Instruction| match i.inst {
            Inst::BlockSum(_) => {
                Instruction { inst: Inst::BlockSum(BlockMap { map: [4, 4], blocks: vec![[1, 1]; 2] }), ..i }
            }
            Inst::Gate(_) => Instruction { inst: Inst::Gate(BlockMap { map: [4, 4], blocks: vec![[1, 1]; 2] }), ..i },
            _ => i,
        };
        let mut code = code;
        code.buffers[2..4].copy_from_slice(&[ring(pixels), plane(pixels)]);
        code.phases[2] = code.phases[2].drain(..).map(ones).collect();
        let all = Fused { kept: vec![5], ..fused(&[1, 2, 3, 4, 5], pixels) };
        assert_eq!(steps(&code, &[], false)[2], vec![Step::One(0), Step::Fused(all), Step::One(6)]);
    }
}
