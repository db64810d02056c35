//! Removes what the blocks make superfluous: channels that are zero or that nobody reads, and ReLUs
//! whose channels all pass.
//!
//! `channels` finds, forwards, the channels that are zero whatever the input (a channel whose
//! block is zero, and what follows from it) and, backwards, those that anybody needs. `rewrite`
//! then lets every tensor hold the channels that are needed and not zero, and no others. So a zero
//! channel takes its weights with it in the layer before and in the layer after, with all that is
//! dealt and sent for them. Where readers of one tensor want different channels, a gather or a
//! scatter stands between, which costs nothing: behind a residual block the layer reads the live
//! channels, and the sum gets them spread to the channels of its other summand.
//!
//! The function stays what it was, up to the order of sums. Where that needs it, more is kept:
//!
//! - No tensor is empty: where nothing of one would be left, it keeps one channel that means
//!   nothing (a layer keeps one output, with zero weights), and who reads it reads it as zero.
//! - Groups stay of equal size. A group goes as a whole (a channel of a depthwise layer with its
//!   group); within groups, channels go where that leaves as many in each.
//! - The input and the output keep their shapes, as does what reads or makes tensors without
//!   channels or moves channels to other axes.

mod channels;
mod rewrite;

use bcc_ir::Block;
use bcc_ir::graph::{Graph, NodeId, Op, ShapeError};
use thiserror::Error;

/// A graph that cannot be pruned.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum PruneError {
    /// A constant that holds integers, that is not there, or whose shape is not its layer's.
    #[error("layer `{node}` reads a constant that does not hold its reals")]
    Constant {
        /// Node.
        node: String,
    },
    /// A rewrite that does not fit its operands.
    #[error("pruning `{node}`: {source}")]
    Shape {
        /// The node rewritten.
        node: String,
        /// What does not fit.
        source: ShapeError,
    },
}

/// Prunes the graph; see the module.
///
/// # Errors
/// Constants that hold no reals.
pub fn run(graph: &mut Graph) -> Result<(), PruneError> {
    let kept = channels::analyse(graph)?;
    rewrite::run(graph, &kept)?;
    pass_through(graph);
    graph.remove_dead();
    Ok(())
}

/// Removes ReLUs whose channels all pass: what follows decides what their value needs.
fn pass_through(graph: &mut Graph) {
    for id in graph.topo() {
        let passes =
            matches!(&graph.node(id).op, Op::BlockRelu { blocks, .. } if blocks.iter().all(|b| *b == Block::Identity));
        if passes {
            let operand = graph.operand(id);
            graph.bypass(id, operand);
        }
    }
}

/// Channels of a node; a tensor without channels counts as one.
fn count(graph: &Graph, id: NodeId) -> usize {
    graph.node(id).map().map_or(1, |(c, _)| c)
}

/// How the channels of a node's value come from those of its operands.
enum Flow {
    /// Each from the same channel of every operand; zeros give zero, but for clips away from zero.
    Each,
    /// Each is the named channel of the operand, or zero.
    Picks(Vec<Option<usize>>),
    /// Those of every operand, which has that many, one operand behind the other.
    Parts(Vec<usize>),
    /// Each channel of the operand becomes that many in a row.
    Split(usize),
    /// That many channels of the operand in a row become one.
    Join(usize),
    /// By weights.
    Layer(bcc_ir::geometry::ConvShape),
    /// Not known, or there are no channels.
    Opaque,
}

fn flow(graph: &Graph, id: NodeId) -> Flow {
    let node = graph.node(id);
    let operands = graph.operands(id);
    let mapped = |id: &NodeId| graph.node(*id).map().is_some();
    if node.map().is_none() || !operands.iter().all(mapped) {
        return Flow::Opaque;
    }
    match &node.op {
        Op::Conv { .. } | Op::Dense { .. } => graph.conv_shape(id).map_or(Flow::Opaque, Flow::Layer),
        Op::Add | Op::Sub | Op::Pad { .. } | Op::AvgPool { .. } | Op::MaxPool { .. } => Flow::Each,
        Op::Identity | Op::BlockRelu { .. } | Op::Clip { .. } => Flow::Each,
        Op::Gather { axis: 1, indices } => Flow::Picks(indices.iter().map(|i| Some(*i)).collect()),
        Op::Scatter { axis: 1, size, indices } => {
            let mut picks = vec![None; *size];
            for (j, i) in indices.iter().enumerate() {
                picks[*i] = Some(j);
            }
            Flow::Picks(picks)
        }
        Op::Concat { axis: 1, .. } => Flow::Parts(operands.iter().map(|o| count(graph, *o)).collect()),
        Op::Gather { axis: 2.., .. } | Op::Scatter { axis: 2.., .. } => Flow::Each,
        Op::Concat { axis: 2.., .. } | Op::Resample { axis: 2.., .. } => Flow::Each,
        Op::Transpose { perm } if perm.starts_with(&[0, 1]) => Flow::Each,
        Op::Reshape { .. } => {
            let (from, to) = (count(graph, operands[0]), count(graph, id));
            if to.is_multiple_of(from) {
                Flow::Split(to / from)
            } else if from.is_multiple_of(to) {
                Flow::Join(from / to)
            } else {
                Flow::Opaque
            }
        }
        _ => Flow::Opaque,
    }
}
