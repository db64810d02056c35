//! A writer of ONNX graphs.
//!
//! [`GraphBuilder`] collects inputs, initializers and nodes in topological order.
//! [`GraphBuilder::node`] takes any operator with any attributes; the named methods cover what
//! convolutional networks use and follow the operator set they are written for.
//! [`GraphBuilder::finish`] checks the graph's structure, [`GraphBuilder::finish_unchecked`] does
//! not, for files that are wrong on purpose.
//!
//! ```
//! use bcc_models::onnx::{Conv, Dim, GraphBuilder, attr};
//!
//! # fn main() -> Result<(), bcc_models::ModelError> {
//! let mut g = GraphBuilder::new("example", 13);
//! let x = g.input("x", &[Dim::from("N"), 3.into(), 8.into(), 8.into()]);
//! let w = g.f32("w", &[4, 3, 3, 3], vec![0.1; 108]);
//! let y = g.conv("conv", &x, &w, None, &Conv::square(3, 1, 1));
//! let y = g.node("LeakyRelu", "act", &[&y], vec![attr::float("alpha", 0.1)]);
//! g.output(&y, "y", &[Dim::from("N"), 4.into(), 8.into(), 8.into()]);
//! let model = g.finish()?;
//! # assert_eq!(model.graph.map(|g| g.node.len()), Some(2));
//! # Ok(())
//! # }
//! ```

pub mod attr;
mod ops;

use std::collections::HashSet;

use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

use crate::error::ModelError;

/// The versions of ONNX's operator set that the writer knows.
pub const OPSETS: std::ops::RangeInclusive<i64> = 7..=21;

/// A float tensor with little-endian raw data. Shape and length are not compared here.
pub fn f32_tensor(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

/// An int64 tensor with little-endian raw data. Shape and length are not compared here.
pub fn i64_tensor(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: DataType::Int64 as i32,
        raw_data: data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

/// One dimension of a graph input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A size known when the model is written.
    Fixed(i64),
    /// A named size, known when the model is run.
    Symbolic(String),
}

impl From<i64> for Dim {
    fn from(size: i64) -> Self {
        Dim::Fixed(size)
    }
}

impl From<&str> for Dim {
    fn from(symbol: &str) -> Self {
        Dim::Symbolic(symbol.to_owned())
    }
}

/// Geometry of a two-dimensional convolution. Pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Kernel size.
    pub kernel: [i64; 2],
    /// Step between windows.
    pub strides: [i64; 2],
    /// Zeros added at the top, left, bottom and right.
    pub pads: [i64; 4],
    /// Distance between the kernel's taps.
    pub dilations: [i64; 2],
    /// Number of independent channel groups.
    pub group: i64,
}

impl Conv {
    /// A square kernel with the same stride and padding in both directions, undilated, one group.
    pub fn square(kernel: i64, stride: i64, pad: i64) -> Self {
        Self { kernel: [kernel; 2], strides: [stride; 2], pads: [pad; 4], dilations: [1; 2], group: 1 }
    }

    /// The same geometry in `group` groups.
    pub fn grouped(self, group: i64) -> Self {
        Self { group, ..self }
    }

    /// The same geometry with taps `dilation` pixels apart.
    pub fn dilated(self, dilation: i64) -> Self {
        Self { dilations: [dilation; 2], ..self }
    }
}

/// Geometry of a two-dimensional pooling window. Pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Window size.
    pub kernel: [i64; 2],
    /// Step between windows.
    pub strides: [i64; 2],
    /// Pixels added at the top, left, bottom and right.
    pub pads: [i64; 4],
    /// Whether the output size is rounded up instead of down.
    pub ceil_mode: bool,
}

impl Pool {
    /// A square window with the same stride and padding in both directions.
    pub fn square(kernel: i64, stride: i64, pad: i64) -> Self {
        Self { kernel: [kernel; 2], strides: [stride; 2], pads: [pad; 4], ceil_mode: false }
    }

    /// The same window with the output size rounded up.
    pub fn ceil(self) -> Self {
        Self { ceil_mode: true, ..self }
    }

    fn attributes(&self, opset: i64) -> Vec<AttributeProto> {
        let mut attrs = vec![
            attr::ints("kernel_shape", &self.kernel),
            attr::ints("strides", &self.strides),
            attr::ints("pads", &self.pads),
        ];
        if opset >= 10 {
            attrs.push(attr::int("ceil_mode", self.ceil_mode.into()));
        }
        attrs
    }
}

/// How `Resize` finds the pixels of its result, in two dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The pixel at or before `i * size / new_size`, as PyTorch's `nearest`.
    Nearest,
    /// Between the four pixels around, pixel centres at halves (PyTorch's `bilinear`).
    Bilinear,
    /// Between the four pixels around, the corners' centres on each other.
    AlignCorners,
}

