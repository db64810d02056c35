//! Damaged files: an error or a graph, never a panic, a hang, or memory beyond reason.

use bcc_compiler::onnx::{ImportOptions, import_bytes};
use bcc_compiler::passes::{canonicalize, fold};

use bcc_ir::graph::{Stage, verify};
use prost::Message;
use tract_onnx::pb::ModelProto;

use super::models::trained;
use super::writer::Rng;

fn survives(bytes: &[u8]) -> bool {
    match import_bytes(bytes, &ImportOptions::default()) {
        Ok(mut graph) => {
            verify(&graph, Stage::Imported).unwrap_or_else(|e| panic!("{e}"));
            if fold::run(&mut graph).is_ok() && canonicalize::run(&mut graph).is_ok() {
                verify(&graph, Stage::Canonical).unwrap_or_else(|e| panic!("{e}"));
            }
            true
        }
        Err(e) => {
            assert!(!e.0.is_empty(), "an error without a problem");
            false
        }
    }
}

/// Where the file describes the network; most of its bytes are weights.
fn structure(bytes: &[u8]) -> Vec<usize> {
    let head = bytes.len().min(12_000);
    (0..head).chain(bytes.len().saturating_sub(2_000)..bytes.len()).collect()
}

#[test]
fn truncations() {
    let bytes = std::fs::read(trained("fmnist_resnet8.onnx")).unwrap();
    let mut rng = Rng(2);
    for length in (0..300).chain((0..150).map(|_| rng.range(300, bytes.len() - 1))) {
        assert!(!survives(&bytes[..length]), "a file cut to {length} bytes was imported");
    }
}

#[test]
fn bit_flips() {
    let bytes = std::fs::read(trained("fmnist_resnet8.onnx")).unwrap();
    let places = structure(&bytes);
    let mut rng = Rng(3);
    for _ in 0..1500 {
        let mut damaged = bytes.clone();
        for _ in 0..rng.range(1, 3) {
            damaged[places[rng.range(0, places.len() - 1)]] ^= 1 << rng.range(0, 7);
        }
        survives(&damaged);
    }
}

#[test]
fn noise() {
    let mut rng = Rng(4);
    for _ in 0..2000 {
        let n = rng.range(1, 60);
        let bytes: Vec<u8> = (0..n).map(|_| rng.next() as u8).collect();
        assert!(!survives(&bytes));
    }
}

/// Damage that keeps the file well formed: numbers and names of the structure are changed.
#[test]
fn wrong_structure() {
    let bytes = std::fs::read(trained("fmnist_resnet8.onnx")).unwrap();
    let good: ModelProto = Message::decode(bytes.as_slice()).unwrap();
    let mut rng = Rng(5);
    let odd = [0, -1, 1, 2, 7, 65_536, 65_535, i64::MAX, i64::MIN, 1 << 31];
    for _ in 0..600 {
        let mut model = good.clone();
        let graph = model.graph.as_mut().unwrap();
        for _ in 0..rng.range(1, 2) {
            let n = rng.range(0, graph.node.len() - 1);
            let t = rng.range(0, graph.initializer.len() - 1);
            let value = odd[rng.range(0, odd.len() - 1)];
            let (i, j) = (rng.range(0, 9), rng.range(0, 9));
            match rng.range(0, 6) {
                0 | 1 => {
                    for a in &mut graph.node[n].attribute {
                        a.i = value;
                        if let Some(x) = a.ints.get_mut(i % 4) {
                            *x = value;
                        }
                    }
                }
                2 => {
                    let dims = &mut graph.initializer[t].dims;
                    let i = i % dims.len().max(1);
                    if let Some(d) = dims.get_mut(i) {
                        *d = value;
                    }
                }
                3 => {
                    let other = graph.node[rng.range(0, n)].output[0].clone();
                    let inputs = &mut graph.node[n].input;
                    let i = i % inputs.len();
                    inputs[i] = other;
                }
                4 => {
                    let ops =
                        ["MaxPool", "AveragePool", "Add", "Reshape", "Pad", "Softmax", "Transpose", "MatMul", "Slice"];
                    graph.node[n].op_type = ops[i % ops.len()].into();
                    if j < 5 {
                        graph.node[n].attribute.retain(|a| a.name != "group" && a.name != "dilations");
                    }
                }
                5 => graph.node[n].input.truncate(i % 3),
                _ => graph.node[n].output.clear(),
            }
        }
        survives(&model.encode_to_vec());
    }
}
