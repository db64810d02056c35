//! Networks that join, resize and broadcast, and layers in a row: compiled and run by the parties, every
//! value opened and compared with its integers, the output with the network in floats.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::compile::Compiled;
use bcc_compiler::float::{Executor, apply_epilogue};
use bcc_compiler::passes::BlockChoice;
use bcc_ir::geometry::{Block, Window};
use bcc_ir::graph::{ClientStep, ConstData, Evidence, Graph, NodeId, Op, Sample, Stage, verify};
use bcc_ir::program::{Phase, Role, traffic};
use bcc_runtime::session::LocalOptions;
use bcc_tests::nets::{compiled, mixed_plan, options, random_images};
use bcc_tests::random::Numbers;
use bcc_tests::world::{check_exact, run_opened};

struct Net {
    g: Graph,
    numbers: Numbers,
}

impl Net {
    fn new(shape: &[usize]) -> (Net, NodeId) {
        let mut g = Graph::new("net");
        let x = g.add_input("x", shape.to_vec());
        (Net { g, numbers: Numbers::new(77) }, x)
    }

    fn op(&mut self, name: &str, op: Op, of: &[NodeId]) -> NodeId {
        self.g.add(name, vec![name.into()], op, of).unwrap()
    }

    fn conv(&mut self, name: &str, x: NodeId, out: usize, groups: usize, window: Window) -> NodeId {
        let c = self.g.node(x).map().unwrap().0;
        let [kh, kw] = window.kernel;
        let fan = c / groups * kh * kw;
        let weights = self.numbers.values(out * fan, (3.0 / fan as f32).sqrt());
        let weight = self.g.add_const(format!("{name}.w"), vec![out, c / groups, kh, kw], ConstData::Float(weights));
        let biases = self.numbers.values(out, 0.2);
        let bias = Some(self.g.add_const(format!("{name}.b"), vec![out], ConstData::Float(biases)));
        self.op(name, Op::Conv { weight, bias, window, groups }, &[x])
    }

    fn relu(&mut self, name: &str, x: NodeId) -> NodeId {
        let blocks = vec![Block::RELU; self.g.node(x).map().unwrap().0];
        self.op(name, Op::BlockRelu { blocks, plannable: true }, &[x])
    }

    fn linear_to(&mut self, name: &str, mut x: NodeId, to: [usize; 2], coordinate: fn(f64, f64, f64) -> f64) -> NodeId {
        for (i, n) in to.into_iter().enumerate() {
            let samples = samples(self.g.node(x).shape[i + 2], n, coordinate);
            x = self.op(&format!("{name}/{i}"), Op::Resample { axis: i + 2, samples, bits: 0 }, &[x]);
        }
        x
    }

    fn done(mut self, output: NodeId) -> Graph {
        self.g.set_output(output);
        self.g
    }
}

fn samples(from: usize, to: usize, coordinate: fn(f64, f64, f64) -> f64) -> Vec<Sample> {
    let of = |o: usize| {
        let x = coordinate(o as f64, from as f64, to as f64).clamp(0.0, from as f64 - 1.0);
        let low = x.floor() as usize;
        Sample { low, high: (low + 1).min(from - 1), weight: x.fract() }
    };
    (0..to).map(of).collect()
}

fn half_pixel(o: f64, from: f64, to: f64) -> f64 {
    (o + 0.5) * from / to - 0.5
}

fn align_corners(o: f64, from: f64, to: f64) -> f64 {
    o * (from - 1.0) / (to - 1.0)
}

fn k3(dilation: usize) -> Window {
    Window { dilation: [dilation; 2], pad: [dilation; 4], ..Window::new([3, 3]) }
}

fn k1() -> Window {
    Window::new([1, 1])
}

/// Runs two images: every value is exact, and no output is further than `tolerance` from the float one.
fn check(c: &Compiled, images: &[Vec<f32>], tolerance: f64) {
    let (output, opened) = run_opened(c, images, LocalOptions::default()).unwrap();
    let e = Executor::new(&c.real);
    let shape = &c.real.node(c.real.output().unwrap()).shape;
    for ((o, run), image) in opened.iter().zip(&output.outputs).zip(images) {
        check_exact(&c.graph, o).unwrap_or_else(|e| panic!("{e}\n{}", c.graph));
        let (want, shape) = apply_epilogue(&c.real.epilogue, e.run(image), shape);
        assert_eq!(run.value.shape, shape);
        for (a, b) in run.value.data.iter().zip(&want) {
            assert!((a - f64::from(*b)).abs() <= tolerance, "{a}, not {b}\n{}", c.graph);
        }
    }
}

