//! Networks that nobody here wrote: what the importer makes of each file computes what its authors' tool
//! did. `models/scripts/fetch.sh all` and `fetch.sh torch` bring the files; what is missing is skipped, and
//! said so. What each is there for stands in `models/README.md`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::PathBuf;

use bcc_compiler::compile::CompileOptions;
use bcc_compiler::float::{Executor, apply_epilogue};
use bcc_compiler::onnx::{ImportOptions, MaxPools, import};
use bcc_compiler::passes::{BlockChoice, canonicalize, fold};
use bcc_compiler::report::Report;
use bcc_ir::graph::{Graph, Op};
use bcc_runtime::session::LocalOptions;
use bcc_tests::nets::{compiled, models_dir, options, random_images};
use bcc_tests::world::run;
use ndarray::ArrayD;
use ndarray_npy::NpzReader;

fn fetched(file: &str) -> Option<PathBuf> {
    let path = models_dir().join("fetched").join(file);
    if !path.exists() {
        println!("skipped: {file} is not fetched (models/scripts/fetch.sh)");
    }
    path.exists().then_some(path)
}

fn imported(path: &std::path::Path) -> Graph {
    let mut graph = import(path, &ImportOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fold::run(&mut graph).unwrap();
    graph
}

fn count(graph: &Graph, which: fn(&Op) -> bool) -> usize {
    graph.topo().into_iter().filter(|id| which(&graph.node(*id).op)).count()
}

fn relus(graph: &Graph) -> usize {
    let relu = |id: &bcc_ir::graph::NodeId| matches!(graph.node(*id).op, Op::BlockRelu { plannable: true, .. });
    graph.topo().iter().filter(|id| relu(id)).map(|id| graph.node(*id).len()).sum()
}

/// Both exporters of PyTorch on four networks of torchvision: the float network gives PyTorch's output.
#[test]
fn exports_of_torchvision() {
    // Name, convolutions, sign decisions of ReLUs, clips.
    let networks = [("resnet18", 20, 2_308_096, 0), ("resnet50", 53, 9_608_704, 0), ("mobilenet_v2", 52, 0, 35)];
    for (name, convs, signs, clips) in networks {
        let Some(reference) = fetched(&format!("torchvision_{name}.npz")) else { continue };
        for exporter in ["script", "dynamo"] {
            let Some(path) = fetched(&format!("torchvision_{name}_{exporter}.onnx")) else { continue };
            let graph = imported(&path);
            let what = format!("{name}, {exporter}");
            assert_eq!(count(&graph, |o| matches!(o, Op::Conv { .. })), convs, "{what}");
            assert_eq!(count(&graph, |o| matches!(o, Op::Clip { .. })), clips, "{what}");
            assert_eq!(relus(&graph), signs, "{what}");
            compare(&graph, &reference, &what);
        }
    }
}

#[test]
fn exports_of_deeplab() {
    let Some(reference) = fetched("torchvision_deeplabv3_resnet50.npz") else { return };
    for exporter in ["script", "dynamo"] {
        let Some(path) = fetched(&format!("torchvision_deeplabv3_resnet50_{exporter}.onnx")) else { continue };
        let graph = imported(&path);
        assert_eq!(count(&graph, |o| matches!(o, Op::Concat { .. })), 1, "{exporter}");
        assert_eq!(count(&graph, |o| matches!(o, Op::Resample { .. })), 0, "the client resizes the output: {exporter}");
        assert!(!graph.epilogue.is_empty(), "{exporter}");
        compare(&graph, &reference, exporter);
    }
}

fn compare(graph: &Graph, reference: &std::path::Path, what: &str) {
    let mut npz = NpzReader::new(std::fs::File::open(reference).unwrap()).unwrap();
    let x: ArrayD<f32> = npz.by_name("x").unwrap();
    let y: ArrayD<f32> = npz.by_name("y").unwrap();
    let image = &x.as_slice().unwrap()[..graph.node(graph.input().unwrap()).len()];
    let output = Executor::new(graph).run(image);
    let (got, shape) = apply_epilogue(&graph.epilogue, output, &graph.node(graph.output().unwrap()).shape);
    assert_eq!(shape[1..], y.shape()[1..], "{what}");
    let want = &y.as_slice().unwrap()[..got.len()];
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let error = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    println!("{what}: largest {largest}, error {error}");
    assert!(error <= 1e-3 * largest.max(1.0), "{what}: {error} of {largest}");
}

/// The ResNet-50 graph of the package onnx: weights are ConstantOfShape nodes, batch norms unfolded, Sum for Add.
#[test]
fn light_resnet50() {
    let Some(path) = fetched("light_resnet50.onnx") else { return };
    let graph = imported(&path);
    assert_eq!(count(&graph, |o| matches!(o, Op::Conv { .. })), 53);
    assert_eq!(count(&graph, |o| matches!(o, Op::Add)), 16);
    assert_eq!(relus(&graph), 9_608_704);
}

/// The thin ResNet-50 with average pools for its maximum pool, and with the pool before its ReLU: compiles,
/// and has the sign decisions that its pool says.
#[test]
fn thin_resnet50_with_other_pools() {
    let Some(path) = fetched("open_nsfw.onnx") else { return };
    let drelus = |max_pools: MaxPools| {
        let graph = import(&path, &ImportOptions { max_pools, ..ImportOptions::default() }).unwrap();
        let mut canonical = graph.clone();
        fold::run(&mut canonical).unwrap();
        canonicalize::run(&mut canonical).unwrap();
        let images = random_images(&graph, 1, 3);
        let c = compiled(graph, &CompileOptions { ..options(BlockChoice::Keep, images) });
        (Report::new(&c.lowered.program).unwrap().totals.drelus, relus(&canonical))
    };
    let relus_before = 4_942_336;
    let (exact, planned) = drelus(MaxPools::Exact);
    assert_eq!(planned, relus_before);
    // A pool of 3x3 by 8 comparisons at most.
    let pooled = 64 * 56 * 56;
    assert!(exact > relus_before as u64 && exact <= (relus_before + 8 * pooled) as u64, "{exact}");
    assert_eq!(drelus(MaxPools::Average), (relus_before as u64, relus_before));
    let (first, planned) = drelus(MaxPools::First);
    assert_eq!(planned, relus_before - 64 * 112 * 112 + pooled);
    assert_eq!(first, exact - (64 * 112 * 112 - pooled) as u64);
}

/// A small export among three parties: ReLU6 of MobileNetV2, exactly.
#[test]
fn mobilenet_among_three_parties() {
    let Some(path) = fetched("torchvision_mobilenet_v2_dynamo.onnx") else { return };
    let graph = import(&path, &ImportOptions { input_shape: Some(vec![1, 3, 64, 64]), ..ImportOptions::default() });
    let graph = graph.unwrap_or_else(|e| panic!("{e}"));
    let images = random_images(&graph, 4, 5);
    let c = compiled(graph, &options(BlockChoice::Keep, images[..3].to_vec()));
    let out = run(&c, &images[3..], &LocalOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let logits = Executor::new(&c.real).run(&images[3]);
    let error = out.outputs[0].value.data.iter().zip(&logits).map(|(a, b)| (a - f64::from(*b)).abs());
    let error = error.fold(0.0, f64::max);
    println!("ring {}, largest error {error:.4}", c.lowered.program.ring);
    assert!(error < 0.05, "{error}");
}
