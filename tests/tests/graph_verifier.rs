//! The graph verifier refuses graphs that break one of its numbered invariants, and names the node.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;

use bcc_compiler::compile::{Observer, Quiet, compile_graph};
use bcc_compiler::passes::{BlockChoice, Pass};
use bcc_ir::geometry::Window;
use bcc_ir::graph::{
    ClientShare, ConstData, ConstId, Evidence, Fixed, Graph, Node, NodeId, Op, Range, Stage, Violations, verify,
};
use bcc_tests::nets::{TINY, built, compiled, mixed_plan, options, random_images};
use bcc_tests::random::Numbers;
use serde_json::{Value, json};

/// Quantized with calibration: observed, derived and proven bounds, re-masks, refreshes.
fn quantized(name: &str, mixed: bool) -> Graph {
    let graph = built(name);
    let images = random_images(&graph, 4, 7);
    let choice = if mixed { BlockChoice::Plan(mixed_plan(&graph)) } else { BlockChoice::Keep };
    compiled(graph, &options(choice, images)).graph
}

fn subjects() -> Vec<Graph> {
    vec![quantized("tiny_residual", true), quantized("tiny_pools", false), identities()]
}

/// Linear layers in a row: one re-masked, and one refreshed.
fn identities() -> Graph {
    let graph = built("tiny_plain");
    let images = random_images(&graph, 4, 7);
    let mut o = options(BlockChoice::Uniform(bcc_ir::Block::Identity), images);
    o.passes.ring = Some(48);
    compiled(graph, &o).graph
}

/// All bounds proven: no calibration.
fn proven() -> Graph {
    let mut o = options(BlockChoice::Keep, Vec::new());
    o.passes.input_bound = Some(1.5);
    compiled(built("tiny_residual"), &o).graph
}

#[derive(Default)]
struct Stages(Vec<(Stage, Graph)>);

impl Observer for Stages {
    fn end(&mut self, pass: Option<&Pass>, graph: &Graph) {
        self.0.push((pass.map_or(Stage::Imported, |p| p.stage), graph.clone()));
    }
}

fn stages(name: &str) -> Vec<(Stage, Graph)> {
    let graph = built(name);
    let images = random_images(&graph, 4, 7);
    let mut stages = Stages::default();
    compile_graph(graph, &options(BlockChoice::Keep, images), &mut stages).unwrap();
    stages.0
}

fn canonical(name: &str) -> Graph {
    stages(name).into_iter().find(|(s, _)| *s == Stage::Canonical).unwrap().1
}

/// The graph is refused, `node` is named and one of its faults says `what`.
#[track_caller]
fn refused(graph: &Graph, stage: Stage, node: &str, what: &str) {
    let Err(Violations(found)) = verify(graph, stage) else { panic!("accepted; wanted {node}: {what}") };
    let named = found.iter().any(|v| v.node.contains(node) && v.what.contains(what));
    assert!(named, "wanted {node}: {what}; found\n{}", Violations(found));
}

/// The graph is refused at that node or at one that reads it.
#[track_caller]
fn refused_nearby(graph: &Graph, id: NodeId, what: &str) {
    let Err(Violations(found)) = verify(graph, Stage::Quantized) else {
        panic!("accepted: {what} of {}", graph.node(id).name)
    };
    let mut near: Vec<NodeId> = graph.users(id);
    near.push(id);
    let named = found.iter().any(|v| near.iter().any(|n| graph.node(*n).name == v.node));
    assert!(named, "{what} of {}: found\n{}", graph.node(id).name, Violations(found));
}

fn mutated(graph: &Graph, id: NodeId, change: impl FnOnce(&mut Node)) -> Graph {
    let mut mutant = graph.clone();
    change(mutant.node_mut(id));
    mutant
}