/// Online messages of the layers whose operator is among those named.
fn online_of(c: &Compiled, operators: &[&str]) -> usize {
    let program = &c.lowered.program;
    let of = |layer: u32| operators.contains(&program.layers[layer as usize].op.as_str());
    program.messages.iter().filter(|m| m.phase == Phase::Online && of(m.layer)).count()
}

/// The head of DeepLab in small.
fn segmentation() -> Graph {
    let (mut n, x) = Net::new(&[1, 3, 12, 10]);
    let stem = n.conv("stem", x, 8, 1, k3(1));
    let stem = n.relu("stem.relu", stem);
    // A dilated depthwise layer, two outputs per input.
    let deep = n.conv("depthwise", stem, 16, 8, k3(2));
    let deep = n.relu("depthwise.relu", deep);
    let mut branches = Vec::new();
    for (i, window) in [k1(), k3(2), k3(3), k3(4)].into_iter().enumerate() {
        let branch = n.conv(&format!("aspp{i}"), deep, 6, if i == 2 { 2 } else { 1 }, window);
        branches.push(n.relu(&format!("aspp{i}.relu"), branch));
    }
    let mean = n.op("pool", Op::AvgPool { window: Window::new([12, 10]), counted: [0; 4] }, &[deep]);
    let mean = n.conv("pool.conv", mean, 6, 1, k1());
    let mean = n.relu("pool.relu", mean);
    let rows = n.op("rows", Op::Gather { axis: 2, indices: vec![0; 12] }, &[mean]);
    branches.push(n.op("map", Op::Gather { axis: 3, indices: vec![0; 10] }, &[rows]));
    let all = n.op("concat", Op::Concat { axis: 1, parts: branches.len() }, &branches);
    let head = n.conv("head", all, 8, 1, k3(1));
    let head = n.relu("head.relu", head);
    let classes = n.conv("classes", head, 5, 1, k1());
    n.done(classes)
}

#[test]
fn a_segmentation_head() {
    let mut graph = segmentation();
    graph.epilogue = vec![
        ClientStep::Resample { axis: 2, samples: samples(12, 48, half_pixel) },
        ClientStep::Resample { axis: 3, samples: samples(10, 40, half_pixel) },
    ];
    let images = random_images(&graph, 4, 5);
    for choice in [BlockChoice::Keep, BlockChoice::Plan(mixed_plan(&graph))] {
        let mut options = options(choice, images.clone());
        // A block near zero that goes the other way than the float network's is no fault: every value is exact. It moves
        // the output by some hundredths, and one of these images has such a block in a run of ten; more bits make it rarer.
        options.passes.weight_frac += 2;
        let c = compiled(graph.clone(), &options);
        check(&c, &images[..2], 0.05);
        assert_eq!(online_of(&c, &["concat", "gather", "resample", "avg_pool", "sum_pool"]), 0);
        // The large map is nobody's: what is opened is the small one.
        let opened = c.lowered.program.messages.iter().find(|m| m.reveal).unwrap();
        assert_eq!(opened.parts[0].len(), 5 * 12 * 10);
    }
}

#[test]
fn the_client_picks_the_classes() {
    let mut graph = segmentation();
    let images = random_images(&graph, 4, 6);
    let logits = Executor::new(&graph).run(&images[0]);
    graph.epilogue = vec![ClientStep::ArgMax { axis: 1, keepdims: false, select_last_index: false }];
    let c = compiled(graph, &options(BlockChoice::Keep, images.clone()));
    let (output, _) = run_opened(&c, &images[..1], LocalOptions::default()).unwrap();
    let classes = &output.outputs[0].value;
    assert_eq!(classes.shape, [1, 12, 10]);
    let pixels = 120;
    let mut decided = 0;
    for p in 0..pixels {
        let of = |k: usize| logits[k * pixels + p];
        let best = (0..5).fold(0, |b, k| if of(k) > of(b) { k } else { b });
        let second = (0..5).filter(|k| *k != best).map(of).fold(f32::NEG_INFINITY, f32::max);
        if of(best) - second > 0.02 {
            assert_eq!(classes.data[p], best as f64);
            decided += 1;
        }
    }
    assert!(decided > 100, "{decided}");
}

