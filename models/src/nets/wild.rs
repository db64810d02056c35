//! The small networks as other tools write them: each rewrite changes a file's form and not what it computes.

use std::collections::HashSet;
use std::path::Path;

use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    tensor_proto::{DataLocation, DataType},
};
use tract_onnx::prelude::f16;

use super::{BuildOptions, find};
use crate::error::ModelError;
use crate::onnx::{attr, f32_tensor, i64_tensor, list_initializers};

/// Offsets in a file of weights are multiples of this.
const ALIGNMENT: usize = 64;

/// A form in which files are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wild {
    /// Weights, and all other constants, in `Constant` nodes.
    Constants,
    /// Equal weights stored once and passed on by `Identity`, as PyTorch shares them.
    Shared,
    /// No node has a name.
    Unnamed,
    /// All nodes have the same name.
    Duplicate,
    /// Weights of 16 bits with a `Cast` behind each.
    Half,
    /// Weights of 64 bits with a `Cast` behind each.
    Double,
    /// Weights as lists of numbers and not as bytes.
    Listed,
    /// Weights in a file of their own.
    External,
    /// Every gate between two transposes, the first to channels last.
    Nhwc,
    /// `Flatten` as a reshape whose target is computed by `Shape`, `Gather`, `Unsqueeze` and `Concat`.
    ShapeArithmetic,
    /// `Dropout`, which does nothing, before every gate.
    Dropout,
    /// The weights among the graph's inputs, as IR version 3 wanted it.
    Inputs,
    /// Biases and shifts by `Add`, scales by `Mul`, both of shape `[C,1,1]`: no batch norm, no convolution with bias.
    Arithmetic,
}

impl Wild {
    /// All forms.
    pub const ALL: [Self; 13] = [
        Self::Constants,
        Self::Shared,
        Self::Unnamed,
        Self::Duplicate,
        Self::Half,
        Self::Double,
        Self::Listed,
        Self::External,
        Self::Nhwc,
        Self::ShapeArithmetic,
        Self::Dropout,
        Self::Inputs,
        Self::Arithmetic,
    ];
}

/// A network twice: as this crate writes it and in another form.
#[derive(Clone, Debug)]
pub struct Pair {
    /// As this crate writes it; its weights are rounded or made equal where the form needs that.
    pub plain: ModelProto,
    /// The same function in the form asked for.
    pub wild: ModelProto,
    /// Name and content of the file of weights beside the wild model, for [`Wild::External`].
    pub data: Option<(String, Vec<u8>)>,
}

impl Pair {
    /// Writes the wild model to `path` and its weights' file beside it.
    ///
    /// # Errors
    /// [`ModelError::Write`] names the path.
    pub fn write_wild(&self, path: &Path) -> Result<(), ModelError> {
        if let Some((name, data)) = &self.data {
            let path = path.with_file_name(name);
            std::fs::write(&path, data).map_err(|source| ModelError::Write { path, source })?;
        }
        crate::write_model(&self.wild, path)
    }
}

/// The net called `name`, built with `options`, and the same in another `form`.
///
/// # Errors
/// As [`find`] and [`NetInfo::build`](super::NetInfo::build).
pub fn pair(name: &str, form: Wild, options: &BuildOptions) -> Result<Pair, ModelError> {
    let mut plain = find(name)?.build(options)?;
    let opset = options.opset;
    if let Some(graph) = &mut plain.graph {
        match form {
            Wild::Half => round_to_half(graph),
            Wild::Shared => equal_shifts(graph),
            _ => {}
        }
    }
    let mut wild = plain.clone();
    let mut data = None;
    if let Some(graph) = &mut wild.graph {
        match form {
            Wild::Constants => constants(graph),
            Wild::Shared => share(graph),
            Wild::Unnamed => graph.node.iter_mut().for_each(|n| n.name.clear()),
            Wild::Duplicate => graph.node.iter_mut().for_each(|n| "node".clone_into(&mut n.name)),
            Wild::Half => cast(graph, DataType::Float16, |v| f16::from_f32(v).to_le_bytes().to_vec()),
            Wild::Double => cast(graph, DataType::Double, |v| f64::from(v).to_le_bytes().to_vec()),
            Wild::Listed => list(graph),
            Wild::External => data = Some(external(graph)),
            Wild::Nhwc => rewrite(graph, |node| if is_gate(&node) { channels_last(node) } else { vec![node] }),
            Wild::ShapeArithmetic => shape_arithmetic(graph, opset),
            Wild::Dropout => rewrite(graph, |node| if is_gate(&node) { dropout(node) } else { vec![node] }),
            Wild::Inputs => list_initializers(graph),
            Wild::Arithmetic => arithmetic(graph),
        }
    }
    Ok(Pair { plain, wild, data })
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        name: format!("{output}/{op}"),
        input: inputs.iter().map(|&i| i.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    }
}

