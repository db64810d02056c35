//! Runs a [`Graph`] in 32-bit floats, before quantization: for calibration, for measuring the
//! distortion of a plan, and as the reference that the secure result is compared with.

mod backward;
mod conv;
mod local;
mod partial;
mod pool;

use std::borrow::Cow;

use bcc_ir::graph::{ClientStep, ConstData, ConstId, Graph, NodeId, Op, resample, run_epilogue};
use thiserror::Error;

/// Why a graph cannot be run in floats.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FloatError {
    /// No output is set, or no input is there.
    #[error("the graph has no {0}")]
    Incomplete(&'static str),
    /// The graph's nodes form a cycle.
    #[error("the graph has a cycle")]
    Cycle,
    /// An operator that only quantized graphs hold.
    #[error("node `{node}`: {op} has no meaning before quantization")]
    Quantized {
        /// Node.
        node: String,
        /// Operator.
        op: &'static str,
    },
    /// A constant that is missing or holds integers.
    #[error("node `{node}` reads a constant that does not hold reals")]
    Constant {
        /// Node.
        node: String,
    },
    /// Shapes that do not fit the operator.
    #[error("node `{node}`: {reason}")]
    Shape {
        /// Node.
        node: String,
        /// What does not fit.
        reason: String,
    },
}

pub use backward::{GateView, Tape};
pub(crate) use conv::patches_of;
pub(crate) use local::{Patch, block_relu, concat};
pub use partial::Values;

struct Step {
    id: NodeId,
    /// Steps whose values it reads.
    operands: Vec<usize>,
    /// How many operand positions read its value; the output counts once.
    uses: usize,
}

/// Runs a graph on one image at a time. Threads may share it.
pub struct Executor<'g> {
    graph: &'g Graph,
    steps: Vec<Step>,
    output: usize,
    input_len: usize,
}

impl<'g> Executor<'g> {
    /// As [`try_new`](Self::try_new), for a graph that the verifier has passed.
    ///
    /// # Panics
    /// Where `try_new` gives an error.
    pub fn new(graph: &'g Graph) -> Self {
        Self::try_new(graph).expect("a verified graph before quantization runs in floats")
    }

    /// Prepares a graph for running.
    ///
    /// # Errors
    /// The graph has no input or output, a cycle, quantized operators, or shapes or constants that
    /// do not fit.
    pub fn try_new(graph: &'g Graph) -> Result<Self, FloatError> {
        let target = graph.output().ok_or(FloatError::Incomplete("output"))?;
        let input = graph.input().ok_or(FloatError::Incomplete("input"))?;
        let order = graph.topo();
        if order.len() != graph.len() {
            return Err(FloatError::Cycle);
        }
        let mut steps: Vec<Step> = Vec::with_capacity(order.len());
        let mut position = std::collections::HashMap::new();
        for id in order {
            check(graph, id)?;
            let operands: Vec<usize> = graph.operands(id).iter().map(|o| position[o]).collect();
            for &o in &operands {
                steps[o].uses += 1;
            }
            position.insert(id, steps.len());
            steps.push(Step { id, operands, uses: 0 });
        }
        let output = position[&target];
        steps[output].uses += 1;
        Ok(Executor { graph, steps, output, input_len: graph.node(input).len() })
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.input_len
    }

    /// The output for one input, row-major, before the client's steps.
    ///
    /// # Panics
    /// If `input` does not hold [`input_len`](Self::input_len) elements.
    pub fn run(&self, input: &[f32]) -> Vec<f32> {
        self.run_with(input, &mut |_, _| {})
    }

    /// As [`run`](Self::run); `visit` sees the value of every node, operands before users.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_with(&self, input: &[f32], visit: &mut dyn FnMut(NodeId, &[f32])) -> Vec<f32> {
        assert_eq!(input.len(), self.input_len, "elements of the input");
        let mut values: Vec<Option<Vec<f32>>> = self.steps.iter().map(|_| None).collect();
        let mut left: Vec<usize> = self.steps.iter().map(|s| s.uses).collect();
        for (i, step) in self.steps.iter().enumerate() {
            let value = self.step(step, input, &mut values, &left);
            visit(step.id, &value);
            values[i] = (left[i] > 0).then_some(value);
            for &o in &step.operands {
                left[o] -= 1;
                if left[o] == 0 {
                    values[o] = None;
                }
            }
        }
        values[self.output].take().expect("the output's use is never taken off")
    }

    fn step(&self, step: &Step, input: &[f32], values: &mut [Option<Vec<f32>>], left: &[usize]) -> Vec<f32> {
        if step.operands.is_empty() {
            return input.to_vec();
        }
        // An operand nobody else reads is changed in place.
        let first = step.operands[0];
        let mut owned = if left[first] == 1 { values[first].take() } else { None };
        let operand = |&o: &usize| match owned.take() {
            Some(x) => Cow::Owned(x),
            None => Cow::Borrowed(values[o].as_deref().expect("operands are computed first and kept while read")),
        };
        evaluate(self.graph, step.id, step.operands.iter().map(operand).collect())
    }
}

