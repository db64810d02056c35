//! Memory that a role uses for the first time: the system gives it page by page, which takes about
//! as long as a pass over it.

use crate::program::{Code, Inst, Phase, Type};

/// Bytes of a buffer in memory: whole 64-bit words.
pub(super) fn memory(ty: Type) -> u64 {
    match ty {
        Type::Ring { len, .. } => 8 * len as u64,
        Type::Bits { planes, len } => 8 * planes as u64 * len.div_ceil(64) as u64,
    }
}

/// By phase and instruction, by how many bytes it raises the most that the role has held so far. A
/// buffer is held until it is read for the last time; one of the setup that a later phase reads
/// stays.
pub(super) fn fresh_bytes(code: &Code) -> [Vec<u64>; 3] {
    let mut last = vec![None; code.buffers.len()];
    let mut written = vec![Phase::Setup; code.buffers.len()];
    for phase in Phase::ALL {
        for (i, instruction) in code.phases[phase.index()].iter().enumerate() {
            for b in instruction.inputs.iter().chain(&instruction.outputs) {
                if let Some(l) = last.get_mut(*b as usize) {
                    *l = Some((phase, i));
                }
            }
            for b in &instruction.outputs {
                if let Some(w) = written.get_mut(*b as usize) {
                    *w = phase;
                }
            }
        }
    }
    let size = |b: u32| code.buffers.get(b as usize).map_or(0, |ty| memory(*ty));
    let (mut held, mut most) = (0u64, 0u64);
    Phase::ALL.map(|phase| {
        let step = |(i, instruction): (usize, &crate::program::Instruction)| {
            // A message is in memory beside its buffers while it is packed or unpacked.
            let parts = match instruction.inst {
                Inst::Send { .. } => &instruction.inputs,
                Inst::Receive { .. } => &instruction.outputs,
                _ => &Vec::new(),
            };
            let message: u64 = parts.iter().filter_map(|b| code.buffers.get(*b as usize)).map(|t| t.wire_bytes()).sum();
            held += instruction.outputs.iter().map(|b| size(*b)).sum::<u64>();
            let fresh = (held + message).saturating_sub(most);
            most += fresh;
            let mut ends: Vec<u32> = instruction.inputs.iter().chain(&instruction.outputs).copied().collect();
            ends.sort_unstable();
            ends.dedup();
            for b in ends {
                let at = b as usize;
                let kept = written.get(at) == Some(&Phase::Setup) && phase != Phase::Setup;
                if last.get(at) == Some(&Some((phase, i))) && !kept {
                    held = held.saturating_sub(size(b));
                }
            }
            fresh
        };
        code.phases[phase.index()].iter().enumerate().map(step).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Instruction;

    #[test]
    fn buffers_come_and_go() {
        let ring = |len| Type::Ring { bits: 8, len };
        let i = |inst: Inst, inputs: &[u32], outputs: &[u32]| Instruction {
            inst,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            layer: 0,
        };
        let code = Code {
            buffers: vec![ring(10), ring(10), ring(30), Type::Bits { planes: 3, len: 65 }, ring(1)],
            phases: [
                // The first stays for the online phase.
                vec![i(Inst::Zero, &[], &[0])],
                vec![i(Inst::Zero, &[], &[1]), i(Inst::Reduce, &[1], &[4]), i(Inst::Zero, &[], &[2])],
                vec![
                    i(Inst::Output, &[2], &[]),
                    i(Inst::Zero, &[], &[3]),
                    i(Inst::Send { message: 0 }, &[3], &[]),
                    i(Inst::Output, &[0], &[]),
                    i(Inst::Output, &[4], &[]),
                ],
            ],
        };
        // Held: 80; 160, 168 and then 88; 328. Online 88; 136 and 27 of the message, below the most.
        let want = [vec![80], vec![80, 8, 328 - 168], vec![0; 5]];
        assert_eq!(fresh_bytes(&code), want);
    }
}
