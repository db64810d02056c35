//! `bcc plan` and `bcc compile --budget` as child processes: what they write and print, how they fail,
//! and that they go on where they were stopped.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bcc_compiler::plan::Plan;
use bcc_tests::nets::models_dir;
use ndarray::{Array, Array1, ArrayD, IxDyn};
use ndarray_npy::{NpzWriter, write_npy};
use serde_json::Value;
use tempfile::TempDir;

fn bcc(args: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(format!("bcc{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: cargo build -p bcc-compiler --bin bcc", path.display());
    let mut command = Command::new(path);
    command.args(args).env("NO_COLOR", "1");
    command
}

#[track_caller]
fn text(output: &Output) -> (String, String) {
    let of = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    let (out, err) = (of(&output.stdout), of(&output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = bcc(args).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{args:?}: {err}");
    out
}

fn dense(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !"│├╰╭─▶×·".contains(*c)).collect()
}

#[track_caller]
fn fails(args: &[&str], parts: &[&str]) {
    let output = bcc(args).output().unwrap();
    let (out, err) = text(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}: {out}{err}");
    assert!(out.is_empty(), "{out}");
    for part in parts {
        assert!(dense(&err).contains(&dense(part)), "{part:?} is not in:\n{err}");
    }
}

struct Place {
    dir: TempDir,
    model: String,
    calib: String,
}

impl Place {
    fn new() -> Place {
        let at = |p: &str| models_dir().join(p).to_str().unwrap().to_string();
        Place {
            dir: TempDir::new().unwrap(),
            model: at("trained/fmnist_resnet8.onnx"),
            calib: at("data/fmnist_calib.npz"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    /// Arguments of a quick plan of the small network.
    fn args<'a>(&'a self, verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec![verb, &self.model, "--calib", &self.calib, "--images", "16", "--menu", "squares"];
        args.extend_from_slice(more);
        args
    }
}

fn total(report: &Value, name: &str) -> u64 {
    report["totals"][name].as_u64().unwrap()
}

/// Plan, compile from it, and compile from the budget at once: the same program, and the planner's totals are
/// what `inspect` shows.
#[test]
fn planned_totals_are_those_of_inspect() {
    let p = Place::new();
    let (plan, a, b) = (p.at("plan.ron"), p.at("a"), p.at("b"));
    for budget in ["8%", "2000 drelu", "900kB"] {
        let summary: Value = serde_json::from_str(&succeeds(
            &p.args("plan", &["--budget", budget, "-o", &plan, "--refine", "1", "--json"]),
        ))
        .unwrap();
        let mut from_plan = vec!["compile", &p.model, "--calib", &p.calib, "--images", "16", "--plan", &plan, "-o", &a];
        from_plan.push("--json");
        succeeds(&from_plan);
        succeeds(&p.args("compile", &["--budget", budget, "-o", &b, "--refine", "1"]));
        for file in ["program.bcc", "weights.bcc", "plan.ron"] {
            let same = fs::read(p.path("a").join(file)).unwrap() == fs::read(p.path("b").join(file)).unwrap();
            assert!(same, "{budget}: {file}");
        }
        let inspected: Value = serde_json::from_str(&succeeds(&["inspect", &a, "--json"])).unwrap();
        for name in ["offline_bytes", "online_bytes", "setup_bytes", "rounds", "drelus"] {
            assert_eq!(summary["costs"][name].as_u64().unwrap(), total(&inspected, name), "{budget}: {name}");
        }
        let by_layer: u64 = summary["layers"].as_array().unwrap().iter().map(|l| l["drelus"].as_u64().unwrap()).sum();
        assert_eq!(by_layer, total(&inspected, "drelus"));
    }
}

#[test]
fn plans_are_printed_and_drawn() {
    let p = Place::new();
    let (plan, html) = (p.at("plan.ron"), p.at("plan.html"));
    let said = succeeds(&p.args("plan", &["--budget", "10%", "-o", &plan, "--html", &html, "--network", "wan"]));
    for part in ["identity", "DReLUs", "one shot", "wrote"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    let page = fs::read_to_string(&html).unwrap();
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("<svg") && !page.contains("http://127"),
        "{}",
        &page[..200]
    );
    let plan = Plan::load(&p.path("plan.ron")).unwrap();
    assert_eq!(plan.layers.len(), 7);
    assert_eq!(plan.correct.map(|c| c.to_string()).as_deref(), Some("weights"));
}

#[test]
fn sweeps_are_tables_and_curves() {
    let p = Place::new();
    let (csv, svg, html) = (p.at("s.csv"), p.at("s.svg"), p.at("s.html"));
    let test = models_dir().join("data/fmnist_test.npz");
    let said = succeeds(&p.args(
        "plan",
        &[
            "--sweep",
            "5%,40%,100%",
            "--variants",
            "uniform,plan,refine,correct",
            "--eval",
            test.to_str().unwrap(),
            "--csv",
            &csv,
            "--svg",
            &svg,
            "--html",
            &html,
            "--refine",
            "1",
            "--json",
        ],
    ));
    let rows: Value = serde_json::from_str(&said).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 12);
    let measured = |variant: &str, budget: &str| {
        let row = rows.iter().find(|r| r["variant"] == variant && r["budget"] == budget).unwrap();
        (row["measured"].as_f64().unwrap(), row["accuracy"].as_f64().unwrap())
    };
    for budget in ["5%", "40%"] {
        assert!(measured("correct", budget).0 < measured("plan", budget).0, "{budget}");
        assert!(measured("refine", budget).0 <= measured("plan", budget).0, "{budget}");
        assert!(measured("correct", budget).0 < 0.5 * measured("uniform", budget).0, "{budget}");
    }
    assert!(measured("plan", "40%").0 < measured("uniform", "40%").0);
    assert!(measured("correct", "40%").1 > 0.85 && measured("correct", "100%").1 > 0.88);
    assert_eq!(measured("plan", "100%").0, 0.0);
    let lines = fs::read_to_string(&csv).unwrap();
    assert_eq!(lines.lines().count(), 13);
    assert!(lines.starts_with("budget,variant,drelus,share,"));
    assert!(fs::read_to_string(&svg).unwrap().starts_with("<svg"));
    assert!(fs::read_to_string(&html).unwrap().contains("<svg"));
}

/// A run that is killed leaves what it finished; the next one goes on and ends with the same plan.
#[test]
fn a_killed_run_is_taken_up() {
    let p = Place::new();
    let (a, b, work) = (p.at("a.ron"), p.at("b.ron"), p.at("work"));
    let common = ["--distortion", "exact", "--budget", "10%", "--correct", "none", "--refine", "0"];
    let with = |more: &[&str]| -> Vec<String> {
        p.args("plan", &common).into_iter().chain(more.iter().copied()).map(String::from).collect()
    };
    let interrupted = with(&["-o", &b, "--resume", &work]);
    let interrupted: Vec<&str> = interrupted.iter().map(String::as_str).collect();
    let mut child = bcc(&interrupted).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let files = || {
        fs::read_dir(p.path("work"))
            .map_or(0, |d| d.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "work")).count())
    };
    let patience = Instant::now() + Duration::from_secs(300);
    while files() < 2 && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(2));
    }
    // It may have ended by itself on a fast machine; then the second run has all there is.
    let _ = child.kill();
    child.wait().unwrap();
    let before = files();
    assert!(before >= 2);
    succeeds(&interrupted);
    assert!(files() >= before);
    let whole = with(&["-o", &a]);
    succeeds(&whole.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
}

