//! No gross error, ever: random graphs and the small networks, every value on the way opened and
//! compared with the exact integer result of its node.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::compile::{CompileError, Quiet, compile_graph};
use bcc_compiler::passes::{BlockChoice, PassError};
use bcc_ir::Block;
use bcc_ir::graph::Graph;
use bcc_runtime::session::LocalOptions;
use bcc_tests::graphs::random_graph;
use bcc_tests::nets::{TINY, built, compiled, mixed_plan, options, random_images};
use bcc_tests::random::Numbers;
use bcc_tests::world::{check_exact, run_opened};

/// Compiles in the given ring, runs and compares; the number of values, or `None` where the graph
/// does not fit the ring.
fn check(graph: &Graph, ring: Option<u8>, frac: u8, seed: u64) -> Option<usize> {
    let images = random_images(graph, 3, seed);
    let mut o = options(BlockChoice::Keep, images.clone());
    o.passes.ring = ring;
    (o.passes.frac, o.passes.weight_frac) = (frac, frac);
    let c = match compile_graph(graph.clone(), &o, &mut Quiet) {
        Ok(c) => c,
        Err(CompileError::Pass(PassError::Quantize(_))) => return None,
        Err(e) => panic!("seed {seed}: {e}\n{graph}"),
    };
    let (_, opened) = match run_opened(&c, &images[..2], LocalOptions::default()) {
        Ok(r) => r,
        Err(e) => panic!("seed {seed}: {e}\n{}", c.graph),
    };
    let mut values = 0;
    for o in &opened {
        values += check_exact(&c.graph, o).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", c.graph));
    }
    Some(values)
}

#[test]
fn random_graphs_in_every_ring() {
    let mut values = 0;
    let mut numbers = Numbers::new(0xb10c);
    let mut runs = 0;
    for seed in 0..1600 {
        let steps = numbers.between(2, 9);
        let graph = random_graph(&mut numbers, steps);
        let (ring, frac) = match seed % 6 {
            0 => (None, 12),
            1 => (Some(32), 8),
            2 => (Some(64), 12),
            3 => (Some(40), 10),
            4 => (Some(48), 13),
            _ => (None, 6),
        };
        if let Some(n) = check(&graph, ring, frac, seed) {
            values += n;
            runs += 1;
        }
    }
    assert!(runs > 1000, "only {runs} graphs fitted their ring");
    assert!(values > 3_000_000, "only {values} values");
}

#[test]
fn small_networks_with_all_kinds_of_blocks() {
    for name in TINY {
        let graph = built(name);
        let images = random_images(&graph, 4, 21);
        let choices = [
            BlockChoice::Keep,
            BlockChoice::Uniform(Block::Patch { h: 2, w: 2 }),
            BlockChoice::Uniform(Block::Patch { h: 4, w: 4 }),
            BlockChoice::Uniform(Block::Patch { h: 100, w: 100 }),
            BlockChoice::Uniform(Block::Identity),
            BlockChoice::Plan(mixed_plan(&graph)),
        ];
        for choice in choices {
            let c = compiled(graph.clone(), &options(choice.clone(), images.clone()));
            let (_, opened) = run_opened(&c, &images[..2], LocalOptions::default()).unwrap_or_else(|e| panic!("{e}"));
            for o in &opened {
                check_exact(&c.graph, o).unwrap_or_else(|e| panic!("{name}, {choice:?}: {e}\n{}", c.graph));
            }
        }
    }
}
