//! Bytes, messages and rounds, read off the program. Control frames of the runtime (greeting, readiness,
//! farewell) are no messages and belong to no phase.

use serde::{Deserialize, Serialize};

use super::{Inst, Phase, Program, Role};

/// Why the three roles cannot run to the end: each waits for a message that does not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Phase.
    pub phase: Phase,
    /// Message that a role waits for, by role.
    pub waiting: Vec<(Role, String)>,
}

/// One step of an order in which the three roles can run: role, phase, index of the instruction.
pub type Step = (Role, Phase, usize);

/// An order of all instructions in which every receive follows its send, phases one after the
/// other; each role runs as far as it can, client first.
pub fn schedule(program: &Program) -> Result<Vec<Step>, Stuck> {
    let mut steps = Vec::new();
    let mut sent = vec![false; program.messages.len()];
    for phase in Phase::ALL {
        let mut at = [0usize; 3];
        loop {
            let mut moved = false;
            for role in Role::ALL {
                let code = &program.code(role).phases[phase.index()];
                while let Some(i) = code.get(at[role.index()]) {
                    match i.inst {
                        Inst::Receive { message } if !sent.get(message as usize).copied().unwrap_or(false) => break,
                        Inst::Send { message } => {
                            if let Some(s) = sent.get_mut(message as usize) {
                                *s = true;
                            }
                        }
                        _ => {}
                    }
                    steps.push((role, phase, at[role.index()]));
                    at[role.index()] += 1;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let waiting: Vec<(Role, String)> = Role::ALL
            .into_iter()
            .filter_map(|role| {
                let i = program.code(role).phases[phase.index()].get(at[role.index()])?;
                let Inst::Receive { message } = i.inst else { return None };
                let name = program.messages.get(message as usize).map_or("unknown", |m| m.name.as_str());
                Some((role, name.to_string()))
            })
            .collect();
        if !waiting.is_empty() {
            return Err(Stuck { phase, waiting });
        }
    }
    Ok(steps)
}

/// Traffic of one layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTraffic {
    /// Bytes sent by client, server, dealer, for setup, offline and online.
    pub bytes: [[u64; 3]; 3],
    /// Messages by phase.
    pub messages: [u64; 3],
    /// Rounds by phase: by how much this layer lengthens the longest chain of messages of which
    /// each can only be sent when the one before has arrived.
    pub rounds: [u64; 3],
}

/// Traffic of a program, for one setup and one inference, or some in lockstep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// By layer.
    pub layers: Vec<LayerTraffic>,
    /// Of all layers.
    pub total: LayerTraffic,
}

impl LayerTraffic {
    /// Bytes sent by all parties in a phase.
    pub fn phase_bytes(&self, phase: Phase) -> u64 {
        self.bytes[phase.index()].iter().sum()
    }
}

/// Traffic of a verified program. Every message counts with its header of
/// [`super::Message::HEADER`] bytes. A message's depth is one more than the largest depth that its
/// sender has received before in that phase; a phase takes as many rounds as its largest depth.
pub fn traffic(program: &Program) -> Result<Traffic, Stuck> {
    batch_traffic(program, 1)
}

/// As [`traffic()`], of `lanes` inferences in lockstep: their payloads, and rounds and headers of one.
pub fn batch_traffic(program: &Program, lanes: u16) -> Result<Traffic, Stuck> {
    let mut t = Traffic { layers: vec![LayerTraffic::default(); program.layers.len()], ..Traffic::default() };
    let mut label = vec![0u64; program.messages.len()];
    let mut depth = [[0u64; 3]; 3];
    for (role, phase, index) in schedule(program)? {
        let p = phase.index();
        match program.code(role).phases[p][index].inst {
            Inst::Send { message } => {
                let m = &program.messages[message as usize];
                label[message as usize] = depth[p][role.index()] + 1;
                let longer = label[message as usize].saturating_sub(t.total.rounds[p]);
                for l in [&mut t.layers[m.layer as usize], &mut t.total] {
                    l.bytes[p][role.index()] += m.batch_bytes(lanes);
                    l.messages[p] += 1;
                    l.rounds[p] += longer;
                }
            }
            Inst::Receive { message } => {
                let d = &mut depth[p][role.index()];
                *d = (*d).max(label[message as usize]);
            }
            _ => {}
        }
    }
    Ok(t)
}
