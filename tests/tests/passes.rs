//! Single passes on small graphs, each named by what it is about: the graph before and after as a
//! snapshot, and the same function of real numbers.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::float::Executor;
use bcc_compiler::passes::{BlockChoice, PassOptions, canonicalize, fold, plan, prune, quantize, range};
use bcc_ir::Block;
use bcc_ir::geometry::Window;
use bcc_ir::graph::{ConstData, ConstId, Graph, NodeId, Op, Sample, Stage, verify};
use bcc_tests::nets::random_images;
use bcc_tests::random::Numbers;

struct Build {
    g: Graph,
    numbers: Numbers,
    at: NodeId,
}

impl Build {
    fn new(shape: &[usize]) -> Self {
        let mut g = Graph::new("net");
        let at = g.add_input("x", shape.to_vec());
        Build { g, numbers: Numbers::new(17), at }
    }

    fn constant(&mut self, name: &str, shape: &[usize]) -> ConstId {
        let values = self.numbers.values(shape.iter().product(), 1.0);
        self.g.add_const(name, shape.to_vec(), ConstData::Float(values))
    }

    fn op(mut self, name: &str, op: Op) -> Self {
        let operand = self.at;
        self.at = self.g.add(name, vec![name.into()], op, &[operand]).unwrap();
        self
    }

    fn channels(&self) -> usize {
        self.g.node(self.at).map().unwrap().0
    }

    fn conv(mut self, name: &str, out: usize, window: Window) -> Self {
        let shape = [out, self.channels(), window.kernel[0], window.kernel[1]];
        let weight = self.constant(&format!("{name}.w"), &shape);
        self.op(name, Op::Conv { weight, bias: None, window, groups: 1 })
    }

    fn dense(mut self, name: &str, out: usize) -> Self {
        let n = self.g.node(self.at).len();
        let weight = self.constant(&format!("{name}.w"), &[out, n]);
        let bias = Some(self.constant(&format!("{name}.b"), &[out]));
        self.op(name, Op::Dense { weight, bias })
    }

    fn affine(mut self, name: &str) -> Self {
        let c = self.channels();
        let scale = self.constant(&format!("{name}.scale"), &[c]);
        let shift = self.constant(&format!("{name}.shift"), &[c]);
        self.op(name, Op::Affine { scale, shift })
    }

    fn scale(mut self, name: &str, scale: f32) -> Self {
        let c = self.channels();
        let constant = |v: f32| ConstData::Float(vec![v; c]);
        let factor = self.g.add_const(format!("{name}.scale"), vec![c], constant(scale));
        let shift = self.g.add_const(format!("{name}.shift"), vec![c], constant(0.0));
        self.op(name, Op::Affine { scale: factor, shift })
    }

    fn relu(self, name: &str) -> Self {
        let blocks = vec![Block::RELU; self.channels()];
        self.op(name, Op::BlockRelu { blocks, plannable: true })
    }

    fn pad(self, name: &str, pad: [usize; 4]) -> Self {
        self.op(name, Op::Pad { pad })
    }

    fn reshape(self, name: &str, shape: &[usize]) -> Self {
        self.op(name, Op::Reshape { shape: shape.to_vec() })
    }

    fn transpose(self, name: &str, perm: &[usize]) -> Self {
        self.op(name, Op::Transpose { perm: perm.to_vec() })
    }

    fn average(self, name: &str, window: Window, counted: [usize; 4]) -> Self {
        self.op(name, Op::AvgPool { window, counted })
    }

    fn max(self, name: &str, window: Window) -> Self {
        self.op(name, Op::MaxPool { window })
    }

    fn done(mut self) -> Graph {
        self.g.set_output(self.at);
        verify(&self.g, Stage::Imported).unwrap();
        self.g
    }
}

fn k(kernel: [usize; 2]) -> Window {
    Window::new(kernel)
}

fn padded(kernel: [usize; 2], stride: usize, pad: [usize; 4]) -> Window {
    Window { stride: [stride; 2], pad, ..k(kernel) }
}

