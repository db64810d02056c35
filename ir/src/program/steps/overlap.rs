//! Takes steps apart so that large messages are made and read piece by piece.
//!
//! A step that makes a message's longest parts runs up to where a piece ends, sends it, and goes on; one that reads them
//! goes as far as the pieces that are there. So two parties work, and bytes are on their way between them, at the same
//! time. A convolution whose result goes into a message at once is computed some channels at a time.

use std::ops::Range;

use super::strips::strips;
use super::{Fused, Step, read_aside};
use crate::geometry::ConvShape;
use crate::program::{BufferId, Code, Inst, Instruction, Message, Phase, Type};

/// Channels of a convolution that are computed together start at a multiple of this many.
pub const ROWS: usize = 16;
/// Channels that are worth it: what all of them read is brought into place once each time.
const FEWEST_ROWS: usize = 64;

/// A message that a step makes or reads piece by piece.
#[derive(Clone, Copy)]
struct Cut<'a> {
    /// The instruction that sends or receives.
    index: usize,
    message: &'a Message,
}

impl Cut<'_> {
    fn pieces(&self) -> usize {
        self.message.pieces()
    }

    fn longest(&self, part: usize) -> bool {
        self.message.parts[part].len() == self.message.longest()
    }

    /// The parts before the longest ones.
    fn before(&self) -> Range<usize> {
        0..(0..self.message.parts.len()).find(|part| self.longest(*part)).unwrap_or(0)
    }
}

struct Overlap<'a> {
    all: &'a [Instruction],
    code: &'a Code,
    phase: Phase,
    messages: &'a [Message],
    steps: &'a [Step],
}

/// The steps of a phase, some of them in parts.
pub fn overlap(code: &Code, phase: Phase, messages: &[Message], steps: &[Step]) -> Vec<Step> {
    let o = Overlap { all: &code.phases[phase.index()], code, phase, messages, steps };
    let (mut received, mut sent) = (vec![None; steps.len()], vec![None; steps.len()]);
    // The messages that steps make or read piece by piece: by those steps, and by the ones that send or receive.
    for (at, step) in steps.iter().enumerate() {
        let Some(cut) = o.cut(step) else { continue };
        let other = if o.sends(cut) { o.maker(at, cut) } else { o.reader(at, cut) };
        if let Some(other) = other {
            let cuts = if o.sends(cut) { &mut sent } else { &mut received };
            (cuts[at], cuts[other]) = (Some(cut), Some(cut));
        }
    }
    let mut out = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Fused(fused) => {
                let rows = sent[at].and_then(|_| o.convolution(at, fused));
                if rows.is_some() {
                    out.pop();
                }
                o.parts(fused, received[at], sent[at], rows, &mut out);
            }
            Step::One(index) if received[at].is_some() => out.push(Step::Piece { index: *index, piece: 0 }),
            Step::One(index) => match sent[at] {
                Some(cut) => out.push(Step::Piece { index: *index, piece: cut.pieces() - 1 }),
                None => out.push(step.clone()),
            },
            other => out.push(other.clone()),
        }
    }
    out
}

