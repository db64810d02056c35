//! `bcc check`.

use bcc_models::nets::{BuildOptions, find};
use bcc_models::onnx::{Conv, Dim, GraphBuilder, attr};
use prost::Message;

use super::common::Place;

/// A network with problems of several kinds.
fn troubled() -> Vec<u8> {
    let mut g = GraphBuilder::new("troubled", 13);
    let x = g.input("x", &[Dim::from("N"), 3.into(), 8.into(), 8.into()]);
    let w = g.f32("w", &[4, 3, 3, 3], vec![0.1; 108]);
    let c = g.conv("conv", &x, &w, None, &Conv::square(3, 1, 1));
    let h = g.node("Tanh", "squash", &[&c], vec![]);
    let v = g.f32("v", &[4, 5, 1, 1], vec![0.1; 20]);
    let d = g.conv("narrow", &h, &v, None, &Conv::square(1, 1, 0));
    let l = g.node("GRU", "memory", &[&d], vec![]);
    let y = g.node("MaxPool", "pool", &[&h], vec![attr::ints("kernel_shape", &[2, 2]), attr::int("odd", 1)]);
    let z = g.add("sum", &l, &y);
    g.output(&z, "y", &[Dim::from("N"), 4.into(), 7.into(), 7.into()]);
    g.finish().unwrap().encode_to_vec()
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("../snapshots");
    settings
}

#[test]
fn all_problems() {
    let p = Place::new();
    p.write("troubled.onnx", troubled());
    let ended = p.run("bcc", "check troubled.onnx");
    assert_eq!((ended.code, ended.err.as_str()), (Some(1), ""));
    settings().bind(|| insta::assert_snapshot!("check_problems", ended.out));
    let ended = p.run("bcc", "check troubled.onnx --json");
    assert_eq!((ended.code, ended.err.as_str()), (Some(1), ""));
    settings().bind(|| insta::assert_snapshot!("check_problems_json", ended.out));
    let ended = p.run("bcc", "check none.onnx");
    assert!(ended.code == Some(1) && ended.out.contains("cannot be read: none.onnx"), "{}", ended.out);
    assert!(!p.at("out").exists());
}

#[test]
fn what_is_covered() {
    let p = Place::new();
    for name in ["tiny_plain", "tiny_pools"] {
        p.write("net.onnx", find(name).unwrap().build(&BuildOptions::default()).unwrap().encode_to_vec());
        settings().bind(|| insta::assert_snapshot!(format!("check_{name}"), p.bcc("check net.onnx")));
    }
    let json = p.json("check net.onnx --json");
    let names = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&json), ["covered", "network", "problems"]);
    let of_network = ["input", "operators", "output", "parameters", "pool_drelus", "relu_layers", "relus"];
    assert_eq!(names(&json["network"]), of_network);
    // Its last pool is of the declared size, and the matrix behind it does not follow.
    let ended = p.run("bcc", "check net.onnx --input-shape 1x3x32x24");
    assert!(ended.code == Some(1) && ended.out.contains("this node does not follow"), "{}", ended.out);
}
