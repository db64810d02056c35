//! Every operator on random shapes and attributes against tract.

use bcc_ir::graph::{ClientStep, Op};

use super::writer::{Model, Rng, float, int, ints, longs, reals, string, tensor};

/// A random window: attributes and kernel; padding below the kernel's size.
fn window(rng: &mut Rng, size: [usize; 2], pool: bool) -> ([i64; 2], Vec<tract_onnx::pb::AttributeProto>) {
    loop {
        let k = [rng.range(1, 4), rng.range(1, 4)];
        let s = [rng.range(1, 3), rng.range(1, 3)];
        let d = if pool { [1, 1] } else { [rng.range(1, 2), rng.range(1, 2)] };
        let p: Vec<usize> = (0..4).map(|i| rng.range(0, (k[i % 2] - 1).min(2))).collect();
        let fits = |i: usize| size[i] + p[i] + p[i + 2] > d[i] * (k[i] - 1);
        if !fits(0) || !fits(1) {
            continue;
        }
        let of = |v: [usize; 2]| v.map(|x| x as i64);
        let mut attributes = vec![ints("strides", &of(s))];
        if !pool {
            attributes.push(ints("dilations", &of(d)));
        }
        let same = rng.range(0, 5);
        match same {
            // tract reads no dilation into its SAME padding.
            0 if d == [1, 1] => attributes.push(string("auto_pad", "SAME_UPPER")),
            1 if d == [1, 1] => attributes.push(string("auto_pad", "SAME_LOWER")),
            2 if (0..2).all(|i| size[i] > d[i] * (k[i] - 1)) => attributes.push(string("auto_pad", "VALID")),
            _ => attributes.push(ints("pads", &p.iter().map(|&x| x as i64).collect::<Vec<_>>())),
        }
        return (of(k), attributes);
    }
}

fn map(rng: &mut Rng) -> (i64, [usize; 2], Vec<i64>) {
    let (c, size) = (rng.range(1, 6), [rng.range(1, 9), rng.range(1, 9)]);
    (c as i64, size, vec![1, c as i64, size[0] as i64, size[1] as i64])
}

#[test]
fn conv() {
    let mut rng = Rng(10);
    for case in 0..200 {
        let (_, size, mut shape) = map(&mut rng);
        let groups = [1, 1, 2, 3][rng.range(0, 3)];
        let per_group = rng.range(1, 3) as i64;
        let out = groups * rng.range(1, 4) as i64;
        shape[1] = groups * per_group;
        let mut m = Model::new([9, 11, 13, 17, 21][rng.range(0, 4)], &shape);
        let ([kh, kw], mut attributes) = window(&mut rng, size, false);
        let what = format!("conv {case}: {shape:?} k={kh}x{kw} groups={groups} out={out} {attributes:?}");
        attributes.push(int("group", groups));
        let w = m.random(&mut rng, "w", &[out, per_group, kh, kw]);
        let b = m.random(&mut rng, "b", &[out]);
        let inputs: &[&str] = if rng.flip() { &["x", &w, &b] } else { &["x", &w] };
        m.node("Conv", "y", inputs, attributes);
        m.check(&mut rng, &what);
    }
}

#[test]
fn pools() {
    let mut rng = Rng(11);
    for case in 0..300 {
        let (_, size, shape) = map(&mut rng);
        let mut m = Model::new([10, 12, 17, 18][rng.range(0, 3)], &shape);
        let (kernel, mut attributes) = window(&mut rng, size, true);
        attributes.push(ints("kernel_shape", &kernel));
        let explicit = attributes.iter().any(|a| a.name == "pads");
        let op = if rng.flip() { "MaxPool" } else { "AveragePool" };
        // tract divides by the whole window at a border grown by ceil_mode.
        let include = op == "AveragePool" && rng.flip();
        if include {
            attributes.push(int("count_include_pad", 1));
        }
        if explicit && !include && rng.flip() {
            let (s, p) = (attributes[0].ints.clone(), attributes[1].ints.clone());
            let starts_inside = (0..2).all(|i| {
                let room = size[i] as i64 + p[i] + p[i + 2] - kernel[i];
                ((room + s[i] - 1) / s[i]) * s[i] < size[i] as i64 + p[i]
            });
            if starts_inside {
                attributes.push(int("ceil_mode", 1));
            }
        }
        let what = format!("{op} {case}: {shape:?} {attributes:?}");
        m.node(op, "y", &["x"], attributes);
        // Where a window lies in the padding altogether, the result is undefined.
        match m.import() {
            Err(e) if e.to_string().contains("lie in the padding") => {}
            _ => drop(m.check(&mut rng, &what)),
        }
    }
}

