//! Program and weights files: round trips, determinism, damage.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;

use bcc_compiler::passes::BlockChoice;
use bcc_compiler::passes::lower::{LowerOptions, lower};
use bcc_ir::program::WeightWidth;
use bcc_ir::program::file::{FileError, Weights, decode_program, encode_program, encode_weights};
use bcc_tests::nets::{TINY, built, compiled, mixed_plan, options, random_images};
use bcc_tests::random::Numbers;

fn compile(name: &str) -> bcc_compiler::compile::Compiled {
    let graph = built(name);
    let images = random_images(&graph, 4, 7);
    let plan = mixed_plan(&graph);
    compiled(graph, &options(BlockChoice::Plan(plan), images))
}

#[test]
fn programs_round_trip_and_are_deterministic() {
    for name in TINY {
        let (first, again) = (compile(name), compile(name));
        let (bytes, digest) = encode_program(&first.lowered.program).unwrap();
        assert_eq!(bytes, encode_program(&again.lowered.program).unwrap().0, "{name}");
        let loaded = decode_program(Path::new("p"), &bytes).unwrap();
        assert_eq!(loaded.program, first.lowered.program);
        assert_eq!(loaded.digest, digest);
        let weights = |c: &bcc_compiler::compile::Compiled| {
            encode_weights(&c.lowered.program, digest, &c.lowered.weights).unwrap()
        };
        assert_eq!(weights(&first), weights(&again), "{name}");
    }
}

#[test]
fn weights_read_back_in_every_modulus() {
    let c = compile("tiny_plain");
    let (_, digest) = encode_program(&c.lowered.program).unwrap();
    let bytes = encode_weights(&c.lowered.program, digest, &c.lowered.weights).unwrap();
    let weights = Weights::decode(Path::new("w"), bytes, &c.lowered.program, digest).unwrap();
    for bits in [8u8, 20, 32, 40, 64] {
        for (i, values) in c.lowered.weights.iter().enumerate() {
            let mask = u64::MAX >> (64 - bits);
            let want: Vec<u64> = values.iter().map(|v| *v as u64 & mask).collect();
            assert_eq!(weights.ring(i, bits).unwrap(), want);
        }
    }
}

/// The program that client and dealer hold does not depend on the values of the weights, once the
/// ranges, and whether they fit 16 bits, are fixed.
#[test]
fn the_public_file_holds_no_weights() {
    let c = compile("tiny_residual");
    let mut other = c.graph.clone();
    let mut numbers = Numbers::new(5);
    for (i, data) in c.graph.clone().take_const_data().into_iter().enumerate() {
        let id = bcc_ir::graph::ConstId(i as u32);
        let shape = other.constant(id).shape.clone();
        let entry = c.lowered.program.weights.iter().find(|w| w.name == other.constant(id).name);
        let bits = if entry.is_some_and(|w| w.width == WeightWidth::I16) { 16 } else { 20 };
        let random = (0..data.len()).map(|_| numbers.below(1 << bits) as i64 - (1 << (bits - 1))).collect();
        other.set_const(id, shape, bcc_ir::graph::ConstData::Int(random));
    }
    let lowered = lower(&other, LowerOptions::default()).unwrap();
    assert_ne!(lowered.weights, c.lowered.weights);
    let (a, b) = (encode_program(&lowered.program).unwrap(), encode_program(&c.lowered.program).unwrap());
    assert_eq!(a, b);
}

/// Cuts, flips and lengthens a file; the reader refuses all of that.
fn damage(bytes: &[u8], read: impl Fn(&[u8]) -> Result<(), FileError>) {
    read(bytes).unwrap();
    for cut in (0..bytes.len()).step_by(97).chain([0, 1, 63, 64, bytes.len() - 1]) {
        assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut numbers = Numbers::new(3);
    for _ in 0..400 {
        let mut flipped = bytes.to_vec();
        let at = numbers.below(flipped.len());
        flipped[at] ^= 1 << numbers.below(8);
        assert!(read(&flipped).is_err(), "bit flipped in byte {at}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(read(&longer).is_err());
}

#[test]
fn damaged_files_are_refused() {
    let c = compile("tiny_plain");
    let (program, digest) = encode_program(&c.lowered.program).unwrap();
    let weights = encode_weights(&c.lowered.program, digest, &c.lowered.weights).unwrap();
    damage(&program, |b| decode_program(Path::new("program.bcc"), b).map(|_| ()));
    damage(&weights, |b| Weights::decode(Path::new("weights.bcc"), b.to_vec(), &c.lowered.program, digest).map(|_| ()));
    let error = Weights::decode(Path::new("weights.bcc"), weights, &c.lowered.program, [7; 32]);
    assert!(matches!(error, Err(FileError::OtherProgram { .. })));
}

/// Damage with a digest that fits (a hostile file) ends in an error as well, or in a program that
/// the verifier accepts; never in a panic.
#[test]
fn hostile_programs_do_not_panic() {
    let c = compile("tiny_plain");
    let (bytes, _) = encode_program(&c.lowered.program).unwrap();
    let mut numbers = Numbers::new(11);
    let mut refused = 0;
    for _ in 0..3000 {
        let mut body = bytes[64..].to_vec();
        for _ in 0..numbers.between(1, 3) {
            let at = numbers.below(body.len());
            body[at] = numbers.next_u64() as u8;
        }
        let mut file = bytes[..24].to_vec();
        let digest = {
            let mut h = blake3::Hasher::new();
            h.update(&file).update(&body);
            *h.finalize().as_bytes()
        };
        file.extend_from_slice(&digest);
        file.extend_from_slice(&[0; 8]);
        file.extend_from_slice(&body);
        refused += usize::from(decode_program(Path::new("program.bcc"), &file).is_err());
    }
    assert!(refused > 1500, "{refused}");
}
