//! The graph verifier refuses graphs that break one of its numbered invariants, and names the node.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod quantized;
mod structure;
mod text;

use std::collections::BTreeSet;

use bcc_compiler::compile::{Observer, Quiet, compile_graph};
use bcc_compiler::passes::{BlockChoice, Pass};
use bcc_ir::geometry::Window;
use bcc_ir::graph::{
    ClientShare, ConstData, ConstId, Evidence, Fixed, Graph, Node, NodeId, Op, Range, Stage, Violations, verify,
};
use bcc_tests::nets::{TINY, built, compiled, mixed_plan, options, random_images};
use bcc_tests::random::Numbers;
use serde_json::{Value, json};

/// Quantized with calibration: observed, derived and proven bounds, re-masks, refreshes.
fn quantized(name: &str, mixed: bool) -> Graph {
    let graph = built(name);
    let images = random_images(&graph, 4, 7);
    let choice = if mixed { BlockChoice::Plan(mixed_plan(&graph)) } else { BlockChoice::Keep };
    compiled(graph, &options(choice, images)).graph
}

fn subjects() -> Vec<Graph> {
    vec![quantized("tiny_residual", true), quantized("tiny_pools", false), identities()]
}

/// Linear layers in a row: one re-masked, and one refreshed.
fn identities() -> Graph {
    let graph = built("tiny_plain");
    let images = random_images(&graph, 4, 7);
    let mut o = options(BlockChoice::Uniform(bcc_ir::Block::Identity), images);
    o.passes.ring = Some(48);
    compiled(graph, &o).graph
}

/// All bounds proven: no calibration.
fn proven() -> Graph {
    let mut o = options(BlockChoice::Keep, Vec::new());
    o.passes.input_bound = Some(1.5);
    compiled(built("tiny_residual"), &o).graph
}

#[derive(Default)]
struct Stages(Vec<(Stage, Graph)>);

impl Observer for Stages {
    fn end(&mut self, pass: Option<&Pass>, graph: &Graph) {
        self.0.push((pass.map_or(Stage::Imported, |p| p.stage), graph.clone()));
    }
}

fn stages(name: &str) -> Vec<(Stage, Graph)> {
    let graph = built(name);
    let images = random_images(&graph, 4, 7);
    let mut stages = Stages::default();
    compile_graph(graph, &options(BlockChoice::Keep, images), &mut stages).unwrap();
    stages.0
}

fn canonical(name: &str) -> Graph {
    stages(name).into_iter().find(|(s, _)| *s == Stage::Canonical).unwrap().1
}

/// The graph is refused, `node` is named and one of its faults says `what`.
#[track_caller]
fn refused(graph: &Graph, stage: Stage, node: &str, what: &str) {
    let Err(Violations(found)) = verify(graph, stage) else { panic!("accepted; wanted {node}: {what}") };
    let named = found.iter().any(|v| v.node.contains(node) && v.what.contains(what));
    assert!(named, "wanted {node}: {what}; found\n{}", Violations(found));
}

/// The graph is refused at that node or at one that reads it.
#[track_caller]
fn refused_nearby(graph: &Graph, id: NodeId, what: &str) {
    let Err(Violations(found)) = verify(graph, Stage::Quantized) else {
        panic!("accepted: {what} of {}", graph.node(id).name)
    };
    let mut near: Vec<NodeId> = graph.users(id);
    near.push(id);
    let named = found.iter().any(|v| near.iter().any(|n| graph.node(*n).name == v.node));
    assert!(named, "{what} of {}: found\n{}", graph.node(id).name, Violations(found));
}

fn mutated(graph: &Graph, id: NodeId, change: impl FnOnce(&mut Node)) -> Graph {
    let mut mutant = graph.clone();
    change(mutant.node_mut(id));
    mutant
}

/// A graph with its serialized form changed, past all builders.
fn rewritten(graph: &Graph, change: impl FnOnce(&mut Value)) -> Graph {
    let mut value = serde_json::to_value(graph).unwrap();
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn all(graph: &Graph, is: impl Fn(&Op) -> bool) -> Vec<NodeId> {
    graph.topo().into_iter().filter(|i| is(&graph.node(*i).op)).collect()
}

fn range(graph: &Graph, id: NodeId) -> Range {
    graph.node(id).range.unwrap()
}

fn fixed(graph: &Graph, id: NodeId) -> Fixed {
    graph.node(id).fixed.unwrap()
}

/// A real range from a bound in units of the node.
fn reaching(graph: &Graph, id: NodeId, units: f64) -> Range {
    Range {
        bound: units * fixed(graph, id).unit(),
        evidence: Evidence::Observed { margin: 2.0 },
        block_sum: range(graph, id).block_sum,
    }
}

const OBSERVED: Evidence = Evidence::Observed { margin: 2.0 };
