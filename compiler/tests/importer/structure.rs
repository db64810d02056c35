//! Operators that join, cut, resize and repeat tensors, against tract; what the client does at the
//! end; and what of them is refused.

use bcc_compiler::onnx::Oracle;
use bcc_ir::graph::{ClientStep, Graph, Op};
use tract_onnx::pb::AttributeProto;

use super::writer::{Model, Rng, evaluate, float, int, ints, reals, string, tensor};

fn output_shape(graph: &Graph) -> Vec<usize> {
    graph.node(graph.output().unwrap()).shape.clone()
}

fn has(graph: &Graph, name: &str) -> bool {
    graph.topo().into_iter().any(|i| graph.node(i).op.name() == name)
}

#[test]
fn concat() {
    let mut rng = Rng(30);
    for case in 0..80 {
        let (c, h, w) = (rng.range(1, 4) as i64, rng.range(1, 6) as i64, rng.range(1, 6) as i64);
        let mut m = Model::new([7, 11, 13][rng.range(0, 2)], &[1, c, h, w]);
        let axis = [1, 2, 3, -1, -3][rng.range(0, 4)];
        let count = rng.range(1, 4);
        let mut parts = Vec::new();
        for i in 0..count {
            let out = if axis == 1 || axis == -3 { rng.range(1, 4) as i64 } else { c };
            let weight = m.random(&mut rng, &format!("w{i}"), &[out, c, 1, 1]);
            parts.push(m.node("Conv", &format!("p{i}"), &["x", &weight], vec![]));
        }
        parts.push("x".into());
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        m.node("Concat", "j", &names, vec![int("axis", axis)]);
        m.node("Relu", "y", &["j"], vec![]);
        let graph = m.check(&mut rng, &format!("concat {case}: {count} parts of [1, {c}, {h}, {w}] along {axis}"));
        assert!(has(&graph, "concat"));
    }
}

/// A random resize of a `[1, c, h, w]` map; its description.
fn random_resize(rng: &mut Rng, m: &mut Model, [h, w]: [i64; 2], opset: i64) -> String {
    let linear = rng.flip();
    let mut modes = vec!["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"];
    if opset >= 19 {
        modes.push("half_pixel_symmetric");
    }
    let coordinates = modes[rng.range(0, modes.len() - 1)];
    let nearest = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"][rng.range(0, 3)];
    let mut attributes: Vec<AttributeProto> = vec![
        string("mode", if linear { "linear" } else { "nearest" }),
        string("coordinate_transformation_mode", coordinates),
        string("nearest_mode", nearest),
    ];
    let few = opset >= 18 && rng.flip();
    if few {
        attributes.push(ints("axes", &[2, -1]));
    }
    m.weight("roi", &[0], &[]);
    let what = if rng.flip() {
        let mut scales = vec![1.0, 1.0];
        for n in [h, w] {
            let scale = [0.5, 0.7, 1.0, 1.5, 2.0, 2.3, 3.0, 4.0][rng.range(0, 7)];
            // For a fraction of a pixel tract aligns corners that are not there.
            let whole = coordinates != "align_corners" || (n as f32 * scale).fract() == 0.0;
            scales.push(if whole && n as f32 * scale >= 1.0 { scale } else { 1.0 });
        }
        let scales = if few { scales[2..].to_vec() } else { scales };
        m.weight("scales", &[scales.len() as i64], &scales);
        m.node("Resize", "r", &["x", "roi", "scales"], attributes);
        format!("scales {scales:?}")
    } else {
        let mut sizes = vec![1, m.shape[1], rng.range(1, 13) as i64, rng.range(1, 13) as i64];
        if few {
            sizes.drain(..2);
        }
        m.weight("none", &[0], &[]);
        m.longs("sizes", &sizes);
        m.node("Resize", "r", &["x", "roi", "none", "sizes"], attributes);
        format!("sizes {sizes:?}")
    };
    format!("opset {opset} {h}x{w} {what} linear {linear} {coordinates} {nearest} few {few}")
}