/// What a `Resize` is told about the size of its result.
#[derive(Clone, Debug, PartialEq)]
pub enum ResizeTo {
    /// All dimensions.
    Sizes(Vec<i64>),
    /// A factor for every dimension.
    Scales(Vec<f32>),
    /// Height and width; batch and channels are read from the input by `Shape` and `Slice` and
    /// joined to them by `Concat`, as PyTorch writes it.
    Spatial([i64; 2]),
}

/// Collects one graph. Methods that add a node return the name of its (first) output value, to be
/// passed to later methods.
#[derive(Clone, Debug)]
pub struct GraphBuilder {
    graph: GraphProto,
    opset: i64,
    initializers_as_inputs: bool,
}

impl GraphBuilder {
    /// An empty graph for version `opset` of the default operator set.
    pub fn new(name: &str, opset: i64) -> Self {
        Self {
            graph: GraphProto { name: name.to_owned(), ..GraphProto::default() },
            opset,
            initializers_as_inputs: false,
        }
    }

    /// The operator set the graph is written for.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Lists initializers among the graph inputs as well, as exporters of IR version 3 had to.
    pub fn initializers_as_inputs(mut self) -> Self {
        self.initializers_as_inputs = true;
        self
    }

    /// Declares a float input and returns `name`.
    pub fn input(&mut self, name: &str, dims: &[Dim]) -> String {
        self.graph.input.push(value_info(name, DataType::Float, dims));
        name.to_owned()
    }

    /// Declares `value` a float output of the graph. If a node makes `value` and `name` differs,
    /// the value is renamed to `name` throughout.
    pub fn output(&mut self, value: &str, name: &str, dims: &[Dim]) {
        let nodes = &mut self.graph.node;
        if nodes.iter().any(|node| node.output.iter().any(|o| o == value)) {
            for slot in nodes.iter_mut().flat_map(|n| n.input.iter_mut().chain(&mut n.output)) {
                if slot == value {
                    name.clone_into(slot);
                }
            }
        }
        self.graph.output.push(value_info(name, DataType::Float, dims));
    }

    /// Adds a float initializer of row-major `data` and returns `name`.
    pub fn f32(&mut self, name: &str, dims: &[i64], data: Vec<f32>) -> String {
        self.initializer(f32_tensor(name, dims, &data))
    }

    /// Adds a one-dimensional int64 initializer and returns `name`.
    pub fn i64(&mut self, name: &str, data: &[i64]) -> String {
        self.initializer(i64_tensor(name, &[data.len() as i64], data))
    }

    /// Adds any tensor as an initializer and returns its name.
    pub fn initializer(&mut self, tensor: TensorProto) -> String {
        let name = tensor.name.clone();
        self.graph.initializer.push(tensor);
        name
    }

    /// Adds a node with one output, which is named after the node. An empty input name leaves an
    /// optional input out.
    pub fn node(&mut self, op_type: &str, name: &str, inputs: &[&str], attrs: Vec<AttributeProto>) -> String {
        let output = format!("{name}_output");
        self.raw_node(NodeProto {
            op_type: op_type.to_owned(),
            name: name.to_owned(),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![output.clone()],
            attribute: attrs,
            ..NodeProto::default()
        });
        output
    }

    /// Adds a node as it is: several outputs, a foreign domain, no name.
    pub fn raw_node(&mut self, node: NodeProto) {
        self.graph.node.push(node);
    }

    /// The finished model, its structure checked: every name defined once and before its use,
    /// every initializer as long as its shape says. Operators and attributes are not checked.
    ///
    /// # Errors
    /// The first violation, as [`ModelError::Opset`], [`ModelError::DuplicateValue`],
    /// [`ModelError::InitializerSize`], [`ModelError::UndefinedInput`] or
    /// [`ModelError::UndefinedOutput`].
    pub fn finish(self) -> Result<ModelProto, ModelError> {
        if !OPSETS.contains(&self.opset) {
            return Err(ModelError::Opset(self.opset));
        }
        let mut defined = HashSet::new();
        let define = |defined: &mut HashSet<String>, name: &str| {
            if name.is_empty() || defined.insert(name.to_owned()) {
                Ok(())
            } else {
                Err(ModelError::DuplicateValue(name.to_owned()))
            }
        };
        for input in &self.graph.input {
            define(&mut defined, &input.name)?;
        }
        for tensor in &self.graph.initializer {
            define(&mut defined, &tensor.name)?;
            check_size(tensor)?;
        }
        for node in &self.graph.node {
            for value in node.input.iter().filter(|v| !v.is_empty()) {
                if !defined.contains(value) {
                    return Err(ModelError::UndefinedInput { node: node.name.clone(), value: value.clone() });
                }
            }
            for value in &node.output {
                define(&mut defined, value)?;
            }
        }
        for output in &self.graph.output {
            if !defined.contains(&output.name) {
                return Err(ModelError::UndefinedOutput(output.name.clone()));
            }
        }
        Ok(self.finish_unchecked())
    }

