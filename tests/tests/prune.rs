//! Pruned channels: the same function, exactly the bytes saved that they took, and a plan that says
//! what was pruned.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use bcc_compiler::compile::{CompileError, Compiled, Quiet, compile_graph};
use bcc_compiler::float::Executor;
use bcc_compiler::passes::{BlockChoice, PassError, canonicalize, prune};
use bcc_compiler::plan::Plan;
use bcc_compiler::report::{LayerRow, Report};
use bcc_compiler::twin;
use bcc_ir::Block;
use bcc_ir::geometry::Window;
use bcc_ir::graph::{ConstData, Graph, NodeId, Op, Stage, verify};
use bcc_ir::program::Message;
use bcc_ir::program::file::{encode_program, encode_weights};
use bcc_runtime::session::LocalOptions;
use bcc_tests::graphs::random_graph;
use bcc_tests::nets::{TINY, built, compiled, mixed_plan, options, random_images};
use bcc_tests::random::Numbers;
use bcc_tests::world::{check_exact, run_opened};

/// Builds small networks with random weights.
struct Build {
    g: Graph,
    numbers: Numbers,
    at: NodeId,
}

impl Build {
    fn new(shape: &[usize]) -> Self {
        let mut g = Graph::new("net");
        let at = g.add_input("x", shape.to_vec());
        Build { g, numbers: Numbers::new(23), at }
    }

