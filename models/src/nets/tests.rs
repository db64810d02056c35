use prost::Message;
use tract_onnx::prelude::*;

use super::*;
use crate::inspect::{ReluCount, relu_count};

/// Every node output of `model` on `x`, by output name, computed by tract.
fn run_all(model: &ModelProto, x: &[f32]) -> Vec<(String, String, Vec<f32>)> {
    let mut model = model.clone();
    let graph = model.graph.as_mut().expect("a graph");
    let nodes: Vec<(String, String)> = graph.node.iter().map(|n| (n.output[0].clone(), n.op_type.clone())).collect();
    graph.output = nodes
        .iter()
        .map(|(name, _)| tract_onnx::pb::ValueInfoProto { name: name.clone(), ..Default::default() })
        .collect();
    let outputs = run(&model, x);
    nodes.into_iter().zip(outputs).map(|((name, op), data)| (name, op, data)).collect()
}

fn run(model: &ModelProto, x: &[f32]) -> Vec<Vec<f32>> {
    let inferred = tract_onnx::onnx().model_for_proto_model(model).expect("tract reads it");
    let shape: Vec<usize> = inferred
        .input_fact(0)
        .expect("an input")
        .shape
        .as_concrete_finite()
        .expect("a shape")
        .expect("a fixed shape")
        .to_vec();
    let plan = inferred.into_optimized().expect("tract optimises it").into_runnable().expect("tract plans it");
    let input = Tensor::from_shape(&shape, x).expect("as many values as the input takes");
    plan.run(tvec!(input.into()))
        .expect("tract runs it")
        .iter()
        .map(|t| t.to_plain_array_view::<f32>().expect("floats").iter().copied().collect())
        .collect()
}

/// Asserts that `net` has natural activations on normal noise.
fn assert_natural(name: &str) {
    assert_natural_at(name, None);
}

/// The same on images of another size.
fn assert_natural_at(name: &str, size: Option<[usize; 2]>) {
    let net = find(name).expect("a known net");
    let model = net.build(&BuildOptions { size, ..BuildOptions::default() }).expect("it builds");
    let [c, h, w] = net.input;
    let [h, w] = size.unwrap_or([h, w]);
    let x = Rng::new(99).normals(c * h * w, 0.0, 1.0);
    // A ReLU6 lets pass up to 6, and a convolution sums it.
    let limit = if model.graph.iter().flat_map(|g| &g.node).any(|n| n.op_type == "Clip") { 40.0 } else { 20.0 };
    let (mut active, mut total, mut largest) = (0, 0, 0f32);
    for (value, op, data) in run_all(&model, &x) {
        let peak = data.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(data.iter().all(|v| v.is_finite()), "{name}: {value}");
        assert!(peak < limit, "{name}: {value} reaches {peak}");
        assert!(peak > 0.05, "{name}: {value} stays below {peak}");
        largest = largest.max(peak);
        if ["Relu", "Clip", "PRelu", "LeakyRelu"].contains(&op.as_str()) {
            active += data.iter().filter(|&&v| v > 0.0).count();
            total += data.len();
        }
    }
    let share = active as f64 / total as f64;
    println!("{name}: largest {largest}, {share:.3} of the ReLUs active");
    assert!((0.3..0.7).contains(&share), "{name}: {share} active");
}

fn assert_relus(name: &str, batch: Option<i64>, layers: usize, elements: usize) {
    let options = BuildOptions { batch, ..BuildOptions::default() };
    let model = find(name).and_then(|net| net.build(&options)).expect("it builds");
    let count = relu_count(&model).expect("shapes are known");
    assert_eq!(count, ReluCount { layers, elements }, "{name}");
}

#[test]
fn single_layers_are_what_they_say() {
    assert_relus("single_conv", None, 0, 0);
    assert_relus("million_relus", Some(1), 1, 1_000_000);
    assert_relus("conv_relus", Some(1), 3, (256 + 64 + 64) * 56 * 56);
    for (name, outputs) in [("single_conv", 64 * 72), ("million_relus", 100), ("conv_relus", 64)] {
        let net = find(name).expect("a known net");
        let model = net.build(&BuildOptions { size: Some([9, 8]), ..BuildOptions::default() }).expect("it builds");
        let y = run(&model, &Rng::new(5).normals(net.input[0] * 72, 0.0, 1.0));
        assert_eq!(y[0].len(), outputs, "{name}");
    }
}

#[test]
fn resnet18_cifar_is_the_published_size() {
    assert_relus("resnet18_cifar", None, 17, 557_056);
}

#[test]
fn small_resnets_are_the_trained_ones_size() {
    for batch in [Some(3), None] {
        assert_relus("resnet8", batch, 7, 56_448);
        assert_relus("resnet20", batch, 19, 144_256);
    }
}

