//! DeepLabV3 for semantic segmentation, as mmsegmentation defines it (output stride 8).

use tract_onnx::pb::ModelProto;

use super::{BatchNorm, BuildOptions, Net, StemPool, Value, halved};
use crate::error::ModelError;
use crate::onnx::{Conv, Interpolation};

/// Height and width the networks are evaluated on.
const SIZE: usize = 512;
/// Calibration images are this many times smaller: the largest maps are then of 32x32 pixels, the head's of 8x8.
const SHRINK: usize = 8;
const CALIBRATION: usize = 8;
/// Layers of stride 2 before the head.
const STRIDES: usize = 3;
/// Channels of every branch of the head, and its dilations.
const HEAD: usize = 512;
const RATES: [i64; 3] = [12, 24, 36];

/// What stands behind the batch norms of an inverted bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rectifier {
    /// `Relu`.
    Relu,
    /// `Clip` to 0..=6.
    Relu6,
}

/// DeepLabV3 on MobileNetV2: input `x` `[N,3,H,W]`, 512x512 unless the options say otherwise, output `y`
/// `[N,classes,H,W]`. Backbone strides 2; 1,2,2,1,1,1,1, dilations 1,1,1,2,2,4,4. On 512x512, with
/// [`Rectifier::Relu`], 40 ReLU layers and 85,262,848 ReLUs.
///
/// # Errors
/// [`ModelError::OpsetTooOld`] before opset 11; [`ModelError::Opset`], [`ModelError::Batch`] and
/// [`ModelError::Size`] for options out of range.
pub fn deeplabv3_mobilenetv2(
    options: &BuildOptions,
    rectifier: Rectifier,
    classes: usize,
) -> Result<ModelProto, ModelError> {
    let mut net = Net::since(11, "deeplabv3_mobilenetv2", options)?;
    let x = net.shrunk_input([3, SIZE, SIZE], SHRINK, CALIBRATION);
    let mut x = net.rectified("backbone.conv1", &x, 32, &Conv::square(3, 2, 1), rectifier);
    // Expansion, channels, blocks, stride of the first block, dilation.
    let layers = [
        (1, 16, 1, 1, 1),
        (6, 24, 2, 2, 1),
        (6, 32, 3, 2, 1),
        (6, 64, 4, 1, 2),
        (6, 96, 3, 1, 2),
        (6, 160, 3, 1, 4),
        (6, 320, 1, 1, 4),
    ];
    for (layer, (expansion, channels, blocks, stride, dilation)) in layers.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if block == 0 { stride } else { 1 };
            let name = format!("backbone.layer{}.{block}", layer + 1);
            let middle = Conv::square(3, stride, dilation).dilated(dilation);
            x = net.inverted_bottleneck(&name, x, expansion, channels, &middle, rectifier);
        }
    }
    net.deeplab_head(&x, classes);
    net.finish()
}

/// DeepLabV3 on ResNet-50-V1c (three 3x3 convolutions as stem): input `x` `[N,3,H,W]`, 512x512 unless the
/// options say otherwise, output `y` `[N,classes,H,W]`. Strides 1,2,1,1, dilations 1,1,2,4, of which the first
/// block of a layer has half. On 512x512 57 ReLU layers and 127,402,496 ReLUs.
///
/// # Errors
/// [`ModelError::OpsetTooOld`] before opset 11; [`ModelError::Opset`], [`ModelError::Batch`] and
/// [`ModelError::Size`] for options out of range.
pub fn deeplabv3_resnet50(options: &BuildOptions, pool: StemPool, classes: usize) -> Result<ModelProto, ModelError> {
    let mut net = Net::since(11, "deeplabv3_resnet50", options)?;
    let mut x = net.shrunk_input([3, SIZE, SIZE], SHRINK, CALIBRATION);
    for (index, (channels, stride)) in [(32, 2), (32, 1), (64, 1)].into_iter().enumerate() {
        let names = [0, 1, 2].map(|part| format!("backbone.stem.{}", 3 * index + part));
        x = net.conv_bn_relu(&names[0], &names[1], &names[2], &x, channels, &Conv::square(3, stride, 1));
    }
    x = net.stem_pool("backbone.maxpool", &x, pool);
    let layers = [(3, 64, 1, 1), (4, 128, 2, 1), (6, 256, 1, 2), (3, 512, 1, 4)];
    for (layer, (blocks, channels, stride, dilation)) in layers.into_iter().enumerate() {
        for block in 0..blocks {
            let (stride, dilation) = if block == 0 { (stride, (dilation / 2).max(1)) } else { (1, dilation) };
            let middle = Conv::square(3, stride, dilation).dilated(dilation);
            x = net.bottleneck(&format!("backbone.layer{}.{block}", layer + 1), x, channels, &middle);
        }
    }
    net.deeplab_head(&x, classes);
    net.finish()
}