    fn op(&mut self, name: &str, op: Op, operands: &[NodeId]) -> NodeId {
        self.at = self.g.add(name, vec![name.into()], op, operands).unwrap();
        self.at
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> bcc_ir::graph::ConstId {
        let values = self.numbers.values(shape.iter().product(), 0.5);
        self.g.add_const(name, shape.to_vec(), ConstData::Float(values))
    }

    /// A 3x3 convolution that keeps the map.
    fn conv(&mut self, name: &str, out: usize, groups: usize) -> NodeId {
        let c = self.g.node(self.at).map().unwrap().0;
        let weight = self.values(&format!("{name}.w"), &[out, c / groups, 3, 3]);
        let bias = Some(self.values(&format!("{name}.b"), &[out]));
        let window = Window { pad: [1; 4], ..Window::new([3, 3]) };
        self.op(name, Op::Conv { weight, bias, window, groups }, &[self.at])
    }

    fn relu(&mut self, name: &str, zero: &[usize]) -> NodeId {
        let c = self.g.node(self.at).map().unwrap().0;
        let block = |i| if zero.contains(&i) { Block::Zero } else { Block::RELU };
        self.op(name, Op::BlockRelu { blocks: (0..c).map(block).collect(), plannable: true }, &[self.at])
    }

    fn max(&mut self, name: &str) -> NodeId {
        let window = Window { stride: [2, 2], pad: [1; 4], ..Window::new([3, 3]) };
        self.op(name, Op::MaxPool { window }, &[self.at])
    }

    fn dense(&mut self, name: &str, out: usize) -> NodeId {
        let n = self.g.node(self.at).len();
        self.op(&format!("{name}.flat"), Op::Reshape { shape: vec![1, n] }, &[self.at]);
        let weight = self.values(&format!("{name}.w"), &[out, n]);
        let bias = Some(self.values(&format!("{name}.b"), &[out]));
        self.op(name, Op::Dense { weight, bias }, &[self.at])
    }

    fn done(mut self) -> Graph {
        self.g.set_output(self.at);
        canonicalize::run(&mut self.g).unwrap();
        verify(&self.g, Stage::Canonical).unwrap();
        self.g
    }
}

/// Prunes, and checks that the function stays.
fn pruned(name: &str, before: &Graph) -> Graph {
    let mut after = before.clone();
    prune::run(&mut after).unwrap();
    verify(&after, Stage::Canonical).unwrap_or_else(|e| panic!("{name}: {e}\n{before}\n{after}"));
    let (old, new) = (Executor::new(before), Executor::new(&after));
    for image in random_images(before, 3, 31) {
        let (want, got) = (old.run(&image), new.run(&image));
        assert_eq!(want.len(), got.len(), "{name}");
        let largest = want.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        for (x, y) in want.iter().zip(&got) {
            assert!((x - y).abs() <= 1e-5 * largest, "{name}: {x} became {y}\n{before}\n{after}");
        }
    }
    after
}

fn count(graph: &Graph, op: &str) -> usize {
    graph.topo().into_iter().filter(|i| graph.node(*i).op.name() == op).count()
}

fn weights(graph: &Graph) -> usize {
    let consts = graph.topo().into_iter().flat_map(|i| graph.node(i).op.consts());
    consts.map(|c| graph.constant(c).data.len()).sum()
}

fn channels(graph: &Graph, name: &str) -> usize {
    let id = graph.find(name).unwrap_or_else(|| panic!("no {name} in\n{graph}"));
    graph.node(id).map().unwrap().0
}

/// Makes channels of ReLUs zero at random, sometimes all of one.
fn with_zeros(graph: &Graph, numbers: &mut Numbers) -> Graph {
    let mut g = graph.clone();
    for id in g.topo() {
        let one_in = [1, 2, 2, 3, 8][numbers.below(5)];
        let Op::BlockRelu { blocks, plannable: true } = &mut g.node_mut(id).op else { continue };
        for b in blocks {
            if numbers.one_in(one_in) {
                *b = Block::Zero;
            }
        }
    }
    g
}

#[test]
fn random_graphs_compute_the_same() {
    let mut numbers = Numbers::new(0x9a7e);
    let (mut fewer, mut seen) = (0, BTreeMap::new());
    for seed in 0..1500 {
        let steps = numbers.between(2, 9);
        let graph = random_graph(&mut numbers, steps);
        let before = with_zeros(&graph, &mut numbers);
        let after = pruned(&format!("{seed}"), &before);
        fewer += usize::from(weights(&after) < weights(&before));
        for op in ["scatter", "gather", "add", "sub", "block_relu"] {
            *seen.entry(op).or_insert(0) += count(&after, op);
        }
        // Nothing is left to prune.
        let again = pruned(&format!("{seed}, again"), &after);
        assert_eq!(weights(&again), weights(&after), "{seed}\n{after}\n{again}");
    }
    assert!(fewer > 500, "{fewer}");
    assert!(seen.values().all(|n| *n > 100), "{seen:?}");
}

#[test]
fn random_graphs_run_securely() {
    let mut numbers = Numbers::new(0x5ec);
    let (mut runs, mut values) = (0, 0);
    for seed in 0..200 {
        let steps = numbers.between(2, 9);
        let graph = random_graph(&mut numbers, steps);
        let graph = with_zeros(&graph, &mut numbers);
        let images = random_images(&graph, 3, seed);
        let mut o = options(BlockChoice::Keep, images.clone());
        (o.passes.frac, o.passes.weight_frac) = (10, 10);
        // The verifier of the program, its leak check included, is part of compiling.
        let c = match compile_graph(graph.clone(), &o, &mut Quiet) {
            Ok(c) => c,
            Err(CompileError::Pass(PassError::Quantize(_))) => continue,
            Err(e) => panic!("seed {seed}: {e}\n{graph}"),
        };
        let (_, opened) = run_opened(&c, &images[..1], LocalOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        values += check_exact(&c.graph, &opened[0]).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", c.graph));
        runs += 1;
    }
    assert!(runs > 150 && values > 100_000, "{runs} runs, {values} values");
}

/// Runs all parties and compares with the float network before pruning.
fn sound(graph: &Graph) -> Compiled {
    let images = random_images(graph, 3, 5);
    let c = compiled(graph.clone(), &options(BlockChoice::Keep, images.clone()));
    let (_, opened) = run_opened(&c, &images[..2], LocalOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let output = c.graph.output().unwrap();
    for (o, image) in opened.iter().zip(&images) {
        check_exact(&c.graph, o).unwrap_or_else(|e| panic!("{e}\n{}", c.graph));
        let secure = twin::decode(&c.graph, output, &o[&output]);
        for (s, r) in secure.iter().zip(Executor::new(graph).run(image)) {
            assert!((s - f64::from(r)).abs() <= 0.02, "{s}, not {r}\n{}", c.graph);
        }
    }
    c
}

fn plain(c: usize, zero: &[usize]) -> Graph {
    let mut b = Build::new(&[1, 2, 6, 6]);
    b.conv("conv1", c, 1);
    b.relu("relu1", zero);
    b.conv("conv2", 4, 1);
    b.relu("relu2", &[]);
    b.dense("fc", 3);
    b.done()
}

/// Zeros in the first two ReLUs and in the one behind the sum.
fn residual(zero: [&[usize]; 3]) -> Graph {
    let mut b = Build::new(&[1, 2, 6, 6]);
    b.conv("conv0", 8, 1);
    let x = b.relu("relu0", zero[0]);
    b.conv("conv1", 8, 1);
    b.relu("relu1", zero[1]);
    let y = b.conv("conv2", 8, 1);
    b.op("add", Op::Add, &[y, x]);
    b.relu("relu2", zero[2]);
    b.dense("fc", 3);
    b.done()
}

#[test]
fn snapshot() {
    let before = residual([&[1, 6], &[0, 2, 5], &[0]]);
    let after = pruned("residual", &before);
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("pass_prune_residual", format!("# before\n{before}\n# after\n{after}")));
}

/// Rows by layer, with the modulus in which each works.
fn rows(graph: &Graph) -> BTreeMap<String, LayerRow> {
    let mut o = options(BlockChoice::Keep, random_images(graph, 3, 5));
    o.passes.ring = Some(40);
    let c = compiled(graph.clone(), &o);
    let modulus = |name: &str| c.graph.find(name).and_then(|id| c.graph.node(id).fixed).map_or(0, |f| f.modulus);
    let rows = Report::new(&c.lowered.program).unwrap().layers.into_iter();
    rows.map(|r| (r.name.clone(), LayerRow { modulus: modulus(&r.name), ..r })).collect()
}

/// Values that a layer with weights deals for an inference and sends as weights, fewer than before.
#[track_caller]
fn saves(before: &BTreeMap<String, LayerRow>, after: &BTreeMap<String, LayerRow>, layer: &str, dealt: u64, sent: u64) {
    let (b, a) = (&before[layer], &after[layer]);
    // One message each, its values packed.
    let values = |bytes: u64, row: &LayerRow| (bytes - Message::HEADER) * 8 / u64::from(row.modulus);
    let fewer = |of: fn(&LayerRow) -> u64| values(of(b), b) - values(of(a), a);
    assert_eq!((fewer(|r| r.offline_bytes), fewer(|r| r.setup_bytes)), (dealt, sent), "{layer}");
    assert_eq!(b.online_bytes, a.online_bytes, "{layer}");
}

#[test]
fn a_zero_channel_saves_what_it_took() {
    let (before, after) = (rows(&plain(8, &[])), rows(&plain(8, &[0, 3, 7])));
    saves(&before, &after, "conv1", 3 * 36, 3 * 2 * 9);
    saves(&before, &after, "conv2", 0, 4 * 3 * 9);
    saves(&before, &after, "fc", 0, 0);
    assert_eq!(before["relu1"].drelus - after["relu1"].drelus, 3 * 36);
    sound(&plain(8, &[0, 3, 7]));
}

#[test]
fn a_residual_block_saves_on_all_sides() {
    let before = rows(&residual([&[], &[], &[]]));
    let graph = residual([&[1, 6], &[0, 2, 5], &[0]]);
    let after = rows(&graph);
    saves(&before, &after, "conv0", 2 * 36, 2 * 2 * 9);
    saves(&before, &after, "conv1", 3 * 36, (8 * 8 - 5 * 6) * 9);
    // The sum still reads channels 1 and 6 of the second layer, nobody its channel 0.
    saves(&before, &after, "conv2", 36, (8 * 8 - 7 * 5) * 9);
    saves(&before, &after, "fc", 0, 3 * 36);
    for row in after.values().filter(|r| ["add", "gather", "scatter"].contains(&r.op.as_str())) {
        assert_eq!((row.setup_bytes, row.offline_bytes, row.online_bytes), (0, 0, 0), "{}", row.name);
    }
    assert!(after.values().any(|r| r.op == "scatter") && after.values().any(|r| r.op == "gather"));
    sound(&graph);
}

/// Drops rows of a constant's first two axes.
fn shrink(graph: &mut Graph, name: &str, outputs: &[usize], inputs: &[usize]) {
    let id = graph.topo().iter().flat_map(|i| graph.node(*i).op.consts()).find(|c| graph.constant(*c).name == name);
    let c = graph.constant(id.unwrap()).clone();
    let ConstData::Float(old) = &c.data else { panic!("{name} holds no reals") };
    let (o, i) = (c.shape[0], c.shape.get(1).copied().unwrap_or(1));
    let inner = old.len() / (o * i);
    let left = (0..o * i).filter(|p| !outputs.contains(&(p / i)) && !inputs.contains(&(p % i)));
    let values = left.flat_map(|p| &old[p * inner..][..inner]).copied().collect();
    let mut shape = c.shape.clone();
    shape[0] -= outputs.len();
    if let Some(i) = shape.get_mut(1) {
        *i -= inputs.len();
    }
    graph.set_const(id.unwrap(), shape, ConstData::Float(values));
}

/// The program of the pruned network is that of the network that never had the channels.
#[test]
fn pruned_is_as_if_never_there() {
    let zero = [0, 3, 7];
    let pruned = plain(8, &zero);
    let mut small = plain(8, &[]);
    for name in ["conv1.w", "conv1.b"] {
        shrink(&mut small, name, &zero, &[]);
    }
    shrink(&mut small, "conv2.w", &[], &zero);
    for name in ["conv1", "relu1"] {
        let id = small.find(name).unwrap();
        small.node_mut(id).shape[1] = 5;
        if let Op::BlockRelu { blocks, .. } = &mut small.node_mut(id).op {
            blocks.truncate(5);
        }
    }
    let o = options(BlockChoice::Keep, random_images(&pruned, 3, 5));
    assert_eq!(bytes(&compiled(pruned, &o)), bytes(&compiled(small, &o)));
}

fn bytes(c: &Compiled) -> (Vec<u8>, Vec<u8>) {
    let (program, digest) = encode_program(&c.lowered.program).unwrap();
    (program, encode_weights(&c.lowered.program, digest, &c.lowered.weights).unwrap())
}

#[test]
fn the_written_plan_names_every_relu_and_gives_the_same_program() {
    for name in TINY {
        let graph = built(name);
        let relus = Plan::of(&graph).layers.len();
        let images = random_images(&graph, 4, 7);
        let mut mixed = mixed_plan(&graph);
        // A network may have gates without blocks alone.
        let first = mixed.layers.keys().next().cloned();
        mixed.layers.extend(first.map(|f| (f, vec!["identity".into()])));
        let choices = [
            BlockChoice::Uniform(Block::Identity),
            BlockChoice::Uniform(Block::Zero),
            BlockChoice::Uniform(Block::Patch { h: 2, w: 2 }),
            BlockChoice::Plan(mixed),
        ];
        for choice in choices {
            let c = compiled(graph.clone(), &options(choice.clone(), images.clone()));
            assert_eq!(c.plan.layers.len(), relus, "{name}, {choice:?}");
            let again = compiled(graph.clone(), &options(BlockChoice::Plan(c.plan.clone()), images.clone()));
            assert_eq!(again.plan, c.plan, "{name}, {choice:?}");
            assert!(bytes(&again) == bytes(&c), "{name}, {choice:?}");
        }
    }
}

/// Depthwise: a zero channel goes with its group, unless its bias keeps it alive.
#[test]
fn depthwise_channels_go_with_their_groups() {
    let build = |bias: bool| {
        let mut b = Build::new(&[1, 2, 5, 5]);
        b.conv("conv1", 4, 1);
        b.relu("relu1", &[1]);
        let id = b.conv("depthwise", 4, 4);
        if let (Op::Conv { bias, .. }, false) = (&mut b.g.node_mut(id).op, bias) {
            *bias = None;
        }
        b.relu("relu2", &[2]);
        b.conv("conv2", 3, 1);
        b.done()
    };
    for (bias, left) in [(false, 2), (true, 3)] {
        let after = pruned("depthwise", &build(bias));
        assert_eq!(channels(&after, "depthwise"), left, "{after}");
        // Channel 1 feeds nothing but a bias: zeros take its place.
        assert_eq!((channels(&after, "conv1"), count(&after, "scatter")), (2, usize::from(bias)), "{after}");
        sound(&build(bias));
    }
}

#[test]
fn groups_of_two() {
    let build = |zero: &[usize]| {
        let mut b = Build::new(&[1, 2, 5, 5]);
        b.conv("conv1", 4, 1);
        b.relu("relu1", &[]);
        b.conv("grouped", 6, 2);
        b.relu("relu2", zero);
        b.conv("conv2", 3, 1);
        b.done()
    };
    for (zero, before, grouped) in [(&[0, 4][..], 4, 4), (&[0], 4, 6), (&[0, 1, 2], 2, 3), (&[0, 1, 2, 5], 2, 2)] {
        let after = pruned("grouped", &build(zero));
        assert_eq!((channels(&after, "conv1"), channels(&after, "grouped")), (before, grouped), "{zero:?}\n{after}");
        assert_eq!(channels(&after, "relu2"), 6 - zero.len(), "{after}");
        sound(&build(zero));
    }
}

#[test]
fn through_a_maximum_pool() {
    let mut b = Build::new(&[1, 2, 7, 7]);
    b.conv("conv1", 4, 1);
    b.relu("relu1", &[0, 2, 3]);
    b.max("pool");
    b.conv("conv2", 3, 1);
    let graph = b.done();
    let after = pruned("pool", &graph);
    for id in after.topo() {
        let node = after.node(id);
        assert!(!node.name.starts_with("pool") || node.shape[1] == 1, "{after}");
    }
    assert_eq!(count(&after, "block_relu"), count(&graph, "block_relu"));
    sound(&graph);
}

/// Where nothing is left, one channel stays: no tensor is empty.
#[test]
fn all_channels_zero() {
    let graph = plain(8, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let after = pruned("one layer", &graph);
    assert_eq!((channels(&after, "conv1"), channels(&after, "relu1"), channels(&after, "conv2")), (1, 1, 4));
    sound(&graph);
    let all: Vec<usize> = (0..8).collect();
    for zero in [[&all[..], &[], &[]], [&[], &all, &[]], [&[], &[], &all], [&all, &all, &all]] {
        let graph = residual(zero);
        pruned("residual", &graph);
        sound(&graph);
    }
    // The output itself: it keeps its shape.
    let mut b = Build::new(&[1, 2, 4, 4]);
    b.conv("conv", 3, 1);
    b.relu("relu", &[0, 1, 2]);
    let graph = b.done();
    let after = pruned("output", &graph);
    assert_eq!((channels(&after, "conv"), after.node(after.output().unwrap()).shape[1]), (1, 3), "{after}");
    sound(&graph);
    // Before a minus sign a summand of zeros stays.
    for swap in [false, true] {
        let mut b = Build::new(&[1, 2, 4, 4]);
        let x = b.at;
        b.conv("left", 3, 1);
        let left = b.relu("relu", &[0, 1, 2]);
        b.at = x;
        let right = b.conv("right", 3, 1);
        b.op("sub", Op::Sub, &if swap { [right, left] } else { [left, right] });
        let graph = b.done();
        pruned("difference", &graph);
        sound(&graph);
    }
}

#[test]
fn without_zeros_nothing_changes() {
    for name in TINY {
        let mut graph = built(name);
        bcc_compiler::passes::fold::run(&mut graph).unwrap();
        canonicalize::run(&mut graph).unwrap();
        assert_eq!(pruned(name, &graph).to_string(), graph.to_string());
    }
}
