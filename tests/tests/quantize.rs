//! What quantization decides: ring, moduli, scales, refreshes; and that its bounds hold.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use bcc_compiler::compile::{CompileError, CompileOptions, Compiled, Quiet, compile_graph};
use bcc_compiler::float::Executor;
use bcc_compiler::passes::quantize::QuantizeError;
use bcc_compiler::passes::range::RangeError;
use bcc_compiler::passes::{BlockChoice, PassError};
use bcc_compiler::plan::Plan;
use bcc_compiler::report::Report;
use bcc_compiler::twin;
use bcc_ir::Block;
use bcc_ir::geometry::Window;
use bcc_ir::graph::{ClientShare, ConstData, Evidence, Fixed, Graph, NodeId, Op};
use bcc_ir::program::Phase;
use bcc_runtime::session::LocalOptions;
use bcc_tests::graphs::random_graph;
use bcc_tests::nets::{TINY, built, compiled, mixed_plan, options, random_images};
use bcc_tests::random::Numbers;
use bcc_tests::world::{Opened, check_exact, run_opened};

fn quantize_error(graph: Graph, options: &CompileOptions) -> QuantizeError {
    match compile_graph(graph, options, &mut Quiet) {
        Err(CompileError::Pass(PassError::Quantize(e))) => e,
        Err(e) => panic!("{e}"),
        Ok(c) => panic!("it compiles:\n{}", c.graph),
    }
}

fn fixed(c: &Compiled, name: &str) -> Fixed {
    node(c, name).1
}

fn node(c: &Compiled, name: &str) -> (Op, Fixed) {
    let id = c.graph.find(name).unwrap_or_else(|| panic!("no {name} in\n{}", c.graph));
    (c.graph.node(id).op.clone(), c.graph.node(id).fixed.unwrap())
}

fn count(c: &Compiled, op: &str) -> usize {
    c.graph.topo().into_iter().filter(|i| c.graph.node(*i).op.name() == op).count()
}

/// Builds small graphs of layers with random weights.
struct Build {
    g: Graph,
    numbers: Numbers,
    at: NodeId,
}

impl Build {
    fn new(shape: &[usize]) -> Self {
        let mut g = Graph::new("net");
        let at = g.add_input("x", shape.to_vec());
        Build { g, numbers: Numbers::new(5), at }
    }

    fn op(&mut self, name: &str, op: Op, operands: &[NodeId]) -> NodeId {
        self.at = self.g.add(name, vec![name.into()], op, operands).unwrap();
        self.at
    }

    fn then(&mut self, name: &str, op: Op) -> NodeId {
        self.op(name, op, &[self.at])
    }

    fn channels(&self) -> usize {
        self.g.node(self.at).map().unwrap().0
    }

    fn conv(&mut self, name: &str, out: usize, kernel: usize) -> NodeId {
        let c = self.channels();
        let mut window = Window::new([kernel, kernel]);
        window.pad = [kernel / 2; 4];
        let fan = c * kernel * kernel;
        let values = self.numbers.values(out * fan, (3.0 / fan as f32).sqrt());
        let shape = vec![out, c, kernel, kernel];
        let weight = self.g.add_const(format!("{name}.w"), shape, ConstData::Float(values));
        let bias = self.numbers.values(out, 0.1);
        let bias = Some(self.g.add_const(format!("{name}.b"), vec![out], ConstData::Float(bias)));
        self.then(name, Op::Conv { weight, bias, window, groups: 1 })
    }

    fn dense(&mut self, name: &str, out: usize) -> NodeId {
        let n = self.g.node(self.at).len();
        if self.g.node(self.at).shape.len() != 2 {
            self.then(&format!("{name}.flat"), Op::Reshape { shape: vec![1, n] });
        }
        let values = self.numbers.values(n * out, (3.0 / n as f32).sqrt());
        let weight = self.g.add_const(format!("{name}.w"), vec![out, n], ConstData::Float(values));
        self.then(name, Op::Dense { weight, bias: None })
    }

    fn relu(&mut self, name: &str) -> NodeId {
        let blocks = vec![Block::RELU; self.channels()];
        self.then(name, Op::BlockRelu { blocks, plannable: true })
    }

