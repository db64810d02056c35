//! ReLUs and sums in other layouts than batch, channels, height, width.
//!
//! Networks that keep channels last apply a ReLU, or add, between two transposes. Both work on single values, so they
//! commute with a transpose: `relu(T x) = T relu(x)`, `T x + T y = T (x + y)`. Moved behind them, transposes meet and
//! vanish, and axis 1 of a ReLU holds its channels, by which blocks are chosen.

use bcc_ir::geometry::Block;
use bcc_ir::graph::{Graph, NodeId, Op, ShapeError, map_of};

/// Moves the transposes that a ReLU or a sum reads behind it; whether there were any.
pub(super) fn sink(graph: &mut Graph, id: NodeId) -> Result<bool, ShapeError> {
    let per_value = match &graph.node(id).op {
        Op::BlockRelu { blocks, plannable: true } => blocks.iter().all(|b| *b == Block::RELU),
        Op::Add | Op::Sub | Op::Clip { .. } => true,
        _ => false,
    };
    let operands = graph.operands(id);
    let perm = |o: &NodeId| match &graph.node(*o).op {
        Op::Transpose { perm } if perm.len() == 4 && perm[0] == 0 && *perm != [0, 1, 2, 3] => Some(perm.clone()),
        _ => None,
    };
    let Some(common) = operands.first().and_then(perm) else { return Ok(false) };
    if !per_value || operands.iter().any(|o| perm(o).as_ref() != Some(&common)) {
        return Ok(false);
    }
    // The transpose behind stands for those that nobody else reads.
    let mut origin = Vec::new();
    for (position, operand) in operands.iter().enumerate() {
        let alone = graph.output() != Some(*operand) && graph.users(*operand) == [id];
        if alone && !operands[..position].contains(operand) {
            origin.extend(graph.node(*operand).origin.clone());
        }
    }
    for (position, operand) in operands.into_iter().enumerate() {
        let source = graph.operand(operand);
        graph.set_operand(id, position, source);
    }
    let shape = graph.node(graph.operand(id)).shape.clone();
    let channels = map_of(&shape).map_or(0, |(c, _)| c);
    let node = graph.node_mut(id);
    node.shape = shape;
    if let Op::BlockRelu { blocks, .. } = &mut node.op {
        *blocks = vec![Block::RELU; channels];
    }
    let name = format!("{}/transpose", node.name);
    if origin.is_empty() {
        origin.clone_from(&node.origin);
    }
    let behind = graph.add(&name, origin, Op::Transpose { perm: common }, &[id])?;
    graph.replace_uses(id, behind);
    Ok(true)
}
