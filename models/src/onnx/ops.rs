//! The operators that convolutional networks use, written for the graph's operator set.

use tract_onnx::pb::TensorProto;

use super::{Conv, GraphBuilder, Interpolation, Pool, ResizeTo, attr};

impl GraphBuilder {
    /// `Conv` of `x` `[N,C,H,W]` with weights `w` `[O,C/group,kh,kw]` and, if given, `bias` `[O]`.
    pub fn conv(&mut self, name: &str, x: &str, w: &str, bias: Option<&str>, conv: &Conv) -> String {
        let mut inputs = vec![x, w];
        inputs.extend(bias);
        let attrs = vec![
            attr::ints("kernel_shape", &conv.kernel),
            attr::ints("strides", &conv.strides),
            attr::ints("pads", &conv.pads),
            attr::ints("dilations", &conv.dilations),
            attr::int("group", conv.group),
        ];
        self.node("Conv", name, &inputs, attrs)
    }

    /// `BatchNormalization` in inference form. `stats` are the names of scale, shift, running mean
    /// and running variance, each `[C]`.
    pub fn batch_norm(&mut self, name: &str, x: &str, stats: [&str; 4], epsilon: f32) -> String {
        let [scale, shift, mean, var] = stats;
        let attrs = vec![attr::float("epsilon", epsilon), attr::float("momentum", 0.9)];
        self.node("BatchNormalization", name, &[x, scale, shift, mean, var], attrs)
    }

    /// `Relu`.
    pub fn relu(&mut self, name: &str, x: &str) -> String {
        self.node("Relu", name, &[x], vec![])
    }

    /// `Add` with broadcasting.
    pub fn add(&mut self, name: &str, a: &str, b: &str) -> String {
        self.node("Add", name, &[a, b], vec![])
    }

    /// `MatMul`.
    pub fn mat_mul(&mut self, name: &str, a: &str, b: &str) -> String {
        self.node("MatMul", name, &[a, b], vec![])
    }

    /// `MaxPool`. `ceil_mode` is written from opset 10 on, where it exists.
    pub fn max_pool(&mut self, name: &str, x: &str, pool: &Pool) -> String {
        let attrs = pool.attributes(self.opset);
        self.node("MaxPool", name, &[x], attrs)
    }

    /// `AveragePool`. `count_include_pad` says whether padding counts in the divisor.
    pub fn average_pool(&mut self, name: &str, x: &str, pool: &Pool, count_include_pad: bool) -> String {
        let mut attrs = pool.attributes(self.opset);
        attrs.push(attr::int("count_include_pad", count_include_pad.into()));
        self.node("AveragePool", name, &[x], attrs)
    }

    /// `GlobalAveragePool`, `[N,C,H,W]` to `[N,C,1,1]`.
    pub fn global_average_pool(&mut self, name: &str, x: &str) -> String {
        self.node("GlobalAveragePool", name, &[x], vec![])
    }

    /// `Flatten` to two dimensions at `axis`.
    pub fn flatten(&mut self, name: &str, x: &str, axis: i64) -> String {
        self.node("Flatten", name, &[x], vec![attr::int("axis", axis)])
    }

    /// `Gemm` of `x` `[N,I]` with `w` `[O,I]` (`transB`) and `bias` `[O]`.
    pub fn gemm(&mut self, name: &str, x: &str, w: &str, bias: &str) -> String {
        self.node("Gemm", name, &[x, w, bias], vec![attr::int("transB", 1)])
    }

    /// `Softmax` over `axis`.
    pub fn softmax(&mut self, name: &str, x: &str, axis: i64) -> String {
        self.node("Softmax", name, &[x], vec![attr::int("axis", axis)])
    }

    /// `Reshape` to `shape`; 0 keeps a dimension, -1 takes what is left.
    pub fn reshape(&mut self, name: &str, x: &str, shape: &[i64]) -> String {
        let shape = self.i64(&format!("{name}_shape"), shape);
        self.node("Reshape", name, &[x, &shape], vec![])
    }

    /// `Transpose` by `perm`.
    pub fn transpose(&mut self, name: &str, x: &str, perm: &[i64]) -> String {
        self.node("Transpose", name, &[x], vec![attr::ints("perm", perm)])
    }

    /// `Pad` with zeros; `pads` are all begins, then all ends. An input from opset 11 on, an
    /// attribute before.
    pub fn pad(&mut self, name: &str, x: &str, pads: &[i64]) -> String {
        let mode = attr::string("mode", "constant");
        if self.opset >= 11 {
            let pads = self.i64(&format!("{name}_pads"), pads);
            self.node("Pad", name, &[x, &pads], vec![mode])
        } else {
            self.node("Pad", name, &[x], vec![mode, attr::ints("pads", pads)])
        }
    }

