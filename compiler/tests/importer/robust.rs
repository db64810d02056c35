//! Files as exporters and people leave them: weights elsewhere, shape arithmetic, layouts, names, sizes.

use bcc_compiler::onnx::{ImportOptions, import, import_bytes};
use tract_onnx::pb::{StringStringEntryProto, TensorProto, ValueInfoProto};

use super::writer::{Model, Rng, assert_close, evaluate, float, int, ints, longs, reals, string, tensor};

fn entry(key: &str, value: impl ToString) -> StringStringEntryProto {
    StringStringEntryProto { key: key.into(), value: value.to_string() }
}

/// Moves a tensor's floats to the end of `file`.
fn outside(t: &mut TensorProto, file: &mut Vec<u8>, location: &str) {
    let offset = file.len();
    file.extend(t.float_data.drain(..).flat_map(f32::to_le_bytes));
    t.data_location = Some(1);
    t.external_data = vec![entry("location", location), entry("offset", offset), entry("length", file.len() - offset)];
}

/// A convolution with weights as an initializer and as a Constant node.
fn two_weights(rng: &mut Rng) -> Model {
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.random(rng, "w", &[3, 2, 3, 3]);
    let bias = rng.floats(3);
    m.node("Constant", "b", &[], vec![tensor("value", reals("", &[3], &bias))]);
    m.node("Conv", "c", &["x", "w", "b"], vec![]);
    m.node("Relu", "y", &["c"], vec![]);
    m
}

#[test]
fn external_data() {
    let mut rng = Rng(31);
    let mut m = two_weights(&mut rng);
    let input = rng.floats(72);
    let want = evaluate(&m.import().unwrap(), &input);
    let mut file = vec![7; 16];
    outside(&mut m.graph().initializer[0], &mut file, "weights/all.bin");
    outside(m.graph().node[0].attribute[0].t.as_mut().unwrap(), &mut file, "weights/all.bin");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    std::fs::create_dir(dir.path().join("weights")).unwrap();
    std::fs::write(&path, m.bytes()).unwrap();
    let said = |m: &mut Model| {
        std::fs::write(&path, m.bytes()).unwrap();
        import(&path, &ImportOptions::default()).unwrap_err().to_string()
    };
    let missing = said(&mut m);
    assert!(missing.contains("2 problems") && missing.contains("`weights/all.bin`, which cannot be read"), "{missing}");
    assert!(missing.contains("constant `w`") && missing.contains("beside the model"), "{missing}");
    std::fs::write(dir.path().join("weights/all.bin"), &file).unwrap();
    assert_eq!(evaluate(&import(&path, &ImportOptions::default()).unwrap(), &input), want);
    std::fs::write(dir.path().join("weights/all.bin"), &file[..file.len() - 1]).unwrap();
    assert!(said(&mut m).contains("bytes, and 12 are wanted from 232 on"), "{}", said(&mut m));
    for place in ["../all.bin", "/etc/hostname", ""] {
        m.graph().initializer[0].external_data[0].value = place.into();
        let refusal = said(&mut m);
        assert!(refusal.contains("no path below the folder of the model"), "{refusal}");
    }
    m.graph().initializer[0].external_data = vec![entry("location", "weights/all.bin"), entry("offset", "many")];
    assert!(said(&mut m).contains("offset \"many\" is no number"));
}

