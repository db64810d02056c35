//! The cost functions that plans are priced with, against the messages of lowered programs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::compile::{Quiet, compile_graph};
use bcc_compiler::passes::BlockChoice;
use bcc_compiler::passes::lower::LowerOptions;
use bcc_compiler::passes::lower::cost::{GateCost, GateSize};
use bcc_compiler::report::Report;
use bcc_ir::graph::Op;
use bcc_tests::graphs::random_graph;
use bcc_tests::nets::{TINY, built, mixed_plan, options, random_images};
use bcc_tests::random::Numbers;

/// Bytes of every gate of a compiled network, and rounds; the number of gates.
fn check(graph: &bcc_ir::graph::Graph, options: &bcc_compiler::compile::CompileOptions) -> usize {
    let Ok(c) = compile_graph(graph.clone(), options, &mut Quiet) else { return 0 };
    let report = Report::new(&c.lowered.program).unwrap();
    let mut gates = 0;
    for id in c.graph.topo() {
        let node = c.graph.node(id);
        let (Op::BlockRelu { blocks, .. }, Some((_, map))) = (&node.op, node.map()) else { continue };
        let cost = GateCost::of(&c.graph, id, options.lower).unwrap();
        let row = report.layers.iter().find(|l| l.name == node.name).unwrap();
        let size = GateSize::of(blocks, map);
        assert_eq!(cost.total(size), [row.offline_bytes, row.online_bytes], "{cost:?} {size:?}");
        if size.gated > 0 {
            assert!(row.rounds <= cost.messages(), "{} {cost:?}", row.rounds);
        }
        // Choice by choice: what is missing is headers, and less than a byte per plane.
        let sum =
            blocks.iter().map(|b| cost.choice(*b, map)).fold([0.0, 0.0], |s, b| [s[0] + b.offline, s[1] + b.online]);
        let total = cost.total(size).map(|t| t as f64);
        for (sum, total) in sum.iter().zip(total) {
            assert!(total >= *sum - 1e-6 && total - sum < 16.0 * 8.0 + 400.0, "{sum} {total} {cost:?}");
        }
        gates += 1;
    }
    gates
}

#[test]
fn random_graphs() {
    let mut numbers = Numbers::new(77);
    let mut gates = 0;
    for i in 0..200 {
        let steps = numbers.between(1, 6);
        let graph = random_graph(&mut numbers, steps);
        let mut o = options(BlockChoice::Keep, random_images(&graph, 3, i));
        o.passes.ring = [None, Some(32), Some(48), Some(64)][numbers.below(4)];
        if numbers.one_in(3) {
            o.lower = LowerOptions { drelu_window: Some(numbers.between(2, 12) as u8) };
        }
        gates += check(&graph, &o);
    }
    assert!(gates > 150, "{gates}");
}

#[test]
fn small_networks_under_mixed_plans() {
    for name in TINY {
        let graph = built(name);
        let plan = BlockChoice::Plan(mixed_plan(&graph));
        assert!(check(&graph, &options(plan, random_images(&graph, 4, 7))) > 0, "{name}");
    }
}