#[test]
fn pins_leave_the_rest_to_the_planner() {
    let p = Place::new();
    let (plan, pins, again) = (p.at("plan.ron"), p.at("pins.ron"), p.at("again.ron"));
    succeeds(&p.args("plan", &["--budget", "20%", "-o", &plan, "--refine", "0"]));
    let names: Vec<String> = Plan::load(&p.path("plan.ron")).unwrap().layers.into_keys().collect();
    let text = format!(
        "Plan(network: \"n\", layers: {{\"{}\": [\"4*2x2\", \"12*auto\"], \"{}\": [\"keep\"]}})",
        names[0], names[3]
    );
    fs::write(p.path("pins.ron"), text).unwrap();
    let pin = format!("{}=identity", names[5]);
    succeeds(&p.args("plan", &["--budget", "20%", "-o", &again, "--refine", "0", "--pins", &pins, "--pin", &pin]));
    let made = Plan::load(&p.path("again.ron")).unwrap();
    assert!(made.layers[&names[0]][0].ends_with("2x2"), "{:?}", made.layers[&names[0]]);
    assert_eq!(made.layers[&names[3]], ["1x1"]);
    assert_eq!(made.layers[&names[5]], ["identity"]);
    // The file that was written feeds back as pins of everything.
    let all = p.at("all.ron");
    succeeds(&p.args("plan", &["--budget", "20%", "-o", &all, "--refine", "0", "--pins", &again]));
    assert_eq!(Plan::load(&p.path("all.ron")).unwrap().layers, made.layers);
}