/// A graph with its serialized form changed, past all builders.
fn rewritten(graph: &Graph, change: impl FnOnce(&mut Value)) -> Graph {
    let mut value = serde_json::to_value(graph).unwrap();
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn all(graph: &Graph, is: impl Fn(&Op) -> bool) -> Vec<NodeId> {
    graph.topo().into_iter().filter(|i| is(&graph.node(*i).op)).collect()
}

fn range(graph: &Graph, id: NodeId) -> Range {
    graph.node(id).range.unwrap()
}

fn fixed(graph: &Graph, id: NodeId) -> Fixed {
    graph.node(id).fixed.unwrap()
}

/// A real range from a bound in units of the node.
fn reaching(graph: &Graph, id: NodeId, units: f64) -> Range {
    Range {
        bound: units * fixed(graph, id).unit(),
        evidence: Evidence::Observed { margin: 2.0 },
        block_sum: range(graph, id).block_sum,
    }
}

const OBSERVED: Evidence = Evidence::Observed { margin: 2.0 };

#[test]
fn the_subjects_pass_and_have_every_operator() {
    let mut seen = BTreeSet::new();
    for g in subjects().into_iter().chain([proven()]) {
        verify(&g, Stage::Quantized).unwrap();
        seen.extend(g.topo().into_iter().map(|i| g.node(i).op.name()));
    }
    let want = [
        "add",
        "block_relu",
        "conv",
        "dense",
        "divide",
        "gather",
        "input",
        "reduce",
        "refresh",
        "remask",
        "reshape",
        "sub",
        "sum_pool",
        "truncate",
    ];
    assert!(want.iter().all(|w| seen.contains(w)), "{seen:?}");
}

/// Invariant 1.
#[test]
fn one_input_and_an_output() {
    for g in subjects() {
        let mut two = g.clone();
        two.add_input("second", vec![1, 2]);
        refused(&two, Stage::Imported, &g.name, "2 inputs");
        refused(&Graph::new("empty"), Stage::Imported, "empty", "0 inputs");
        refused(&Graph::new("empty"), Stage::Imported, "empty", "no output");
        refused(&rewritten(&g, |v| v["output"] = Value::Null), Stage::Imported, &g.name, "no output");
        let mut elsewhere = g.clone();
        elsewhere.set_output(NodeId::new(9999));
        refused(&elsewhere, Stage::Imported, &g.name, "no output");
    }
}

/// Invariant 2: a cycle from any node to any other behind it.
#[test]
fn cycles() {
    for g in subjects() {
        let order = g.topo();
        let mut tried = 0;
        for (i, &early) in order.iter().enumerate().skip(1) {
            for &late in order[i..].iter().step_by(5) {
                let mut cyclic = g.clone();
                cyclic.set_operand(early, 0, late);
                let order = cyclic.topo();
                if order.len() == cyclic.len() {
                    // `late` does not depend on `early`.
                    continue;
                }
                let Err(Violations(found)) = verify(&cyclic, Stage::Imported) else { panic!("a cycle is accepted") };
                let [fault] = found.as_slice() else { panic!("{found:?}") };
                assert!(fault.what.contains("cycle"), "{fault:?}");
                let named = cyclic.find(&fault.node).unwrap();
                assert!(reaches(&cyclic, named, named), "\"{}\" is on no cycle", fault.node);
                assert!(!cyclic.to_string().is_empty());
                tried += 1;
            }
        }
        assert!(tried > 15, "{tried}");
    }
}

fn reaches(graph: &Graph, from: NodeId, to: NodeId) -> bool {
    let (mut seen, mut stack) = (BTreeSet::new(), graph.users(from));
    while let Some(id) = stack.pop() {
        if id == to {
            return true;
        }
        if seen.insert(id) {
            stack.extend(graph.users(id));
        }
    }
    false
}

/// Invariant 2: operands missing, too many, at odd positions.
#[test]
fn operands() {
    for g in subjects() {
        let edges = serde_json::to_value(&g).unwrap()["dag"]["edges"].as_array().unwrap().clone();
        for (i, edge) in edges.iter().enumerate() {
            let Some(target) = edge.get(1).and_then(Value::as_u64) else { continue };
            let name = g.node(NodeId::new(target as usize)).name.clone();
            let takes = "operands, it has";
            let missing = rewritten(&g, |v| v["dag"]["edges"][i] = Value::Null);
            refused(&missing, Stage::Imported, &name, takes);
            for position in [2, 7, 255] {
                let odd = rewritten(&g, |v| v["dag"]["edges"][i][2] = json!(position));
                refused(&odd, Stage::Imported, &name, takes);
            }
            let twice = rewritten(&g, |v| v["dag"]["edges"].as_array_mut().unwrap().push(edge.clone()));
            refused(&twice, Stage::Imported, &name, takes);
        }
        let input = g.input().unwrap();
        refused(&mutated(&g, input, |n| n.op = Op::Remask), Stage::Imported, &g.node(input).name, "it has []");
    }
}

/// Invariant 3.
#[test]
fn names_and_origins() {
    for g in subjects() {
        let order = g.topo();
        for (i, &id) in order.iter().enumerate() {
            let other = g.node(order[(i + 1) % order.len()]).name.clone();
            let twin = mutated(&g, id, |n| n.name = other.clone());
            refused(&twin, Stage::Imported, &other, "same name");
            let orphan = mutated(&g, id, |n| n.origin.clear());
            refused(&orphan, Stage::Imported, &g.node(id).name, "ONNX node");
        }
    }
}

/// Invariant 4: every axis of every node, larger, smaller, empty and absurd.
#[test]
fn shapes() {
    for g in subjects() {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            for axis in 0..g.node(id).shape.len() {
                let n = g.node(id).shape[axis];
                for size in [n + 1, n - 1, 0, usize::MAX, 1 << 40, usize::MAX / 2 + 1] {
                    let other = mutated(&g, id, |n| n.shape[axis] = size);
                    if matches!(g.node(id).op, Op::Input) && n > 0 && size > 0 && size < 100 {
                        // Declared, so those who read it no longer fit.
                        refused_nearby(&other, id, "shape");
                    } else {
                        refused(&other, Stage::Imported, &name, "shape");
                    }
                    assert!(!other.to_string().is_empty());
                }
            }
            let flat = mutated(&g, id, |n| n.shape = vec![n.len()]);
            refused_nearby(&flat, id, "shape");
            let scalar = mutated(&g, id, |n| n.shape.clear());
            refused_nearby(&scalar, id, "shape");
        }
    }
}

