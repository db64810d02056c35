//! Lets every tensor hold the channels that stay.

use std::collections::BTreeMap;

use bcc_ir::Block;
use bcc_ir::geometry::ConvShape;
use bcc_ir::graph::{ConstData, Graph, NodeId, Op, infer_shape};

use super::channels::{Kept, reals, set};
use super::{Flow, PruneError, count, flow};

/// Rewrites the graph. Nodes change in place; what is replaced leaves its origin to the node that
/// stands for it and is dead.
pub(super) fn run(graph: &mut Graph, kept: &Kept) -> Result<(), PruneError> {
    let Some(output) = graph.output() else { return Ok(()) };
    let all: BTreeMap<NodeId, usize> = graph.topo().into_iter().map(|id| (id, count(graph, id))).collect();
    let flows: Vec<(NodeId, Flow)> = graph.topo().into_iter().map(|id| (id, flow(graph, id))).collect();
    let mut r = Rewrite { graph, kept, all, values: BTreeMap::new(), arranged: BTreeMap::new() };
    for (id, flow) in flows {
        let value = r.node(id, flow)?;
        r.values.insert(id, value);
    }
    let whole = r.whole(output);
    let end = r.arrange(output, &whole)?;
    graph.set_output(end);
    Ok(())
}

/// What stands for a node of the graph before.
#[derive(Clone)]
struct Value {
    node: NodeId,
    /// Channels of the node before that it holds, ascending, each exactly. Where there are none,
    /// the tensor is there but means nothing.
    holds: Vec<usize>,
}

struct Rewrite<'g> {
    graph: &'g mut Graph,
    kept: &'g Kept,
    /// Channels of every node before.
    all: BTreeMap<NodeId, usize>,
    values: BTreeMap<NodeId, Value>,
    /// Nodes made to hold certain channels of a value.
    arranged: BTreeMap<(NodeId, Vec<usize>), NodeId>,
}