    /// The finished model, whatever its state.
    pub fn finish_unchecked(mut self) -> ModelProto {
        if self.initializers_as_inputs {
            list_initializers(&mut self.graph);
        }
        ModelProto {
            ir_version: ir_version(self.opset),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: self.opset }],
            producer_name: "bcc-models".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            ..ModelProto::default()
        }
    }
}

/// The file format's version that came out with `opset`.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=8 => 3,
        9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        _ => 10,
    }
}

fn check_size(tensor: &TensorProto) -> Result<(), ModelError> {
    let width = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float | DataType::Int32) => 4,
        Ok(DataType::Int64 | DataType::Double) => 8,
        _ => return Ok(()),
    };
    if tensor.raw_data.is_empty()
        && !(tensor.float_data.is_empty()
            && tensor.int32_data.is_empty()
            && tensor.int64_data.is_empty()
            && tensor.double_data.is_empty())
    {
        return Ok(());
    }
    let elements = tensor.raw_data.len() / width;
    if tensor.dims.iter().product::<i64>() == elements as i64 {
        Ok(())
    } else {
        Err(ModelError::InitializerSize { name: tensor.name.clone(), dims: tensor.dims.clone(), elements })
    }
}

/// Lists the initializers among the inputs.
pub(crate) fn list_initializers(graph: &mut GraphProto) {
    for tensor in &graph.initializer {
        let dims: Vec<Dim> = tensor.dims.iter().map(|&d| Dim::Fixed(d)).collect();
        let kind = DataType::try_from(tensor.data_type).unwrap_or(DataType::Undefined);
        graph.input.push(value_info(&tensor.name, kind, &dims));
    }
}

fn value_info(name: &str, kind: DataType, dims: &[Dim]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = dims
        .iter()
        .map(|dim| Dimension {
            value: Some(match dim {
                Dim::Fixed(size) => Value::DimValue(*size),
                Dim::Symbolic(symbol) => Value::DimParam(symbol.clone()),
            }),
            ..Dimension::default()
        })
        .collect();
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: kind as i32,
                shape: Some(TensorShapeProto { dim }),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relu_graph() -> GraphBuilder {
        let mut g = GraphBuilder::new("g", 13);
        let x = g.input("x", &[1.into(), 4.into()]);
        let y = g.relu("relu", &x);
        g.output(&y, "y", &[1.into(), 4.into()]);
        g
    }

    #[test]
    fn finish_names_the_violation() {
        assert!(relu_graph().finish().is_ok());

        let mut g = relu_graph();
        g.relu("again", "nowhere");
        assert!(matches!(g.finish(), Err(ModelError::UndefinedInput { value, .. }) if value == "nowhere"));

        let mut g = relu_graph();
        g.f32("x", &[1], vec![0.0]);
        assert!(matches!(g.finish(), Err(ModelError::DuplicateValue(name)) if name == "x"));

        let mut g = relu_graph();
        g.f32("w", &[2, 3], vec![0.0; 5]);
        assert!(matches!(g.clone().finish(), Err(ModelError::InitializerSize { elements: 5, .. })));
        g.finish_unchecked();

        assert!(matches!(GraphBuilder::new("g", 6).finish(), Err(ModelError::Opset(6))));
    }

    #[test]
    fn outputs_are_renamed_where_they_are_used() {
        let mut g = GraphBuilder::new("g", 13);
        let x = g.input("x", &[1.into()]);
        let a = g.relu("a", &x);
        let b = g.identity("b", &a);
        g.output(&a, "first", &[1.into()]);
        g.output(&b, "second", &[1.into()]);
        let graph = g.finish().expect("well-formed").graph.expect("graph");
        assert_eq!(graph.node[0].output, ["first"]);
        assert_eq!(graph.node[1].input, ["first"]);
        assert_eq!(graph.node[1].output, ["second"]);
    }

    #[test]
    fn operators_follow_the_opset() {
        for opset in [9, 11, 18] {
            let mut g = GraphBuilder::new("g", opset);
            let x = g.input("x", &[1.into(), 1.into(), 4.into(), 4.into()]);
            let y = g.pad("pad", &x, &[0, 0, 1, 1, 0, 0, 1, 1]);
            let y = g.clip("clip", &y, 0.0, 6.0);
            let y = g.reduce_mean("mean", &y, &[2, 3], false);
            g.output(&y, "y", &[1.into(), 1.into()]);
            let graph = g.finish().expect("well-formed").graph.expect("graph");
            let inputs: Vec<usize> = graph.node.iter().map(|n| n.input.len()).collect();
            let expected = match opset {
                9 => [1, 1, 1],
                11 => [2, 3, 1],
                _ => [2, 3, 2],
            };
            assert_eq!(inputs, expected, "opset {opset}");
        }
    }
}
