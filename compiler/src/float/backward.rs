//! The backward pass: products of output probes with the network's Jacobian.
//!
//! With `f` the network's output as a function of the value `y` of some node, and `v` a probe (a
//! vector of the output's length), reverse accumulation gives `g = (df/dy)^T v` for every node on
//! the way: a small change `d` of that value changes `v . f` by `g . d`. The gates of a Block-ReLU
//! count as constants, as in training with Block-ReLUs; so the pass is exact wherever no block is
//! about to change its sign. Several probes go through together.

use bcc_ir::graph::{NodeId, Op};

use super::{Executor, conv, local, pool, reals};

/// What a forward run leaves for the backward pass: the output, and the operands of gates, clips and
/// maximum pools.
pub struct Tape {
    output: Vec<f32>,
    /// By step.
    operands: Vec<Option<Vec<f32>>>,
}

impl Tape {
    /// The network's output, before the client's steps.
    pub fn output(&self) -> &[f32] {
        &self.output
    }
}

/// A Block-ReLU as the backward pass sees it.
pub struct GateView<'a> {
    /// The gate's node.
    pub node: NodeId,
    /// Its operand.
    pub operand: &'a [f32],
    /// Gradient of every probe at its result, one probe after the other.
    pub gradient: &'a [f32],
}