#[test]
fn ceil_mode_divisors() {
    // 1x5 map, kernel 2, stride 2, padding 1 left: windows [-1,0], [1,2], [3,4]; with ceil_mode and
    // padding 0: [0,1], [2,3], [4,5] whose last position exists only by ceil_mode.
    let run = |attributes, input: &[f32]| {
        let mut m = Model::new(11, &[1, 1, 1, 5]);
        let mut all = vec![ints("kernel_shape", &[1, 2]), ints("strides", &[1, 2]), int("ceil_mode", 1)];
        let mut attributes: Vec<_> = attributes;
        all.append(&mut attributes);
        m.node("AveragePool", "y", &["x"], all);
        super::writer::evaluate(&m.import().unwrap(), input)
    };
    let x = [1.0, 2.0, 3.0, 4.0, 5.0];
    assert_eq!(run(vec![], &x), [1.5, 3.5, 5.0]);
    assert_eq!(run(vec![int("count_include_pad", 1)], &x), [1.5, 3.5, 5.0]);
    let padded = |include| vec![ints("pads", &[0, 1, 0, 1]), int("count_include_pad", include)];
    assert_eq!(run(padded(1), &x), [0.5, 2.5, 4.5]);
    assert_eq!(run(padded(0), &x), [1.0, 2.5, 4.5]);
}

#[test]
fn global_pools_and_means() {
    let mut rng = Rng(12);
    for case in 0..60 {
        let (_, _, shape) = map(&mut rng);
        let opset = [11, 13, 18][rng.range(0, 2)];
        let mut m = Model::new(opset, &shape);
        let keep = rng.flip();
        let axes: &[i64] = [&[2, 3][..], &[-1, -2], &[3, 2], &[2], &[3], &[1, 2]][rng.range(0, 5)];
        let what = format!("mean {case}: {shape:?} axes {axes:?} keep {keep} opset {opset}");
        match rng.range(0, 3) {
            0 => drop(m.node("GlobalAveragePool", "y", &["x"], vec![])),
            1 => drop(m.node("GlobalMaxPool", "y", &["x"], vec![])),
            _ if opset < 18 => {
                m.node("ReduceMean", "y", &["x"], vec![ints("axes", axes), int("keepdims", keep.into())]);
            }
            _ => {
                m.longs("axes", axes);
                m.node("ReduceMean", "y", &["x", "axes"], vec![int("keepdims", keep.into())]);
            }
        }
        m.check(&mut rng, &what);
    }
}

#[test]
fn batch_norm() {
    let mut rng = Rng(13);
    for case in 0..40 {
        let (c, _, shape) = map(&mut rng);
        let shape = if rng.flip() { shape } else { vec![1, c] };
        let mut m = Model::new([9, 14, 15][rng.range(0, 2)], &shape);
        for name in ["s", "b", "m"] {
            m.random(&mut rng, name, &[c]);
        }
        let var: Vec<f32> = rng.floats(c as usize).iter().map(|v| v.abs() + 0.1).collect();
        m.weight("v", &[c], &var);
        m.node(
            "BatchNormalization",
            "y",
            &["x", "s", "b", "m", "v"],
            vec![float("epsilon", 1e-3), float("momentum", 0.9)],
        );
        let graph = m.check(&mut rng, &format!("batch norm {case}: {shape:?}"));
        assert!(graph.topo().iter().any(|&i| matches!(graph.node(i).op, Op::Affine { .. })));
    }
}

