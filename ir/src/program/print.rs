//! The text listing of a program: every role's instructions, one per line.

use std::fmt;

use super::{BlockMap, Inst, Instruction, Pair, Phase, Port, Program, Role, Scope, Source};
use crate::graph::print::{dims, runs, short};

impl Inst {
    /// The instruction's name in listings.
    pub fn name(&self) -> &'static str {
        match self {
            Inst::Draw { .. } => "draw",
            Inst::Weight { .. } => "weight",
            Inst::Input => "input",
            Inst::Zero => "zero",
            Inst::Send { .. } => "send",
            Inst::Receive { .. } => "receive",
            Inst::Output => "output",
            Inst::Add => "add",
            Inst::Sub => "sub",
            Inst::Reduce => "reduce",
            Inst::AddConst { .. } => "add_const",
            Inst::Truncate { .. } => "truncate",
            Inst::Join { .. } => "join",
            Inst::Conv(_) => "conv",
            Inst::AddBias => "add_bias",
            Inst::Scale { .. } => "scale",
            Inst::SumPool(_) => "sum_pool",
            Inst::Gather { .. } => "gather",
            Inst::Transpose { .. } => "transpose",
            Inst::Pad { .. } => "pad",
            Inst::Assemble { .. } => "assemble",
            Inst::Xor => "xor",
            Inst::Xnor => "xnor",
            Inst::Planes { .. } => "planes",
            Inst::ToBits { .. } => "to_bits",
            Inst::ToRing => "to_ring",
            Inst::Wrap => "wrap",
            Inst::BlockSum(_) => "block_sum",
            Inst::NibbleProducts => "nibble_products",
            Inst::NibbleOpen { .. } => "nibble_open",
            Inst::CarryProducts { .. } => "carry_products",
            Inst::CarryOpen { .. } => "carry_open",
            Inst::Gate(_) => "gate",
            Inst::Select { .. } => "select",
            Inst::LiftPublic => "lift_public",
            Inst::LiftCorrection => "lift_correction",
        }
    }
}

fn blocks(map: &BlockMap) -> String {
    let shapes: Vec<String> = map.blocks.iter().map(|[h, w]| format!("{h}x{w}")).collect();
    format!("{}x{} [{}]", map.map[0], map.map[1], runs(&shapes))
}

fn public(yes: bool) -> String {
    if yes { "public".into() } else { String::new() }
}

impl Program {
    fn attributes(&self, inst: &Inst) -> String {
        let message = |m: u32| self.messages.get(m as usize).map_or("?".into(), |m| format!("\"{}\"", m.name));
        match inst {
            Inst::Draw { stream } => self.streams.get(*stream as usize).map_or("?".into(), |s| {
                let pair = match s.pair {
                    Pair::ClientDealer => "cd",
                    Pair::ServerDealer => "sd",
                };
                let scope = if s.scope == Scope::Model { " model" } else { "" };
                format!("{pair}{scope} \"{}\"", s.name)
            }),
            Inst::Weight { index } => self.weights.get(*index as usize).map_or("?".into(), |w| format!("@{}", w.name)),
            Inst::Send { message: m } => {
                let to = self.messages.get(*m as usize).map_or("?".into(), |m| m.to.to_string());
                format!("to {to} {}", message(*m))
            }
            Inst::Receive { message: m } => {
                let from = self.messages.get(*m as usize).map_or("?".into(), |m| m.from.to_string());
                format!("from {from} {}", message(*m))
            }
            Inst::AddConst { value } => format!("{value:#x}"),
            Inst::Truncate { bits, carry } => format!("{bits}{}", if *carry == 1 { " carry" } else { "" }),
            Inst::Join { shift } => format!("<<{shift}"),
            Inst::Conv(shape) => shape.to_string(),
            Inst::Scale { factors } => format!("[{}]", runs(factors)),
            Inst::SumPool(pool) => pool.to_string(),
            Inst::Gather { outer, axis, inner, indices } => {
                format!("{outer}x{axis}x{inner} {} of {axis}", indices.len())
            }
            Inst::Transpose { shape, perm } => format!("{} {perm:?}", dims(shape)),
            Inst::Pad { channels, input: [h, w], pad: [t, l, b, r] } => format!("{channels}x{h}x{w} {t},{l},{b},{r}"),
            Inst::Assemble { inner, sources } => {
                let names: Vec<String> = sources
                    .iter()
                    .map(|s| match s {
                        Source::Operand(i) => format!("#{i}"),
                        Source::Zero => "0".into(),
                    })
                    .collect();
                format!("{inner} [{}]", runs(&names))
            }
            Inst::Planes { picks } => {
                let names: Vec<String> = picks.iter().map(|(i, p)| format!("#{i}.{p}")).collect();
                format!("[{}]", names.join(" "))
            }
            Inst::ToBits { low, count, pad } => {
                let zeros = if *pad == 0 { String::new() } else { format!(" over {pad} zeros") };
                format!("{low}..{}{zeros}", low + count)
            }
            Inst::BlockSum(map) | Inst::Gate(map) => blocks(map),
            Inst::NibbleOpen { public: p } => public(*p),
            Inst::CarryProducts { inputs } => inputs.to_string(),
            Inst::CarryOpen { inputs, public: p } => format!("{inputs} {}", public(*p)),
            Inst::Select { map, public: p } => format!("{} {}", blocks(map), public(*p)),
            _ => String::new(),
        }
    }

    fn line(&self, role: Role, i: &Instruction) -> String {
        let ids = |ids: &[u32]| ids.iter().map(|b| format!("%{b}")).collect::<Vec<_>>().join(" ");
        let mut line = String::new();
        if !i.outputs.is_empty() {
            line += &format!("{} = ", ids(&i.outputs));
        }
        line += i.inst.name();
        for part in [ids(&i.inputs), self.attributes(&i.inst).trim().to_string()] {
            if !part.is_empty() {
                line += &format!(" {part}");
            }
        }
        let types: Vec<String> = i
            .outputs
            .iter()
            .filter_map(|b| self.code(role).buffers.get(*b as usize).map(ToString::to_string))
            .collect();
        if !types.is_empty() {
            line += &format!(" : {}", types.join(", "));
        }
        line
    }
}

fn port(p: &Port) -> String {
    let gain = if p.gain == 1.0 { String::new() } else { format!(" gain={}", short(p.gain)) };
    format!("\"{}\" {} frac={} mod={}{gain} |x|<={}", p.name, dims(&p.shape), p.frac, p.modulus, short(p.bound))
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "program {} ring={}", self.name, self.ring)?;
        writeln!(f, "  input {}", port(&self.input))?;
        writeln!(f, "  output {}", port(&self.output))?;
        for role in Role::ALL {
            for phase in Phase::ALL {
                let code = &self.code(role).phases[phase.index()];
                if code.is_empty() {
                    continue;
                }
                writeln!(f, "\n{role} {phase}")?;
                for chunk in code.chunk_by(|a, b| a.layer == b.layer) {
                    let layer = chunk[0].layer as usize;
                    writeln!(f, "  # {}", self.layers.get(layer).map_or("?", |l| l.name.as_str()))?;
                    for i in chunk {
                        writeln!(f, "  {}", self.line(role, i))?;
                    }
                }
            }
        }
        Ok(())
    }
}
