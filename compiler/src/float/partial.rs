//! Running only the part of a network that a changed value reaches.

use std::borrow::Cow;

use bcc_ir::graph::NodeId;

use super::{Executor, evaluate};

/// All values of one run.
pub struct Values<'e, 'g> {
    executor: &'e Executor<'g>,
    /// By step.
    values: Vec<Vec<f32>>,
}

impl<'g> Executor<'g> {
    /// Runs the network and keeps every value.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn values(&self, input: &[f32]) -> Values<'_, 'g> {
        let mut values = Vec::with_capacity(self.steps.len());
        self.run_with(input, &mut |_, value| values.push(value.to_vec()));
        Values { executor: self, values }
    }

    fn step_of(&self, id: NodeId) -> usize {
        self.steps.iter().position(|s| s.id == id).expect("the node is one of this graph")
    }
}

impl Values<'_, '_> {
    /// The network's output.
    pub fn output(&self) -> &[f32] {
        &self.values[self.executor.output]
    }

    /// Value of a node.
    ///
    /// # Panics
    /// If the node is not of the graph.
    pub fn value_of(&self, id: NodeId) -> &[f32] {
        &self.values[self.executor.step_of(id)]
    }

    /// Value of a node's first operand.
    ///
    /// # Panics
    /// If the node is not of the graph, or is the input.
    pub fn operand_of(&self, id: NodeId) -> &[f32] {
        let step = &self.executor.steps[self.executor.step_of(id)];
        &self.values[step.operands[0]]
    }

    /// The output if a node had another value: what does not follow from it is not computed again.
    ///
    /// # Panics
    /// If the node is not of the graph.
    pub fn run_from(&self, id: NodeId, value: Vec<f32>) -> Vec<f32> {
        let e = self.executor;
        let first = e.step_of(id);
        let mut fresh: Vec<Option<Vec<f32>>> = e.steps.iter().map(|_| None).collect();
        // Uses that are still to come of a changed value; the output counts as one.
        let mut left: Vec<usize> = e.steps.iter().map(|s| s.uses).collect();
        fresh[first] = Some(value);
        for (i, step) in e.steps.iter().enumerate().skip(first + 1) {
            if step.operands.iter().all(|&o| fresh[o].is_none()) {
                continue;
            }
            let lead = step.operands[0];
            let mut owned = if left[lead] == 1 { fresh[lead].take() } else { None };
            let operand = |&o: &usize| match owned.take() {
                Some(x) => Cow::Owned(x),
                None => Cow::Borrowed(fresh[o].as_ref().unwrap_or(&self.values[o]).as_slice()),
            };
            let value = evaluate(e.graph, step.id, step.operands.iter().map(operand).collect());
            for &o in &step.operands {
                left[o] = left[o].saturating_sub(1);
            }
            fresh[i] = Some(value);
        }
        fresh[e.output].take().unwrap_or_else(|| self.output().to_vec())
    }
}
