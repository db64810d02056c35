//! How long a role holds buffers.

use super::steps::{Step, steps};
use super::{BufferId, Code, Inst, Message, Phase};

/// Steps of a role's code, and from when to when it holds what they make.
#[derive(Clone, Debug)]
pub struct Lifetimes {
    /// What runs, by [`Phase`].
    pub steps: [Vec<Step>; 3],
    /// Buffers that nobody needs behind a step, by phase and step.
    pub drops: [Vec<Vec<BufferId>>; 3],
    /// Phase in which each buffer is written.
    pub written: Vec<Phase>,
    /// Buffers of the setup that a later phase reads: they serve every inference and are never dropped.
    pub serve: Vec<bool>,
    /// Streams of buffers that are drawn behind the setup. They are not held from one phase to the next but drawn
    /// again.
    pub streams: Vec<Option<u32>>,
}

impl Lifetimes {
    /// Of `code`, which has been verified, with the program's messages; with `whole` every buffer is made as a whole
    /// ([`steps`]).
    pub fn new(code: &Code, messages: &[Message], whole: bool) -> Lifetimes {
        let n = code.buffers.len();
        let steps = steps(code, messages, whole);
        let mut streams = vec![None; n];
        for i in code.phases[Phase::Offline.index()].iter().chain(&code.phases[Phase::Online.index()]) {
            if let (Inst::Draw { stream }, &[b]) = (&i.inst, &i.outputs[..]) {
                streams[b as usize] = Some(*stream);
            }
        }
        let mut written = vec![Phase::Setup; n];
        // The last step of each phase that uses a buffer.
        let mut last = vec![[None; 3]; n];
        for phase in Phase::ALL {
            let all = &code.phases[phase.index()];
            for (at, step) in steps[phase.index()].iter().enumerate() {
                for i in step.instructions().iter().map(|i| &all[*i]) {
                    i.outputs.iter().chain(&i.inputs).for_each(|b| last[*b as usize][phase.index()] = Some(at));
                }
            }
            all.iter().flat_map(|i| &i.outputs).for_each(|b| written[*b as usize] = phase);
        }
        let mut drops = Phase::ALL.map(|p| vec![Vec::new(); steps[p.index()].len()]);
        let mut serve = vec![false; n];
        for b in 0..n {
            serve[b] = written[b] == Phase::Setup && last[b][1..].iter().any(Option::is_some);
            if serve[b] {
                continue;
            }
            let mut ends: Vec<(Phase, usize)> =
                Phase::ALL.into_iter().zip(last[b]).filter_map(|(phase, at)| Some((phase, at?))).collect();
            if streams[b].is_none() {
                ends.drain(..ends.len().saturating_sub(1));
            }
            ends.into_iter().for_each(|(phase, at)| drops[phase.index()][at].push(b as BufferId));
        }
        Lifetimes { steps, drops, written, serve, streams }
    }
}
