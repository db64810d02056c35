//! Types, moduli and bounds of quantized graphs.

use super::*;

/// Invariant 9: every field of every node's type, one up, one down.
///
/// One change is no fault: the scale of the input. It is declared like its shape, and with the
/// integer weights given it decides only which real numbers they stand for; where bounds follow
/// from it, the layer that reads it is refused.
#[test]
fn every_field_of_every_type() {
    for g in subjects().into_iter().chain([proven()]) {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            let f = fixed(&g, id);
            let client = if f.client == ClientShare::Dealt { ClientShare::Local } else { ClientShare::Dealt };
            let scales = [
                Fixed { frac: f.frac + 1, ..f },
                Fixed { frac: f.frac - 1, ..f },
                Fixed { gain: f.gain * 2.0, ..f },
                Fixed { gain: f.gain * (1.0 + 1e-6), ..f },
            ];
            let others = [
                Fixed { modulus: f.modulus + 1, ..f },
                Fixed { modulus: f.modulus - 1, ..f },
                Fixed { modulus: f.modulus + 8, ..f },
                Fixed { client, ..f },
            ];
            let absurd = [
                Fixed { modulus: 0, ..f },
                Fixed { modulus: 255, ..f },
                Fixed { frac: 63, ..f },
                Fixed { frac: 255, ..f },
                Fixed { gain: 0.0, ..f },
                Fixed { gain: -f.gain, ..f },
                Fixed { gain: f64::NAN, ..f },
                Fixed { gain: f64::INFINITY, ..f },
            ];
            let input = matches!(g.node(id).op, Op::Input);
            for other in scales {
                if !input {
                    refused_nearby(&mutated(&g, id, |n| n.fixed = Some(other)), id, &format!("{other:?}"));
                }
            }
            let lifts = matches!(g.node(id).op, Op::BlockRelu { .. } | Op::Clip { .. } | Op::Refresh);
            for other in others.into_iter().chain(absurd) {
                let mutant = mutated(&g, id, |n| n.fixed = Some(other));
                // A lift may be to any modulus that those who read it follow; sums follow the least of theirs.
                if lifts && other.modulus != f.modulus && (1..=g.ring.unwrap()).contains(&other.modulus) {
                    let sum = |u: &NodeId| matches!(g.node(*u).op, Op::Add | Op::Sub | Op::Concat { .. });
                    if other.modulus < f.modulus || !g.users(id).iter().all(sum) {
                        refused_nearby(&mutant, id, &format!("{other:?}"));
                    }
                    continue;
                }
                refused(&mutant, Stage::Quantized, &name, "");
            }
            refused(&mutated(&g, id, |n| n.fixed = None), Stage::Quantized, &name, "no fixed-point type");
        }
    }
    let g = proven();
    let input = g.input().unwrap();
    let f = fixed(&g, input);
    for other in [Fixed { frac: f.frac + 1, ..f }, Fixed { gain: f.gain / 2.0, ..f }] {
        refused_nearby(&mutated(&g, input, |n| n.fixed = Some(other)), input, "scale");
    }
}

/// Invariant 9: the operators' own numbers.
#[test]
fn attributes_of_quantized_operators() {
    for g in subjects() {
        for id in g.topo() {
            let mutants: Vec<Op> = match g.node(id).op.clone() {
                Op::Truncate { bits } => [bits + 1, bits - 1, 0, 63, 255].map(|bits| Op::Truncate { bits }).into(),
                Op::Divide { numerator, shift, divisors } => {
                    let with = |numerator, shift| Op::Divide { numerator, shift, divisors: divisors.clone() };
                    let shifts = [shift + 1, shift.wrapping_sub(1), 255].map(|shift| with(numerator, shift));
                    let numerators = [numerator + 1, 2 * numerator, u64::MAX].map(|numerator| with(numerator, shift));
                    shifts.into_iter().chain(numerators).collect()
                }
                Op::SumPool { window, divisor } => {
                    [divisor + 1, divisor * 2, 0, usize::MAX].map(|divisor| Op::SumPool { window, divisor }).into()
                }
                Op::Refresh => vec![Op::Remask],
                Op::Remask => vec![Op::Refresh],
                _ => Vec::new(),
            };
            for op in mutants {
                let what = format!("{op:?}");
                refused_nearby(&mutated(&g, id, |n| n.op = op), id, &what);
            }
        }
    }
}

