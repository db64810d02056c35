//! Builders of networks with random weights that behave like trained ones.
//!
//! Convolutions have He-scaled normal weights. Every net is run on a small batch of noise and
//! smooth images while it is built, and each `BatchNormalization`, which stays unfolded, gets the
//! running mean and variance seen there. Scales and shifts are drawn around those of trained
//! networks; the last batch norm of a residual branch has a smaller scale, so that activations
//! keep their range through the depth. The same options give the same bytes.

mod deeplab;
mod resnet;
mod single;
mod tiny;
pub mod wild;

use tract_onnx::pb::ModelProto;

use crate::error::ModelError;
use crate::forward::Batch;
use crate::onnx::{Conv, Dim, GraphBuilder, Interpolation, Pool, ResizeTo};
use crate::rng::Rng;

pub use deeplab::{Rectifier, deeplabv3_mobilenetv2, deeplabv3_resnet50};
pub use resnet::{StemPool, resnet_small, resnet18_cifar, resnet50};
pub use single::{conv_relus, million_relus, single_conv};
pub use tiny::{
    tiny_gates, tiny_grouped, tiny_nhwc, tiny_plain, tiny_pools, tiny_residual, tiny_segment, tiny_upsample,
};

/// Least height and width of an image that every net can work on.
const LEAST_SIZE: usize = 8;

/// How `Resize` nodes are told the size of their result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResizeSize {
    /// As constant sizes, where the batch size is fixed, or else as [`ResizeSize::Shape`].
    #[default]
    Sizes,
    /// As constant factors.
    Scales,
    /// By `Shape`, `Slice` and `Concat`, as PyTorch writes it.
    Shape,
}

/// What all builders can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// Seed of all weights.
    pub seed: u64,
    /// Version of the default operator set, 7 to 21.
    pub opset: i64,
    /// Batch size of the graph's input; `None` writes the symbol `N`.
    pub batch: Option<i64>,
    /// Height and width of the input, at least 8 each; `None` is the net's own. The weights do not depend on
    /// it, except those of `tiny_pools`.
    pub size: Option<[usize; 2]>,
    /// How `Resize` nodes are written.
    pub resize: ResizeSize,
}

impl Default for BuildOptions {
    /// Seed 1, opset 13, batch 1, the net's own size, constant sizes in `Resize`.
    fn default() -> Self {
        Self { seed: 1, opset: 13, batch: Some(1), size: None, resize: ResizeSize::Sizes }
    }
}

/// A net known by name.
#[derive(Clone, Copy)]
pub struct NetInfo {
    /// Name at the command line.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// Shape of one input without the batch dimension.
    pub input: [usize; 3],
    builder: fn(&BuildOptions) -> Result<ModelProto, ModelError>,
}

impl NetInfo {
    /// Builds the net.
    ///
    /// # Errors
    /// [`ModelError::Opset`], [`ModelError::OpsetTooOld`], [`ModelError::Batch`] and [`ModelError::Size`] for
    /// options out of range.
    pub fn build(&self, options: &BuildOptions) -> Result<ModelProto, ModelError> {
        (self.builder)(options)
    }
}

