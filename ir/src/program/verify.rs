//! The program verifier (invariants listed at [`verify`]).

use std::fmt;

use crate::graph::epilogue_shape;

use super::traffic::{Stuck, schedule};
use super::typing::{MAX_LEN, check};
use super::{Inst, Instruction, Message, Phase, Program, Role, Scope, Type, leak};

/// One broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl Fault {
    pub(super) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Fault { place: place.into(), what: what.into() }
    }
}

/// All broken invariants of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().take(20).map(|x| format!("{}: {}", x.place, x.what));
        f.write_str(&shown.collect::<Vec<_>>().join("\n"))?;
        if self.0.len() > 20 {
            write!(f, "\nand {} more", self.0.len() - 20)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Proof that [`verify`] accepted a program.
#[derive(Clone, Copy, Debug)]
pub struct Verified(());

/// Verifies a program. It holds that
///
/// 1. sizes are sane: moduli of 1 to 64 bits, buffers of at most 2^36 elements, all buffers of a
///    role together at most 2^38;
/// 2. every buffer is written exactly once, and before it is read;
/// 3. every instruction's operands and results have the types its operator asks for;
/// 4. roles keep to their part: only the server reads weights, only the client has input and
///    output and only online, a role draws only streams whose key it holds, streams of the model in
///    setup and those of an inference after it, and **the dealer has no online code and receives
///    nothing**; so no client instruction before the online phase reads the input;
/// 5. every message is sent once and received once, by its sender and its receiver, in its phase,
///    and on every link messages are received in the order they are sent;
/// 6. the three roles run to the end without waiting for each other in a circle;
/// 7. exactly one message is marked `reveal`; it opens the output to the client (see 8);
/// 8. every other message is masked by a stream that its receiver cannot draw and that no other
///    message to that receiver gives away, so a stream is never used twice as a mask (module
///    `leak` has the argument);
/// 9. the taps, layers and ports refer to what is there, and the client's steps fit the output.
pub fn verify(program: &Program) -> Result<Verified, Faults> {
    let mut faults = Vec::new();
    sizes(program, &mut faults);
    if faults.is_empty() {
        for role in Role::ALL {
            code(program, role, &mut faults);
        }
        messages(program, &mut faults);
        reports(program, &mut faults);
    }
    if faults.is_empty() {
        match schedule(program) {
            Ok(steps) => faults.extend(leak::check(program, &steps)),
            Err(Stuck { phase, waiting }) => {
                let who: Vec<String> = waiting.iter().map(|(r, m)| format!("the {r} for \"{m}\"")).collect();
                faults.push(Fault::new(format!("{phase} phase"), format!("roles wait for ever: {}", who.join(", "))));
            }
        }
    }
    if faults.is_empty() { Ok(Verified(())) } else { Err(Faults(faults)) }
}

fn sane(ty: Type) -> bool {
    match ty {
        Type::Ring { bits, len } => (1..=64).contains(&bits) && (1..=MAX_LEN).contains(&len),
        Type::Bits { planes, len } => (1..=4096).contains(&planes) && (1..=MAX_LEN).contains(&len),
    }
}

fn sizes(program: &Program, faults: &mut Vec<Fault>) {
    let mut insane = |place: String, ty: Type| {
        if !sane(ty) {
            faults.push(Fault::new(place, format!("type {ty} is out of bounds")));
        }
    };
    for role in Role::ALL {
        for (i, ty) in program.code(role).buffers.iter().enumerate() {
            insane(format!("{role} buffer %{i}"), *ty);
        }
    }
    for s in &program.streams {
        insane(format!("stream \"{}\"", s.name), s.ty);
    }
    for m in &program.messages {
        m.parts.iter().for_each(|p| insane(format!("message \"{}\"", m.name), *p));
    }
    for w in program.weights.iter().filter(|w| !(1..=MAX_LEN).contains(&w.len)) {
        faults.push(Fault::new(format!("weight \"{}\"", w.name), "its length is out of bounds"));
    }
    for role in Role::ALL {
        let words = |t: &Type| match *t {
            Type::Ring { len, .. } => len as u128,
            Type::Bits { planes, len } => planes as u128 * len.div_ceil(64) as u128,
        };
        if program.code(role).buffers.iter().map(words).sum::<u128>() > 1 << 38 {
            faults.push(Fault::new(format!("{role}"), "its buffers are larger than any machine's memory"));
        }
    }
}

fn place(role: Role, phase: Phase, index: usize, i: &Instruction) -> String {
    format!("{role} {phase} instruction {index} ({})", i.inst.name())
}

fn code(program: &Program, role: Role, faults: &mut Vec<Fault>) {
    let code = program.code(role);
    let mut written = vec![false; code.buffers.len()];
    for phase in Phase::ALL {
        for (index, i) in code.phases[phase.index()].iter().enumerate() {
            let mut fault = |what: String| faults.push(Fault::new(place(role, phase, index, i), what));
            if i.layer as usize >= program.layers.len() {
                fault(format!("layer {} does not exist", i.layer));
            }
            if let Some(b) = i.inputs.iter().chain(&i.outputs).find(|b| **b as usize >= code.buffers.len()) {
                fault(format!("buffer %{b} does not exist"));
                continue;
            }
            if let Some(b) = i.inputs.iter().find(|b| !written[**b as usize]) {
                fault(format!("reads buffer %{b} before it is written"));
            }
            for &b in &i.outputs {
                if std::mem::replace(&mut written[b as usize], true) {
                    fault(format!("writes buffer %{b} a second time"));
                }
            }
            let types = |ids: &[u32]| -> Vec<Type> { ids.iter().map(|b| code.buffers[*b as usize]).collect() };
            if let Err(what) = check(program, &i.inst, &types(&i.inputs), &types(&i.outputs)) {
                fault(what);
                continue;
            }
            if let Err(what) = allowed(program, role, phase, &i.inst) {
                fault(what.into());
            }
        }
    }
    if let Some(b) = written.iter().position(|w| !w) {
        faults.push(Fault::new(format!("{role} buffer %{b}"), "it is never written"));
    }
}

fn allowed(program: &Program, role: Role, phase: Phase, inst: &Inst) -> Result<(), &'static str> {
    let require = |c: bool, what| if c { Ok(()) } else { Err(what) };
    require(role != Role::Dealer || phase != Phase::Online, "the dealer takes no part once the input exists")?;
    match inst {
        Inst::Weight { .. } => require(role == Role::Server, "only the server has the weights"),
        Inst::Input | Inst::Output => {
            require(role == Role::Client, "only the client has the input and the output")?;
            require(phase == Phase::Online, "the input does not exist before the online phase")
        }
        Inst::Draw { stream } => {
            let s = &program.streams[*stream as usize];
            require(s.pair.holds(role), "this role does not hold the stream's key")?;
            let fits = match s.scope {
                Scope::Model => phase == Phase::Setup,
                Scope::Inference => phase != Phase::Setup,
            };
            require(fits, "streams of the model belong to setup, those of an inference after it")
        }
        Inst::Receive { .. } => require(role != Role::Dealer, "the dealer receives nothing"),
        _ => Ok(()),
    }
}