    fn average(&mut self, name: &str, window: Window, counted: [usize; 4]) -> NodeId {
        self.then(name, Op::AvgPool { window, counted })
    }

    fn finish(mut self) -> Graph {
        self.g.set_output(self.at);
        self.g
    }
}

fn calibrated(graph: &Graph) -> CompileOptions {
    options(BlockChoice::Keep, random_images(graph, 4, 9))
}

/// Compiles, runs all parties, checks every value exactly and the result against the real network.
fn sound(graph: Graph, options: &CompileOptions, tolerance: f64) -> Compiled {
    let images = random_images(&graph, 2, 77);
    let c = compiled(graph, options);
    let (_, opened) = run_opened(&c, &images, LocalOptions::default()).unwrap();
    let executor = Executor::new(&c.real);
    let output = c.graph.output().unwrap();
    for (o, image) in opened.iter().zip(&images) {
        check_exact(&c.graph, o).unwrap_or_else(|e| panic!("{e}\n{}", c.graph));
        let secure = twin::decode(&c.graph, output, &o[&output]);
        for (s, r) in secure.iter().zip(executor.run(image)) {
            assert!((s - f64::from(r)).abs() <= tolerance, "{s}, not {r}\n{}", c.graph);
        }
    }
    c
}

#[test]
fn the_ring_is_the_smallest_that_fits() {
    let mut rings = Vec::new();
    for name in TINY {
        for bits in [6, 9, 12, 16] {
            let graph = built(name);
            let mut o = calibrated(&graph);
            (o.passes.frac, o.passes.weight_frac) = (bits, bits);
            let ring = compiled(graph.clone(), &o).lowered.program.ring;
            assert!(ring.is_multiple_of(8) && (16..=64).contains(&ring), "{ring}");
            rings.push(ring);
            // The same ring when asked for, and a wider one works too.
            o.passes.ring = Some(ring);
            assert_eq!(compiled(graph.clone(), &o).lowered.program.ring, ring);
            if ring < 64 {
                o.passes.ring = Some(ring + 8);
                assert_eq!(compiled(graph.clone(), &o).lowered.program.ring, ring + 8);
            }
            if ring > 16 {
                o.passes.ring = Some(ring - 8);
                let error = quantize_error(graph, &o);
                let QuantizeError::Narrow { needed, available, ring: reported, .. } = error else { panic!("{error}") };
                assert!(needed > u32::from(available) && reported == ring - 8, "{name}, {bits} bits: {error}");
            }
        }
    }
    rings.dedup();
    assert!(rings.len() > 4, "{rings:?}");
}

#[test]
fn a_ring_too_small_says_what_does_not_fit_and_what_to_do() {
    let graph = built("tiny_residual");
    for ring in [16, 24] {
        let mut o = calibrated(&graph);
        o.passes.ring = Some(ring);
        let text = quantize_error(graph.clone(), &o).to_string();
        let node = text.split('"').nth(1).unwrap();
        assert!(graph.find(node).is_some(), "{text}");
        for part in ["bits", &format!("ring of {ring}"), "wider ring", "--frac"] {
            assert!(text.contains(part), "{text}");
        }
    }
    for ring in [0, 1, 8, 15, 17, 33, 63, 65, 72, 255] {
        let mut o = calibrated(&graph);
        o.passes.ring = Some(ring);
        let error = quantize_error(graph.clone(), &o);
        assert!(matches!(error, QuantizeError::Ring(r) if r == ring), "{error}");
    }
}