    /// `ReduceMean` over `axes`. An input from opset 18 on, an attribute before.
    pub fn reduce_mean(&mut self, name: &str, x: &str, axes: &[i64], keep_dims: bool) -> String {
        let keep = attr::int("keepdims", keep_dims.into());
        if self.opset >= 18 {
            let axes = self.i64(&format!("{name}_axes"), axes);
            self.node("ReduceMean", name, &[x, &axes], vec![keep])
        } else {
            self.node("ReduceMean", name, &[x], vec![attr::ints("axes", axes), keep])
        }
    }

    /// `Concat` along `axis`.
    pub fn concat(&mut self, name: &str, inputs: &[&str], axis: i64) -> String {
        self.node("Concat", name, inputs, vec![attr::int("axis", axis)])
    }

    /// `Clip` to `min..=max`, as ReLU6 is exported. Inputs from opset 11 on, attributes before.
    pub fn clip(&mut self, name: &str, x: &str, min: f32, max: f32) -> String {
        if self.opset >= 11 {
            let min = self.f32(&format!("{name}_min"), &[], vec![min]);
            let max = self.f32(&format!("{name}_max"), &[], vec![max]);
            self.node("Clip", name, &[x, &min, &max], vec![])
        } else {
            let attrs = vec![attr::float("min", min), attr::float("max", max)];
            self.node("Clip", name, &[x], attrs)
        }
    }

    /// `Constant` holding `tensor`.
    pub fn constant(&mut self, name: &str, tensor: TensorProto) -> String {
        self.node("Constant", name, &[], vec![attr::tensor("value", tensor)])
    }

    /// `Identity`.
    pub fn identity(&mut self, name: &str, x: &str) -> String {
        self.node("Identity", name, &[x], vec![])
    }

    /// `PRelu` with the slopes `[C,1,1]` called `slope`.
    pub fn prelu(&mut self, name: &str, x: &str, slope: &str) -> String {
        self.node("PRelu", name, &[x, slope], vec![])
    }

    /// `LeakyRelu`.
    pub fn leaky_relu(&mut self, name: &str, x: &str, alpha: f32) -> String {
        self.node("LeakyRelu", name, &[x], vec![attr::float("alpha", alpha)])
    }

    /// `Resize` of `[N,C,H,W]`, from opset 11 on; in older sets it means something else.
    pub fn resize(&mut self, name: &str, x: &str, to: &ResizeTo, interpolation: Interpolation) -> String {
        let (mode, coordinates) = match interpolation {
            Interpolation::Nearest => ("nearest", "asymmetric"),
            Interpolation::Bilinear => ("linear", "half_pixel"),
            Interpolation::AlignCorners => ("linear", "align_corners"),
        };
        let mut attrs = vec![attr::string("mode", mode), attr::string("coordinate_transformation_mode", coordinates)];
        if interpolation == Interpolation::Nearest {
            attrs.push(attr::string("nearest_mode", "floor"));
        }
        let at = |part: &str| format!("{name}_{part}");
        // Opsets 11 and 12 want empty tensors for inputs that later ones leave out.
        let mut absent = |part: &str| match self.opset {
            ..13 => self.f32(&at(part), &[0], vec![]),
            _ => String::new(),
        };
        let roi = absent("roi");
        let sizes = match to {
            ResizeTo::Scales(scales) => {
                let scales = self.f32(&at("scales"), &[scales.len() as i64], scales.clone());
                return self.node("Resize", name, &[x, &roi, &scales], attrs);
            }
            ResizeTo::Sizes(sizes) => {
                let scales = absent("scales");
                (scales, self.i64(&at("sizes"), sizes))
            }
            ResizeTo::Spatial(size) => {
                let scales = absent("scales");
                let shape = self.node("Shape", &at("shape"), &[x], vec![]);
                let bounds = [("starts", 0), ("ends", 2), ("axes", 0)].map(|(part, v)| self.i64(&at(part), &[v]));
                let front = self.node("Slice", &at("front"), &[&shape, &bounds[0], &bounds[1], &bounds[2]], vec![]);
                let size = self.i64(&at("size"), size);
                (scales, self.concat(&at("sizes"), &[&front, &size], 0))
            }
        };
        self.node("Resize", name, &[x, &roi, &sizes.0, &sizes.1], attrs)
    }
}
