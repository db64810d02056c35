//! Steps of a role's code and lifetimes of its buffers.

use bcc_ir::program::steps::{Step, steps};
use bcc_ir::program::{BufferId, Code, Inst, Instruction, Phase};

/// What to run, keep, drop, store and make again.
pub struct Plan {
    /// What to run, by phase.
    pub steps: [Vec<Step>; 3],
    /// Buffers to drop after a step, by phase and step. Buffers of the setup that a later phase reads are never
    /// dropped: they serve every inference.
    pub drops: [Vec<Vec<BufferId>>; 3],
    /// Setup instructions that make what later phases read; without the sends.
    pub resume: Vec<bool>,
    /// Buffers that `resume` receives: what a role keeps of a setup between sessions.
    pub received: Vec<BufferId>,
    /// Buffers that the online phase reads and that cannot be made again from the weights or drawn
    /// again: what a role keeps of offline material.
    pub carried: Vec<BufferId>,
    /// Streams of buffers that are drawn behind the setup: where they are not kept they are drawn again.
    pub streams: Vec<Option<u32>>,
    /// Setup instructions that make the others that the online phase reads.
    pub rebuild: Vec<bool>,
}

impl Plan {
    /// Steps and lifetimes in `code`, which has been verified; with `whole` every buffer is made as a whole.
    pub fn new(code: &Code, whole: bool) -> Plan {
        let n = code.buffers.len();
        let steps = steps(code, whole);
        let mut streams = vec![None; n];
        for i in code.phases[Phase::Offline.index()].iter().chain(&code.phases[Phase::Online.index()]) {
            if let (Inst::Draw { stream }, &[b]) = (&i.inst, &i.outputs[..]) {
                streams[b as usize] = Some(*stream);
            }
        }
        let mut written = vec![Phase::Setup; n];
        // Last steps, of masks by phase: the next one draws them again.
        let mut last = vec![[None; 3]; n];
        for phase in Phase::ALL {
            let all = &code.phases[phase.index()];
            for (at, step) in steps[phase.index()].iter().enumerate() {
                for instruction in step.instructions().iter().map(|i| &all[*i]) {
                    for b in instruction.outputs.iter().chain(&instruction.inputs) {
                        last[*b as usize][phase.index()] = Some(at);
                    }
                }
            }
            all.iter().flat_map(|i| &i.outputs).for_each(|b| written[*b as usize] = phase);
        }
        let online = read_by(&code.phases[Phase::Online.index()], n);
        let mut drops = Phase::ALL.map(|p| vec![Vec::new(); steps[p.index()].len()]);
        let mut kept = vec![false; n];
        for b in 0..n {
            if written[b] == Phase::Setup && (last[b][1].is_some() || last[b][2].is_some()) {
                kept[b] = true;
                continue;
            }
            let mut ends: Vec<(Phase, usize)> =
                Phase::ALL.into_iter().zip(last[b]).filter_map(|(phase, at)| Some((phase, at?))).collect();
            if streams[b].is_none() {
                ends.drain(..ends.len().saturating_sub(1));
            }
            ends.into_iter().for_each(|(phase, at)| drops[phase.index()][at].push(b as BufferId));
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
            Phase::Offline => online[b] && streams[b].is_none(),
            Phase::Online => false,
        };
        let carried = (0..n).filter(|b| stored(*b)).map(|b| b as BufferId).collect();
        let again = (0..n).map(|b| written[b] == Phase::Setup && online[b] && !secret[b]).collect();
        Plan { steps, drops, resume, received, carried, streams, rebuild: needed(setup, again) }
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