/// Invariant 9: the ring.
#[test]
fn the_ring() {
    for g in subjects() {
        let at = |ring: Option<u8>| {
            let mut mutant = g.clone();
            mutant.ring = ring;
            mutant
        };
        refused(&at(None), Stage::Quantized, &g.name, "ring width is not set");
        let input = g.node(g.input().unwrap()).name.clone();
        let ring = g.ring.unwrap();
        for other in [0, 1, ring - 8, ring - 1, ring + 1, ring + 8, 65, 72, 255] {
            refused(&at(Some(other)), Stage::Quantized, &input, "");
        }
    }
}

/// Invariant 9: what a linear layer reads.
#[test]
fn linear_layers_read_dealt_values_and_integers() {
    let g = identities();
    let made = all(&g, |o| matches!(o, Op::Remask | Op::Refresh));
    assert!(!made.is_empty());
    for id in made {
        let layer = g.users(id)[0];
        let mut mutant = g.clone();
        let operand = mutant.operand(id);
        mutant.bypass(id, operand);
        refused(&mutant, Stage::Quantized, &g.node(layer).name, "not dealt");
    }
    for g in subjects() {
        for id in all(&g, Op::is_linear_layer) {
            for c in g.node(id).op.consts() {
                let mut mutant = g.clone();
                let constant = g.constant(c);
                let ConstData::Int(v) = &constant.data else { panic!("{} is not quantized", constant.name) };
                let real = ConstData::Float(v.iter().map(|x| *x as f32).collect());
                mutant.set_const(c, constant.shape.clone(), real);
                refused(&mutant, Stage::Quantized, &g.node(id).name, "not integers");
            }
        }
    }
}

/// Invariant 9: summands on different scales, each branch consistent in itself.
#[test]
fn summands_have_one_scale() {
    let g = quantized("tiny_residual", true);
    for id in all(&g, |o| matches!(o, Op::Add)) {
        for truncated in g.operands(id) {
            if !matches!(g.node(truncated).op, Op::Truncate { .. }) {
                continue;
            }
            let mut mutant = g.clone();
            for n in [truncated, g.operand(truncated)] {
                let f = fixed(&g, n);
                mutant.node_mut(n).fixed = Some(Fixed { gain: 0.5, ..f });
            }
            refused(&mutant, Stage::Quantized, &g.node(id).name, "different scales");
            let mut finer = g.clone();
            for n in [truncated, g.operand(truncated)] {
                let f = fixed(&g, n);
                finer.node_mut(n).fixed = Some(Fixed { frac: f.frac - 1, ..f });
            }
            refused(&finer, Stage::Quantized, &g.node(id).name, "");
        }
    }
}

/// Invariant 10: every value that fills its modulus, gates' operands at a quarter, block sums.
#[test]
fn values_that_do_not_fit() {
    for g in subjects() {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            let half = (f64::from(fixed(&g, id).modulus) - 1.0).exp2();
            let full = reaching(&g, id, half);
            refused(&mutated(&g, id, |n| n.range = Some(full)), Stage::Quantized, &name, "bits hold");
            let gate = matches!(g.node(id).op, Op::BlockRelu { .. } | Op::Refresh);
            if !gate {
                continue;
            }
            let operand = g.operand(id);
            let half = (f64::from(fixed(&g, operand).modulus) - 1.0).exp2();
            let quarter = reaching(&g, operand, half / 2.0);
            let mutant = mutated(&g, operand, |n| n.range = Some(quarter));
            refused(&mutant, Stage::Quantized, &name, "more than a quarter");
            if let Some((_, _)) = range(&g, id).block_sum {
                let sum = half * fixed(&g, id).unit();
                let r = Range { block_sum: Some((sum, OBSERVED)), ..range(&g, id) };
                let mutant = mutated(&g, id, |n| n.range = Some(r));
                refused(&mutant, Stage::Quantized, &name, "block sums reach");
                let r = Range { block_sum: Some((sum * 0.999, OBSERVED)), ..range(&g, id) };
                verify(&mutated(&g, id, |n| n.range = Some(r)), Stage::Quantized).unwrap();
            }
        }
    }
}

/// Invariant 11: every bound that follows, one percent too small.
#[test]
fn bounds_that_do_not_follow() {
    let (mut values, mut sums) = (0, 0);
    for g in subjects().into_iter().chain([proven()]) {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            let r = range(&g, id);
            let less = Range { bound: r.bound * 0.99, ..r };
            let mutant = mutated(&g, id, |n| n.range = Some(less));
            let observed = matches!(r.evidence, Evidence::Observed { .. });
            if !observed && !matches!(g.node(id).op, Op::Input) {
                refused(&mutant, Stage::Quantized, &name, "does not follow");
                values += 1;
            }
            if let Some((sum, evidence)) = r.block_sum
                && !matches!(evidence, Evidence::Observed { .. })
            {
                let less = Range { block_sum: Some((sum * 0.99, evidence)), ..r };
                refused(&mutated(&g, id, |n| n.range = Some(less)), Stage::Quantized, &name, "block sums may reach");
                sums += 1;
            }
        }
    }
    assert!(values > 80 && sums > 10, "{values} {sums}");
}

