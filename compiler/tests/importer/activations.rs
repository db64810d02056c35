//! Activations and extrema on random shapes and attributes against tract.

use bcc_ir::geometry::Block;
use bcc_ir::graph::{Graph, Op};

use super::writer::{Model, Rng, float, int, ints, longs, tensor};

fn map(rng: &mut Rng) -> Vec<i64> {
    vec![1, rng.range(1, 6) as i64, rng.range(1, 7) as i64, rng.range(1, 7) as i64]
}

fn count(graph: &Graph, wanted: fn(&Op) -> bool) -> usize {
    graph.topo().into_iter().filter(|i| wanted(&graph.node(*i).op)).count()
}

fn folded(mut graph: Graph) -> Graph {
    bcc_compiler::passes::fold::run(&mut graph).unwrap();
    graph
}

#[test]
fn clips() {
    let mut rng = Rng(40);
    for case in 0..80 {
        let shape = if rng.flip() { map(&mut rng) } else { vec![1, 5] };
        let opset = [9, 11, 13, 17][rng.range(0, 3)];
        let mut m = Model::new(opset, &shape);
        let (low, high) = (-0.1 * rng.range(0, 8) as f32, 0.1 * rng.range(1, 9) as f32);
        let (with_low, with_high) = (rng.flip(), rng.flip());
        let what = format!("clip {case}: {shape:?} opset {opset} {low} {high} {with_low} {with_high}");
        if opset < 11 {
            let low = with_low.then(|| float("min", low));
            m.node("Clip", "y", &["x"], low.into_iter().chain(with_high.then(|| float("max", high))).collect());
        } else {
            m.weight("low", &[], &[low]);
            m.weight("high", &[], &[high]);
            let name = |there, name| if there { name } else { "" };
            m.node("Clip", "y", &["x", name(with_low, "low"), name(with_high, "high")], vec![]);
        }
        m.check(&mut rng, &what);
    }
}

#[test]
fn minima_and_maxima_with_constants() {
    let mut rng = Rng(41);
    for op in ["Min", "Max"] {
        for value in [-0.5, 0.0, 0.25] {
            let mut m = Model::new(13, &map(&mut rng));
            m.weight("c", &[1, 1, 1, 1], &[value]);
            let inputs = if rng.flip() { ["x", "c"] } else { ["c", "x"] };
            m.node(op, "y", &inputs, vec![]);
            let graph = m.check(&mut rng, &format!("{op} {value}"));
            let relus = count(&graph, |o| matches!(o, Op::BlockRelu { plannable: true, .. }));
            assert_eq!(relus, usize::from(op == "Max" && value == 0.0));
        }
    }
}

#[test]
fn clips_join() {
    let mut rng = Rng(42);
    let mut m = Model::new(13, &[1, 2, 4, 4]);
    m.node("Relu", "r", &["x"], vec![]);
    m.weight("six", &[], &[0.6]);
    m.node("Min", "y", &["r", "six"], vec![]);
    let graph = folded(m.check(&mut rng, "relu, then min"));
    assert_eq!(graph.len(), 2);
    let op = &graph.node(graph.output().unwrap()).op;
    assert!(matches!(op, Op::Clip { low: Some(0.0), high: Some(_) }), "{op:?}");
    // Not where the intervals have nothing in common.
    m.graph().initializer[0].float_data = vec![-0.5];
    assert_eq!(folded(m.check(&mut rng, "relu, then min below")).len(), 3);
}

#[test]
fn hard_sigmoid() {
    let mut rng = Rng(43);
    for attributes in [vec![], vec![float("alpha", 0.7), float("beta", 0.2)]] {
        let mut m = Model::new(13, &[1, 3, 4, 4]);
        m.random(&mut rng, "w", &[2, 3, 1, 1]);
        m.node("Conv", "c", &["x", "w"], vec![]);
        m.node("HardSigmoid", "y", &["c"], attributes);
        let graph = folded(m.check(&mut rng, "hard sigmoid"));
        assert_eq!(graph.len(), 3, "its slope is in the layer before");
    }
}

#[test]
fn leaking_relus() {
    let mut rng = Rng(44);
    for case in 0..60 {
        let mut shape = if rng.flip() { map(&mut rng) } else { vec![1, 5] };
        let c = shape[1];
        let mut m = Model::new([9, 13, 16][rng.range(0, 2)], &shape);
        if rng.flip() {
            m.node("LeakyRelu", "y", &["x"], vec![float("alpha", [0.1, 0.0, -0.3, 1.0][rng.range(0, 3)])]);
        } else {
            shape.remove(0);
            let dims = match (rng.range(0, 2), shape.len()) {
                (0, _) => vec![1],
                (1, 3) => vec![1, c, 1, 1],
                (_, 3) => vec![c, 1, 1],
                _ => vec![c],
            };
            m.random(&mut rng, "s", &dims);
            m.node("PRelu", "y", &["x", "s"], vec![]);
        }
        let graph = m.check(&mut rng, &format!("leak {case}: {shape:?}"));
        assert_eq!(count(&graph, |o| matches!(o, Op::BlockRelu { .. })), 1);
    }
    // One slope per channel as a vector, which tract does not take.
    let mut m = Model::new(13, &[1, 2, 1, 3]);
    m.weight("s", &[2], &[0.5, 2.0]);
    m.node("PRelu", "y", &["x", "s"], vec![]);
    let y = super::writer::evaluate(&m.import().unwrap(), &[1.0, -1.0, -2.0, 1.0, -1.0, -2.0]);
    assert_eq!(y, [1.0, -0.5, -1.0, 1.0, -2.0, -4.0]);
    // Channels last: the slopes lie along another axis.
    let mut m = Model::new(13, &[1, 3, 2, 4]);
    m.random(&mut rng, "s", &[1, 1, 4]);
    m.node("PRelu", "y", &["x", "s"], vec![]);
    m.check(&mut rng, "slopes along the last axis");
}

