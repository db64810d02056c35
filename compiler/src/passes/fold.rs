//! Folding: removes what a network computes at no purpose of its own.
//!
//! With W a linear layer, and an affine map `A(x) = scale * x + shift` per channel:
//!
//! - Identity, Affine with scale 1 and shift 0, Reshape to the same shape, Transpose in place: gone.
//! - Reshape of Reshape, Transpose of Transpose, Pad of Pad, Affine of Affine: one.
//! - `A(W x + b) = (scale W) x + (scale b + shift)`, where nobody else reads `W x + b`.
//! - `W A(x) + b = (W scale) x + (b + W shift)`, where nobody else reads `A(x)`; around the map a
//!   convolution reads zeros where `A` would have put shifts, so with padding only for shift 0.
//! - Pad in front of a convolution or an average pool joins its window.
//! - A clip of a clip or a ReLU that nobody else reads: one clip.
//! - A 1x1 convolution that mixes a few channels into each of its own (the slopes of a leaking ReLU),
//!   read by one convolution alone: `W (V x + b) = (W V) x + W b`, under padding only for b = 0.
//! - A Transpose in front of a ReLU or of a sum goes behind it.
//! - An Affine that is left becomes a depthwise 1x1 convolution, on a `[1, c]` tensor between two
//!   reshapes.
//!
//! New weights are computed in 64-bit floats and rounded once. What a removed node stood for, the
//! node that now does its work stands for too.

mod compose;

use bcc_ir::geometry::Window;
use bcc_ir::graph::{ConstData, ConstId, Graph, NodeId, Op, ShapeError};
use thiserror::Error;

use super::layout;

/// A graph that cannot be folded.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FoldError {
    /// A constant that holds integers, or that is not there.
    #[error("node `{node}` reads a constant that does not hold reals")]
    Constant {
        /// Node.
        node: String,
    },
    /// Weights that no longer fit 32-bit floats.
    #[error("folding `{node}` into `{layer}` gives a weight beyond 32-bit floats; check its constants")]
    Overflow {
        /// The node folded.
        node: String,
        /// The layer it is folded into.
        layer: String,
    },
    /// A rewrite that does not fit its operands.
    #[error("folding `{node}`: {source}")]
    Shape {
        /// The node folded.
        node: String,
        /// What does not fit.
        source: ShapeError,
    },
}

/// Folds the graph; see the module.
///
/// # Errors
/// Constants that hold no reals, or weights that overflow.
pub fn run(graph: &mut Graph) -> Result<(), FoldError> {
    settle(graph)?;
    for id in graph.topo() {
        if let Op::Affine { scale, shift } = graph.node(id).op {
            to_convolution(graph, id, scale, shift)?;
        }
    }
    // The reshapes around such a convolution may meet others.
    settle(graph)
}

/// Applies the rules until none applies.
fn settle(graph: &mut Graph) -> Result<(), FoldError> {
    loop {
        graph.remove_dead();
        let mut changed = false;
        // A rule removes no node but its own.
        for id in graph.topo() {
            changed |= step(graph, id)?;
        }
        if !changed {
            return Ok(());
        }
    }
}

/// Applies one rule at a node; whether one applied.
fn step(graph: &mut Graph, id: NodeId) -> Result<bool, FoldError> {
    match graph.node(id).op.clone() {
        Op::Identity => Ok(remove(graph, id)),
        Op::Reshape { shape } => {
            let operand = graph.operand(id);
            if graph.node(operand).shape == shape {
                return Ok(remove(graph, id));
            }
            Ok(matches!(graph.node(operand).op, Op::Reshape { .. }) && skip(graph, id, operand))
        }
        Op::Transpose { perm } => Ok(transpose(graph, id, &perm)),
        Op::Pad { pad } => Ok(pad == [0; 4] && remove(graph, id)),
        Op::Affine { scale, shift } => affine(graph, id, scale, shift),
        Op::Conv { .. } => Ok(absorb_pad(graph, id) || compose::mixture(graph, id)?),
        Op::AvgPool { .. } => Ok(absorb_pad(graph, id)),
        Op::Clip { low, high } => Ok(compose::clips(graph, id, low, high) || sunk(graph, id)?),
        Op::BlockRelu { .. } | Op::Add | Op::Sub => sunk(graph, id),
        _ => Ok(false),
    }
}

fn sunk(graph: &mut Graph, id: NodeId) -> Result<bool, FoldError> {
    layout::sink(graph, id).map_err(|source| FoldError::Shape { node: graph.node(id).name.clone(), source })
}

fn remove(graph: &mut Graph, id: NodeId) -> bool {
    let operand = graph.operand(id);
    graph.bypass(id, operand);
    true
}

