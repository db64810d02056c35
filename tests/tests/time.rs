//! Predicted times: what they must be on networks and machines of extremes, and what `bcc inspect
//! --network` prints.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bcc_compiler::compile::CompileOptions;
use bcc_compiler::passes::{BlockChoice, PassOptions};
use bcc_ir::program::file::{encode_program, save};
use bcc_ir::program::traffic::traffic;
use bcc_ir::program::{Phase, Program, Role};
use bcc_ir::time::{Network, Prediction, Rate, Rates, Seconds, default_rates, phase_work, predict};
use bcc_runtime::rates::session::PROGRAM as SESSION;
use bcc_tests::nets::{built, compiled, options, random_images, tiny_compiled};
use serde_json::Value;

fn instant() -> Rates {
    let mut rates = default_rates();
    rates.rates.values_mut().for_each(|r| *r = Rate::default());
    rates.measured.share_seconds = 0.0;
    rates
}

fn network(bytes_per_second: f64, rtt_seconds: f64) -> Network {
    Network { bytes_per_second, rtt_seconds, ..Network::wan() }
}

fn predicted(what: &str, program: &Program, rates: &Rates, network: &Network) -> Prediction {
    let p = predict(program, rates, network).unwrap();
    for phase in Phase::ALL {
        let p = p.phase(phase);
        let layers: f64 = p.layers.iter().map(Seconds::total).sum();
        assert!((layers - p.path.total()).abs() < 1e-9, "{what}, {phase}: layers {layers} of {:?}", p.path);
    }
    p
}

/// Bytes in the busiest direction of a link, and of all messages.
fn bytes(program: &Program, phase: Phase) -> (u64, u64) {
    let mut links = [[0u64; 3]; 3];
    for m in program.messages.iter().filter(|m| m.phase == phase) {
        links[m.from.index()][m.to.index()] += m.wire_bytes();
    }
    let all = links.into_iter().flatten();
    (all.clone().max().unwrap_or(0), all.sum())
}

#[test]
fn extremes() {
    for (what, c, _) in tiny_compiled() {
        let program = &c.lowered.program;
        let rounds = traffic(program).unwrap().total.rounds;
        // With nothing but latency the time is that of the rounds.
        let p = predicted(&what, program, &instant(), &network(f64::INFINITY, 2.0));
        for phase in Phase::ALL {
            let got = p.phase(phase).path.total();
            let want = rounds[phase.index()] as f64;
            assert!(if phase == Phase::Online { got == want } else { got <= want }, "{what}, {phase}: {got} of {want}");
        }
        // With nothing but bandwidth it is at least that of the busiest link, and less than if all
        // messages followed each other.
        let p = predicted(&what, program, &instant(), &network(1e6, 0.0));
        for phase in Phase::ALL {
            let got = p.phase(phase).path.total() * 1e6;
            let (most, all) = bytes(program, phase);
            assert!(got > most as f64 - 0.5 && got < all as f64 + 0.5, "{what}, {phase}: {got} B, {most} to {all}");
        }
        // With nothing but work, it is at most all work on one core, and at least the client's.
        let rates = default_rates();
        let shared = Network { shared_cores: Some(1.0), ..network(f64::INFINITY, 0.0) };
        let p = predicted(&what, program, &rates, &shared);
        let work = |role| rates.seconds(&phase_work(program, role, Phase::Online));
        let online = p.phase(Phase::Online);
        let all: f64 = Role::ALL.into_iter().map(work).sum();
        assert!(online.path.total() <= all + 1e-9 && online.path.total() >= work(Role::Client) - 1e-9, "{what}");
        assert!((online.busy[Role::Client.index()] - work(Role::Client)).abs() < 1e-9, "{what}");
    }
}