impl Executor<'_> {
    /// Runs the network and keeps what the backward pass needs.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn record(&self, input: &[f32]) -> Tape {
        let graph = self.graph;
        let mut operands: Vec<Option<Vec<f32>>> = self.steps.iter().map(|_| None).collect();
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.steps.len()];
        for (i, step) in self.steps.iter().enumerate() {
            if matches!(graph.node(step.id).op, Op::BlockRelu { .. } | Op::Clip { .. } | Op::MaxPool { .. }) {
                readers[step.operands[0]].push(i);
            }
        }
        let mut at = 0;
        let output = self.run_with(input, &mut |_, value| {
            for &reader in &readers[at] {
                operands[reader] = Some(value.to_vec());
            }
            at += 1;
        });
        Tape { output, operands }
    }

    /// Gradients of the probes at every gate that a plan may change, from the output back.
    /// `probes` holds them one after the other.
    ///
    /// # Panics
    /// If `probes` is no multiple of the output's length, or the tape is of another network.
    pub fn gate_gradients(&self, tape: &Tape, probes: &[f32], visit: &mut dyn FnMut(GateView<'_>)) {
        let planned = |i: usize| {
            let op = &self.graph.node(self.steps[i].id).op;
            matches!(op, Op::BlockRelu { plannable: true, .. })
        };
        self.pull(tape, probes, &self.leads_from(planned), visit);
    }

    /// Gradients of the probes at the input, one probe after the other.
    ///
    /// # Panics
    /// As [`gate_gradients`](Self::gate_gradients).
    pub fn input_gradient(&self, tape: &Tape, probes: &[f32]) -> Vec<f32> {
        let input = |i: usize| self.steps[i].operands.is_empty();
        self.pull(tape, probes, &self.leads_from(input), &mut |_| {})
    }

    /// By step, whether a step that satisfies `source` is it or lies before it.
    fn leads_from(&self, source: impl Fn(usize) -> bool) -> Vec<bool> {
        let mut leads: Vec<bool> = Vec::with_capacity(self.steps.len());
        for (i, step) in self.steps.iter().enumerate() {
            leads.push(source(i) || step.operands.iter().any(|&o| leads[o]));
        }
        leads
    }

    fn pull(&self, tape: &Tape, probes: &[f32], leads: &[bool], visit: &mut dyn FnMut(GateView<'_>)) -> Vec<f32> {
        let graph = self.graph;
        let count = probes.len() / tape.output.len();
        assert_eq!(count * tape.output.len(), probes.len(), "elements of whole probes");
        let mut gradients: Vec<Option<Vec<f32>>> = self.steps.iter().map(|_| None).collect();
        if leads[self.output] {
            gradients[self.output] = Some(probes.to_vec());
        }
        for (i, step) in self.steps.iter().enumerate().rev() {
            let Some(gradient) = gradients[i].take() else { continue };
            if step.operands.is_empty() {
                return gradient;
            }
            let node = graph.node(step.id);
            if let (Op::BlockRelu { .. }, Some(operand)) = (&node.op, &tape.operands[i]) {
                visit(GateView { node: step.id, operand, gradient: &gradient });
            }
            let mut give = |position: usize, value: Vec<f32>| {
                let to = step.operands[position];
                match &mut gradients[to] {
                    Some(sum) => sum.iter_mut().zip(&value).for_each(|(s, v)| *s += v),
                    none => *none = Some(value),
                }
            };
            if matches!(node.op, Op::Add | Op::Sub) {
                if leads[step.operands[1]] {
                    let second = if matches!(node.op, Op::Add) {
                        gradient.clone()
                    } else {
                        gradient.iter().map(|g| -g).collect()
                    };
                    give(1, second);
                }
                if leads[step.operands[0]] {
                    give(0, gradient);
                }
            } else if let Op::Concat { axis, .. } = node.op {
                let rows = graph.rows(step.id, axis);
                let whole: usize = node.shape[axis..].iter().product();
                let mut before = 0;
                for (position, (&o, row)) in step.operands.iter().zip(rows).enumerate() {
                    if leads[o] {
                        let part = gradient.chunks_exact(whole).flat_map(|g| &g[before..before + row]);
                        give(position, part.copied().collect());
                    }
                    before += row;
                }
            } else if leads[step.operands[0]] {
                let operand_len = graph.node(self.steps[step.operands[0]].id).len();
                give(0, self.unary(i, gradient, count, operand_len, tape.operands[i].as_deref()));
            }
        }
        Vec::new()
    }

    /// Gradients at the operand of a unary step from those at its result.
    fn unary(&self, at: usize, mut gradient: Vec<f32>, probes: usize, len: usize, z: Option<&[f32]>) -> Vec<f32> {
        let graph = self.graph;
        let id = self.steps[at].id;
        let node = graph.node(id);
        let shape = &graph.node(graph.operand(id)).shape;
        let own = node.len();
        // One probe after the other into zeros.
        let each = |gradient: &[f32], one: &dyn Fn(&[f32], &mut [f32])| {
            let mut result = vec![0.0; probes * len];
            gradient.chunks_exact(own).zip(result.chunks_exact_mut(len)).for_each(|(g, r)| one(g, r));
            result
        };
        match &node.op {
            Op::Identity | Op::Reshape { .. } | Op::Tag { .. } => gradient,
            Op::BlockRelu { blocks, .. } => {
                let z = z.expect("a tape keeps the operands of its gates");
                gradient.chunks_exact_mut(own).for_each(|g| local::gate_by(g, z, &node.shape, blocks));
                gradient
            }
            Op::Clip { low, high } => {
                let z = z.expect("a tape keeps the operands of its clips");
                gradient.chunks_exact_mut(own).for_each(|g| local::clip_by(g, z, *low, *high));
                gradient
            }
            Op::Affine { scale, .. } => {
                let scale = reals(graph, *scale);
                let zeros = vec![0.0; scale.len()];
                gradient.chunks_exact_mut(own).for_each(|g| local::affine(g, scale, &zeros));
                gradient
            }
            Op::Conv { weight, .. } => {
                let conv_shape = graph.conv_shape(id).expect("a convolution reads a map");
                let weight = reals(graph, *weight);
                each(&gradient, &|g, r| conv::backward(g, weight, &conv_shape, r))
            }
            Op::Dense { weight, .. } => {
                let weight = reals(graph, *weight);
                each(&gradient, &|g, r| {
                    for (row, g) in weight.chunks_exact(len).zip(g) {
                        r.iter_mut().zip(row).for_each(|(r, w)| *r += g * w);
                    }
                })
            }
            Op::AvgPool { .. } => {
                let pool_shape = graph.pool_shape(id).expect("a pool reads a map");
                each(&gradient, &|g, r| pool::average_backward(g, &pool_shape, r))
            }
            Op::MaxPool { .. } => {
                let pool_shape = graph.pool_shape(id).expect("a pool reads a map");
                let z = z.expect("a tape keeps the operands of its maximum pools");
                each(&gradient, &|g, r| pool::maximum_backward(g, z, &pool_shape, r))
            }
            Op::Pad { pad } => each(&gradient, &|g, r| local::pad_backward(g, shape, *pad, r)),
            Op::Gather { axis, indices } => {
                each(&gradient, &|g, r| local::gather_backward(g, shape, *axis, indices, r))
            }
            Op::Scatter { axis, indices, .. } => {
                gradient.chunks_exact(own).flat_map(|g| local::gather(g, &node.shape, *axis, indices)).collect()
            }
            Op::Resample { axis, samples, .. } => {
                each(&gradient, &|g, r| local::resample_backward(g, shape, *axis, samples, r))
            }
            Op::Transpose { perm } => {
                let mut inverse = vec![0; perm.len()];
                perm.iter().enumerate().for_each(|(to, from)| inverse[*from] = to);
                gradient.chunks_exact(own).flat_map(|g| local::transpose(g, &node.shape, &inverse)).collect()
            }
            _ => unreachable!("sums and joins have several operands, quantized operators are not accepted"),
        }
    }
}
