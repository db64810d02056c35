//! Clips of clips, and layers of mixtures.

use bcc_ir::Block;
use bcc_ir::geometry::Window;
use bcc_ir::graph::{ConstData, Graph, NodeId, Op};

use super::{FoldError, Layer, is_only_user, skip};

/// Joins a clip with the clip or ReLU in front of it, where their intervals overlap.
pub(super) fn clips(graph: &mut Graph, id: NodeId, low: Option<f64>, high: Option<f64>) -> bool {
    let operand = graph.operand(id);
    let (first_low, first_high) = match &graph.node(operand).op {
        Op::Clip { low, high } => (*low, *high),
        Op::BlockRelu { blocks, .. } if blocks.iter().all(|b| *b == Block::RELU) => (Some(0.0), None),
        _ => return false,
    };
    if !is_only_user(graph, operand, id) {
        return false;
    }
    let low = low.into_iter().chain(first_low).reduce(f64::max);
    let high = high.into_iter().chain(first_high).reduce(f64::min);
    if low.zip(high).is_some_and(|(low, high)| low >= high) {
        return false;
    }
    graph.node_mut(id).op = Op::Clip { low, high };
    skip(graph, id, operand)
}

/// Joins a convolution with the mixture in front of it: a 1x1 convolution whose groups have several
/// inputs and one output.
pub(super) fn mixture(graph: &mut Graph, id: NodeId) -> Result<bool, FoldError> {
    let operand = graph.operand(id);
    let Op::Conv { weight, bias, window, groups } = graph.node(id).op else { return Ok(false) };
    let Op::Conv { window: inner, groups: parts, .. } = graph.node(operand).op else { return Ok(false) };
    let plain = Window { dilation: inner.dilation, ..Window::new([1, 1]) };
    if inner != plain || graph.node(operand).shape[1] != parts || !is_only_user(graph, operand, id) {
        return Ok(false);
    }
    let (Some(mix), Some(layer)) = (Layer::read(graph, operand)?, Layer::read(graph, id)?) else { return Ok(false) };
    let still = mix.bias.iter().all(|b| *b == 0.0);
    if mix.inputs < 2 || !still && window.pad != [0; 4] {
        return Ok(false);
    }
    let taps = window.kernel[0] * window.kernel[1];
    let per_group = layer.bias.len() / layer.groups;
    let (mut joined, mut biases) = (Vec::with_capacity(layer.weight.len() * mix.inputs), layer.bias);
    for (o, row) in layer.weight.chunks_exact(layer.inputs * taps).enumerate() {
        for (i, w) in row.chunks_exact(taps).enumerate() {
            let channel = o / per_group * layer.inputs + i;
            biases[o] += w.iter().sum::<f64>() * mix.bias[channel];
            for v in &mix.weight[channel * mix.inputs..][..mix.inputs] {
                joined.extend(w.iter().map(|w| (w * v) as f32));
            }
        }
    }
    let biases: Vec<f32> = biases.into_iter().map(|b| b as f32).collect();
    let layer_name = graph.node(id).name.clone();
    if joined.iter().chain(&biases).any(|w| !w.is_finite()) {
        return Err(FoldError::Overflow { node: graph.node(operand).name.clone(), layer: layer_name });
    }
    let old = graph.constant(weight);
    let (name, outputs, [kh, kw]) = (old.name.clone(), biases.len(), window.kernel);
    let bias_name = bias.map_or_else(|| format!("{layer_name}.bias"), |b| graph.constant(b).name.clone());
    let weight = graph.add_const(name, vec![outputs, layer.inputs * mix.inputs, kh, kw], ConstData::Float(joined));
    let bias = if bias.is_none() && still {
        None
    } else {
        Some(graph.add_const(bias_name, vec![outputs], ConstData::Float(biases)))
    };
    graph.node_mut(id).op = Op::Conv { weight, bias, window, groups };
    Ok(skip(graph, id, operand))
}
