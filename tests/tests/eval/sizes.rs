//! One network at several sizes, with one plan.

use bcc_tests::random::Numbers;
use ndarray::{Array, IxDyn};
use prost::Message;

use super::common::{Place, model};

#[test]
fn a_plan_of_another_size() {
    let p = Place::new();
    let net = model("trained/fmnist_resnet8.onnx");
    let images = |name: &str, h: usize, w: usize| {
        let x = Numbers::new(4).values(6 * h * w, 1.0);
        let array = Array::from_shape_vec(IxDyn(&[6, 1, h, w]), x).unwrap();
        ndarray_npy::write_npy(p.at(name), &array).unwrap();
    };
    images("square.npy", 28, 28);
    images("wide.npy", 20, 36);
    p.bcc(&format!("compile {net} --calib square.npy --blocks 7x7 -o square"));
    let compile = format!("compile {net} --input-shape 1x1x20x36 --plan square/plan.ron -o wide");
    let ended = p.run("bcc", &format!("{compile} --calib wide.npy --json"));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    // The last maps are 5x9: blocks of 7x7 are cut off in all three layers on them.
    assert!(ended.err.contains("larger than their maps") && ended.err.contains("maps of 5x9"), "{}", ended.err);
    assert_eq!(std::fs::read(p.at("square/plan.ron")).unwrap(), std::fs::read(p.at("wide/plan.ron")).unwrap());
    let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    // 16 channels at 20x36, 32 at 10x18, 64 at 5x9, in 3, 2 and 2 layers.
    assert_eq!(json["totals"]["drelus"], 3 * 16 * 3 * 6 + 2 * 32 * 2 * 3 + 2 * 64 * 2);
    let eval = p.json("eval wide --data wide.npy --secure 2 --layers 2 --json");
    assert_eq!(eval["secure"]["images"], 2);
    assert!(eval["secure"]["error"]["largest"].as_f64().unwrap() < 0.5, "{eval}");

    p.fails(&format!("{compile} --calib square.npy"), &["[6, 1, 28, 28]", "[1, 1, 20, 36]"]);
    let check = |shape: &str, parts: &[&str]| p.fails(&format!("compile {net} --input-shape {shape} -o x"), parts);
    check("1x3x20x36", &["contradicts the file", "all but height and width"]);
    check("2x1x20x36", &["a batch of 1"]);
    check("1x1x0x36", &["--input-shape \"1x1x0x36\"", "such as 1x3x480x640"]);
    check("large", &["--input-shape \"large\""]);
}

/// Averages are compared divided, as are the sums of windows that lie in the padding.
#[test]
fn every_layer_of_a_network_with_pools_is_close() {
    let p = Place::new();
    let net = bcc_models::nets::NETS.iter().find(|n| n.name == "tiny_pools").unwrap();
    p.write("net.onnx", net.build(&bcc_models::nets::BuildOptions::default()).unwrap().encode_to_vec());
    let [c, h, w] = net.input;
    let x = Array::from_shape_vec(IxDyn(&[4, c, h, w]), Numbers::new(3).values(4 * c * h * w, 1.0)).unwrap();
    ndarray_npy::write_npy(p.at("x.npy"), &x).unwrap();
    p.bcc("compile net.onnx --calib x.npy -o out");
    let json = p.json("eval out --data x.npy --secure 0 --layers 4 --json");
    let layers = json["layers"]["layers"].as_array().unwrap();
    assert!(layers.iter().any(|l| l["op"] == "avg_pool"), "{json}");
    for l in layers {
        let of = |name: &str| l[name].as_f64().unwrap();
        assert!(of("mean") < 0.002 * of("range") && of("largest") < 0.02 * of("range"), "{l}");
    }
}
