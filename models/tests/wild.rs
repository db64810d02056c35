//! The small networks in the forms that other tools write: tract computes the same.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;

use bcc_models::nets::wild::{Wild, pair};
use bcc_models::nets::{BuildOptions, NETS, ResizeSize, find};
use bcc_models::{ModelError, write_model};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

/// What tract makes of a file, on values between -1.5 and 1.5.
fn run(path: &Path) -> Vec<f32> {
    let model = tract_onnx::onnx().model_for_path(path).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
    let shape = model.input_fact(0).unwrap().shape.as_concrete_finite().unwrap().unwrap();
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|i| (i * 7919 % 1000) as f32 * 0.003 - 1.5).collect();
    let plan = model.into_optimized().unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
    let input = Tensor::from_shape(&shape, &values).unwrap();
    let out = plan.into_runnable().unwrap().run(tvec!(input.into())).unwrap();
    out[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect()
}

fn assert_same(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}");
    let far = a.iter().zip(b).find(|(a, b)| (*a - *b).abs() > 1e-4);
    assert_eq!(far, None, "{what}");
    assert!(a.iter().any(|v| v.abs() > 0.01), "{what}: nothing but zeros");
}

fn holds(model: &ModelProto, op: &str) -> bool {
    model.graph.iter().flat_map(|g| &g.node).any(|n| n.op_type == op)
}

#[test]
fn every_form_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, wild) = (folder.path().join("plain.onnx"), folder.path().join("wild.onnx"));
    let mut changed = [0; Wild::ALL.len()];
    for net in NETS.iter().filter(|n| n.name.starts_with("tiny")) {
        for opset in [7, 13, 21] {
            let options = BuildOptions { opset, ..BuildOptions::default() };
            for (form, changed) in Wild::ALL.into_iter().zip(&mut changed) {
                let made = match pair(net.name, form, &options) {
                    Err(ModelError::OpsetTooOld { .. }) => continue,
                    made => made.unwrap(),
                };
                let what = format!("{} {form:?}, opset {opset}", net.name);
                *changed += usize::from(made.plain != made.wild);
                if form == Wild::Duplicate {
                    continue; // tract wants names to differ
                }
                write_model(&made.plain, &plain).unwrap();
                made.write_wild(&wild).unwrap();
                assert_same(&what, &run(&plain), &run(&wild));
            }
        }
    }
    println!("changed {changed:?}");
    for (form, count) in Wild::ALL.into_iter().zip(changed) {
        assert!(count >= 6, "{form:?} changes {count} networks alone");
    }
}

#[test]
fn forms_hold_what_they_are_named_after() {
    let options = BuildOptions::default();
    let made = |form| pair("tiny_residual", form, &options).unwrap();
    let graph = |model: &ModelProto| model.graph.clone().unwrap();
    assert!(graph(&made(Wild::Constants).wild).initializer.is_empty());
    assert!(holds(&made(Wild::Shared).wild, "Identity"));
    assert!(graph(&made(Wild::Unnamed).wild).node.iter().all(|n| n.name.is_empty()));
    let mut duplicate = made(Wild::Duplicate).wild;
    for node in duplicate.graph.iter_mut().flat_map(|g| &mut g.node) {
        assert_eq!(std::mem::take(&mut node.name), "node");
    }
    assert_eq!(duplicate, made(Wild::Unnamed).wild);
    for form in [Wild::Half, Wild::Double] {
        assert!(holds(&made(form).wild, "Cast"));
    }
    let external = made(Wild::External);
    assert!(graph(&external.wild).initializer.iter().all(|t| t.raw_data.is_empty()));
    assert!(external.data.is_some());
    assert!(!holds(&made(Wild::ShapeArithmetic).wild, "Flatten"));
    assert!(!holds(&made(Wild::Arithmetic).wild, "BatchNormalization"));
    assert!(graph(&made(Wild::Inputs).wild).input.len() > 1);
}

/// Any size, any opset and any way to write a `Resize`.
#[test]
fn sizes_and_resizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    for name in ["tiny_segment", "tiny_upsample"] {
        let net = find(name).unwrap();
        // Sizes that halve evenly and sizes that do not.
        for size in [[12, 16], [8, 23], [21, 14]] {
            let mut first: Option<Vec<f32>> = None;
            for opset in [11, 13, 18, 21] {
                for resize in [ResizeSize::Sizes, ResizeSize::Scales, ResizeSize::Shape] {
                    let options = BuildOptions { opset, size: Some(size), resize, ..BuildOptions::default() };
                    write_model(&net.build(&options).unwrap(), &path).unwrap();
                    let y = run(&path);
                    assert_eq!(y.len(), 4 * size[0] * size[1]);
                    let what = format!("{name} {size:?}, opset {opset}, {resize:?}");
                    assert_same(&what, first.get_or_insert_with(|| y.clone()), &y);
                }
            }
        }
    }
}

/// The weights are those of the net's own size.
#[test]
fn sizes_keep_the_weights() {
    for name in ["tiny_segment", "tiny_nhwc", "resnet8"] {
        let net = find(name).unwrap();
        let weights = |size| {
            let options = BuildOptions { size, resize: ResizeSize::Shape, ..BuildOptions::default() };
            let graph = net.build(&options).unwrap().graph.unwrap();
            let floats = graph.initializer.into_iter().filter(|t| t.data_type == 1);
            floats.map(|t| (t.name, t.raw_data)).collect::<Vec<_>>()
        };
        assert!(weights(None) == weights(Some([40, 25])), "{name}");
    }
}
