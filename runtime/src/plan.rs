//! What a role runs, holds, stores and makes again.

use bcc_ir::program::{BufferId, Code, Inst, Instruction, Lifetimes, Message, Phase};

/// What to run, keep, drop, store and make again.
pub struct Plan {
    /// What to run, and when to drop what it makes.
    pub lifetimes: Lifetimes,
    /// Setup instructions that make what later phases read; without the sends.
    pub resume: Vec<bool>,
    /// Buffers that `resume` receives: what a role keeps of a setup between sessions.
    pub received: Vec<BufferId>,
    /// Buffers that the online phase reads and that cannot be made again from the weights or drawn
    /// again: what a role keeps of offline material.
    pub carried: Vec<BufferId>,
    /// Setup instructions that make the others that the online phase reads.
    pub rebuild: Vec<bool>,
}

impl Plan {
    /// Of `code`, which has been verified, with the program's messages; with `whole` every buffer is made as a whole.
    pub fn new(code: &Code, messages: &[Message], whole: bool) -> Plan {
        let n = code.buffers.len();
        let mut lifetimes = Lifetimes::new(code, messages, whole);
        let online = read_by(&code.phases[Phase::Online.index()], n);
        let setup = &code.phases[Phase::Setup.index()];
        let resume = needed(setup, lifetimes.serve.clone());
        let received: Vec<BufferId> = setup
            .iter()
            .zip(&resume)
            .filter(|(i, needed)| **needed && matches!(i.inst, Inst::Receive { .. }))
            .flat_map(|(i, _)| i.outputs.iter().copied())
            .collect();

        // They are stored after the setup.
        lifetimes.drops[Phase::Setup.index()].iter_mut().for_each(|d| d.retain(|b| !received.contains(b)));

        let mut secret = vec![false; n];
        for i in setup {
            let s = matches!(i.inst, Inst::Receive { .. } | Inst::Draw { .. })
                || i.inputs.iter().any(|b| secret[*b as usize]);
            i.outputs.iter().for_each(|b| secret[*b as usize] = s);
        }
        let stored = |b: usize| match lifetimes.written[b] {
            Phase::Setup => online[b] && secret[b],
            Phase::Offline => online[b] && lifetimes.streams[b].is_none(),
            Phase::Online => false,
        };
        let carried = (0..n).filter(|b| stored(*b)).map(|b| b as BufferId).collect();
        let again = (0..n).map(|b| lifetimes.written[b] == Phase::Setup && online[b] && !secret[b]).collect();
        Plan { lifetimes, resume, received, carried, rebuild: needed(setup, again) }
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