/// Invariant 11: a larger weight or bias, with the bounds left as they were.
#[test]
fn weights_that_break_a_bound() {
    let g = proven();
    for id in all(&g, Op::is_linear_layer) {
        for c in g.node(id).op.consts() {
            let constant = g.constant(c).clone();
            let ConstData::Int(values) = &constant.data else { panic!("not quantized") };
            for i in 0..values.len() {
                let mut values = values.clone();
                // Far enough to make any channel the largest.
                values[i] += if values[i] < 0 { -(1 << 40) } else { 1 << 40 };
                let mut mutant = g.clone();
                mutant.set_const(c, constant.shape.clone(), ConstData::Int(values));
                refused(&mutant, Stage::Quantized, &g.node(id).name, "does not follow");
            }
            if constant.shape.len() == 1 {
                continue;
            }
            // Wherever the bound comes from, a little more.
            let grown: Vec<i64> = values.iter().map(|v| if *v < 0 { v - 4096 } else { v + 4096 }).collect();
            let mut mutant = g.clone();
            mutant.set_const(c, constant.shape.clone(), ConstData::Int(grown));
            refused(&mutant, Stage::Quantized, &g.node(id).name, "does not follow");
        }
    }
}

/// Invariant 11: claims of a proof.
#[test]
fn proofs_that_rest_on_observation() {
    let (mut observed, mut derived, mut sums) = (0, 0, 0);
    for g in subjects() {
        for id in g.topo() {
            let name = g.node(id).name.clone();
            let r = range(&g, id);
            let claim = |evidence| mutated(&g, id, |n| n.range = Some(Range { evidence, ..r }));
            match r.evidence {
                Evidence::Observed { .. } => {
                    refused(&claim(Evidence::Proven), Stage::Quantized, &name, "does not follow");
                    refused(&claim(Evidence::Derived), Stage::Quantized, &name, "does not follow");
                    observed += 1;
                }
                Evidence::Derived => {
                    refused(&claim(Evidence::Proven), Stage::Quantized, &name, "called proven");
                    derived += 1;
                }
                Evidence::Proven => verify(&claim(Evidence::Derived), Stage::Quantized).unwrap(),
            }
            if let Some((sum, evidence)) = r.block_sum
                && evidence != Evidence::Proven
            {
                let r = Range { block_sum: Some((sum, Evidence::Proven)), ..r };
                let mutant = mutated(&g, id, |n| n.range = Some(r));
                refused(&mutant, Stage::Quantized, &name, "block sums");
                sums += 1;
            }
        }
    }
    assert!(observed > 20 && derived > 40 && sums > 10, "{observed} {derived} {sums}");
}

/// Shapes without channels have one interval: a transpose that moves axis 0 and one that brings it
/// back do not mix channels up.
#[test]
fn intervals_of_shapes_without_channels() {
    let mut g = Graph::new("moved");
    let x = g.add_input("x", vec![1, 2, 3, 1]);
    let origin = |n: &str| vec![n.to_string()];
    let window = Window::new([1, 1]);
    let w = g.add_const("w", vec![2, 1, 1, 1], ConstData::Float(vec![1.0, 100.0]));
    let conv = g.add("scale", origin("scale"), Op::Conv { weight: w, bias: None, window, groups: 2 }, &[x]).unwrap();
    let moved = g.add("moved", origin("moved"), Op::Transpose { perm: vec![2, 1, 0, 3] }, &[conv]).unwrap();
    let flat = g.add("flat", origin("flat"), Op::Reshape { shape: vec![1, 6] }, &[moved]).unwrap();
    // Reads one element of the second channel.
    let pick = g.add_const("pick", vec![1, 6], ConstData::Float(vec![0.0, 1.0, 0.0, 0.0, 0.0, 0.0]));
    let dense = g.add("dense", origin("dense"), Op::Dense { weight: pick, bias: None }, &[flat]).unwrap();
    g.set_output(dense);
    let mut o = options(BlockChoice::Keep, Vec::new());
    o.passes.input_bound = Some(1.0);
    let c = compile_graph(g, &o, &mut Quiet).unwrap();
    let bound = range(&c.graph, c.graph.find("dense").unwrap()).bound;
    assert!(bound >= 99.9, "{bound}");
}