/// Place of a message's one send and one receive: role, phase, index.
type Use = (Role, Phase, usize);

fn messages(program: &Program, faults: &mut Vec<Fault>) {
    let mut sends: Vec<Vec<Use>> = vec![Vec::new(); program.messages.len()];
    let mut receives = sends.clone();
    for role in Role::ALL {
        for phase in Phase::ALL {
            for (index, i) in program.code(role).phases[phase.index()].iter().enumerate() {
                let (list, message) = match i.inst {
                    Inst::Send { message } => (&mut sends, message),
                    Inst::Receive { message } => (&mut receives, message),
                    _ => continue,
                };
                if let Some(uses) = list.get_mut(message as usize) {
                    uses.push((role, phase, index));
                }
            }
        }
    }
    for (n, m) in program.messages.iter().enumerate() {
        let mut fault = |what: String| faults.push(Fault::new(format!("message \"{}\"", m.name), what));
        if m.from == m.to || m.to == Role::Dealer {
            fault(format!("goes from the {} to the {}", m.from, m.to));
        }
        if m.layer as usize >= program.layers.len() || m.parts.is_empty() {
            fault("has no part or no layer".into());
        }
        for (uses, role, verb) in [(&sends[n], m.from, "sent"), (&receives[n], m.to, "received")] {
            match uses[..] {
                [(r, p, _)] if r == role && p == m.phase => {}
                [_] => fault(format!("is not {verb} by the {role} in the {} phase", m.phase)),
                _ => fault(format!("is {verb} {} times", uses.len())),
            }
        }
    }
    for from in Role::ALL {
        for to in Role::ALL {
            for phase in Phase::ALL {
                let order = |uses: &[Vec<Use>]| {
                    let on_link = |m: &Message| m.from == from && m.to == to && m.phase == phase;
                    let mut list: Vec<(usize, usize)> = (0..program.messages.len())
                        .filter(|&n| on_link(&program.messages[n]))
                        .filter_map(|n| uses[n].first().map(|u| (u.2, n)))
                        .collect();
                    list.sort_unstable();
                    list.into_iter().map(|(_, n)| n).collect::<Vec<_>>()
                };
                if order(&sends) != order(&receives) {
                    let link = format!("{phase} messages from the {from} to the {to}");
                    faults.push(Fault::new(link, "are not received in the order they are sent"));
                }
            }
        }
    }
    reveal(program, faults);
}