/// One network in the form that each operator set has for it.
fn network(opset: i64) -> Model {
    let mut rng = Rng(32);
    let mut m = Model::new(opset, &[1, 3, 9, 8]);
    m.random(&mut rng, "w1", &[4, 3, 3, 3]);
    m.node("Conv", "c1", &["x", "w1"], vec![ints("strides", &[1, 1])]);
    for (name, base) in [("s", 1.0), ("b", 0.0), ("mean", 0.0), ("var", 1.5)] {
        let values: Vec<f32> = rng.floats(4).iter().map(|v| base + 0.3 * v).collect();
        m.weight(name, &[4], &values);
    }
    m.node("BatchNormalization", "n1", &["c1", "s", "b", "mean", "var"], vec![float("epsilon", 1e-3)]);
    m.node("Relu", "r1", &["n1"], vec![]);
    let pads = [0, 0, 1, 0, 0, 0, 0, 1];
    if opset < 11 {
        m.node("Pad", "p1", &["r1"], vec![ints("pads", &pads), string("mode", "constant")]);
    } else {
        m.longs("pads", &pads);
        m.node("Pad", "p1", &["r1", "pads"], vec![]);
    }
    m.node("MaxPool", "m1", &["p1"], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]);
    m.random(&mut rng, "w2", &[4, 4, 1, 1]);
    m.node("Conv", "c2", &["m1", "w2"], vec![]);
    m.node("Add", "a", &["c2", "m1"], vec![]);
    m.node("Relu", "r2", &["a"], vec![]);
    if opset < 18 {
        m.node("ReduceMean", "g", &["r2"], vec![ints("axes", &[2, 3]), int("keepdims", 1)]);
    } else {
        m.longs("axes", &[2, 3]);
        m.node("ReduceMean", "g", &["r2", "axes"], vec![int("keepdims", 1)]);
    }
    if opset < 13 {
        m.node("Squeeze", "f", &["g"], vec![ints("axes", &[2, 3])]);
    } else {
        m.longs("last", &[2, 3]);
        m.node("Squeeze", "f", &["g", "last"], vec![]);
    }
    match opset {
        ..12 => m.node("Dropout", "d", &["f"], vec![float("ratio", 0.5)]),
        _ => {
            m.graph().initializer.push(reals("ratio", &[], &[0.5]));
            m.node("Dropout", "d", &["f", "ratio"], vec![])
        }
    };
    m.random(&mut rng, "w3", &[4, 5]);
    m.random(&mut rng, "b3", &[5]);
    m.node("Gemm", "y", &["d", "w3", "b3"], vec![]);
    m
}

/// tract reads operator sets 7 to 21 and more; where it refuses one, set 13 is the reference.
#[test]
fn every_operator_set() {
    let mut rng = Rng(33);
    let input = rng.floats(3 * 9 * 8);
    let want = evaluate(&network(13).import().unwrap(), &input);
    for opset in 7..=21 {
        let graph = network(opset).check(&mut rng, &format!("opset {opset}"));
        assert_close(&evaluate(&graph, &input), &want, 1e-6, &format!("opset {opset}"));
    }
}

#[test]
fn channels_last_between_transposes() {
    let mut rng = Rng(34);
    let mut m = Model::new(13, &[1, 3, 6, 7]);
    m.random(&mut rng, "w", &[4, 3, 3, 3]);
    m.node("Conv", "c", &["x", "w"], vec![]);
    m.node("Transpose", "t", &["c"], vec![ints("perm", &[0, 2, 3, 1])]);
    m.random(&mut rng, "scale", &[4]);
    m.random(&mut rng, "shift", &[1, 1, 1, 4]);
    m.node("Mul", "s", &["t", "scale"], vec![]);
    m.node("Add", "a", &["s", "shift"], vec![]);
    m.longs("pads", &[0, 1, 0, 0, 0, 1, 2, 0]);
    m.node("Pad", "p", &["a", "pads"], vec![]);
    m.node("Identity", "i", &["p"], vec![]);
    m.node("Transpose", "u", &["i"], vec![ints("perm", &[0, 3, 1, 2])]);
    m.node("Relu", "r", &["u"], vec![]);
    m.node("Transpose", "v", &["r"], vec![ints("perm", &[0, 2, 3, 1])]);
    m.node("ReduceMean", "y", &["v"], vec![ints("axes", &[1, 2]), int("keepdims", 0)]);
    m.check(&mut rng, "channels last between transposes");
}

#[test]
fn half_precision_weights_behind_casts() {
    let mut rng = Rng(35);
    let mut m = Model::new(13, &[1, 2, 5, 5]);
    // Multiples of 1/16 up to 1 are exact in 16 bits: sign, exponent, fraction.
    let values: Vec<f32> =
        (0..36).map(|_| (rng.range(1, 16) as f32) / 16.0 * if rng.flip() { 1.0 } else { -1.0 }).collect();
    let half = |v: &f32| {
        ((v.to_bits() >> 16 & 0x8000) | (((v.to_bits() >> 23 & 0xff) - 112) << 10) | (v.to_bits() >> 13 & 0x3ff)) as u16
    };
    let mut w = reals("w16", &[2, 2, 3, 3], &[]);
    w.data_type = 10;
    w.raw_data = values.iter().map(half).flat_map(u16::to_le_bytes).collect();
    m.graph().initializer.push(w);
    m.node("Cast", "w", &["w16"], vec![int("to", 1)]);
    m.node("Conv", "c", &["x", "w"], vec![]);
    m.node("Relu", "y", &["c"], vec![]);
    let input = rng.floats(50);
    let have = evaluate(&m.check(&mut rng, "half-precision weights"), &input);
    let mut plain = Model::new(13, &[1, 2, 5, 5]);
    plain.weight("w", &[2, 2, 3, 3], &values);
    plain.node("Conv", "c", &["x", "w"], vec![]);
    plain.node("Relu", "y", &["c"], vec![]);
    assert_eq!(have, evaluate(&plain.import().unwrap(), &input));
}