impl Net {
    /// A convolution with batch norm and ReLU, named as mmsegmentation names a `ConvModule`.
    fn module(&mut self, name: &str, x: &Value, out: usize, conv: &Conv) -> Value {
        let at = |part: &str| format!("{name}.{part}");
        self.conv_bn_relu(&at("conv"), &at("bn"), &at("activate"), x, out, conv)
    }

    /// As [`Net::module`], with either rectifier.
    fn rectified(&mut self, name: &str, x: &Value, out: usize, conv: &Conv, rectifier: Rectifier) -> Value {
        if rectifier == Rectifier::Relu {
            return self.module(name, x, out, conv);
        }
        let y = self.conv(&format!("{name}.conv"), x, out, conv, false);
        let y = self.batch_norm(&format!("{name}.bn"), y, BatchNorm::Clipped);
        self.clip(&format!("{name}.activate"), y, 0.0, 6.0)
    }

    /// 1x1 convolution to `expansion` times the channels, left out if that is 1; the depthwise convolution
    /// `middle`; 1x1 convolution without ReLU; the input added where the shapes agree.
    pub(super) fn inverted_bottleneck(
        &mut self,
        name: &str,
        x: Value,
        expansion: usize,
        out: usize,
        middle: &Conv,
        rectifier: Rectifier,
    ) -> Value {
        let point = Conv::square(1, 1, 0);
        let inner = x.batch.c * expansion;
        let mut parts = (0..).map(|part| format!("{name}.conv.{part}"));
        let mut part = || parts.next().expect("the numbers do not end");
        let mut y = x.clone();
        if expansion > 1 {
            y = self.rectified(&part(), &y, inner, &point, rectifier);
        }
        y = self.rectified(&part(), &y, inner, &middle.grouped(inner as i64), rectifier);
        let last = part();
        y = self.conv(&format!("{last}.conv"), &y, out, &point, false);
        let residual = middle.strides == [1; 2] && x.batch.c == out;
        let place = if residual { BatchNorm::BranchEnd } else { BatchNorm::Shortcut };
        y = self.batch_norm(&format!("{last}.bn"), y, place);
        if residual { self.add(&format!("{name}.add"), y, &x) } else { y }
    }

    /// Atrous spatial pyramid pooling over maps of an eighth of the input's size, classes, the bilinear resize to
    /// the input's size and the output `y` `[N,classes,H,W]`.
    fn deeplab_head(&mut self, x: &Value, classes: usize) {
        let y = self.pyramid(x, HEAD, &RATES, STRIDES);
        self.segmentation(&y, classes, STRIDES);
    }

    /// A global branch, a 1x1 branch and one 3x3 branch for each of `rates`, joined by a 3x3 convolution. The
    /// map is that of the input after `strides` layers of stride 2.
    pub(super) fn pyramid(&mut self, x: &Value, channels: usize, rates: &[i64], strides: usize) -> Value {
        let point = Conv::square(1, 1, 0);
        let pooled = self.global_average("decode_head.image_pool.0", x);
        let pooled = self.module("decode_head.image_pool.1", &pooled, channels, &point);
        let spread = self.resize("decode_head.image_pool.resize", &pooled, [1; 2], strides, Interpolation::Bilinear);
        let mut branches = vec![spread, self.module("decode_head.aspp_modules.0", x, channels, &point)];
        for (index, &rate) in rates.iter().enumerate() {
            let conv = Conv::square(3, 1, rate).dilated(rate);
            branches.push(self.module(&format!("decode_head.aspp_modules.{}", index + 1), x, channels, &conv));
        }
        let joined = self.concat("decode_head.concat", &branches.iter().collect::<Vec<_>>());
        self.module("decode_head.bottleneck", &joined, channels, &Conv::square(3, 1, 1))
    }

    /// 1x1 convolution to classes, the bilinear resize to the input's size and the output `y` `[N,classes,H,W]`.
    pub(super) fn segmentation(&mut self, x: &Value, classes: usize, strides: usize) {
        let logits = self.point_classifier("decode_head.conv_seg", x, classes);
        let [size, _] = self.sizes;
        let y = self.resize("resize", &logits, halved(size, strides), 0, Interpolation::Bilinear);
        let dims = self.dims(&[classes, size[0], size[1]]);
        self.graph.output(&y.name, "y", &dims);
    }
}
