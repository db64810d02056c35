//! What folding and canonicalization leave.

use bcc_compiler::passes::{canonicalize, fold};
use bcc_ir::geometry::{Block, Window};
use bcc_ir::graph::{ConstData, Graph, NodeId, Op};

use super::writer::{Model, Rng, check_passes, evaluate, ints};

fn ops(graph: &Graph) -> Vec<&'static str> {
    graph.topo().into_iter().map(|i| graph.node(i).op.name()).collect()
}

fn folded(m: &mut Model, what: &str) -> Graph {
    let mut graph = m.check(&mut Rng(7), what);
    fold::run(&mut graph).unwrap();
    graph
}

fn norm(m: &mut Model, rng: &mut Rng, x: &str, y: &str, channels: i64) {
    let names: Vec<String> = ["s", "b", "m", "v"].iter().map(|p| format!("{y}_{p}")).collect();
    for n in &names {
        let data: Vec<f32> = rng.floats(channels as usize).iter().map(|v| v.abs() + 0.1).collect();
        m.weight(n, &[channels], &data);
    }
    let inputs: Vec<&str> = std::iter::once(x).chain(names.iter().map(String::as_str)).collect();
    m.node("BatchNormalization", y, &inputs, vec![]);
}

#[test]
fn batch_norm_joins_the_convolution() {
    let mut rng = Rng(30);
    let mut m = Model::new(13, &[1, 4, 5, 5]);
    m.random(&mut rng, "w", &[6, 2, 3, 3]);
    m.node("Conv", "c", &["x", "w"], vec![ints("pads", &[1, 1, 1, 1]), super::writer::int("group", 2)]);
    norm(&mut m, &mut rng, "c", "n", 6);
    norm(&mut m, &mut rng, "n", "y", 6);
    let graph = folded(&mut m, "conv and norms");
    assert_eq!(ops(&graph), ["input", "conv"]);
    let conv = graph.node(graph.output().unwrap());
    assert_eq!((conv.name.as_str(), conv.origin.join(" ").as_str()), ("n_c", "n_c n_n n_y"));
}

#[test]
fn shared_convolution_keeps_its_norm_apart() {
    let mut rng = Rng(31);
    let mut m = Model::new(13, &[1, 2, 5, 5]);
    m.random(&mut rng, "w", &[3, 2, 1, 1]);
    m.node("Conv", "c", &["x", "w"], vec![]);
    norm(&mut m, &mut rng, "c", "n", 3);
    m.node("Add", "y", &["c", "n"], vec![]);
    let graph = folded(&mut m, "shared conv");
    assert_eq!(ops(&graph), ["input", "conv", "conv", "add"]);
    let depthwise = graph.node(graph.find("n_n").unwrap());
    assert!(matches!(depthwise.op, Op::Conv { groups: 3, .. }));
}

#[test]
fn shared_weights_are_folded_apart() {
    let mut rng = Rng(32);
    let mut m = Model::new(13, &[1, 2, 5, 5]);
    m.random(&mut rng, "w", &[2, 2, 1, 1]);
    m.node("Conv", "c", &["x", "w"], vec![]);
    norm(&mut m, &mut rng, "c", "n", 2);
    m.node("Conv", "y", &["n", "w"], vec![]);
    assert_eq!(ops(&folded(&mut m, "shared weights")), ["input", "conv", "conv"]);
}

#[test]
fn affine_in_front_of_layers() {
    let mut rng = Rng(33);
    let mut m = Model::new(13, &[1, 4, 5, 5]);
    norm(&mut m, &mut rng, "x", "n", 4);
    m.random(&mut rng, "w", &[6, 2, 3, 3]);
    m.node("Conv", "y", &["n", "w"], vec![super::writer::int("group", 2)]);
    assert_eq!(ops(&folded(&mut m, "norm, then conv")), ["input", "conv"]);

    // Padding puts zeros where the shift would be.
    m.graph().node[1].attribute.push(ints("pads", &[1, 0, 0, 0]));
    assert_eq!(ops(&folded(&mut m, "norm, then padded conv")), ["input", "conv", "conv"]);

    let mut m = Model::new(13, &[1, 4, 5, 5]);
    m.weight("k", &[4, 1, 1], &[1.0, 2.0, 3.0, 4.0]);
    m.node("Mul", "n", &["x", "k"], vec![]);
    m.random(&mut rng, "w", &[2, 4, 3, 3]);
    m.node("Conv", "y", &["n", "w"], vec![ints("pads", &[1, 0, 0, 0])]);
    assert_eq!(ops(&folded(&mut m, "scale, then padded conv")), ["input", "conv"]);

    let mut m = Model::new(13, &[1, 4]);
    norm(&mut m, &mut rng, "x", "n", 4);
    m.random(&mut rng, "w", &[4, 3]);
    m.node("MatMul", "y", &["n", "w"], vec![]);
    assert_eq!(ops(&folded(&mut m, "norm, then dense")), ["input", "dense"]);
}