/// Invariant 4: attributes that do not fit, or whose sizes overflow.
#[test]
fn attributes() {
    const HUGE: [usize; 4] = [usize::MAX, usize::MAX / 2 + 1, 1 << 40, isize::MAX as usize];
    for g in subjects().into_iter().chain([canonical("tiny_pools"), stages("tiny_pools").swap_remove(0).1]) {
        for id in g.topo() {
            let mut mutants: Vec<Op> = Vec::new();
            let mut push = |op: &Op| mutants.push(op.clone());
            let mut windows = |window: Window, op: &dyn Fn(Window) -> Op| {
                for i in 0..4 {
                    for huge in HUGE {
                        let (mut pad, mut kernel, mut stride, mut dilation) = (window, window, window, window);
                        pad.pad[i] = huge;
                        kernel.kernel[i % 2] = huge;
                        stride.stride[i % 2] = if i < 2 { 0 } else { huge };
                        dilation.dilation[i % 2] = if i < 2 { 0 } else { huge };
                        push(&op(pad));
                        push(&op(kernel));
                        push(&op(stride));
                        push(&op(dilation));
                    }
                }
            };
            match g.node(id).op.clone() {
                Op::Conv { weight, bias, window, groups } => {
                    windows(window, &|window| Op::Conv { weight, bias, window, groups });
                    for groups in HUGE.into_iter().chain([0]) {
                        push(&Op::Conv { weight, bias, window, groups });
                    }
                    push(&Op::Conv { weight: ConstId(u32::MAX), bias, window, groups });
                    push(&Op::Conv { weight, bias: Some(ConstId(7777)), window, groups });
                    push(&Op::Conv { weight, bias: Some(weight), window, groups });
                }
                Op::Dense { weight, bias } => {
                    push(&Op::Dense { weight: ConstId(u32::MAX), bias });
                    push(&Op::Dense { weight, bias: Some(ConstId(7777)) });
                }
                Op::AvgPool { window, counted } => windows(window, &|window| Op::AvgPool { window, counted }),
                Op::SumPool { window, divisor } => windows(window, &|window| Op::SumPool { window, divisor }),
                Op::MaxPool { window } => windows(window, &|window| Op::MaxPool { window }),
                Op::Gather { axis, indices } => {
                    for axis in [4, usize::MAX] {
                        push(&Op::Gather { axis, indices: indices.clone() });
                    }
                    push(&Op::Gather { axis, indices: vec![usize::MAX; indices.len()] });
                    push(&Op::Gather { axis, indices: Vec::new() });
                }
                Op::Reshape { .. } => {
                    push(&Op::Reshape { shape: vec![] });
                    push(&Op::Reshape { shape: vec![usize::MAX, usize::MAX] });
                    push(&Op::Reshape { shape: vec![1 << 32, 1 << 32] });
                }
                Op::BlockRelu { blocks, plannable } => {
                    push(&Op::BlockRelu { blocks: blocks[1..].to_vec(), plannable });
                    let none = bcc_ir::Block::Patch { h: 0, w: 1 };
                    push(&Op::BlockRelu { blocks: vec![none; blocks.len()], plannable });
                }
                Op::Divide { shift, divisors } => {
                    push(&Op::Divide { shift, divisors: vec![0; divisors.len()] });
                    push(&Op::Divide { shift, divisors: Vec::new() });
                }
                Op::Add => {
                    push(&Op::Pad { pad: [usize::MAX; 4] });
                    push(&Op::Transpose { perm: vec![usize::MAX; 4] });
                }
                _ => {}
            }
            for op in mutants {
                let text = format!("{op:?}");
                let mutant = mutated(&g, id, |n| n.op = op);
                let Err(Violations(found)) = verify(&mutant, Stage::Imported) else {
                    // A wider step over a map that one window covers is the same map.
                    let single = matches!(
                        mutant.node(id).op,
                        Op::Conv { window, .. } | Op::SumPool { window, .. } | Op::AvgPool { window, .. }
                            | Op::MaxPool { window }
                            if window.stride.contains(&usize::MAX) || window.stride.iter().any(|s| *s > 1 << 30)
                                || window.dilation.iter().any(|s| *s > 1 << 30)
                    );
                    assert!(single, "accepted: {} as {text}", g.node(id).name);
                    for stage in [Stage::Canonical, Stage::Ranged, Stage::Quantized] {
                        let _ = verify(&mutant, stage);
                    }
                    continue;
                };
                assert!(found.iter().any(|v| v.node == g.node(id).name), "{text}: {}", Violations(found));
                assert!(!mutant.to_string().is_empty());
            }
        }
    }
    // Padding whose size overflows, under an input that fits it.
    let mut g = Graph::new("pads");
    let x = g.add_input("x", vec![1, 1, 4, 4]);
    for pad in [[usize::MAX, 0, 0, 0], [1, 0, usize::MAX, 0], [0, usize::MAX / 2, 0, usize::MAX / 2]] {
        assert!(g.add("pad", vec!["pad".into()], Op::Pad { pad }, &[x]).is_err(), "{pad:?}");
    }
    let wide = g.add("pad", vec!["pad".into()], Op::Pad { pad: [0, 1 << 40, 0, 0] }, &[x]).unwrap();
    g.set_output(wide);
    refused(&g, Stage::Imported, "pad", "too many elements");
}