#[test]
fn fraction_bits_out_of_range_are_refused() {
    let graph = built("tiny_plain");
    for (frac, weight_frac) in [(0, 12), (12, 0), (25, 12), (12, 25), (255, 12), (12, 255), (0, 0)] {
        let mut o = calibrated(&graph);
        (o.passes.frac, o.passes.weight_frac) = (frac, weight_frac);
        let error = quantize_error(graph.clone(), &o);
        assert!(matches!(error, QuantizeError::Fraction { .. }), "{error}");
    }
    for (frac, weight_frac) in [(1, 1), (1, 24), (24, 1), (24, 24), (24, 12), (12, 24)] {
        let mut o = calibrated(&graph);
        (o.passes.frac, o.passes.weight_frac) = (frac, weight_frac);
        match compile_graph(graph.clone(), &o, &mut Quiet) {
            Ok(_) | Err(CompileError::Pass(PassError::Quantize(QuantizeError::Narrow { .. }))) => {}
            Err(e) => panic!("{frac} + {weight_frac}: {e}"),
        }
    }
}

#[test]
fn input_bounds_and_margins_that_are_none_are_refused() {
    let graph = built("tiny_plain");
    let range_error = |o: &CompileOptions| match compile_graph(graph.clone(), o, &mut Quiet) {
        Err(CompileError::Pass(PassError::Range(e))) => e,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it compiles"),
    };
    for bound in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut o = calibrated(&graph);
        o.passes.input_bound = Some(bound);
        let e = range_error(&o);
        assert!(matches!(e, RangeError::InputBound(_)) && e.to_string().contains("--input-bound"), "{e}");
    }
    for margin in [0.0, 0.5, 0.999, -2.0, f64::NAN, f64::INFINITY] {
        let mut o = calibrated(&graph);
        o.passes.margin = margin;
        let e = range_error(&o);
        assert!(matches!(e, RangeError::Margin(_)) && e.to_string().contains("--margin"), "{e}");
    }
    assert!(matches!(range_error(&options(BlockChoice::Keep, Vec::new())), RangeError::NoInputRange));
    let len = graph.node(graph.input().unwrap()).len();
    let short = options(BlockChoice::Keep, vec![vec![0.5; len], vec![0.5; len - 1]]);
    assert!(matches!(range_error(&short), RangeError::Shape { index: 1, .. }));
    for bad in [f32::NAN, f32::INFINITY] {
        let mut image = vec![0.5; len];
        image[7] = bad;
        let e = range_error(&options(BlockChoice::Keep, vec![vec![0.5; len], image]));
        assert!(matches!(e, RangeError::NotFinite { index: 1, element: 7 }), "{e}");
    }
    // An input bound near the ends of what numbers can say.
    for bound in [1e-30, 1e-3, 1e3, 1e30, f64::MAX] {
        let mut o = options(BlockChoice::Keep, Vec::new());
        o.passes.input_bound = Some(bound);
        match compile_graph(graph.clone(), &o, &mut Quiet) {
            Ok(_) => assert!(bound < 1e4, "{bound}"),
            Err(e) => assert!(bound > 1e4, "{bound}: {e}"),
        }
    }
}

fn window(kernel: [usize; 2], stride: usize, pad: [usize; 4]) -> Window {
    Window { stride: [stride; 2], pad, ..Window::new(kernel) }
}

/// A global average over 7x7 leaves its division to the next weights.
#[test]
fn a_global_average_hands_its_gain_on() {
    let mut b = Build::new(&[1, 2, 7, 7]);
    b.conv("conv", 3, 3);
    b.relu("relu");
    b.average("pool", Window::new([7, 7]), [0; 4]);
    b.dense("fc", 4);
    let graph = b.finish();
    let c = sound(graph.clone(), &calibrated(&graph), 2e-3);
    let (op, f) = node(&c, "pool");
    assert!(matches!(op, Op::SumPool { divisor: 49, .. }), "{op:?}");
    assert!((f.gain * 49.0 - 1.0).abs() < 1e-12 && f.frac == 12, "{f:?}");
    // 49 <= 2^6: six bits of the sum's growth are dropped.
    let after = fixed(&c, "pool/truncate");
    assert_eq!((after.frac, after.modulus), (6, f.modulus - 6));
    // The layer that takes the gain in leaves none.
    assert_eq!(fixed(&c, "fc").gain, 1.0);
    assert_eq!(count(&c, "divide"), 0);
}

