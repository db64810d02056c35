//! Single layers and a few of them, to measure a part of a network by itself.

use tract_onnx::pb::ModelProto;

use super::{BuildOptions, Net};
use crate::error::ModelError;
use crate::onnx::Conv;

/// A 3x3 convolution of ResNet-50's first stage: input `x` `[N,64,56,56]`, output `y` of the same shape.
///
/// # Errors
/// [`ModelError::Opset`], [`ModelError::Batch`] and [`ModelError::Size`] for options out of range.
pub fn single_conv(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let mut net = Net::new("single_conv", options)?;
    let x = net.input([64, 56, 56], 1);
    let y = net.conv("conv", &x, 64, &Conv::square(3, 1, 1), true);
    net.output(&y.name, 64, [56, 56])
}

/// A million ReLUs between a 1x1 convolution, so that their operands are secret, and the averages of their channels, so
/// that input and output weigh nothing: input `x` `[N,1,100,100]`, output `y` `[N,100,1,1]`.
///
/// # Errors
/// [`ModelError::Opset`], [`ModelError::Batch`] and [`ModelError::Size`] for options out of range.
pub fn million_relus(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let mut net = Net::new("million_relus", options)?;
    let x = net.input([1, 100, 100], 1);
    let x = net.conv("conv", &x, 100, &Conv::square(1, 1, 0), true);
    let y = net.relu("relu", x);
    let y = net.global_average("avgpool", &y);
    net.output(&y.name, 100, [1, 1])
}

/// Convolutions of a block of ResNet-50's first stage, 1x1 to 256 channels and back to 64, then 3x3, with ReLUs, and
/// averages: what `bcr rates` runs as a session, and so a network of which little but convolutions and ReLUs takes time, on
/// maps as large as those of networks. Input `x` `[N,64,56,56]`, output `y` `[N,64,1,1]`.
///
/// # Errors
/// [`ModelError::Opset`], [`ModelError::Batch`] and [`ModelError::Size`] for options out of range.
pub fn conv_relus(options: &BuildOptions) -> Result<ModelProto, ModelError> {
    let mut net = Net::new("conv_relus", options)?;
    let mut x = net.input([64, 56, 56], 1);
    for (layer, channels, kernel) in [(1, 256, 1), (2, 64, 1), (3, 64, 3)] {
        let y = net.conv(&format!("conv{layer}"), &x, channels, &Conv::square(kernel, 1, kernel / 2), true);
        x = net.relu(&format!("relu{layer}"), y);
    }
    let y = net.global_average("avgpool", &x);
    net.output(&y.name, 64, [1, 1])
}
