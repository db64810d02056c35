//! A chain of moduli.
//!
//! Every bit that a gate or a refresh lifts is sent several times for every pixel, so each lifts to the least
//! modulus that its ways on need, at most the ring. What a value needs follows from what reads it, from the output
//! back: room for itself and for what it becomes before the next lift, and the bits that truncations on the way
//! take off. Scales, weights, re-masks and refreshes stay those of a network in which everything is lifted
//! to the ring, so narrowing adds no step and changes no value.

use std::collections::BTreeMap;

use bcc_ir::graph::{Fixed, Graph, NodeId, Op};

/// Lets every gate and refresh of a typed graph with final bounds lift to what its ways on need.
pub(super) fn run(graph: &mut Graph) {
    let order = graph.topo();
    let mut needs = BTreeMap::new();
    for &id in order.iter().rev() {
        let ahead = graph.users(id).into_iter().map(|u| of_operand(graph, u, &needs)).max().unwrap_or(0);
        needs.insert(id, ahead.max(own(graph, id)));
    }
    for id in order {
        let Some(fixed) = graph.node(id).fixed else { continue };
        let operands = graph.operands(id).into_iter().filter_map(|o| graph.node(o).fixed);
        let Some(least) = operands.map(|f| f.modulus).min() else { continue };
        let modulus = match graph.node(id).op {
            Op::BlockRelu { .. } | Op::Clip { .. } => least.max(needs[&id]),
            Op::Refresh => least.saturating_add(1).max(needs[&id]),
            Op::Truncate { bits } => least.saturating_sub(bits),
            Op::Tag { bits } => least.saturating_add(bits).min(fixed.modulus),
            Op::LowBits { bits } => bits,
            _ => least,
        };
        graph.node_mut(id).fixed = Some(Fixed { modulus, ..fixed });
    }
}

/// The least modulus in which `real` lies below `2^-top` of it.
fn least(real: f64, fixed: Fixed, top: u8) -> u8 {
    (2..=64).find(|k| real / fixed.unit() < f64::from(k - top).exp2()).unwrap_or(64)
}

/// Bits that a value takes.
fn own(graph: &Graph, id: NodeId) -> u8 {
    let node = graph.node(id);
    match (&node.op, node.range, node.fixed) {
        (Op::LowBits { bits }, ..) => *bits,
        (_, Some(range), Some(fixed)) => least(range.bound, fixed, 1),
        _ => 64,
    }
}

/// Bits that a node needs of its operands, given what is needed of itself.
fn of_operand(graph: &Graph, id: NodeId, needs: &BTreeMap<NodeId, u8>) -> u8 {
    let node = graph.node(id);
    match node.op {
        Op::BlockRelu { .. } | Op::Clip { .. } | Op::Refresh => {
            let operand = graph.node(graph.operand(id));
            let (Some(pixel), Some(range), Some(fixed)) = (operand.range, node.range, operand.fixed) else { return 64 };
            let sum = range.block_sum.map_or(0.0, |(s, _)| s);
            let top = if matches!(node.op, Op::Clip { .. }) { 2 } else { 1 };
            least(pixel.bound, fixed, 2).max(least(sum, fixed, top))
        }
        Op::Truncate { bits } => needs[&id].saturating_add(bits),
        Op::Tag { bits } => needs[&id].saturating_sub(bits),
        Op::LowBits { bits } => bits,
        _ => needs[&id],
    }
}