/// Runs a pass: the snapshot shows both graphs, which compute the same up to rounding.
fn same(name: &str, before: &Graph, stage: Stage, pass: impl FnOnce(&mut Graph)) -> Graph {
    let after = show(name, before, stage, pass);
    let (old, new) = (Executor::new(before), Executor::new(&after));
    for image in random_images(before, 4, 3) {
        for (x, y) in old.run(&image).into_iter().zip(new.run(&image)) {
            assert!((x - y).abs() <= 1e-4 * x.abs().max(1.0), "{name}: {x} became {y}\n{after}");
        }
    }
    after
}

fn show(name: &str, before: &Graph, stage: Stage, pass: impl FnOnce(&mut Graph)) -> Graph {
    let mut after = before.clone();
    pass(&mut after);
    verify(&after, stage).unwrap_or_else(|e| panic!("{name}: {e}\n{after}"));
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(format!("pass_{name}"), format!("# before\n{before}\n# after\n{after}")));
    after
}

fn folded(name: &str, before: &Graph) -> Graph {
    let after = same(&format!("fold_{name}"), before, Stage::Imported, |g| fold::run(g).unwrap());
    let mut again = after.clone();
    fold::run(&mut again).unwrap();
    assert_eq!(again.to_string(), after.to_string(), "{name}: folding again changes nothing");
    // Every ONNX node is still accounted for.
    let origins: Vec<String> = after.topo().iter().flat_map(|i| after.node(*i).origin.clone()).collect();
    for id in before.topo() {
        let name = &before.node(id).name;
        assert!(origins.contains(name), "{name} has left no trace in {origins:?}\n{after}");
    }
    after
}

#[test]
fn fold_batch_norm_into_the_layer_before() {
    let g = Build::new(&[1, 2, 5, 5]).conv("conv", 3, padded([3, 3], 1, [1; 4])).affine("bn").relu("relu").done();
    assert_eq!(folded("bn_into_conv", &g).len(), 3);
    let g = Build::new(&[1, 6]).dense("fc", 4).affine("bn").done();
    assert_eq!(folded("bn_into_dense", &g).len(), 2);
    let g = Build::new(&[1, 2, 5, 5]).conv("conv", 3, k([3, 3])).affine("bn1").affine("bn2").done();
    assert_eq!(folded("two_bn_into_conv", &g).len(), 2);
}

#[test]
fn fold_affine_into_the_layer_behind() {
    let g = Build::new(&[1, 2, 5, 5]).affine("norm").conv("conv", 3, k([3, 3])).done();
    assert_eq!(folded("affine_before_conv", &g).len(), 2);
    let g = Build::new(&[1, 5]).affine("norm").dense("fc", 3).done();
    assert_eq!(folded("affine_before_dense", &g).len(), 2);
    // A shift would reach into the padding, which is zero: a layer of its own.
    let g = Build::new(&[1, 2, 5, 5]).affine("norm").conv("conv", 3, padded([3, 3], 1, [1; 4])).done();
    assert_eq!(folded("affine_before_padded_conv", &g).len(), 3);
    let g = Build::new(&[1, 2, 5, 5]).scale("norm", 0.5).conv("conv", 3, padded([3, 3], 1, [1; 4])).done();
    assert_eq!(folded("scale_before_padded_conv", &g).len(), 2);
    // As above with the padding as a node of its own, in either order.
    let g = Build::new(&[1, 2, 5, 5]).affine("norm").pad("pad", [1; 4]).conv("conv", 3, k([3, 3])).done();
    folded("affine_then_pad", &g);
    let g = Build::new(&[1, 2, 5, 5]).pad("pad", [1; 4]).affine("norm").conv("conv", 3, k([3, 3])).done();
    folded("pad_then_affine", &g);
}

#[test]
fn fold_affine_that_stays() {
    let g = Build::new(&[1, 2, 5, 5]).affine("norm").relu("relu").done();
    folded("affine_alone", &g);
    let g = Build::new(&[1, 4]).affine("norm").relu("relu").done();
    folded("affine_on_a_vector", &g);
    // The layer's value is read twice: with and without the normalization.
    let mut b = Build::new(&[1, 2, 5, 5]).conv("conv", 2, k([3, 3]));
    let conv = b.at;
    b = b.affine("bn");
    let bn = b.at;
    b.at = b.g.add("add", vec!["add".into()], Op::Add, &[conv, bn]).unwrap();
    folded("affine_of_a_shared_value", &b.done());
    // The same as the output itself.
    let g = Build::new(&[1, 2, 4, 4]).relu("relu").affine("last").done();
    folded("affine_at_the_end", &g);
}

