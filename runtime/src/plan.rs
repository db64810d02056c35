//! Lifetimes of a role's buffers, computed from its code.

use bcc_ir::program::{BufferId, Code, Inst, Instruction, Phase};

/// What to keep, drop, store and make again.
pub struct Plan {
    /// Buffers to drop after an instruction, by phase and instruction. Buffers of the setup that a
    /// later phase reads are never dropped: they serve every inference.
    pub drops: [Vec<Vec<BufferId>>; 3],
    /// Setup instructions that make what later phases read; without the sends.
    pub resume: Vec<bool>,
    /// Buffers that `resume` receives: what a role keeps of a setup between sessions.
    pub received: Vec<BufferId>,
    /// Buffers that the online phase reads and that cannot be made again from the weights or drawn
    /// again: what a role keeps of offline material.
    pub carried: Vec<BufferId>,
    /// Streams of buffers that are drawn in the offline phase and read in the online phase too: they are drawn
    /// again there instead of kept.
    pub redraw: Vec<Option<u32>>,
    /// Offline instructions whose draw the offline phase does not read.
    pub later: Vec<bool>,
    /// Setup instructions that make the others that the online phase reads.
    pub rebuild: Vec<bool>,
    /// Buffers that the offline phase does not read.
    pub sealed: Vec<bool>,
}

impl Plan {
    /// Lifetimes in `code`, which has been verified.
    pub fn new(code: &Code) -> Plan {
        let n = code.buffers.len();
        let mut written = vec![Phase::Setup; n];
        let mut last = vec![None; n];
        for phase in Phase::ALL {
            for (i, instruction) in code.phases[phase.index()].iter().enumerate() {
                for &b in &instruction.outputs {
                    written[b as usize] = phase;
                    last[b as usize] = Some((phase, i));
                }
                for &b in &instruction.inputs {
                    last[b as usize] = Some((phase, i));
                }
            }
        }
        let offline = &code.phases[Phase::Offline.index()];
        let online = read_by(&code.phases[Phase::Online.index()], n);
        let mut redraw = vec![None; n];
        let mut later = vec![false; offline.len()];
        let mut drops = Phase::ALL.map(|p| vec![Vec::new(); code.phases[p.index()].len()]);
        for (i, instruction) in offline.iter().enumerate() {
            let (Inst::Draw { stream }, &[b]) = (&instruction.inst, &instruction.outputs[..]) else { continue };
            if online[b as usize] {
                redraw[b as usize] = Some(*stream);
                match offline.iter().rposition(|i| i.inputs.contains(&b)) {
                    Some(reader) => drops[Phase::Offline.index()][reader].push(b),
                    None => later[i] = true,
                }
            }
        }
        let mut kept = vec![false; n];
        for b in 0..n {
            let Some((phase, i)) = last[b] else { continue };
            if written[b] == Phase::Setup && phase != Phase::Setup {
                kept[b] = true;
            } else {
                drops[phase.index()][i].push(b as BufferId);
            }
        }

        let setup = &code.phases[Phase::Setup.index()];
        let resume = needed(setup, kept.clone());
        let received: Vec<BufferId> = setup
            .iter()
            .zip(&resume)
            .filter(|(i, needed)| **needed && matches!(i.inst, Inst::Receive { .. }))
            .flat_map(|(i, _)| i.outputs.iter().copied())
            .collect();

        // They are stored after the setup.
        drops[Phase::Setup.index()].iter_mut().for_each(|d| d.retain(|b| !received.contains(b)));

        let mut secret = vec![false; n];
        for i in setup {
            let s = matches!(i.inst, Inst::Receive { .. } | Inst::Draw { .. })
                || i.inputs.iter().any(|b| secret[*b as usize]);
            i.outputs.iter().for_each(|b| secret[*b as usize] = s);
        }
        let stored = |b: usize| match written[b] {
            Phase::Setup => online[b] && secret[b],
            Phase::Offline => online[b] && redraw[b].is_none(),
            Phase::Online => false,
        };
        let carried = (0..n).filter(|b| stored(*b)).map(|b| b as BufferId).collect();
        let again = (0..n).map(|b| written[b] == Phase::Setup && online[b] && !secret[b]).collect();
        let sealed = read_by(offline, n).into_iter().map(|read| !read).collect();
        Plan { sealed, drops, resume, received, carried, redraw, later, rebuild: needed(setup, again) }
    }
}

/// Which of `n` buffers the code reads.
fn read_by(code: &[Instruction], n: usize) -> Vec<bool> {
    let mut read = vec![false; n];
    code.iter().flat_map(|i| &i.inputs).for_each(|b| read[*b as usize] = true);
    read
}

/// Instructions without sends that are needed for the `wanted` buffers.
fn needed(code: &[Instruction], mut wanted: Vec<bool>) -> Vec<bool> {
    let mut run = vec![false; code.len()];
    for (i, instruction) in code.iter().enumerate().rev() {
        if instruction.outputs.iter().any(|b| wanted[*b as usize]) {
            run[i] = true;
            instruction.inputs.iter().for_each(|b| wanted[*b as usize] = true);
        }
    }
    run
}
