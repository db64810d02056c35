//! Shapes of windows, convolutions, pools and blocks, shared by both levels of IR.
//!
//! Maps are `height x width`; pairs are `[vertical, horizontal]`; paddings are
//! `[top, left, bottom, right]`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A sliding window over a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// Taps, vertical and horizontal.
    pub kernel: [usize; 2],
    /// Step between neighbouring outputs.
    pub stride: [usize; 2],
    /// Distance between neighbouring taps.
    pub dilation: [usize; 2],
    /// Positions added around the map: top, left, bottom, right.
    pub pad: [usize; 4],
}

impl Window {
    /// A window of `kernel` taps with stride 1, dilation 1 and no padding.
    pub fn new(kernel: [usize; 2]) -> Self {
        Window { kernel, stride: [1, 1], dilation: [1, 1], pad: [0; 4] }
    }

    /// Size of the output map over an `h x w` input; `None` where the window does not fit or a
    /// field is zero that must not be.
    pub fn output(&self, h: usize, w: usize) -> Option<[usize; 2]> {
        let axis = |n: usize, i: usize| {
            let span = self.dilation[i].checked_mul(self.kernel[i].checked_sub(1)?)?.checked_add(1)?;
            let padded = n.checked_add(self.pad[i])?.checked_add(self.pad[i + 2])?;
            if self.stride[i] == 0 || self.dilation[i] == 0 {
                return None;
            }
            Some(padded.checked_sub(span)? / self.stride[i] + 1)
        };
        Some([axis(h, 0)?, axis(w, 1)?])
    }

    /// Input position on `axis` of `tap` for output `o`; negative or past the end in the padding.
    pub fn position(&self, axis: usize, o: usize, tap: usize) -> isize {
        (o * self.stride[axis] + tap * self.dilation[axis]) as isize - self.pad[axis] as isize
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kh, kw] = self.kernel;
        write!(f, "k={kh}x{kw}")?;
        let [sh, sw] = self.stride;
        if self.stride != [1, 1] {
            write!(f, " s={sh}x{sw}")?;
        }
        let [dh, dw] = self.dilation;
        if self.dilation != [1, 1] {
            write!(f, " d={dh}x{dw}")?;
        }
        let [t, l, b, r] = self.pad;
        if self.pad != [0; 4] {
            write!(f, " p={t},{l},{b},{r}")?;
        }
        Ok(())
    }
}

/// A convolution of one image: input `[in_channels, in_h, in_w]`, weights
/// `[out_channels, in_channels / groups, kernel_h, kernel_w]`, output
/// `[out_channels, out_h, out_w]`. A matrix-vector product is the case of 1x1 maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConvShape {
    /// Input channels.
    pub in_channels: usize,
    /// Height and width of the input map.
    pub input: [usize; 2],
    /// Output channels.
    pub out_channels: usize,
    /// Channel groups; divides both channel counts.
    pub groups: usize,
    /// The window.
    pub window: Window,
}

impl ConvShape {
    /// A fully connected layer of `inputs` to `outputs` features.
    pub fn dense(inputs: usize, outputs: usize) -> Self {
        ConvShape { in_channels: inputs, input: [1, 1], out_channels: outputs, groups: 1, window: Window::new([1, 1]) }
    }

    /// Height and width of the output map; `None` for an impossible shape.
    pub fn output(&self) -> Option<[usize; 2]> {
        let fits = self.groups > 0
            && self.in_channels.is_multiple_of(self.groups)
            && self.out_channels.is_multiple_of(self.groups);
        if !fits {
            return None;
        }
        self.window.output(self.input[0], self.input[1])
    }

    /// Elements of the input.
    pub fn input_len(&self) -> Option<usize> {
        self.in_channels.checked_mul(self.input[0])?.checked_mul(self.input[1])
    }

