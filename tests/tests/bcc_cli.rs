//! `bcc` as a child process: what it writes and prints, and how it fails.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bcc_compiler::passes::PASSES;
use bcc_compiler::plan::Plan;
use bcc_models::nets::{BuildOptions, find};
use bcc_tests::nets::models_dir;
use bcc_tests::random::Numbers;
use ndarray::{Array, ArrayD, IxDyn};
use ndarray_npy::{NpzWriter, WritableElement, write_npy};
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;

/// The binary beside the folder of this test's executable.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(format!("bcc{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: cargo build -p bcc-compiler --bin bcc", path.display());
    path
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn bcc<S: AsRef<OsStr>>(args: &[S]) -> Ended {
    let done = Command::new(binary()).args(args).env("NO_COLOR", "1").output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    let ended = Ended { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) };
    assert!(!ended.err.contains("panicked") && !ended.err.contains("RUST_BACKTRACE"), "{}", ended.err);
    ended
}

#[track_caller]
fn succeeds<S: AsRef<OsStr>>(args: &[S]) -> String {
    let ended = bcc(args);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    ended.out
}

/// Messages are wrapped to the terminal and drawn with lines; neither counts.
fn dense(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !"│├╰╭─▶×·".contains(*c)).collect()
}

#[track_caller]
fn fails<S: AsRef<OsStr>>(args: &[S], parts: &[&str]) {
    let ended = bcc(args);
    assert!(matches!(ended.code, Some(1 | 2)), "{:?}: {}{}", ended.code, ended.out, ended.err);
    for part in parts {
        assert!(dense(&ended.err).contains(&dense(part)), "{part:?} is not in:\n{}", ended.err);
    }
    assert!(ended.out.is_empty(), "{}", ended.out);
}

/// A folder with a small network and calibration images for it.
struct Place {
    dir: TempDir,
}

const SHAPE: [usize; 4] = [1, 3, 8, 8];

impl Place {
    fn new() -> Place {
        let dir = TempDir::new().unwrap();
        let place = Place { dir };
        fs::write(place.at("net.onnx"), model("tiny_plain")).unwrap();
        let values = Numbers::new(1).values(4 * 3 * 8 * 8, 1.5);
        write_npy(place.at("calib.npy"), &Array::from_shape_vec(IxDyn(&[4, 3, 8, 8]), values).unwrap()).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_string()
    }

    /// `compile` of the small network with its images into `out`, and further arguments.
    fn compile(&self, out: &str, more: &[&str]) -> Vec<String> {
        self.compile_with(&self.text("calib.npy"), out, more)
    }

    fn compile_with(&self, calib: &str, out: &str, more: &[&str]) -> Vec<String> {
        let mut args = vec!["compile".to_string(), self.text("net.onnx"), "-o".into(), self.text(out)];
        args.extend(["--calib".to_string(), calib.to_string()]);
        args.extend(more.iter().map(ToString::to_string));
        args
    }

    /// `compile` without calibration.
    fn bare(&self, more: &[&str]) -> Vec<String> {
        let mut args = vec!["compile".to_string(), self.text("net.onnx"), "-o".into(), self.text("out")];
        args.extend(more.iter().map(ToString::to_string));
        args
    }

    fn bytes(&self, out: &str, file: &str) -> Vec<u8> {
        fs::read(self.at(out).join(file)).unwrap()
    }

    fn inspect(&self, out: &str) -> Value {
        inspect(&self.at(out))
    }
}

fn model(name: &str) -> Vec<u8> {
    find(name).unwrap().build(&BuildOptions::default()).unwrap().encode_to_vec()
}

fn inspect(dir: &Path) -> Value {
    serde_json::from_str(&succeeds(&["inspect", dir.to_str().unwrap(), "--json"])).unwrap()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {value}"))
}

/// Every layer has what the report promises, and the layers add up to the totals.
fn check_report(report: &Value) {
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.len() > 3);
    for name in ["drelus", "setup_bytes", "offline_bytes", "online_bytes", "rounds"] {
        let sum: u64 = layers.iter().map(|l| number(l, name)).sum();
        assert_eq!(sum, number(&report["totals"], name), "{name}");
    }
    for l in layers {
        assert!(!l["name"].as_str().unwrap().is_empty() && !l["op"].as_str().unwrap().is_empty(), "{l}");
    }
    for phase in ["setup", "offline", "online"] {
        let p = &report["totals"]["phases"][phase];
        let bytes: u64 = ["client", "server", "dealer"].iter().map(|r| number(&p["bytes"], r)).sum();
        assert_eq!(bytes, number(&report["totals"], &format!("{phase}_bytes")), "{phase}");
        assert!(number(p, "messages") >= number(p, "rounds"), "{p}");
    }
    assert_eq!(report["totals"]["phases"]["online"]["rounds"], report["totals"]["rounds"]);
    assert_eq!(number(&report["totals"]["phases"]["online"]["bytes"], "dealer"), 0);
}

