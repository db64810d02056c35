//! The chain of moduli: gates and refreshes lift to what their ways on need.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::compile::{CompileOptions, Compiled, Quiet, compile_graph};
use bcc_compiler::passes::BlockChoice;
use bcc_compiler::passes::lower::{LowerOptions, lower};
use bcc_compiler::report::Report;
use bcc_ir::Block;
use bcc_ir::graph::{ConstData, Graph, NodeId, Op, Stage, verify};
use bcc_tests::graphs::random_graph;
use bcc_tests::nets::{built, compiled, options, random_images, tiny_compiled, trained};
use bcc_tests::random::Numbers;

/// The graph with other moduli of lifts, and all that follows from them.
fn retyped(graph: &Graph, lifted: impl Fn(NodeId, u8) -> u8) -> Graph {
    let mut g = graph.clone();
    for id in g.topo() {
        let modulus = |o: &NodeId| g.node(*o).fixed.unwrap().modulus;
        let Some(least) = g.operands(id).iter().map(modulus).min() else { continue };
        let mut fixed = g.node(id).fixed.unwrap();
        fixed.modulus = match g.node(id).op {
            Op::BlockRelu { .. } | Op::Clip { .. } | Op::Refresh => lifted(id, fixed.modulus),
            Op::Truncate { bits } => least - bits,
            Op::Tag { bits } => (least + bits).min(g.ring.unwrap()),
            Op::LowBits { bits } => bits,
            _ => least,
        };
        g.node_mut(id).fixed = Some(fixed);
    }
    g
}

fn lifts(g: &Graph) -> Vec<(NodeId, u8, u8)> {
    let is = |id: &NodeId| matches!(g.node(*id).op, Op::BlockRelu { .. } | Op::Clip { .. } | Op::Refresh);
    let modulus = |id: NodeId| g.node(id).fixed.unwrap().modulus;
    g.topo().into_iter().filter(is).map(|id| (id, modulus(g.operand(id)), modulus(id))).collect()
}

/// Whether a lift to a bit less would do, for some lift.
fn check_least(g: &Graph, what: &str) -> usize {
    let lifts = lifts(g);
    for &(id, from, to) in &lifts {
        if to > from {
            let less = retyped(g, |n, m| if n == id { m - 1 } else { m });
            assert!(verify(&less, Stage::Quantized).is_err(), "{what}: {} lifts too far\n{g}", g.node(id).name);
        }
    }
    lifts.len()
}

/// Offline and online bytes.
fn bytes(g: &Graph) -> [u64; 2] {
    let totals = Report::new(&lower(g, LowerOptions::default()).unwrap().program).unwrap().totals;
    [totals.offline_bytes, totals.online_bytes]
}

/// Bytes with every lift to the ring, all else alike.
fn wide_bytes(g: &Graph) -> [u64; 2] {
    let wide = retyped(g, |_, _| g.ring.unwrap());
    verify(&wide, Stage::Quantized).unwrap();
    bytes(&wide)
}

fn random(seed: u64) -> impl Iterator<Item = (String, Compiled)> {
    let mut numbers = Numbers::new(seed);
    (0..300).filter_map(move |i| {
        let steps = numbers.between(1, 6);
        let graph = random_graph(&mut numbers, steps);
        let mut o = options(BlockChoice::Keep, random_images(&graph, 3, i));
        o.passes.ring = [None, None, Some(48), Some(64)][numbers.below(4)];
        compile_graph(graph, &o, &mut Quiet).ok().map(|c| (format!("random graph {i}"), c))
    })
}

#[test]
fn lifts_are_the_least_that_verify() {
    let tiny = tiny_compiled().map(|(name, c, _)| (name, c));
    let (mut count, mut below) = (0, 0);
    for (name, c) in tiny.chain(random(41)) {
        count += check_least(&c.graph, &name);
        below += lifts(&c.graph).iter().filter(|(.., to)| Some(*to) < c.graph.ring).count();
    }
    assert!(count > 400 && below * 2 > count, "{below} of {count}");
}