    /// Elements of the output.
    pub fn output_len(&self) -> Option<usize> {
        let [h, w] = self.output()?;
        self.out_channels.checked_mul(h)?.checked_mul(w)
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> Option<usize> {
        let taps = self.window.kernel[0].checked_mul(self.window.kernel[1])?;
        self.out_channels.checked_mul(self.in_channels.checked_div(self.groups)?)?.checked_mul(taps)
    }
}

impl fmt::Display for ConvShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [h, w] = self.input;
        write!(f, "{}x{h}x{w}->{} {}", self.in_channels, self.out_channels, self.window)?;
        if self.groups != 1 {
            write!(f, " g={}", self.groups)?;
        }
        Ok(())
    }
}

/// A pool of one image: `[channels, in_h, in_w]` to `[channels, out_h, out_w]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PoolShape {
    /// Channels.
    pub channels: usize,
    /// Height and width of the input map.
    pub input: [usize; 2],
    /// The window, its padding already grown where ONNX `ceil_mode` asks for it.
    pub window: Window,
    /// How much of the padding (top, left, bottom, right) an average counts in its divisor.
    pub counted: [usize; 4],
}

impl PoolShape {
    /// Number of positions that the average at output `(oh, ow)` divides by.
    pub fn divisor(&self, oh: usize, ow: usize) -> usize {
        self.covered(0, oh) * self.covered(1, ow)
    }

    /// Positions of output `o`'s window on one axis that lie in the map or in padding that counts.
    fn covered(&self, axis: usize, o: usize) -> usize {
        let low = -(self.counted[axis] as isize);
        let high = (self.input[axis] + self.counted[axis + 2]) as isize;
        let inside = |&t: &usize| (low..high).contains(&self.window.position(axis, o, t));
        (0..self.window.kernel[axis]).filter(inside).count()
    }

    /// Fewest and most positions inside the map that a window covers.
    pub fn positions(&self) -> (usize, usize) {
        let inside = PoolShape { counted: [0; 4], ..*self };
        let [oh, ow] = self.window.output(self.input[0], self.input[1]).unwrap_or([0, 0]);
        let axis = |i: usize, outputs: usize| {
            let covered = |o: usize| inside.covered(i, o);
            ((0..outputs).map(covered).min().unwrap_or(0), (0..outputs).map(covered).max().unwrap_or(0))
        };
        let ((few_rows, most_rows), (few_columns, most_columns)) = (axis(0, oh), axis(1, ow));
        (few_rows * few_columns, most_rows * most_columns)
    }

    /// The divisor shared by all outputs, or `None` where borders differ from the middle.
    pub fn uniform_divisor(&self) -> Option<usize> {
        let [oh, ow] = self.window.output(self.input[0], self.input[1])?;
        let first = self.divisor(0, 0);
        // The divisor is a product of a row factor and a column factor, so one row and one
        // column decide for all positions.
        let same = (0..oh).all(|y| self.divisor(y, 0) == first) && (0..ow).all(|x| self.divisor(0, x) == first);
        same.then_some(first)
    }
}

impl fmt::Display for PoolShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [h, w] = self.input;
        write!(f, "{}x{h}x{w} {}", self.channels, self.window)?;
        if self.counted != [0; 4] {
            let [t, l, b, r] = self.counted;
            write!(f, " counted={t},{l},{b},{r}")?;
        }
        Ok(())
    }
}

/// What a Block-ReLU does to one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Block {
    /// One sign decision per patch of `h x w` pixels, patches aligned at the top-left corner and
    /// cut off at the right and bottom border. `1x1` is the ordinary ReLU.
    Patch {
        /// Rows of a patch.
        h: usize,
        /// Columns of a patch.
        w: usize,
    },
    /// The channel passes unchanged.
    Identity,
    /// The channel becomes zero.
    Zero,
}

impl Block {
    /// The ordinary ReLU.
    pub const RELU: Block = Block::Patch { h: 1, w: 1 };

    /// Sign decisions (DReLUs) on a map of `h x w` pixels.
    pub fn drelus(self, h: usize, w: usize) -> usize {
        match self {
            Block::Patch { h: bh, w: bw } => h.div_ceil(bh) * w.div_ceil(bw),
            Block::Identity | Block::Zero => 0,
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Block::Patch { h, w } => write!(f, "{h}x{w}"),
            Block::Identity => f.write_str("identity"),
            Block::Zero => f.write_str("zero"),
        }
    }
}