impl Rewrite<'_> {
    fn whole(&self, id: NodeId) -> Vec<usize> {
        (0..self.all.get(&id).copied().unwrap_or(1)).collect()
    }

    fn value(&self, id: NodeId) -> Value {
        self.values.get(&id).cloned().unwrap_or_else(|| Value { node: id, holds: self.whole(id) })
    }

    /// Changes a node; its shape follows, also where an operand alone has changed its own.
    fn change(&mut self, id: NodeId, op: Op, operands: &[NodeId]) -> Result<(), PruneError> {
        let graph = &mut *self.graph;
        if matches!(op, Op::Input) {
            return Ok(());
        }
        let shapes: Vec<&[usize]> = operands.iter().map(|o| graph.node(*o).shape.as_slice()).collect();
        let shape = infer_shape(&op, &shapes, |c| graph.get_const(c).map(|c| c.shape.as_slice()));
        let shape = shape.map_err(|source| PruneError::Shape { node: graph.node(id).name.clone(), source })?;
        if graph.operands(id) != operands {
            graph.set_operands(id, operands);
        }
        let node = graph.node_mut(id);
        (node.op, node.shape) = (op, shape);
        Ok(())
    }

    /// Adds a node that stands for the same ONNX nodes as its operand.
    fn behind(&mut self, operand: NodeId, what: &str, op: Op) -> Result<NodeId, PruneError> {
        let node = self.graph.node(operand);
        let (name, origin) = (node.name.clone(), node.origin.clone());
        let added = self.graph.add(&format!("{name}/{what}"), origin, op, &[operand]);
        added.map_err(|source| PruneError::Shape { node: name, source })
    }

    fn gather(&mut self, node: NodeId, indices: Vec<usize>) -> Result<NodeId, PruneError> {
        if indices.iter().copied().eq(0..count(self.graph, node)) {
            return Ok(node);
        }
        self.behind(node, "gather", Op::Gather { axis: 1, indices })
    }

    fn scatter(&mut self, node: NodeId, size: usize, indices: Vec<usize>) -> Result<NodeId, PruneError> {
        if indices.len() == size {
            return Ok(node);
        }
        self.behind(node, "scatter", Op::Scatter { axis: 1, size, indices })
    }

    /// One channel of a value, whichever.
    fn one(&mut self, id: NodeId) -> Result<NodeId, PruneError> {
        if let Some(&made) = self.arranged.get(&(id, Vec::new())) {
            return Ok(made);
        }
        let node = self.value(id).node;
        let one = self.gather(node, vec![0])?;
        self.arranged.insert((id, Vec::new()), one);
        Ok(one)
    }

    /// A node with the channels `want` of the node `id` before, ascending and at least one; those
    /// that its value does not hold are zero.
    fn arrange(&mut self, id: NodeId, want: &[usize]) -> Result<NodeId, PruneError> {
        let Value { node, holds } = self.value(id);
        if holds == want {
            return Ok(node);
        }
        let key = (id, want.to_vec());
        if let Some(&made) = self.arranged.get(&key) {
            return Ok(made);
        }
        let from: Vec<usize> = (0..holds.len()).filter(|j| want.binary_search(&holds[*j]).is_ok()).collect();
        let made = if from.is_empty() {
            let one = self.one(id)?;
            let zero = Op::BlockRelu { blocks: vec![Block::Zero], plannable: false };
            let zero = self.behind(one, "zero", zero)?;
            self.scatter(zero, want.len(), vec![0])?
        } else {
            let to = (0..want.len()).filter(|j| holds.binary_search(&want[*j]).is_ok()).collect();
            let picked = self.gather(node, from)?;
            self.scatter(picked, want.len(), to)?
        };
        self.arranged.insert(key, made);
        Ok(made)
    }

    /// As [`arrange`](Self::arrange), or a channel without meaning where none is wanted.
    fn some(&mut self, id: NodeId, want: &[usize]) -> Result<NodeId, PruneError> {
        if want.is_empty() { self.one(id) } else { self.arrange(id, want) }
    }

    /// Lets another node stand for this one.
    fn replace(&mut self, id: NodeId, node: NodeId, holds: Vec<usize>) -> Value {
        let origin = std::mem::take(&mut self.graph.node_mut(id).origin);
        self.graph.node_mut(node).origin.extend(origin);
        Value { node, holds }
    }

    fn node(&mut self, id: NodeId, flow: Flow) -> Result<Value, PruneError> {
        let operands = self.graph.operands(id);
        let stays = self.kept.channels.get(&id);
        let holds: Vec<usize> = stays.map(|flags| set(flags).collect()).unwrap_or_default();
        let op = self.graph.node(id).op.clone();
        match flow {
            Flow::Opaque => {
                let whole: Vec<Vec<usize>> = operands.iter().map(|o| self.whole(*o)).collect();
                let new: Vec<NodeId> =
                    operands.iter().zip(&whole).map(|(o, all)| self.arrange(*o, all)).collect::<Result<_, _>>()?;
                self.change(id, op, &new)?;
                Ok(Value { node: id, holds: self.whole(id) })
            }
            Flow::Each => self.each(id, op, &operands, holds),
            Flow::Picks(picks) => self.picks(id, operands[0], &picks, holds),
            Flow::Parts(sizes) => self.parts(id, op, &operands, &sizes, holds),
            Flow::Split(parts) => {
                let mut from: Vec<usize> = holds.iter().map(|i| i / parts).collect();
                from.dedup();
                let x = self.some(operands[0], &from)?;
                // What comes along with a channel that is wanted is held as well.
                let holds: Vec<usize> = from.iter().flat_map(|i| i * parts..(i + 1) * parts).collect();
                self.reshape(id, op, x, holds.len().max(parts))?;
                Ok(Value { node: id, holds })
            }
            Flow::Join(parts) => {
                let from: Vec<usize> = holds.iter().flat_map(|i| i * parts..(i + 1) * parts).collect();
                let mut x = self.some(operands[0], &from)?;
                if holds.is_empty() {
                    x = self.scatter(x, parts, vec![0])?;
                }
                self.reshape(id, op, x, holds.len().max(1))?;
                Ok(Value { node: id, holds })
            }
            Flow::Layer(shape) => self.layer(id, op, &shape, operands[0], holds),
        }
    }

    /// An operator that works channel by channel.
    fn each(&mut self, id: NodeId, op: Op, operands: &[NodeId], holds: Vec<usize>) -> Result<Value, PruneError> {
        let op = match op {
            Op::BlockRelu { blocks, plannable } => {
                let kept: Vec<Block> = holds.iter().map(|i| blocks[*i]).collect();
                Op::BlockRelu { blocks: if kept.is_empty() { vec![Block::Zero] } else { kept }, plannable }
            }
            op => op,
        };
        if let (Op::Add | Op::Sub, &[x, y]) = (&op, operands) {
            // A summand that is zero goes; before a minus sign it cannot.
            let gone = |r: &Self, o: NodeId| !r.value(o).holds.iter().any(|i| holds.binary_search(i).is_ok());
            let rest = if gone(self, y) {
                Some(x)
            } else if gone(self, x) && matches!(op, Op::Add) {
                Some(y)
            } else {
                None
            };
            if let Some(rest) = rest {
                let node = self.some(rest, &holds)?;
                return Ok(self.replace(id, node, holds));
            }
        }
        let new: Vec<NodeId> = operands.iter().map(|o| self.some(*o, &holds)).collect::<Result<_, _>>()?;
        self.change(id, op, &new)?;
        Ok(Value { node: id, holds })
    }

    /// A gather or scatter of channels: a gather of those that stay.
    fn picks(
        &mut self,
        id: NodeId,
        operand: NodeId,
        picks: &[Option<usize>],
        holds: Vec<usize>,
    ) -> Result<Value, PruneError> {
        if holds.is_empty() {
            let node = self.one(operand)?;
            return Ok(self.replace(id, node, holds));
        }
        let x = self.value(operand);
        // A channel that stays is not zero, so its source is held.
        let indices: Vec<usize> = holds.iter().filter_map(|i| x.holds.binary_search(&picks[*i]?).ok()).collect();
        if indices.iter().copied().eq(0..x.holds.len()) {
            return Ok(self.replace(id, x.node, holds));
        }
        self.change(id, Op::Gather { axis: 1, indices }, &[x.node])?;
        Ok(Value { node: id, holds })
    }

    /// A join of channels: of those of every operand that stay.
    fn parts(
        &mut self,
        id: NodeId,
        op: Op,
        operands: &[NodeId],
        sizes: &[usize],
        holds: Vec<usize>,
    ) -> Result<Value, PruneError> {
        let (mut first, mut new) = (0, Vec::new());
        for (&operand, size) in operands.iter().zip(sizes) {
            let own = holds.iter().filter(|i| (first..first + size).contains(*i));
            let want: Vec<usize> = own.map(|i| i - first).collect();
            if !want.is_empty() {
                new.push(self.arrange(operand, &want)?);
            }
            first += size;
        }
        match new[..] {
            [] => {
                let node = self.one(operands[0])?;
                Ok(self.replace(id, node, holds))
            }
            [node] => Ok(self.replace(id, node, holds)),
            _ => {
                let op = if let Op::Concat { axis, .. } = op { Op::Concat { axis, parts: new.len() } } else { op };
                self.change(id, op, &new)?;
                Ok(Value { node: id, holds })
            }
        }
    }

    fn reshape(&mut self, id: NodeId, op: Op, operand: NodeId, channels: usize) -> Result<(), PruneError> {
        let mut op = op;
        if let Op::Reshape { shape } = &mut op {
            shape[1] = channels;
        }
        self.change(id, op, &[operand])
    }

    /// A layer with the weights that are left.
    fn layer(
        &mut self,
        id: NodeId,
        op: Op,
        shape: &ConvShape,
        operand: NodeId,
        holds: Vec<usize>,
    ) -> Result<Value, PruneError> {
        let inputs: Vec<usize> = self.kept.inputs.get(&id).map(|flags| set(flags).collect()).unwrap_or_default();
        let x = self.some(operand, &inputs)?;
        if holds.len() == shape.out_channels && inputs.len() == shape.in_channels {
            self.change(id, op, &[x])?;
            return Ok(Value { node: id, holds });
        }
        let taps = shape.window.kernel[0] * shape.window.kernel[1];
        let (per_in, per_out) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
        let mut groups: Vec<usize> = holds.iter().map(|o| o / per_out).collect();
        groups.dedup();
        let alone = holds.is_empty() || inputs.is_empty();
        let (groups, rows) = if alone { (1, 1) } else { (groups.len(), inputs.len() / groups.len()) };
        let outputs = holds.len().max(1);

        let broken = |graph: &Graph| PruneError::Constant { node: graph.node(id).name.clone() };
        let (Op::Conv { weight, bias, .. } | Op::Dense { weight, bias }) = op else {
            return Err(broken(self.graph));
        };
        let old = reals(self.graph, weight).ok_or_else(|| broken(self.graph))?;
        let weights = if alone {
            vec![0.0; outputs * taps]
        } else {
            let row = |o: usize| {
                let group = o / per_out;
                let own = inputs.iter().filter(move |i| **i / per_in == group);
                own.flat_map(move |i| &old[(o * per_in + i % per_in) * taps..][..taps])
            };
            holds.iter().flat_map(|o| row(*o)).copied().collect()
        };
        let biases = match bias {
            Some(b) if !holds.is_empty() => {
                let old = reals(self.graph, b).ok_or_else(|| broken(self.graph))?;
                Some((b, holds.iter().map(|o| old[*o]).collect::<Vec<f32>>()))
            }
            _ => None,
        };
        let name = self.graph.constant(weight).name.clone();
        let [kh, kw] = shape.window.kernel;
        let dims = if matches!(op, Op::Dense { .. }) { vec![outputs, rows] } else { vec![outputs, rows, kh, kw] };
        let weight = self.graph.add_const(name, dims, ConstData::Float(weights));
        let bias = biases.map(|(b, values)| {
            let name = self.graph.constant(b).name.clone();
            self.graph.add_const(name, vec![outputs], ConstData::Float(values))
        });
        let op = match op {
            Op::Conv { window, .. } => Op::Conv { weight, bias, window, groups },
            _ => Op::Dense { weight, bias },
        };
        self.change(id, op, &[x])?;
        Ok(Value { node: id, holds })
    }
}