/// Before a sum the scale must not change: powers of two are truncated, others multiplied.
#[test]
fn averages_before_a_sum_keep_their_scale() {
    let branch = |kernel: [usize; 2], stride: usize, pad: [usize; 4], counted: [usize; 4]| {
        let mut b = Build::new(&[1, 2, 8, 8]);
        let x = b.conv("conv", 3, 3);
        b.relu("relu");
        let pooled = b.average("pool", window(kernel, stride, pad), counted);
        b.at = x;
        b.relu("relu2");
        let other = b.average("pool2", window([2, 2], stride, [0, 0, kernel[0] % 2, kernel[1] % 2]), [0; 4]);
        (b, pooled, other)
    };
    for (kernel, stride, pad, counted, divides) in [
        ([2, 2], 2, [0; 4], [0; 4], false),
        ([2, 4], 2, [0, 1, 0, 1], [0, 1, 0, 1], false),
        ([3, 3], 2, [0, 0, 1, 1], [0, 0, 1, 1], true),
        ([3, 3], 2, [0, 0, 1, 1], [0; 4], true),
        ([1, 3], 1, [0, 1, 0, 1], [0; 4], true),
    ] {
        let (mut b, pooled, other) = branch(kernel, stride, pad, counted);
        if b.g.node(pooled).shape != b.g.node(other).shape {
            // The other branch is made to fit by a pool of the same window.
            b.at = b.g.find("relu2").unwrap();
            let same = b.average("pool3", window(kernel, stride, pad), counted);
            b.op("add", Op::Add, &[pooled, same]);
        } else {
            b.op("add", Op::Add, &[pooled, other]);
        }
        b.relu("relu3");
        b.dense("fc", 3);
        let graph = b.finish();
        let c = sound(graph.clone(), &calibrated(&graph), 4e-3);
        assert_eq!(fixed(&c, "add").unit(), fixed(&c, "relu").unit(), "{}", c.graph);
        assert_eq!(c.graph.find("pool/divide").is_some(), divides, "{kernel:?}\n{}", c.graph);
    }
}

/// Windows at the border with fewer positions: each position has its own divisor, whatever follows.
#[test]
fn uneven_divisors_are_multiplied_exactly() {
    for (kernel, pad) in [([3, 3], [1; 4]), ([2, 3], [0, 1, 1, 2]), ([5, 5], [2, 2, 2, 2]), ([1, 2], [0, 0, 0, 1])] {
        let mut b = Build::new(&[1, 2, 7, 9]);
        b.conv("conv", 2, 3);
        b.relu("relu");
        b.average("pool", window(kernel, 1, pad), [0; 4]);
        b.dense("fc", 3);
        let graph = b.finish();
        let c = sound(graph.clone(), &calibrated(&graph), 6e-3);
        let (op, _) = node(&c, "pool/divide");
        let Op::Divide { numerator, shift, divisors } = op else { panic!("{op:?}") };
        let most = kernel[0] * kernel[1];
        let [_, _, h, w] = c.graph.node(c.graph.find("pool").unwrap()).shape[..] else { panic!("no map") };
        assert_eq!(divisors.len(), h * w);
        assert!(divisors.iter().max() == Some(&most) && divisors.iter().min() < Some(&most), "{divisors:?}");
        // Factors are whole, and the weights behind take what they have in common.
        assert!(shift == 0 && divisors.iter().all(|d| numerator % *d as u64 == 0), "{numerator}: {divisors:?}");
        let bits = numerator.next_power_of_two().ilog2();
        let result = fixed(&c, "pool/divide/truncate");
        assert_eq!(u32::from(result.frac) + bits, u32::from(fixed(&c, "relu").frac));
        assert_eq!(result.gain, 1.0 / numerator as f64);
    }
}

