//! The command line: processes over TCP.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bcc_ir::program::file;
use bcc_ir::time::{Kind, Rates};
use common::{integers, small_network};
use ndarray::{Array2, ArrayD};
use ndarray_npy::{read_npy, write_npy};

fn bcr() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bcr"))
}

fn model(dir: &Path) {
    let (program, weights) = small_network();
    file::save(dir, &program, &weights).unwrap();
    let len = program.input.shape[1];
    let x: Vec<f32> = integers(3, 3 * len, 500).iter().map(|v| *v as f32).collect();
    write_npy(dir.join("x.npy"), &Array2::from_shape_vec((3, len), x).unwrap()).unwrap();
}

fn run(dir: &Path, args: &[&str]) -> Output {
    bcr().args(args).current_dir(dir).output().unwrap()
}

fn ok(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn run_in_processes_and_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path());
    ok(&run(dir.path(), &["run", ".", "--input", "x.npy", "--output", "y.npy", "--stats", "s.json"]));
    let y: ArrayD<f32> = read_npy(dir.path().join("y.npy")).unwrap();
    assert_eq!(y.shape(), [3, 90]);
    let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.path().join("s.json")).unwrap()).unwrap();
    assert_eq!(stats["inferences"], 3);
    assert!(stats["phases"]["offline"]["bytes"]["dealer"].as_u64().unwrap() > 0);
    let text = ok(&run(dir.path(), &["run", ".", "--input", "x.npy", "--count", "2", "--in-memory", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["outputs"].as_array().unwrap().len(), 2);
    let rounds = |s: &serde_json::Value| s["phases"]["online"]["rounds"].clone();
    assert_eq!(rounds(&json["stats"]), rounds(&stats));
}

#[test]
fn material_ahead() {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path());
    ok(&run(dir.path(), &["prepare", ".", "--count", "2", "--batch", "2", "--material", "m", "--state", "st"]));
    ok(&run(dir.path(), &["run", ".", "--input", "x.npy", "--count", "2", "--material", "m"]));
    let out = run(dir.path(), &["run", ".", "--input", "x.npy", "--count", "1", "--material", "m"]);
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && err.contains("bcr prepare"), "{err}");
}

fn serve(dir: &Path, args: &[&str]) -> (Child, String) {
    let mut child = bcr()
        .args(args)
        .args(["--listen", "127.0.0.1:0", "--announce", "--timeout", "5"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    (child, address.trim().to_string())
}

#[test]
fn three_processes_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path());
    // The dealer has the program alone.
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("program.bcc"), alone.path().join("program.bcc")).unwrap();
    let (mut dealer, d) = serve(alone.path(), &["dealer", "."]);
    let (mut server, s) = serve(dir.path(), &["server", ".", "--dealer", &d]);
    let text = ok(&run(
        alone.path(),
        &["client", ".", "--server", &s, "--dealer", &d, "--input", dir.path().join("x.npy").to_str().unwrap()],
    ));
    assert!(text.contains("online"), "{text}");
    assert!(dealer.wait().unwrap().success() && server.wait().unwrap().success());
}

#[test]
fn a_killed_server_ends_everybody_within_seconds() {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path());
    let (mut dealer, d) = serve(dir.path(), &["dealer", "."]);
    let (mut server, s) = serve(dir.path(), &["server", ".", "--dealer", &d]);
    server.kill().unwrap();
    server.wait().unwrap();
    let start = Instant::now();
    let out = run(dir.path(), &["client", ".", "--server", &s, "--dealer", &d, "--input", "x.npy", "--timeout", "1"]);
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && err.contains("cannot connect to the server"), "{err}");
    assert!(start.elapsed() < Duration::from_secs(4));
    dealer.kill().unwrap();
    dealer.wait().unwrap();
}

#[test]
fn mistakes_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path());
    let fails = |args: &[&str], message: &str| {
        let out = run(dir.path(), args);
        let err = String::from_utf8_lossy(&out.stderr).replace("\n  │ ", " ");
        assert!(!out.status.success() && err.contains(message), "{args:?}: {err}");
        assert!(!err.contains("panicked"), "{err}");
    };
    fails(&["run", ".", "--input", "none.npy"], "cannot open none.npy");
    fails(&["run", "nowhere", "--input", "x.npy"], "program.bcc");
    write_npy(dir.path().join("bad.npy"), &Array2::<f32>::zeros((1, 7))).unwrap();
    fails(&["run", ".", "--input", "bad.npy"], "has shape [1, 7]");
    let mut nan = Array2::<f32>::zeros((1, small_network().0.input.shape[1]));
    nan[[0, 4]] = f32::NAN;
    write_npy(dir.path().join("nan.npy"), &nan).unwrap();
    fails(&["run", ".", "--input", "nan.npy"], "is NaN");
    let path = dir.path().join("program.bcc");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    fails(&["run", ".", "--input", "x.npy"], "damaged");
}

#[test]
fn rates_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let json = ok(&run(dir.path(), &["rates", "-o", "r.ron", "--json"]));
    let rates = Rates::load(&dir.path().join("r.ron")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for kind in Kind::ALL {
        assert!(rates.rates[&kind].unit_ns >= 0.0 && json["rates"][kind.name()]["unit_ns"].is_number());
    }
    assert_eq!(json["measured"]["cores"], rates.measured.cores);
    let out = run(dir.path(), &["rates", "-o", "nowhere/r.ron"]);
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && err.contains("cannot write nowhere/r.ron"), "{err}");
}