/// One weight read by several layers through an Identity, nodes without names or with the same one.
#[test]
fn shared_weights_and_names() {
    let mut rng = Rng(36);
    let mut m = Model::new(13, &[1, 3, 6, 6]);
    m.random(&mut rng, "w", &[3, 3, 3, 3]);
    m.node("Identity", "w2", &["w"], vec![]);
    m.node("Conv", "a", &["x", "w"], vec![ints("pads", &[1, 1, 1, 1])]);
    m.node("Relu", "ra", &["a"], vec![]);
    m.node("Conv", "b", &["ra", "w2"], vec![ints("pads", &[1, 1, 1, 1])]);
    m.node("Relu", "rb", &["b"], vec![]);
    m.node("Conv", "y", &["rb", "w2"], vec![]);
    let input = rng.floats(3 * 36);
    let want = evaluate(&m.check(&mut rng, "shared weights"), &input);
    // tract takes no duplicate names.
    for (i, node) in m.graph().node.iter_mut().enumerate() {
        node.name = if i % 2 == 0 { "same".into() } else { String::new() };
    }
    let graph = m.import().unwrap();
    assert_eq!(evaluate(&graph, &input), want);
    let names: std::collections::BTreeSet<String> =
        graph.topo().into_iter().map(|id| graph.node(id).name.clone()).collect();
    assert_eq!(names.len(), graph.len());
}

/// `view(x, size(0), -1)` and `reshape(x, [n, c * h * w])` as exporters write them.
fn flattened(m: &mut Model, product: bool) {
    m.node("Shape", "shape", &["x"], vec![]);
    m.graph().initializer.push(longs("zero", &[], &[0]));
    m.longs("axis0", &[0]);
    m.node("Gather", "n", &["shape", "zero"], vec![]);
    m.node("Unsqueeze", "n1", &["n", "axis0"], vec![]);
    if product {
        m.longs("from", &[1]);
        m.longs("to", &[i64::MAX]);
        m.node("Slice", "rest", &["shape", "from", "to"], vec![]);
        m.node("ReduceProd", "all", &["rest"], vec![int("keepdims", 0)]);
        m.node("Cast", "all64", &["all"], vec![int("to", 7)]);
        m.node("Unsqueeze", "last", &["all64", "axis0"], vec![]);
    } else {
        m.node("Constant", "last", &[], vec![tensor("value", longs("", &[1], &[-1]))]);
    }
    m.node("Concat", "wish", &["n1", "last"], vec![int("axis", 0)]);
    m.node("Reshape", "y", &["x", "wish"], vec![]);
}

#[test]
fn shape_arithmetic_on_open_sizes() {
    for product in [false, true] {
        let mut m = Model::new(13, &[-1, 2, -2, -3]);
        flattened(&mut m, product);
        let options = ImportOptions { input_shape: Some(vec![1, 2, 3, 5]), ..ImportOptions::default() };
        let graph = import_bytes(&m.bytes(), &options).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(graph.node(graph.output().unwrap()).shape, [1, 30]);
    }
}

fn at(m: &mut Model, shape: &[usize]) -> Result<Vec<usize>, String> {
    let options = ImportOptions { input_shape: Some(shape.to_vec()), ..ImportOptions::default() };
    let graph = import_bytes(&m.bytes(), &options).map_err(|e| e.to_string())?;
    Ok(graph.node(graph.output().unwrap()).shape.clone())
}

