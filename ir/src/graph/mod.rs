//! A network as a tensor graph.
//!
//! A node computes one tensor for one image (the batch axis is there and is 1). Nodes keep the
//! names of the ONNX nodes they come from. An ordinary ReLU is a [`Op::BlockRelu`] that has not
//! been planned yet: every channel has the block 1x1. After quantization every node carries a
//! [`Fixed`] type, and [`verify()`] proves that nothing overflows under the stated ranges.

mod client;
pub mod interval;
mod op;
pub(crate) mod print;
mod resample;
mod shape;
mod text;
mod types;
mod verify;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use serde::{Deserialize, Serialize};

use crate::geometry::{ConvShape, PoolShape};

pub use client::{ClientStep, epilogue_shape, run_epilogue};
pub use op::Op;
pub use resample::{Sample, covers, exact_bits, resample};
pub use shape::{ShapeError, infer_shape};
pub use text::TextError;
pub use types::{ClientShare, Evidence, Fixed, Range};
pub use verify::{Stage, Violation, Violations, block_sum_factor, sign_bound, verify};

/// A node of a [`Graph`]; stays valid while other nodes come and go.
pub type NodeId = NodeIndex<u32>;

/// Index of a constant of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConstId(pub u32);

/// A constant tensor: weights, biases, scales. Row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Const {
    /// Name of the ONNX initializer or node it comes from.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub data: ConstData,
}

/// Elements of a [`Const`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ConstData {
    /// Real values.
    Float(Vec<f32>),
    /// Fixed-point integers (after quantization).
    Int(Vec<i64>),
}

impl ConstData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            ConstData::Float(v) => v.len(),
            ConstData::Int(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One tensor and how it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name; that of the ONNX node where one stands behind it.
    pub name: String,
    /// Names of the ONNX nodes that this node stands for.
    pub origin: Vec<String>,
    /// The operator.
    pub op: Op,
    /// Shape, the batch axis (of 1) first.
    pub shape: Vec<usize>,
    /// Bound, from the range pass on.
    pub range: Option<Range>,
    /// Fixed-point type, from quantization on.
    pub fixed: Option<Fixed>,
}

