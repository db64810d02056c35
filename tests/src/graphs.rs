//! Random small graphs of every operator.

use bcc_compiler::passes::{canonicalize, fold};
use bcc_ir::geometry::{Block, Window};
use bcc_ir::graph::{ConstData, Graph, NodeId, Op, Sample, map_of};

use crate::random::Numbers;

struct Maker<'n> {
    g: Graph,
    numbers: &'n mut Numbers,
    count: usize,
}

impl Maker<'_> {
    fn add(&mut self, op: Op, operands: &[NodeId]) -> Option<NodeId> {
        self.count += 1;
        let name = format!("{}{}", op.name(), self.count);
        self.g.add(&name, vec![name.clone()], op, operands).ok()
    }

    fn map(&self, id: NodeId) -> (usize, [usize; 2]) {
        map_of(&self.g.node(id).shape).unwrap_or((1, [1, 1]))
    }

    fn window(&mut self, h: usize, w: usize) -> Window {
        let n = &mut *self.numbers;
        let mut window = Window::new([n.between(1, h.min(4)), n.between(1, w.min(4))]);
        window.stride = [n.between(1, 3), n.between(1, 3)];
        for i in 0..4 {
            window.pad[i] = n.below(window.kernel[i % 2]);
        }
        window
    }

    fn conv(&mut self, x: NodeId) -> Option<NodeId> {
        let (c, [h, w]) = self.map(x);
        let mut window = self.window(h, w);
        if self.numbers.one_in(4) {
            window.dilation = [self.numbers.between(1, 2), self.numbers.between(1, 2)];
        }
        let depthwise = self.numbers.one_in(4);
        let groups = if depthwise { c } else { 1 };
        let out = if depthwise { c * self.numbers.between(1, 2) } else { self.numbers.between(1, 6) };
        let shape = vec![out, c / groups, window.kernel[0], window.kernel[1]];
        let fan: usize = shape[1..].iter().product();
        let values = self.numbers.values(shape.iter().product(), (3.0 / fan as f32).sqrt());
        let weight = self.g.add_const(format!("w{}", self.count), shape, ConstData::Float(values));
        let bias = self.numbers.values(out, 0.3);
        let bias = (!self.numbers.one_in(4))
            .then(|| self.g.add_const(format!("b{}", self.count), vec![out], ConstData::Float(bias)));
        self.add(Op::Conv { weight, bias, window, groups }, &[x])
    }

    fn block(&mut self, h: usize, w: usize) -> Block {
        match self.numbers.below(8) {
            0 => Block::Identity,
            1 => Block::Zero,
            2 | 3 => Block::RELU,
            _ => Block::Patch { h: self.numbers.between(1, h + 1), w: self.numbers.between(1, w + 1) },
        }
    }

    fn relu(&mut self, x: NodeId) -> Option<NodeId> {
        let (c, [h, w]) = self.map(x);
        if self.numbers.one_in(8) {
            return self.clip(x);
        }
        let blocks = match self.numbers.below(4) {
            0 => vec![Block::RELU; c],
            1 => vec![self.block(h, w); c],
            _ => (0..c).map(|_| self.block(h, w)).collect(),
        };
        self.add(Op::BlockRelu { blocks, plannable: true }, &[x])
    }

    fn clip(&mut self, x: NodeId) -> Option<NodeId> {
        let low = [None, Some(-0.5), Some(0.0), Some(0.2)][self.numbers.below(4)];
        let high = [None, Some(0.4), Some(1.0)][self.numbers.below(3)];
        self.add(Op::Clip { low, high }, &[x])
    }

    fn residual(&mut self, x: NodeId) -> Option<NodeId> {
        let (c, _) = self.map(x);
        let branch = |m: &mut Self| {
            let mut window = Window::new([3, 3]);
            window.pad = [1; 4];
            let values = m.numbers.values(c * c * 9, (3.0 / (9 * c) as f32).sqrt());
            let weight = m.g.add_const(format!("r{}", m.count), vec![c, c, 3, 3], ConstData::Float(values));
            m.add(Op::Conv { weight, bias: None, window, groups: 1 }, &[x])
        };
        let y = branch(self)?;
        let other = if self.numbers.one_in(2) { x } else { branch(self)? };
        let op = if self.numbers.one_in(4) { Op::Sub } else { Op::Add };
        self.add(op, &[y, other])
    }

    fn pool(&mut self, x: NodeId) -> Option<NodeId> {
        let (_, [h, w]) = self.map(x);
        let window = self.window(h, w);
        if self.numbers.one_in(2) {
            return self.add(Op::MaxPool { window }, &[x]);
        }
        let counted = if self.numbers.one_in(2) { window.pad } else { [0; 4] };
        self.add(Op::AvgPool { window, counted }, &[x])
    }

    fn dense(&mut self, x: NodeId) -> Option<NodeId> {
        let n = self.g.node(x).len();
        let x = self.add(Op::Reshape { shape: vec![1, n] }, &[x])?;
        let out = self.numbers.between(1, 7);
        let values = self.numbers.values(n * out, (3.0 / n as f32).sqrt());
        let weight = self.g.add_const(format!("d{}", self.count), vec![out, n], ConstData::Float(values));
        self.add(Op::Dense { weight, bias: None }, &[x])
    }

    /// Picks positions of an axis, or spreads them with zeros between.
    fn spread(&mut self, x: NodeId) -> Option<NodeId> {
        let (c, [h, w]) = self.map(x);
        let axis = self.numbers.between(1, 3);
        let n = [1, c, h, w][axis];
        if self.numbers.one_in(3) {
            let size = n + self.numbers.below(3);
            let mut indices: Vec<usize> = (0..size).collect();
            while indices.len() > n {
                indices.remove(self.numbers.below(indices.len()));
            }
            return self.add(Op::Scatter { axis, size, indices }, &[x]);
        }
        let indices = (0..self.numbers.between(1, n + 1)).map(|_| self.numbers.below(n)).collect();
        self.add(Op::Gather { axis, indices }, &[x])
    }

    /// Two or three values of the same origin and of different scales and moduli, side by side.
    fn join(&mut self, x: NodeId) -> Option<NodeId> {
        let (c, [h, w]) = self.map(x);
        let axis = if self.numbers.one_in(3) { self.numbers.between(2, 3) } else { 1 };
        let mut parts = Vec::new();
        for _ in 0..self.numbers.between(2, 3) {
            parts.push(match self.numbers.below(4) {
                0 => x,
                1 => self.relu(x)?,
                2 => {
                    let mean = self.add(Op::AvgPool { window: Window::new([h, w]), counted: [0; 4] }, &[x])?;
                    let rows = self.add(Op::Gather { axis: 2, indices: vec![0; h] }, &[mean])?;
                    self.add(Op::Gather { axis: 3, indices: vec![0; w] }, &[rows])?
                }
                _ => {
                    let out = if axis == 1 { self.numbers.between(1, 3) } else { c };
                    let values = self.numbers.values(out * c, (3.0 / c as f32).sqrt());
                    let weight =
                        self.g.add_const(format!("j{}", self.count), vec![out, c, 1, 1], ConstData::Float(values));
                    self.add(Op::Conv { weight, bias: None, window: Window::new([1, 1]), groups: 1 }, &[x])?
                }
            });
        }
        self.add(Op::Concat { axis, parts: parts.len() }, &parts)
    }

    /// Interpolates along one axis or two.
    fn resample(&mut self, x: NodeId) -> Option<NodeId> {
        let mut at = x;
        for axis in 2..4 {
            let n = self.g.node(at).shape[axis];
            let dyadic = self.numbers.one_in(2);
            let sample = |m: &mut Self| {
                let weight = if dyadic { m.numbers.below(9) as f64 / 8.0 } else { m.numbers.unit() };
                Sample { low: m.numbers.below(n), high: m.numbers.below(n), weight }
            };
            let samples = (0..self.numbers.between(1, n + 3)).map(|_| sample(self)).collect();
            at = self.add(Op::Resample { axis, samples, bits: 0 }, &[at])?;
            if self.numbers.one_in(3) {
                break;
            }
        }
        Some(at)
    }

    fn step(&mut self, x: NodeId) -> Option<NodeId> {
        match self.numbers.below(12) {
            0..=2 => self.conv(x).and_then(|y| self.relu(y)),
            3 => self.conv(x),
            4 => self.residual(x).and_then(|y| self.relu(y)),
            5 => self.residual(x),
            6 => self.pool(x),
            7 => self.spread(x),
            10 => self.join(x),
            11 => self.resample(x),
            8 => {
                let mut pad = [0; 4];
                pad.iter_mut().for_each(|p| *p = self.numbers.below(3));
                self.add(Op::Pad { pad }, &[x])
            }
            _ => self.add(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[x]),
        }
    }
}

/// A random graph of `steps` steps, canonical, with the blocks of its ReLUs chosen.
///
/// # Panics
/// If folding or canonicalization fails, which is a defect.
pub fn random_graph(numbers: &mut Numbers, steps: usize) -> Graph {
    loop {
        let shape = vec![1, numbers.between(1, 4), numbers.between(3, 13), numbers.between(3, 13)];
        let mut m = Maker { g: Graph::new("random"), numbers, count: 0 };
        let mut x = m.g.add_input("x", shape);
        for _ in 0..steps {
            // A step that does not fit its operand is left out; its nodes are dead and go.
            x = m.step(x).unwrap_or(x);
        }
        if m.numbers.one_in(2) {
            x = m.dense(x).unwrap_or(x);
        }
        m.g.set_output(x);
        m.g.remove_dead();
        let linear = m.g.topo().iter().any(|i| m.g.node(*i).op.is_linear_layer());
        if !linear || m.g.topo().iter().any(|i| m.g.node(*i).len() > 4096) {
            continue;
        }
        let mut g = m.g;
        fold::run(&mut g).expect("a random graph folds");
        canonicalize::run(&mut g).expect("a random graph canonicalizes");
        return g;
    }
}