#[test]
fn another_size_than_declared() {
    let mut rng = Rng(37);
    let mut m = Model::new(13, &[1, 3, 8, 8]);
    m.random(&mut rng, "w", &[4, 3, 3, 3]);
    m.node("Conv", "c", &["x", "w"], vec![ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])]);
    m.node("Relu", "r", &["c"], vec![]);
    assert_eq!(at(&mut m, &[1, 3, 8, 8]), Ok(vec![1, 4, 4, 4]));
    assert_eq!(at(&mut m, &[1, 3, 20, 31]), Ok(vec![1, 4, 10, 16]));
    for wrong in [&[1, 4, 8, 8][..], &[1, 8, 8, 3], &[3, 8, 8], &[1, 3, 8, 8, 1]] {
        let refusal = at(&mut m, wrong).unwrap_err();
        assert!(refusal.contains("contradicts the file") && refusal.contains("all but height and width"), "{refusal}");
    }
    assert!(at(&mut m, &[2, 3, 8, 8]).unwrap_err().contains("a batch of 1"));
    // A layer for 64 features does not follow.
    m.node("Flatten", "f", &["r"], vec![]);
    m.random(&mut rng, "v", &[64, 2]);
    m.random(&mut rng, "b", &[2]);
    m.node("Gemm", "y", &["f", "v", "b"], vec![]);
    m.graph().output.clear();
    assert_eq!(at(&mut m, &[1, 3, 8, 8]), Ok(vec![1, 2]));
    let refusal = at(&mut m, &[1, 3, 16, 8]).unwrap_err();
    for part in
        ["node `n_y` (Gemm)", "declares an input of [1, 3, 8, 8]", "imported for [1, 3, 16, 8]", "does not follow"]
    {
        assert!(refusal.contains(part), "{part:?} is not in: {refusal}");
    }
    // Channels last.
    let mut m = Model::new(13, &[1, 8, 8, 3]);
    m.node("Transpose", "t", &["x"], vec![ints("perm", &[0, 3, 1, 2])]);
    assert_eq!(at(&mut m, &[1, 5, 9, 3]), Ok(vec![1, 3, 5, 9]));
    assert!(at(&mut m, &[1, 8, 8, 4]).unwrap_err().contains("contradicts the file"));
}

/// Behind a node that is not supported the file's own shapes serve to find the other problems.
#[test]
fn declared_shapes_show_further_problems() {
    let mut rng = Rng(38);
    let mut m = Model::new(13, &[-1, 2, 6, 6]);
    m.node("ConvTranspose", "a", &["x"], vec![]);
    m.random(&mut rng, "w", &[1, 5, 1, 1]);
    m.node("Conv", "y", &["a", "w"], vec![]);
    assert!(!m.refusal().contains("n_y"));
    for (batch, known) in [(1, true), (-1, true), (4, true), (1, false)] {
        let width = if known { 12 } else { -2 };
        let declared = Model::new(13, &[batch, 4, 12, width]).graph().input[0].clone();
        m.graph().value_info = vec![ValueInfoProto { name: "a".into(), ..declared }];
        let refusal = m.refusal();
        assert!(refusal.contains("`n_a` (ConvTranspose)"), "{refusal}");
        assert_eq!(refusal.contains("2 problems") && refusal.contains("`n_y` (Conv)"), known, "{refusal}");
    }
}

/// ReLUs and a sum that work on channels last get their channels back, by which blocks are chosen.
#[test]
fn relus_on_channels_last() {
    let mut rng = Rng(39);
    let mut m = Model::new(13, &[1, 3, 6, 7]);
    let (last, first) = (|| vec![ints("perm", &[0, 2, 3, 1])], || vec![ints("perm", &[0, 3, 1, 2])]);
    m.random(&mut rng, "w", &[4, 3, 3, 3]);
    m.random(&mut rng, "v", &[4, 4, 1, 1]);
    m.node("Conv", "c", &["x", "w"], vec![]);
    m.node("Transpose", "t", &["c"], last());
    m.node("Relu", "r", &["t"], vec![]);
    m.node("Transpose", "u", &["r"], first());
    m.node("Conv", "d", &["u", "v"], vec![]);
    m.node("Transpose", "e", &["d"], last());
    m.node("Add", "a", &["e", "r"], vec![]);
    m.node("Relu", "q", &["a"], vec![]);
    m.node("Transpose", "y", &["q"], first());
    let mut graph = m.check(&mut rng, "relus on channels last");
    bcc_compiler::passes::fold::run(&mut graph).unwrap();
    let names: Vec<&str> = graph.topo().into_iter().map(|id| graph.node(id).op.name()).collect();
    assert_eq!(names, ["input", "conv", "block_relu", "conv", "add", "block_relu"]);
    for id in graph.topo() {
        if let bcc_ir::graph::Op::BlockRelu { blocks, .. } = &graph.node(id).op {
            assert_eq!((blocks.len(), graph.node(id).shape.as_slice()), (4, [1, 4, 4, 5].as_slice()));
        }
    }
    // A residual of one channels-last and one other summand stays as it is.
    let mut m = Model::new(13, &[1, 5, 5, 5]);
    m.node("Transpose", "t", &["x"], last());
    m.node("Add", "y", &["t", "x"], vec![]);
    m.check(&mut rng, "a sum of two layouts");
}