/// Invariant 5.
#[test]
fn constants() {
    for g in subjects().into_iter().chain([canonical("tiny_plain")]) {
        let count = all(&g, Op::is_linear_layer).iter().map(|i| g.node(*i).op.consts().len()).sum::<usize>();
        for i in 0..count as u32 {
            let id = ConstId(i);
            let c = g.constant(id).clone();
            let mut longer = c.shape.clone();
            longer[0] += 1;
            let mut overflowing = c.shape.clone();
            overflowing.extend([usize::MAX, usize::MAX]);
            for shape in [longer, overflowing, Vec::new()] {
                let mut mutant = g.clone();
                mutant.set_const(id, shape, c.data.clone());
                if c.shape != [1] || !mutant.constant(id).shape.is_empty() {
                    refused(&mutant, Stage::Imported, &c.name, "fill its shape");
                }
            }
            let ConstData::Float(values) = &c.data else { continue };
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = values.clone();
                *values.last_mut().unwrap() = bad;
                let mut mutant = g.clone();
                mutant.set_const(id, c.shape.clone(), ConstData::Float(values));
                refused(&mutant, Stage::Imported, &c.name, "not finite");
            }
        }
    }
}

/// Invariant 6.
#[test]
fn what_canonical_graphs_leave_behind() {
    let imported = stages("tiny_pools").swap_remove(0).1;
    for (op, what) in [("affine", "affine is left"), ("max_pool", "max_pool is left")] {
        for id in all(&imported, |o| o.name() == op) {
            refused(&imported, Stage::Canonical, &imported.node(id).name, what);
        }
    }
    let g = canonical("tiny_pools");
    for id in all(&g, |o| matches!(o, Op::BlockRelu { .. })) {
        let idle = mutated(&g, id, |n| n.op = Op::Identity);
        refused(&idle, Stage::Canonical, &g.node(id).name, "identity is left");
        let mut dead = g.clone();
        let extra = dead.add("unused", vec!["unused".into()], Op::Pad { pad: [1; 4] }, &[id]).unwrap();
        refused(&dead, Stage::Canonical, &dead.node(extra).name, "nothing uses it");
    }
}