#[test]
fn bad_input_is_named() {
    let p = Place::new();
    let out = p.at("x.ron");
    let bare = ["plan", &p.model, "--budget", "6%", "-o", &out];
    fails(&bare, &["calibration images", "--calib"]);
    let wrong = p.at("wrong.npy");
    write_npy(p.path("wrong.npy"), &ArrayD::<f32>::zeros(IxDyn(&[3, 1, 20, 28]))).unwrap();
    fails(&["plan", &p.model, "--budget", "6%", "-o", &out, "--calib", &wrong], &["[3, 1, 20, 28]", "[1, 1, 28, 28]"]);
    for budget in ["0", "0%", "0MB", "-3%", "101%", "6", "fast", "5 parsecs"] {
        let quoted = format!("budget \"{budget}\"");
        fails(&p.args("plan", &["--budget", budget, "-o", &out]), &["--budget", &quoted, "40MB online"]);
    }
    fails(&p.args("plan", &["-o", &out]), &["--budget"]);
    fails(&p.args("plan", &["--budget", "1B", "-o", &out]), &["1B", "the least possible is", "no choice of blocks"]);
    fails(
        &["plan", &p.model, "--calib", &p.calib, "--images", "2", "--budget", "0.1%", "-o", &out, "--menu", "1x1,2x2"],
        &["0.1%", "the least possible is", "sign decisions", "--menu"],
    );
    for (menu, part) in [("2y2", "\"2y2\" is no block"), ("", "the list is empty")] {
        fails(
            &["plan", &p.model, "--calib", &p.calib, "--budget", "6%", "-o", &out, "--menu", menu],
            &["--menu", part],
        );
    }
    fails(&p.args("plan", &["--budget", "6%", "-o", &out, "--pin", "nowhere=4x4"]), &["\"nowhere\"", "its ReLUs are"]);
    fails(&p.args("plan", &["--budget", "6%", "-o", &out, "--pin", "4x4"]), &["4x4"]);
    fails(&p.args("plan", &["--budget", "6%", "-o", &out, "--cap", "nowhere=5%"]), &["\"nowhere\"", "its ReLUs are"]);
    fails(
        &p.args("plan", &["--budget", "6%", "-o", &out, "--correct", "magic"]),
        &["--correct", "\"magic\"", "weights"],
    );
    fails(&p.args("plan", &["--budget", "6%", "-o", &out, "--probes", "0"]), &["--probes"]);
    fails(&p.args("plan", &["--budget", "6%", "-o", &out, "--images", "0"]), &["--images"]);
    fails(&p.args("plan", &["--budget", "6%", "-o", &out, "--network", "moon"]), &["moon"]);
    fails(&p.args("plan", &["--sweep", "6%", "--variants", "best"]), &["--variants", "best", "uniform"]);
    // A plan of another network, and one whose pins are of another network.
    let other = p.at("other.ron");
    fs::write(p.path("other.ron"), "Plan(layers: {\"/99/Relu\": [\"2x2\"]})").unwrap();
    fails(
        &p.args("plan", &["--budget", "6%", "-o", &out, "--pins", &other]),
        &["\"/99/Relu\"", "no ReLU of this network"],
    );
    let c = p.at("c");
    fails(&["compile", &p.model, "--calib", &p.calib, "--plan", &other, "-o", &c], &["\"/99/Relu\""]);
    let short = p.at("short.npz");
    let mut npz = NpzWriter::new(fs::File::create(p.path("short.npz")).unwrap());
    npz.add_array("x", &Array::<f32, _>::zeros(IxDyn(&[3, 1, 28, 28]))).unwrap();
    npz.add_array("y", &Array1::<i64>::zeros(2)).unwrap();
    npz.finish().unwrap();
    fails(&p.args("plan", &["--budget", "6%", "-o", &out, "--eval", &short]), &["short.npz", "2 labels for 3 images"]);
    // A correction needs images when it is compiled, too.
    let fitted = p.at("fitted.ron");
    fs::write(p.path("fitted.ron"), "Plan(correct: \"weights\", layers: {\"/2/Relu\": [\"2x2\"]})").unwrap();
    fails(
        &["compile", &p.model, "--input-bound", "3", "--plan", &fitted, "-o", &c],
        &["--correct weights", "--calib", "--correct none"],
    );
    assert!(!p.path("x.ron").exists() && !p.path("c").exists());
}