/// Down, up again by interpolation, and joined with what was there before.
fn u_net(to: fn(f64, f64, f64) -> f64) -> Graph {
    let (mut n, x) = Net::new(&[1, 2, 10, 8]);
    let first = n.conv("first", x, 4, 1, k3(1));
    let skip = n.relu("skip", first);
    let down = n.conv("down", skip, 6, 1, Window { stride: [2, 2], pad: [1; 4], ..Window::new([3, 3]) });
    let down = n.relu("down.relu", down);
    let up = n.linear_to("up", down, [10, 8], to);
    let lin = n.conv("lin", x, 2, 1, k1());
    // Joined are a gate's result, an interpolation, a layer's result and the input.
    let all = n.op("concat", Op::Concat { axis: 1, parts: 4 }, &[skip, up, lin, x]);
    let mixed = n.conv("mixed", all, 4, 1, k3(1));
    let mixed = n.relu("mixed.relu", mixed);
    let last = n.conv("last", mixed, 3, 1, k1());
    n.done(last)
}

#[test]
fn interpolation_in_the_middle() {
    for (to, exact) in [(half_pixel as fn(f64, f64, f64) -> f64, Some(2)), (align_corners, None)] {
        let graph = u_net(to);
        let images = random_images(&graph, 4, 8);
        for choice in [BlockChoice::Keep, BlockChoice::Plan(mixed_plan(&graph))] {
            let c = compiled(graph.clone(), &options(choice, images.clone()));
            check(&c, &images[..2], 0.03);
            let bits: Vec<u8> = c
                .graph
                .topo()
                .into_iter()
                .filter_map(|i| match c.graph.node(i).op {
                    Op::Resample { bits, .. } => Some(bits),
                    _ => None,
                })
                .collect();
            assert_eq!(bits.len(), 2);
            match exact {
                Some(b) => assert_eq!(bits, [b, b]),
                None => assert!(bits.iter().all(|b| *b >= 6), "{bits:?}"),
            }
            assert_eq!(online_of(&c, &["concat", "resample"]), 0);
        }
    }
}

/// Factors leave the modulus to the layer behind where eight bits of each do: no refresh of the large map.
#[test]
fn interpolation_leaves_room_for_the_layer_behind() {
    let (mut n, x) = Net::new(&[1, 2, 5, 4]);
    let first = n.conv("first", x, 4, 1, k3(1));
    let first = n.relu("first.relu", first);
    let up = n.linear_to("up", first, [11, 9], align_corners);
    let last = n.conv("last", up, 3, 1, k1());
    let graph = n.done(last);
    let images = random_images(&graph, 4, 3);
    for (ring, refreshes) in [(32, 1), (48, 0)] {
        let mut o = options(BlockChoice::Keep, images.clone());
        o.passes.ring = Some(ring);
        let c = compiled(graph.clone(), &o);
        check(&c, &images[..2], 0.02);
        let found = c.graph.topo().into_iter().filter(|i| c.graph.node(*i).op == Op::Refresh).count();
        assert_eq!(found, refreshes, "{}", c.graph);
    }
}

/// Inexact factors with `b` bits: off by at most half of `2^-b` of the difference of two neighbours,
/// beside the rounding of the input and of the truncation.
#[test]
fn the_error_of_rounded_factors_is_bounded() {
    let (mut n, x) = Net::new(&[1, 2, 1, 7]);
    let samples = samples(7, 23, align_corners);
    let r = n.op("up", Op::Resample { axis: 3, samples, bits: 0 }, &[x]);
    let y = n.relu("relu", r);
    let graph = n.done(y);
    let images = random_images(&graph, 40, 9);
    for ring in [24, 32, 40] {
        let mut o = options(BlockChoice::Uniform(Block::Identity), images.clone());
        o.passes.ring = Some(ring);
        let c = compiled(graph.clone(), &o);
        let bits = c.graph.topo().into_iter().find_map(|i| match c.graph.node(i).op {
            Op::Resample { bits, .. } => Some(bits),
            _ => None,
        });
        let unit = (-12f64).exp2();
        let largest = images.iter().flatten().fold(0.0f32, |m, v| m.max(v.abs()));
        let factor = (-f64::from(bits.unwrap()) - 1.0).exp2() * 2.0 * f64::from(largest);
        check(&c, &images[..10], factor + 1.5 * unit);
    }
}

