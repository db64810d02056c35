//! Canonical form: maximum pools become exact arithmetic (module `maximum`), transposes that move
//! nothing become reshapes.

use bcc_ir::geometry::Window;
use bcc_ir::graph::{Graph, NodeId, Op, ShapeError};
use thiserror::Error;

use super::maximum::{Failure, Maximum};

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

fn max_pool(graph: &mut Graph, id: NodeId, window: Window) -> Result<(), CanonicalizeError> {
    let name = graph.node(id).name.clone();
    let x = graph.operand(id);
    let made = Maximum::new(graph, id, &name).pool(x, &window);
    let all = made.map_err(|failure| match failure {
        Failure::EmptyWindow => CanonicalizeError::EmptyWindow { node: name },
        Failure::Shape(source) => CanonicalizeError::Shape { node: name, source },
    })?;
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
