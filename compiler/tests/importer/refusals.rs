//! What is refused, and how the message reads.

use bcc_compiler::onnx::{ImportOptions, Problem, Site, import, import_bytes};
use tract_onnx::pb::{StringStringEntryProto, TensorProto};

use super::writer::{Model, Rng, float, int, ints, reals, string};

/// The message of a model of one node on `x` of shape [1, 2, 6, 6].
fn of_node(op: &str, attributes: Vec<tract_onnx::pb::AttributeProto>) -> String {
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node(op, "y", &["x"], attributes);
    m.refusal()
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn operators() {
    says(&of_node("Elu", vec![]), &["node `n_y` (Elu)", "not supported", "Relu in its place"]);
    says(&of_node("Frobnicate", vec![]), &["operator Frobnicate is not supported", "replace it"]);
    says(&of_node("LogSoftmax", vec![]), &["LogSoftmax", "Softmax, or in the logits"]);
    says(&of_node("Gather", vec![int("axis", 1)]), &["Gather", "constants only"]);
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node("Relu", "y", &["x"], vec![]);
    m.graph().node[0].domain = "com.microsoft".into();
    says(&m.refusal(), &["domain `com.microsoft`", "standard ONNX operators"]);
    let mut m = Model::new(13, &[1, 2]);
    m.node("Mul", "y", &["x", "x"], vec![]);
    says(&m.refusal(), &["Mul of two tensors", "without gates"]);
}

#[test]
fn attributes() {
    let pool = |mut more: Vec<_>| {
        more.push(ints("kernel_shape", &[2, 2]));
        of_node("MaxPool", more)
    };
    says(&pool(vec![ints("pads", &[-1, 0, 0, 0])]), &["`pads` holds -1", "crop"]);
    says(&pool(vec![ints("strides", &[0, 1])]), &["`strides` holds 0, below 1"]);
    says(&pool(vec![ints("strides", &[1])]), &["1 values", "two-dimensional"]);
    says(&pool(vec![ints("pads", &[9, 9, 9, 9])]), &["padding altogether"]);
    says(&pool(vec![string("auto_pad", "SOMEHOW")]), &["`auto_pad` is `SOMEHOW`"]);
    says(&pool(vec![float("strides", 1.0)]), &["`strides` is not of type INTS"]);
    says(&pool(vec![int("frobs", 1)]), &["`frobs` is not known"]);
    says(&pool(vec![ints("dilations", &[9, 9])]), &["does not fit a 6x6 map"]);
    says(&of_node("MaxPool", vec![]), &["`kernel_shape` is missing"]);
    says(&of_node("Pad", vec![ints("pads", &[0, 0, -1, 0, 0, 0, 0, 0])]), &["padding of -1"]);
    says(&of_node("Pad", vec![ints("pads", &[1, 0, 0, 0, 0, 0, 0, 0])]), &["pads the batch axis"]);
    says(&of_node("Pad", vec![ints("pads", &[0; 8]), string("mode", "mirror")]), &["`mode` is `mirror`", "edge"]);
    says(&of_node("Softmax", vec![int("axis", 7)]), &["`axis` is 7"]);
    says(&of_node("Transpose", vec![ints("perm", &[0, 0, 1, 2])]), &["no permutation"]);
    says(&of_node("Conv", vec![]), &["operand 1 (W) is missing"]);
    says(&of_node("Reshape", vec![]), &["operand 1 (shape) is missing"]);
    says(&of_node("Cast", vec![int("to", 7)]), &["`to` is 7"]);
    says(&of_node("ReduceMean", vec![ints("axes", &[1])]), &["mean over axes [1]", "height and width"]);
}

/// A convolution whose weights are `weight`.
fn with_weight(weight: TensorProto) -> String {
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.graph().initializer.push(weight);
    m.node("Conv", "y", &["x", "w"], vec![]);
    m.refusal()
}

#[test]
fn weights() {
    let good = reals("w", &[1, 2, 1, 1], &[1.0, 2.0]);
    let with = |change: fn(&mut TensorProto)| {
        let mut t = good.clone();
        change(&mut t);
        with_weight(t)
    };
    says(&with(|t| t.float_data[1] = f32::NAN), &["`n_y` (Conv)", "`w` holds NaN at element 1", "train"]);
    says(&with(|t| t.float_data[0] = f32::INFINITY), &["`w` holds inf at element 0"]);
    says(&with(|t| t.float_data.truncate(1)), &["`w` of shape [1, 2, 1, 1] needs 2 elements and holds 1"]);
    says(&with(|t| t.raw_data = vec![0; 7]), &["needs 8 bytes of data and holds 7"]);
    says(&with(|t| t.dims[0] = -4), &["impossible shape"]);
    says(&with(|t| t.dims[0] = i64::MAX), &["larger than any network"]);
    says(&with(|t| t.dims = vec![2]), &["two-dimensional"]);
    says(&with(|t| t.data_type = 8), &["element type STRING"]);
    says(&with(|t| t.dims = vec![1, 2, 2, 1]), &["needs 4 elements"]);
    let external = |t: &mut TensorProto| {
        t.data_location = Some(1);
        t.external_data = vec![StringStringEntryProto { key: "location".into(), value: "w.bin".into() }];
    };
    says(&with(external), &["`w` is kept outside", "`w.bin`", "one file"]);
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node("Relu", "r", &["x"], vec![]);
    m.node("Conv", "y", &["x", "r"], vec![]);
    says(&m.refusal(), &["operand 1 (W) is computed from the network's input"]);
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node("Conv", "y", &["x", "nowhere"], vec![]);
    says(&m.refusal(), &["nothing computes the value `nowhere`"]);
}

#[test]
fn batch_norm() {
    let norm = |var: f32, attributes| {
        let mut m = Model::new(14, &[1, 1, 2, 2]);
        for name in ["s", "b", "m"] {
            m.weight(name, &[1], &[1.0]);
        }
        m.weight("v", &[1], &[var]);
        m.node("BatchNormalization", "y", &["x", "s", "b", "m", "v"], attributes);
        m.refusal()
    };
    says(&norm(-1.0, vec![]), &["variance of channel 0 is -1"]);
    says(&norm(1.0, vec![int("training_mode", 1)]), &["`training_mode` is 1", "inference mode"]);
}

#[test]
fn structure() {
    let mut m = Model::new(13, &[1, 2]);
    m.node("Add", "a", &["x", "b"], vec![]);
    m.node("Relu", "b", &["a"], vec![]);
    says(&m.refusal(), &["cycle: n_a, n_b"]);

    let mut m = Model::new(13, &[1, 2]);
    m.node("Relu", "a", &["x"], vec![]);
    m.node("Relu", "a", &["x"], vec![]);
    says(&m.refusal(), &["value `a` is computed twice"]);

    for opset in [6, 99] {
        let mut m = Model::new(opset, &[1, 2]);
        m.node("Relu", "a", &["x"], vec![]);
        says(&m.refusal(), &[&format!("opset {opset}"), "from 7 to 21"]);
    }
    let mut m = Model::new(13, &[1, 2]);
    m.node("Relu", "a", &["x"], vec![]);
    m.proto.opset_import.clear();
    says(&m.refusal(), &["does not declare an ONNX opset"]);

    let mut m = Model::new(13, &[1, 2]);
    let mut second = m.graph().input[0].clone();
    second.name = "z".into();
    m.graph().input.push(second);
    m.node("Add", "y", &["x", "z"], vec![]);
    says(&m.refusal(), &["has 2 data inputs: x, z"]);

    let mut m = Model::new(13, &[1, 2]);
    m.weight("w", &[1], &[1.0]);
    m.node("Identity", "y", &["w"], vec![]);
    says(&m.refusal(), &["no data input reaches the output"]);

    let mut m = Model::new(10, &[1, 2]);
    m.node("Dropout", "d", &["x"], vec![]);
    m.graph().node[0].output.push("mask".into());
    m.node("Relu", "y", &["mask"], vec![]);
    says(&m.refusal(), &["reads output 1 of node `n_d`"]);

    let mut m = Model::new(13, &[1, 2]);
    m.node("Softmax", "s", &["x"], vec![]);
    m.node("Relu", "y", &["s"], vec![]);
    says(&m.refusal(), &["`n_y` (Relu)", "softmax `n_s`", "--output"]);
}

#[test]
fn inputs() {
    let mut m = Model::new(13, &[-1, 3, -2, -3]);
    m.node("Relu", "y", &["x"], vec![]);
    says(&m.refusal(), &["input `x`: has shape [?, 3, ?, ?]", "--input-shape"]);
    let given = |shape: Vec<usize>| ImportOptions { input_shape: Some(shape), ..Default::default() };
    let bytes = m.bytes();
    let graph = import_bytes(&bytes, &given(vec![1, 3, 8, 9])).unwrap();
    assert_eq!(graph.node(graph.output().unwrap()).shape, [1, 3, 8, 9]);
    says(&import_bytes(&bytes, &given(vec![1, 4, 8, 9])).unwrap_err().to_string(), &["contradicts the file"]);
    let mut m = Model::new(13, &[1, 3, 8]);
    m.node("Relu", "y", &["x"], vec![]);
    says(&m.refusal(), &["has shape [1, 3, 8]", "an image [batch, channels, height, width]"]);
    let mut m = Model::new(13, &[1, 3, 1 << 40, 1 << 40]);
    m.node("Relu", "y", &["x"], vec![]);
    says(&m.refusal(), &["larger than any network"]);
}

#[test]
fn outputs() {
    let mut m = Model::new(13, &[1, 2, 4, 4]);
    m.node("Relu", "a", &["x"], vec![]);
    m.node("GlobalAveragePool", "b", &["a"], vec![]);
    m.bytes();
    let mut second = m.graph().output[0].clone();
    second.name = "a".into();
    m.graph().output.push(second);
    says(&m.refusal(), &["has 2 outputs: b, a", "--output-name NAME"]);
    let chosen = |name: &str| ImportOptions { output: Some(name.into()), ..Default::default() };
    let bytes = m.bytes();
    assert_eq!(import_bytes(&bytes, &chosen("a")).unwrap().len(), 2);
    says(&import_bytes(&bytes, &chosen("q")).unwrap_err().to_string(), &["nothing computes the value `q`", "b, a"]);
}

#[test]
fn all_problems_at_once() {
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node("Sigmoid", "a", &["x"], vec![]);
    m.random(&mut Rng(1), "w", &[1, 5, 1, 1]);
    m.node("Conv", "b", &["a", "w"], vec![]);
    m.node("Relu", "c", &["b"], vec![]);
    m.node("ConvTranspose", "d", &["c"], vec![]);
    m.node("HardSwish", "e", &["a"], vec![]);
    m.node("Add", "y", &["d", "e"], vec![]);
    let errors = m.import().unwrap_err();
    let sites: Vec<String> = errors.0.iter().map(|e| e.site.to_string()).collect();
    assert_eq!(
        sites,
        ["node `n_a` (Sigmoid)", "node `n_b` (Conv)", "node `n_d` (ConvTranspose)", "node `n_e` (HardSwish)"]
    );
    says(&errors.to_string(), &["4 problems\n  1. node `n_a`", "\n  4. "]);
    assert!(matches!(errors.0[0].problem, Problem::Operator(_)));
    assert!(matches!(&errors.0[0].site, Site::Node { name, .. } if name == "n_a"));
}

#[test]
fn no_model_at_all() {
    let of = |bytes: &[u8]| import_bytes(bytes, &ImportOptions::default()).unwrap_err().to_string();
    says(&of(b""), &["it is empty"]);
    says(&of(b"PK\x03\x04 this is a zip file"), &["file: is not a complete ONNX model"]);
    says(&of(&[8, 7]), &["it holds no graph"]);
    let missing = import(std::path::Path::new("no/such.onnx"), &ImportOptions::default()).unwrap_err();
    says(&missing.to_string(), &["cannot be read: no/such.onnx"]);
}
