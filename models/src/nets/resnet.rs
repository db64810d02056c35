//! Residual networks.

use tract_onnx::pb::ModelProto;

use super::{BatchNorm, BuildOptions, Net, Value};
use crate::error::ModelError;
use crate::onnx::{Conv, Pool};

/// The 3x3/2 pool, padded by 1, behind the stem of [`resnet50`] and [`deeplabv3_resnet50`](super::deeplabv3_resnet50).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StemPool {
    /// Maximum.
    Max,
    /// Average.
    Average {
        /// Whether padding counts in the divisor.
        count_include_pad: bool,
    },
}

/// ResNet-18 as used on CIFAR: input `x` `[N,3,32,32]`, 3x3 stem without pool, four stages of two
/// basic blocks, 64 to 512 channels, output `y` `[N,classes]`. 17 ReLU layers, 557,056 ReLUs.
///
/// # Errors
/// [`ModelError::Opset`] and [`ModelError::Batch`] for options out of range.
pub fn resnet18_cifar(options: &BuildOptions, classes: usize) -> Result<ModelProto, ModelError> {
    let mut net = Net::new("resnet18_cifar", options)?;
    let x = net.input([3, 32, 32], 4);
    let mut x = net.conv_bn_relu("conv1", "bn1", "relu", &x, 64, &Conv::square(3, 1, 1));
    for (stage, channels) in [64, 128, 256, 512].into_iter().enumerate() {
        x = net.stage(stage, 2, x, |net, name, x, stride| net.basic_block(name, x, channels, stride));
    }
    net.head(&x, classes);
    net.finish()
}

/// ResNet-50 v1.5 (a bottleneck strides in its 3x3 convolution): input `x` `[N,3,224,224]` or of the size asked for, 7x7/2
/// stem, stages of 3, 4, 6 and 3 blocks, output `y` `[N,classes]`. 49 ReLU layers, 9,608,704 ReLUs.
///
/// # Errors
/// [`ModelError::Opset`] and [`ModelError::Batch`] for options out of range.
pub fn resnet50(options: &BuildOptions, pool: StemPool, classes: usize) -> Result<ModelProto, ModelError> {
    let mut net = Net::new("resnet50", options)?;
    // Smaller images, and so more of them: late layers see one sample per image.
    let x = net.shrunk_input([3, 224, 224], 2, 8);
    let x = net.conv_bn_relu("conv1", "bn1", "relu", &x, 64, &Conv::square(7, 2, 3));
    let name = if pool == StemPool::Max { "maxpool" } else { "stem_avgpool" };
    let mut x = net.stem_pool(name, &x, pool);
    for (stage, (blocks, channels)) in [(3, 64), (4, 128), (6, 256), (3, 512)].into_iter().enumerate() {
        x = net.stage(stage, blocks, x, |net, name, x, stride| {
            net.bottleneck(name, x, channels, &Conv::square(3, stride, 1))
        });
    }
    net.head(&x, classes);
    net.finish()
}

/// The CIFAR-style ResNet of `depth` 6n + 2 layers on grey images: input `x` `[N,1,28,28]`, 3x3
/// stem, three stages of n basic blocks with `width`, 2 `width` and 4 `width` channels, output
/// `y` `[N,classes]`.
///
/// # Errors
/// [`ModelError::Depth`] if no n fits; [`ModelError::Opset`] and [`ModelError::Batch`] for options
/// out of range.
pub fn resnet_small(
    options: &BuildOptions,
    depth: usize,
    width: usize,
    classes: usize,
) -> Result<ModelProto, ModelError> {
    if depth < 8 || depth % 6 != 2 {
        return Err(ModelError::Depth(depth));
    }
    let mut net = Net::new(&format!("resnet{depth}"), options)?;
    let x = net.input([1, 28, 28], 8);
    let mut x = net.conv_bn_relu("conv1", "bn1", "relu", &x, width, &Conv::square(3, 1, 1));
    for stage in 0..3 {
        x = net.stage(stage, depth / 6, x, |net, name, x, stride| net.basic_block(name, x, width << stage, stride));
    }
    net.head(&x, classes);
    net.finish()
}

impl Net {
    pub(super) fn conv_bn_relu(
        &mut self,
        conv_name: &str,
        bn_name: &str,
        relu_name: &str,
        x: &Value,
        out: usize,
        conv: &Conv,
    ) -> Value {
        let y = self.conv(conv_name, x, out, conv, false);
        let y = self.batch_norm(bn_name, y, BatchNorm::Plain);
        self.relu(relu_name, y)
    }

    /// `layer{stage + 1}` of `blocks` blocks; the first block of every stage but the first strides.
    fn stage(
        &mut self,
        stage: usize,
        blocks: usize,
        x: Value,
        block: impl Fn(&mut Self, &str, Value, i64) -> Value,
    ) -> Value {
        (0..blocks).fold(x, |x, index| {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            block(self, &format!("layer{}.{index}", stage + 1), x, stride)
        })
    }

    /// Two 3x3 convolutions and a shortcut.
    pub(super) fn basic_block(&mut self, name: &str, x: Value, out: usize, stride: i64) -> Value {
        let at = |part: &str| format!("{name}.{part}");
        let first = Conv::square(3, stride, 1);
        let y = self.conv_bn_relu(&at("conv1"), &at("bn1"), &at("relu1"), &x, out, &first);
        let y = self.conv(&at("conv2"), &y, out, &Conv::square(3, 1, 1), false);
        let y = self.batch_norm(&at("bn2"), y, BatchNorm::BranchEnd);
        self.join(name, y, x, stride, "relu2")
    }

    /// The 3x3/2 pool behind a stem.
    pub(super) fn stem_pool(&mut self, name: &str, x: &Value, pool: StemPool) -> Value {
        let window = Pool::square(3, 2, 1);
        match pool {
            StemPool::Max => self.max_pool(name, x, &window),
            StemPool::Average { count_include_pad } => self.average_pool(name, x, &window, count_include_pad),
        }
    }

    /// 1x1 convolution, `middle` and 1x1 convolution to `4 * inner` channels, and a shortcut.
    pub(super) fn bottleneck(&mut self, name: &str, x: Value, inner: usize, middle: &Conv) -> Value {
        let at = |part: &str| format!("{name}.{part}");
        let point = Conv::square(1, 1, 0);
        let y = self.conv_bn_relu(&at("conv1"), &at("bn1"), &at("relu1"), &x, inner, &point);
        let y = self.conv_bn_relu(&at("conv2"), &at("bn2"), &at("relu2"), &y, inner, middle);
        let y = self.conv(&at("conv3"), &y, 4 * inner, &point, false);
        let y = self.batch_norm(&at("bn3"), y, BatchNorm::BranchEnd);
        self.join(name, y, x, middle.strides[0], "relu3")
    }

    /// Adds the shortcut from `x`, projected where the shapes differ, and applies the last ReLU.
    fn join(&mut self, name: &str, branch: Value, x: Value, stride: i64, relu: &str) -> Value {
        let shortcut = if stride == 1 && x.batch.c == branch.batch.c {
            x
        } else {
            let conv = Conv::square(1, stride, 0);
            let out = branch.batch.c;
            let y = self.conv(&format!("{name}.downsample.0"), &x, out, &conv, false);
            self.batch_norm(&format!("{name}.downsample.1"), y, BatchNorm::Shortcut)
        };
        let sum = self.add(&format!("{name}.add"), branch, &shortcut);
        self.relu(&format!("{name}.{relu}"), sum)
    }
}