/// Invariant 7.
#[test]
fn operators_of_another_stage() {
    for g in subjects() {
        let late = all(&g, |o| {
            matches!(o, Op::Truncate { .. } | Op::Refresh | Op::Remask | Op::Reduce { .. } | Op::Divide { .. })
                || matches!(o, Op::SumPool { .. })
        });
        for id in late {
            refused(&g, Stage::Canonical, &g.node(id).name, "does not belong");
            refused(&g, Stage::Ranged, &g.node(id).name, "does not belong");
        }
        for id in all(&g, |o| matches!(o, Op::SumPool { .. })) {
            let Op::SumPool { window, .. } = g.node(id).op else { continue };
            let early = mutated(&g, id, |n| n.op = Op::AvgPool { window, counted: [0; 4] });
            refused(&early, Stage::Quantized, &g.node(id).name, "avg_pool does not belong");
        }
    }
}

/// Invariant 8.
#[test]
fn bounds_are_there_and_finite() {
    for (stage, g) in stages("tiny_residual").into_iter().filter(|(s, _)| *s >= Stage::Ranged) {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            refused(&mutated(&g, id, |n| n.range = None), stage, &name, "no finite bound");
            for bound in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
                let r = Range { bound, ..range(&g, id) };
                refused(&mutated(&g, id, |n| n.range = Some(r)), stage, &name, "no finite bound");
                if range(&g, id).block_sum.is_some() {
                    let r = Range { block_sum: Some((bound, OBSERVED)), ..range(&g, id) };
                    refused(&mutated(&g, id, |n| n.range = Some(r)), stage, &name, "no finite bound");
                }
            }
            if range(&g, id).block_sum.is_some() {
                let r = Range { block_sum: None, ..range(&g, id) };
                refused(&mutated(&g, id, |n| n.range = Some(r)), stage, &name, "no finite bound");
            }
        }
    }
}

/// Invariant 9: every field of every node's type, one up, one down.
///
/// One change is no fault: the scale of the input. It is declared like its shape, and with the
/// integer weights given it decides only which real numbers they stand for; where bounds follow
/// from it, the layer that reads it is refused.
#[test]
fn every_field_of_every_type() {
    for g in subjects().into_iter().chain([proven()]) {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            let f = fixed(&g, id);
            let client = if f.client == ClientShare::Dealt { ClientShare::Local } else { ClientShare::Dealt };
            let scales = [
                Fixed { frac: f.frac + 1, ..f },
                Fixed { frac: f.frac - 1, ..f },
                Fixed { gain: f.gain * 2.0, ..f },
                Fixed { gain: f.gain * (1.0 + 1e-6), ..f },
            ];
            let others = [
                Fixed { modulus: f.modulus + 1, ..f },
                Fixed { modulus: f.modulus - 1, ..f },
                Fixed { modulus: f.modulus + 8, ..f },
                Fixed { client, ..f },
            ];
            let absurd = [
                Fixed { modulus: 0, ..f },
                Fixed { modulus: 255, ..f },
                Fixed { frac: 63, ..f },
                Fixed { frac: 255, ..f },
                Fixed { gain: 0.0, ..f },
                Fixed { gain: -f.gain, ..f },
                Fixed { gain: f64::NAN, ..f },
                Fixed { gain: f64::INFINITY, ..f },
            ];
            let input = matches!(g.node(id).op, Op::Input);
            for other in scales {
                if !input {
                    refused_nearby(&mutated(&g, id, |n| n.fixed = Some(other)), id, &format!("{other:?}"));
                }
            }
            for other in others.into_iter().chain(absurd) {
                refused(&mutated(&g, id, |n| n.fixed = Some(other)), Stage::Quantized, &name, "");
            }
            refused(&mutated(&g, id, |n| n.fixed = None), Stage::Quantized, &name, "no fixed-point type");
        }
    }
    let g = proven();
    let input = g.input().unwrap();
    let f = fixed(&g, input);
    for other in [Fixed { frac: f.frac + 1, ..f }, Fixed { gain: f.gain / 2.0, ..f }] {
        refused_nearby(&mutated(&g, input, |n| n.fixed = Some(other)), input, "scale");
    }
}

/// Invariant 9: the operators' own numbers.
#[test]
fn attributes_of_quantized_operators() {
    for g in subjects() {
        for id in g.topo() {
            let mutants: Vec<Op> = match g.node(id).op.clone() {
                Op::Truncate { bits } => [bits + 1, bits - 1, 0, 63, 255].map(|bits| Op::Truncate { bits }).into(),
                Op::Reduce { modulus } => {
                    [modulus + 1, modulus - 1, 0, 255].map(|modulus| Op::Reduce { modulus }).into()
                }
                Op::Divide { shift, divisors } => {
                    [shift + 1, shift - 1, 0, 255].map(|shift| Op::Divide { shift, divisors: divisors.clone() }).into()
                }
                Op::SumPool { window, divisor } => {
                    [divisor + 1, divisor * 2, 0, usize::MAX].map(|divisor| Op::SumPool { window, divisor }).into()
                }
                Op::Refresh => vec![Op::Remask],
                Op::Remask if fixed(&g, id).modulus != g.ring.unwrap() => vec![Op::Refresh],
                _ => Vec::new(),
            };
            for op in mutants {
                let what = format!("{op:?}");
                refused_nearby(&mutated(&g, id, |n| n.op = op), id, &what);
            }
        }
    }
}

