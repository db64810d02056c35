//! The weights file: read where it is needed, refused where it is not what was checked.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bcc_ir::program::file::{FileError, WEIGHTS_FILE, Weights, encode_weights, save};
use bcc_ir::program::{Program, WeightEntry, WeightWidth};
use bcc_runtime::session::{LocalOptions, Options, run_local};
use bcc_runtime::weights::{WeightSource, fingerprint};
use common::{integers, small_network, tensor};

const DIGEST: [u8; 32] = [7; 32];

/// A program with entries of all widths that take several reads, and of no and of one element.
fn entries() -> (Program, Vec<Vec<i64>>) {
    let (mut program, _) = small_network();
    let all = [(WeightWidth::I16, 70_001), (WeightWidth::I32, 50_000), (WeightWidth::I64, 20_003)];
    let small = [(WeightWidth::I32, 0), (WeightWidth::I64, 1)];
    let entry = |(i, (width, len)): (usize, (WeightWidth, usize))| WeightEntry { name: format!("w{i}"), len, width };
    program.weights = all.into_iter().chain(small).enumerate().map(entry).collect();
    let values = program.weights.iter().zip(1..).map(|(w, seed)| integers(seed, w.len, 1 << 15)).collect();
    (program, values)
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(WEIGHTS_FILE);
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn a_file_gives_what_memory_gives() {
    let (program, values) = entries();
    let bytes = encode_weights(&program, DIGEST, &values).unwrap();
    let (_dir, path) = written(&bytes);
    let file = Weights::load(&path, &program, DIGEST).unwrap();
    let memory = Weights::decode(&path, bytes, &program, DIGEST).unwrap();
    for bits in [8u8, 33, 64] {
        for (i, values) in values.iter().enumerate() {
            let want: Vec<u64> = values.iter().map(|v| *v as u64 & (u64::MAX >> (64 - bits))).collect();
            assert_eq!(file.len(i), want.len());
            assert!(file.ring(i, bits).unwrap() == want && memory.ring(i, bits).unwrap() == want, "{i}, {bits} bits");
        }
    }
    assert!(file.len(9) == 0 && file.ring(9, 8).unwrap().is_empty());
    let all: [&dyn WeightSource; 3] = [&file, &memory, &values];
    let prints = all.map(|w| fingerprint(&program, w).unwrap());
    assert!(prints[0] == prints[1] && prints[1] == prints[2]);
}

#[test]
fn damaged_files_are_refused() {
    let (program, values) = entries();
    let bytes = encode_weights(&program, DIGEST, &values).unwrap();
    let load = |bytes: &[u8], digest| {
        let (_dir, path) = written(bytes);
        Weights::load(&path, &program, digest).map(|_| ())
    };
    assert!(load(&bytes, DIGEST).is_ok());
    assert!(matches!(load(&bytes, [8; 32]), Err(FileError::OtherProgram { .. })));
    assert!(matches!(load(&bytes[..50], DIGEST), Err(FileError::Foreign { .. })));
    let changed = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        load(&bytes, DIGEST)
    };
    assert!(matches!(changed(3), Err(FileError::Foreign { .. })));
    assert!(matches!(changed(8), Err(FileError::Version { .. })));
    // Length, digest, padding of the header, the owner, and both ends of what is read in parts.
    for at in [17, 30, 60, 70, 128, (1 << 20) - 1, 1 << 20, bytes.len() - 1] {
        if at < bytes.len() {
            assert!(matches!(changed(at), Err(FileError::Damaged { .. })), "byte {at}");
        }
    }
    for len in [64, 127, 128, bytes.len() - 1] {
        assert!(matches!(load(&bytes[..len], DIGEST), Err(FileError::Damaged { .. })), "{len} bytes");
    }
    let mut other = program.clone();
    other.weights.pop();
    let (_dir, path) = written(&bytes);
    assert!(matches!(Weights::load(&path, &other, DIGEST), Err(FileError::Damaged { .. })));
    assert!(matches!(Weights::load(&path.with_extension("no"), &program, DIGEST), Err(FileError::Io { .. })));
}

#[test]
fn a_file_that_changes_is_not_used() {
    let (program, values) = entries();
    let bytes = encode_weights(&program, DIGEST, &values).unwrap();
    let (_dir, path) = written(&bytes);
    let weights = Weights::load(&path, &program, DIGEST).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
    let error = weights.ring(0, 32).unwrap_err();
    assert!(matches!(error, FileError::Changed { .. }) && error.to_string().contains(WEIGHTS_FILE), "{error}");

    let weights = Weights::load(&path, &program, DIGEST).unwrap();
    file.set_len(1000).unwrap();
    let error = weights.ring(2, 32).unwrap_err();
    assert!(matches!(error, FileError::Io { verb: "read", .. }), "{error}");

    // What was opened stays open.
    #[cfg(unix)]
    {
        fs::write(&path, &bytes).unwrap();
        let weights = Weights::load(&path, &program, DIGEST).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(weights.ring(4, 64).unwrap(), [values[4][0] as u64]);
    }
}

/// The server tells what it could not read, whether it reads for the setup alone or for a kept one too.
#[test]
fn a_session_names_the_file_that_fails() {
    let (program, values) = small_network();
    let dir = tempfile::tempdir().unwrap();
    let digest = save(dir.path(), &program, &values).unwrap();
    let path = dir.path().join(WEIGHTS_FILE);
    let x = tensor(&integers(3, program.input.shape[1], 500));
    for state in [None, Some(dir.path().join("state"))] {
        save(dir.path(), &program, &values).unwrap();
        let weights = Weights::load(&path, &program, digest).unwrap();
        let options = || LocalOptions {
            party: Options { state: state.clone(), ..Options::default() },
            digest,
            ..LocalOptions::default()
        };
        run_local(&program, &weights, std::slice::from_ref(&x), &options()).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        let error = run_local(&program, &weights, std::slice::from_ref(&x), &options()).err().unwrap().to_string();
        assert!(error.starts_with("cannot read") && error.contains(WEIGHTS_FILE), "{error}");
    }
}