/// The slopes go into the layer behind, whatever its groups, stride and padding.
#[test]
fn slopes_join_the_next_layer() {
    let mut rng = Rng(45);
    for case in 0..30 {
        let mut m = Model::new(13, &[1, 4, 6, 6]);
        m.random(&mut rng, "s", &[4, 1, 1]);
        m.node("PRelu", "p", &["x", "s"], vec![]);
        let groups = [1, 2, 4][rng.range(0, 2)];
        m.random(&mut rng, "w", &[4, 4 / groups, 3, 3]);
        let pads = ints("pads", &[rng.range(0, 1) as i64; 4]);
        m.node("Conv", "y", &["p", "w"], vec![int("group", groups), pads]);
        let graph = folded(m.check(&mut rng, &format!("slopes {case}")));
        assert_eq!(count(&graph, Op::is_linear_layer), 1);
        let blocks = [Block::RELU, Block::Identity].repeat(4);
        assert_eq!(count(&graph, |o| matches!(o, Op::BlockRelu { plannable: false, .. })), 1);
        assert!(
            graph.topo().iter().any(|i| matches!(&graph.node(*i).op, Op::BlockRelu { blocks: b, .. } if *b == blocks))
        );
    }
    // A norm in between leaves a bias, which padding keeps from going on.
    for (pad, layers) in [(0, 1), (1, 2)] {
        let mut m = Model::new(13, &[1, 2, 5, 5]);
        m.node("LeakyRelu", "p", &["x"], vec![]);
        m.random(&mut rng, "k", &[2, 1, 1]);
        m.node("Add", "a", &["p", "k"], vec![]);
        m.random(&mut rng, "w", &[3, 2, 3, 3]);
        m.node("Conv", "y", &["a", "w"], vec![ints("pads", &[pad; 4])]);
        assert_eq!(count(&folded(m.check(&mut rng, "bias between")), Op::is_linear_layer), layers);
    }
}

#[test]
fn maxima_over_axes() {
    let mut rng = Rng(46);
    for axes in [&[2, 3][..], &[-1], &[2], &[1, 2]] {
        for keep in [0, 1] {
            let mut m = Model::new(13, &map(&mut rng));
            m.node("ReduceMax", "y", &["x"], vec![ints("axes", axes), int("keepdims", keep)]);
            m.check(&mut rng, &format!("maximum over {axes:?}, keep {keep}"));
        }
    }
}

#[track_caller]
fn refused(m: &mut Model, parts: &[&str]) {
    let message = m.refusal();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn refusals() {
    let of = |op: &str, inputs: &[&str], attributes| {
        let mut m = Model::new(13, &[1, 2, 4, 4]);
        m.weight("two", &[2, 1, 1], &[1.0, 2.0]);
        m.weight("one", &[], &[1.0]);
        m.weight("low", &[], &[1.5]);
        m.weight("nan", &[], &[f32::NAN]);
        m.weight("map", &[4, 4], &(0..16).map(|i| i as f32).collect::<Vec<_>>());
        m.node("Relu", "r", &["x"], vec![]);
        m.node(op, "y", inputs, attributes);
        m
    };
    refused(&mut of("Clip", &["x", "low", "one"], vec![]), &["`n_y` (Clip)", "bounds 1.5 and 1 leave one value"]);
    refused(&mut of("Clip", &["x", "two"], vec![]), &["bound `two` of shape [2, 1, 1] is not one number", "one bound"]);
    refused(&mut of("Clip", &["x", "r"], vec![]), &["operand 1 (min) is computed"]);
    refused(&mut of("Clip", &["x"], vec![float("max", 6.0)]), &["`max` is not known"]);
    refused(&mut of("Max", &["x", "r"], vec![]), &["Max of two tensors", "MaxPool"]);
    refused(&mut of("Min", &["x", "two"], vec![]), &["bound `two`", "one bound for all"]);
    refused(&mut of("PRelu", &["x", "map"], vec![]), &["varies within a channel"]);
    refused(&mut of("PRelu", &["x"], vec![]), &["operand 1 (slope) is missing"]);
    refused(&mut of("HardSwish", &["x"], vec![]), &["HardSwish is not supported", "HardSigmoid, Clip or PRelu"]);
    refused(&mut of("ReduceMax", &["x"], vec![ints("axes", &[1])]), &["maximum over axes [1]", "height and width"]);
    let mut cube = Model::new(13, &[1, 2, 4, 4]);
    cube.node("Constant", "s", &[], vec![tensor("value", longs("", &[3], &[1, 8, 4]))]);
    cube.node("Reshape", "c", &["x", "s"], vec![]);
    cube.node("LeakyRelu", "y", &["c"], vec![]);
    refused(&mut cube, &["a LeakyRelu on shape [1, 8, 4] is not supported"]);
}
