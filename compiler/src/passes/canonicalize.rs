//! Canonical form: maximum pools become exact arithmetic, transposes that move nothing become
//! reshapes.
//!
//! A maximum pool is separable: the maximum along each row's window, then along each column's. One
//! axis with taps `t = 0..k` reads `x_t = Gather(x, o * stride - pad + t * dilation)`, positions
//! clamped to the window's nearest one inside the map, which changes no maximum. The taps are
//! combined pairwise, as a balanced tree, by
//!
//! ```text
//! max(x, y) = y + ReLU(x - y)
//! ```
//!
//! whose ReLU is exact: a plan must not choose its blocks. A pool named `p` gives `p/tap0`, ...,
//! and per maximum `p/diff0`, `p/max0` (the ReLU), `p/sum0`.

use bcc_ir::geometry::{Block, Window};
use bcc_ir::graph::{Graph, NodeId, Op, ShapeError};
use thiserror::Error;

/// A graph that cannot be brought to canonical form.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CanonicalizeError {
    /// A pool with a window that lies in the padding altogether.
    #[error("maximum pool `{node}` has a window without any position in the map")]
    EmptyWindow {
        /// Node.
        node: String,
    },
    /// A rewrite that does not fit its operands.
    #[error("rewriting `{node}`: {source}")]
    Shape {
        /// The node rewritten.
        node: String,
        /// What does not fit.
        source: ShapeError,
    },
}

/// Brings the graph to canonical form; see the module.
///
/// # Errors
/// Maximum pools with empty windows.
pub fn run(graph: &mut Graph) -> Result<(), CanonicalizeError> {
    for id in graph.topo() {
        match graph.node(id).op.clone() {
            Op::MaxPool { window } => max_pool(graph, id, window)?,
            Op::Transpose { perm } => transpose(graph, id, &perm),
            _ => {}
        }
    }
    graph.remove_dead();
    Ok(())
}

/// Nodes that stand for one pool.
struct Rewrite<'g> {
    graph: &'g mut Graph,
    name: String,
    origin: Vec<String>,
    taps: usize,
    maxima: usize,
}

impl Rewrite<'_> {
    fn add(&mut self, suffix: &str, op: Op, operands: &[NodeId]) -> Result<NodeId, CanonicalizeError> {
        self.graph
            .add(&format!("{}/{suffix}", self.name), self.origin.clone(), op, operands)
            .map_err(|source| CanonicalizeError::Shape { node: self.name.clone(), source })
    }

    fn tap(&mut self, x: NodeId, axis: usize, indices: Vec<usize>) -> Result<NodeId, CanonicalizeError> {
        let size = self.graph.node(x).shape[axis];
        if indices.iter().copied().eq(0..size) {
            return Ok(x);
        }
        let suffix = format!("tap{}", self.taps);
        self.taps += 1;
        self.add(&suffix, Op::Gather { axis, indices }, &[x])
    }

    fn max(&mut self, x: NodeId, y: NodeId) -> Result<NodeId, CanonicalizeError> {
        let n = self.maxima;
        self.maxima += 1;
        let channels = self.graph.node(x).shape[1];
        let diff = self.add(&format!("diff{n}"), Op::Sub, &[x, y])?;
        let relu = Op::BlockRelu { blocks: vec![Block::RELU; channels], plannable: false };
        let relu = self.add(&format!("max{n}"), relu, &[diff])?;
        self.add(&format!("sum{n}"), Op::Add, &[y, relu])
    }

    /// Maximum along one spatial axis (0 vertical, 1 horizontal).
    fn along(&mut self, x: NodeId, window: &Window, axis: usize, outputs: usize) -> Result<NodeId, CanonicalizeError> {
        let size = self.graph.node(x).shape[axis + 2];
        let kernel = window.kernel[axis];
        let mut inside = Vec::with_capacity(outputs);
        for o in 0..outputs {
            let positions = (0..kernel).map(|t| window.position(axis, o, t));
            let positions: Vec<Option<usize>> =
                positions.map(|p| usize::try_from(p).ok().filter(|p| *p < size)).collect();
            let first = positions.iter().position(Option::is_some);
            let last = positions.iter().rposition(Option::is_some);
            let (Some(first), Some(last)) = (first, last) else {
                return Err(CanonicalizeError::EmptyWindow { node: self.name.clone() });
            };
            inside.push((first, last));
        }
        let mut taps: Vec<Vec<usize>> = Vec::with_capacity(kernel);
        for t in 0..kernel {
            let clamped = |(o, &(first, last)): (usize, &(usize, usize))| {
                window.position(axis, o, t.clamp(first, last)).unsigned_abs()
            };
            let tap: Vec<usize> = inside.iter().enumerate().map(clamped).collect();
            if !taps.contains(&tap) {
                taps.push(tap);
            }
        }
        let mut level = Vec::with_capacity(taps.len());
        for tap in taps {
            level.push(self.tap(x, axis + 2, tap)?);
        }
        while level.len() > 1 {
            let mut next = Vec::with_capacity(level.len().div_ceil(2));
            for pair in level.chunks(2) {
                next.push(match *pair {
                    [a, b] => self.max(a, b)?,
                    _ => pair[0],
                });
            }
            level = next;
        }
        Ok(level[0])
    }
}

fn max_pool(graph: &mut Graph, id: NodeId, window: Window) -> Result<(), CanonicalizeError> {
    let node = graph.node(id);
    let [height, width] = [node.shape[2], node.shape[3]];
    let (name, origin) = (node.name.clone(), node.origin.clone());
    let x = graph.operand(id);
    let mut rewrite = Rewrite { graph, name, origin, taps: 0, maxima: 0 };
    let rows = rewrite.along(x, &window, 1, width)?;
    let all = rewrite.along(rows, &window, 0, height)?;
    if all == x {
        graph.bypass(id, x);
    } else {
        graph.replace_uses(id, all);
    }
    Ok(())
}

/// A transpose that keeps the order of all axes longer than 1 moves no element.
fn transpose(graph: &mut Graph, id: NodeId, perm: &[usize]) {
    let operand = graph.operand(id);
    let from = &graph.node(operand).shape;
    let moved: Vec<usize> = perm.iter().copied().filter(|&p| from[p] > 1).collect();
    if !moved.is_sorted() {
        return;
    }
    let shape = graph.node(id).shape.clone();
    if *from == shape {
        graph.bypass(id, operand);
    } else {
        graph.node_mut(id).op = Op::Reshape { shape };
    }
}
