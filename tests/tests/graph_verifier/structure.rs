//! Structure: input and output, operands, names, shapes, constants, stages.

use super::*;

#[test]
fn the_subjects_pass_and_have_every_operator() {
    let mut seen = BTreeSet::new();
    for g in subjects().into_iter().chain([proven()]) {
        verify(&g, Stage::Quantized).unwrap();
        seen.extend(g.topo().into_iter().map(|i| g.node(i).op.name()));
    }
    let want = [
        "add",
        "block_relu",
        "conv",
        "dense",
        "divide",
        "gather",
        "input",
        "refresh",
        "remask",
        "reshape",
        "scatter",
        "sub",
        "sum_pool",
        "truncate",
    ];
    assert!(want.iter().all(|w| seen.contains(w)), "{seen:?}");
}

/// Invariant 1.
#[test]
fn one_input_and_an_output() {
    for g in subjects() {
        let mut two = g.clone();
        two.add_input("second", vec![1, 2]);
        refused(&two, Stage::Imported, &g.name, "2 inputs");
        refused(&Graph::new("empty"), Stage::Imported, "empty", "0 inputs");
        refused(&Graph::new("empty"), Stage::Imported, "empty", "no output");
        refused(&rewritten(&g, |v| v["output"] = Value::Null), Stage::Imported, &g.name, "no output");
        let mut elsewhere = g.clone();
        elsewhere.set_output(NodeId::new(9999));
        refused(&elsewhere, Stage::Imported, &g.name, "no output");
    }
}

/// Invariant 2: a cycle from any node to any other behind it.
#[test]
fn cycles() {
    for g in subjects() {
        let order = g.topo();
        let mut tried = 0;
        for (i, &early) in order.iter().enumerate().skip(1) {
            for &late in order[i..].iter().step_by(5) {
                let mut cyclic = g.clone();
                cyclic.set_operand(early, 0, late);
                let order = cyclic.topo();
                if order.len() == cyclic.len() {
                    // `late` does not depend on `early`.
                    continue;
                }
                let Err(Violations(found)) = verify(&cyclic, Stage::Imported) else { panic!("a cycle is accepted") };
                let [fault] = found.as_slice() else { panic!("{found:?}") };
                assert!(fault.what.contains("cycle"), "{fault:?}");
                let named = cyclic.find(&fault.node).unwrap();
                assert!(reaches(&cyclic, named, named), "\"{}\" is on no cycle", fault.node);
                assert!(!cyclic.to_string().is_empty());
                tried += 1;
            }
        }
        assert!(tried > 15, "{tried}");
    }
}

fn reaches(graph: &Graph, from: NodeId, to: NodeId) -> bool {
    let (mut seen, mut stack) = (BTreeSet::new(), graph.users(from));
    while let Some(id) = stack.pop() {
        if id == to {
            return true;
        }
        if seen.insert(id) {
            stack.extend(graph.users(id));
        }
    }
    false
}

/// Invariant 2: operands missing, too many, at odd positions.
#[test]
fn operands() {
    for g in subjects() {
        let edges = serde_json::to_value(&g).unwrap()["dag"]["edges"].as_array().unwrap().clone();
        for (i, edge) in edges.iter().enumerate() {
            let Some(target) = edge.get(1).and_then(Value::as_u64) else { continue };
            let name = g.node(NodeId::new(target as usize)).name.clone();
            let takes = "operands, it has";
            let missing = rewritten(&g, |v| v["dag"]["edges"][i] = Value::Null);
            refused(&missing, Stage::Imported, &name, takes);
            for position in [2, 7, 255] {
                let odd = rewritten(&g, |v| v["dag"]["edges"][i][2] = json!(position));
                refused(&odd, Stage::Imported, &name, takes);
            }
            let twice = rewritten(&g, |v| v["dag"]["edges"].as_array_mut().unwrap().push(edge.clone()));
            refused(&twice, Stage::Imported, &name, takes);
        }
        let input = g.input().unwrap();
        refused(&mutated(&g, input, |n| n.op = Op::Remask), Stage::Imported, &g.node(input).name, "it has []");
    }
}

