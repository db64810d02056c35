//! What `bcc` is asked for beside ReLUs: ReLU6, maximum pools, the class alone.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use bcc_models::onnx::{Conv, Dim, GraphBuilder, Pool};
use bcc_tests::random::Numbers;
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::write_npy;
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;

fn bcc(args: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(format!("bcc{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: cargo build -p bcc-compiler --bin bcc", path.display());
    Command::new(path).args(args).env("NO_COLOR", "1").output().unwrap()
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    let output = bcc(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn fails(args: &[&str], part: &str) {
    let output = bcc(args);
    let dense =
        |text: &str| text.chars().filter(|c| !c.is_whitespace() && !"│├╰╭─▶×·".contains(*c)).collect::<String>();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && dense(&err).contains(&dense(part)), "{part} is not in: {err}");
}

/// A conv with ReLU6, a conv with ReLU and a maximum pool, and four logits, or the first half of it.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new(whole: bool) -> Files {
        let dir = TempDir::new().unwrap();
        let mut numbers = Numbers::new(6);
        let mut b = GraphBuilder::new("net", 13);
        b.input("x", &[Dim::Fixed(1), Dim::Fixed(3), Dim::Fixed(8), Dim::Fixed(8)]);
        let mut conv = |b: &mut GraphBuilder, name: &str, x: &str, [out, c]: [i64; 2]| {
            let w = numbers.values((out * c * 9) as usize, 0.3);
            let w = b.f32(&format!("{name}.w"), &[out, c, 3, 3], w);
            b.conv(name, x, &w, None, &Conv::square(3, 1, 1))
        };
        let y = conv(&mut b, "a", "x", [4, 3]);
        let mut y = b.clip("six", &y, 0.0, 6.0);
        if whole {
            y = conv(&mut b, "b", &y, [4, 4]);
            y = b.relu("relu", &y);
            y = b.max_pool("pool", &y, &Pool::square(2, 2, 0));
        }
        let y = conv(&mut b, "logits", &y, [4, 4]);
        b.output(&y, &y, &[]);
        fs::write(dir.path().join("net.onnx"), b.finish_unchecked().encode_to_vec()).unwrap();
        let images = ArrayD::from_shape_vec(IxDyn(&[8, 3, 8, 8]), Numbers::new(7).values(8 * 192, 1.0)).unwrap();
        write_npy(dir.path().join("calib.npy"), &images).unwrap();
        Files { dir }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().into()
    }

    fn with(&self, verb: &str, out: &str, more: &[&str]) -> Vec<String> {
        let mut args: Vec<String> = vec![verb.into(), self.at("net.onnx"), "-o".into(), self.at(out)];
        args.extend(["--calib".into(), self.at("calib.npy"), "--json".into()]);
        args.extend(more.iter().map(ToString::to_string));
        args
    }

    fn run(&self, verb: &str, out: &str, more: &[&str]) -> Value {
        let args = self.with(verb, out, more);
        json(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[test]
fn sign_decisions_of_every_choice() {
    let f = Files::new(true);
    let drelus = |more: &[&str]| f.run("compile", "out", more)["totals"]["drelus"].as_u64().unwrap();
    let map = 4 * 64;
    assert_eq!(drelus(&[]), 3 * map + 3 * map / 4);
    assert_eq!(drelus(&["--relu6", "relu"]), 2 * map + 3 * map / 4);
    assert_eq!(drelus(&["--max-pool", "first"]), 2 * map + map / 4 + 3 * map / 4);
    assert_eq!(drelus(&["--max-pool", "average"]), 3 * map);
    assert_eq!(drelus(&["--reveal", "argmax"]), 3 * map + 3 * map / 4 + 3 * 16);
}

/// A plan chooses among the ReLU's signs; its totals are those of the whole program.
#[test]
fn plans_count_what_they_do_not_choose() {
    let f = Files::new(true);
    let more = ["--budget", "25%", "--reveal", "argmax", "--refine", "0", "--correct", "none"];
    let planned = f.run("plan", "plan.ron", &more);
    let costs = &planned["costs"];
    f.run("compile", "out", &["--plan", &f.at("plan.ron"), "--reveal", "argmax"]);
    let inspected = json(&["inspect", &f.at("out"), "--json"]);
    let totals = &inspected["totals"];
    for name in ["offline_bytes", "online_bytes", "setup_bytes", "rounds"] {
        assert_eq!(costs[name], totals[name], "{name}");
    }
    assert_eq!(costs["program_drelus"], totals["drelus"]);
    assert!(costs["drelus"].as_u64().unwrap() <= 64);
    assert!(totals["drelus"].as_u64().unwrap() > 2 * 256);
}

#[test]
fn nothing_to_plan_is_said_with_a_remedy() {
    let f = Files::new(false);
    let args = f.with("plan", "plan.ron", &["--budget", "25%"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    fails(&args, "no ReLU whose blocks could be chosen; exact clips such as ReLU6 have none (--relu6 relu");
    fails(&["compile", &f.at("net.onnx"), "--reveal", "logits"], "[possible values: output, argmax]");
}
