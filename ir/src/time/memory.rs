//! Memory that a role uses for the first time: the system gives it page by page, which takes about
//! as long as a pass over it.

use crate::program::{Code, Inst, Instruction, Phase, Type};

/// Bytes of a buffer in memory: whole 64-bit words.
pub(super) fn memory(ty: Type) -> u64 {
    match ty {
        Type::Ring { len, .. } => 8 * len as u64,
        Type::Bits { planes, len } => 8 * planes as u64 * len.div_ceil(64) as u64,
    }
}

/// Where a role's code reads a buffer.
#[derive(Clone, Copy, Default)]
pub(super) struct Reads {
    /// The instruction that writes it.
    pub written: Option<(Phase, usize)>,
    /// The last instruction of the offline phase that reads it.
    pub offline: Option<usize>,
    /// The first and the last one of the online phase.
    pub online: Option<(usize, usize)>,
    /// The last one of all.
    pub last: Option<(Phase, usize)>,
}

/// By buffer.
pub(super) fn reads(code: &Code) -> Vec<Reads> {
    let mut all = vec![Reads::default(); code.buffers.len()];
    for phase in Phase::ALL {
        for (i, instruction) in code.phases[phase.index()].iter().enumerate() {
            for b in &instruction.outputs {
                if let Some(r) = all.get_mut(*b as usize) {
                    (r.written, r.last) = (Some((phase, i)), Some((phase, i)));
                }
            }
            for b in &instruction.inputs {
                let Some(r) = all.get_mut(*b as usize) else { continue };
                r.last = Some((phase, i));
                match phase {
                    Phase::Setup => {}
                    Phase::Offline => r.offline = Some(i),
                    Phase::Online => r.online = Some((r.online.map_or(i, |(first, _)| first), i)),
                }
            }
        }
    }
    all
}

/// By phase and instruction, by how many bytes it raises the most that the role has held so far. A
/// buffer is held until it is read for the last time; one of the setup that a later phase reads
/// stays. What comes before the input and is read with it is held as the bytes that came, and a mask is
/// drawn again instead of held.
pub(super) fn fresh_bytes(code: &Code) -> [Vec<u64>; 3] {
    let reads = reads(code);
    let types = |b: &u32| code.buffers.get(*b as usize).copied();
    // What takes the place of a buffer between its last offline and its first online reader.
    let between = |inst: &Inst, ty: Type| match inst {
        Inst::Draw { .. } => Some(0),
        Inst::Receive { .. } => Some(ty.wire_bytes()),
        _ => None,
    };
    // Changes behind an instruction and in front of it.
    let (mut held, mut most) = (0i64, 0i64);
    let mut ends: [Vec<i64>; 3] = Phase::ALL.map(|p| vec![0; code.phases[p.index()].len()]);
    let mut begins = ends.clone();
    for phase in Phase::ALL {
        for (i, instruction) in code.phases[phase.index()].iter().enumerate() {
            for b in &instruction.outputs {
                let (Some(ty), Some(r)) = (types(b), reads.get(*b as usize)) else { continue };
                let full = memory(ty) as i64;
                let kept = phase == Phase::Setup && r.last.is_some_and(|(last, _)| last != Phase::Setup);
                let less = between(&instruction.inst, ty).filter(|_| phase == Phase::Offline);
                match (less, r.online) {
                    (Some(less), Some((first, last))) => {
                        let less = less as i64;
                        // In full for its offline readers, if there are any.
                        if let Some(reader) = r.offline {
                            begins[phase.index()][i] += full;
                            ends[phase.index()][reader] -= full - less;
                        } else {
                            begins[phase.index()][i] += less;
                        }
                        begins[Phase::Online.index()][first] += full - less;
                        ends[Phase::Online.index()][last] -= full;
                    }
                    _ => {
                        begins[phase.index()][i] += full;
                        if let Some((last, at)) = r.last.filter(|_| !kept) {
                            ends[last.index()][at] -= full;
                        }
                    }
                }
            }
        }
    }
    Phase::ALL.map(|phase| {
        let step = |(i, instruction): (usize, &Instruction)| {
            // A message is in memory beside its buffers while it is packed or unpacked.
            let parts = match instruction.inst {
                Inst::Send { .. } => &instruction.inputs,
                Inst::Receive { .. } => &instruction.outputs,
                _ => &Vec::new(),
            };
            let message: u64 = parts.iter().filter_map(types).map(Type::wire_bytes).sum();
            held += begins[phase.index()][i];
            let fresh = (held + message as i64 - most).max(0);
            most += fresh;
            held += ends[phase.index()][i];
            fresh as u64
        };
        code.phases[phase.index()].iter().enumerate().map(step).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(len: usize) -> Type {
        Type::Ring { bits: 8, len }
    }

    fn i(inst: Inst, inputs: &[u32], outputs: &[u32]) -> Instruction {
        Instruction { inst, inputs: inputs.to_vec(), outputs: outputs.to_vec(), layer: 0 }
    }

    #[test]
    fn buffers_come_and_go() {
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

    #[test]
    fn masks_and_messages_wait_as_less() {
        let code = Code {
            buffers: vec![ring(10), ring(20), ring(40), ring(20)],
            phases: [
                vec![],
                vec![
                    i(Inst::Draw { stream: 0 }, &[], &[0]),
                    i(Inst::Draw { stream: 1 }, &[], &[1]),
                    i(Inst::Reduce, &[1], &[3]),
                    i(Inst::Receive { message: 0 }, &[], &[2]),
                ],
                vec![i(Inst::Output, &[0], &[]), i(Inst::Output, &[1, 3], &[]), i(Inst::Output, &[2], &[])],
            ],
        };
        // Drawn later; 160; 320, then 160; its 40 bytes and those of the message. Online 200 and 80; 200 and 160; 40 and 280.
        let want = [vec![], vec![0, 160, 160, 0], vec![0, 360 - 320, 0]];
        assert_eq!(fresh_bytes(&code), want);
    }
}