/// Invariant 3.
#[test]
fn names_and_origins() {
    for g in subjects() {
        let order = g.topo();
        for (i, &id) in order.iter().enumerate() {
            let other = g.node(order[(i + 1) % order.len()]).name.clone();
            let twin = mutated(&g, id, |n| n.name = other.clone());
            refused(&twin, Stage::Imported, &other, "same name");
            let orphan = mutated(&g, id, |n| n.origin.clear());
            refused(&orphan, Stage::Imported, &g.node(id).name, "ONNX node");
        }
    }
}

/// Invariant 4: every axis of every node, larger, smaller, empty and absurd.
#[test]
fn shapes() {
    for g in subjects() {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            for axis in 0..g.node(id).shape.len() {
                let n = g.node(id).shape[axis];
                for size in [n + 1, n - 1, 0, usize::MAX, 1 << 40, usize::MAX / 2 + 1] {
                    let other = mutated(&g, id, |n| n.shape[axis] = size);
                    if matches!(g.node(id).op, Op::Input) && n > 0 && size > 0 && size < 100 {
                        // Declared, so those who read it no longer fit.
                        refused_nearby(&other, id, "shape");
                    } else {
                        refused(&other, Stage::Imported, &name, "shape");
                    }
                    assert!(!other.to_string().is_empty());
                }
            }
            let flat = mutated(&g, id, |n| n.shape = vec![n.len()]);
            refused_nearby(&flat, id, "shape");
            let scalar = mutated(&g, id, |n| n.shape.clear());
            refused_nearby(&scalar, id, "shape");
        }
    }
}