#[test]
fn affine_on_its_own() {
    let mut rng = Rng(34);
    let mut m = Model::new(13, &[1, 4]);
    norm(&mut m, &mut rng, "x", "y", 4);
    assert_eq!(ops(&folded(&mut m, "norm of a vector")), ["input", "reshape", "conv", "reshape"]);
    let mut m = Model::new(13, &[1, 4]);
    m.weight("one", &[], &[1.0]);
    m.node("Mul", "y", &["x", "one"], vec![]);
    assert_eq!(ops(&folded(&mut m, "times one")), ["input"]);
}

#[test]
fn pads_join_windows() {
    let mut rng = Rng(35);
    for op in ["Conv", "AveragePool", "MaxPool"] {
        let mut m = Model::new(13, &[1, 2, 5, 5]);
        m.longs("p", &[0, 0, 1, 2, 0, 0, 0, 1]);
        m.node("Pad", "p1", &["x", "p"], vec![]);
        let mut attributes = vec![ints("pads", &[1, 1, 0, 0]), ints("strides", &[2, 1])];
        if op == "Conv" {
            m.random(&mut rng, "w", &[2, 2, 3, 3]);
            m.node(op, "y", &["p1", "w"], attributes);
        } else {
            attributes.push(ints("kernel_shape", &[3, 3]));
            m.node(op, "y", &["p1"], attributes);
        }
        let graph = folded(&mut m, op);
        assert_eq!(ops(&graph).contains(&"pad"), op == "MaxPool", "{op}");
        assert!(graph.node(graph.output().unwrap()).origin.contains(&"n_y".to_string()));
    }
}

#[test]
fn transposes_and_reshapes() {
    let mut m = Model::new(13, &[1, 3, 4, 5]);
    m.node("Transpose", "a", &["x"], vec![ints("perm", &[0, 2, 3, 1])]);
    m.node("Transpose", "b", &["a"], vec![ints("perm", &[0, 3, 1, 2])]);
    m.node("Flatten", "c", &["b"], vec![]);
    m.longs("to", &[1, 6, 10]);
    m.node("Reshape", "y", &["c", "to"], vec![]);
    let graph = folded(&mut m, "there and back");
    assert_eq!(ops(&graph), ["input", "reshape"]);

    // Axes of size 1 change places without any element moving.
    let mut m = Model::new(13, &[1, 1, 4, 5]);
    m.node("Transpose", "y", &["x"], vec![ints("perm", &[0, 2, 3, 1])]);
    let mut graph = folded(&mut m, "nothing moves");
    canonicalize::run(&mut graph).unwrap();
    assert_eq!(ops(&graph), ["input", "reshape"]);
}

#[test]
fn maximum_pool_is_a_tournament() {
    let mut m = Model::new(13, &[1, 2, 8, 8]);
    m.node("Relu", "r", &["x"], vec![]);
    m.node(
        "MaxPool",
        "y",
        &["r"],
        vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])],
    );
    let mut graph = folded(&mut m, "max pool");
    canonicalize::run(&mut graph).unwrap();
    // Per axis three taps, hence two maxima.
    let count = |name| ops(&graph).iter().filter(|o| **o == name).count();
    assert_eq!([count("gather"), count("sub"), count("block_relu"), count("add")], [6, 4, 5, 4]);
    for i in 0..4 {
        let node = graph.node(graph.find(&format!("n_y/max{i}")).unwrap());
        assert_eq!(node.origin, ["n_y"]);
        assert!(
            matches!(&node.op, Op::BlockRelu { plannable: false, blocks } if blocks.iter().all(|b| *b == Block::RELU))
        );
    }
    assert_eq!(graph.node(graph.find("n_y/max1").unwrap()).shape, [1, 2, 8, 4]);
    assert_eq!(graph.node(graph.find("n_y/max3").unwrap()).shape, [1, 2, 4, 4]);
}

#[test]
fn small_maximum_pools() {
    for (kernel, strides, expected) in [
        ([1, 1], [1, 1], vec!["input"]),
        ([1, 1], [2, 1], vec!["input", "gather"]),
        ([1, 2], [1, 2], vec!["input", "gather", "gather", "sub", "block_relu", "add"]),
    ] {
        let mut m = Model::new(13, &[1, 2, 4, 4]);
        m.node("MaxPool", "y", &["x"], vec![ints("kernel_shape", &kernel), ints("strides", &strides)]);
        let mut graph = folded(&mut m, "small max pool");
        canonicalize::run(&mut graph).unwrap();
        assert_eq!(ops(&graph), expected);
    }
}

