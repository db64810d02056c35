//! `bcr bench`, and `--network` of the other commands.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use bcc_ir::program::file;
use bcc_ir::program::traffic::{batch_traffic, traffic};
use common::small_network;
use ndarray::Array2;
use ndarray_npy::{read_npy, write_npy};
use serde_json::Value;

/// A directory with the model, an input and networks.
fn model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (program, weights) = small_network();
    file::save(dir.path(), &program, &weights).unwrap();
    let x = Array2::<f32>::from_elem((1, program.input.shape[1]), 3.0);
    write_npy(dir.path().join("x.npy"), &x).unwrap();
    let net = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    net("net.ron", "Network(bandwidth: \"1 MB/s\", rtt: \"10 ms\")");
    net("crawl.ron", "Network(bandwidth: \"1 kbit/s\", rtt: \"10 ms\")");
    dir
}

fn bcr(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bcr")).args(args).current_dir(dir).output().unwrap()
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let out = bcr(dir, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn fails(dir: &Path, args: &[&str], words: &[&str]) {
    let out = bcr(dir, args);
    let err = String::from_utf8_lossy(&out.stderr).replace('│', " ");
    let err = err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!out.status.success() && words.iter().all(|w| err.contains(w)), "{args:?}: {err}");
}

fn names(v: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = v.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

const PARTIES: [&str; 3] = ["client", "dealer", "server"];

fn spread(v: &Value) -> f64 {
    assert_eq!(names(v), ["max", "median", "min"]);
    let [min, median, max] = ["min", "median", "max"].map(|n| v[n].as_f64().unwrap());
    assert!(0.0 <= min && min <= median && median <= max, "{v}");
    median
}

#[test]
fn json_has_the_documented_names() {
    let dir = model();
    let json: Value = serde_json::from_str(&ok(dir.path(), &["bench", ".", "--runs", "2", "--json"])).unwrap();
    let mut all = vec!["batch", "images_per_second", "input", "kernels", "layers", "network", "offline", "online"];
    all.extend(["peak_bytes", "per_image", "runs", "setup", "total"]);
    assert_eq!(names(&json), all);
    assert_eq!((&json["runs"], &json["batch"], &json["input"]), (&Value::from(2), &Value::from(1), &Value::Null));
    assert_eq!(json["network"]["name"], "loopback");
    let program = small_network().0;
    let own = traffic(&program).unwrap().total;
    for (i, phase) in ["setup", "offline", "online"].into_iter().enumerate() {
        let p = &json[phase];
        assert_eq!(names(p), ["busy", "measured", "predicted", "program", "seconds"]);
        assert_eq!(names(&p["predicted"]), ["ratio", "seconds"]);
        assert!(p["predicted"]["seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(names(&p["busy"]), PARTIES);
        assert!(spread(&p["seconds"]) > 0.0 && PARTIES.iter().any(|r| spread(&p["busy"][r]) > 0.0));
        assert_eq!((&p["measured"], names(&p["measured"])), (&p["program"], vec!["bytes", "rounds"]));
        assert_eq!(p["measured"]["rounds"], own.rounds[i]);
        for (role, bytes) in ["client", "server", "dealer"].into_iter().zip(own.bytes[i]) {
            assert_eq!(p["measured"]["bytes"][role], bytes, "{phase}, {role}");
        }
    }
    assert_eq!(names(&json["total"]), ["predicted", "seconds"]);
    assert!(spread(&json["total"]["seconds"]) > 0.0);
    assert_eq!(names(&json["per_image"]), ["offline", "online", "total"]);
    assert_eq!(json["per_image"]["total"], json["total"]["seconds"]);
    assert!(spread(&json["images_per_second"]) > 0.0);
    assert_eq!(names(&json["peak_bytes"]), PARTIES);
    if cfg!(target_os = "linux") {
        assert!(PARTIES.iter().all(|p| spread(&json["peak_bytes"][p]) > 1e6));
    }
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.len(), program.layers.len());
    let mut busy = 0.0;
    for l in layers {
        assert_eq!(names(l), ["name", "offline", "online", "op"]);
        busy += PARTIES.iter().map(|p| l["online"][p].as_f64().unwrap()).sum::<f64>();
    }
    assert!(busy > 0.0);
}

#[test]
fn a_batch_in_every_session() {
    let dir = model();
    let text = ok(dir.path(), &["bench", ".", "--runs", "2", "--batch", "3", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["runs"], &json["batch"]), (&Value::from(2), &Value::from(3)));
    let program = small_network().0;
    let own = batch_traffic(&program, 3).unwrap().total;
    for (i, phase) in ["setup", "offline", "online"].into_iter().enumerate() {
        assert_eq!(json[phase]["measured"]["rounds"], own.rounds[i]);
        for (role, bytes) in ["client", "server", "dealer"].into_iter().zip(own.bytes[i]) {
            assert_eq!(json[phase]["measured"]["bytes"][role], bytes, "{phase}, {role}");
        }
    }
    let total = &json["total"]["seconds"];
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a}, {b}");
    for phase in ["offline", "online"] {
        near(3.0 * spread(&json["per_image"][phase]), spread(&json[phase]["seconds"]));
    }
    near(3.0 * spread(&json["per_image"]["total"]), spread(total));
    spread(&json["images_per_second"]);
    near(json["images_per_second"]["max"].as_f64().unwrap() * total["min"].as_f64().unwrap(), 3.0);
    let text = ok(dir.path(), &["bench", ".", "--runs", "1", "--batch", "2"]);
    assert!(text.contains("1 runs of 2 inferences in lockstep") && text.contains("images a second"), "{text}");
}

#[test]
fn tables_and_a_kept_setup() {
    let dir = model();
    let args = ["bench", ".", "--runs", "1", "--state", "st", "--input", "x.npy"];
    let text = ok(dir.path(), &args);
    assert!(["setup", "offline + online", "dealer", "x.npy", "sum"].iter().all(|w| text.contains(w)), "{text}");
    // The setup is there now.
    let text = ok(dir.path(), &[&args[..], &["--layers", "0"]].concat());
    assert!(!text.contains("setup") && !text.contains("sum") && text.contains("online"), "{text}");
}

/// The setup of all parties is in it.
#[test]
fn no_temporary_directory_is_left() {
    let dir = model();
    let temporary = tempfile::tempdir().unwrap();
    for (input, ends_well) in [("x.npy", true), ("none.npy", false)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bcr"));
        command.args(["bench", ".", "--runs", "1", "--input", input]).current_dir(dir.path());
        let out = command.env("TMPDIR", temporary.path()).output().unwrap();
        assert_eq!(out.status.success(), ends_well, "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_network_between_processes() {
    let dir = model();
    let run = |more: &[&str]| ok(dir.path(), &[&["run", ".", "--input", "x.npy", "--json"], more].concat());
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let slow = json(&run(&["--network", "net.ron", "--timeout", "2", "--output", "y.npy"]));
    let plain = json(&run(&["--network", "loopback"]));
    assert_eq!(read_npy::<_, Array2<f32>>(dir.path().join("y.npy")).unwrap().shape(), [1, 90]);
    let online = |v: &Value| v["stats"]["phases"]["online"].clone();
    assert_eq!(
        (&online(&slow)["bytes"], &online(&slow)["rounds"]),
        (&online(&plain)["bytes"], &online(&plain)["rounds"])
    );
    let rounds = online(&slow)["rounds"].as_f64().unwrap();
    assert!(online(&slow)["seconds"].as_f64().unwrap() >= 0.005 * rounds);
    let text = ok(dir.path(), &["bench", ".", "--runs", "1", "--network", "net.ron", "--json"]);
    let seconds = spread(&json(&text)["online"]["seconds"]);
    assert!(seconds >= 0.005 * rounds && json(&text)["network"]["name"] == "net.ron");
}

#[test]
fn mistakes_are_explained() {
    let dir = model();
    let run = ["run", ".", "--input", "x.npy"];
    let fails = |args: &[&str], words: &[&str]| fails(dir.path(), args, words);
    fails(&[&run[..], &["--network", "fast"]].concat(), &["there is no network \"fast\"", "loopback, lan, wan"]);
    fails(&[&run[..], &["--network", "x.npy"]].concat(), &["--network"]);
    fails(&[&run[..], &["--network", "crawl.ron"]].concat(), &["crawl.ron has 125 B/s", "1024"]);
    fails(&[&run[..], &["--network", "lan", "--in-memory"]].concat(), &["cannot be used with"]);
    fails(&["bench", ".", "--runs", "0"], &["--runs"]);
    fails(&["bench", ".", "--batch", "0"], &["--batch"]);
    fails(&["bench", ".", "--batch", "2", "--input", "x.npy"], &["session 0, of 2 inputs", "2 of 1 inputs in x.npy"]);
    fails(&["bench", ".", "--rates", "none.ron"], &["none.ron"]);
    fails(&["bench", ".", "--input", "none.npy"], &["session 0", "cannot open none.npy"]);
    fails(&["bench", "nowhere"], &["program.bcc"]);
}