/// Invariant 4: attributes that do not fit, or whose sizes overflow.
#[test]
fn attributes() {
    const HUGE: [usize; 4] = [usize::MAX, usize::MAX / 2 + 1, 1 << 40, isize::MAX as usize];
    for g in subjects().into_iter().chain([canonical("tiny_pools"), stages("tiny_pools").swap_remove(0).1]) {
        for id in g.topo() {
            let mut mutants: Vec<Op> = Vec::new();
            let mut push = |op: &Op| mutants.push(op.clone());
            let mut windows = |window: Window, op: &dyn Fn(Window) -> Op| {
                for i in 0..4 {
                    for huge in HUGE {
                        let (mut pad, mut kernel, mut stride, mut dilation) = (window, window, window, window);
                        pad.pad[i] = huge;
                        kernel.kernel[i % 2] = huge;
                        stride.stride[i % 2] = if i < 2 { 0 } else { huge };
                        dilation.dilation[i % 2] = if i < 2 { 0 } else { huge };
                        push(&op(pad));
                        push(&op(kernel));
                        push(&op(stride));
                        push(&op(dilation));
                    }
                }
            };
            match g.node(id).op.clone() {
                Op::Conv { weight, bias, window, groups } => {
                    windows(window, &|window| Op::Conv { weight, bias, window, groups });
                    for groups in HUGE.into_iter().chain([0]) {
                        push(&Op::Conv { weight, bias, window, groups });
                    }
                    push(&Op::Conv { weight: ConstId(u32::MAX), bias, window, groups });
                    push(&Op::Conv { weight, bias: Some(ConstId(7777)), window, groups });
                    push(&Op::Conv { weight, bias: Some(weight), window, groups });
                }
                Op::Dense { weight, bias } => {
                    push(&Op::Dense { weight: ConstId(u32::MAX), bias });
                    push(&Op::Dense { weight, bias: Some(ConstId(7777)) });
                }
                Op::AvgPool { window, counted } => windows(window, &|window| Op::AvgPool { window, counted }),
                Op::SumPool { window, divisor } => windows(window, &|window| Op::SumPool { window, divisor }),
                Op::MaxPool { window } => windows(window, &|window| Op::MaxPool { window }),
                Op::Gather { axis, indices } => {
                    for axis in [4, usize::MAX] {
                        push(&Op::Gather { axis, indices: indices.clone() });
                    }
                    push(&Op::Gather { axis, indices: vec![usize::MAX; indices.len()] });
                    push(&Op::Gather { axis, indices: Vec::new() });
                }
                Op::Scatter { axis, size, indices } => {
                    for axis in [4, usize::MAX] {
                        push(&Op::Scatter { axis, size, indices: indices.clone() });
                    }
                    for size in HUGE.into_iter().chain([0, indices.len() - 1]) {
                        push(&Op::Scatter { axis, size, indices: indices.clone() });
                    }
                    push(&Op::Scatter { axis, size, indices: vec![0; indices.len() + 1] });
                    push(&Op::Scatter { axis, size, indices: indices[1..].to_vec() });
                    push(&Op::Scatter { axis, size, indices: vec![usize::MAX; indices.len()] });
                }
                Op::Reshape { .. } => {
                    push(&Op::Reshape { shape: vec![] });
                    push(&Op::Reshape { shape: vec![usize::MAX, usize::MAX] });
                    push(&Op::Reshape { shape: vec![1 << 32, 1 << 32] });
                }
                Op::BlockRelu { blocks, plannable } => {
                    push(&Op::BlockRelu { blocks: blocks[1..].to_vec(), plannable });
                    let none = bcc_ir::Block::Patch { h: 0, w: 1 };
                    push(&Op::BlockRelu { blocks: vec![none; blocks.len()], plannable });
                }
                Op::Divide { numerator, shift, divisors } => {
                    push(&Op::Divide { numerator, shift, divisors: vec![0; divisors.len()] });
                    push(&Op::Divide { numerator, shift, divisors: Vec::new() });
                    push(&Op::Divide { numerator: 0, shift, divisors });
                }
                Op::Add => {
                    push(&Op::Pad { pad: [usize::MAX; 4] });
                    push(&Op::Transpose { perm: vec![usize::MAX; 4] });
                }
                _ => {}
            }
            for op in mutants {
                let text = format!("{op:?}");
                let mutant = mutated(&g, id, |n| n.op = op);
                let Err(Violations(found)) = verify(&mutant, Stage::Imported) else {
                    // A wider step over a map that one window covers is the same map.
                    let single = matches!(
                        mutant.node(id).op,
                        Op::Conv { window, .. } | Op::SumPool { window, .. } | Op::AvgPool { window, .. }
                            | Op::MaxPool { window }
                            if window.stride.contains(&usize::MAX) || window.stride.iter().any(|s| *s > 1 << 30)
                                || window.dilation.iter().any(|s| *s > 1 << 30)
                    );
                    assert!(single, "accepted: {} as {text}", g.node(id).name);
                    for stage in [Stage::Canonical, Stage::Ranged, Stage::Quantized] {
                        let _ = verify(&mutant, stage);
                    }
                    continue;
                };
                assert!(found.iter().any(|v| v.node == g.node(id).name), "{text}: {}", Violations(found));
                assert!(!mutant.to_string().is_empty());
            }
        }
    }
    // Padding whose size overflows, under an input that fits it.
    let mut g = Graph::new("pads");
    let x = g.add_input("x", vec![1, 1, 4, 4]);
    for pad in [[usize::MAX, 0, 0, 0], [1, 0, usize::MAX, 0], [0, usize::MAX / 2, 0, usize::MAX / 2]] {
        assert!(g.add("pad", vec!["pad".into()], Op::Pad { pad }, &[x]).is_err(), "{pad:?}");
    }
    let wide = g.add("pad", vec!["pad".into()], Op::Pad { pad: [0, 1 << 40, 0, 0] }, &[x]).unwrap();
    g.set_output(wide);
    refused(&g, Stage::Imported, "pad", "too many elements");
}

