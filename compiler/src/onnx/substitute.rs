//! Cheaper operators in place of those of the file, where that is asked for.

use bcc_ir::Block;
use bcc_ir::graph::{Graph, NodeId, Op};

/// What a clip between 0 and a bound, such as ReLU6, becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relu6 {
    /// Itself: two sign decisions per pixel, and no blocks.
    #[default]
    Exact,
    /// A ReLU, whose blocks a plan may choose. Another function beyond the bound.
    Relu,
}

/// What maximum pools become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxPools {
    /// Themselves, where the file has them.
    #[default]
    Exact,
    /// Themselves, but in front of a ReLU or clip that they alone read: a maximum commutes with
    /// what never falls. With a stride the ReLU is left with fewer pixels. The same function, but
    /// that blocks which a plan gives the ReLU lie on the pooled map.
    First,
    /// Average pools of the same windows, padding not counted. Another function.
    Average,
}

/// Replaces ReLU6 and its like.
pub(super) fn relu6(graph: &mut Graph, choice: Relu6) {
    if choice == Relu6::Exact {
        return;
    }
    for id in graph.topo() {
        let Op::Clip { low, high: Some(high) } = graph.node(id).op else { continue };
        let channels = graph.node(id).map().map_or(0, |(c, _)| c);
        let operand = graph.operand(id);
        if low == Some(0.0) {
            graph.node_mut(id).op = Op::BlockRelu { blocks: vec![Block::RELU; channels], plannable: true };
        } else if low.is_none() && high > 0.0 && is_relu(graph, operand) {
            graph.bypass(id, operand);
        }
    }
}

/// Replaces maximum pools.
pub(super) fn max_pools(graph: &mut Graph, choice: MaxPools) {
    for id in graph.topo() {
        let Op::MaxPool { window } = graph.node(id).op else { continue };
        match choice {
            MaxPools::Exact => {}
            MaxPools::First => swap(graph, id),
            MaxPools::Average => graph.node_mut(id).op = Op::AvgPool { window, counted: [0; 4] },
        }
    }
}

fn is_relu(graph: &Graph, id: NodeId) -> bool {
    matches!(&graph.node(id).op, Op::BlockRelu { blocks, .. } if blocks.iter().all(|b| *b == Block::RELU))
}

/// Lets a pool read what the ReLU in front of it reads, where that leaves fewer pixels to decide on.
fn swap(graph: &mut Graph, pool: NodeId) {
    let relu = graph.operand(pool);
    let rises = is_relu(graph, relu) || matches!(graph.node(relu).op, Op::Clip { .. });
    let alone = graph.users(relu) == [pool] && graph.output() != Some(relu);
    if !rises || !alone || graph.node(pool).len() >= graph.node(relu).len() {
        return;
    }
    let source = graph.operand(relu);
    graph.replace_uses(pool, relu);
    graph.set_operand(relu, 0, pool);
    graph.set_operand(pool, 0, source);
    graph.node_mut(relu).shape = graph.node(pool).shape.clone();
}
