//! Damaged files: an error or a graph, never a panic, a hang, or memory beyond reason.

use bcc_compiler::onnx::{ImportOptions, import_bytes};
use bcc_compiler::passes::{canonicalize, fold};

use super::models::trained;
use super::writer::Rng;

fn survives(bytes: &[u8]) -> bool {
    match import_bytes(bytes, &ImportOptions::default()) {
        Ok(mut graph) => {
            let _ = fold::run(&mut graph).is_ok() && canonicalize::run(&mut graph).is_ok();
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
