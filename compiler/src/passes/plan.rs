//! Gives every channel its block.

use bcc_ir::graph::Graph;

use super::BlockChoice;
use crate::plan::{Plan, PlanError};

/// Applies a choice of blocks. No node goes: what the blocks make superfluous is left to
/// [`prune`](super::prune), so that the graph still says the whole plan.
pub fn run(graph: &mut Graph, choice: &BlockChoice) -> Result<(), PlanError> {
    match choice {
        BlockChoice::Keep => Ok(()),
        BlockChoice::Uniform(block) => Plan::uniform(graph, *block).apply(graph),
        BlockChoice::Plan(plan) => plan.apply(graph),
    }
}