#[test]
fn fold_padding() {
    let g = Build::new(&[1, 2, 5, 5]).pad("pad", [0, 1, 2, 3]).conv("conv", 3, padded([3, 3], 2, [1, 0, 0, 0])).done();
    assert_eq!(folded("pad_into_conv", &g).len(), 2);
    let g = Build::new(&[1, 2, 5, 5]).pad("a", [1, 0, 0, 0]).pad("b", [0, 0, 2, 1]).conv("conv", 1, k([2, 2])).done();
    assert_eq!(folded("two_pads_into_conv", &g).len(), 2);
    // Zeros of a Pad count in an average.
    let g = Build::new(&[1, 2, 5, 5]).pad("pad", [1; 4]).average("pool", k([3, 3]), [0; 4]).done();
    assert_eq!(folded("pad_into_average", &g).len(), 2);
    let g =
        Build::new(&[1, 2, 5, 5]).pad("pad", [1, 0, 0, 1]).average("pool", padded([3, 3], 1, [1; 4]), [0; 4]).done();
    folded("pad_before_padded_average", &g);
    // A maximum is not that of a window with padding.
    let g = Build::new(&[1, 2, 5, 5]).pad("pad", [1; 4]).max("pool", k([3, 3])).done();
    assert_eq!(folded("pad_before_maximum", &g).len(), 3);
    let g = Build::new(&[1, 2, 5, 5]).pad("pad", [0; 4]).relu("relu").done();
    assert_eq!(folded("pad_of_nothing", &g).len(), 2);
}

#[test]
fn fold_what_does_nothing() {
    let g = Build::new(&[1, 2, 3, 3])
        .op("dropout", Op::Identity)
        .relu("relu")
        .op("identity", Op::Identity)
        .scale("one", 1.0)
        .reshape("same", &[1, 2, 3, 3])
        .transpose("in_place", &[0, 1, 2, 3])
        .done();
    assert_eq!(folded("identities", &g).len(), 2);
    let g = Build::new(&[1, 2, 3, 4])
        .transpose("nhwc", &[0, 2, 3, 1])
        .transpose("nchw", &[0, 3, 1, 2])
        .relu("relu")
        .transpose("turn", &[0, 1, 3, 2])
        .transpose("turn2", &[0, 2, 1, 3])
        .reshape("a", &[1, 4, 6])
        .reshape("b", &[1, 24])
        .done();
    folded("transposes_and_reshapes", &g);
    let nothing = Build::new(&[1, 3]).op("identity", Op::Identity).done();
    folded("a_network_of_nothing", &nothing);
}

/// Two layers over one weight, a normalization behind one: the other keeps its weight.
#[test]
fn fold_shared_weights() {
    let mut b = Build::new(&[1, 2, 5, 5]);
    let x = b.at;
    let weight = b.constant("shared", &[2, 2, 3, 3]);
    let op = Op::Conv { weight, bias: None, window: padded([3, 3], 1, [1; 4]), groups: 1 };
    b = b.op("left", op.clone()).affine("bn");
    let left = b.at;
    b.at = x;
    b = b.op("right", op);
    let right = b.at;
    b.at = b.g.add("add", vec!["add".into()], Op::Add, &[left, right]).unwrap();
    let after = folded("shared_weights", &b.done());
    let weights = |name: &str| match after.node(after.find(name).unwrap()).op {
        Op::Conv { weight, .. } => weight,
        _ => panic!("{name} is no convolution"),
    };
    assert_ne!(weights("left"), weights("right"));
}

#[test]
fn fold_overflow_is_an_error() {
    let g = Build::new(&[1, 1, 3, 3]).scale("a", 1e30).scale("b", 1e30).done();
    let error = fold::run(&mut g.clone()).unwrap_err().to_string();
    assert!(error.contains('b') && error.contains("32-bit floats"), "{error}");
    let g = Build::new(&[1, 1, 3, 3]).scale("a", 3e38).conv("conv", 1, k([1, 1])).scale("b", 1e10).done();
    assert!(matches!(fold::run(&mut g.clone()), Err(fold::FoldError::Overflow { .. })));
}

