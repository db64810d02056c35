//! The text form: one line per node, operands before users, no weights and no full floats.

use std::fmt;

use super::{ClientShare, ClientStep, ConstId, Evidence, Graph, Node, NodeId, Op};
use crate::geometry::Block;

/// Prints shapes as `1x16x28x28`.
pub(crate) fn dims(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// Prints a list run-length encoded: `16*1x1 4*identity`.
pub(crate) fn runs<T: PartialEq + fmt::Display>(items: &[T]) -> String {
    items
        .chunk_by(|a, b| a == b)
        .map(|run| if run.len() == 1 { run[0].to_string() } else { format!("{}*{}", run.len(), run[0]) })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Four significant digits.
pub(crate) fn short(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return format!("{x}");
    }
    let digits = (3 - x.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{x:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

fn evidence(e: Evidence) -> String {
    match e {
        Evidence::Proven => "proven".into(),
        Evidence::Observed { margin } => format!("observed x{}", short(margin)),
        Evidence::Derived => "derived".into(),
    }
}

impl Graph {
    fn print_const(&self, id: ConstId) -> String {
        match self.get_const(id) {
            Some(c) => format!("@{}[{}]", c.name, dims(&c.shape)),
            None => format!("@?{}", id.0),
        }
    }

    fn print_attributes(&self, op: &Op) -> String {
        let weights = |w: ConstId, b: Option<ConstId>| match b {
            Some(b) => format!("{} + {}", self.print_const(w), self.print_const(b)),
            None => self.print_const(w),
        };
        match op {
            Op::Conv { weight, bias, window, groups } => {
                let g = if *groups == 1 { String::new() } else { format!(" g={groups}") };
                format!("{} {window}{g}", weights(*weight, *bias))
            }
            Op::Dense { weight, bias } => weights(*weight, *bias),
            Op::Affine { scale, shift } => weights(*scale, Some(*shift)),
            Op::Pad { pad: [t, l, b, r] } => format!("{t},{l},{b},{r}"),
            Op::AvgPool { window, counted: [t, l, b, r] } => format!("{window} counted={t},{l},{b},{r}"),
            Op::MaxPool { window } => window.to_string(),
            Op::SumPool { window, divisor } => format!("{window} /{divisor}"),
            Op::Gather { axis, indices } => format!("axis={axis} [{}]", progressions(indices)),
            Op::Scatter { axis, size, indices } => format!("axis={axis} [{}] of {size}", progressions(indices)),
            Op::Concat { axis, .. } => format!("axis={axis}"),
            Op::Resample { axis, samples, bits } => {
                let bits = if *bits == 0 { String::new() } else { format!(" bits={bits}") };
                format!("axis={axis} to {}{bits}", samples.len())
            }
            Op::Reshape { shape } => dims(shape),
            Op::Transpose { perm } => format!("{perm:?}"),
            Op::BlockRelu { blocks, plannable } => {
                format!("[{}]{}", runs::<Block>(blocks), if *plannable { "" } else { " fixed" })
            }
            Op::Clip { low, high } => {
                let bound = |b: &Option<f64>| b.map_or_else(|| "..".to_string(), short);
                format!("[{}, {}]", bound(low), bound(high))
            }
            Op::Truncate { bits } | Op::Tag { bits } | Op::LowBits { bits } => bits.to_string(),
            Op::Divide { numerator, shift, divisors } => {
                let exact = if numerator.checked_ilog2() == Some(u32::from(*shift)) { "2^" } else { "" };
                let n = if exact.is_empty() { *numerator } else { u64::from(*shift) };
                format!("{exact}{n}/[{}]", runs(divisors))
            }
            Op::Input | Op::Add | Op::Sub | Op::Identity | Op::Remask | Op::Refresh => String::new(),
        }
    }

    /// One node as a line of the text form; `number` is the operand numbering.
    fn print_node(&self, id: NodeId, number: &dyn Fn(NodeId) -> String) -> String {
        let node = self.node(id);
        let mut line = format!("{} = {}", number(id), node.op.name());
        for o in self.operands(id) {
            line += &format!(" {}", number(o));
        }
        let attributes = self.print_attributes(&node.op);
        if !attributes.is_empty() {
            line += &format!(" {attributes}");
        }
        line += &format!(" : {}{}", dims(&node.shape), print_type(node));
        line += &format!("  \"{}\"", node.name);
        let others: Vec<&str> = node.origin.iter().map(String::as_str).filter(|o| *o != node.name).collect();
        if !others.is_empty() {
            line += &format!(" from {}", others.join(", "));
        }
        line
    }
}

/// `0:2:55` for 0, 2, .., 55-ish runs; single numbers stay.
fn progressions(indices: &[usize]) -> String {
    let mut parts = Vec::new();
    let mut i = 0;
    while i < indices.len() {
        let step = match indices.get(i + 1) {
            Some(n) if *n > indices[i] => n - indices[i],
            _ => {
                parts.push(indices[i].to_string());
                i += 1;
                continue;
            }
        };
        let mut j = i + 1;
        while j + 1 < indices.len() && Some(indices[j + 1]) == indices[j].checked_add(step) {
            j += 1;
        }
        if j - i >= 2 {
            parts.push(format!("{}..{} by {step}", indices[i], indices[j]));
            i = j + 1;
        } else {
            parts.push(indices[i].to_string());
            i += 1;
        }
    }
    parts.join(" ")
}

fn print_type(node: &Node) -> String {
    let mut text = String::new();
    if let Some(f) = node.fixed {
        text += &format!(" fix(frac={} mod={}", f.frac, f.modulus);
        if f.gain != 1.0 {
            text += &format!(" gain={}", short(f.gain));
        }
        text += match f.client {
            ClientShare::Dealt => " dealt)",
            ClientShare::Local => " local)",
        };
    }
    if let Some(r) = node.range {
        text += &format!(" |x|<={} {}", short(r.bound), evidence(r.evidence));
        if let Some((sum, e)) = r.block_sum {
            text += &format!(" |sum|<={} {}", short(sum), evidence(e));
        }
    }
    text
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "graph {}", self.name)?;
        if let Some(ring) = self.ring {
            write!(f, " ring={ring}")?;
        }
        writeln!(f)?;
        let order = self.topo();
        let number =
            |id: NodeId| order.iter().position(|&o| o == id).map_or_else(|| "%?".to_string(), |i| format!("%{i}"));
        for &id in &order {
            writeln!(f, "  {}", self.print_node(id, &number))?;
        }
        if let Some(output) = self.output() {
            writeln!(f, "  output {}", number(output))?;
        }
        for step in &self.epilogue {
            match step {
                ClientStep::Softmax { axis } => writeln!(f, "  client softmax axis={axis}")?,
                ClientStep::Reshape { shape } => writeln!(f, "  client reshape {}", dims(shape))?,
                ClientStep::Transpose { perm } => writeln!(f, "  client transpose {perm:?}")?,
                ClientStep::Resample { axis, samples } => {
                    writeln!(f, "  client resample axis={axis} to {}", samples.len())?;
                }
                ClientStep::ArgMax { axis, .. } => writeln!(f, "  client argmax axis={axis}")?,
                ClientStep::Class { bits } => writeln!(f, "  client class bits={bits}")?,
            }
        }
        Ok(())
    }
}