/// Invariant 9: the ring.
#[test]
fn the_ring() {
    for g in subjects() {
        let at = |ring: Option<u8>| {
            let mut mutant = g.clone();
            mutant.ring = ring;
            mutant
        };
        refused(&at(None), Stage::Quantized, &g.name, "ring width is not set");
        let input = g.node(g.input().unwrap()).name.clone();
        let ring = g.ring.unwrap();
        for other in [0, 1, ring - 8, ring - 1, ring + 1, ring + 8, 65, 72, 255] {
            refused(&at(Some(other)), Stage::Quantized, &input, "");
        }
    }
}

/// Invariant 9: what a linear layer reads.
#[test]
fn linear_layers_read_dealt_values_and_integers() {
    let g = identities();
    let made = all(&g, |o| matches!(o, Op::Remask | Op::Refresh));
    assert!(!made.is_empty());
    for id in made {
        let layer = g.users(id)[0];
        let mut mutant = g.clone();
        let operand = mutant.operand(id);
        mutant.bypass(id, operand);
        refused(&mutant, Stage::Quantized, &g.node(layer).name, "not dealt");
    }
    for g in subjects() {
        for id in all(&g, Op::is_linear_layer) {
            for c in g.node(id).op.consts() {
                let mut mutant = g.clone();
                let constant = g.constant(c);
                let ConstData::Int(v) = &constant.data else { panic!("{} is not quantized", constant.name) };
                let real = ConstData::Float(v.iter().map(|x| *x as f32).collect());
                mutant.set_const(c, constant.shape.clone(), real);
                refused(&mutant, Stage::Quantized, &g.node(id).name, "not integers");
            }
        }
    }
}

/// Invariant 9: summands on different scales, each branch consistent in itself.
#[test]
fn summands_have_one_scale() {
    let g = quantized("tiny_residual", true);
    for id in all(&g, |o| matches!(o, Op::Add)) {
        for truncated in g.operands(id) {
            if !matches!(g.node(truncated).op, Op::Truncate { .. }) {
                continue;
            }
            let mut mutant = g.clone();
            for n in [truncated, g.operand(truncated)] {
                let f = fixed(&g, n);
                mutant.node_mut(n).fixed = Some(Fixed { gain: 0.5, ..f });
            }
            refused(&mutant, Stage::Quantized, &g.node(id).name, "different scales");
            let mut finer = g.clone();
            for n in [truncated, g.operand(truncated)] {
                let f = fixed(&g, n);
                finer.node_mut(n).fixed = Some(Fixed { frac: f.frac - 1, ..f });
            }
            refused(&finer, Stage::Quantized, &g.node(id).name, "");
        }
    }
}

/// Invariant 10: every value that fills its modulus, gates' operands at a quarter, block sums.
#[test]
fn values_that_do_not_fit() {
    for g in subjects() {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            let half = (f64::from(fixed(&g, id).modulus) - 1.0).exp2();
            let full = reaching(&g, id, half);
            refused(&mutated(&g, id, |n| n.range = Some(full)), Stage::Quantized, &name, "bits hold");
            let gate = matches!(g.node(id).op, Op::BlockRelu { .. } | Op::Refresh);
            if !gate {
                continue;
            }
            let operand = g.operand(id);
            let half = (f64::from(fixed(&g, operand).modulus) - 1.0).exp2();
            let quarter = reaching(&g, operand, half / 2.0);
            let mutant = mutated(&g, operand, |n| n.range = Some(quarter));
            refused(&mutant, Stage::Quantized, &name, "more than a quarter");
            if let Some((_, _)) = range(&g, id).block_sum {
                let sum = half * fixed(&g, id).unit();
                let r = Range { block_sum: Some((sum, OBSERVED)), ..range(&g, id) };
                let mutant = mutated(&g, id, |n| n.range = Some(r));
                refused(&mutant, Stage::Quantized, &name, "block sums reach");
                let r = Range { block_sum: Some((sum * 0.999, OBSERVED)), ..range(&g, id) };
                verify(&mutated(&g, id, |n| n.range = Some(r)), Stage::Quantized).unwrap();
            }
        }
    }
}