fn canonical(name: &str, before: &Graph) -> Graph {
    same(&format!("canonicalize_{name}"), before, Stage::Canonical, |g| canonicalize::run(g).unwrap())
}

fn gates(graph: &Graph) -> usize {
    graph.topo().into_iter().filter(|i| matches!(graph.node(*i).op, Op::BlockRelu { .. })).count()
}

#[test]
fn canonicalize_maximum_pools() {
    let g = Build::new(&[1, 2, 4, 6]).max("pool", padded([2, 2], 2, [0; 4])).done();
    assert_eq!(gates(&canonical("max_2x2", &g)), 2);
    let g = Build::new(&[1, 1, 7, 7]).max("pool", padded([3, 3], 2, [1; 4])).done();
    assert_eq!(gates(&canonical("max_3x3_padded", &g)), 4);
    // On an axis of one the window does nothing there.
    let g = Build::new(&[1, 2, 1, 6]).max("pool", padded([1, 3], 1, [0; 4])).done();
    assert_eq!(gates(&canonical("max_on_a_row", &g)), 2);
    let g = Build::new(&[1, 2, 1, 1]).max("pool", padded([3, 3], 2, [1; 4])).done();
    assert_eq!(gates(&canonical("max_of_one_pixel", &g)), 0);
    let g = Build::new(&[1, 1, 6, 6]).max("pool", Window { dilation: [2, 1], ..k([2, 3]) }).done();
    canonical("max_dilated", &g);
    let g = Build::new(&[1, 2, 3, 3]).max("pool", k([1, 1])).relu("relu").done();
    assert_eq!(gates(&canonical("max_1x1", &g)), 1);
    let g = Build::new(&[1, 1, 3, 5]).max("global", k([3, 5])).done();
    canonical("max_global", &g);
    let hollow = Build::new(&[1, 1, 2, 2]).max("pool", padded([2, 2], 1, [3, 0, 0, 0])).done();
    let error = canonicalize::run(&mut hollow.clone()).unwrap_err().to_string();
    assert!(error.contains("`pool`"), "{error}");
}

#[test]
fn canonicalize_transposes() {
    let g = Build::new(&[1, 5, 1, 1]).transpose("turn", &[0, 2, 3, 1]).reshape("flat", &[1, 5]).done();
    canonical("transpose_that_moves_nothing", &g);
    let g = Build::new(&[1, 2, 3, 1]).transpose("turn", &[0, 2, 1, 3]).done();
    canonical("transpose_that_moves", &g);
}

fn planned(name: &str, before: &Graph, choice: &BlockChoice) -> Graph {
    show(&format!("plan_{name}"), before, Stage::Canonical, |g| plan::run(g, choice).unwrap())
}

#[test]
fn plan_blocks() {
    let g = Build::new(&[1, 2, 5, 5])
        .conv("conv1", 3, k([3, 3]))
        .relu("relu1")
        .conv("conv2", 2, k([1, 1]))
        .relu("relu2")
        .done();
    let identity = planned("all_identity", &g, &BlockChoice::Uniform(Block::Identity));
    assert_eq!(gates(&identity), 2);
    assert_eq!(gates(&same("prune_all_identity", &identity, Stage::Canonical, |g| prune::run(g).unwrap())), 0);
    assert_eq!(gates(&planned("uniform", &g, &BlockChoice::Uniform(Block::Patch { h: 2, w: 2 }))), 2);
    assert_eq!(gates(&planned("keep", &g, &BlockChoice::Keep)), 2);
    let one = bcc_compiler::plan::Plan {
        network: String::new(),
        layers: [("relu1".to_string(), vec!["1*identity".into(), "2*zero".into()])].into(),
        ..bcc_compiler::plan::Plan::default()
    };
    assert_eq!(gates(&planned("mixed", &g, &BlockChoice::Plan(one))), 2);
    // Inside a maximum nothing is planned.
    let mut g = Build::new(&[1, 1, 4, 4]).relu("relu").max("pool", padded([2, 2], 2, [0; 4])).done();
    canonicalize::run(&mut g).unwrap();
    let identity = planned("not_in_a_maximum", &g, &BlockChoice::Uniform(Block::Identity));
    assert_eq!(gates(&same("prune_not_in_a_maximum", &identity, Stage::Canonical, |g| prune::run(g).unwrap())), 2);
}

