//! The graph verifier (invariants listed at [`verify`]).

use std::collections::BTreeSet;
use std::fmt;

use super::{
    ClientShare, ConstData, ConstId, Evidence, Fixed, Graph, NodeId, Op, elements, epilogue_shape, infer_shape,
    interval,
};
use crate::geometry::Block;

/// How far a graph has come through the passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// As imported.
    Imported,
    /// After folding and canonicalization.
    Canonical,
    /// After the range pass.
    Ranged,
    /// After quantization.
    Quantized,
}

/// Most elements of one tensor, as in a program.
const MAX_LEN: usize = 1 << 36;

/// One broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the node, or of the graph.
    pub node: String,
    /// What is wrong.
    pub what: String,
}

/// All broken invariants of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(|v| format!("{}: {}", v.node, v.what)).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Violations {}

/// Largest number of pixels in one block of a Block-ReLU, 1 where no channel has a block: by how
/// much a block sum may exceed the bound of a pixel. `None` for other operators.
pub fn block_sum_factor(graph: &Graph, id: NodeId) -> Option<usize> {
    let node = graph.node(id);
    let Op::BlockRelu { blocks, .. } = &node.op else { return None };
    let (_, [h, w]) = node.map()?;
    let areas = blocks.iter().map(|b| match b {
        Block::Patch { h: bh, w: bw } => (*bh).min(h) * (*bw).min(w),
        Block::Identity | Block::Zero => 1,
    });
    areas.max()
}

/// Bound on the magnitude of what a gate takes the sign of, from a bound on its operand's pixels: of
/// block sums, or of the distances to the bounds of a clip. `None` for other operators.
pub fn sign_bound(graph: &Graph, id: NodeId, pixel: f64) -> Option<f64> {
    let node = graph.node(id);
    match node.op {
        Op::BlockRelu { .. } => block_sum_factor(graph, id).map(|factor| pixel * factor as f64),
        Op::Clip { .. } => {
            // Rounded to whole units, a bound moves by half a unit at most.
            let rounding = node.fixed.map_or(0.0, |f| f.unit() / 2.0);
            node.op.clip_bounds().into_iter().map(|b| pixel + b.abs() + rounding).reduce(f64::max)
        }
        _ => None,
    }
}

/// Verifies a graph. At every stage it holds that
///
/// 1. there is exactly one input, and the output is a node of the graph;
/// 2. there is no cycle, and every node has exactly the operands its operator takes;
/// 3. names are unique, and every node has an origin;
/// 4. the shape of every node is the one that follows from its operands, and holds 1 to 2^36
///    elements;
/// 5. constants hold as many elements as their shape says, and real ones are finite; the client's
///    steps fit the output.
///
/// From [`Stage::Canonical`] on:
///
/// 6. there is no affine map, identity, maximum pool; every node leads to the output;
/// 7. operators of quantized graphs appear in these alone.
///
/// From [`Stage::Ranged`] on:
///
/// 8. every node has a finite bound, a Block-ReLU also one on its block sums, a clip on the
///    distances to its bounds.
///
/// In a [`Stage::Quantized`] graph, with a bound in units of the value's last bit:
///
/// 9. every node has a fixed-point type that follows from its operands' types by its operator's
///    rule; the input's modulus is the ring, a Block-ReLU or clip keeps or lifts its operand's, a refresh
///    lifts it; summands have one scale; a linear layer's operand has a dealt client share and its
///    constants are integers;
/// 10. every bound is below half the modulus; below a quarter of it at the operand of a Block-ReLU
///     or refresh; a block sum is below half of the operand's modulus, the distances of a clip below
///     a quarter;
/// 11. every bound that is not observed follows from those before by interval arithmetic over the
///     integer weights, errors of truncation included; a bound called proven rests on no observed
///     one. So if the observed bounds hold, nothing overflows.
pub fn verify(graph: &Graph, stage: Stage) -> Result<(), Violations> {
    let mut v = Checker { graph, found: Vec::new() };
    v.structure();
    if v.found.is_empty() && stage >= Stage::Canonical {
        v.canonical(stage);
    }
    if v.found.is_empty() && stage >= Stage::Ranged {
        v.ranged();
    }
    if v.found.is_empty() && stage >= Stage::Quantized {
        v.types();
        if v.found.is_empty() {
            v.fits();
            v.intervals();
        }
    }
    if v.found.is_empty() { Ok(()) } else { Err(Violations(v.found)) }
}