#[test]
fn resize() {
    let mut rng = Rng(31);
    let (mut secret, mut client) = (0, 0);
    for case in 0..500 {
        let (c, h, w) = (rng.range(1, 3) as i64, rng.range(1, 7) as i64, rng.range(1, 7) as i64);
        let opset = [11, 13, 18, 19][rng.range(0, 3)];
        let mut m = Model::new(opset, &[1, c, h, w]);
        let what = random_resize(&mut rng, &mut m, [h, w], opset);
        let last = rng.flip();
        if !last {
            m.node("Relu", "y", &["r"], vec![]);
        }
        let graph = m.check(&mut rng, &format!("resize {case}: {what}"));
        secret += usize::from(has(&graph, "resample") || has(&graph, "gather"));
        client += usize::from(!graph.epilogue.is_empty());
        assert!(last || graph.epilogue.is_empty());
    }
    assert!(secret > 100 && client > 80, "{secret} {client}");
}

#[test]
fn resize_of_older_operator_sets() {
    let mut rng = Rng(32);
    for linear in [false, true] {
        let mode = string("mode", if linear { "linear" } else { "nearest" });
        let mut seen = Vec::new();
        for variant in 0..3 {
            let mut m = Model::new([7, 9, 10][variant], &[1, 1, 1, 3]);
            let scales = [1.0, 1.0, 2.0, 2.0];
            m.weight("s", &[4], &scales);
            let given = AttributeProto {
                name: "scales".into(),
                r#type: tract_onnx::pb::attribute_proto::AttributeType::Floats as i32,
                floats: scales.to_vec(),
                ..Default::default()
            };
            match variant {
                0 => m.node("Upsample", "r", &["x"], vec![mode.clone(), given]),
                1 => m.node("Upsample", "r", &["x", "s"], vec![mode.clone()]),
                _ => m.node("Resize", "r", &["x", "s"], vec![mode.clone()]),
            };
            m.node("Relu", "y", &["r"], vec![]);
            seen.push(evaluate(&m.import().unwrap(), &[1.0, 2.0, 4.0]));
            if variant == 2 && linear {
                m.check(&mut rng, "resize 10");
            }
        }
        // By hand: coordinates 0, 0.5, 1, 1.5, 2, 2.5.
        let row = if linear { [1.0, 1.5, 2.0, 3.0, 4.0, 4.0] } else { [1.0, 1.0, 2.0, 2.0, 4.0, 4.0] };
        let want: Vec<f32> = row.iter().chain(&row).copied().collect();
        assert!(seen.iter().all(|y| *y == want), "{seen:?}");
    }
}

/// `F.interpolate(y, size=x.shape[2:])` and `scale_factor=2` as exporters write them.
#[test]
fn sizes_by_shape_arithmetic() {
    let mut rng = Rng(33);
    for by_factor in [false, true] {
        let mut m = Model::new(13, &[1, 2, 6, 8]);
        m.node("AveragePool", "p", &["x"], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]);
        for (name, data) in [("two", [2]), ("four", [4]), ("zero", [0]), ("axis", [0])] {
            m.longs(name, &data);
        }
        m.weight("none", &[0], &[]);
        let source = if by_factor { "p" } else { "x" };
        m.node("Shape", "s", &[source], vec![]);
        m.node("Slice", "hw", &["s", "two", "four", "axis"], vec![]);
        let mut size = "hw";
        if by_factor {
            m.node("Cast", "hwf", &["hw"], vec![int("to", 1)]);
            m.weight("factor", &[], &[2.0]);
            m.node("Mul", "scaled", &["hwf", "factor"], vec![]);
            m.node("Floor", "floored", &["scaled"], vec![]);
            m.node("Ceil", "ceiled", &["floored"], vec![]);
            size = "big";
            m.node("Cast", size, &["ceiled"], vec![int("to", 7)]);
        }
        m.node("Shape", "ps", &["p"], vec![]);
        m.node("Slice", "nc", &["ps", "zero", "two", "axis"], vec![]);
        m.node("Concat", "to", &["nc", size], vec![int("axis", 0)]);
        m.node("Resize", "r", &["p", "", "none", "to"], vec![string("mode", "linear")]);
        m.node("Concat", "j", &["r", "x"], vec![int("axis", 1)]);
        m.node("Relu", "y", &["j"], vec![]);
        let graph = m.check(&mut rng, &format!("sizes by arithmetic, by factor {by_factor}"));
        assert_eq!(output_shape(&graph), [1, 4, 6, 8]);
    }
}

