//! The backward pass against differences of the forward pass.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::float::Executor;
use bcc_ir::geometry::{Block, Window};
use bcc_ir::graph::{ConstData, Graph, Op, Sample};
use bcc_tests::graphs::random_graph;
use bcc_tests::nets::{built, random_images};
use bcc_tests::random::Numbers;

/// `probe . f(x + step direction)`, and where the gates are shut.
fn along(e: &Executor<'_>, graph: &Graph, x: &[f32], step: f32, direction: &[f32], probe: &[f32]) -> (f64, Vec<bool>) {
    let moved: Vec<f32> = x.iter().zip(direction).map(|(x, d)| x + step * d).collect();
    let mut shut = Vec::new();
    let y = e.run_with(&moved, &mut |id, value| {
        if matches!(graph.node(id).op, Op::BlockRelu { .. }) {
            shut.extend(value.iter().map(|v| *v == 0.0));
        }
    });
    (y.iter().zip(probe).map(|(y, p)| f64::from(*y) * f64::from(*p)).sum(), shut)
}

/// Compares `probe^T J direction` of a graph at a point with differences; `None` where a gate changes
/// between the points, so that there is no slope to compare with.
fn compare(graph: &Graph, numbers: &mut Numbers) -> Option<(f64, f64)> {
    let e = Executor::new(graph);
    let x = numbers.values(e.input_len(), 1.5);
    let direction = numbers.values(e.input_len(), 1.0);
    let tape = e.record(&x);
    assert_eq!(tape.output(), e.run(&x));
    let probes = numbers.values(2 * tape.output().len(), 1.0);
    let gradient = e.input_gradient(&tape, &probes);
    if gradient.is_empty() {
        return None;
    }
    assert_eq!(gradient.len(), 2 * x.len());
    // The second probe: several go through at once.
    let probe = &probes[tape.output().len()..];
    let slope: f64 = gradient[x.len()..].iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
    let h = 1e-3;
    let at = |step: f32| along(&e, graph, &x, step, &direction, probe);
    let ((low, shut_low), (middle, shut), (high, shut_high)) = (at(-h), at(0.0), at(h));
    let (left, right) = ((middle - low) / f64::from(h), (high - middle) / f64::from(h));
    let scale = 1.0 + left.abs().max(right.abs());
    // Without maximum pools the function is linear between the points where no gate moves.
    let smooth = shut_low == shut && shut == shut_high && (left - right).abs() < 1e-2 * scale;
    smooth.then_some(((left + right) / 2.0 - slope, scale))
}