#[test]
fn gemm_and_matmul() {
    let mut rng = Rng(14);
    for case in 0..80 {
        let (n, k) = (rng.range(1, 9) as i64, rng.range(1, 9) as i64);
        let mut m = Model::new([9, 11, 13][rng.range(0, 2)], &[-1, k]);
        if rng.flip() {
            let trans = rng.flip();
            let w = m.random(&mut rng, "w", if trans { [n, k] } else { [k, n] }.as_slice());
            let dims = [vec![n], vec![1, n], vec![1], vec![]][rng.range(0, 3)].clone();
            let c = m.random(&mut rng, "c", &dims);
            let attributes = vec![int("transB", trans.into()), float("alpha", 0.5), float("beta", -2.0)];
            m.node("Gemm", "y", &["x", &w, &c], attributes);
        } else {
            let w = m.random(&mut rng, "w", &[k, n]);
            let b = m.random(&mut rng, "b", &[n]);
            let y = m.node("MatMul", "p", &["x", &w], vec![]);
            m.node("Add", "y", &[&y, &b], vec![]);
        }
        let what = format!("dense {case}: {k} to {n}");
        let mut graph = m.check(&mut rng, &what);
        bcc_compiler::passes::fold::run(&mut graph).unwrap();
        assert_eq!(graph.len(), 2, "{what}: the bias is folded");
    }
}

#[test]
fn arithmetic() {
    let mut rng = Rng(15);
    for case in 0..120 {
        let (c, size, shape) = map(&mut rng);
        let mut m = Model::new(13, &shape);
        let dims: Vec<i64> = match rng.range(0, 4) {
            0 => vec![],
            1 => vec![c, 1, 1],
            2 => vec![1, c, 1, 1],
            3 => vec![size[1] as i64],
            _ => vec![1],
        };
        let op = ["Add", "Sub", "Mul", "Div"][rng.range(0, 3)];
        let values: Vec<f32> = rng.floats(dims.iter().product::<i64>() as usize).iter().map(|v| v + 2.0).collect();
        let k = m.weight("k", &dims, &values);
        let swap = op != "Div" && rng.flip();
        let inputs: [&str; 2] = if swap { [&k, "x"] } else { ["x", &k] };
        m.node(op, "y", &inputs, vec![]);
        m.check(&mut rng, &format!("{op} {case}: {shape:?} with {dims:?}, swapped {swap}"));
    }
    for op in ["Add", "Sub", "Sum"] {
        let mut m = Model::new(13, &[1, 2, 3, 3]);
        m.node("Relu", "r", &["x"], vec![]);
        m.weight("k", &[2, 1, 1], &[0.5, -0.25]);
        let inputs: &[&str] = if op == "Sum" { &["x", "k", "r", "x"] } else { &["x", "r"] };
        m.node(op, "y", inputs, vec![]);
        m.check(&mut rng, op);
    }
}

#[test]
fn twice_the_same_operand() {
    let mut m = Model::new(13, &[1, 2, 3, 3]);
    m.node("Relu", "r", &["x"], vec![]);
    m.node("Add", "y", &["r", "r"], vec![]);
    m.check(&mut Rng(1), "x + x");
}

type Build = fn(&mut Model);