/// Lets `id` read its operand's operand; the operand's origin goes along where it has no other user.
fn skip(graph: &mut Graph, id: NodeId, operand: NodeId) -> bool {
    let source = graph.operand(operand);
    let alone = is_only_user(graph, operand, id);
    graph.set_operand(id, 0, source);
    if alone {
        let mut origin = graph.node(operand).origin.clone();
        origin.append(&mut graph.node_mut(id).origin);
        graph.node_mut(id).origin = origin;
    }
    true
}

/// Whether `user` alone reads `id`.
fn is_only_user(graph: &Graph, id: NodeId, user: NodeId) -> bool {
    graph.output() != Some(id) && graph.users(id) == [user]
}

fn transpose(graph: &mut Graph, id: NodeId, perm: &[usize]) -> bool {
    if perm.iter().copied().eq(0..perm.len()) {
        return remove(graph, id);
    }
    let operand = graph.operand(id);
    let Op::Transpose { perm: first } = graph.node(operand).op.clone() else { return false };
    skip(graph, id, operand);
    graph.node_mut(id).op = Op::Transpose { perm: perm.iter().map(|&p| first[p]).collect() };
    true
}

/// Joins a Pad with the window behind it.
fn absorb_pad(graph: &mut Graph, id: NodeId) -> bool {
    let operand = graph.operand(id);
    let Op::Pad { pad: extra } = graph.node(operand).op else { return false };
    let grown = |pad: [usize; 4]| std::array::from_fn(|i| pad[i] + extra[i]);
    let op = match graph.node(id).op.clone() {
        Op::Conv { weight, bias, window, groups } => {
            Op::Conv { weight, bias, window: Window { pad: grown(window.pad), ..window }, groups }
        }
        Op::AvgPool { window, counted } => {
            Op::AvgPool { window: Window { pad: grown(window.pad), ..window }, counted: grown(counted) }
        }
        _ => return false,
    };
    graph.node_mut(id).op = op;
    skip(graph, id, operand)
}

fn reals(graph: &Graph, node: NodeId, id: ConstId) -> Result<Vec<f64>, FoldError> {
    match graph.get_const(id).map(|c| &c.data) {
        Some(ConstData::Float(v)) => Ok(v.iter().map(|&x| f64::from(x)).collect()),
        _ => Err(FoldError::Constant { node: graph.node(node).name.clone() }),
    }
}

/// A linear layer's weights, one row per output channel.
struct Layer {
    weight: Vec<f64>,
    bias: Vec<f64>,
    /// Input channels of a row.
    inputs: usize,
    groups: usize,
}

impl Layer {
    fn read(graph: &Graph, id: NodeId) -> Result<Option<Layer>, FoldError> {
        let (weight, bias, groups) = match graph.node(id).op {
            Op::Conv { weight, bias, groups, .. } => (weight, bias, groups),
            Op::Dense { weight, bias } => (weight, bias, 1),
            _ => return Ok(None),
        };
        let Some(&[outputs, inputs, ..]) = graph.get_const(weight).map(|c| c.shape.as_slice()) else { return Ok(None) };
        let weight = reals(graph, id, weight)?;
        let bias = match bias {
            Some(b) => reals(graph, id, b)?,
            None => vec![0.0; outputs],
        };
        Ok(Some(Layer { weight, bias, inputs, groups }))
    }

    fn row_len(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// `scale * (W x + b) + shift`.
    fn then(&mut self, scale: &[f64], shift: &[f64]) {
        let len = self.row_len();
        for (o, row) in self.weight.chunks_exact_mut(len).enumerate() {
            row.iter_mut().for_each(|w| *w *= scale[o]);
            self.bias[o] = self.bias[o] * scale[o] + shift[o];
        }
    }

    /// `W (scale * x + shift) + b`.
    fn after(&mut self, scale: &[f64], shift: &[f64]) {
        let (len, per_group) = (self.row_len(), self.bias.len() / self.groups);
        let taps = len / self.inputs;
        for (o, row) in self.weight.chunks_exact_mut(len).enumerate() {
            let first = o / per_group * self.inputs;
            for (i, taps) in row.chunks_exact_mut(taps).enumerate() {
                self.bias[o] += taps.iter().sum::<f64>() * shift[first + i];
                taps.iter_mut().for_each(|w| *w *= scale[first + i]);
            }
        }
    }

    /// Gives the layer new constants; other layers may share the old ones.
    fn write(self, graph: &mut Graph, id: NodeId, folded: NodeId) -> Result<(), FoldError> {
        let narrow = |v: Vec<f64>| -> Option<Vec<f32>> {
            let v: Vec<f32> = v.into_iter().map(|x| x as f32).collect();
            v.iter().all(|x| x.is_finite()).then_some(v)
        };
        let layer = graph.node(id).name.clone();
        let outputs = self.bias.len();
        let (Some(weights), Some(biases)) = (narrow(self.weight), narrow(self.bias)) else {
            return Err(FoldError::Overflow { node: graph.node(folded).name.clone(), layer });
        };
        let (old_weight, old_bias) = match graph.node(id).op {
            Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } => (weight, bias),
            _ => return Ok(()),
        };
        let old = graph.constant(old_weight);
        let (name, shape) = (old.name.clone(), old.shape.clone());
        let bias_name = old_bias.map_or_else(|| format!("{layer}.bias"), |b| graph.constant(b).name.clone());
        let new_weight = graph.add_const(name, shape, ConstData::Float(weights));
        let new_bias = graph.add_const(bias_name, vec![outputs], ConstData::Float(biases));
        if let Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } = &mut graph.node_mut(id).op {
            *weight = new_weight;
            *bias = Some(new_bias);
        }
        Ok(())
    }
}

