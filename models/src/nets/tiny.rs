//! Networks of a few channels, small enough for snapshots and exhaustive checks. Together they
//! hold every operator and geometry the importer must handle.

use tract_onnx::pb::ModelProto;

use super::{BatchNorm, BuildOptions, Net, Rectifier, Value, halved};
use crate::error::ModelError;
use crate::forward::Batch;
use crate::onnx::{Conv, Interpolation, Pool};

const CALIBRATION: usize = 8;

/// Conv, batch norm, ReLU, conv with bias, ReLU, global average, Gemm: `[N,3,8,8]` to `[N,5]`.
///
/// # Errors
/// [`ModelError::Opset`] and [`ModelError::Batch`] for options out of range.
pub fn tiny_plain(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let mut net = Net::new("tiny_plain", options)?;
    let x = net.input([3, 8, 8], CALIBRATION);
    let y = net.conv_bn_relu("conv1", "bn1", "relu1", &x, 4, &Conv::square(3, 1, 1));
    let y = net.conv("conv2", &y, 6, &Conv::square(3, 1, 0), true);
    let y = net.relu("relu2", y);
    net.head(&y, 5);
    net.finish()
}

/// A stem, a basic block of stride 2 whose shortcut is a 1x1 convolution, and one with an identity
/// shortcut: `[N,3,9,9]` to `[N,5]`.
///
/// # Errors
/// [`ModelError::Opset`] and [`ModelError::Batch`] for options out of range.
pub fn tiny_residual(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let mut net = Net::new("tiny_residual", options)?;
    let x = net.input([3, 9, 9], CALIBRATION);
    let y = net.conv_bn_relu("conv1", "bn1", "relu", &x, 4, &Conv::square(3, 1, 1));
    let y = net.basic_block("block1", y, 6, 2);
    let y = net.basic_block("block2", y, 6, 1);
    net.head(&y, 5);
    net.finish()
}

/// Maximum pools 3x3/2 padded and 2x2/2 rounded up; average pools with padding counted, with
/// padding left out, and rounded up: `[N,3,15,13]` to `[N,5]`. Needs opset 10 or later for the two
/// that round up.
///
/// # Errors
/// [`ModelError::OpsetTooOld`], [`ModelError::Opset`] and [`ModelError::Batch`] for options out of
/// range.
pub fn tiny_pools(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let mut net = Net::since(10, "tiny_pools", options)?;
    // The number of features, and so of weights, depends on the size.
    let [h, w] = net.size([15, 13]);
    let x = net.input([3, h, w], CALIBRATION);
    let y = net.conv_bn_relu("conv1", "bn1", "relu1", &x, 4, &Conv::square(3, 1, 1));
    let y = net.max_pool("maxpool_padded", &y, &Pool::square(3, 2, 1));
    let y = net.conv("conv2", &y, 4, &Conv::square(3, 1, 1), true);
    let y = net.relu("relu2", y);
    let y = net.average_pool("avgpool_pad_counted", &y, &Pool::square(3, 1, 1), true);
    let y = net.conv("conv3", &y, 6, &Conv::square(1, 1, 0), true);
    let y = net.relu("relu3", y);
    let y = net.average_pool("avgpool_ceil", &y, &Pool::square(3, 2, 0).ceil(), false);
    let y = net.max_pool("maxpool_ceil", &y, &Pool::square(2, 2, 0).ceil());
    let y = net.average_pool("avgpool_pad_left_out", &y, &Pool::square(3, 1, 1), false);
    net.flat_head(&y, 5);
    net.finish()
}