/// All nets known by name.
pub const NETS: &[NetInfo] = &[
    NetInfo {
        name: "resnet18_cifar",
        summary: "ResNet-18 for CIFAR-100, 557,056 ReLUs",
        input: [3, 32, 32],
        builder: |o| resnet18_cifar(o, 100),
    },
    NetInfo {
        name: "resnet50",
        summary: "ResNet-50 for ImageNet, max-pool stem, 9,608,704 ReLUs",
        input: [3, 224, 224],
        builder: |o| resnet50(o, StemPool::Max, 1000),
    },
    NetInfo {
        name: "resnet50_avg",
        summary: "ResNet-50 for ImageNet, average-pool stem, padding not counted",
        input: [3, 224, 224],
        builder: |o| {
            let pool = StemPool::Average { count_include_pad: false };
            resnet50(o, pool, 1000)
        },
    },
    NetInfo {
        name: "resnet50_avg_pad",
        summary: "ResNet-50 for ImageNet, average-pool stem, padding counted",
        input: [3, 224, 224],
        builder: |o| {
            let pool = StemPool::Average { count_include_pad: true };
            resnet50(o, pool, 1000)
        },
    },
    NetInfo {
        name: "deeplabv3_mobilenetv2",
        summary: "DeepLabV3 on MobileNetV2 for ADE20K, ReLU for ReLU6, 85,262,848 ReLUs",
        input: [3, 512, 512],
        builder: |o| deeplabv3_mobilenetv2(o, Rectifier::Relu, 150),
    },
    NetInfo {
        name: "deeplabv3_mobilenetv2_relu6",
        summary: "DeepLabV3 on MobileNetV2 for ADE20K, ReLU6 in the backbone",
        input: [3, 512, 512],
        builder: |o| deeplabv3_mobilenetv2(o, Rectifier::Relu6, 150),
    },
    NetInfo {
        name: "deeplabv3_resnet50",
        summary: "DeepLabV3 on ResNet-50-V1c for VOC, max-pool stem, 127,402,496 ReLUs",
        input: [3, 512, 512],
        builder: |o| deeplabv3_resnet50(o, StemPool::Max, 21),
    },
    NetInfo {
        name: "deeplabv3_resnet50_avg",
        summary: "DeepLabV3 on ResNet-50-V1c for VOC, average-pool stem, padding not counted",
        input: [3, 512, 512],
        builder: |o| deeplabv3_resnet50(o, StemPool::Average { count_include_pad: false }, 21),
    },
    NetInfo {
        name: "resnet8",
        summary: "ResNet-8 of width 16 on 28x28 grey images, 56,448 ReLUs",
        input: [1, 28, 28],
        builder: |o| resnet_small(o, 8, 16, 10),
    },
    NetInfo {
        name: "resnet20",
        summary: "ResNet-20 of width 16 on 28x28 grey images, 144,256 ReLUs",
        input: [1, 28, 28],
        builder: |o| resnet_small(o, 20, 16, 10),
    },
    NetInfo {
        name: "single_conv",
        summary: "one 3x3 convolution, 64 to 64 channels",
        input: [64, 56, 56],
        builder: single_conv,
    },
    NetInfo {
        name: "million_relus",
        summary: "1,000,000 ReLUs behind a 1x1 convolution, averaged by channel",
        input: [1, 100, 100],
        builder: million_relus,
    },
    NetInfo {
        name: "conv_relus",
        summary: "convolutions of a block of ResNet-50 with ReLUs, averaged by channel",
        input: [64, 56, 56],
        builder: conv_relus,
    },
    NetInfo { name: "tiny_plain", summary: "convolutions without branches", input: [3, 8, 8], builder: tiny_plain },
    NetInfo {
        name: "tiny_residual",
        summary: "a strided residual block with a 1x1 shortcut, an identity block",
        input: [3, 9, 9],
        builder: tiny_residual,
    },
    NetInfo {
        name: "tiny_pools",
        summary: "maximum and average pools, padded and rounded up",
        input: [3, 15, 13],
        builder: tiny_pools,
    },
    NetInfo {
        name: "tiny_nhwc",
        summary: "channels-last input, Transpose, ReduceMean, MatMul, Softmax",
        input: [9, 11, 3],
        builder: tiny_nhwc,
    },
    NetInfo {
        name: "tiny_grouped",
        summary: "grouped, depthwise and dilated convolutions, asymmetric padding",
        input: [4, 12, 10],
        builder: tiny_grouped,
    },
    NetInfo {
        name: "tiny_segment",
        summary: "an inverted bottleneck with ReLU6, image pooling, Concat of branches, bilinear Resize",
        input: [3, 24, 20],
        builder: tiny_segment,
    },
    NetInfo {
        name: "tiny_upsample",
        summary: "nearest and corner-aligned Resize, Concat with what comes before the strides",
        input: [3, 12, 16],
        builder: tiny_upsample,
    },
    NetInfo {
        name: "tiny_gates",
        summary: "PRelu, LeakyRelu, hard tanh, ReLU6",
        input: [3, 9, 8],
        builder: tiny_gates,
    },
];

/// The net called `name`.
///
/// # Errors
/// [`ModelError::UnknownNet`] lists the known names.
pub fn find(name: &str) -> Result<&'static NetInfo, ModelError> {
    NETS.iter().find(|net| net.name == name).ok_or_else(|| ModelError::UnknownNet {
        name: name.to_owned(),
        known: NETS.iter().map(|n| n.name).collect::<Vec<_>>().join(", "),
    })
}

/// Where a batch norm stands, which decides its scale and shift.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BatchNorm {
    /// Before a ReLU.
    Plain,
    /// Last of a residual branch.
    BranchEnd,
    /// In a residual shortcut, or at a bottleneck's end that nothing is added to.
    Shortcut,
    /// Before a ReLU6, which cuts a few values in a hundred.
    Clipped,
}