/// Invariant 11: every bound that follows, one percent too small.
#[test]
fn bounds_that_do_not_follow() {
    let (mut values, mut sums) = (0, 0);
    for g in subjects().into_iter().chain([proven()]) {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            let r = range(&g, id);
            let less = Range { bound: r.bound * 0.99, ..r };
            let mutant = mutated(&g, id, |n| n.range = Some(less));
            let observed = matches!(r.evidence, Evidence::Observed { .. });
            if !observed && !matches!(g.node(id).op, Op::Input) {
                refused(&mutant, Stage::Quantized, &name, "does not follow");
                values += 1;
            }
            if let Some((sum, evidence)) = r.block_sum
                && !matches!(evidence, Evidence::Observed { .. })
            {
                let less = Range { block_sum: Some((sum * 0.99, evidence)), ..r };
                refused(&mutated(&g, id, |n| n.range = Some(less)), Stage::Quantized, &name, "block sums may reach");
                sums += 1;
            }
        }
    }
    assert!(values > 80 && sums > 10, "{values} {sums}");
}

/// Invariant 11: a larger weight or bias, with the bounds left as they were.
#[test]
fn weights_that_break_a_bound() {
    let g = proven();
    for id in all(&g, Op::is_linear_layer) {
        for c in g.node(id).op.consts() {
            let constant = g.constant(c).clone();
            let ConstData::Int(values) = &constant.data else { panic!("not quantized") };
            for i in 0..values.len() {
                let mut values = values.clone();
                // Far enough to make any channel the largest.
                values[i] += if values[i] < 0 { -(1 << 40) } else { 1 << 40 };
                let mut mutant = g.clone();
                mutant.set_const(c, constant.shape.clone(), ConstData::Int(values));
                refused(&mutant, Stage::Quantized, &g.node(id).name, "does not follow");
            }
            if constant.shape.len() == 1 {
                continue;
            }
            // Wherever the bound comes from, a little more.
            let grown: Vec<i64> = values.iter().map(|v| if *v < 0 { v - 4096 } else { v + 4096 }).collect();
            let mut mutant = g.clone();
            mutant.set_const(c, constant.shape.clone(), ConstData::Int(grown));
            refused(&mutant, Stage::Quantized, &g.node(id).name, "does not follow");
        }
    }
}

/// Invariant 11: claims of a proof.
#[test]
fn proofs_that_rest_on_observation() {
    let (mut observed, mut derived, mut sums) = (0, 0, 0);
    for g in subjects() {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            let r = range(&g, id);
            let claim = |evidence| mutated(&g, id, |n| n.range = Some(Range { evidence, ..r }));
            match r.evidence {
                Evidence::Observed { .. } => {
                    refused(&claim(Evidence::Proven), Stage::Quantized, &name, "does not follow");
                    refused(&claim(Evidence::Derived), Stage::Quantized, &name, "does not follow");
                    observed += 1;
                }
                Evidence::Derived => {
                    refused(&claim(Evidence::Proven), Stage::Quantized, &name, "called proven");
                    derived += 1;
                }
                Evidence::Proven => verify(&claim(Evidence::Derived), Stage::Quantized).unwrap(),
            }
            if let Some((sum, evidence)) = r.block_sum
                && evidence != Evidence::Proven
            {
                let r = Range { block_sum: Some((sum, Evidence::Proven)), ..r };
                let mutant = mutated(&g, id, |n| n.range = Some(r));
                refused(&mutant, Stage::Quantized, &name, "block sums");
                sums += 1;
            }
        }
    }
    assert!(observed > 20 && derived > 40 && sums > 10, "{observed} {derived} {sums}");
}

/// Shapes without channels have one interval: a transpose that moves axis 0 and one that brings it
/// back do not mix channels up.
#[test]
fn intervals_of_shapes_without_channels() {
    let mut g = Graph::new("moved");
    let x = g.add_input("x", vec![1, 2, 3, 1]);
    let origin = |n: &str| vec![n.to_string()];
    let window = Window::new([1, 1]);
    let w = g.add_const("w", vec![2, 1, 1, 1], ConstData::Float(vec![1.0, 100.0]));
    let conv = g.add("scale", origin("scale"), Op::Conv { weight: w, bias: None, window, groups: 2 }, &[x]).unwrap();
    let moved = g.add("moved", origin("moved"), Op::Transpose { perm: vec![2, 1, 0, 3] }, &[conv]).unwrap();
    let flat = g.add("flat", origin("flat"), Op::Reshape { shape: vec![1, 6] }, &[moved]).unwrap();
    // Reads one element of the second channel.
    let pick = g.add_const("pick", vec![1, 6], ConstData::Float(vec![0.0, 1.0, 0.0, 0.0, 0.0, 0.0]));
    let dense = g.add("dense", origin("dense"), Op::Dense { weight: pick, bias: None }, &[flat]).unwrap();
    g.set_output(dense);
    let mut o = options(BlockChoice::Keep, Vec::new());
    o.passes.input_bound = Some(1.0);
    let c = compile_graph(g, &o, &mut Quiet).unwrap();
    let bound = range(&c.graph, c.graph.find("dense").unwrap()).bound;
    assert!(bound >= 99.9, "{bound}");
}