/// Layers in a row: a re-mask while the modulus lasts, a refresh when it has fallen too far.
#[test]
fn remask_or_refresh() {
    let graph = || {
        let mut b = Build::new(&[1, 2, 5, 5]);
        b.conv("a", 3, 3);
        b.conv("b", 3, 3);
        b.conv("c", 2, 1);
        b.finish()
    };
    let in_ring = |ring: Option<u8>| {
        let mut o = calibrated(&graph());
        o.passes.ring = ring;
        sound(graph(), &o, 2e-3)
    };
    let wide = in_ring(Some(64));
    assert_eq!((count(&wide, "remask"), count(&wide, "refresh")), (2, 0), "{}", wide.graph);
    // Nothing travels online but the input and the output.
    let report = Report::new(&wide.lowered.program).unwrap();
    let online: Vec<&str> = report.layers.iter().filter(|l| l.online_bytes > 0).map(|l| l.name.as_str()).collect();
    assert_eq!(online, ["x", "output"]);
    assert_eq!(report.totals.phases.online.messages, 2);
    let remask = report.layers.iter().find(|l| l.op == "remask").unwrap();
    assert!(remask.offline_bytes > 0 && remask.rounds == 0, "{remask:?}");
    let online_messages = wide.lowered.program.messages.iter().filter(|m| m.phase == Phase::Online).count();
    assert_eq!(online_messages, 2);
    // In the smallest ring the modulus of the first result is too small for a second layer.
    let narrow = in_ring(None);
    assert!(narrow.lowered.program.ring < 48);
    assert_eq!(count(&narrow, "refresh"), 2, "{}", narrow.graph);
    let report = Report::new(&narrow.lowered.program).unwrap();
    let refresh = report.layers.iter().find(|l| l.op == "refresh").unwrap();
    assert!(refresh.online_bytes > 0 && refresh.drelus == 0, "{refresh:?}");
    // Three layers of 12 bits fit in 48 bits once, not twice.
    let middle = in_ring(Some(48));
    assert_eq!((count(&middle, "remask"), count(&middle, "refresh")), (1, 1), "{}", middle.graph);
}

/// A value read by two layers is made dealt once.
#[test]
fn one_remask_serves_all_readers() {
    let mut b = Build::new(&[1, 2, 5, 5]);
    let x = b.conv("a", 3, 3);
    let left = b.conv("left", 3, 3);
    b.at = x;
    let right = b.conv("right", 3, 1);
    b.op("add", Op::Add, &[left, right]);
    let graph = b.finish();
    for ring in [Some(64), None] {
        let mut o = calibrated(&graph);
        o.passes.ring = ring;
        let c = sound(graph.clone(), &o, 2e-3);
        assert_eq!(count(&c, "remask") + count(&c, "refresh"), 1, "{}", c.graph);
    }
}

/// Plans of identities alone leave no Block-ReLU, only what the next layer needs.
#[test]
fn identity_layers_cost_no_sign() {
    for name in ["tiny_plain", "tiny_residual"] {
        let graph = built(name);
        let images = random_images(&graph, 4, 9);
        let c = compiled(graph.clone(), &options(BlockChoice::Uniform(Block::Identity), images.clone()));
        assert_eq!(count(&c, "block_relu"), 0, "{}", c.graph);
        assert_eq!(Report::new(&c.lowered.program).unwrap().totals.drelus, 0);
        let mut wide = options(BlockChoice::Uniform(Block::Identity), images);
        wide.passes.ring = Some(64);
        let c = compiled(graph, &wide);
        let first = c.graph.topo().into_iter().find(|i| matches!(c.graph.node(*i).op, Op::Remask));
        assert!(first.is_some(), "{}", c.graph);
    }
}

#[test]
fn every_layer_with_weights_reads_a_dealt_value() {
    for name in TINY {
        let graph = built(name);
        let plan = BlockChoice::Plan(mixed_plan(&graph));
        let c = compiled(graph.clone(), &options(plan, random_images(&graph, 4, 9)));
        for id in c.graph.topo() {
            if c.graph.node(id).op.is_linear_layer() {
                let operand = c.graph.node(c.graph.operand(id)).fixed.unwrap();
                assert_eq!(operand.client, ClientShare::Dealt);
            }
        }
    }
}