fn trained(name: &str) -> [String; 4] {
    let path = |p: &str| models_dir().join(p).to_str().unwrap().to_string();
    let calib = path("data/fmnist_calib.npz");
    ["compile".into(), path(&format!("trained/{name}.onnx")), "--calib".into(), calib]
}

fn with(start: &[String], out: &Path, more: &[&str]) -> Vec<String> {
    let mut args = start.to_vec();
    args.extend(["-o".to_string(), out.to_str().unwrap().to_string()]);
    args.extend(more.iter().map(ToString::to_string));
    args
}

#[test]
fn bundled_networks_compile() {
    let dir = TempDir::new().unwrap();
    let out = |name: &str| dir.path().join(name);
    for net in ["fmnist_resnet8", "fmnist_resnet20"] {
        let start = trained(net);
        let text = succeeds(&with(&start, &out(net), &["--budget", "100%"]));
        for part in ["DReLUs", "online", "bounds", "rest on calibration", "times the largest seen", "--margin"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        check_report(&inspect(&out(net)));
        let table = succeeds(&["inspect", out(net).to_str().unwrap()]);
        for part in ["layer", "op", "shape", "frac", "mod", "DReLUs", "setup B", "offline B", "online B", "rounds"] {
            assert!(table.contains(part), "{part} is not in {table}");
        }
    }
    let start = trained("fmnist_resnet8");
    let files = |name: &str| ["program.bcc", "weights.bcc", "plan.ron"].map(|f| fs::read(out(name).join(f)).unwrap());
    let drelus = |name: &str| number(&inspect(&out(name))["totals"], "drelus");
    // The same input, the same bytes; all ReLUs are kept by default.
    succeeds(&with(&start, &out("default"), &[]));
    assert_eq!(files("fmnist_resnet8"), files("default"));

    succeeds(&with(&start, &out("4x4"), &["--blocks", "4x4"]));
    check_report(&inspect(&out("4x4")));
    assert_eq!(drelus("default"), 16 * drelus("4x4") - remainder(&out("4x4")));
    succeeds(&with(&start, &out("identity"), &["--blocks", "identity"]));
    check_report(&inspect(&out("identity")));
    assert_eq!(drelus("identity"), 0);

    // The plan that a compilation wrote gives that compilation.
    let plan = out("4x4").join("plan.ron");
    for name in ["4x4", "identity"] {
        let (plan, again) = (out(name).join("plan.ron"), format!("{name}_again"));
        succeeds(&with(&start, &out(&again), &["--plan", plan.to_str().unwrap()]));
        assert_eq!(files(name), files(&again));
    }

    // An edited one: half of the first layer's channels without signs.
    let mut edited = Plan::load(&plan).unwrap();
    let (first, entries) = edited.layers.iter_mut().next().unwrap();
    let rows = inspect(&out("4x4"));
    let row = rows["layers"].as_array().unwrap().iter().find(|l| l["name"] == first.as_str()).unwrap();
    let (channels, before) = (row["shape"][1].as_u64().unwrap(), number(row, "drelus"));
    *entries = vec![format!("{}*4x4", channels / 2), format!("{}*identity", channels - channels / 2)];
    let path = out("edited.ron");
    fs::write(&path, edited.to_ron().unwrap()).unwrap();
    succeeds(&with(&start, &out("edited"), &["--plan", path.to_str().unwrap()]));
    assert_eq!(drelus("edited"), drelus("4x4") - before + before / channels * (channels / 2));
    assert_eq!(Plan::load(&out("edited").join("plan.ron")).unwrap(), edited);

    succeeds(&with(&start, &out("wide"), &["--ring", "40"]));
    assert_eq!((number(&inspect(&out("default")), "ring"), number(&inspect(&out("wide")), "ring")), (32, 40));
    succeeds(&with(&start, &out("window"), &["--drelu-window", "8"]));
    let online = |name: &str| number(&inspect(&out(name))["totals"], "online_bytes");
    assert!(online("window") < online("default") && online("4x4") < online("default"));
    assert!(online("default") < online("wide"));
}

/// By how much blocks that the map cuts off make 16 decisions of 4x4 more than one per pixel.
fn remainder(dir: &Path) -> u64 {
    let report = inspect(dir);
    let gates = report["layers"].as_array().unwrap().iter().filter(|l| number(l, "drelus") > 0);
    gates
        .map(|l| {
            let side = |i: usize| l["shape"].get(i).and_then(Value::as_u64).unwrap_or(1);
            side(1) * (side(2).div_ceil(4) * side(3).div_ceil(4) * 16 - side(2) * side(3))
        })
        .sum()
}

#[test]
fn json_of_compile_and_inspect() {
    let p = Place::new();
    let summary: Value = serde_json::from_str(&succeeds(&p.compile("out", &["--json"]))).unwrap();
    let report = p.inspect("out");
    check_report(&report);
    assert_eq!(summary["totals"], report["totals"]);
    assert_eq!(summary["ring"], report["ring"]);
    assert_eq!(summary["network"], report["network"]);
    for name in ["proven", "derived"] {
        number(&summary["bounds"], name);
    }
    for o in summary["bounds"]["observed"].as_array().unwrap() {
        assert!(o["bound"].as_f64().unwrap() > 0.0 && o["margin"] == 2.0 && o["node"].is_string(), "{o}");
    }
    // Without calibration nothing is observed.
    let proven: Value =
        serde_json::from_str(&succeeds(&p.bare(&["--input-bound", "1.5", "--frac", "8", "--json"]))).unwrap();
    assert!(proven["bounds"]["observed"].as_array().unwrap().is_empty());
    assert_eq!(number(&proven["bounds"], "derived"), 0);
    let listing = succeeds(&["inspect", &p.text("out"), "--listing"]);
    assert!(listing.contains("client") && listing.contains("dealer"), "{listing}");
}

#[test]
fn graphs_on_the_way() {
    let p = Place::new();
    let names: Vec<&str> = std::iter::once("import").chain(PASSES.iter().map(|p| p.name)).collect();
    let listed = succeeds(&["passes"]);
    for name in &names {
        assert!(*name == "import" || listed.lines().any(|l| l.starts_with(name)), "{listed}");
        let text = succeeds(&p.compile("out", &["--print-after", name]));
        assert!(text.starts_with(&format!("# after {name}\ngraph ")), "{text}");
        assert!(text.contains("  output %"), "{text}");
    }
    let two = succeeds(&p.compile("out", &["--print-after", "fold", "--print-after", "quantize"]));
    assert!(two.contains("# after fold\n") && two.contains("# after quantize\n"), "{two}");
    fails(&p.compile("out", &["--print-after", "lowering"]), &["--print-after lowering", "no such pass", "quantize"]);

    succeeds(&p.compile("out", &["--emit-ir-dir", &p.text("ir/deep")]));
    let mut files: Vec<String> =
        fs::read_dir(p.at("ir/deep")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let want: Vec<String> =
        names.iter().chain(&["program"]).enumerate().map(|(i, n)| format!("{i:02}-{n}.txt")).collect();
    assert_eq!(files, want);
    for f in &files {
        assert!(!fs::read_to_string(p.at("ir/deep").join(f)).unwrap().is_empty());
    }
    // What passed before a failure is there to look at.
    fails(&p.compile("out2", &["--ring", "16", "--emit-ir-dir", &p.text("failed")]), &["ring of 16"]);
    assert!(p.at("failed").join(want.iter().find(|f| f.contains("range")).unwrap()).exists());
    assert!(!p.at("out2").exists());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let p = Place::new();
    for (name, more) in [("a", vec![]), ("b", vec!["--blocks", "2x2"]), ("c", vec!["--drelu-window", "6"])] {
        let again = format!("{name}2");
        succeeds(&p.compile(name, &more));
        succeeds(&p.compile(&again, &more));
        for file in ["program.bcc", "weights.bcc", "plan.ron"] {
            assert_eq!(p.bytes(name, file), p.bytes(&again, file), "{file} with {more:?}");
        }
    }
    assert_ne!(p.bytes("a", "program.bcc"), p.bytes("b", "program.bcc"));
    // Over an older compilation.
    succeeds(&p.compile("a", &["--blocks", "2x2"]));
    assert_eq!(p.bytes("a", "program.bcc"), p.bytes("b", "program.bcc"));
}

#[test]
fn models_that_are_none() {
    let p = Place::new();
    let args = |file: &str| {
        let mut args = p.compile("out", &[]);
        args[1] = p.text(file);
        args
    };
    fails(&args("nowhere.onnx"), &["nowhere.onnx", "cannot be read", "check the path"]);
    fs::create_dir(p.at("folder.onnx")).unwrap();
    fails(&args("folder.onnx"), &["folder.onnx"]);
    for (name, bytes) in
        [("empty.onnx", &b""[..]), ("text.onnx", b"no protobuf at all"), ("zip.onnx", b"PK\x03\x04\0\0")]
    {
        fs::write(p.at(name), bytes).unwrap();
        fails(&args(name), &[name]);
    }
    fails(&["compile"], &["<MODEL>"]);
    fails(&["frobnicate"], &["frobnicate"]);
    assert!(!p.at("out").exists());
}

#[test]
fn damaged_models() {
    let p = Place::new();
    let bytes = model("tiny_residual");
    let values = Numbers::new(2).values(2 * 3 * 9 * 9, 1.5);
    write_npy(p.at("calib9.npy"), &Array::from_shape_vec(IxDyn(&[2, 3, 9, 9]), values).unwrap()).unwrap();
    let mut args = p.compile_with(&p.text("calib9.npy"), "out", &[]);
    args[1] = p.text("damaged.onnx");
    let mut numbers = Numbers::new(0xda);
    let mut refused = 0;
    let mut check = |bytes: &[u8]| {
        fs::write(p.at("damaged.onnx"), bytes).unwrap();
        let ended = bcc(&args);
        assert!(matches!(ended.code, Some(0 | 1)), "{:?} {}", ended.code, ended.err);
        if ended.code == Some(1) {
            refused += 1;
            assert!(ended.err.contains('×'), "{}", ended.err);
        }
        ended.code == Some(0)
    };
    assert!(check(&bytes));
    for cut in (0..bytes.len()).step_by(bytes.len() / 50) {
        assert!(!check(&bytes[..cut]), "cut at {cut}");
    }
    for round in 0..200 {
        let mut flipped = bytes.clone();
        // Structure is at the front of a file as well as between its weights.
        let range = if round % 2 == 0 { 2000.min(bytes.len()) } else { bytes.len() };
        for _ in 0..numbers.between(1, 3) {
            flipped[numbers.below(range)] ^= 1 << numbers.below(8);
        }
        check(&flipped);
    }
    assert!(refused > 100, "{refused}");
}

/// All of a file's problems in one go.
#[test]
fn unsupported_operators() {
    let p = Place::new();
    let mut file = find("tiny_residual").unwrap().build(&BuildOptions::default()).unwrap();
    let nodes = &mut file.graph.as_mut().unwrap().node;
    let relus: Vec<usize> = (0..nodes.len()).filter(|i| nodes[*i].op_type == "Relu").collect();
    let (first, last) = (relus[0], relus[relus.len() - 1]);
    nodes[first].op_type = "Erf".into();
    nodes[last].op_type = "LSTM".into();
    let names = [nodes[first].name.clone(), nodes[last].name.clone()];
    fs::write(p.at("net.onnx"), file.encode_to_vec()).unwrap();
    fails(&p.compile("out", &[]), &["Erf", "LSTM", &names[0], &names[1]]);
}

fn npz<A: WritableElement>(path: &Path, arrays: &[(&str, ArrayD<A>)]) {
    let mut npz = NpzWriter::new(fs::File::create(path).unwrap());
    for (name, array) in arrays {
        npz.add_array(*name, array).unwrap();
    }
    npz.finish().unwrap();
}

#[test]
fn calibration_in_every_form() {
    let p = Place::new();
    let values = Numbers::new(1).values(4 * 3 * 8 * 8, 1.5);
    let single = Array::from_shape_vec(IxDyn(&[4, 3, 8, 8]), values).unwrap();
    succeeds(&p.compile("want", &[]));
    npz(&p.at("a.npz"), &[("x", single.clone())]);
    npz(&p.at("b.npz"), &[("x", single.mapv(f64::from))]);
    write_npy(p.at("c.npy"), &single.mapv(f64::from)).unwrap();
    for file in ["a.npz", "b.npz", "c.npy"] {
        succeeds(&p.compile_with(&p.text(file), "out", &[]));
        assert_eq!(p.bytes("out", "program.bcc"), p.bytes("want", "program.bcc"), "{file}");
    }
    // One image without the first axis.
    write_npy(p.at("one.npy"), &single.index_axis(ndarray::Axis(0), 0).to_owned()).unwrap();
    succeeds(&p.compile_with(&p.text("one.npy"), "out", &[]));
}

#[test]
fn calibration_that_does_not_fit() {
    let p = Place::new();
    let check = |file: &str, parts: &[&str]| fails(&p.compile_with(&p.text(file), "out", &[]), parts);
    let write = |name: &str, shape: &[usize]| {
        write_npy(p.at(name), &ArrayD::<f32>::zeros(IxDyn(shape))).unwrap();
    };
    for (i, shape) in [&[4, 3, 9, 8][..], &[4, 8, 8, 3], &[4, 192], &[192], &[], &[1, 4, 3, 8, 8]].iter().enumerate() {
        let name = format!("shape{i}.npy");
        write(&name, shape);
        check(&name, &[&name, &format!("{shape:?}"), &format!("{SHAPE:?}"), "first axis counts images"]);
    }
    write("none.npy", &[0, 3, 8, 8]);
    check("none.npy", &["none.npy", "[0, 3, 8, 8]"]);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut images = ArrayD::<f32>::zeros(IxDyn(&[2, 3, 8, 8]));
        images[[1, 0, 0, 5]] = bad;
        write_npy(p.at("bad.npy"), &images).unwrap();
        check("bad.npy", &["image 1", "not finite", "element 5"]);
    }
    check("missing.npz", &["missing.npz", "cannot read"]);
    check("missing.npy", &["missing.npy", "cannot read"]);
    for name in ["text.npz", "text.npy", "text.txt"] {
        fs::write(p.at(name), "not an array").unwrap();
        check(name, &[name, "holds no images", "32- or 64-bit floats"]);
    }
    for name in ["empty.npz", "empty.npy"] {
        fs::write(p.at(name), "").unwrap();
        check(name, &[name, "holds no images"]);
    }
    npz::<f32>(&p.at("no_arrays.npz"), &[]);
    check("no_arrays.npz", &["no_arrays.npz", "array \"x\""]);
    npz(&p.at("other.npz"), &[("images", ArrayD::<f32>::zeros(IxDyn(&[2, 3, 8, 8])))]);
    check("other.npz", &["other.npz", "images", "array \"x\""]);
    npz(&p.at("bytes.npz"), &[("x", ArrayD::<u8>::zeros(IxDyn(&[2, 3, 8, 8])))]);
    check("bytes.npz", &["bytes.npz", "32- or 64-bit floats"]);
    write_npy(p.at("bytes.npy"), &ArrayD::<i64>::zeros(IxDyn(&[2, 3, 8, 8]))).unwrap();
    check("bytes.npy", &["bytes.npy", "32- or 64-bit floats"]);
    fs::create_dir(p.at("folder.npz")).unwrap();
    check("folder.npz", &["folder.npz"]);
    let whole = fs::read(p.at("calib.npy")).unwrap();
    for cut in [1, 9, 60, 128, whole.len() - 1] {
        fs::write(p.at("cut.npy"), &whole[..cut]).unwrap();
        check("cut.npy", &["cut.npy", "holds no images"]);
    }
    npz(&p.at("cut.npz"), &[("x", ArrayD::<f32>::ones(IxDyn(&[2, 3, 8, 8])))]);
    let whole = fs::read(p.at("cut.npz")).unwrap();
    for cut in [10, whole.len() / 2, whole.len() - 5] {
        fs::write(p.at("cut.npz"), &whole[..cut]).unwrap();
        check("cut.npz", &["cut.npz", "holds no images"]);
    }
    fails(&p.bare(&[]), &["range of the input is not known", "--calib", "--input-bound"]);
    assert!(!p.at("out").exists());
}

#[test]
fn budgets() {
    let p = Place::new();
    for budget in ["0", "0%", "100", "101%", "-5%", "-1", "all", "%", "NaN%", "inf%", "1e400%", ""] {
        fails(&p.compile("out", &["--budget", budget]), &["--budget", "(6%)", "40MB online"]);
    }
    succeeds(&p.compile("out", &["--budget", "100 %"]));
    fails(&p.compile("x", &["--budget", "100%", "--blocks", "2x2"]), &["--budget", "--blocks"]);
    fails(&p.compile("x", &["--blocks", "2x2", "--plan", "p.ron"]), &["--blocks", "--plan"]);
    succeeds(&p.compile("small", &["--budget", "30%"]));
    let (kept, small) = (p.inspect("out"), p.inspect("small"));
    assert!(number(&small["totals"], "drelus") * 10 <= number(&kept["totals"], "drelus") * 3);
}

#[test]
fn block_sizes() {
    let p = Place::new();
    for good in ["1x1", "1x8", "100x3", " 2 x 2 ", "keep", "zero", "identity", "1048576x1"] {
        succeeds(&p.compile("out", &["--blocks", good]));
    }
    let bad =
        ["0x4", "4x0", "4", "-1x2", "2x-1", "4x4x4", "x", "", "2.5x2", "all", "1048577x1", "99999999999999999999x1"];
    for blocks in bad {
        let quoted = format!("\"{blocks}\" is no block");
        fails(&p.compile("x", &["--blocks", blocks]), &["--blocks", &quoted, "such as 4x4", "identity"]);
    }
    assert!(!p.at("x").exists());
}

#[test]
fn plans_that_do_not_fit() {
    let p = Place::new();
    succeeds(&p.compile("out", &[]));
    let plan = Plan::load(&p.at("out").join("plan.ron")).unwrap();
    let first = plan.layers.keys().next().unwrap().clone();
    let check = |text: &str, parts: &[&str]| {
        fs::write(p.at("plan.ron"), text).unwrap();
        fails(&p.compile("x", &["--plan", &p.text("plan.ron")]), parts);
    };
    let layer = |name: &str, entries: &str| format!("Plan(layers: {{\"{name}\": [{entries}]}})");
    check(&layer("nowhere", "\"4x4\""), &["\"nowhere\"", "no ReLU of this network", &first]);
    check(&layer("conv1", "\"4x4\""), &["\"conv1\"", "no ReLU of this network", &first]);
    for (entries, reason) in [
        ("\"3*2x2\"", "3 of its"),
        ("\"999*2x2\"", "more than its"),
        ("\"18446744073709551615*2x2\", \"2*2x2\"", "more than its"),
        ("\"2x2\", \"zero\"", "2 of its"),
        ("", "0 of its"),
        ("\"2y2\"", "\"2y2\" is no block"),
        ("\"4*0x2\"", "\"0x2\" is no block"),
        ("\"many*2x2\"", "\"many\" in \"many*2x2\" is no count"),
        ("\"-4*2x2\"", "is no count"),
    ] {
        check(&layer(&first, entries), &[&format!("\"{first}\""), reason]);
    }
    for text in ["", "Plan(", "Plan(layers: 3)", "[1, 2]", "Plan(layers: {}, colour: \"red\")", "Plan()", "\u{0}\u{1}"]
    {
        check(text, &["plan.ron", "is no plan"]);
    }
    fails(&p.compile("x", &["--plan", &p.text("none.ron")]), &["none.ron", "cannot read the plan"]);
    fails(&p.compile("x", &["--plan", &p.text("out")]), &["cannot read the plan"]);
    fs::write(p.at("binary.ron"), [0xff, 0xfe, 0x80]).unwrap();
    fails(&p.compile("x", &["--plan", &p.text("binary.ron")]), &["binary.ron", "cannot read the plan"]);
    // A plan may name some layers only.
    fs::write(p.at("plan.ron"), layer(&first, "\"identity\"")).unwrap();
    succeeds(&p.compile("some", &["--plan", &p.text("plan.ron")]));
    assert!(!p.at("x").exists());
}

#[test]
fn numbers_out_of_range() {
    let p = Place::new();
    for margin in ["0.5", "0", "-1", "NaN", "inf", "-inf"] {
        fails(&p.compile("x", &[&format!("--margin={margin}")]), &["--margin", "1 or more"]);
    }
    fails(&p.compile("x", &["--margin", "-1"]), &["--margin -1", "1 or more"]);
    fails(&p.compile("x", &["--margin", "much"]), &["--margin", "much"]);
    for bound in ["0", "-0", "-1", "NaN", "inf", "-inf"] {
        fails(&p.bare(&[&format!("--input-bound={bound}")]), &["--input-bound", "above 0"]);
        fails(&p.compile("x", &[&format!("--input-bound={bound}")]), &["--input-bound", "above 0"]);
    }
    fails(&p.bare(&["--input-bound", "-1"]), &["--input-bound -1", "above 0"]);
    for ring in ["33", "72", "8", "0", "17", "255"] {
        fails(&p.compile("x", &["--ring", ring]), &[&format!("--ring {ring}"), "multiple of 8 from 16 to 64"]);
    }
    for ring in ["-8", "300", "wide", "32.0"] {
        fails(&p.compile("x", &[&format!("--ring={ring}")]), &["--ring"]);
    }
    fails(&p.compile("x", &["--ring", "16"]), &["node \"", "bits", "ring of 16", "wider ring", "--frac"]);
    for (frac, weight) in [("0", "12"), ("12", "0"), ("25", "12"), ("12", "25")] {
        let what = format!("{frac} fraction bits for values and {weight} for weights");
        fails(&p.compile("x", &["--frac", frac, "--weight-frac", weight]), &[&what, "from 1 to 24"]);
    }
    for window in ["0", "1"] {
        fails(&p.compile("x", &["--drelu-window", window]), &["--drelu-window", "2 or more"]);
    }
    fails(&p.compile("x", &["--output-name", "no such value"]), &["no such value"]);
    assert!(!p.at("x").exists() && !p.at("out").exists());
    for good in ["--drelu-window=2", "--drelu-window=255", "--ring=64", "--margin=1", "--input-bound=1.5"] {
        succeeds(&p.compile("good", &[good]));
    }
}

#[test]
fn directories_that_cannot_be_written() {
    let p = Place::new();
    fs::write(p.at("file"), "in the way").unwrap();
    fails(&p.compile("file", &[]), &["cannot create", "file"]);
    fails(&p.compile("file/deeper", &[]), &["cannot create", "file/deeper"]);
    fails(&p.compile("out", &["--emit-ir-dir", &p.text("file/ir")]), &["cannot create", "file/ir"]);
    // A folder where a file should go.
    for name in ["program.bcc", "weights.bcc", "plan.ron"] {
        let out = format!("with_{name}");
        fs::create_dir_all(p.at(&out).join(name)).unwrap();
        fails(&p.compile(&out, &[]), &["cannot write", name]);
    }
    fs::create_dir_all(p.at("ir").join("02-canonicalize.txt")).unwrap();
    fails(&p.compile("out", &["--emit-ir-dir", &p.text("ir")]), &["cannot write", "02-canonicalize.txt"]);
}

#[test]
fn inspecting_what_is_no_program() {
    let p = Place::new();
    succeeds(&p.compile("out", &[]));
    let inspected = |dir: &str, parts: &[&str]| {
        for more in [&[][..], &["--json"], &["--listing"]] {
            let mut args = vec!["inspect".to_string(), p.text(dir)];
            args.extend(more.iter().map(ToString::to_string));
            fails(&args, parts);
        }
    };
    inspected("nowhere", &["cannot read", "nowhere/program.bcc"]);
    fs::create_dir(p.at("empty")).unwrap();
    inspected("empty", &["cannot read", "empty/program.bcc"]);
    inspected("net.onnx", &["cannot read", "net.onnx"]);
    fs::create_dir(p.at("damaged")).unwrap();
    let place = p.at("damaged").join("program.bcc");
    let good = p.bytes("out", "program.bcc");
    for foreign in [model("tiny_plain"), b"a text".to_vec(), Vec::new(), p.bytes("out", "weights.bcc")] {
        fs::write(&place, foreign).unwrap();
        inspected("damaged", &["program.bcc", "compile the model again"]);
    }
    for cut in [1, 20, 64, good.len() / 2, good.len() - 1] {
        fs::write(&place, &good[..cut]).unwrap();
        fails(&["inspect", &p.text("damaged")], &["program.bcc", "compile the model again"]);
    }
    let mut numbers = Numbers::new(4);
    for _ in 0..60 {
        let mut flipped = good.clone();
        flipped[numbers.below(good.len())] ^= 1 << numbers.below(8);
        fs::write(&place, &flipped).unwrap();
        fails(&["inspect", &p.text("damaged")], &["program.bcc"]);
    }
    fs::write(&place, &good).unwrap();
    assert_eq!(p.inspect("damaged"), p.inspect("out"));
    fails(&["inspect", &p.text("out"), "--json", "--listing"], &["--json", "--listing"]);
}
