//! Removes what the blocks make superfluous: ReLUs whose channels all pass.

use bcc_ir::Block;
use bcc_ir::graph::{Graph, Op};

/// Prunes the graph; see the module.
pub fn run(graph: &mut Graph) {
    pass_through(graph);
    graph.remove_dead();
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