/// Invariant 5.
#[test]
fn constants() {
    for g in subjects().into_iter().chain([canonical("tiny_plain")]) {
        let count = all(&g, Op::is_linear_layer).iter().map(|i| g.node(*i).op.consts().len()).sum::<usize>();
        for i in 0..count as u32 {
            let id = ConstId(i);
            let c = g.constant(id).clone();
            let mut longer = c.shape.clone();
            longer[0] += 1;
            let mut overflowing = c.shape.clone();
            overflowing.extend([usize::MAX, usize::MAX]);
            for shape in [longer, overflowing, Vec::new()] {
                let mut mutant = g.clone();
                mutant.set_const(id, shape, c.data.clone());
                if c.shape != [1] || !mutant.constant(id).shape.is_empty() {
                    refused(&mutant, Stage::Imported, &c.name, "fill its shape");
                }
            }
            let ConstData::Float(values) = &c.data else { continue };
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = values.clone();
                *values.last_mut().unwrap() = bad;
                let mut mutant = g.clone();
                mutant.set_const(id, c.shape.clone(), ConstData::Float(values));
                refused(&mutant, Stage::Imported, &c.name, "not finite");
            }
        }
    }
}

/// Invariant 6.
#[test]
fn what_canonical_graphs_leave_behind() {
    let imported = stages("tiny_pools").swap_remove(0).1;
    for (op, what) in [("affine", "affine is left"), ("max_pool", "max_pool is left")] {
        for id in all(&imported, |o| o.name() == op) {
            refused(&imported, Stage::Canonical, &imported.node(id).name, what);
        }
    }
    let g = canonical("tiny_pools");
    for id in all(&g, |o| matches!(o, Op::BlockRelu { .. })) {
        let idle = mutated(&g, id, |n| n.op = Op::Identity);
        refused(&idle, Stage::Canonical, &g.node(id).name, "identity is left");
        let mut dead = g.clone();
        let extra = dead.add("unused", vec!["unused".into()], Op::Pad { pad: [1; 4] }, &[id]).unwrap();
        refused(&dead, Stage::Canonical, &dead.node(extra).name, "nothing uses it");
    }
}

/// Invariant 7.
#[test]
fn operators_of_another_stage() {
    for g in subjects() {
        let late = all(&g, |o| {
            matches!(o, Op::Truncate { .. } | Op::Refresh | Op::Remask | Op::Divide { .. })
                || matches!(o, Op::SumPool { .. })
        });
        for id in late {
            refused(&g, Stage::Canonical, &g.node(id).name, "does not belong");
            refused(&g, Stage::Ranged, &g.node(id).name, "does not belong");
        }
        for id in all(&g, |o| matches!(o, Op::SumPool { .. })) {
            let Op::SumPool { window, .. } = g.node(id).op else { continue };
            let early = mutated(&g, id, |n| n.op = Op::AvgPool { window, counted: [0; 4] });
            refused(&early, Stage::Quantized, &g.node(id).name, "avg_pool does not belong");
        }
    }
}

/// Invariant 8.
#[test]
fn bounds_are_there_and_finite() {
    for (stage, g) in stages("tiny_residual").into_iter().filter(|(s, _)| *s >= Stage::Ranged) {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            refused(&mutated(&g, id, |n| n.range = None), stage, &name, "no finite bound");
            for bound in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
                let r = Range { bound, ..range(&g, id) };
                refused(&mutated(&g, id, |n| n.range = Some(r)), stage, &name, "no finite bound");
                if range(&g, id).block_sum.is_some() {
                    let r = Range { block_sum: Some((bound, OBSERVED)), ..range(&g, id) };
                    refused(&mutated(&g, id, |n| n.range = Some(r)), stage, &name, "no finite bound");
                }
            }
            if range(&g, id).block_sum.is_some() {
                let r = Range { block_sum: None, ..range(&g, id) };
                refused(&mutated(&g, id, |n| n.range = Some(r)), stage, &name, "no finite bound");
            }
        }
    }
}
