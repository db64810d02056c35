//! A node being imported: what its operands stand for, and the graph that grows by it.

use std::rc::Rc;

use bcc_ir::graph::{ClientStep, ConstData, ConstId, Graph, NodeId, Op};

use super::error::{Outcome, Problem, fault, mismatch};
use super::literal::{Literal, checked_len, too_large};
use super::node::NodeView;

/// Most elements of a tensor between two nodes.
const MAX_TENSOR: usize = 1 << 31;

/// A tensor computed from the input.
#[derive(Clone, Debug)]
pub(super) struct Traced {
    pub(super) id: NodeId,
    /// Shape, after the client's steps where there are any.
    pub(super) shape: Vec<usize>,
    /// What the client computes on it first, such as a softmax, and the steps from there on.
    pub(super) client: Option<(String, Vec<ClientStep>)>,
}

/// What a name of the file stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Traced(Traced),
    Literal(Rc<Literal>),
    /// The result of a node with a reported problem.
    Lost,
    /// An output that is not computed, such as Dropout's mask.
    Further {
        node: String,
        index: usize,
    },
}

/// The graph being made.
pub(super) struct Draft {
    pub(super) graph: Graph,
    /// The declared batch size, where it is fixed and above 1.
    pub(super) batch: Option<i64>,
    /// Why shapes may not fit, where the input has another size than declared.
    pub(super) resized: Option<String>,
}

impl Draft {
    /// Adds a node that stands for `view`, named after it with a suffix where it takes several.
    pub(super) fn emit(&mut self, view: &NodeView, suffix: &str, op: Op, operands: &[NodeId]) -> Outcome<Traced> {
        let name = format!("{}{suffix}", view.name);
        let id = self.graph.add(&name, vec![view.name.clone()], op, operands).map_err(|e| mismatch(e.to_string()))?;
        let shape = self.graph.node(id).shape.clone();
        if shape.contains(&0) {
            return Err(mismatch(format!("the result has shape {shape:?}, without any element")));
        }
        if checked_len(&shape, MAX_TENSOR).is_none() {
            return Err(too_large(&name, &shape));
        }
        Ok(Traced { id, shape, client: None })
    }

    /// Adds a constant of reals.
    pub(super) fn constant(&mut self, name: &str, shape: Vec<usize>, data: Vec<f32>) -> ConstId {
        self.graph.add_const(name, shape, ConstData::Float(data))
    }
}

/// A node being imported, and what its operands stand for.
pub(super) struct Call<'a, 'm> {
    pub(super) draft: &'a mut Draft,
    pub(super) view: &'a NodeView<'m>,
    pub(super) operands: Vec<Option<Value>>,
}

impl Call<'_, '_> {
    pub(super) fn operand(&self, index: usize) -> Option<&Value> {
        self.operands.get(index).and_then(Option::as_ref)
    }

    /// An operand computed from the input, whether or not behind the client's steps.
    pub(super) fn traced(&self, index: usize, what: &'static str) -> Outcome<Traced> {
        match self.operand(index) {
            Some(Value::Traced(t)) => Ok(t.clone()),
            Some(_) => Err(fault(
                Problem::Constant { index, what },
                "swap the operands, or let the exporter fold constants (do_constant_folding)",
            )),
            None => Err(missing(index, what)),
        }
    }

    /// An operand computed from the input and shared between the parties.
    pub(super) fn tensor(&self, index: usize, what: &'static str) -> Outcome<Traced> {
        let t = self.traced(index, what)?;
        match t.client {
            None => Ok(t),
            Some((source, _)) => Err(fault(
                Problem::BehindClient(source),
                "remove it, or let the network end there (`--output-name NAME`)",
            )),
        }
    }

    /// A constant operand that may be left out.
    pub(super) fn optional(&self, index: usize, what: &'static str) -> Outcome<Option<Rc<Literal>>> {
        match self.operand(index) {
            None => Ok(None),
            Some(Value::Literal(l)) => Ok(Some(l.clone())),
            Some(_) => Err(fault(
                Problem::NotConstant { index, what },
                "store it in the file (an initializer or a Constant node)",
            )),
        }
    }

    /// A constant operand.
    pub(super) fn literal(&self, index: usize, what: &'static str) -> Outcome<Rc<Literal>> {
        self.optional(index, what)?.ok_or_else(|| missing(index, what))
    }

    /// A list of integers given as an attribute or, in newer operator sets, as an operand.
    pub(super) fn integers(&self, attribute: &str, index: usize, what: &'static str) -> Outcome<Option<Vec<i64>>> {
        if let Some(list) = self.view.ints(attribute)? {
            return Ok(Some(list.to_vec()));
        }
        self.optional(index, what)?.map(|l| l.integers().map(<[i64]>::to_vec)).transpose()
    }

    pub(super) fn emit(&mut self, op: Op, operand: &Traced) -> Outcome<Traced> {
        self.draft.emit(self.view, "", op, &[operand.id])
    }

    pub(super) fn emit_as(&mut self, suffix: &str, op: Op, operand: &Traced) -> Outcome<Traced> {
        self.draft.emit(self.view, suffix, op, &[operand.id])
    }

    pub(super) fn emit_pair(&mut self, op: Op, a: NodeId, b: NodeId) -> Outcome<Traced> {
        self.draft.emit(self.view, "", op, &[a, b])
    }

    /// Emits, under the node's own name, a reshape to `shape`.
    pub(super) fn emit_reshape(&mut self, operand: &Traced, shape: Vec<usize>) -> Outcome<Traced> {
        self.emit(Op::Reshape { shape }, operand)
    }
}

fn missing(index: usize, what: &'static str) -> super::error::Stop {
    fault(Problem::MissingOperand { index, what }, super::error::REEXPORT)
}