/// The image pooling of DeepLab: a mean, a layer, and the map again.
#[test]
fn image_pooling() {
    let mut rng = Rng(34);
    for expand in [false, true] {
        let mut m = Model::new(13, &[1, 3, 5, 4]);
        m.node("GlobalAveragePool", "g", &["x"], vec![]);
        let weight = m.random(&mut rng, "w", &[2, 3, 1, 1]);
        m.node("Conv", "c", &["g", &weight], vec![]);
        m.node("Relu", "r", &["c"], vec![]);
        m.longs("to", &[1, 2, 5, 4]);
        if expand {
            m.node("Expand", "b", &["r", "to"], vec![]);
        } else {
            m.weight("none", &[0], &[]);
            m.node("Resize", "b", &["r", "", "none", "to"], vec![string("mode", "linear")]);
        }
        m.node("Concat", "j", &["x", "b"], vec![int("axis", 1)]);
        m.node("Relu", "y", &["j"], vec![]);
        let graph = m.check(&mut rng, &format!("image pooling, expand {expand}"));
        assert!(!has(&graph, "resample"), "a broadcast is no interpolation");
    }
}

#[test]
fn expansion() {
    let mut rng = Rng(35);
    for (shape, to) in [
        ([1, 3, 1, 1], vec![1i64, 3, 4, 5]),
        ([1, 1, 4, 1], vec![3, 1, 2]),
        ([1, 2, 3, 4], vec![1]),
        ([1, 2, 1, 4], vec![1, 1, 6, 1]),
    ] {
        let mut m = Model::new(13, &shape);
        m.node("Relu", "r", &["x"], vec![]);
        m.longs("to", &to);
        m.node("Expand", "e", &["r", "to"], vec![]);
        m.node("Relu", "y", &["e"], vec![]);
        m.check(&mut rng, &format!("expand {shape:?} to {to:?}"));
    }
    // As PyTorch writes `expand(-1, -1, 4, 5)`.
    let mut m = Model::new(13, &[1, 2, 1, 1]);
    m.longs("wish", &[-1, -1, 4, 5]);
    m.longs("rank", &[4]);
    let one = super::writer::longs("", &[1], &[1]);
    m.node("ConstantOfShape", "ones", &["rank"], vec![tensor("value", one)]);
    m.longs("minus", &[-1]);
    m.node("Mul", "open", &["ones", "minus"], vec![]);
    m.node("Equal", "free", &["wish", "open"], vec![]);
    m.node("Where", "to", &["free", "ones", "wish"], vec![]);
    m.node("Expand", "e", &["x", "to"], vec![]);
    m.node("Relu", "y", &["e"], vec![]);
    assert_eq!(output_shape(&m.import().unwrap()), [1, 2, 4, 5]);
    // A sum and a product repeat axes of one.
    let mut m = Model::new(13, &[1, 3, 4, 5]);
    m.node("GlobalAveragePool", "g", &["x"], vec![]);
    m.node("Sub", "y", &["x", "g"], vec![]);
    m.check(&mut rng, "x minus its mean");
    let mut m = Model::new(13, &[1, 3, 4, 5]);
    m.node("ReduceMean", "g", &["x"], vec![ints("axes", &[2]), int("keepdims", 0)]);
    m.node("Add", "y", &["g", "x"], vec![]);
    m.shape = vec![1, 3, 3, 5];
    m.graph().input[0] = Model::new(13, &[1, 3, 3, 5]).graph().input[0].clone();
    m.check(&mut rng, "a summand of lower rank");
}

