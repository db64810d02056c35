//! Clips, leaking ReLUs, maximum pools and the class alone: secure against clear, exactly, and what
//! they send.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::compile::{CompileError, CompileOptions, Compiled, Quiet, compile_graph};
use bcc_compiler::float::{Executor, apply_epilogue};
use bcc_compiler::onnx::{ImportOptions, MaxPools, Relu6, import_bytes};
use bcc_compiler::passes::reveal::Reveal;
use bcc_compiler::passes::{BlockChoice, PassError};
use bcc_compiler::report::Report;
use bcc_ir::geometry::{Block, Window};
use bcc_ir::graph::{ClientStep, ConstData, Graph, NodeId, Op, Sample};
use bcc_ir::program::{Phase, Role, Type};
use bcc_models::onnx::{Conv, Dim, GraphBuilder, Pool, attr};
use bcc_runtime::session::LocalOptions;
use bcc_tests::nets::{compiled, options, random_images};
use bcc_tests::random::Numbers;
use bcc_tests::world::{check_exact, run_opened};
use prost::Message;

/// A graph under construction on an input `[1, channels, h, w]`.
struct Net {
    g: Graph,
    at: NodeId,
    numbers: Numbers,
}

impl Net {
    fn new(shape: &[usize], seed: u64) -> Net {
        let mut g = Graph::new("net");
        let at = g.add_input("x", shape.to_vec());
        Net { g, at, numbers: Numbers::new(seed) }
    }

    fn op(mut self, name: &str, op: Op) -> Net {
        self.at = self.g.add(name, vec![name.into()], op, &[self.at]).unwrap();
        self
    }

    fn conv(mut self, name: &str, out: usize, kernel: usize) -> Net {
        let c = self.g.node(self.at).shape[1];
        let spread = (3.0 / (c * kernel * kernel) as f32).sqrt();
        let values = self.numbers.values(out * c * kernel * kernel, spread);
        let weight = self.g.add_const("w", vec![out, c, kernel, kernel], ConstData::Float(values));
        let bias = self.numbers.values(out, 0.3);
        let bias = Some(self.g.add_const("b", vec![out], ConstData::Float(bias)));
        let window = Window { pad: [kernel / 2; 4], ..Window::new([kernel, kernel]) };
        self.op(name, Op::Conv { weight, bias, window, groups: 1 })
    }

    fn relu(self, name: &str) -> Net {
        let channels = self.g.node(self.at).shape[1];
        self.op(name, Op::BlockRelu { blocks: vec![Block::RELU; channels], plannable: true })
    }

    fn done(mut self) -> Graph {
        self.g.set_output(self.at);
        self.g
    }
}

fn with(graph: &Graph, set: impl FnOnce(&mut CompileOptions)) -> (Compiled, Vec<Vec<f32>>) {
    let images = random_images(graph, 4, 11);
    let mut o = options(BlockChoice::Keep, images.clone());
    set(&mut o);
    (compiled(graph.clone(), &o), images)
}