#[test]
fn shapes() {
    let mut rng = Rng(16);
    let cases: Vec<(&str, i64, Build)> = vec![
        ("flatten", 13, |m| drop(m.node("Flatten", "y", &["x"], vec![]))),
        ("flatten at 0", 13, |m| drop(m.node("Flatten", "y", &["x"], vec![int("axis", 0)]))),
        ("flatten from the end", 13, |m| drop(m.node("Flatten", "y", &["x"], vec![int("axis", -3)]))),
        ("reshape", 13, |m| {
            m.longs("s", &[0, -1]);
            m.node("Reshape", "y", &["x", "s"], vec![]);
        }),
        ("reshape to a map", 13, |m| {
            m.longs("s", &[1, -1, 0, 2]);
            m.node("Reshape", "y", &["x", "s"], vec![]);
        }),
        ("transpose", 13, |m| drop(m.node("Transpose", "y", &["x"], vec![ints("perm", &[0, 2, 3, 1])]))),
        ("transpose twice", 13, |m| {
            m.node("Transpose", "t", &["x"], vec![ints("perm", &[0, 2, 3, 1])]);
            m.node("Transpose", "y", &["t"], vec![ints("perm", &[0, 3, 2, 1])]);
        }),
        ("pad, attribute", 9, |m| {
            m.node("Pad", "y", &["x"], vec![ints("pads", &[0, 0, 1, 2, 0, 0, 0, 1]), string("mode", "constant")]);
        }),
        ("pad, operand", 13, |m| {
            m.longs("p", &[0, 0, 1, 0, 0, 0, 2, 1]);
            m.node("Pad", "y", &["x", "p"], vec![]);
        }),
        ("pad, channels last", 13, |m| {
            m.longs("p", &[0, 1, 1, 0, 0, 2, 0, 0]);
            m.node("Pad", "y", &["x", "p"], vec![]);
        }),
        ("identity and dropout", 10, |m| {
            m.node("Identity", "i", &["x"], vec![]);
            m.node("Dropout", "y", &["i"], vec![float("ratio", 0.3)]);
        }),
        ("squeeze and unsqueeze", 11, |m| {
            m.node("Unsqueeze", "u", &["x"], vec![ints("axes", &[1])]);
            m.node("Squeeze", "s", &["u"], vec![ints("axes", &[1])]);
            m.node("Flatten", "y", &["s"], vec![]);
        }),
        ("view(x.size(0), -1)", 11, |m| {
            m.node("Shape", "s", &["x"], vec![]);
            m.node("Constant", "zero", &[], vec![tensor("value", longs("", &[], &[0]))]);
            m.node("Gather", "n", &["s", "zero"], vec![int("axis", 0)]);
            m.node("Unsqueeze", "n1", &["n"], vec![ints("axes", &[0])]);
            m.node("Constant", "rest", &[], vec![tensor("value", longs("", &[1], &[-1]))]);
            m.node("Concat", "to", &["n1", "rest"], vec![int("axis", 0)]);
            m.node("Reshape", "y", &["x", "to"], vec![]);
        }),
        ("view by slices", 11, |m| {
            m.longs("a", &[0]);
            m.longs("b", &[2]);
            m.longs("tail", &[-1]);
            m.node("Shape", "s", &["x"], vec![]);
            m.node("Slice", "head", &["s", "a", "b"], vec![]);
            m.node("Concat", "to", &["head", "tail"], vec![int("axis", 0)]);
            m.node("Reshape", "r", &["x", "to"], vec![]);
            m.longs("full", &[1, 3, 4, 4]);
            m.node("Reshape", "y", &["r", "full"], vec![]);
        }),
    ];
    for (what, opset, build) in cases {
        let mut m = Model::new(opset, &[1, 3, 4, 4]);
        build(&mut m);
        m.check(&mut rng, what);
    }
}

#[test]
fn weights_behind_nodes() {
    let mut rng = Rng(17);
    let mut m = Model::new(13, &[-1, 3, 5, 5]);
    m.random(&mut rng, "w0", &[4, 3, 3, 3]);
    m.node("Identity", "w1", &["w0"], vec![]);
    let data = rng.floats(4);
    m.node("Constant", "b0", &[], vec![tensor("value", reals("", &[1, 4], &data))]);
    m.longs("four", &[4]);
    m.node("Reshape", "b1", &["b0", "four"], vec![]);
    m.node("Conv", "c", &["x", "w1", "b1"], vec![]);
    m.node("GlobalAveragePool", "g", &["c"], vec![]);
    m.node("Flatten", "f", &["g"], vec![]);
    m.random(&mut rng, "v0", &[2, 4]);
    m.node("Transpose", "v1", &["v0"], vec![]);
    m.node("MatMul", "y", &["f", "v1"], vec![]);
    m.check(&mut rng, "weights behind nodes");
}