#[test]
fn slices_and_splits() {
    let mut rng = Rng(36);
    for case in 0..80 {
        let shape = [1, rng.range(2, 5) as i64, rng.range(2, 7) as i64, rng.range(2, 7) as i64];
        let mut m = Model::new(13, &shape);
        let (mut starts, mut ends, mut steps, mut axes) = (vec![], vec![], vec![], vec![]);
        for axis in 1..4i64 {
            let n = shape[axis as usize];
            if rng.flip() {
                let (a, b) = (rng.range(0, n as usize - 1) as i64, rng.range(0, n as usize - 1) as i64);
                let back = rng.range(0, 3) == 0;
                let (low, high) = (a.min(b), a.max(b) + 1);
                starts.push(if back { high - 1 } else { low - if rng.flip() { n } else { 0 } });
                ends.push(if !back && high == n {
                    i64::MAX
                } else if back {
                    low - 1 - n
                } else {
                    high
                });
                steps.push(if back { -1 } else { rng.range(1, 2) as i64 });
                axes.push(if rng.flip() { axis } else { axis - 4 });
            }
        }
        m.longs("starts", &starts);
        m.longs("ends", &ends);
        m.longs("steps", &steps);
        m.longs("axes", &axes);
        m.node("Slice", "s", &["x", "starts", "ends", "axes", "steps"], vec![]);
        m.node("Relu", "y", &["s"], vec![]);
        m.check(&mut rng, &format!("slice {case}: {shape:?} {starts:?} {ends:?} {axes:?} {steps:?}"));
    }
    for (opset, axis, sizes) in [(11, 1, Some([2, 4])), (13, -2, Some([1, 5])), (13, 1, None), (18, 3, None)] {
        let mut m = Model::new(opset, &[1, 6, 6, 6]);
        let mut attributes = vec![int("axis", axis)];
        let mut inputs = vec!["x"];
        match sizes {
            Some(list) if opset < 13 => attributes.push(ints("split", &list)),
            Some(list) => {
                m.longs("sizes", &list);
                inputs.push("sizes");
            }
            None if opset >= 18 => attributes.push(int("num_outputs", 2)),
            None => {}
        }
        m.node("Split", "a", &inputs, attributes);
        m.graph().node[0].output.push("b".into());
        m.node("Relu", "rb", &["b"], vec![]);
        m.node("Concat", "y", &["rb", "a"], vec![int("axis", axis)]);
        m.check(&mut rng, &format!("split at opset {opset}, axis {axis}, {sizes:?}"));
    }
}

#[test]
fn paddings() {
    let mut rng = Rng(37);
    for case in 0..60 {
        let shape = [1, rng.range(1, 3) as i64, rng.range(3, 6) as i64, rng.range(3, 6) as i64];
        let mode = ["reflect", "edge", "constant", "wrap"][rng.range(0, 3)];
        let opset = if mode == "wrap" { 19 } else { 13 };
        let mut m = Model::new(opset, &shape);
        let channels = mode != "reflect" && rng.range(0, 2) == 0;
        let mut pads = [0i64; 8];
        for (i, p) in pads.iter_mut().enumerate() {
            if i % 4 >= 2 || (channels && i % 4 == 1) {
                *p = rng.range(0, 2) as i64;
            }
        }
        m.longs("p", &pads);
        m.node("Pad", "r", &["x", "p"], vec![string("mode", mode)]);
        m.node("Relu", "y", &["r"], vec![]);
        let what = format!("pad {case}: {shape:?} {mode} {pads:?}");
        if mode == "wrap" {
            // tract does not wrap; by hand.
            let graph = m.import().unwrap_or_else(|e| panic!("{what}: {e}"));
            let x: Vec<f32> = rng.floats(shape.iter().product::<i64>() as usize).iter().map(|v| v + 1.0).collect();
            let got = evaluate(&graph, &x);
            let out = output_shape(&graph);
            let source = |axis: usize, o: usize| (o as i64 - pads[axis]).rem_euclid(shape[axis]) as usize;
            for (i, v) in got.iter().enumerate() {
                let (c, y, xo) = (i / (out[2] * out[3]), i / out[3] % out[2], i % out[3]);
                let at = (source(1, c) * shape[2] as usize + source(2, y)) * shape[3] as usize + source(3, xo);
                assert_eq!(*v, x[at], "{what}");
            }
        } else {
            m.check(&mut rng, &what);
        }
    }
}