/// Random residual networks of everything that folds.
#[test]
fn random_networks() {
    let mut rng = Rng(36);
    for case in 0..40 {
        let c = rng.range(1, 4) as i64;
        let (h, w) = (rng.range(4, 9) as i64, rng.range(4, 9) as i64);
        let mut m = Model::new(13, &[1, c, h, w]);
        let mut values = vec!["x".to_string()];
        for step in 0..rng.range(3, 12) {
            let x = values[rng.range(0, values.len() - 1)].clone();
            let y = format!("v{step}");
            match rng.range(0, 7) {
                0 => {
                    m.random(&mut rng, &format!("w{step}"), &[c, c, 3, 3]);
                    m.node("Conv", &y, &[&x, &format!("w{step}")], vec![ints("pads", &[1, 1, 1, 1])]);
                }
                1 => norm(&mut m, &mut rng, &x, &y, c),
                2 => drop(m.node("Relu", &y, &[&x], vec![])),
                3 => drop(m.node("Identity", &y, &[&x], vec![])),
                4 => {
                    let z = values[rng.range(0, values.len() - 1)].clone();
                    m.node("Add", &y, &[&x, &z], vec![]);
                }
                5 => {
                    let window = vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1])];
                    m.node(if rng.flip() { "MaxPool" } else { "AveragePool" }, &y, &[&x], window);
                }
                6 => {
                    m.weight(&format!("k{step}"), &[], &[1.5]);
                    m.node("Mul", &y, &[&x, &format!("k{step}")], vec![]);
                }
                _ => {
                    let t = format!("t{step}");
                    m.node("Transpose", &t, &[&x], vec![ints("perm", &[0, 2, 3, 1])]);
                    m.node("Transpose", &y, &[&t], vec![ints("perm", &[0, 3, 1, 2])]);
                }
            }
            values.push(y);
        }
        m.check(&mut rng, &format!("network {case}"));
    }
}

fn single(op: Op, shape: Vec<usize>) -> (Graph, NodeId) {
    let mut graph = Graph::new("t");
    let x = graph.add_input("x", shape);
    let y = graph.add("y", vec!["y".into()], op, &[x]).unwrap();
    graph.set_output(y);
    (graph, y)
}

#[test]
fn block_relu_in_floats() {
    let blocks = vec![Block::Patch { h: 2, w: 2 }, Block::Identity, Block::Zero, Block::RELU];
    let (graph, _) = single(Op::BlockRelu { blocks, plannable: true }, vec![1, 4, 3, 3]);
    let map = [-1.0, 2.0, -3.0, -2.0, 0.5, 4.0, 1.0, -1.0, -5.0];
    let input: Vec<f32> = map.repeat(4);
    let y = evaluate(&graph, &input);
    // Patches: top-left -0.5, top-right (cut) 1, bottom-left (cut) 0 passes, bottom-right -5.
    assert_eq!(y[..9], [0.0, 0.0, -3.0, 0.0, 0.0, 4.0, 1.0, -1.0, 0.0]);
    assert_eq!(y[9..18], map);
    assert_eq!(y[18..27], [0.0; 9]);
    assert_eq!(y[27..36], [0.0, 2.0, 0.0, 0.0, 0.5, 4.0, 1.0, 0.0, 0.0]);
}

#[test]
fn counted_padding_and_rank_2_affine() {
    let window = Window { pad: [1, 1, 2, 2], ..Window::new([3, 3]) };
    let (graph, _) = single(Op::AvgPool { window, counted: [1, 0, 1, 2] }, vec![1, 2, 4, 5]);
    check_passes(&graph, &Rng(2).floats(40), "counted padding");

    let mut graph = Graph::new("t");
    let x = graph.add_input("x", vec![1, 3]);
    let scale = graph.add_const("s", vec![3], ConstData::Float(vec![1.0, 2.0, 3.0]));
    let shift = graph.add_const("t", vec![3], ConstData::Float(vec![0.0, 1.0, 0.5]));
    let y = graph.add("y", vec!["y".into()], Op::Affine { scale, shift }, &[x]).unwrap();
    graph.set_output(y);
    assert_eq!(evaluate(&graph, &[1.0, 1.0, 1.0]), [1.0, 3.0, 3.5]);
    check_passes(&graph, &[1.0, -1.0, 2.0], "affine of a vector");
}