fn check(graph: &Graph, numbers: &mut Numbers, tries: usize) -> usize {
    let mut compared = 0;
    for _ in 0..tries {
        if let Some((error, scale)) = compare(graph, numbers) {
            assert!(error.abs() < 5e-3 * scale, "{error} of {scale}:\n{graph}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn random_graphs() {
    let mut numbers = Numbers::new(11);
    let mut compared = 0;
    for _ in 0..300 {
        let steps = numbers.between(1, 6);
        let graph = random_graph(&mut numbers, steps);
        compared += check(&graph, &mut numbers, 2);
    }
    assert!(compared > 200, "{compared}");
}

/// Imported graphs hold maximum pools, batch norms and identities, which canonical ones do not.
#[test]
fn imported_networks() {
    let mut numbers = Numbers::new(5);
    for name in ["tiny_plain", "tiny_residual", "tiny_pools", "tiny_nhwc", "tiny_grouped"] {
        let graph = built(name);
        assert!(check(&graph, &mut numbers, 30) > 5, "{name}");
    }
}

/// Every operator by itself, so that none hides behind others.
#[test]
fn single_operators() {
    let mut numbers = Numbers::new(3);
    let window =
        |k: [usize; 2], stride: [usize; 2], pad: [usize; 4]| Window { kernel: k, stride, dilation: [1, 1], pad };
    let wide = window([3, 2], [2, 1], [1, 0, 2, 1]);
    let ops: Vec<Op> = vec![
        Op::Identity,
        Op::Reshape { shape: vec![1, 2 * 6 * 5] },
        Op::Transpose { perm: vec![0, 3, 1, 2] },
        Op::Pad { pad: [1, 2, 0, 3] },
        Op::AvgPool { window: wide, counted: [0; 4] },
        Op::AvgPool { window: wide, counted: wide.pad },
        Op::MaxPool { window: wide },
        Op::Gather { axis: 2, indices: vec![5, 0, 0, 3] },
        Op::Scatter { axis: 1, size: 4, indices: vec![1, 3] },
        Op::Resample {
            axis: 3,
            samples: vec![
                Sample::at(4),
                Sample { low: 1, high: 3, weight: 0.3 },
                Sample { low: 0, high: 1, weight: 0.5 },
            ],
            bits: 0,
        },
        Op::BlockRelu { blocks: vec![Block::RELU, Block::Patch { h: 4, w: 3 }], plannable: true },
        Op::BlockRelu { blocks: vec![Block::Identity, Block::Zero], plannable: true },
        Op::Clip { low: Some(-0.5), high: Some(1.0) },
        Op::Clip { low: None, high: Some(0.3) },
        Op::Tag { bits: 1 },
    ];
    for op in ops {
        let mut graph = Graph::new("one");
        let x = graph.add_input("x", vec![1, 2, 6, 5]);
        let y = graph.add("y", vec!["y".into()], op.clone(), &[x]).unwrap();
        graph.set_output(y);
        assert!(check(&graph, &mut numbers, 20) >= 5, "{op:?}");
    }
    for axis in 1..4 {
        let mut graph = Graph::new("join");
        let x = graph.add_input("x", vec![1, 2, 4, 5]);
        let add = |graph: &mut Graph, name: &str, op, of: &[_]| graph.add(name, vec![name.into()], op, of).unwrap();
        let relu = Op::BlockRelu { blocks: vec![Block::RELU; 2], plannable: true };
        let r = add(&mut graph, "r", relu, &[x]);
        let picked = add(&mut graph, "g", Op::Gather { axis, indices: vec![1, 1, 0] }, &[x]);
        // An operand twice.
        let y = add(&mut graph, "y", Op::Concat { axis, parts: 4 }, &[x, r, picked, x]);
        graph.set_output(y);
        assert!(check(&graph, &mut numbers, 20) >= 5, "axis {axis}");
    }
    for groups in [1, 2] {
        let mut graph = Graph::new("conv");
        let x = graph.add_input("x", vec![1, 4, 7, 6]);
        let values = numbers.values(6 * 4 / groups * 6, 0.5);
        let weight = graph.add_const("w", vec![6, 4 / groups, 3, 2], ConstData::Float(values));
        let mut window = wide;
        window.dilation = [2, 1];
        let y = graph.add("y", vec!["y".into()], Op::Conv { weight, bias: None, window, groups }, &[x]).unwrap();
        graph.set_output(y);
        assert_eq!(check(&graph, &mut numbers, 10), 10, "groups {groups}");
    }
}

/// At every gate: the first-order change of the output from a changed map.
#[test]
fn gradients_at_gates() {
    let graph = built("tiny_residual");
    let mut canonical = graph.clone();
    bcc_compiler::passes::fold::run(&mut canonical).unwrap();
    bcc_compiler::passes::canonicalize::run(&mut canonical).unwrap();
    let e = Executor::new(&canonical);
    let mut numbers = Numbers::new(8);
    let mut gates = 0;
    for x in random_images(&canonical, 4, 2) {
        let values = e.values(&x);
        let tape = e.record(&x);
        let probe = numbers.values(tape.output().len(), 1.0);
        e.gate_gradients(&tape, &probe, &mut |gate| {
            gates += 1;
            assert_eq!(gate.operand, values.operand_of(gate.node));
            let step = numbers.values(gate.operand.len(), 1e-3);
            let moved: Vec<f32> = values.value_of(gate.node).iter().zip(&step).map(|(y, s)| y + s).collect();
            let after = values.run_from(gate.node, moved);
            let real: f64 = after.iter().zip(tape.output()).zip(&probe).map(|((a, b), p)| f64::from((a - b) * p)).sum();
            let predicted: f64 = gate.gradient.iter().zip(&step).map(|(g, s)| f64::from(g * s)).sum();
            // A gate behind may change its sign, by little.
            assert!((real - predicted).abs() < 0.05 * (predicted.abs() + 1e-3), "{real} {predicted}");
        });
    }
    assert!(gates >= 8, "{gates}");
}

#[test]
fn partial_runs_are_whole_runs() {
    let mut numbers = Numbers::new(21);
    for _ in 0..60 {
        let graph = random_graph(&mut numbers, 5);
        let e = Executor::new(&graph);
        let x = numbers.values(e.input_len(), 1.0);
        let values = e.values(&x);
        for id in graph.topo() {
            // The value it has anyway.
            assert_eq!(values.run_from(id, values.value_of(id).to_vec()), values.output());
        }
        let input = graph.input().unwrap();
        let other = numbers.values(e.input_len(), 1.0);
        assert_eq!(values.run_from(input, other.clone()), e.run(&other));
    }
}