/// Without calibration every bound is a proof: no input within the declared range passes one.
#[test]
fn proven_bounds_hold_on_adversarial_inputs() {
    let mut numbers = Numbers::new(0xad5e);
    let (mut graphs, mut values, mut tight) = (0, 0, 0);
    for seed in 0..400 {
        let steps = numbers.between(1, 6);
        let graph = random_graph(&mut numbers, steps);
        let input_bound = [0.3, 1.0, 2.7, 255.0][seed % 4];
        let mut o = options(BlockChoice::Keep, Vec::new());
        o.passes.input_bound = Some(input_bound);
        if seed % 3 == 0 {
            (o.passes.frac, o.passes.weight_frac) = (8, 7);
        }
        let c = match compile_graph(graph, &o, &mut Quiet) {
            Ok(c) => c,
            Err(CompileError::Pass(PassError::Quantize(_))) => continue,
            Err(e) => panic!("seed {seed}: {e}"),
        };
        let g = &c.graph;
        for id in g.topo() {
            let r = g.node(id).range.unwrap();
            assert_eq!(r.evidence, Evidence::Proven, "seed {seed}: {}", g.node(id).name);
            assert!(r.block_sum.is_none_or(|(_, e)| e == Evidence::Proven));
        }
        let mut reached: BTreeMap<NodeId, f64> = BTreeMap::new();
        for input in adversarial(g, input_bound, &mut numbers) {
            let seen = twin::run(g, &input, &mut |id, v| {
                check_bounds(g, id, v, &mut reached).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{g}"));
                values += v.len();
            });
            seen.unwrap_or_else(|e| panic!("seed {seed}: {e}\n{g}"));
        }
        tight += usize::from(reached.values().filter(|r| **r > 0.9).count() > 1);
        graphs += 1;
    }
    // Bounds that were far off would pass as well: many are nearly reached.
    assert!(graphs > 200 && tight * 2 > graphs, "{graphs} graphs, {tight} of them tight, {values} values");
}

/// The same where calibration tightened some: what is proven holds for every input in range.
#[test]
fn evidence_marks_are_right() {
    let mut numbers = Numbers::new(0xe71d);
    let mut counts = [0usize; 3];
    for seed in 0..150 {
        let graph = random_graph(&mut numbers, 1 + seed % 6);
        let mut o = options(BlockChoice::Keep, random_images(&graph, 2, seed as u64));
        o.passes.input_bound = Some(2.0);
        o.passes.margin = 1.0;
        let Ok(c) = compile_graph(graph, &o, &mut Quiet) else { continue };
        let g = &c.graph;
        let mut rests: BTreeMap<NodeId, bool> = BTreeMap::new();
        for id in g.topo() {
            let r = g.node(id).range.unwrap();
            let observed = matches!(r.evidence, Evidence::Observed { .. });
            let before = g.operands(id).iter().any(|o| rests[o]);
            let want = match r.evidence {
                Evidence::Proven => !before,
                Evidence::Derived => before,
                Evidence::Observed { margin } => {
                    margin == 1.0 && matches!(g.node(id).op, Op::Conv { .. } | Op::Dense { .. } | Op::Add | Op::Sub)
                }
            };
            assert!(want, "seed {seed}: {}\n{g}", g.node(id).name);
            if let Some((_, e)) = r.block_sum {
                let want = match e {
                    Evidence::Proven => !before,
                    Evidence::Derived => before,
                    Evidence::Observed { .. } => true,
                };
                assert!(want, "seed {seed}: block sum of {}\n{g}", g.node(id).name);
            }
            rests.insert(id, before || observed);
            counts[match r.evidence {
                Evidence::Proven => 0,
                Evidence::Derived => 1,
                Evidence::Observed { .. } => 2,
            }] += 1;
        }
        let mut reached = BTreeMap::new();
        for input in adversarial(g, 2.0, &mut numbers) {
            // Beyond observed bounds values may leave their modulus; up to there proofs hold.
            let _ = twin::run(g, &input, &mut |id, v| {
                if g.node(id).range.unwrap().evidence == Evidence::Proven {
                    check_bounds(g, id, v, &mut reached).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{g}"));
                }
            });
        }
    }
    assert!(counts.iter().all(|c| *c > 100), "{counts:?}");
}