struct Checker<'g> {
    graph: &'g Graph,
    found: Vec<Violation>,
}

impl Checker<'_> {
    fn report(&mut self, node: impl Into<String>, what: impl Into<String>) {
        self.found.push(Violation { node: node.into(), what: what.into() });
    }

    fn at(&mut self, id: NodeId, what: impl Into<String>) {
        let name = self.graph.node(id).name.clone();
        self.report(name, what);
    }

    fn structure(&mut self) {
        let g = self.graph;
        let order = g.topo();
        let outside = |id: &NodeId| !order.contains(id);
        if let Some(mut id) = g.dag.node_indices().find(outside) {
            // Every node left out has an operand left out, so walking back ends on a cycle.
            for _ in 0..g.len() {
                id = g.operands(id).into_iter().find(outside).unwrap_or(id);
            }
            self.at(id, "it lies on a cycle");
            return;
        }
        let inputs = order.iter().filter(|i| matches!(g.node(**i).op, Op::Input)).count();
        if inputs != 1 {
            self.report(&g.name, format!("the graph has {inputs} inputs, not one"));
        }
        if g.output().is_none_or(|o| !order.contains(&o)) {
            self.report(&g.name, "the graph has no output");
        }
        if let Some(output) = g.output().filter(|o| order.contains(o))
            && let Err(what) = epilogue_shape(&g.epilogue, &g.node(output).shape)
        {
            self.report(&g.name, what);
        }
        for (i, c) in g.consts.iter().enumerate() {
            if elements(&c.shape) != c.data.len() {
                self.report(format!("constant {i} \"{}\"", c.name), "its elements do not fill its shape");
            }
            if matches!(&c.data, ConstData::Float(v) if v.iter().any(|x| !x.is_finite())) {
                self.report(format!("constant {i} \"{}\"", c.name), "it holds a value that is not finite");
            }
        }
        let mut names = BTreeSet::new();
        for id in order {
            let node = g.node(id);
            if !names.insert(node.name.as_str()) {
                self.at(id, "another node has the same name");
            }
            if node.origin.is_empty() {
                self.at(id, "it does not say which ONNX node it comes from");
            }
            let mut positions: Vec<u8> =
                g.dag.edges_directed(id, petgraph::Direction::Incoming).map(|e| *e.weight()).collect();
            positions.sort_unstable();
            if !positions.iter().map(|p| usize::from(*p)).eq(0..node.op.arity()) {
                self.at(id, format!("{} takes {} operands, it has {positions:?}", node.op.name(), node.op.arity()));
                continue;
            }
            if node.is_empty() {
                self.at(id, format!("its shape {:?} is empty", node.shape));
            } else if node.len() > MAX_LEN {
                self.at(id, format!("its shape {:?} holds too many elements", node.shape));
            }
            if matches!(node.op, Op::Input) {
                continue;
            }
            let operands = g.operands(id);
            let shapes: Vec<&[usize]> = operands.iter().map(|o| g.node(*o).shape.as_slice()).collect();
            match infer_shape(&node.op, &shapes, |c| g.get_const(c).map(|c| c.shape.as_slice())) {
                Ok(shape) if shape == node.shape => {}
                Ok(shape) => self.at(id, format!("its shape is {:?}, not {shape:?}", node.shape)),
                Err(e) => self.at(id, e.to_string()),
            }
        }
    }

    fn canonical(&mut self, stage: Stage) {
        let g = self.graph;
        for id in g.topo() {
            let op = &g.node(id).op;
            if matches!(op, Op::Affine { .. } | Op::Identity | Op::MaxPool { .. }) {
                self.at(id, format!("{} is left in a canonical graph", op.name()));
            }
            let quantized = matches!(
                op,
                Op::SumPool { .. }
                    | Op::Divide { .. }
                    | Op::Truncate { .. }
                    | Op::Resample { bits: 1.., .. }
                    | Op::LowBits { .. }
                    | Op::Remask
                    | Op::Refresh
            );
            if quantized && stage < Stage::Quantized || matches!(op, Op::AvgPool { .. }) && stage == Stage::Quantized {
                self.at(id, format!("{} does not belong to this stage", op.name()));
            }
            if g.users(id).is_empty() && g.output() != Some(id) && !matches!(op, Op::Input) {
                self.at(id, "nothing uses it");
            }
        }
    }

    fn ranged(&mut self) {
        for id in self.graph.topo() {
            let node = self.graph.node(id);
            let sums = !matches!(node.op, Op::BlockRelu { .. } | Op::Clip { .. })
                || node.range.and_then(|r| r.block_sum).is_some_and(|(s, _)| s.is_finite() && s >= 0.0);
            match node.range {
                Some(r) if r.bound.is_finite() && r.bound >= 0.0 && sums => {}
                _ => self.at(id, "it has no finite bound"),
            }
        }
    }

    fn types(&mut self) {
        let g = self.graph;
        let Some(ring) = g.ring else {
            self.report(&g.name, "the ring width is not set");
            return;
        };
        for id in g.topo() {
            let node = g.node(id);
            let Some(fixed) = node.fixed else {
                self.at(id, "it has no fixed-point type");
                continue;
            };
            if fixed.modulus == 0
                || fixed.modulus > ring
                || ring > 64
                || fixed.frac > 62
                || !fixed.gain.is_finite()
                || fixed.gain <= 0.0
            {
                self.at(id, format!("its type is out of bounds (modulus {}, ring {ring})", fixed.modulus));
                continue;
            }
            let real = |c: &ConstId| !matches!(g.get_const(*c).map(|c| &c.data), Some(ConstData::Int(_)));
            if node.op.consts().iter().any(real) {
                self.at(id, "its constants are not integers");
            }
            let operands: Vec<Fixed> = g.operands(id).iter().filter_map(|o| g.node(*o).fixed).collect();
            if operands.len() == node.op.arity()
                && let Err(what) = type_rule(&node.op, ring, fixed, &operands)
            {
                self.at(id, what);
            }
        }
    }

    fn fits(&mut self) {
        let g = self.graph;
        let units = |id: NodeId| {
            let node = g.node(id);
            let (Some(r), Some(f)) = (node.range, node.fixed) else { return (f64::INFINITY, 0) };
            (r.bound / f.unit(), f.modulus)
        };
        for id in g.topo() {
            let (bound, k) = units(id);
            // What is reduced to its low bits fits, whatever it was.
            if bound >= half(k) && !matches!(g.node(id).op, Op::LowBits { .. }) {
                self.at(id, format!("its values reach {bound:.0} units, more than {k} bits hold"));
            }
            let node = g.node(id);
            if matches!(node.op, Op::BlockRelu { .. } | Op::Clip { .. } | Op::Refresh) {
                let (bound, k) = units(g.operand(id));
                if bound >= half(k) / 2.0 {
                    self.at(id, format!("its operand reaches {bound:.0} units, more than a quarter of {k} bits"));
                }
                let sum = node.range.and_then(|r| r.block_sum).map_or(0.0, |(s, _)| s);
                let sum = node.fixed.map_or(f64::INFINITY, |f| sum / f.unit());
                let room = if matches!(node.op, Op::Clip { .. }) { half(k) / 2.0 } else { half(k) };
                if sum >= room {
                    self.at(id, format!("its block sums reach {sum:.0} units, more than {k} bits hold"));
                }
            }
        }
    }

    fn intervals(&mut self) {
        let g = self.graph;
        let bounds = interval::propagate(g);
        for id in g.topo() {
            let node = g.node(id);
            let (Some(range), Some(b)) = (node.range, bounds.get(&id)) else { continue };
            // Rounding of the interval arithmetic itself.
            let slack = |x: f64| x * (1.0 + 1e-9) + 1e-9;
            if !matches!(range.evidence, Evidence::Observed { .. }) && interval::bound(&b.derived) > slack(range.bound)
            {
                let derived = interval::bound(&b.derived);
                self.at(id, format!("its bound {} does not follow: intervals give {derived}", range.bound));
            }
            if range.evidence == Evidence::Proven && !b.proven {
                self.at(id, "its bound is called proven but rests on an observed one");
            }
            let Some((sum, evidence)) = range.block_sum else { continue };
            if matches!(evidence, Evidence::Observed { .. }) {
                continue;
            }
            let operand = g.operand(id);
            let pixel = bounds.get(&operand).map_or(f64::INFINITY, |b| interval::bound(&b.channels));
            let reach = sign_bound(g, id, pixel).unwrap_or(pixel);
            if reach > slack(sum) {
                self.at(id, format!("its block sums may reach {reach}, not {sum}"));
            }
            if evidence == Evidence::Proven && !bounds.get(&operand).is_some_and(|b| b.proven) {
                self.at(id, "its bound on block sums is called proven but rests on an observed one");
            }
        }
    }
}