#[test]
fn softmax_is_the_clients() {
    let mut rng = Rng(18);
    let mut m = Model::new(13, &[1, 5]);
    m.node("Relu", "r", &["x"], vec![]);
    m.node("Softmax", "s", &["r"], vec![]);
    m.node("Identity", "y", &["s"], vec![]);
    assert_eq!(m.check(&mut rng, "softmax 13").epilogue, [ClientStep::Softmax { axis: 1 }]);

    let mut m = Model::new(11, &[1, 2, 3, 1]);
    m.node("Softmax", "s", &["x"], vec![]);
    m.longs("to", &[1, 6]);
    m.node("Reshape", "y", &["s", "to"], vec![]);
    let steps = m.check(&mut rng, "softmax 11").epilogue;
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[0], ClientStep::Reshape { shape: vec![1, 6] });

    let mut m = Model::new(13, &[1, 4, 2, 2]);
    m.node("Softmax", "y", &["x"], vec![int("axis", 1)]);
    m.check(&mut rng, "softmax over channels");
}

#[test]
fn batch_and_names() {
    for batch in [-1, 0, 1, 8] {
        let mut m = Model::new(13, &[batch, 2, 4, 4]);
        m.longs("s", &[batch.max(-1), 32]);
        m.node("Reshape", "y", &["x", "s"], vec![]);
        let graph = m.import().unwrap_or_else(|e| panic!("batch {batch}: {e}"));
        assert_eq!(graph.node(graph.output().unwrap()).shape, [1, 32]);
    }
    let mut m = Model::new(13, &[1, 2, 4, 4]);
    m.node("Relu", "a", &["x"], vec![]);
    m.node("Relu", "b", &["a"], vec![]);
    m.node("Relu", "c", &["b"], vec![]);
    m.node("Identity", "y", &["c"], vec![]);
    for (node, name) in m.graph().node.iter_mut().zip(["relu", "", "relu", "Relu_1"]) {
        node.name = name.into();
    }
    let graph = m.import().unwrap();
    let names: Vec<&str> = graph.topo().into_iter().map(|i| graph.node(i).name.as_str()).collect();
    assert_eq!(names, ["x", "relu", "Relu_1_", "Relu_2", "Relu_1"]);
}

#[test]
fn float_types_of_weights() {
    let bits = |half: bool| -> tract_onnx::pb::TensorProto {
        let mut t = reals("w", &[4], &[]);
        if half {
            t.data_type = 10;
            t.raw_data = [0x3c00u16, 0xc000, 0x0001, 0x7bff].iter().flat_map(|v| v.to_le_bytes()).collect();
        } else {
            t.data_type = 11;
            t.double_data = vec![1.0, -2.0, 5.960_464_477_539_063e-8, 65504.0];
        }
        t
    };
    for half in [true, false] {
        let mut m = Model::new(13, &[1, 4]);
        m.graph().initializer.push(bits(half));
        m.node("Mul", "y", &["x", "w"], vec![]);
        let graph = m.import().unwrap();
        let y = super::writer::evaluate(&graph, &[1.0; 4]);
        assert_eq!(y, [1.0, -2.0, 5.960_464_5e-8, 65504.0]);
    }
}

#[test]
fn initializers_among_the_inputs() {
    let mut m = Model::new(9, &[1, 4]);
    m.weight("w", &[4, 2], &[0.5; 8]);
    let mut extra = m.graph().input[0].clone();
    extra.name = "w".into();
    m.graph().input.push(extra);
    m.node("MatMul", "y", &["x", "w"], vec![]);
    m.check(&mut Rng(20), "initializers among the inputs");
}

#[test]
fn nodes_out_of_order_and_unneeded() {
    let mut m = Model::new(13, &[1, 4]);
    m.node("Sigmoid", "unused", &["x"], vec![]);
    m.node("Relu", "y", &["r"], vec![]);
    m.node("Identity", "r", &["x"], vec![]);
    m.bytes();
    m.graph().output[0].name = "y".into();
    assert_eq!(m.import().unwrap().len(), 3);
}