/// A joined tensor is bounded by its largest part, not by the sum of all.
#[test]
fn the_bound_of_a_join_is_the_largest() {
    let (mut n, x) = Net::new(&[1, 2, 3, 3]);
    let all = n.op("concat", Op::Concat { axis: 1, parts: 3 }, &[x, x, x]);
    let graph = n.done(all);
    let mut o = options(BlockChoice::Keep, Vec::new());
    o.passes.input_bound = Some(3.0);
    let c = compiled(graph, &o);
    let range = c.graph.node(c.graph.find("concat").unwrap()).range.unwrap();
    assert_eq!((range.bound, range.evidence), (3.0, Evidence::Proven));
}

/// Only the part that a layer cannot read is re-masked or refreshed.
#[test]
fn of_a_join_only_the_parts_that_need_it_are_masked_again() {
    let graph = u_net(half_pixel);
    let mut o = options(BlockChoice::Keep, random_images(&graph, 4, 8));
    o.passes.ring = Some(48);
    let c = compiled(graph, &o);
    let names: Vec<&str> = c
        .graph
        .topo()
        .into_iter()
        .filter(|i| matches!(c.graph.node(*i).op, Op::Remask | Op::Refresh))
        .map(|i| c.graph.node(i).name.as_str())
        .collect();
    assert_eq!(names, ["lin/truncate/remask"], "{}", c.graph);
}

/// In a ring too narrow for two layers the narrow tensor between them is refreshed, and nothing else.
#[test]
fn a_narrow_ring_refreshes_between_layers_in_a_row() {
    let graph = bottlenecks();
    let images = random_images(&graph, 4, 12);
    let mut o = options(BlockChoice::Keep, images.clone());
    o.passes.ring = Some(32);
    let c = compiled(graph, &o);
    check(&c, &images[..2], 0.02);
    let program = &c.lowered.program;
    let t = traffic::traffic(program).unwrap();
    let online = |l: &traffic::LayerTraffic| l.bytes[Phase::Online.index()].iter().sum::<u64>();
    let refreshes: Vec<usize> = (0..program.layers.len()).filter(|i| program.layers[*i].op == "refresh").collect();
    assert_eq!(refreshes.len(), 3, "{}", c.graph);
    let spent: u64 = refreshes.iter().map(|i| online(&t.layers[*i])).sum();
    assert!(refreshes.iter().all(|i| program.layers[*i].shape[1] == 4));
    assert!(spent * 20 < online(&t.total), "{spent} of {}", online(&t.total));
}

/// The bottlenecks of MobileNetV2: a projection without activation, directly followed by the next
/// expansion, and a residual sum.
fn bottlenecks() -> Graph {
    let (mut n, x) = Net::new(&[1, 3, 8, 8]);
    let stem = n.conv("stem", x, 4, 1, k3(1));
    let mut at = n.relu("stem.relu", stem);
    for i in 0..3 {
        let e = n.conv(&format!("expand{i}"), at, 12, 1, k1());
        let e = n.relu(&format!("expand{i}.relu"), e);
        let d = n.conv(&format!("depthwise{i}"), e, 12, 12, k3(1 + i));
        let d = n.relu(&format!("depthwise{i}.relu"), d);
        let p = n.conv(&format!("project{i}"), d, 4, 1, k1());
        at = if i == 0 { p } else { n.op(&format!("sum{i}"), Op::Add, &[at, p]) };
    }
    let last = n.conv("last", at, 6, 1, k1());
    n.done(last)
}