impl<'a> Overlap<'a> {
    /// The message of a step, if it has several pieces.
    fn cut(&self, step: &Step) -> Option<Cut<'a>> {
        let Step::One(index) = *step else { return None };
        let (Inst::Send { message } | Inst::Receive { message }) = self.all[index].inst else { return None };
        let message = self.messages.get(message as usize)?;
        (message.pieces() > 1).then_some(Cut { index, message })
    }

    fn sends(&self, cut: Cut<'_>) -> bool {
        matches!(self.all[cut.index].inst, Inst::Send { .. })
    }

    fn is_message(&self, at: usize) -> bool {
        let Step::One(index) = self.steps[at] else { return false };
        matches!(self.all[index].inst, Inst::Send { .. } | Inst::Receive { .. })
    }

    fn instructions(&self, at: usize) -> impl Iterator<Item = &'a Instruction> {
        let all = self.all;
        self.steps[at].instructions().iter().map(|i| &all[*i])
    }

    /// The step that makes the longest parts of a message that step `at` sends, when what comes before them is there.
    fn maker(&self, at: usize, cut: Cut<'_>) -> Option<usize> {
        let first = (0..at).rev().take_while(|a| !self.is_message(*a)).last()?;
        let parts = 0..cut.message.parts.len();
        let makes = |a: &usize| match &self.steps[*a] {
            Step::Fused(f) => {
                parts.clone().filter(|p| cut.longest(*p)).all(|part| f.sent.iter().any(|(_, sent)| *sent == part))
            }
            _ => false,
        };
        let maker = (first..at).find(makes)?;
        let before: Vec<BufferId> = cut.before().map(|part| self.all[cut.index].inputs[part]).collect();
        let late = (maker..at).flat_map(|a| self.instructions(a)).flat_map(|i| &i.outputs).any(|b| before.contains(b));
        (!late).then_some(maker)
    }

    /// The step that reads the longest parts of a message that step `at` receives, if it is the first one to need more
    /// than what comes before them.
    fn reader(&self, at: usize, cut: Cut<'_>) -> Option<usize> {
        let of = |parts: &mut dyn Iterator<Item = usize>| -> Vec<BufferId> {
            parts.map(|part| self.all[cut.index].outputs[part]).collect()
        };
        let (before, all) = (cut.before(), 0..cut.message.parts.len());
        let later = of(&mut all.clone().filter(|part| !before.contains(part)));
        let longest = of(&mut all.filter(|part| cut.longest(*part)));
        let reader = (at + 1..self.steps.len())
            .take_while(|a| !self.is_message(*a))
            .find(|a| self.instructions(*a).flat_map(|i| &i.inputs).any(|b| later.contains(b)))?;
        let Step::Fused(fused) = &self.steps[reader] else { return None };
        let whole = |i: &Instruction| {
            let aside = read_aside(i).any(|b| later.contains(&b));
            aside || i.inputs.iter().any(|b| later.contains(b) && !longest.contains(b))
        };
        (fused.len == cut.message.longest() && !self.instructions(reader).any(whole)).then_some(reader)
    }

    /// The convolution right before a step that reads its result element by element, if it is worth computing in parts.
    fn convolution(&self, at: usize, fused: &Fused) -> Option<(usize, ConvShape)> {
        let Step::One(index) = *self.steps.get(at.checked_sub(1)?)? else { return None };
        let (Inst::Conv(shape), &[y]) = (&self.all[index].inst, &self.all[index].outputs[..]) else { return None };
        let read = || self.instructions(at).filter(|i| i.inputs.contains(&y));
        let element_wise = read().next().is_some() && !read().any(|i| read_aside(i).any(|b| b == y));
        let large = shape.groups == 1 && shape.out_channels >= 2 * FEWEST_ROWS && shape.input != [1, 1];
        let ring = matches!(self.code.buffers[y as usize], Type::Ring { len, .. } if len == fused.len);
        (element_wise && large && ring).then_some((index, *shape))
    }

    /// A step, up to where pieces begin and end, with these in between.
    fn parts(
        &self,
        fused: &Fused,
        received: Option<Cut<'_>>,
        sent: Option<Cut<'_>>,
        rows: Option<(usize, ConvShape)>,
        out: &mut Vec<Step>,
    ) {
        let edges = |cut: &Option<Cut<'_>>| match cut {
            Some(cut) => (1..cut.pieces()).map(|piece| cut.message.edge(piece)).collect(),
            None => Vec::new(),
        };
        let mut wanted: Vec<usize> = [&received, &sent].into_iter().flat_map(edges).collect();
        wanted.sort_unstable();
        // At a map's strips, which are no multiple of others.
        let mut ends: Vec<usize> = Vec::new();
        match fused.map {
            Some(_) if !wanted.is_empty() => {
                let strips = strips(self.code, self.phase, fused);
                for edge in wanted {
                    ends.extend(strips.iter().map(|s| s.elements.end).find(|end| *end >= edge));
                }
            }
            _ => ends = wanted,
        }
        ends.push(fused.len);
        ends.dedup();
        let (mut start, mut here, mut gone, mut computed) = (0, 1, 0, 0);
        for end in ends {
            if let Some(cut) = received {
                while here < cut.pieces() && cut.message.edge(here) < end {
                    out.push(Step::Piece { index: cut.index, piece: here });
                    here += 1;
                }
            }
            if let Some((index, shape)) = &rows {
                let pixels = fused.len / shape.out_channels;
                let needed = end.div_ceil(pixels);
                if needed > computed {
                    let some = needed.next_multiple_of(ROWS).max(computed + FEWEST_ROWS);
                    // What is left is not worth a call of its own.
                    let all = shape.out_channels;
                    let to = if some + FEWEST_ROWS > all { all } else { some };
                    out.push(Step::Rows { index: *index, channels: computed..to });
                    computed = to;
                }
            }
            out.push(Step::Fused(Fused { elements: start..end, ..fused.clone() }));
            start = end;
            if let Some(cut) = sent {
                while gone + 1 < cut.pieces() && cut.message.edge(gone + 1) <= end {
                    out.push(Step::Piece { index: cut.index, piece: gone });
                    gone += 1;
                }
            }
        }
    }
}