/// Runs and checks every value; the largest difference to the float network.
fn exact(c: &Compiled, images: &[Vec<f32>]) -> f64 {
    let (out, opened) = run_opened(c, images, LocalOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    for o in &opened {
        check_exact(&c.graph, o).unwrap_or_else(|e| panic!("{e}\n{}", c.graph));
    }
    let float = Executor::new(&c.real);
    let error = |(out, x): (&bcc_runtime::session::Output, &Vec<f32>)| {
        let want = float.run(x);
        assert_eq!(want.len(), out.value.data.len());
        out.value.data.iter().zip(want).map(|(a, b)| (a - f64::from(b)).abs()).fold(0.0, f64::max)
    };
    out.outputs.iter().zip(images).map(error).fold(0.0, f64::max)
}

fn online(c: &Compiled) -> (u64, u64, u64) {
    let t = Report::new(&c.lowered.program).unwrap().totals;
    (t.drelus, t.online_bytes, t.rounds)
}

#[test]
fn clips_of_every_kind() {
    let bounds = [
        (Some(0.0), Some(6.0)),
        (Some(0.0), Some(0.4)),
        (Some(-1.0), Some(1.0)),
        (Some(-0.3), None),
        (None, Some(0.7)),
        (None, Some(-0.2)),
        (Some(0.25), Some(0.75)),
    ];
    for (low, high) in bounds {
        let graph =
            Net::new(&[1, 3, 5, 6], 3).conv("a", 4, 3).op("clip", Op::Clip { low, high }).conv("b", 2, 3).done();
        for ring in [None, Some(40), Some(64)] {
            let (c, images) = with(&graph, |o| o.passes.ring = ring);
            let error = exact(&c, &images);
            assert!(error < 0.02, "[{low:?}, {high:?}], ring {ring:?}: {error}");
            let signs = low.iter().chain(&high).count() as u64 * 4 * 30;
            assert_eq!(online(&c).0, signs, "one sign decision per pixel and bound");
        }
    }
}

/// What a clip of no layer behind takes on a value that has the full ring already.
#[test]
fn clips_at_the_input() {
    for (low, high) in [(Some(-0.5), Some(0.5)), (None, Some(0.5))] {
        let graph = Net::new(&[1, 2, 4, 4], 3).op("clip", Op::Clip { low, high }).done();
        for ring in [Some(16), None, Some(64)] {
            let (c, images) = with(&graph, |o| (o.passes.ring, o.passes.frac) = (ring, 9));
            assert!(exact(&c, &images) < 0.005);
        }
    }
}

/// Both signs travel in the messages of one gate, and the value is opened and masked once.
#[test]
fn a_clip_takes_the_rounds_of_a_relu_and_less_than_two() {
    let net = |clip: bool| {
        let net = Net::new(&[1, 3, 8, 8], 5).conv("a", 8, 3);
        let net = if clip { net.op("y", Op::Clip { low: Some(0.0), high: Some(2.0) }) } else { net.relu("y") };
        with(&net.conv("b", 2, 1).done(), |o| o.passes.ring = Some(32)).0
    };
    let (relu, clip) = (online(&net(false)), online(&net(true)));
    assert_eq!(clip.0, 2 * relu.0);
    assert_eq!(clip.2, relu.2);
    assert!(clip.1 * 3 < relu.1 * 5, "{clip:?} {relu:?}");
}

/// A bound lies inside the interval whatever calibration shows.
#[test]
fn bounds_of_clips_are_proven() {
    let graph = Net::new(&[1, 3, 5, 5], 3).op("clip", Op::Clip { low: Some(0.0), high: Some(6.0) }).done();
    let (c, _) = with(&graph, |o| o.passes.input_bound = Some(100.0));
    let range = c.graph.node(c.graph.output().unwrap()).range.unwrap();
    assert!((range.bound - 6.0).abs() < 1e-3 && range.evidence == bcc_ir::graph::Evidence::Proven);
}

fn imported(options: &ImportOptions, build: impl Fn(&mut GraphBuilder, &mut Numbers) -> String) -> Graph {
    let mut b = GraphBuilder::new("net", 13);
    b.input("x", &[Dim::Fixed(1), Dim::Fixed(3), Dim::Fixed(8), Dim::Fixed(8)]);
    let y = build(&mut b, &mut Numbers::new(9));
    b.output(&y, &y, &[]);
    import_bytes(&b.finish_unchecked().encode_to_vec(), options).unwrap()
}

fn conv(b: &mut GraphBuilder, n: &mut Numbers, name: &str, x: &str, [out, c, k]: [i64; 3]) -> String {
    let w = n.values((out * c * k * k) as usize, (3.0 / (c * k * k) as f32).sqrt());
    let w = b.f32(&format!("{name}.w"), &[out, c, k, k], w);
    b.conv(name, x, &w, None, &Conv::square(k, 1, k / 2))
}

#[test]
fn leaking_relus() {
    for (op, next) in [("LeakyRelu", true), ("PRelu", true), ("PRelu", false)] {
        let graph = imported(&ImportOptions::default(), |b, n| {
            let y = conv(b, n, "a", "x", [4, 3, 3]);
            let y = if op == "PRelu" {
                let s = b.f32("slope", &[4, 1, 1], vec![0.25, -0.5, 0.0, 1.5]);
                b.node(op, "leak", &[&y, &s], vec![])
            } else {
                b.node(op, "leak", &[&y], vec![attr::float("alpha", 0.1)])
            };
            if next { conv(b, n, "b", &y, [2, 4, 3]) } else { y }
        });
        let (c, images) = with(&graph, |_| {});
        assert!(exact(&c, &images) < 0.02);
        assert_eq!(online(&c).0, 4 * 64, "one sign decision per pixel");
        let layers = c.graph.topo().into_iter().filter(|i| c.graph.node(*i).op.is_linear_layer()).count();
        assert_eq!(layers, 2, "the slopes are in the layer behind, where there is one");
        // No message online but those of the gate, the input and the output.
        let relu = imported(&ImportOptions::default(), |b, n| {
            let y = conv(b, n, "a", "x", [4, 3, 3]);
            let y = b.relu("relu", &y);
            if next { conv(b, n, "b", &y, [2, 4, 3]) } else { y }
        });
        let count = |c: &Compiled| c.lowered.program.messages.iter().filter(|m| m.phase == Phase::Online).count();
        assert_eq!(count(&c), count(&with(&relu, |_| {}).0), "{op}");
    }
}

#[test]
fn maximum_pools_of_every_window() {
    for (kernel, stride, levels) in
        [([2, 2], 2, 2), ([3, 3], 2, 4), ([5, 5], 1, 5), ([5, 3], 2, 4), ([6, 5], 3, 5), ([7, 7], 1, 6), ([9, 9], 9, 7)]
    {
        let window = Window { stride: [stride; 2], ..Window::new(kernel) };
        let graph = Net::new(&[1, 2, 9, 9], 3).conv("a", 2, 1).op("pool", Op::MaxPool { window }).done();
        let (c, images) = with(&graph, |_| {});
        assert!(exact(&c, &images[..2]) < 0.01);
        // Gates take their rounds one after the other.
        let gates = c.graph.topo().into_iter().filter(|i| matches!(c.graph.node(*i).op, Op::BlockRelu { .. })).count();
        assert_eq!(gates, levels, "{kernel:?}");
    }
}

fn pooled(options: &ImportOptions, relu6: bool) -> Graph {
    imported(options, |b, n| {
        let y = conv(b, n, "a", "x", [4, 3, 3]);
        let y = if relu6 { b.clip("act", &y, 0.0, 1.0) } else { b.relu("act", &y) };
        b.max_pool("pool", &y, &Pool::square(3, 2, 1))
    })
}

#[test]
fn a_pool_commutes_with_what_rises() {
    for relu6 in [false, true] {
        let plain = pooled(&ImportOptions::default(), relu6);
        let first = pooled(&ImportOptions { max_pools: MaxPools::First, ..ImportOptions::default() }, relu6);
        let (x, y) = (Executor::new(&plain), Executor::new(&first));
        for image in random_images(&plain, 5, 1) {
            assert_eq!(x.run(&image), y.run(&image));
        }
        let (before, after) = (with(&plain, |_| {}).0, with(&first, |_| {}).0);
        let (before, after) = (online(&before), online(&after));
        let signs = if relu6 { 2 } else { 1 };
        assert_eq!(before.0 - after.0, signs * 4 * (64 - 16));
        assert!(after.1 < before.1 && after.2 == before.2, "{after:?} {before:?}");
        assert!(exact(&with(&first, |_| {}).0, &random_images(&first, 2, 2)) < 0.01);
    }
    // Not where somebody else reads the ReLU, nor where nothing is saved.
    let shared = imported(&ImportOptions { max_pools: MaxPools::First, ..ImportOptions::default() }, |b, n| {
        let y = conv(b, n, "a", "x", [4, 3, 3]);
        let y = b.relu("act", &y);
        let p = b.max_pool("pool", &y, &Pool::square(3, 1, 1));
        b.add("sum", &p, &y)
    });
    let pool = shared.find("pool").unwrap();
    assert!(matches!(shared.node(shared.operand(pool)).op, Op::BlockRelu { .. }));
}

#[test]
fn substitutes_are_asked_for() {
    let average = pooled(&ImportOptions { max_pools: MaxPools::Average, ..ImportOptions::default() }, false);
    assert_eq!(online(&with(&average, |_| {}).0).0, 4 * 64);
    let relu = ImportOptions { relu6: Relu6::Relu, ..ImportOptions::default() };
    let graph = pooled(&relu, true);
    assert!(matches!(graph.node(graph.find("act").unwrap()).op, Op::BlockRelu { plannable: true, .. }));
    let kept = pooled(&ImportOptions::default(), true);
    assert!(matches!(kept.node(kept.find("act").unwrap()).op, Op::Clip { .. }));
    // Written as two nodes it is the same.
    let two = imported(&relu, |b, n| {
        let y = conv(b, n, "a", "x", [4, 3, 3]);
        let y = b.relu("act", &y);
        let six = b.f32("six", &[], vec![6.0]);
        b.node("Min", "cap", &[&y, &six], vec![])
    });
    assert!(two.find("cap").is_none());
}

/// Classes of the clear twin's logits, the first of equals.
fn classes(logits: &[i64], count: usize) -> Vec<f64> {
    let pixels = logits.len() / count;
    let of = |p: usize| (0..count).max_by_key(|i| (logits[i * pixels + p], count - i)).unwrap() as f64;
    (0..pixels).map(of).collect()
}

#[test]
fn the_class_alone() {
    for (shape, count, ring) in [
        (&[1, 3, 4, 5][..], 2, None),
        (&[1, 3, 4, 5], 3, Some(64)),
        (&[1, 2, 3, 3], 21, None),
        (&[1, 4, 1, 1], 150, Some(40)),
        (&[1, 4, 1, 1], 1000, None),
    ] {
        let graph = Net::new(shape, 3).conv("a", 5, 3).relu("r").conv("logits", count, 1).done();
        let (c, images) = with(&graph, |o| (o.passes.reveal, o.passes.ring) = (Reveal::Argmax, ring));
        let (out, opened) = run_opened(&c, &images, LocalOptions::default()).unwrap();
        let logits = c.graph.operand(c.graph.find("logits/argmax/tag").unwrap());
        for (out, opened) in out.outputs.iter().zip(&opened) {
            check_exact(&c.graph, opened).unwrap_or_else(|e| panic!("{e}\n{}", c.graph));
            assert_eq!(out.value.data, classes(&opened[&logits], count), "{count}");
            let pixels: usize = shape[2..].iter().product();
            assert_eq!(out.value.data.len(), pixels);
            assert_eq!(out.value.shape[1], 1);
        }
        // n - 1 comparisons of a pixel in ceil(log2 n) levels.
        let signs = |name: &str| {
            let rows = &c.lowered.program.layers;
            rows.iter().filter(|l| l.name.starts_with(name)).map(|l| l.drelus).collect::<Vec<_>>()
        };
        let gates = signs("logits/argmax/max");
        assert_eq!(gates.len() as u32, count.next_power_of_two().ilog2());
        assert_eq!(gates.iter().sum::<u64>() as usize, (count - 1) * shape[2] * shape[3]);
    }
}

/// Equal logits: the first class wins, wherever it stands.
#[test]
fn ties_go_to_the_first() {
    let mut g = Graph::new("ties");
    let x = g.add_input("x", vec![1, 7, 3, 3]);
    let one: Vec<f32> = (0..49).map(|i| if i % 8 == 0 { 1.0 } else { 0.0 }).collect();
    let weight = g.add_const("w", vec![7, 7, 1, 1], ConstData::Float(one));
    let op = Op::Conv { weight, bias: None, window: Window::new([1, 1]), groups: 1 };
    let y = g.add("logits", vec!["logits".into()], op, &[x]).unwrap();
    g.set_output(y);
    let mut numbers = Numbers::new(4);
    // Few different values, so that most maxima are shared.
    let images: Vec<Vec<f32>> =
        (0..8).map(|_| (0..63).map(|_| numbers.below(3) as f32 / 4.0 - 0.25).collect()).collect();
    let mut o = options(BlockChoice::Keep, images.clone());
    o.passes.reveal = Reveal::Argmax;
    let c = compiled(g, &o);
    let (out, opened) = run_opened(&c, &images, LocalOptions::default()).unwrap();
    let logits = c.graph.operand(c.graph.find("logits/argmax/tag").unwrap());
    let mut ties = 0;
    for (out, opened) in out.outputs.iter().zip(&opened) {
        let v = &opened[&logits];
        assert_eq!(out.value.data, classes(v, 7));
        let top = |p: usize| (0..7).map(|i| v[i * 9 + p]).max().unwrap();
        ties += (0..9).filter(|p| (0..7).filter(|i| v[i * 9 + p] == top(*p)).count() > 1).count();
    }
    assert!(ties > 20, "{ties}");
}

/// The one message that opens something holds the low bits of the class and no more, and the client
/// gets nothing else that is not masked: the verifier has passed the program.
#[test]
fn nothing_but_the_class_is_opened() {
    let graph = Net::new(&[1, 3, 4, 4], 3).conv("a", 5, 3).relu("r").conv("logits", 21, 1).done();
    let (c, _) = with(&graph, |o| o.passes.reveal = Reveal::Argmax);
    let p = &c.lowered.program;
    bcc_ir::program::verify(p).unwrap();
    let opened: Vec<_> = p.messages.iter().filter(|m| m.reveal).collect();
    assert_eq!(opened.len(), 1);
    assert_eq!((opened[0].from, opened[0].to), (Role::Server, Role::Client));
    assert_eq!(opened[0].parts, [Type::Ring { bits: 5, len: 16 }]);
    assert_eq!((p.output.modulus, p.output.frac), (5, 0));
    assert_eq!(p.epilogue, [ClientStep::Class { bits: 5 }]);
}

#[test]
fn a_softmax_keeps_the_class_and_its_shape() {
    let build = |axis: i64| {
        imported(&ImportOptions::default(), move |b, n| {
            let y = conv(b, n, "a", "x", [6, 3, 8]);
            let y = b.global_average_pool("pool", &y);
            let y = b.flatten("flat", &y, 1);
            b.softmax("soft", &y, axis)
        })
    };
    let graph = build(1);
    let (c, images) = with(&graph, |o| o.passes.reveal = Reveal::Argmax);
    let (out, _) = run_opened(&c, &images, LocalOptions::default()).unwrap();
    for (out, image) in out.outputs.iter().zip(&images) {
        let probabilities = Executor::new(&graph).run(image);
        let shape = graph.node(graph.output().unwrap()).shape.clone();
        let (p, _) = apply_epilogue(&graph.epilogue, probabilities, &shape);
        let best = (0..p.len()).max_by(|a, b| p[*a].total_cmp(&p[*b])).unwrap();
        assert_eq!(out.value.data, [best as f64]);
        assert_eq!(out.value.shape, [1, 1]);
    }
}

/// An enlargement and the network's own argmax are done on shares: the classes are those of the argmax of
/// opened logits, except where two logits are nearly the same.
#[test]
fn an_enlarged_map_is_classified_on_shares() {
    let mut graph = Net::new(&[1, 3, 4, 5], 3).conv("a", 5, 3).relu("r").conv("logits", 7, 1).done();
    let between =
        |i: usize, n: usize| Sample { low: i / 2, high: (i / 2 + 1).min(n - 1), weight: 0.5 * (i % 2) as f64 };
    let samples = |n: usize| (0..2 * n).map(|i| between(i, n)).collect::<Vec<_>>();
    let nearest = (0..16).map(|i| Sample::at(i / 2)).collect();
    graph.epilogue = vec![
        ClientStep::Resample { axis: 2, samples: samples(4) },
        ClientStep::Resample { axis: 3, samples: samples(5) },
        ClientStep::Resample { axis: 2, samples: nearest },
        ClientStep::Softmax { axis: 1 },
        ClientStep::ArgMax { axis: 1, keepdims: false, select_last_index: false },
        ClientStep::Transpose { perm: vec![0, 2, 1] },
    ];
    let (c, images) = with(&graph, |o| o.passes.reveal = Reveal::Argmax);
    let opened: Vec<_> = c.lowered.program.messages.iter().filter(|m| m.reveal).collect();
    assert_eq!(opened[0].parts, [Type::Ring { bits: 3, len: 160 }]);
    let (out, _) = run_opened(&c, &images, LocalOptions::default()).unwrap();
    let (mut same, mut all) = (0, 0);
    for (out, image) in out.outputs.iter().zip(&images) {
        let logits = Executor::new(&graph).run(image);
        let (map, shape) = apply_epilogue(&graph.epilogue[..3], logits, &[1, 7, 4, 5]);
        assert_eq!(shape, [1, 7, 16, 10]);
        assert_eq!(out.value.shape, [1, 10, 16]);
        for p in 0..160 {
            let class = out.value.data[p % 10 * 16 + p / 10] as usize;
            let best = (0..7).map(|c| map[c * 160 + p]).fold(f32::MIN, f32::max);
            assert!(best - map[class * 160 + p] < 0.02, "pixel {p}: class {class}");
            same += usize::from(best == map[class * 160 + p]);
            all += 1;
        }
    }
    assert!(same * 100 > all * 95, "{same} of {all}");
}

#[test]
fn what_has_no_class_is_refused() {
    let refusal = |graph: Graph| {
        let mut o = options(BlockChoice::Keep, random_images(&graph, 2, 1));
        o.passes.reveal = Reveal::Argmax;
        match compile_graph(graph, &o, &mut Quiet) {
            Err(CompileError::Pass(PassError::Reveal(e))) => e.to_string(),
            other => panic!("{:?}", other.map(|_| ()).map_err(|e| e.to_string())),
        }
    };
    let one = refusal(Net::new(&[1, 3, 4, 4], 3).conv("logits", 1, 1).done());
    assert!(one.contains("\"logits\" has shape [1, 1, 4, 4]") && one.contains("--output-name"), "{one}");
    let mut graph = Net::new(&[1, 3, 4, 4], 3).conv("logits", 4, 1).done();
    graph.epilogue = vec![ClientStep::Softmax { axis: 2 }];
    let step = refusal(graph.clone());
    assert!(step.contains("behind the last secret layer \"logits\"") && step.contains("Softmax"), "{step}");
    graph.epilogue = vec![ClientStep::Reshape { shape: vec![1, 64] }];
    assert!(refusal(graph.clone()).contains("Reshape"));
    graph.epilogue = vec![ClientStep::ArgMax { axis: 1, keepdims: true, select_last_index: true }];
    assert!(refusal(graph.clone()).contains("ArgMax"));
    let probabilities = ClientStep::Resample { axis: 2, samples: vec![Sample::at(0); 8] };
    graph.epilogue = vec![ClientStep::Softmax { axis: 1 }, probabilities];
    assert!(refusal(graph).contains("Resample"));
}
