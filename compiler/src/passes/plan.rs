//! Gives every channel its block.

use bcc_ir::Block;
use bcc_ir::graph::{Graph, Op};

use super::BlockChoice;
use crate::plan::{Plan, PlanError};

/// Applies a choice of blocks. A ReLU whose channels all pass is removed: what follows it decides
/// what its value needs.
pub fn run(graph: &mut Graph, choice: &BlockChoice) -> Result<(), PlanError> {
    match choice {
        BlockChoice::Keep => {}
        BlockChoice::Uniform(block) => Plan::uniform(graph, *block).apply(graph)?,
        BlockChoice::Plan(plan) => plan.apply(graph)?,
    }
    for id in graph.topo() {
        let passes =
            matches!(&graph.node(id).op, Op::BlockRelu { blocks, .. } if blocks.iter().all(|b| *b == Block::Identity));
        if passes {
            let operand = graph.operand(id);
            graph.bypass(id, operand);
        }
    }
    graph.remove_dead();
    Ok(())
}
