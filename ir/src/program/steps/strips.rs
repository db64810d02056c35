//! Cuts the elements of a step into strips.

use std::ops::Range;

use super::{Fused, STRIP, block_map, read_aside};
use crate::program::{BlockMap, BufferId, Code, Phase, Type};

/// Some elements, and the channels and blocks that they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    /// Elements.
    pub elements: Range<usize>,
    /// Channels of a map with blocks of several pixels.
    pub channels: Range<usize>,
    /// Blocks of that map.
    pub blocks: Range<usize>,
}

/// The strips of a step's elements.
pub fn strips(code: &Code, phase: Phase, fused: &Fused) -> Vec<Strip> {
    let map = fused.map.and_then(|i| block_map(&code.phases[phase.index()][i].inst));
    let Range { start, end } = fused.elements;
    match map {
        Some(map) => {
            let all = of_channels(map, grain(code, phase, fused)).into_iter();
            all.filter(|s| start <= s.elements.start && s.elements.end <= end).collect()
        }
        None => {
            let strip = |at| Strip { elements: at..(at + STRIP).min(end), channels: 0..0, blocks: 0..0 };
            (start..end).step_by(STRIP).map(strip).collect()
        }
    }
}

/// As few channels as make a strip and end at the grain.
fn of_channels(map: &BlockMap, grain: usize) -> Vec<Strip> {
    let [height, width] = map.map;
    let mut all = Vec::new();
    let mut next = Strip { elements: 0..0, channels: 0..0, blocks: 0..0 };
    for (c, [h, w]) in map.blocks.iter().enumerate() {
        next.elements.end += height * width;
        next.channels.end = c + 1;
        next.blocks.end += height.div_ceil(*h) * width.div_ceil(*w);
        let last = c + 1 == map.blocks.len();
        if last || next.elements.len() >= STRIP && next.elements.end.is_multiple_of(grain) {
            let (elements, blocks) = (next.elements.end, next.blocks.end);
            all.push(next);
            next = Strip { elements: elements..elements, channels: c + 1..c + 1, blocks: blocks..blocks };
        }
    }
    all
}

/// Elements of a strip are a multiple of this many, so that its part of every buffer starts at a byte on the wire, and
/// of planes that are drawn, kept or sent at a word.
fn grain(code: &Code, phase: Phase, fused: &Fused) -> usize {
    let planes = |b: &BufferId| matches!(code.buffers[*b as usize], Type::Bits { .. });
    let all = &code.phases[phase.index()];
    let inside = |b: &BufferId| fused.instructions.iter().any(|i| all[*i].outputs.contains(b));
    let outside = |i: &usize| {
        let aside: Vec<BufferId> = read_aside(&all[*i]).collect();
        all[*i].inputs.iter().any(|b| planes(b) && !inside(b) && !aside.contains(b))
    };
    let held = fused.kept.iter().chain(fused.sent.iter().map(|(b, _)| b)).any(planes);
    if held || fused.instructions.iter().any(outside) { 64 } else { 8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Inst, Instruction};

    #[test]
    fn strips_are_whole_channels_that_end_at_the_grain() {
        let map = BlockMap { map: [5, 5], blocks: [[2, 2], [5, 1], [1, 1]].repeat(200) };
        for grain in [8, 64] {
            let strips = of_channels(&map, grain);
            let (mut elements, mut channels, mut blocks) = (0, 0, 0);
            for s in &strips {
                assert_eq!((s.elements.start, s.channels.start, s.blocks.start), (elements, channels, blocks));
                (elements, channels, blocks) = (s.elements.end, s.channels.end, s.blocks.end);
                assert!(elements == 25 * channels && (elements.is_multiple_of(grain) || channels == 600));
            }
            assert!(strips.len() > 2 && (elements, blocks) == (map.pixels(), map.count()));
        }
    }

    #[test]
    fn planes_inside_a_step_end_anywhere() {
        let map = BlockMap { map: [8, 8], blocks: vec![[2, 2]] };
        let inst =
            |inst, inputs: &[u32], output| Instruction { inst, inputs: inputs.into(), outputs: vec![output], layer: 0 };
        let (ring, plane) = (Type::Ring { bits: 8, len: 64 }, Type::Bits { planes: 1, len: 64 });
        let gate = inst(Inst::Gate(map), &[2, 0], 1);
        let code = Code { buffers: vec![ring, ring, plane, plane], phases: [vec![], vec![], vec![gate]] };
        let fused = Fused {
            instructions: vec![0],
            len: 64,
            elements: 0..64,
            map: Some(0),
            drawn: vec![],
            kept: vec![1],
            sent: vec![],
        };
        assert_eq!(grain(&code, Phase::Online, &fused), 8);
        assert_eq!(grain(&code, Phase::Online, &Fused { sent: vec![(3, 0)], ..fused }), 64);
    }
}