fn half(modulus: u8) -> f64 {
    (f64::from(modulus) - 1.0).exp2()
}

/// The typing rule of one operator.
fn type_rule(op: &Op, ring: u8, out: Fixed, operands: &[Fixed]) -> Result<(), String> {
    use ClientShare::{Dealt, Local};
    let expect = |want: Fixed| {
        let same_scale = (out.unit() / want.unit() - 1.0).abs() < 1e-9;
        if out.modulus == want.modulus && out.frac == want.frac && same_scale && out.client == want.client {
            Ok(())
        } else {
            Err(format!("its type is {out:?}, its operands give {want:?}"))
        }
    };
    let Some(&x) = operands.first() else {
        return if out.client == Dealt && out.modulus == ring {
            Ok(())
        } else {
            Err("the input is dealt, in the full ring".into())
        };
    };
    match op {
        Op::Conv { .. } | Op::Dense { .. } => {
            if x.client != Dealt {
                return Err("its operand's client share is not dealt".into());
            }
            expect(Fixed { client: Local, modulus: x.modulus, ..out })
        }
        Op::Add | Op::Sub => {
            let y = operands[1];
            if (x.unit() / y.unit() - 1.0).abs() > 1e-9 {
                return Err(format!("its operands have different scales, {} and {}", x.unit(), y.unit()));
            }
            let client = if x.client == Dealt && y.client == Dealt { Dealt } else { Local };
            expect(Fixed { modulus: x.modulus.min(y.modulus), client, ..x })
        }
        Op::Concat { .. } => {
            if let Some(y) = operands.iter().find(|y| (x.unit() / y.unit() - 1.0).abs() > 1e-9) {
                return Err(format!("its operands have different scales, {} and {}", x.unit(), y.unit()));
            }
            let client = if operands.iter().all(|y| y.client == Dealt) { Dealt } else { Local };
            expect(Fixed { modulus: operands.iter().map(|y| y.modulus).min().unwrap_or(0), client, ..x })
        }
        Op::Resample { bits, .. } => expect(Fixed { frac: x.frac.saturating_add(*bits), ..x }),
        Op::Truncate { bits } => {
            if *bits > x.frac || *bits >= x.modulus {
                return Err(format!("cannot drop {bits} of {} fraction bits", x.frac));
            }
            expect(Fixed { frac: x.frac - bits, modulus: x.modulus - bits, ..x })
        }
        Op::Tag { bits } => {
            let modulus = x.modulus.saturating_add(*bits).min(ring);
            expect(Fixed { frac: x.frac.saturating_add(*bits), modulus, ..x })
        }
        Op::LowBits { bits } => {
            if *bits > x.modulus {
                return Err(format!("cannot take {bits} of {} bits", x.modulus));
            }
            expect(Fixed { frac: 0, modulus: *bits, gain: 1.0, ..x })
        }
        Op::SumPool { divisor, .. } => expect(Fixed { gain: x.gain / *divisor as f64, ..x }),
        Op::Divide { numerator, shift, .. } => {
            let gain = x.gain * f64::from(*shift).exp2() / *numerator as f64;
            expect(Fixed { frac: x.frac.saturating_add(*shift), gain, ..x })
        }
        Op::Remask => expect(Fixed { client: Dealt, ..x }),
        Op::BlockRelu { .. } | Op::Clip { .. } | Op::Refresh => {
            let least = x.modulus.saturating_add(u8::from(matches!(op, Op::Refresh)));
            if out.modulus < least {
                return Err(format!("it lifts {} bits to {}", x.modulus, out.modulus));
            }
            expect(Fixed { client: Dealt, modulus: out.modulus, ..x })
        }
        _ => expect(x),
    }
}
