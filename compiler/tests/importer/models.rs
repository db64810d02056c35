//! The trained networks.

use std::path::{Path, PathBuf};

use bcc_compiler::float::Executor;
use bcc_compiler::onnx::{ImportOptions, Oracle, import};
use bcc_compiler::passes::{canonicalize, fold};
use bcc_ir::graph::{Graph, Op};

use super::writer::{Rng, assert_close, check_passes, evaluate};

pub fn trained(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/trained").join(name)
}

fn relus(graph: &Graph) -> usize {
    let drelus = |id| match &graph.node(id).op {
        Op::BlockRelu { blocks, .. } => {
            let (_, [h, w]) = graph.node(id).map().unwrap();
            blocks.iter().map(|b| b.drelus(h, w)).sum()
        }
        _ => 0,
    };
    graph.topo().into_iter().map(drelus).sum()
}

fn agrees_with_tract(name: &str, total: usize) {
    let path = trained(name);
    let mut graph = import(&path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(graph.name, name.trim_end_matches(".onnx"));
    let oracle = Oracle::load(&path, &[1, 1, 28, 28]).unwrap();
    let mut rng = Rng(1);
    for _ in 0..4 {
        let input = rng.floats(784);
        assert_close(&evaluate(&graph, &input), &oracle.run(&input).unwrap(), 1e-4, name);
        check_passes(&graph, &input, name);
    }
    assert_eq!(relus(&graph), total);
    fold::run(&mut graph).unwrap();
    canonicalize::run(&mut graph).unwrap();
    assert_eq!(relus(&graph), total);
}

#[test]
fn resnet20() {
    agrees_with_tract("fmnist_resnet20.onnx", 144_256);
}

#[test]
fn resnet8() {
    agrees_with_tract("fmnist_resnet8.onnx", 56_448);
}

#[test]
fn names_are_those_of_the_file() {
    let graph = import(&trained("fmnist_resnet8.onnx"), &ImportOptions::default()).unwrap();
    let bytes = std::fs::read(trained("fmnist_resnet8.onnx")).unwrap();
    let proto: tract_onnx::pb::ModelProto = prost::Message::decode(bytes.as_slice()).unwrap();
    let names: Vec<String> = proto.graph.unwrap().node.into_iter().map(|n| n.name).collect();
    for id in graph.topo().into_iter().filter(|&id| !matches!(graph.node(id).op, Op::Input)) {
        let node = graph.node(id);
        assert!(node.origin.iter().all(|o| names.contains(o)), "{}: {:?}", node.name, node.origin);
        assert!(names.contains(&node.name), "{}", node.name);
    }
}

#[test]
fn every_node_is_visited_once_in_order() {
    let graph = import(&trained("fmnist_resnet8.onnx"), &ImportOptions::default()).unwrap();
    let executor = Executor::new(&graph);
    let mut seen = Vec::new();
    executor.run_with(&vec![0.5; executor.input_len()], &mut |id, value| {
        assert_eq!(value.len(), graph.node(id).len());
        seen.push(id);
    });
    assert_eq!(seen, graph.topo());
}

/// The trained thin ResNet-50 in channels-last layout, as its authors ship it.
#[test]
fn open_nsfw() {
    let path = trained("../fetched/open_nsfw.onnx");
    if !path.exists() {
        assert!(std::env::var_os("CI").is_none(), "run models/scripts/fetch.sh nsfw first");
        println!("skipped: models/scripts/fetch.sh nsfw brings the model");
        return;
    }
    let mut graph = import(&path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(relus(&graph), 4_942_336);
    assert_eq!(graph.epilogue.len(), 1);
    let input: Vec<f32> = Rng(5).floats(224 * 224 * 3).iter().map(|v| v * 120.0).collect();
    let oracle = Oracle::load(&path, &[1, 224, 224, 3]).unwrap();
    assert_close(&evaluate(&graph, &input), &oracle.run(&input).unwrap(), 1e-4, "probabilities");
    check_passes(&graph, &input, "open_nsfw");
    fold::run(&mut graph).unwrap();
    canonicalize::run(&mut graph).unwrap();
    let executor = Executor::new(&graph);
    let start = std::time::Instant::now();
    let logits = executor.run(&input);
    println!("{} nodes, logits {logits:?}, {:?}", graph.len(), start.elapsed());
    let mut names: Vec<_> = graph.topo().iter().map(|&i| graph.node(i).op.name()).collect();
    names.sort_unstable();
    for group in names.chunk_by(|a, b| a == b) {
        println!("{} {}", group[0], group.len());
    }
}