/// Inputs at the ends of the declared range.
fn adversarial(g: &Graph, bound: f64, numbers: &mut Numbers) -> Vec<Vec<i64>> {
    let input = g.input().unwrap();
    let len = g.node(input).len();
    // The largest integer that stands for a value in range.
    let most = (bound / g.node(input).fixed.unwrap().unit()).floor() as i64;
    let mut all = vec![vec![most; len], vec![-most; len], vec![0; len]];
    all.push((0..len).map(|i| if i % 2 == 0 { most } else { -most }).collect());
    for _ in 0..6 {
        all.push((0..len).map(|_| if numbers.one_in(2) { most } else { -most }).collect());
    }
    all.extend(worst_of_first_layers(g, most));
    all
}

/// Signs that make single outputs of a layer on the input as large as they get.
fn worst_of_first_layers(g: &Graph, most: i64) -> Vec<Vec<i64>> {
    let input = g.input().unwrap();
    let Some(layer) = g.users(input).into_iter().find(|u| g.node(*u).op.is_linear_layer()) else { return Vec::new() };
    let (zeros, outputs) = (vec![0; g.node(input).len()], g.node(layer).len());
    let base = twin::step(g, layer, &[&zeros]).unwrap();
    let mut found = Vec::new();
    let mut signs = vec![vec![0i64; zeros.len()]; outputs.min(3)];
    for i in 0..zeros.len() {
        let mut unit = zeros.clone();
        unit[i] = 1;
        let image = twin::step(g, layer, &[&unit]).unwrap();
        for (n, s) in signs.iter_mut().enumerate() {
            let o = n * (outputs - 1) / 3 + outputs / 3 * usize::from(outputs > 3);
            let o = o.min(outputs - 1);
            s[i] = (image[o] - base[o]).signum();
        }
    }
    for s in signs {
        found.push(s.iter().map(|v| v * most).collect());
        found.push(s.iter().map(|v| -v * most).collect());
    }
    found
}

/// Every value, and every block sum of a gate's operand, within its bound.
fn check_bounds(g: &Graph, id: NodeId, v: &[i64], reached: &mut BTreeMap<NodeId, f64>) -> Result<(), String> {
    let node = g.node(id);
    let (range, unit) = (node.range.unwrap(), node.fixed.unwrap().unit());
    let largest = v.iter().map(|x| x.unsigned_abs()).max().unwrap_or(0) as f64 * unit;
    if largest > range.bound * (1.0 + 1e-9) {
        return Err(format!("\"{}\" reaches {largest}, its bound is {}", node.name, range.bound));
    }
    let share = reached.entry(id).or_default();
    *share = share.max(largest / range.bound.max(f64::MIN_POSITIVE));
    for gate in g.users(id) {
        let (Op::BlockRelu { blocks, .. }, Some((bound, evidence))) =
            (&g.node(gate).op, g.node(gate).range.and_then(|r| r.block_sum))
        else {
            continue;
        };
        // Pixels may be proven where the sum is what calibration showed.
        if matches!(evidence, Evidence::Observed { .. }) {
            continue;
        }
        let (_, [h, w]) = node.map().unwrap();
        for (block, map) in blocks.iter().zip(v.chunks_exact(h * w)) {
            for sum in block_sums(*block, [h, w], map) {
                let sum = sum.unsigned_abs() as f64 * unit;
                if sum > bound * (1.0 + 1e-9) {
                    return Err(format!("a block sum of \"{}\" reaches {sum}, not {bound}", g.node(gate).name));
                }
            }
        }
    }
    Ok(())
}

/// Sums over the blocks of one channel, in row-major order of the blocks.
fn block_sums(block: Block, [h, w]: [usize; 2], map: &[i64]) -> Vec<i64> {
    let Block::Patch { h: bh, w: bw } = block else { return Vec::new() };
    let mut sums = Vec::new();
    for y in (0..h).step_by(bh) {
        for x in (0..w).step_by(bw) {
            let rows = map[y * w..(y + bh).min(h) * w].chunks_exact(w);
            sums.push(rows.flat_map(|r| &r[x..(x + bw).min(w)]).sum());
        }
    }
    sums
}