impl Node {
    /// Elements of the tensor; `usize::MAX` where the count does not fit, which [`verify()`] refuses.
    pub fn len(&self) -> usize {
        elements(&self.shape)
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channels (axis 1) and map size of a `[1, c, h, w]` or `[1, c]` tensor.
    pub fn map(&self) -> Option<(usize, [usize; 2])> {
        map_of(&self.shape)
    }
}

/// Elements of a shape, at most `usize::MAX`.
pub(crate) fn elements(shape: &[usize]) -> usize {
    shape.iter().fold(1, |n, d| n.saturating_mul(*d))
}

/// Channels and map size of a `[1, c, h, w]` or `[1, c]` shape.
pub fn map_of(shape: &[usize]) -> Option<(usize, [usize; 2])> {
    match *shape {
        [1, c, h, w] => Some((c, [h, w])),
        [1, c] => Some((c, [1, 1])),
        _ => None,
    }
}

/// A network: one input, one output, constants, and steps that the client does in the clear.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Graph {
    /// Name of the network.
    pub name: String,
    dag: StableDiGraph<Node, u8>,
    consts: Vec<Const>,
    output: Option<NodeId>,
    /// Steps of the client after opening the output, in order.
    pub epilogue: Vec<ClientStep>,
    /// Ring width L in bits, from quantization on.
    pub ring: Option<u8>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph {
            name: name.into(),
            dag: StableDiGraph::new(),
            consts: Vec::new(),
            output: None,
            epilogue: Vec::new(),
            ring: None,
        }
    }

    /// Adds a constant.
    pub fn add_const(&mut self, name: impl Into<String>, shape: Vec<usize>, data: ConstData) -> ConstId {
        self.consts.push(Const { name: name.into(), shape, data });
        ConstId(self.consts.len() as u32 - 1)
    }

    /// A constant.
    ///
    /// # Panics
    /// If `id` is not of this graph; [`verify()`] reports such references.
    pub fn constant(&self, id: ConstId) -> &Const {
        &self.consts[id.0 as usize]
    }

    /// A constant, or `None` where there is none.
    pub fn get_const(&self, id: ConstId) -> Option<&Const> {
        self.consts.get(id.0 as usize)
    }

    /// Replaces a constant's shape and data.
    pub fn set_const(&mut self, id: ConstId, shape: Vec<usize>, data: ConstData) {
        let c = &mut self.consts[id.0 as usize];
        c.shape = shape;
        c.data = data;
    }

    /// Takes the elements of all constants out, in order; names and shapes stay.
    pub fn take_const_data(&mut self) -> Vec<ConstData> {
        self.consts.iter_mut().map(|c| std::mem::replace(&mut c.data, ConstData::Int(Vec::new()))).collect()
    }

    /// Adds a node over its operands, with the shape that follows from them.
    ///
    /// A name that is taken gets a suffix `.1`, `.2`, ...
    pub fn add(&mut self, name: &str, origin: Vec<String>, op: Op, operands: &[NodeId]) -> Result<NodeId, ShapeError> {
        let shapes: Vec<&[usize]> = operands.iter().map(|&o| self.node(o).shape.as_slice()).collect();
        let shape = infer_shape(&op, &shapes, |c| self.get_const(c).map(|c| c.shape.as_slice()))?;
        Ok(self.add_raw(Node { name: name.into(), origin, op, shape, range: None, fixed: None }, operands))
    }

    /// Adds the input node.
    pub fn add_input(&mut self, name: &str, shape: Vec<usize>) -> NodeId {
        let origin = vec![name.to_string()];
        self.add_raw(Node { name: name.into(), origin, op: Op::Input, shape, range: None, fixed: None }, &[])
    }

    fn add_raw(&mut self, mut node: Node, operands: &[NodeId]) -> NodeId {
        node.name = self.fresh_name(&node.name);
        let id = self.dag.add_node(node);
        for (i, &o) in operands.iter().enumerate() {
            self.dag.add_edge(o, id, i as u8);
        }
        id
    }

    fn fresh_name(&self, wish: &str) -> String {
        let taken = |n: &str| self.dag.node_weights().any(|x| x.name == n);
        if !taken(wish) {
            return wish.to_string();
        }
        (1..).map(|i| format!("{wish}.{i}")).find(|n| !taken(n)).expect("the counter does not end")
    }

    /// A node.
    ///
    /// # Panics
    /// If the node was removed.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.dag[id]
    }

    /// A node, to be changed in place.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.dag[id]
    }

    /// Operands of a node in order.
    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        let mut edges: Vec<(u8, NodeId)> =
            self.dag.edges_directed(id, Direction::Incoming).map(|e| (*e.weight(), e.source())).collect();
        edges.sort();
        edges.into_iter().map(|(_, n)| n).collect()
    }

    /// The single operand of a unary node.
    ///
    /// # Panics
    /// If the node has no operand.
    pub fn operand(&self, id: NodeId) -> NodeId {
        self.operands(id)[0]
    }

    /// Nodes that read this one, each once, in index order.
    pub fn users(&self, id: NodeId) -> Vec<NodeId> {
        let mut users: Vec<NodeId> = self.dag.neighbors_directed(id, Direction::Outgoing).collect();
        users.sort();
        users.dedup();
        users
    }

    /// The input node.
    pub fn input(&self) -> Option<NodeId> {
        self.dag.node_indices().find(|&i| matches!(self.dag[i].op, Op::Input))
    }

    /// The node whose value the client gets.
    pub fn output(&self) -> Option<NodeId> {
        self.output
    }

    /// Makes `id` the output.
    pub fn set_output(&mut self, id: NodeId) {
        self.output = Some(id);
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Node with that name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.dag.node_indices().find(|&i| self.dag[i].name == name)
    }

    /// All nodes, operands before users; among ready nodes the lowest index first. Nodes on a
    /// cycle are left out ([`verify()`] reports them).
    pub fn topo(&self) -> Vec<NodeId> {
        let mut missing: BTreeMap<NodeId, usize> =
            self.dag.node_indices().map(|i| (i, self.dag.edges_directed(i, Direction::Incoming).count())).collect();
        let mut ready: BinaryHeap<Reverse<NodeId>> =
            missing.iter().filter(|(_, n)| **n == 0).map(|(i, _)| Reverse(*i)).collect();
        let mut order = Vec::with_capacity(missing.len());
        while let Some(Reverse(i)) = ready.pop() {
            order.push(i);
            for e in self.dag.edges_directed(i, Direction::Outgoing) {
                if let Some(n) = missing.get_mut(&e.target()) {
                    *n -= 1;
                    if *n == 0 {
                        ready.push(Reverse(e.target()));
                    }
                }
            }
        }
        order
    }

    /// Lets every user of `old` (and the output) read `new` instead, except `new` itself.
    pub fn replace_uses(&mut self, old: NodeId, new: NodeId) {
        let edges: Vec<_> = self
            .dag
            .edges_directed(old, Direction::Outgoing)
            .filter(|e| e.target() != new)
            .map(|e| (e.id(), e.target(), *e.weight()))
            .collect();
        for (edge, target, position) in edges {
            self.dag.remove_edge(edge);
            self.dag.add_edge(new, target, position);
        }
        if self.output == Some(old) {
            self.output = Some(new);
        }
    }

    /// Lets operand `position` of `user` be `new`.
    pub fn set_operand(&mut self, user: NodeId, position: usize, new: NodeId) {
        let old: Vec<_> = self
            .dag
            .edges_directed(user, Direction::Incoming)
            .filter(|e| usize::from(*e.weight()) == position)
            .map(|e| e.id())
            .collect();
        for e in old {
            self.dag.remove_edge(e);
        }
        self.dag.add_edge(new, user, position as u8);
    }

    /// Lets a node read these operands and no others.
    pub fn set_operands(&mut self, user: NodeId, operands: &[NodeId]) {
        let old: Vec<_> = self.dag.edges_directed(user, Direction::Incoming).map(|e| e.id()).collect();
        for e in old {
            self.dag.remove_edge(e);
        }
        for (i, &o) in operands.iter().enumerate() {
            self.dag.add_edge(o, user, i as u8);
        }
    }

    /// Removes a unary node: its users read its operand. The node's origin goes to `heir`.
    pub fn bypass(&mut self, id: NodeId, heir: NodeId) {
        let operand = self.operand(id);
        self.replace_uses(id, operand);
        let origin = std::mem::take(&mut self.dag[id].origin);
        self.dag.remove_node(id);
        self.dag[heir].origin.extend(origin);
    }

    /// Removes nodes that the output does not need, and the constants that no node reads any more.
    pub fn remove_dead(&mut self) {
        let Some(output) = self.output else { return };
        let mut live = std::collections::BTreeSet::new();
        let mut stack = vec![output];
        stack.extend(self.input());
        while let Some(i) = stack.pop() {
            if live.insert(i) {
                stack.extend(self.operands(i));
            }
        }
        self.dag.retain_nodes(|_, i| live.contains(&i));
        let mut map = BTreeMap::new();
        for id in self.topo() {
            for c in self.dag[id].op.consts() {
                let next = ConstId(map.len() as u32);
                map.entry(c).or_insert(next);
            }
        }
        let mut kept: Vec<(ConstId, Const)> =
            map.iter().filter_map(|(old, new)| self.get_const(*old).map(|c| (*new, c.clone()))).collect();
        kept.sort_by_key(|(id, _)| *id);
        self.consts = kept.into_iter().map(|(_, c)| c).collect();
        let rename = |c: &mut ConstId| {
            if let Some(n) = map.get(c) {
                *c = *n;
            }
        };
        for node in self.dag.node_weights_mut() {
            match &mut node.op {
                Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } => {
                    rename(weight);
                    bias.iter_mut().for_each(rename);
                }
                Op::Affine { scale, shift } => {
                    rename(scale);
                    rename(shift);
                }
                _ => {}
            }
        }
    }

    /// Elements of every operand that lie together in a join along an axis.
    pub fn rows(&self, join: NodeId, axis: usize) -> Vec<usize> {
        self.operands(join).into_iter().map(|o| self.node(o).shape[axis..].iter().product()).collect()
    }

    /// Geometry of a convolution or dense node; `None` for other operators.
    pub fn conv_shape(&self, id: NodeId) -> Option<ConvShape> {
        let node = self.node(id);
        let (in_channels, input) = self.node(*self.operands(id).first()?).map()?;
        match node.op {
            Op::Conv { window, groups, .. } => {
                Some(ConvShape { in_channels, input, out_channels: node.map()?.0, groups, window })
            }
            Op::Dense { .. } => Some(ConvShape::dense(in_channels, node.map()?.0)),
            _ => None,
        }
    }

    /// Geometry of an average or maximum pool; `None` for other operators.
    pub fn pool_shape(&self, id: NodeId) -> Option<PoolShape> {
        let (channels, input) = self.node(*self.operands(id).first()?).map()?;
        match self.node(id).op {
            Op::AvgPool { window, counted } => Some(PoolShape { channels, input, window, counted }),
            Op::MaxPool { window } | Op::SumPool { window, .. } => {
                Some(PoolShape { channels, input, window, counted: [0; 4] })
            }
            _ => None,
        }
    }
}