/// A channels-last graph as converted from TensorFlow: `Transpose`, conv, ReLU, `Transpose` back,
/// `ReduceMean` over the image, `Reshape`, `MatMul` and `Add`, `Softmax`: `[N,9,11,3]` to `[N,5]`.
///
/// # Errors
/// [`ModelError::Opset`] and [`ModelError::Batch`] for options out of range.
pub fn tiny_nhwc(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let (features, classes) = (8, 5);
    let mut net = Net::new("tiny_nhwc", options)?;
    let [h, w] = net.size([9, 11]);
    let dims = net.dims(&[h, w, 3]);
    let x = net.graph.input("x", &dims);
    let x = net.graph.transpose("to_nchw", &x, &[0, 3, 1, 2]);
    let x = net.calibrate(x, [3, 9, 11], CALIBRATION);
    let y = net.conv("conv1", &x, features, &Conv::square(3, 2, 1), true);
    let y = net.relu("relu1", y);
    let y_nhwc = net.graph.transpose("to_nhwc", &y.name, &[0, 2, 3, 1]);
    let mean = net.graph.reduce_mean("mean", &y_nhwc, &[1, 2], true);
    let flat = net.graph.reshape("flat", &mean, &[-1, features as i64]);
    let whole = Pool { kernel: [y.batch.h as i64, y.batch.w as i64], ..Pool::square(1, 1, 0) };
    let pooled: Batch = y.batch.average_pool(&whole, false);
    let (weights, bias) = net.classifier(&pooled, classes);
    let columns = (0..features).flat_map(|f| weights.iter().skip(f).step_by(features).copied()).collect();
    let w = net.graph.f32("fc.weight", &[features as i64, classes as i64], columns);
    let b = net.graph.f32("fc.bias", &[classes as i64], bias);
    let product = net.graph.mat_mul("fc", &flat, &w);
    let logits = net.graph.add("fc_bias", &product, &b);
    let y = net.graph.softmax("softmax", &logits, 1);
    let dims = net.dims(&[classes]);
    net.graph.output(&y, "y", &dims);
    net.finish()
}

/// A convolution in two groups, a depthwise one of stride 2 padded at the bottom and right only,
/// a pointwise one, a dilated one, and a `Pad` node: `[N,4,12,10]` to `[N,5]`.
///
/// # Errors
/// [`ModelError::Opset`] and [`ModelError::Batch`] for options out of range.
pub fn tiny_grouped(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let mut net = Net::new("tiny_grouped", options)?;
    let x = net.input([4, 12, 10], CALIBRATION);
    let grouped = Conv::square(3, 1, 1).grouped(2);
    let y = net.conv_bn_relu("grouped", "bn1", "relu1", &x, 6, &grouped);
    let depthwise = Conv { pads: [0, 0, 1, 1], ..Conv::square(3, 2, 0).grouped(6) };
    let y = net.conv_bn_relu("depthwise", "bn2", "relu2", &y, 6, &depthwise);
    let y = net.conv("pointwise", &y, 8, &Conv::square(1, 1, 0), false);
    let y = net.batch_norm("bn3", y, BatchNorm::Plain);
    let padded = net.graph.pad("pad", &y.name, &[0, 0, 2, 2, 0, 0, 2, 2]);
    let dilated = Conv::square(3, 1, 0).dilated(2);
    let y = net.padded_conv("dilated", y, padded, 8, &dilated);
    let y = net.relu("relu3", y);
    net.head(&y, 5);
    net.finish()
}

/// A strided convolution with ReLU6, an inverted bottleneck with a dilated depthwise convolution, a head that
/// joins an image pool, a 1x1 and a dilated 3x3 branch, classes, and a bilinear `Resize`: `[N,3,24,20]` to
/// `[N,4,24,20]`.
///
/// # Errors
/// [`ModelError::OpsetTooOld`] before opset 11; [`ModelError::Opset`], [`ModelError::Batch`] and
/// [`ModelError::Size`] for options out of range.
pub fn tiny_segment(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let mut net = Net::since(11, "tiny_segment", options)?;
    let x = net.input([3, 24, 20], CALIBRATION);
    let y = net.conv("stem", &x, 6, &Conv::square(3, 2, 1), false);
    let y = net.batch_norm("stem_bn", y, BatchNorm::Clipped);
    let y = net.clip("stem_relu6", y, 0.0, 6.0);
    let middle = Conv::square(3, 1, 2).dilated(2);
    let y = net.inverted_bottleneck("block", y, 2, 6, &middle, Rectifier::Relu6);
    let y = net.pyramid(&y, 5, &[3], 1);
    net.segmentation(&y, 4, 1);
    net.finish()
}