/// A graph value with its activations on the calibration batch.
#[derive(Clone)]
struct Value {
    name: String,
    batch: Batch,
}

/// Adds nodes to a graph, drawing their weights and carrying the calibration batch along.
struct Net {
    graph: GraphBuilder,
    rng: Rng,
    options: BuildOptions,
    /// Height and width of the graph's input, and of the calibration images.
    sizes: [[usize; 2]; 2],
    /// How many times smaller than the net's own images the calibration images are. Dilations shrink with
    /// them, so that as many taps of a dilated kernel fall into the padding.
    shrink: usize,
}

/// The factor that makes `to` pixels of `from`, when the product is rounded down.
fn factor(from: usize, to: usize) -> f32 {
    let factor = to as f32 / from as f32;
    if ((from as f32 * factor) as usize) < to { factor.next_up() } else { factor }
}

/// `size` after `strides` layers of stride 2, which round up.
fn halved(size: [usize; 2], strides: usize) -> [usize; 2] {
    size.map(|s| s.div_ceil(1 << strides))
}

impl Net {
    fn new(name: &str, options: &BuildOptions) -> Result<Self, ModelError> {
        if let Some(batch) = options.batch.filter(|&b| b < 1) {
            return Err(ModelError::Batch(batch));
        }
        if let Some(size) = options.size.filter(|s| s.iter().any(|&side| side < LEAST_SIZE)) {
            return Err(ModelError::Size { size, least: LEAST_SIZE });
        }
        let graph = GraphBuilder::new(name, options.opset);
        Ok(Self { graph, rng: Rng::new(options.seed), options: *options, sizes: [[0; 2]; 2], shrink: 1 })
    }

    /// As [`Net::new`], for nets that hold operators in a form that came with opset `least`.
    fn since(least: i64, name: &'static str, options: &BuildOptions) -> Result<Self, ModelError> {
        if options.opset < least {
            return Err(ModelError::OpsetTooOld { net: name, least, opset: options.opset });
        }
        Self::new(name, options)
    }

    /// `dims` behind the batch dimension.
    fn dims(&self, dims: &[usize]) -> Vec<Dim> {
        let batch = self.options.batch.map_or(Dim::from("N"), Dim::Fixed);
        std::iter::once(batch).chain(dims.iter().map(|&d| Dim::Fixed(d as i64))).collect()
    }

    /// Height and width asked for, or the net's own.
    fn size(&self, own: [usize; 2]) -> [usize; 2] {
        self.options.size.unwrap_or(own)
    }

    /// `count` calibration images for a value the graph holds as `[N,C,H,W]`.
    fn calibrate(&mut self, name: String, shape: [usize; 3], count: usize) -> Value {
        // A stream of its own: weights do not depend on the number of images.
        let mut rng = Rng::new(!self.options.seed);
        Value { name, batch: Batch::calibration(count, shape, &mut rng) }
    }

    /// The input `x` `[N,C,H,W]` of the size asked for, calibrated on images of the net's own size.
    fn input(&mut self, shape: [usize; 3], count: usize) -> Value {
        self.shrunk_input(shape, 1, count)
    }

    /// The input `x` `[N,C,H,W]` of the size asked for, calibrated on images `shrink` times smaller than the
    /// net's own.
    fn shrunk_input(&mut self, [c, h, w]: [usize; 3], shrink: usize, count: usize) -> Value {
        let (size, calibrated) = (self.size([h, w]), [h / shrink, w / shrink]);
        self.shrink = shrink;
        self.sizes = [size, calibrated];
        let dims = self.dims(&[c, size[0], size[1]]);
        let name = self.graph.input("x", &dims);
        self.calibrate(name, [c, calibrated[0], calibrated[1]], count)
    }

    /// The geometry that stands for `conv` on the calibration images.
    fn calibrated(&self, conv: &Conv) -> Conv {
        let shrink = |d: i64| ((d + self.shrink as i64 / 2) / self.shrink as i64).max(1);
        let dilations = conv.dilations.map(shrink);
        // Padding that keeps the size is as wide as the kernel's arm.
        let pads = std::array::from_fn(|i| match (conv.pads[i], conv.dilations[i % 2]) {
            (pad, dilation) if pad == dilation * (conv.kernel[i % 2] / 2) => {
                dilations[i % 2] * (conv.kernel[i % 2] / 2)
            }
            (pad, _) => pad,
        });
        Conv { dilations, pads, ..*conv }
    }