#[test]
fn a_constant_for_every_element() {
    let mut rng = Rng(38);
    for (op, dims) in [("Add", vec![1, 2, 3, 4]), ("Mul", vec![2, 3, 4]), ("Sub", vec![3, 4]), ("Div", vec![2, 1, 4])] {
        let mut m = Model::new(13, &[1, 2, 3, 4]);
        let values: Vec<f32> = rng.floats(dims.iter().product::<i64>() as usize).iter().map(|v| v + 2.0).collect();
        m.weight("k", &dims, &values);
        m.node(op, "a", &["x", "k"], vec![]);
        m.node("Relu", "y", &["a"], vec![]);
        m.check(&mut rng, &format!("{op} with {dims:?}"));
    }
}

#[test]
fn the_client_enlarges_and_picks_the_class() {
    let mut rng = Rng(39);
    for keepdims in [0, 1] {
        let mut m = Model::new(13, &[1, 2, 4, 3]);
        let weight = m.random(&mut rng, "w", &[5, 2, 1, 1]);
        m.node("Conv", "c", &["x", &weight], vec![]);
        m.weight("s", &[4], &[1.0, 1.0, 3.0, 2.0]);
        m.node("Resize", "r", &["c", "", "s"], vec![string("mode", "linear")]);
        m.node("ArgMax", "a", &["r"], vec![int("axis", 1), int("keepdims", keepdims)]);
        m.node("Cast", "i", &["a"], vec![int("to", 7)]);
        m.node("Cast", "y", &["i"], vec![int("to", 1)]);
        let graph = m.check(&mut rng, "resize and argmax");
        assert_eq!(output_shape(&graph), [1, 5, 4, 3], "the small map is opened");
        assert!(matches!(
            graph.epilogue[..],
            [
                ClientStep::Resample { axis: 2, .. },
                ClientStep::Resample { axis: 3, .. },
                ClientStep::ArgMax { axis: 1, .. }
            ]
        ));
    }
    // What would show more than the output stays secret: a crop, a smaller map.
    let mut m = Model::new(13, &[1, 2, 4, 4]);
    m.weight("s", &[4], &[1.0, 1.0, 0.5, 0.5]);
    m.node("Resize", "y", &["x", "", "s"], vec![string("mode", "linear")]);
    assert!(m.check(&mut rng, "a smaller map").epilogue.is_empty());
    let mut m = Model::new(13, &[1, 2, 4, 4]);
    m.weight("s", &[4], &[1.0, 1.0, 2.0, 2.0]);
    for (name, data) in [("from", [1]), ("to", [7]), ("axis", [2])] {
        m.longs(name, &data);
    }
    m.node("Resize", "r", &["x", "", "s"], vec![string("mode", "linear")]);
    m.node("Slice", "y", &["r", "from", "to", "axis"], vec![]);
    assert!(m.check(&mut rng, "a crop").epilogue.is_empty());
    // Ties, and the last of them.
    for (last, want) in [(0, 1.0), (1, 3.0)] {
        let mut m = Model::new(13, &[1, 4]);
        let attributes = vec![int("axis", -1), int("select_last_index", last), int("keepdims", 0)];
        m.node("ArgMax", "y", &["x"], attributes);
        assert_eq!(evaluate(&m.import().unwrap(), &[0.0, 2.0, 1.0, 2.0]), [want]);
    }
    // Probabilities are enlarged by the client as well.
    let mut m = Model::new(13, &[1, 3, 2, 2]);
    m.node("Softmax", "p", &["x"], vec![int("axis", 1)]);
    m.weight("s", &[4], &[1.0, 1.0, 2.0, 2.0]);
    m.node("Resize", "y", &["p", "", "s"], vec![string("mode", "nearest")]);
    let bytes = m.bytes();
    let x = rng.floats(12);
    let want = Oracle::from_bytes(&bytes, &[1, 3, 2, 2]).unwrap().run(&x).unwrap();
    super::writer::assert_close(&evaluate(&m.import().unwrap(), &x), &want, 1e-5, "softmax and resize");
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// The refusal of a resize of a 6x6 map at some opset.
fn refused_resize(opset: i64, op: &str, attributes: Vec<AttributeProto>, scales: &[f32], sizes: &[i64]) -> String {
    let mut m = Model::new(opset, &[1, 2, 6, 6]);
    m.weight("scales", &[scales.len() as i64], scales);
    m.longs("sizes", sizes);
    let all = ["x", "", "scales", "sizes"];
    let inputs: &[&str] = if opset < 11 { &["x", "scales"] } else { &all };
    m.node(op, "y", inputs, attributes);
    m.refusal()
}

#[test]
fn refusals_of_resize() {
    let twice = [1.0, 1.0, 2.0, 2.0];
    let half = [1.0, 1.0, 0.5, 0.5];
    let resize = |attributes, scales: &[f32], sizes: &[i64]| refused_resize(18, "Resize", attributes, scales, sizes);
    says(&resize(vec![string("mode", "cubic")], &twice, &[]), &["`n_y` (Resize)", "`mode` is `cubic`", "linear"]);
    let transformation = |v| vec![string("coordinate_transformation_mode", v)];
    says(&resize(transformation("tf_crop_and_resize"), &twice, &[]), &["`tf_crop_and_resize`", "half_pixel"]);
    says(&resize(vec![string("nearest_mode", "up")], &twice, &[]), &["`nearest_mode` is `up`"]);
    let policy = vec![string("keep_aspect_ratio_policy", "not_larger")];
    says(&resize(policy, &[], &[1, 2, 9, 9]), &["`not_larger`", "size of every axis"]);
    says(&resize(vec![int("antialias", 1)], &half, &[]), &["`antialias` is 1", "pool"]);
    says(&resize(vec![], &[], &[]), &["scales or sizes", "missing"]);
    says(&resize(vec![], &twice, &[1, 2, 9, 9]), &["both scales and sizes"]);
    says(&resize(vec![], &[2.0, 2.0], &[]), &["2 scales for 4 axes"]);
    says(&resize(vec![], &[], &[1, 2, 0, 4]), &["a size of 0"]);
    says(&resize(vec![], &[], &[3, 2, 6, 6]), &["the batch is resized"]);
    says(&resize(vec![], &[1.0, 1.0, -2.0, 1.0], &[]), &["scale -2", "nothing"]);
    says(&resize(vec![], &[], &[1, 2, 6, 1 << 40]), &["larger than any network"]);
    says(&resize(vec![], &[1.0, 1.0, 1e9, 1.0], &[]), &["larger than any network"]);
    says(&resize(vec![ints("axes", &[7])], &twice, &[]), &["`axes` is [7]"]);
    says(&resize(vec![float("cubic_coeff_b", 0.5)], &twice, &[]), &["`cubic_coeff_b` is not known"]);
    says(&refused_resize(10, "Resize", vec![], &half, &[]), &["before opset 11", "convert"]);
    says(&refused_resize(9, "Upsample", vec![string("mode", "cubic")], &twice, &[]), &["(Upsample)", "`cubic`"]);
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node("Relu", "s", &["x"], vec![]);
    m.node("Resize", "y", &["x", "", "s"], vec![]);
    says(&m.refusal(), &["operand 2 (scales) is computed from the network's input"]);
}

#[test]
fn refusals_of_the_others() {
    let of = |op: &str, inputs: &[&str], attributes: Vec<AttributeProto>| {
        let mut m = Model::new(13, &[1, 2, 6, 6]);
        m.graph().initializer.push(reals("k", &[1, 2, 6, 6], &[0.5; 72]));
        m.longs("big", &[1, 2, 12, 6]);
        m.longs("three", &[1, 1, 1]);
        m.longs("one", &[1]);
        m.longs("two", &[2]);
        m.node(op, "y", inputs, attributes);
        m.refusal()
    };
    let axis = |v| vec![int("axis", v)];
    says(&of("Concat", &["x", "k"], axis(1)), &["`n_y` (Concat)", "joins the constant `k`", "remove"]);
    says(&of("Concat", &["x", "x"], axis(0)), &["`axis` is 0", "channels or pixels"]);
    says(&of("Concat", &["x", "x"], axis(5)), &["`axis` is 5 on 4 axes"]);
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node("GlobalAveragePool", "g", &["x"], vec![]);
    m.node("Concat", "y", &["x", "g"], axis(1));
    says(&m.refusal(), &["[1, 2, 6, 6]", "[1, 2, 1, 1]", "do not join along axis 1"]);
    says(&of("Expand", &["x", "big"], vec![]), &["(Expand)", "cannot expand [1, 2, 6, 6] to [1, 2, 12, 6]"]);
    says(&of("Split", &["x", "three"], axis(1)), &["(Split)", "an axis of 2 into 1 parts"]);
    says(&of("Split", &["x"], axis(9)), &["`axis` is 9"]);
    says(&of("Slice", &["x", "two", "one", "one"], vec![]), &["(Slice)", "without any element"]);
    says(&of("ArgMax", &["x"], axis(4)), &["(ArgMax)", "`axis` is 4 on 4 axes"]);
    says(&of("ConvTranspose", &["x", "k"], vec![]), &["ConvTranspose", "without transposed convolutions"]);
    let mut m = Model::new(13, &[1, 2, 3, 3]);
    m.longs("p", &[0, 0, 3, 0, 0, 0, 0, 0]);
    m.node("Pad", "y", &["x", "p"], vec![string("mode", "reflect")]);
    says(&m.refusal(), &["reflects 3 elements of an axis of 3"]);
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node("ArgMax", "a", &["x"], axis(1));
    m.node("Relu", "y", &["a"], vec![]);
    says(&m.refusal(), &["`n_y` (Relu)", "argmax `n_a`", "--output"]);
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node("AveragePool", "p", &["x"], vec![ints("kernel_shape", &[2, 2])]);
    m.node("Add", "y", &["x", "p"], vec![]);
    says(&m.refusal(), &["[1, 2, 6, 6]", "[1, 2, 5, 5]", "do not broadcast"]);
    // Of the outputs of a refused node nothing more is said.
    let mut m = Model::new(13, &[1, 2, 6, 6]);
    m.node("Split", "a", &["x"], axis(9));
    m.graph().node[0].output.push("b".into());
    m.node("Relu", "y", &["b"], vec![]);
    assert!(!m.refusal().contains("n_y"));
}

/// Nearest neighbours are gathers, secret where a layer reads them.
#[test]
fn nearest_neighbours_are_gathers() {
    for coordinates in ["asymmetric", "tf_half_pixel_for_nn"] {
        let mut m = Model::new(11, &[1, 2, 3, 3]);
        m.weight("s", &[4], &[1.0, 1.0, 2.0, 2.0]);
        let mode = string("coordinate_transformation_mode", coordinates);
        m.node("Resize", "r", &["x", "", "s"], vec![mode, string("nearest_mode", "floor")]);
        m.node("Relu", "y", &["r"], vec![]);
        let graph = m.import().unwrap();
        let gathers: Vec<Vec<usize>> = graph
            .topo()
            .into_iter()
            .filter_map(|i| match &graph.node(i).op {
                Op::Gather { indices, .. } => Some(indices.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(gathers, [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2]], "{coordinates}");
    }
}
