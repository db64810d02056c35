//! Small networks, imported and compiled.

use std::path::PathBuf;

use bcc_compiler::compile::{CompileOptions, Compiled, Quiet, compile_graph};
use bcc_compiler::onnx::{ImportOptions, import, import_bytes};
use bcc_compiler::passes::{BlockChoice, PassOptions};
use bcc_compiler::plan::Plan;
use bcc_ir::Block;
use bcc_ir::graph::{Graph, Op};
use bcc_ir::program::file::{Weights, encode_program, encode_weights};
use bcc_models::nets::{BuildOptions, find};
use prost::Message;

use crate::random::Numbers;

/// Names of the networks that snapshots are made of.
pub const TINY: &[&str] = &[
    "tiny_plain",
    "tiny_residual",
    "tiny_pools",
    "tiny_nhwc",
    "tiny_grouped",
    "tiny_segment",
    "tiny_upsample",
    "tiny_gates",
];

/// Folder of the bundled models and data.
pub fn models_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models")
}

/// A network that `bcc-models` builds, imported.
///
/// # Panics
/// If it cannot be built or imported.
pub fn built(name: &str) -> Graph {
    let model = find(name).and_then(|n| n.build(&BuildOptions::default())).expect("a known network builds");
    let options = ImportOptions { name: Some(name.into()), ..ImportOptions::default() };
    import_bytes(&model.encode_to_vec(), &options).expect("a built network imports")
}

/// One of the trained networks, imported.
///
/// # Panics
/// If it cannot be imported.
pub fn trained(name: &str) -> Graph {
    let path = models_dir().join("trained").join(format!("{name}.onnx"));
    import(&path, &ImportOptions::default()).expect("a bundled network imports")
}

/// Random images for a graph's input.
pub fn random_images(graph: &Graph, count: usize, seed: u64) -> Vec<Vec<f32>> {
    let len = graph.input().map_or(0, |i| graph.node(i).len());
    let mut numbers = Numbers::new(seed);
    (0..count).map(|_| numbers.values(len, 1.5)).collect()
}

/// Options with blocks and calibration images.
pub fn options(blocks: BlockChoice, calibration: Vec<Vec<f32>>) -> CompileOptions {
    CompileOptions {
        passes: PassOptions { blocks, calibration, ..PassOptions::default() },
        ..CompileOptions::default()
    }
}

/// A plan that mixes 1x1, larger, oblong, uneven, identity and zero blocks over the channels.
///
/// # Panics
/// If the graph does not canonicalize.
pub fn mixed_plan(graph: &Graph) -> Plan {
    let choices = [
        Block::RELU,
        Block::Patch { h: 2, w: 2 },
        Block::Identity,
        Block::Patch { h: 1, w: 4 },
        Block::Patch { h: 4, w: 3 },
        Block::RELU,
        Block::Zero,
        Block::Patch { h: 3, w: 2 },
    ];
    let mut plan = Plan::of(graph);
    for (i, (layer, entries)) in plan.layers.iter_mut().enumerate() {
        let channels = graph.find(layer).and_then(|n| graph.node(n).map()).map_or(0, |(c, _)| c);
        *entries = (0..channels).map(|c| format!("1*{}", choices[(c + 3 * i) % choices.len()])).collect();
    }
    plan
}

/// A plan that gives all channels of the ReLUs number `every`, `2 every`, .. one block and keeps
/// the others.
pub fn some_layers(graph: &Graph, every: usize, block: Block) -> Plan {
    let mut plan = Plan::of(graph);
    let mut order: Vec<String> = Vec::new();
    for id in graph.topo() {
        if matches!(graph.node(id).op, Op::BlockRelu { .. }) {
            order.push(graph.node(id).name.clone());
        }
    }
    for name in order.iter().skip(every - 1).step_by(every) {
        plan.layers.insert(name.clone(), vec![block.to_string()]);
    }
    plan
}

/// Compiles.
///
/// # Panics
/// With the compiler's error.
pub fn compiled(graph: Graph, options: &CompileOptions) -> Compiled {
    match compile_graph(graph, options, &mut Quiet) {
        Ok(c) => c,
        Err(e) => {
            let message = e.to_string();
            assert!(message.is_empty(), "{message}");
            unreachable!("the assertion has failed")
        }
    }
}

/// The server's weights of a compiled network, as if read from the file.
///
/// # Panics
/// If the weights do not fit the program.
pub fn weights(compiled: &Compiled) -> Weights {
    let (program, values) = (&compiled.lowered.program, &compiled.lowered.weights);
    let (_, digest) = encode_program(program).expect("a program encodes");
    let bytes = encode_weights(program, digest, values).expect("weights fit their program");
    Weights::decode("weights.bcc".as_ref(), bytes, program, digest).expect("what was encoded decodes")
}

/// The small networks under plans of every kind, compiled, with the images they were calibrated on; each
/// with a name for messages.
///
/// # Panics
/// If one does not compile.
pub fn tiny_compiled() -> impl Iterator<Item = (String, Compiled, Vec<Vec<f32>>)> {
    TINY.iter().flat_map(|name| {
        let graph = built(name);
        let images = random_images(&graph, 4, 7);
        let choices = [
            BlockChoice::Keep,
            BlockChoice::Uniform(Block::Patch { h: 2, w: 2 }),
            BlockChoice::Uniform(Block::Patch { h: 3, w: 100 }),
            BlockChoice::Uniform(Block::Identity),
            BlockChoice::Plan(mixed_plan(&graph)),
        ];
        choices.into_iter().map(move |choice| {
            let what = match &choice {
                BlockChoice::Plan(_) => format!("{name}, mixed plan"),
                other => format!("{name}, {other:?}"),
            };
            (what, compiled(graph.clone(), &options(choice, images.clone())), images.clone())
        })
    })
}