#[test]
fn resnet50_is_the_published_size() {
    let model = find("resnet50").and_then(|net| net.build(&BuildOptions::default())).expect("it builds");
    let count = relu_count(&model).expect("shapes are known");
    assert_eq!((count.layers, count.elements), (49, 9_608_704));
    let weights: i64 = model.graph.iter().flat_map(|g| &g.initializer).map(|t| t.dims.iter().product::<i64>()).sum();
    // torchvision's count and the running statistics of 26,560 channels.
    assert_eq!(weights, 25_557_032 + 2 * 26_560);
}

#[test]
fn deeplab_on_mobilenet_is_the_published_size() {
    assert_relus("deeplabv3_mobilenetv2", Some(1), 40, 85_262_848);
}

#[test]
fn deeplab_on_resnet_is_the_published_size() {
    assert_relus("deeplabv3_resnet50", Some(1), 57, 127_402_496);
}

#[test]
fn deeplabs_are_natural() {
    for name in ["deeplabv3_mobilenetv2", "deeplabv3_mobilenetv2_relu6", "deeplabv3_resnet50_avg"] {
        assert_natural_at(name, Some([136, 104]));
    }
}

#[test]
fn resnet18_cifar_is_natural() {
    assert_natural("resnet18_cifar");
}

#[test]
fn small_nets_are_natural() {
    for net in NETS.iter().filter(|n| n.name.starts_with("tiny") || n.name == "resnet8" || n.name == "resnet20") {
        assert_natural(net.name);
    }
}

#[test]
fn resnet50_is_natural() {
    assert_natural("resnet50");
    assert_natural("resnet50_avg");
}

/// The forward pass behind the statistics agrees with tract: on the calibration batch, tract finds
/// the running means at the inputs of the batch norms.
#[test]
fn calibration_agrees_with_tract() {
    const COUNT: usize = 8;
    for name in
        ["tiny_pools", "tiny_grouped", "tiny_residual", "resnet8", "tiny_segment", "tiny_upsample", "tiny_gates"]
    {
        let net = find(name).expect("a known net");
        let options = BuildOptions { batch: Some(COUNT as i64), ..BuildOptions::default() };
        let model = net.build(&options).expect("it builds");
        let batch = Batch::calibration(COUNT, net.input, &mut Rng::new(!options.seed)).data;
        let graph = model.graph.as_ref().expect("a graph");
        let tensor = |name: &str| -> Vec<f32> {
            let tensor = graph.initializer.iter().find(|t| t.name == name);
            let bytes = &tensor.expect("an initializer").raw_data;
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let values = run_all(&model, &batch);
        for node in graph.node.iter().filter(|n| n.op_type == "BatchNormalization") {
            let (_, _, data) =
                values.iter().find(|(value, _, _)| value == &node.input[0]).expect("the batch norm's input");
            let mean = tensor(&node.input[3]);
            let per_image = data.len() / COUNT;
            let plane = per_image / mean.len();
            for (c, expected) in mean.iter().enumerate() {
                let found = (0..COUNT)
                    .flat_map(|n| &data[n * per_image + c * plane..][..plane])
                    .map(|&v| f64::from(v))
                    .sum::<f64>()
                    / (COUNT * plane) as f64;
                assert!(
                    (found - f64::from(*expected)).abs() < 1e-4,
                    "{name}: {} channel {c}: {found} for {expected}",
                    node.name
                );
            }
        }
    }
}

#[test]
fn options_reach_the_file() {
    let options = BuildOptions { seed: 5, opset: 11, batch: None, ..BuildOptions::default() };
    let model = tiny_plain(&options).expect("it builds");
    assert_eq!(model.opset_import[0].version, 11);
    let again = tiny_plain(&options).expect("it builds");
    assert_eq!(model.encode_to_vec(), again.encode_to_vec());
    let other = tiny_plain(&BuildOptions { seed: 6, ..options }).expect("it builds");
    assert_ne!(model.encode_to_vec(), other.encode_to_vec());

    let opset6 = BuildOptions { opset: 6, ..options };
    assert!(matches!(tiny_plain(&opset6), Err(ModelError::Opset(6))));
    let opset10 = BuildOptions { opset: 10, ..options };
    assert!(matches!(tiny_segment(&opset10), Err(ModelError::OpsetTooOld { least: 11, .. })));
    let low = BuildOptions { size: Some([7, 64]), ..options };
    assert!(matches!(tiny_plain(&low), Err(ModelError::Size { size: [7, 64], least: 8 })));
    let empty = BuildOptions { batch: Some(0), ..options };
    assert!(matches!(tiny_plain(&empty), Err(ModelError::Batch(0))));
    assert!(matches!(resnet_small(&options, 9, 16, 10), Err(ModelError::Depth(9))));
    assert!(matches!(find("vgg"), Err(ModelError::UnknownNet { .. })));
}
