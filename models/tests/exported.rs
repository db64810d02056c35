//! Files that nobody here wrote: what each holds, and that tract computes what their authors' tool did.
//! `models/scripts/fetch.sh all` and `fetch.sh torch` bring them; a file that is missing is skipped, and said so.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

/// A file, its operator set and how often it holds an operator that it is there for.
struct Found {
    file: &'static str,
    opset: i64,
    ops: &'static [(&'static str, usize)],
}

const FILES: &[Found] = &[
    Found {
        file: "open_nsfw.onnx",
        opset: 9,
        ops: &[("Conv", 53), ("Relu", 49), ("MaxPool", 1), ("AveragePool", 1), ("MatMul", 1), ("Softmax", 1)],
    },
    Found {
        file: "light_resnet50.onnx",
        opset: 9,
        ops: &[("Conv", 53), ("BatchNormalization", 53), ("Relu", 49), ("Sum", 16), ("ConstantOfShape", 239)],
    },
    Found {
        file: "torchvision_resnet18_script.onnx",
        opset: 9,
        ops: &[("Conv", 20), ("BatchNormalization", 20), ("Relu", 17), ("Flatten", 1)],
    },
    Found {
        file: "torchvision_resnet18_dynamo.onnx",
        opset: 20,
        ops: &[("Conv", 20), ("BatchNormalization", 0), ("ReduceMean", 1), ("Reshape", 1)],
    },
    Found {
        file: "torchvision_resnet50_script.onnx",
        opset: 13,
        ops: &[("Conv", 53), ("Relu", 49), ("MaxPool", 1), ("GlobalAveragePool", 1)],
    },
    Found {
        file: "torchvision_resnet50_dynamo.onnx",
        opset: 20,
        ops: &[("Conv", 53), ("Relu", 49), ("MaxPool", 1), ("ReduceMean", 1)],
    },
    Found {
        file: "torchvision_mobilenet_v2_script.onnx",
        opset: 11,
        ops: &[("Conv", 52), ("Clip", 35), ("Constant", 70)],
    },
    Found {
        file: "torchvision_mobilenet_v2_dynamo.onnx",
        opset: 20,
        ops: &[("Conv", 52), ("Clip", 35), ("Constant", 0)],
    },
    Found {
        file: "torchvision_deeplabv3_resnet50_script.onnx",
        opset: 17,
        ops: &[("Conv", 61), ("Resize", 2), ("Shape", 6), ("Slice", 2), ("Gather", 4), ("Unsqueeze", 4), ("Cast", 2)],
    },
    Found {
        file: "torchvision_deeplabv3_resnet50_dynamo.onnx",
        opset: 20,
        ops: &[("Conv", 61), ("Resize", 2), ("Concat", 1), ("Shape", 0), ("ReduceMean", 1)],
    },
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fetched")
}

fn read(path: &Path) -> ModelProto {
    ModelProto::decode(std::fs::read(path).unwrap().as_slice()).unwrap()
}

#[test]
fn files_hold_what_they_are_there_for() {
    for found in FILES {
        let path = folder().join(found.file);
        if !path.exists() {
            println!("skipped: {} is not fetched", found.file);
            continue;
        }
        let model = read(&path);
        let mut ops = BTreeMap::new();
        for node in model.graph.iter().flat_map(|g| &g.node) {
            *ops.entry(node.op_type.as_str()).or_insert(0) += 1;
        }
        println!("{}: opset {}, {ops:?}", found.file, model.opset_import[0].version);
        assert_eq!(model.opset_import[0].version, found.opset, "{}", found.file);
        for (op, count) in found.ops {
            assert_eq!(ops.get(op).copied().unwrap_or(0), *count, "{}: {op}", found.file);
        }
    }
}

/// tract's result is PyTorch's, for the exports of both exporters.
#[test]
fn exports_compute_what_pytorch_did() {
    for name in ["resnet18", "resnet50", "mobilenet_v2", "deeplabv3_resnet50"] {
        let reference = folder().join(format!("torchvision_{name}.npz"));
        for exporter in ["script", "dynamo"] {
            let path = folder().join(format!("torchvision_{name}_{exporter}.onnx"));
            if !(path.exists() && reference.exists()) {
                println!("skipped: {} is not fetched", path.display());
                continue;
            }
            let mut npz = NpzReader::new(std::fs::File::open(&reference).unwrap()).unwrap();
            let x: ArrayD<f32> = npz.by_name("x").unwrap();
            let y: ArrayD<f32> = npz.by_name("y").unwrap();
            let mut shape = x.shape().to_vec();
            shape[0] = 1;
            let input = Tensor::from_shape(&shape, &x.as_slice().unwrap()[..shape.iter().product()]).unwrap();
            let model = tract_onnx::onnx().model_for_path(&path).unwrap();
            let model = model.with_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), &shape)).unwrap();
            let model = model.with_output_fact(0, InferenceFact::default()).unwrap();
            let plan = model.into_optimized().unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
            let out = plan.into_runnable().unwrap().run(tvec!(input.into())).unwrap();
            let got = out[0].to_plain_array_view::<f32>().unwrap();
            let largest = y.iter().fold(0f32, |m, v| m.max(v.abs()));
            let error = got.iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            println!("{name}, {exporter}: largest {largest}, error {error}");
            assert!(error <= 1e-3 * largest.max(1.0), "{name}, {exporter}: {error} of {largest}");
            assert_eq!(got.len() * 2, y.len(), "{name}, {exporter}");
        }
    }
}