#[test]
fn narrow_lifts_send_no_more() {
    let tiny = tiny_compiled().map(|(name, c, _)| (name, c));
    let (mut narrow, mut wide) = (0, 0);
    for (name, c) in tiny.chain(random(42)) {
        let (n, w): (u64, u64) = (bytes(&c.graph).iter().sum(), wide_bytes(&c.graph).iter().sum());
        assert!(n <= w, "{name}: {n} bytes, {w} with lifts to the ring\n{}", c.graph);
        (narrow, wide) = (narrow + n, wide + w);
    }
    assert!(narrow * 100 < wide * 95, "{narrow} of {wide}");
}

/// A trained network in the ring that it needs, and in a wider one.
#[test]
fn of_a_trained_network() {
    let graph = trained("fmnist_resnet20");
    let images = random_images(&graph, 8, 3);
    for (block, ring, less) in [(Block::RELU, None, 1), (Block::Patch { h: 4, w: 4 }, Some(40), 12)] {
        let mut o = options(BlockChoice::Uniform(block), images.clone());
        o.passes.ring = ring;
        let c = compiled(graph.clone(), &o);
        check_least(&c.graph, "fmnist_resnet20");
        let ([f, n], [wide_f, wide_n]) = (bytes(&c.graph), wide_bytes(&c.graph));
        println!("{block}: {f} + {n} of {wide_f} + {wide_n} bytes");
        assert!(f * 100 < wide_f * (100 - less) && n * 100 < wide_n * (100 - less));
        // Each layer's modulus holds its values and the bits that are asked for.
        for id in c.graph.topo().into_iter().filter(|id| c.graph.node(*id).op.is_linear_layer()) {
            let (node, operand) = (c.graph.node(id), c.graph.node(c.graph.operand(id)));
            let (fixed, range) = (node.fixed.unwrap(), node.range.unwrap());
            let weight_bits = fixed.frac - 12;
            let need = (range.bound * 4096.0).log2().floor() as u8 + 2 + weight_bits;
            assert!(weight_bits >= 12 && operand.fixed.unwrap().modulus >= need, "{}", node.name);
        }
    }
}

/// Two layers with a ReLU between: the smaller the second one's values, the less its operand is lifted, down to what
/// values of 2^4 need; from there on its weights have more fraction bits than one that is spare.
#[test]
fn small_values_have_more_fraction_bits() {
    let graph = |size: f32| {
        let mut g = Graph::new("net");
        let mut at = g.add_input("x", vec![1, 1, 2, 2]);
        for (i, w) in [1.0, size].into_iter().enumerate() {
            let weight = g.add_const(format!("w{i}"), vec![1, 1, 1, 1], ConstData::Float(vec![w]));
            let window = bcc_ir::geometry::Window::new([1, 1]);
            let op = Op::Conv { weight, bias: None, window, groups: 1 };
            at = g.add(&format!("conv{i}"), vec!["conv".into()], op, &[at]).unwrap();
            let op = Op::BlockRelu { blocks: vec![Block::RELU], plannable: true };
            at = g.add(&format!("relu{i}"), vec!["relu".into()], op, &[at]).unwrap();
        }
        g.set_output(at);
        g
    };
    let at = |size: f32| {
        let mut o = options(BlockChoice::Keep, Vec::new());
        o.passes.input_bound = Some(1.0);
        o.passes.ring = Some(40);
        let c = compiled(graph(size), &o);
        let of = |name: &str| c.graph.node(c.graph.find(name).unwrap()).fixed.unwrap();
        (of("relu0").modulus, of("conv1").frac - 12)
    };
    let found: Vec<(u8, u8)> = [100.0, 30.0, 15.0, 7.0, 3.0, 1.5, 0.7].into_iter().map(at).collect();
    assert_eq!(found, [(34, 13), (32, 13), (31, 13), (30, 13), (30, 14), (30, 15), (30, 16)]);
}

/// Comparisons of a maximum and of classes keep their modulus where nothing wider is read.
#[test]
fn maxima_lift_nothing() {
    let graph = built("tiny_plain");
    let mut o: CompileOptions = options(BlockChoice::Keep, random_images(&graph, 4, 9));
    o.passes.reveal = bcc_compiler::passes::reveal::Reveal::Argmax;
    let c = compiled(graph, &o);
    let of_classes = |id: &NodeId| c.graph.node(*id).name.contains("argmax");
    let all: Vec<_> = lifts(&c.graph).into_iter().filter(|(id, ..)| of_classes(id)).collect();
    assert!(all.len() > 2 && all.iter().all(|(_, from, to)| from == to), "{all:?}\n{}", c.graph);
}