/// Every node of `graph` replaced by what `f` makes of it.
fn rewrite(graph: &mut GraphProto, f: impl FnMut(NodeProto) -> Vec<NodeProto>) {
    graph.node = std::mem::take(&mut graph.node).into_iter().flat_map(f).collect();
}

/// Puts `nodes` before all others.
fn prepend(graph: &mut GraphProto, nodes: Vec<NodeProto>) {
    graph.node.splice(0..0, nodes);
}

fn is_gate(node: &NodeProto) -> bool {
    ["Relu", "Clip", "LeakyRelu"].contains(&node.op_type.as_str())
}

/// The float initializers that layers read as weights, biases and statistics.
fn weights(graph: &mut GraphProto) -> Vec<&mut TensorProto> {
    const LAYERS: [&str; 5] = ["Conv", "Gemm", "MatMul", "BatchNormalization", "PRelu"];
    let layers = graph.node.iter().filter(|n| LAYERS.contains(&n.op_type.as_str()));
    let read: HashSet<&String> = layers.flat_map(|n| &n.input).collect();
    graph.initializer.iter_mut().filter(|t| read.contains(&t.name)).collect()
}

/// The values of a float tensor that [`f32_tensor`] made.
fn floats(tensor: &TensorProto) -> Vec<f32> {
    tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn round_to_half(graph: &mut GraphProto) {
    for tensor in weights(graph) {
        let values = floats(tensor).into_iter();
        tensor.raw_data = values.flat_map(|v| f16::from_f32(v).to_f32().to_le_bytes()).collect();
    }
}

/// Gives all batch norms of one width the first one's shifts.
fn equal_shifts(graph: &mut GraphProto) {
    let norms = graph.node.iter().filter(|n| n.op_type == "BatchNormalization");
    let shifts: HashSet<String> = norms.map(|n| n.input[2].clone()).collect();
    let mut seen: Vec<(Vec<i64>, Vec<u8>)> = Vec::new();
    for tensor in graph.initializer.iter_mut().filter(|t| shifts.contains(&t.name)) {
        match seen.iter().find(|(dims, _)| *dims == tensor.dims) {
            Some((_, data)) => tensor.raw_data.clone_from(data),
            None => seen.push((tensor.dims.clone(), tensor.raw_data.clone())),
        }
    }
}

fn share(graph: &mut GraphProto) {
    let mut kept: Vec<TensorProto> = Vec::new();
    let mut identities = Vec::new();
    for tensor in std::mem::take(&mut graph.initializer) {
        let same = |t: &&TensorProto| t.dims == tensor.dims && t.raw_data == tensor.raw_data;
        match kept.iter().find(same) {
            Some(first) => identities.push(node("Identity", &[&first.name], &tensor.name, vec![])),
            None => kept.push(tensor),
        }
    }
    graph.initializer = kept;
    prepend(graph, identities);
}

fn constants(graph: &mut GraphProto) {
    let tensors = std::mem::take(&mut graph.initializer);
    let constant = |tensor: TensorProto| {
        let name = tensor.name.clone();
        node("Constant", &[], &name, vec![attr::tensor("value", tensor)])
    };
    prepend(graph, tensors.into_iter().map(constant).collect());
}

/// Stores weights as numbers of `kind`, each written by `bytes`.
fn cast(graph: &mut GraphProto, kind: DataType, bytes: impl Fn(f32) -> Vec<u8>) {
    let mut casts = Vec::new();
    for tensor in weights(graph) {
        let stored = format!("{}_stored", tensor.name);
        tensor.raw_data = floats(tensor).into_iter().flat_map(&bytes).collect();
        tensor.data_type = kind as i32;
        casts.push(node("Cast", &[&stored], &tensor.name, vec![attr::int("to", DataType::Float as i64)]));
        tensor.name = stored;
    }
    prepend(graph, casts);
}

fn list(graph: &mut GraphProto) {
    for tensor in weights(graph) {
        tensor.float_data = floats(tensor);
        tensor.raw_data.clear();
    }
}

fn external(graph: &mut GraphProto) -> (String, Vec<u8>) {
    let name = format!("{}.weights", graph.name);
    let mut data = Vec::new();
    for tensor in weights(graph) {
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        tensor.external_data = vec![
            entry("location", name.clone()),
            entry("offset", data.len().to_string()),
            entry("length", tensor.raw_data.len().to_string()),
        ];
        tensor.data_location = Some(DataLocation::External as i32);
        data.append(&mut tensor.raw_data);
    }
    (name, data)
}

fn channels_last(mut gate: NodeProto) -> Vec<NodeProto> {
    let (x, y) = (gate.input[0].clone(), gate.output[0].clone());
    let inside = [format!("{y}_nhwc_in"), format!("{y}_nhwc_out")];
    gate.input[0].clone_from(&inside[0]);
    gate.output[0].clone_from(&inside[1]);
    let to = node("Transpose", &[&x], &inside[0], vec![attr::ints("perm", &[0, 2, 3, 1])]);
    let back = node("Transpose", &[&inside[1]], &y, vec![attr::ints("perm", &[0, 3, 1, 2])]);
    vec![to, gate, back]
}

fn dropout(mut gate: NodeProto) -> Vec<NodeProto> {
    let inside = format!("{}_dropped", gate.output[0]);
    let dropout = node("Dropout", &[&gate.input[0]], &inside, vec![]);
    gate.input[0] = inside;
    vec![dropout, gate]
}

fn shape_arithmetic(graph: &mut GraphProto, opset: i64) {
    let mut tensors = Vec::new();
    rewrite(graph, |flatten| {
        if flatten.op_type != "Flatten" {
            return vec![flatten];
        }
        let (x, y) = (&flatten.input[0], &flatten.output[0]);
        let at = |part: &str| format!("{y}_{part}");
        let mut constant = |part: &str, dims: &[i64], value: i64| {
            tensors.push(i64_tensor(&at(part), dims, &[value]));
            at(part)
        };
        let (index, rest) = (constant("index", &[], 0), constant("rest", &[1], -1));
        let unsqueeze = if opset >= 13 {
            let axes = constant("axes", &[1], 0);
            node("Unsqueeze", &[&at("size"), &axes], &at("front"), vec![])
        } else {
            node("Unsqueeze", &[&at("size")], &at("front"), vec![attr::ints("axes", &[0])])
        };
        vec![
            node("Shape", &[x], &at("shape"), vec![]),
            node("Gather", &[&at("shape"), &index], &at("size"), vec![attr::int("axis", 0)]),
            unsqueeze,
            node("Concat", &[&at("front"), &rest], &at("target"), vec![attr::int("axis", 0)]),
            node("Reshape", &[x, &at("target")], y, vec![]),
        ]
    });
    graph.initializer.append(&mut tensors);
}

fn arithmetic(graph: &mut GraphProto) {
    const EPSILON: f32 = 1e-5;
    let tensors = graph.initializer.clone();
    let values = |name: &str| tensors.iter().find(|t| t.name == name).map(floats).unwrap_or_default();
    let mut made = Vec::new();
    rewrite(graph, |mut layer| {
        let y = layer.output[0].clone();
        let mut channelwise = |part: &str, values: Vec<f32>| {
            let name = format!("{y}_{part}");
            made.push(f32_tensor(&name, &[values.len() as i64, 1, 1], &values));
            name
        };
        let inside = format!("{y}_linear");
        match (layer.op_type.as_str(), layer.input.len()) {
            ("Conv", 3) => {
                let bias = layer.input.pop().unwrap_or_default();
                let bias = channelwise("shift", values(&bias));
                layer.output[0].clone_from(&inside);
                vec![layer, node("Add", &[&inside, &bias], &y, vec![])]
            }
            ("BatchNormalization", _) => {
                let [scale, shift, mean, var] = [1, 2, 3, 4].map(|i| values(&layer.input[i]));
                let factor: Vec<f32> = scale.iter().zip(&var).map(|(s, v)| s / (v + EPSILON).sqrt()).collect();
                let offset = (0..factor.len()).map(|c| shift[c] - factor[c] * mean[c]).collect();
                let (factor, offset) = (channelwise("scale", factor), channelwise("shift", offset));
                let product = node("Mul", &[&layer.input[0], &factor], &inside, vec![]);
                vec![product, node("Add", &[&inside, &offset], &y, vec![])]
            }
            _ => vec![layer],
        }
    });
    let read: HashSet<&String> = graph.node.iter().flat_map(|n| &n.input).collect();
    graph.initializer.retain(|t| read.contains(&t.name));
    graph.initializer.append(&mut made);
}