fn affine(graph: &mut Graph, id: NodeId, scale: ConstId, shift: ConstId) -> Result<bool, FoldError> {
    let (a, b) = (reals(graph, id, scale)?, reals(graph, id, shift)?);
    if a.iter().all(|v| *v == 1.0) && b.iter().all(|v| *v == 0.0) {
        return Ok(remove(graph, id));
    }
    let operand = graph.operand(id);
    if is_only_user(graph, operand, id)
        && let Some(mut layer) = Layer::read(graph, operand)?
    {
        layer.then(&a, &b);
        layer.write(graph, operand, id)?;
        graph.bypass(id, operand);
        return Ok(true);
    }
    if let Op::Affine { scale, shift } = graph.node(operand).op {
        let (first, offset) = (reals(graph, operand, scale)?, reals(graph, operand, shift)?);
        let name = graph.node(id).name.clone();
        let product: Vec<f64> = first.iter().zip(&a).map(|(x, y)| x * y).collect();
        let sum: Vec<f64> = offset.iter().zip(&a).zip(&b).map(|((x, y), z)| x * y + z).collect();
        if product.iter().chain(&sum).any(|v| !(*v as f32).is_finite()) {
            return Err(FoldError::Overflow { node: name, layer: graph.node(operand).name.clone() });
        }
        let mut new = |v: Vec<f64>, what: &str| {
            let data = v.into_iter().map(|x| x as f32).collect::<Vec<_>>();
            graph.add_const(format!("{name}.{what}"), vec![data.len()], ConstData::Float(data))
        };
        let op = Op::Affine { scale: new(product, "scale"), shift: new(sum, "shift") };
        graph.node_mut(id).op = op;
        return Ok(skip(graph, id, operand));
    }
    forward(graph, id, &a, &b)
}

/// Folds an Affine into the layer behind it.
fn forward(graph: &mut Graph, id: NodeId, scale: &[f64], shift: &[f64]) -> Result<bool, FoldError> {
    let users = graph.users(id);
    let &[user] = users.as_slice() else { return Ok(false) };
    if graph.output() == Some(id) {
        return Ok(false);
    }
    let padded = match graph.node(user).op {
        Op::Conv { window, .. } => window.pad != [0; 4] || matches!(graph.node(graph.operand(id)).op, Op::Pad { .. }),
        Op::Dense { .. } => false,
        _ => return Ok(false),
    };
    if padded && shift.iter().any(|b| *b != 0.0) {
        return Ok(false);
    }
    let Some(mut layer) = Layer::read(graph, user)? else { return Ok(false) };
    layer.after(scale, shift);
    layer.write(graph, user, id)?;
    graph.bypass(id, user);
    Ok(true)
}

/// Turns an Affine that nothing took in into a depthwise 1x1 convolution.
fn to_convolution(graph: &mut Graph, id: NodeId, scale: ConstId, shift: ConstId) -> Result<(), FoldError> {
    let node = graph.node(id);
    let (name, origin, shape) = (node.name.clone(), node.origin.clone(), node.shape.clone());
    let channels = shape.get(1).copied().unwrap_or(1);
    let c = graph.constant(scale);
    let (weight_name, data) = (c.name.clone(), c.data.clone());
    let weight = graph.add_const(weight_name, vec![channels, 1, 1, 1], data);
    graph.node_mut(id).op = Op::Conv { weight, bias: Some(shift), window: Window::new([1, 1]), groups: channels };
    if shape.len() == 4 {
        return Ok(());
    }
    let wrong = |source| FoldError::Shape { node: name.clone(), source };
    let map = vec![1, channels, 1, 1];
    let operand = graph.operand(id);
    let before = graph
        .add(&format!("{name}/map"), origin.clone(), Op::Reshape { shape: map.clone() }, &[operand])
        .map_err(wrong)?;
    graph.set_operand(id, 0, before);
    graph.node_mut(id).shape = map;
    let after = graph.add(&format!("{name}/flat"), origin, Op::Reshape { shape }, &[id]).map_err(wrong)?;
    graph.replace_uses(id, after);
    Ok(())
}