fn quantized(name: &str, before: &Graph) -> Graph {
    let options = PassOptions { input_bound: Some(1.0), ..PassOptions::default() };
    show(&format!("quantize_{name}"), before, Stage::Quantized, |g| {
        range::run(g, &options).unwrap();
        quantize::run(g, &options).unwrap();
    })
}

#[test]
fn quantize_averages() {
    let g = Build::new(&[1, 1, 5, 5]).average("pool", padded([3, 3], 2, [1; 4]), [0; 4]).dense_after("fc").done();
    quantized("uneven_average", &g);
    let g = Build::new(&[1, 2, 3, 3]).average("pool", k([3, 3]), [0; 4]).dense_after("fc").done();
    quantized("average_of_nine", &g);
    let g = Build::new(&[1, 2, 4, 4]).average("pool", padded([2, 2], 2, [0; 4]), [0; 4]).done();
    quantized("average_at_the_end", &g);
}

#[test]
fn quantize_layers_in_a_row() {
    let g = Build::new(&[1, 2, 3, 3]).conv("a", 2, k([1, 1])).conv("b", 2, k([1, 1])).conv("c", 1, k([1, 1])).done();
    quantized("layers_in_a_row", &g);
    let g = Build::new(&[1, 2, 3, 3]).conv("a", 2, k([1, 1])).relu("relu").conv("b", 2, k([1, 1])).done();
    quantized("layers_with_a_relu", &g);
}

impl Build {
    fn dense_after(self, name: &str) -> Self {
        let n = self.g.node(self.at).len();
        self.reshape(&format!("{name}.flat"), &[1, n]).dense(name, 2)
    }
}

/// Two branches side by side.
fn join() -> Graph {
    let mut b = Build::new(&[1, 2, 4, 4]);
    let x = b.at;
    b = b.conv("left", 3, k([1, 1])).relu("left.relu");
    let left = b.at;
    b.at = x;
    b = b.conv("right", 2, k([1, 1]));
    let right = b.at;
    b.at = b.g.add("join", vec!["join".into()], Op::Concat { axis: 1, parts: 3 }, &[left, right, x]).unwrap();
    b.conv("behind", 4, padded([3, 3], 1, [1; 4])).relu("behind.relu").conv("last", 2, k([1, 1])).done()
}

#[test]
fn joins() {
    let g = join();
    quantized("join", &g);
    let blocks = |list: &[&str]| list.iter().map(|s| (*s).to_string()).collect::<Vec<_>>();
    for (name, left) in [("some", ["1*zero", "1*1x1", "1*2x2"]), ("all", ["1*zero", "1*zero", "1*zero"])] {
        let plan = bcc_compiler::plan::Plan {
            layers: [("left.relu".to_string(), blocks(&left))].into(),
            ..bcc_compiler::plan::Plan::default()
        };
        let mut planned = g.clone();
        plan::run(&mut planned, &BlockChoice::Plan(plan)).unwrap();
        let pruned = same(&format!("prune_join_{name}"), &planned, Stage::Canonical, |g| prune::run(g).unwrap());
        let parts = pruned.topo().into_iter().find_map(|i| match pruned.node(i).op {
            Op::Concat { parts, .. } => Some(parts),
            _ => None,
        });
        assert_eq!(parts, Some(if name == "some" { 3 } else { 2 }));
    }
}

#[test]
fn quantize_interpolation() {
    let quarter = |low, weight| Sample { low, high: low + 1, weight };
    let third = |low, weight: f64| Sample { low, high: low + 1, weight: weight / 3.0 };
    let rows = vec![Sample::at(0), quarter(0, 0.25), quarter(0, 0.75), Sample::at(1)];
    let columns = vec![Sample::at(0), third(0, 1.0), third(0, 2.0), Sample::at(1)];
    let g = Build::new(&[1, 2, 2, 2])
        .conv("a", 2, k([1, 1]))
        .relu("a.relu")
        .op("up/axis2", Op::Resample { axis: 2, samples: rows, bits: 0 })
        .op("up", Op::Resample { axis: 3, samples: columns, bits: 0 })
        .conv("b", 1, k([1, 1]))
        .done();
    quantized("interpolation", &g);
}