/// The binary beside the folder of this test's executable.
fn bcc(args: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(format!("bcc{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: cargo build -p bcc-compiler --bin bcc", path.display());
    Command::new(path).args(args).env("NO_COLOR", "1").output().unwrap()
}

fn text(args: &[&str]) -> String {
    let done = bcc(args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[track_caller]
fn fails(args: &[&str], parts: &[&str]) {
    let done = bcc(args);
    // Messages are wrapped to the terminal.
    let dense = |s: &str| s.chars().filter(|c| !c.is_whitespace() && !"│├╰╭─▶×·".contains(*c)).collect::<String>();
    let err = String::from_utf8(done.stderr).unwrap();
    assert!(!done.status.success() && done.stdout.is_empty() && !err.contains("panicked"), "{err}");
    parts.iter().for_each(|p| assert!(dense(&err).contains(&dense(p)), "{p:?} is not in:\n{err}"));
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A folder with a compiled network.
    fn new() -> Place {
        let graph = built("tiny_residual");
        let images = random_images(&graph, 4, 7);
        let c = compiled(graph, &options(BlockChoice::Keep, images));
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &c.lowered.program, &c.lowered.weights).unwrap();
        Place { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> String {
        fs::write(self.at(name), content).unwrap();
        self.at(name).to_str().unwrap().to_string()
    }
}

#[test]
fn inspect_with_a_network() {
    let place = Place::new();
    let dir = place.dir.path().to_str().unwrap();
    let json = |more: &[&str]| -> Value {
        serde_json::from_str(&text(&[&["inspect", dir, "--json"], more].concat())).unwrap()
    };
    let mut wan = json(&["--network", "wan"]);
    let predicted = wan.as_object_mut().unwrap().remove("predicted").unwrap();
    // Nothing else changes.
    assert_eq!(wan, json(&[]));
    assert_eq!(predicted["network"]["name"], "wan");
    assert_eq!(predicted["network"]["rtt_seconds"], 0.04);
    assert!(predicted["rates"]["machine"].is_string());
    let rounds = wan["totals"]["rounds"].as_f64().unwrap();
    for phase in ["setup", "offline", "online"] {
        let p = &predicted["phases"][phase];
        let number = |name: &str| p[name].as_f64().unwrap();
        let parts = number("compute") + number("latency") + number("bandwidth");
        assert!((number("seconds") - parts).abs() < 1e-8, "{p}");
        let layers: f64 = predicted["layers"].as_array().unwrap().iter().map(|l| l[phase].as_f64().unwrap()).sum();
        assert!((number("seconds") - layers).abs() < 1e-6, "{phase}: {layers} in {p}");
        assert!(p["busy"]["dealer"].is_number());
    }
    let latency = predicted["phases"]["online"]["latency"].as_f64().unwrap();
    assert!((latency - 0.02 * rounds).abs() < 1e-6, "{latency} s for {rounds} rounds");

    let table = text(&["inspect", dir, "--network", "lan"]);
    for part in ["online ms", "predicted on lan", "1000.0 Mbit/s", "three machines", "latency"] {
        assert!(table.contains(part), "{part} is not in {table}");
    }
    assert!(text(&["inspect", dir, "--network", "loopback"]).contains("one machine worth"));
    assert!(!text(&["inspect", dir]).contains("predicted"));
}

#[test]
fn files_of_networks_and_rates() {
    let place = Place::new();
    let dir = place.dir.path().to_str().unwrap();
    let net = place.file("net.ron", "Network(bandwidth: \"1 Mbit/s\", rtt: \"2 s\", shared_cores: 1)");
    let mut slow = default_rates();
    slow.rates.values_mut().for_each(|r| r.call_ns += 1e9);
    let rates = place.file("rates.ron", &slow.to_ron().unwrap());
    let table = text(&["inspect", dir, "--network", &net, "--rates", &rates]);
    assert!(table.contains("net.ron: 1.0 Mbit/s") && table.contains("one machine worth 1 cores"), "{table}");
    let json: Value =
        serde_json::from_str(&text(&["inspect", dir, "--json", "--network", &net, "--rates", &rates])).unwrap();
    assert!(json["predicted"]["phases"]["online"]["compute"].as_f64().unwrap() > 10.0);

    fails(&["inspect", dir, "--network", "moon"], &["moon", "loopback, lan, wan, or a file"]);
    let bad = place.file("bad.ron", "Network(bandwidth: \"fast\", rtt: \"2 s\")");
    fails(&["inspect", dir, "--network", &bad], &["bad.ron, bandwidth: \"fast\"", "Mbit/s"]);
    fails(&["inspect", dir, "--network", "wan", "--rates", &net], &["net.ron holds no rates", "bcr rates -o"]);
    fails(&["inspect", dir, "--network", "wan", "--rates", "nowhere.ron"], &["cannot read the rates nowhere.ron"]);
    fails(&["inspect", dir, "--rates", &rates], &["--network"]);
    fails(&["inspect", dir, "--network", "wan", "--listing"], &["--listing"]);
}

/// What `bcr rates` runs as a session is what the compiler makes today.
#[test]
fn the_program_of_rates_is_up_to_date() {
    let passes = PassOptions { input_bound: Some(1.0), frac: 6, weight_frac: 6, ..PassOptions::default() };
    let compiled = compiled(built("conv_relus"), &CompileOptions { passes, ..CompileOptions::default() });
    let (bytes, _) = encode_program(&compiled.lowered.program).unwrap();
    assert!(
        bytes == SESSION,
        "the compiler's program of conv_relus differs; write it anew: bcc-models build conv_relus -o conv_relus.onnx; \
         bcc compile conv_relus.onnx --input-bound 1 --frac 6 --weight-frac 6 -o out; \
         cp out/program.bcc runtime/src/rates/session.bcc; and measure the built-in rates"
    );
}