#[test]
fn two_layers_in_a_row_send_nothing_online() {
    let graph = bottlenecks();
    let images = random_images(&graph, 4, 12);
    let mut o = options(BlockChoice::Keep, images.clone());
    o.passes.ring = Some(48);
    let c = compiled(graph, &o);
    check(&c, &images[..2], 0.02);
    let program = &c.lowered.program;
    let gates = |op: &str| matches!(op, "input" | "block_relu" | "open");
    for m in program.messages.iter().filter(|m| m.phase == Phase::Online) {
        let layer = &program.layers[m.layer as usize];
        assert!(gates(&layer.op), "\"{}\" belongs to {} ({})", m.name, layer.name, layer.op);
    }
    // Every value between two layers is masked again once, before the input: from client to server.
    let remasks: Vec<_> = program.layers.iter().enumerate().filter(|(_, l)| l.op == "remask").collect();
    assert_eq!(remasks.len(), 3, "{}", c.graph);
    for (i, _) in remasks {
        let own: Vec<_> = program.messages.iter().filter(|m| m.layer as usize == i).collect();
        let [m] = own[..] else { panic!("{} messages", own.len()) };
        assert_eq!((m.phase, m.from, m.to), (Phase::Offline, Role::Client, Role::Server));
    }
    // So the rounds are those of the gates, of the input and of the output.
    let gates = program.layers.iter().filter(|l| l.op == "block_relu").count();
    let rounds = traffic::traffic(program).unwrap().total.rounds[Phase::Online.index()] as usize;
    assert!(rounds <= 2 + 6 * gates, "{rounds} rounds, {gates} gates");
}

#[test]
fn the_verifiers_refuse_joins_interpolations_and_steps_that_do_not_fit() {
    let graph = u_net(align_corners);
    let c = compiled(graph.clone(), &options(BlockChoice::Keep, random_images(&graph, 4, 8)));
    let refused = |stage, change: &dyn Fn(&mut Graph), what: &str| {
        let mut g = c.graph.clone();
        change(&mut g);
        let e = verify(&g, stage).expect_err(what).to_string();
        assert!(e.contains(what), "{e}");
    };
    let find = |name: &str| {
        let named = |i: &NodeId| c.graph.node(*i).op.name() == name;
        c.graph.topo().into_iter().find(named).unwrap()
    };
    let (concat, resample) = (find("concat"), find("resample"));
    for (axis, parts) in [(4, 4), (usize::MAX, 4), (2, 4), (1, 3), (1, 0), (1, 256), (1, usize::MAX)] {
        refused(Stage::Imported, &|g| g.node_mut(concat).op = Op::Concat { axis, parts }, "concat");
    }
    let Op::Resample { axis, samples, bits } = c.graph.node(resample).op.clone() else { unreachable!() };
    let with = |change: &dyn Fn(&mut Vec<Sample>)| {
        let mut samples = samples.clone();
        change(&mut samples);
        Op::Resample { axis, samples, bits }
    };
    let mut mutants = vec![with(&|s| s[0].low = 99), with(&|s| s[1].high = usize::MAX), with(&|s| s.truncate(1))];
    mutants.extend([f64::NAN, -0.1, 1.1, f64::INFINITY].map(|w| with(&|s| s[2].weight = w)));
    mutants.push(Op::Resample { axis: 9, samples: samples.clone(), bits });
    for op in mutants {
        refused(Stage::Imported, &|g| g.node_mut(resample).op = op.clone(), &c.graph.node(resample).name);
    }
    // Bits of the factors are the quantizer's, and count in the type.
    refused(Stage::Canonical, &|_| {}, "does not belong to this stage");
    let wrong = Op::Resample { axis, samples: samples.clone(), bits: bits + 1 };
    refused(Stage::Quantized, &|g| g.node_mut(resample).op = wrong.clone(), "its type is");
    for id in [concat, resample] {
        refused(Stage::Quantized, &|g| g.node_mut(id).fixed.as_mut().unwrap().modulus -= 1, "its type is");
        refused(Stage::Quantized, &|g| g.node_mut(id).fixed.as_mut().unwrap().gain *= 2.0, "its type is");
    }
    let part = c.graph.operand(concat);
    refused(Stage::Quantized, &|g| g.node_mut(part).fixed.as_mut().unwrap().gain *= 2.0, "different scales");
    let steps = vec![ClientStep::Softmax { axis: 1 }, ClientStep::Reshape { shape: vec![7] }];
    refused(Stage::Imported, &|g| g.epilogue = steps.clone(), "step 1 of the client");
    let mut program = c.lowered.program.clone();
    bcc_ir::program::verify(&program).unwrap();
    program.epilogue = steps;
    let e = bcc_ir::program::verify(&program).unwrap_err().to_string();
    assert!(e.contains("step 1 of the client"), "{e}");
}