#[test]
fn every_stage_round_trips_as_ron() {
    for name in TINY {
        for (stage, graph) in stages(name) {
            let text = graph.to_ron().unwrap();
            let back = Graph::from_ron(&text).unwrap_or_else(|e| panic!("{name}, {stage:?}: {e}"));
            verify(&back, stage).unwrap();
            assert_eq!(back.to_string(), graph.to_string(), "{name}, {stage:?}");
            assert_eq!(back.to_ron().unwrap(), text, "{name}, {stage:?}");
        }
    }
}

/// Whatever a text says, reading, printing, verifying and compiling it end.
fn survives(text: &str) -> bool {
    let Ok(graph) = Graph::from_ron(text) else { return false };
    assert!(!graph.to_string().is_empty());
    for stage in [Stage::Canonical, Stage::Ranged, Stage::Quantized] {
        let _ = verify(&graph, stage);
    }
    if graph.topo().iter().map(|i| graph.node(*i).len()).max().unwrap_or(0) < 1 << 20 {
        let mut o = options(BlockChoice::Keep, Vec::new());
        o.passes.input_bound = Some(1.5);
        let _ = compile_graph(graph, &o, &mut Quiet);
    }
    true
}

#[test]
fn damaged_ron_does_not_panic() {
    let all = stages("tiny_plain");
    let subjects = [&all[0].1, &all.last().unwrap().1];
    let mut numbers = Numbers::new(0x707);
    let mut refused = 0;
    for graph in subjects {
        let text = graph.to_ron().unwrap();
        for cut in (0..text.len()).step_by(text.len() / 40) {
            assert!(!text.is_char_boundary(cut) || Graph::from_ron(&text[..cut]).is_err());
        }
        for _ in 0..600 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..numbers.between(1, 2) {
                let at = numbers.below(bytes.len());
                bytes[at] ^= 1 << numbers.below(7);
            }
            let Ok(text) = String::from_utf8(bytes) else { continue };
            refused += usize::from(!survives(&text));
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Every number of the structure (not of the weights) replaced by odd ones.
#[test]
fn odd_numbers_in_ron_do_not_panic() {
    let all = stages("tiny_pools");
    let (mut tried, mut refused) = (0, 0);
    for graph in [&all[0].1, &all.last().unwrap().1] {
        let mut value = serde_json::to_value(graph).unwrap();
        // Weights small enough to leave out: their numbers are data.
        let consts = value["consts"].take();
        let mut paths = Vec::new();
        numbers_in(&value, &mut String::new(), &mut paths);
        value["consts"] = consts;
        for path in paths.iter().step_by(3) {
            for odd in [json!(0), json!(3), json!(255), json!(1u64 << 33), json!(u64::MAX), json!(-1)] {
                let mut mutant = value.clone();
                *mutant.pointer_mut(path).unwrap() = odd;
                tried += 1;
                let Ok(graph) = serde_json::from_value::<Graph>(mutant) else {
                    refused += 1;
                    continue;
                };
                for stage in [Stage::Imported, Stage::Canonical, Stage::Ranged, Stage::Quantized] {
                    refused += usize::from(stage == Stage::Quantized && verify(&graph, stage).is_err());
                }
                assert!(!graph.to_string().is_empty());
            }
        }
    }
    assert!(tried > 2000 && refused * 10 > tried * 8, "{refused} of {tried}");
}

fn numbers_in(value: &Value, path: &mut String, found: &mut Vec<String>) {
    let mut inside = |key: &str, v: &Value| {
        let len = path.len();
        *path += &format!("/{key}");
        numbers_in(v, path, found);
        path.truncate(len);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| inside(k, v)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| inside(&i.to_string(), v)),
        Value::Number(_) => found.push(path.clone()),
        _ => {}
    }
}