    fn conv(&mut self, name: &str, x: &Value, out: usize, conv: &Conv, bias: bool) -> Value {
        let [kh, kw] = conv.kernel;
        let inner = x.batch.c / conv.group as usize;
        let fan_in = inner * (kh * kw) as usize;
        let weights = self.rng.normals(out * fan_in, 0.0, (2.0 / fan_in as f64).sqrt());
        let bias = bias.then(|| self.rng.normals(out, 0.0, 0.1));
        let batch = x.batch.conv(&weights, bias.as_deref(), &self.calibrated(conv));
        let dims = [out as i64, inner as i64, kh, kw];
        let w = self.graph.f32(&format!("{name}.weight"), &dims, weights);
        let b = bias.map(|b| self.graph.f32(&format!("{name}.bias"), &[out as i64], b));
        Value { name: self.graph.conv(name, &x.name, &w, b.as_deref(), conv), batch }
    }

    fn batch_norm(&mut self, name: &str, x: Value, place: BatchNorm) -> Value {
        const EPSILON: f32 = 1e-5;
        let c = x.batch.c;
        let (scale, shift) = match place {
            BatchNorm::Plain => ([0.6, 1.3], [-0.05, 0.25]),
            BatchNorm::BranchEnd => ([0.1, 0.4], [-0.15, 0.15]),
            BatchNorm::Shortcut => ([0.5, 1.0], [-0.3, 0.2]),
            BatchNorm::Clipped => ([1.5, 3.0], [0.5, 0.5]),
        };
        let scale = self.rng.uniforms(c, scale[0], scale[1]);
        let shift = self.rng.normals(c, shift[0], shift[1]);
        let moments = x.batch.moments();
        // A channel that happens to be still on this batch must not become an amplifier.
        let typical = moments.iter().map(|m| m.1).sum::<f64>() / c as f64;
        let mean: Vec<f32> = moments.iter().map(|m| m.0 as f32).collect();
        let var: Vec<f32> = moments.iter().map(|m| (0.9 * m.1 + 0.1 * typical) as f32).collect();
        let factor: Vec<f32> = scale.iter().zip(&var).map(|(s, v)| s / (v + EPSILON).sqrt()).collect();
        let offset: Vec<f32> = (0..c).map(|i| shift[i] - factor[i] * mean[i]).collect();
        let mut stat = |kind: &str, data| self.graph.f32(&format!("{name}.{kind}"), &[c as i64], data);
        let names = [stat("weight", scale), stat("bias", shift), stat("running_mean", mean), stat("running_var", var)];
        let stats = [&*names[0], &names[1], &names[2], &names[3]];
        Value { name: self.graph.batch_norm(name, &x.name, stats, EPSILON), batch: x.batch.affine(&factor, &offset) }
    }

    fn relu(&mut self, name: &str, x: Value) -> Value {
        Value { name: self.graph.relu(name, &x.name), batch: x.batch.relu() }
    }

    /// `Clip` to `min..=max`.
    fn clip(&mut self, name: &str, x: Value, min: f32, max: f32) -> Value {
        Value { name: self.graph.clip(name, &x.name, min, max), batch: x.batch.clip(min, max) }
    }

    /// `x`, which the graph holds in size `from`, resized to the size that the input has after `strides` layers
    /// of stride 2.
    fn resize(
        &mut self,
        name: &str,
        x: &Value,
        from: [usize; 2],
        strides: usize,
        interpolation: Interpolation,
    ) -> Value {
        let [[h, w], calibrated] = self.sizes.map(|s| halved(s, strides));
        let spatial = ResizeTo::Spatial([h as i64, w as i64]);
        let to = match (self.options.resize, self.options.batch) {
            (ResizeSize::Shape, _) | (ResizeSize::Sizes, None) => spatial,
            (ResizeSize::Sizes, Some(n)) => ResizeTo::Sizes(vec![n, x.batch.c as i64, h as i64, w as i64]),
            (ResizeSize::Scales, _) => ResizeTo::Scales(vec![1.0, 1.0, factor(from[0], h), factor(from[1], w)]),
        };
        Value {
            name: self.graph.resize(name, &x.name, &to, interpolation),
            batch: x.batch.resize(calibrated, interpolation),
        }
    }

