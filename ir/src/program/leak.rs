//! The leak check: nobody learns anything from a message but what the protocol says.
//!
//! **Claim.** For a receiver `R`, all parts of all messages to `R` (the opened output aside) are
//! jointly distributed independently of everything `R` does not draw itself; so `R` could have
//! made them up.
//!
//! **What is tracked** for every buffer, through all roles:
//! - `depends`: every stream that can influence the value;
//! - `full`: streams `m` such that the value is `v ± m` (or `v xor m`) with `v` not depending on
//!   `m`: over a uniform `m` it is uniform whatever `v` is. Sums keep this as long as the other
//!   operand does not depend on `m`; so do maps that take uniform values to uniform values (adding
//!   a constant, a smaller modulus, a permutation of elements);
//! - `seen`: streams `m` such that the value is a function of something in which `m` is `full`:
//!   whoever gets it learns no more than a function of uniform values.
//!
//! **Argument.** If the parts to `R` can be put in an order in which every part is `seen` under a
//! stream that `R` cannot draw and that no earlier part depends on, then, given all earlier parts,
//! that stream is still uniform and the part is distributed as a function of a uniform value:
//! induction gives the claim. Such an order is found from its end: take away a part whose stream no
//! other remaining part depends on, and go on. Taking one away never hinders another, so the order
//! exists exactly if this ends with no part left. In particular a mask used in two messages to one
//! receiver, a dropped mask, or a mask that the receiver can draw, leave parts over.
//!
//! The one exception is the message marked `reveal`. The verifier accepts one only: online, from
//! the server to the client, whose single part the client adds to a share of its own and outputs:
//! it opens the network's output and is a function of that and of what the client has.

use super::traffic::Step;
use super::{Fault, Inst, Program, Role};

#[derive(Clone, Default)]
struct Value {
    depends: Set,
    full: Vec<u32>,
    seen: Vec<u32>,
}

/// A set of stream numbers.
#[derive(Clone, Default)]
struct Set(Vec<u64>);

impl Set {
    fn insert(&mut self, i: u32) {
        let word = i as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (i % 64);
    }

    fn contains(&self, i: u32) -> bool {
        self.0.get(i as usize / 64).is_some_and(|w| w >> (i % 64) & 1 == 1)
    }

    fn union(&mut self, other: &Set) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a |= b;
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(w, &bits)| (0..64).filter(move |b| bits >> b & 1 == 1).map(move |b| w as u32 * 64 + b))
    }
}

struct Part {
    message: u32,
    depends: Set,
    masks: Vec<u32>,
}

/// Runs the check over a schedule of the program; one fault for each part that no mask protects.
pub(super) fn check(program: &Program, schedule: &[Step]) -> Vec<Fault> {
    let mut values: [Vec<Value>; 3] = Role::ALL.map(|r| vec![Value::default(); program.code(r).buffers.len()]);
    let mut in_flight: Vec<Vec<Value>> = vec![Vec::new(); program.messages.len()];
    let mut parts: [Vec<Part>; 3] = Default::default();
    for &(role, phase, index) in schedule {
        let i = &program.code(role).phases[phase.index()][index];
        let r = role.index();
        match &i.inst {
            Inst::Send { message } => {
                let m = &program.messages[*message as usize];
                for &b in &i.inputs {
                    let value = values[r][b as usize].clone();
                    if !m.reveal {
                        let hidden = |s: &&u32| !program.streams[**s as usize].pair.holds(m.to);
                        parts[m.to.index()].push(Part {
                            message: *message,
                            depends: value.depends.clone(),
                            masks: value.seen.iter().filter(hidden).copied().collect(),
                        });
                    }
                    in_flight[*message as usize].push(value);
                }
            }
            Inst::Receive { message } => {
                for (&b, value) in i.outputs.iter().zip(std::mem::take(&mut in_flight[*message as usize])) {
                    values[r][b as usize] = value;
                }
            }
            inst => {
                let operands: Vec<&Value> = i.inputs.iter().map(|&b| &values[r][b as usize]).collect();
                let value = transfer(inst, &operands);
                for &b in &i.outputs {
                    values[r][b as usize] = value.clone();
                }
            }
        }
    }
    Role::ALL.into_iter().flat_map(|r| unmasked(program, r, &parts[r.index()])).collect()
}

fn transfer(inst: &Inst, operands: &[&Value]) -> Value {
    let mut value = Value::default();
    for o in operands {
        value.depends.union(&o.depends);
    }
    match inst {
        Inst::Draw { stream } => {
            value.depends.insert(*stream);
            value.full.push(*stream);
            value.seen.push(*stream);
        }
        Inst::Add | Inst::Sub | Inst::Xor | Inst::Xnor => {
            let [a, b] = operands else { return value };
            let kept = |x: &Value, other: &Value| -> Vec<u32> {
                x.full.iter().filter(|m| !other.depends.contains(**m)).copied().collect()
            };
            value.full = kept(a, b);
            value.full.extend(kept(b, a));
            value.seen = value.full.clone();
        }
        Inst::AddConst { .. } | Inst::Reduce | Inst::Transpose { .. } => {
            if let [a] = operands {
                value.full = a.full.clone();
                value.seen = a.seen.clone();
            }
        }
        _ => {
            if let [a] = operands {
                value.seen = a.seen.clone();
            }
        }
    }
    value
}

/// Takes parts away from the end of an order as described above; what is left is unmasked.
fn unmasked(program: &Program, to: Role, parts: &[Part]) -> Vec<Fault> {
    let mut readers = vec![0u32; program.streams.len()];
    let mut wanted: Vec<Vec<usize>> = vec![Vec::new(); program.streams.len()];
    for (i, p) in parts.iter().enumerate() {
        p.depends.iter().for_each(|s| readers[s as usize] += 1);
        p.masks.iter().for_each(|s| wanted[*s as usize].push(i));
    }
    let mut left = vec![true; parts.len()];
    let mut ready: Vec<usize> = Vec::new();
    let free = |p: &Part, readers: &[u32]| p.masks.iter().any(|m| readers[*m as usize] == 1);
    for (i, p) in parts.iter().enumerate() {
        if free(p, &readers) {
            ready.push(i);
        }
    }
    while let Some(i) = ready.pop() {
        if !std::mem::take(&mut left[i]) {
            continue;
        }
        for s in parts[i].depends.iter() {
            let n = &mut readers[s as usize];
            *n -= 1;
            if *n == 1 {
                ready.extend(wanted[s as usize].iter().copied().filter(|&j| left[j]));
            }
        }
    }
    // What is left besides a part without any mask may be left only because of that one; otherwise
    // the latest is the likeliest cause.
    let bare = parts.iter().zip(&left).any(|(p, l)| *l && p.masks.is_empty());
    let culprits = parts.iter().zip(&left).rev().filter(|(p, l)| **l && (!bare || p.masks.is_empty()));
    let faults = culprits.map(|(p, _)| {
        let m = &program.messages[p.message as usize];
        Fault::new(format!("message \"{}\" from the {}", m.name, m.from), {
            if p.masks.is_empty() {
                format!("it is not masked by a stream that the {to} cannot draw")
            } else {
                let names: Vec<&str> = p.masks.iter().map(|s| program.streams[*s as usize].name.as_str()).collect();
                format!("its mask ({}) also enters another message to the {to}", names.join(", "))
            }
        })
    });
    faults.collect()
}