/// Two layers of stride 2 and the way back up: nearest `Resize`, `Concat` with the map before, convolution, and
/// the same with corners aligned: `[N,3,12,16]` to `[N,4,12,16]`.
///
/// # Errors
/// [`ModelError::OpsetTooOld`] before opset 11; [`ModelError::Opset`], [`ModelError::Batch`] and
/// [`ModelError::Size`] for options out of range.
pub fn tiny_upsample(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let mut net = Net::since(11, "tiny_upsample", options)?;
    let x = net.input([3, 12, 16], CALIBRATION);
    let [size, _] = net.sizes;
    let first = net.conv_bn_relu("conv1", "bn1", "relu1", &x, 4, &Conv::square(3, 1, 1));
    let second = net.conv_bn_relu("conv2", "bn2", "relu2", &first, 6, &Conv::square(3, 2, 1));
    let y = net.conv_bn_relu("conv3", "bn3", "relu3", &second, 8, &Conv::square(3, 2, 1));
    let y = net.resize("nearest", &y, halved(size, 2), 1, Interpolation::Nearest);
    let y = net.concat("concat1", &[&second, &y]);
    let y = net.conv_bn_relu("conv4", "bn4", "relu4", &y, 6, &Conv::square(3, 1, 1));
    let y = net.resize("corners", &y, halved(size, 1), 0, Interpolation::AlignCorners);
    let y = net.concat("concat2", &[&y, &first]);
    let y = net.point_classifier("classes", &y, 4);
    let dims = net.dims(&[4, size[0], size[1]]);
    net.graph.output(&y.name, "y", &dims);
    net.finish()
}

/// Convolutions with the gates `PRelu`, `LeakyRelu`, `Clip` to -1..=1 (hard tanh) and `Clip` to 0..=6 (ReLU6):
/// `[N,3,9,8]` to `[N,5]`.
///
/// # Errors
/// [`ModelError::Opset`], [`ModelError::Batch`] and [`ModelError::Size`] for options out of range.
pub fn tiny_gates(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    const ALPHA: f32 = 0.125;
    let mut net = Net::new("tiny_gates", options)?;
    let x = net.input([3, 9, 8], CALIBRATION);
    let conv = Conv::square(3, 1, 1);
    let y = net.conv("conv1", &x, 4, &conv, false);
    let y = net.batch_norm("bn1", y, BatchNorm::Plain);
    let slopes = net.rng.uniforms(4, -0.25, 0.5);
    let slope = net.graph.f32("prelu.slope", &[4, 1, 1], slopes.clone());
    let y = Value { name: net.graph.prelu("prelu", &y.name, &slope), batch: y.batch.prelu(&slopes) };
    let y = net.conv("conv2", &y, 4, &conv, true);
    let y = Value { name: net.graph.leaky_relu("leaky_relu", &y.name, ALPHA), batch: y.batch.prelu(&[ALPHA; 4]) };
    let y = net.conv("conv3", &y, 6, &conv, true);
    let y = net.clip("hard_tanh", y, -1.0, 1.0);
    let y = net.conv("conv4", &y, 6, &conv, false);
    let y = net.batch_norm("bn4", y, BatchNorm::Clipped);
    let y = net.clip("relu6", y, 0.0, 6.0);
    net.head(&y, 5);
    net.finish()
}

impl Net {
    /// A convolution, with bias, of `x` padded by 2 on all sides by the node that made `padded`.
    fn padded_conv(&mut self, name: &str, mut x: Value, padded: String, out: usize, conv: &Conv) -> Value {
        let (h, w) = (x.batch.h + 4, x.batch.w + 4);
        let mut data = vec![0.0; x.batch.n * x.batch.c * h * w];
        for (index, row) in x.batch.data.chunks(x.batch.w).enumerate() {
            let (plane, y) = (index / x.batch.h, index % x.batch.h);
            data[(plane * h + y + 2) * w + 2..][..x.batch.w].copy_from_slice(row);
        }
        x = Value { name: padded, batch: Batch { h, w, data, ..x.batch } };
        self.conv(name, &x, out, conv, true)
    }
}