fn reveal(program: &Program, faults: &mut Vec<Fault>) {
    let mut fault = |what: &str| faults.push(Fault::new("the opened output", what));
    let marked: Vec<usize> = (0..program.messages.len()).filter(|&n| program.messages[n].reveal).collect();
    let [n] = marked[..] else {
        return fault("exactly one message opens the output");
    };
    let m = &program.messages[n];
    if (m.from, m.to, m.phase, m.parts.len()) != (Role::Server, Role::Client, Phase::Online, 1) {
        return fault("it goes online, as one part, from the server to the client");
    }
    let online = &program.code(Role::Client).phases[Phase::Online.index()];
    let outputs: Vec<&Instruction> = online.iter().filter(|i| i.inst == Inst::Output).collect();
    let [output] = outputs[..] else { return fault("the client has exactly one output") };
    let received = online.iter().find(|i| i.inst == Inst::Receive { message: n as u32 });
    let Some(&share) = received.and_then(|i| i.outputs.first()) else { return };
    let sum = online.iter().find(|i| i.outputs == output.inputs);
    let opened = sum.is_some_and(|i| i.inst == Inst::Add && i.inputs.contains(&share) && i.inputs != [share, share]);
    let readers = online.iter().filter(|i| i.inputs.contains(&share)).count();
    if !opened || readers != 1 {
        fault("the client adds the server's share to its own and outputs the sum");
    }
}

fn reports(program: &Program, faults: &mut Vec<Fault>) {
    let mut seen = 0;
    for phase in Phase::ALL {
        let code = &program.code(Role::Client).phases[phase.index()];
        seen += code.iter().filter(|i| i.inst == Inst::Input).count();
    }
    if seen != 1 {
        faults.push(Fault::new("the input", format!("is read {seen} times")));
    }
    for port in [&program.input, &program.output] {
        let real = |x: f64| x.is_finite() && x > 0.0;
        if !real(port.gain) || !real(port.bound) || port.frac > 62 {
            faults.push(Fault::new(format!("port \"{}\"", port.name), "has no usable scale or bound"));
        }
    }
    if let Err(what) = epilogue_shape(&program.epilogue, &program.output.shape) {
        faults.push(Fault::new("the output", what));
    }
    for tap in &program.taps {
        let ty = |role: Role, b: u32| program.code(role).buffers.get(b as usize).copied();
        let (c, s) = (ty(Role::Client, tap.client), ty(Role::Server, tap.server));
        let fits = matches!((c, s), (Some(Type::Ring { bits, .. }), Some(_)) if c == s && bits == tap.modulus);
        if !fits {
            faults.push(Fault::new(format!("tap \"{}\"", tap.node), "does not refer to two shares of one type"));
        }
    }
}