/// Approximate signs: with `window` bits of a sum below its highest, the lowest `lo` bits of every
/// pixel's opened value are left out, so a block decides otherwise only where the magnitude of its
/// sum is below `pixels * 2^lo`.
#[test]
fn approximate_signs_err_near_zero_alone() {
    let graph = built("tiny_residual");
    let images = random_images(&graph, 6, 33);
    let mut plan = Plan::of(&graph);
    for (i, entries) in plan.layers.values_mut().enumerate() {
        *entries = vec![["1x1", "2x2", "3x1", "4x4", "100x100"][i % 5].to_string()];
    }
    let mut deviations = Vec::new();
    for width in [2u8, 4, 6, 8, 12, 16, 64] {
        let mut o = options(BlockChoice::Plan(plan.clone()), images.clone());
        o.lower.drelu_window = Some(width);
        let c = compiled(graph.clone(), &o);
        let (_, opened) = run_opened(&c, &images, LocalOptions::default()).unwrap();
        let mut wrong = 0;
        for o in &opened {
            for id in c.graph.topo() {
                if let Op::BlockRelu { blocks, .. } = &c.graph.node(id).op {
                    wrong += deviating(&c.graph, id, blocks, width, o).unwrap_or_else(|e| panic!("{width}: {e}"));
                }
            }
        }
        deviations.push(wrong);
        if width == 64 {
            assert_eq!(wrong, 0, "a window as wide as any sum is exact");
        }
    }
    assert!(deviations[0] > 20 && deviations.is_sorted_by(|a, b| a >= b), "{deviations:?}");
    // Fewer bits cost less.
    let online = |width: Option<u8>| {
        let mut o = options(BlockChoice::Plan(plan.clone()), images.clone());
        o.lower.drelu_window = width;
        Report::new(&compiled(graph.clone(), &o).lowered.program).unwrap().totals.online_bytes
    };
    assert!(online(Some(4)) < online(Some(12)) && online(Some(12)) < online(None));
}

/// Blocks of one gate that differ from the exact result, all of which must be near zero; whatever
/// the decision, a block passes or vanishes as a whole.
fn deviating(g: &Graph, id: NodeId, blocks: &[Block], width: u8, opened: &Opened) -> Result<usize, String> {
    let node = g.node(id);
    let operand = g.operand(id);
    let (x, y) = (&opened[&operand], &opened[&id]);
    let exact = twin::step(g, id, &[x]).map_err(|e| e.to_string())?;
    let (_, [h, w]) = node.map().unwrap();
    let (bound, _) = node.range.unwrap().block_sum.unwrap();
    let units = bound / node.fixed.unwrap().unit();
    let hi = (2..=64u8).find(|h| units < (f64::from(*h) - 1.0).exp2()).unwrap();
    let lo = u32::from(hi.saturating_sub(width));
    let mut wrong = 0;
    for (c, block) in blocks.iter().enumerate() {
        let maps = [x, y, &exact].map(|m| &m[c * h * w..][..h * w]);
        let Block::Patch { h: bh, w: bw } = *block else { continue };
        let sums = block_sums(*block, [h, w], maps[0]);
        let mut sums = sums.into_iter();
        for top in (0..h).step_by(bh) {
            for left in (0..w).step_by(bw) {
                let sum = sums.next().unwrap();
                let pixels: Vec<usize> = (top..(top + bh).min(h))
                    .flat_map(|r| (left..(left + bw).min(w)).map(move |col| r * w + col))
                    .collect();
                let passes = pixels.iter().all(|p| maps[1][*p] == maps[0][*p]);
                let vanishes = pixels.iter().all(|p| maps[1][*p] == 0);
                if !passes && !vanishes {
                    return Err(format!("\"{}\": a block is neither passed nor zero", node.name));
                }
                if pixels.iter().any(|p| maps[1][*p] != maps[2][*p]) {
                    wrong += 1;
                    if sum.unsigned_abs() >= (pixels.len() as u64) << lo {
                        let n = pixels.len();
                        return Err(format!("\"{}\": a block of {n} and sum {sum} errs, lo {lo}", node.name));
                    }
                }
            }
        }
    }
    Ok(wrong)
}