/// The value of one node from those of its operands, in a graph that an [`Executor`] has accepted.
///
/// # Panics
/// For the input node, and where the graph was not accepted.
pub(crate) fn evaluate(graph: &Graph, id: NodeId, operands: Vec<Cow<'_, [f32]>>) -> Vec<f32> {
    let node = graph.node(id);
    let mut operands = operands.into_iter();
    let x = operands.next().expect("every operator but the input has an operand");
    let pool = || graph.pool_shape(id).expect("a pool reads a map");
    match &node.op {
        // A tag is smaller than what fixed point resolves.
        Op::Identity | Op::Reshape { .. } | Op::Tag { .. } => x.into_owned(),
        Op::BlockRelu { blocks, .. } => {
            let mut x = x.into_owned();
            local::block_relu(&mut x, &node.shape, blocks);
            x
        }
        Op::Clip { low, high } => {
            let mut x = x.into_owned();
            local::clip(&mut x, *low, *high);
            x
        }
        Op::Affine { scale, shift } => {
            let mut x = x.into_owned();
            local::affine(&mut x, reals(graph, *scale), reals(graph, *shift));
            x
        }
        Op::Add | Op::Sub => {
            let sign = if matches!(node.op, Op::Add) { 1.0 } else { -1.0 };
            let mut x = x.into_owned();
            let y = operands.next().expect("sums have two operands");
            x.iter_mut().zip(y.iter()).for_each(|(x, y)| *x += sign * y);
            x
        }
        Op::Conv { weight, bias, .. } => {
            let shape = graph.conv_shape(id).expect("a convolution reads a map");
            conv::conv(&x, reals(graph, *weight), bias.map(|b| reals(graph, b)), &shape)
        }
        Op::Dense { weight, bias } => conv::dense(&x, reals(graph, *weight), bias.map(|b| reals(graph, b))),
        Op::AvgPool { .. } => pool::average(&x, &pool()),
        Op::MaxPool { .. } => pool::maximum(&x, &pool()),
        Op::Concat { axis, .. } => {
            let parts: Vec<Cow<'_, [f32]>> = std::iter::once(x).chain(operands).collect();
            local::concat(&parts, &graph.rows(id, *axis))
        }
        op => {
            let shape = &graph.node(graph.operand(id)).shape;
            match op {
                Op::Resample { axis, samples, .. } => {
                    resample(&x, shape, *axis, samples, |s, a, b| a + s.weight as f32 * (b - a))
                }
                Op::Pad { pad } => local::pad(&x, shape, *pad),
                Op::Gather { axis, indices } => local::gather(&x, shape, *axis, indices),
                Op::Scatter { axis, size, indices } => local::scatter(&x, shape, *axis, *size, indices),
                Op::Transpose { perm } => local::transpose(&x, shape, perm),
                _ => unreachable!("inputs have no value of their own, quantized operators are not accepted"),
            }
        }
    }
}

/// A constant's reals, in a graph that an [`Executor`] has accepted.
pub(crate) fn reals(graph: &Graph, id: ConstId) -> &[f32] {
    match &graph.constant(id).data {
        ConstData::Float(v) => v,
        ConstData::Int(_) => unreachable!("integer constants are not accepted"),
    }
}

fn check(graph: &Graph, id: NodeId) -> Result<(), FloatError> {
    let node = graph.node(id);
    let name = || node.name.clone();
    if !matches!(
        node.op,
        Op::Input
            | Op::Conv { .. }
            | Op::Dense { .. }
            | Op::Affine { .. }
            | Op::Add
            | Op::Sub
            | Op::Pad { .. }
            | Op::AvgPool { .. }
            | Op::MaxPool { .. }
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Concat { .. }
            | Op::Resample { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Identity
            | Op::BlockRelu { .. }
            | Op::Clip { .. }
            | Op::Tag { .. }
    ) {
        return Err(FloatError::Quantized { node: name(), op: node.op.name() });
    }
    for c in node.op.consts() {
        let c = graph.get_const(c).ok_or_else(|| FloatError::Constant { node: name() })?;
        if !matches!(&c.data, ConstData::Float(v) if v.len() == c.shape.iter().product::<usize>()) {
            return Err(FloatError::Constant { node: name() });
        }
    }
    if matches!(node.op, Op::Input) {
        return Ok(());
    }
    let operands = graph.operands(id);
    let shapes: Vec<&[usize]> = operands.iter().map(|&o| graph.node(o).shape.as_slice()).collect();
    let inferred = bcc_ir::graph::infer_shape(&node.op, &shapes, |c| graph.get_const(c).map(|c| c.shape.as_slice()));
    match inferred {
        Ok(shape) if shape == node.shape => Ok(()),
        Ok(shape) => {
            let reason = format!("has shape {:?} where its operands give {shape:?}", node.shape);
            Err(FloatError::Shape { node: name(), reason })
        }
        Err(e) => Err(FloatError::Shape { node: name(), reason: e.to_string() }),
    }
}

/// The client's steps on an opened output of the given shape; the result and its shape.
///
/// # Panics
/// If a step does not fit the shape; verified graphs have no such step.
pub fn apply_epilogue(steps: &[ClientStep], output: Vec<f32>, shape: &[usize]) -> (Vec<f32>, Vec<usize>) {
    let (value, shape) = run_epilogue(steps, output.into_iter().map(f64::from).collect(), shape);
    (value.into_iter().map(|v| v as f32).collect(), shape)
}