    fn concat(&mut self, name: &str, parts: &[&Value]) -> Value {
        let names: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
        let batches: Vec<&Batch> = parts.iter().map(|p| &p.batch).collect();
        Value { name: self.graph.concat(name, &names, 1), batch: Batch::concat(&batches) }
    }

    /// The global average, `[N,C,1,1]`.
    fn global_average(&mut self, name: &str, x: &Value) -> Value {
        let whole = Pool { kernel: [x.batch.h as i64, x.batch.w as i64], ..Pool::square(1, 1, 0) };
        Value { name: self.graph.global_average_pool(name, &x.name), batch: x.batch.average_pool(&whole, false) }
    }

    fn add(&mut self, name: &str, a: Value, b: &Value) -> Value {
        Value { name: self.graph.add(name, &a.name, &b.name), batch: a.batch.add(&b.batch) }
    }

    fn max_pool(&mut self, name: &str, x: &Value, pool: &Pool) -> Value {
        Value { name: self.graph.max_pool(name, &x.name, pool), batch: x.batch.max_pool(pool) }
    }

    fn average_pool(&mut self, name: &str, x: &Value, pool: &Pool, include_pad: bool) -> Value {
        Value {
            name: self.graph.average_pool(name, &x.name, pool, include_pad),
            batch: x.batch.average_pool(pool, include_pad),
        }
    }

    /// Weights `[classes,features]` and bias `[classes]` for the features at every pixel of the calibration
    /// batch: logits are centred on the batch and spread like a trained network's.
    fn classifier(&mut self, x: &Batch, classes: usize) -> (Vec<f32>, Vec<f32>) {
        const LOGIT_STD: f64 = 3.0;
        let moments = x.moments();
        let power: f64 = moments.iter().map(|m| m.1).sum();
        // Few images underestimate how far features move: no weight may exceed twice He's.
        let he = (2.0 / x.c as f64).sqrt();
        let std = (LOGIT_STD / power.sqrt().max(1e-6)).min(2.0 * he);
        let weights = self.rng.normals(classes * x.c, 0.0, std);
        let bias = weights
            .chunks(x.c)
            .map(|row| {
                let centre: f64 = row.iter().zip(&moments).map(|(&w, m)| f64::from(w) * m.0).sum();
                (0.3 * self.rng.normal() - centre) as f32
            })
            .collect();
        (weights, bias)
    }

    /// A 1x1 convolution with bias to the logits of every pixel.
    fn point_classifier(&mut self, name: &str, x: &Value, classes: usize) -> Value {
        let (weights, bias) = self.classifier(&x.batch, classes);
        let conv = Conv::square(1, 1, 0);
        let batch = x.batch.conv(&weights, Some(&bias), &conv);
        let w = self.graph.f32(&format!("{name}.weight"), &[classes as i64, x.batch.c as i64, 1, 1], weights);
        let b = self.graph.f32(&format!("{name}.bias"), &[classes as i64], bias);
        Value { name: self.graph.conv(name, &x.name, &w, Some(&b), &conv), batch }
    }

    /// Global average, `Flatten`, `Gemm` and the output `y` `[N,classes]`.
    fn head(&mut self, x: &Value, classes: usize) {
        let features = self.global_average("avgpool", x);
        self.flat_head(&features, classes);
    }

    /// `Flatten`, `Gemm` and the output `y` `[N,classes]`; `x` may be of any size.
    fn flat_head(&mut self, x: &Value, classes: usize) {
        let flat = self.graph.flatten("flatten", &x.name, 1);
        let features = Batch { n: x.batch.n, c: x.batch.c * x.batch.plane(), h: 1, w: 1, data: x.batch.data.clone() };
        let (weights, bias) = self.classifier(&features, classes);
        let dims = [classes as i64, features.c as i64];
        let w = self.graph.f32("fc.weight", &dims, weights);
        let b = self.graph.f32("fc.bias", &dims[..1], bias);
        let y = self.graph.gemm("fc", &flat, &w, &b);
        let dims = self.dims(&[classes]);
        self.graph.output(&y, "y", &dims);
    }

    /// The output `y`, with channels `c` of the net's own size or the one asked for, and the finished model.
    fn output(mut self, name: &str, c: usize, own: [usize; 2]) -> Result<ModelProto, ModelError> {
        let [h, w] = self.size(own);
        let dims = self.dims(&[c, h, w]);
        self.graph.output(name, "y", &dims);
        self.finish()
    }

    fn finish(self) -> Result<ModelProto, ModelError> {
        self.graph.finish()
    }
}

#[cfg(test)]
mod tests;
