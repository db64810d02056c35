//! Maxima as exact arithmetic: differences, ReLUs and sums,
//!
//! ```text
//! max(x, y) = y + ReLU(x - y)
//! ```
//!
//! whose ReLUs a plan must not touch. Of `n` values they are taken in `ceil(log2 n)` levels, as many as
//! a binary tree has. All maxima of a level stand side by side in one gate, as gates take their
//! rounds one after the other.
//!
//! A pool over a window is separable: the maximum along each row's window, then along each
//! column's. One axis with taps `t = 0..k` reads `x_t = Gather(x, o * stride - pad + t * dilation)`,
//! positions clamped to the window's nearest one inside the map, which changes no maximum. That takes
//! `ceil(log2 k_h) + ceil(log2 k_w)` levels with `k_h + k_w - 2` comparisons. Where this is more
//! than `ceil(log2 (k_h k_w))` (5x5: 6 and not 5), each axis is cut into runs of powers of two. A run
//! of `2^a` rows by one of `2^b` columns takes `a + b` levels, and as the areas of all runs add up to
//! the window, joining the shallowest two again and again ends after `ceil(log2 (k_h k_w))` levels
//! (the Kraft sum). The runs share less, so this takes more comparisons (5x5: some 12 and not 8).
//!
//! A pool named `p` gives `p/tap0`, ..., and per level `p/diff0`, `p/max0` (the ReLU), `p/sum0`.

use bcc_ir::geometry::{Block, Window};
use bcc_ir::graph::{Graph, NodeId, Op, ShapeError};

/// Why a maximum cannot be written.
#[derive(Debug)]
pub(super) enum Failure {
    /// A window without any position in the map.
    EmptyWindow,
    /// A rewrite that does not fit its operands.
    Shape(ShapeError),
}

/// Nodes that stand for one maximum over many values.
pub(super) struct Maximum<'g> {
    pub(super) graph: &'g mut Graph,
    name: String,
    origin: Vec<String>,
    taps: usize,
    maxima: usize,
    joins: usize,
}

/// A value of a tree along one axis.
struct Value {
    /// Maxima on the way to it.
    level: u32,
    /// Positions.
    len: usize,
    /// Where it lies, once its level is written.
    node: NodeId,
    start: usize,
}

/// Some positions of a value.
#[derive(Clone)]
struct Part {
    value: usize,
    indices: Vec<usize>,
}

/// Maxima to be written, and the values that they read and make. The first value is the operand.
struct Tree {
    values: Vec<Value>,
    maxima: Vec<(Part, Part, usize)>,
    root: Part,
}

impl Tree {
    fn new(x: NodeId, len: usize) -> Tree {
        let root = Part { value: 0, indices: (0..len).collect() };
        Tree { values: vec![Value { level: 0, len, node: x, start: 0 }], maxima: Vec::new(), root }
    }

    /// Positions of a part.
    fn part(&self, of: &Part, indices: Vec<usize>) -> Part {
        Part { value: of.value, indices: indices.into_iter().map(|i| of.indices[i]).collect() }
    }

    /// Maximum of parts of one length, at least one: the shallowest two first.
    fn maximum(&mut self, mut parts: Vec<Part>) -> Part {
        while parts.len() > 1 {
            // Among equals in their order.
            parts.sort_by_key(|p| self.values[p.value].level);
            let [a, b] = [0, 1].map(|i| self.values[parts[i].value].level);
            let rest = parts.split_off(2);
            let mut pair = std::mem::replace(&mut parts, rest).into_iter();
            let (Some(first), Some(second)) = (pair.next(), pair.next()) else { break };
            let (deep, other) = if a < b { (second, first) } else { (first, second) };
            let len = deep.indices.len();
            // The node is known when the level is written.
            let node = self.values[0].node;
            self.values.push(Value { level: a.max(b) + 1, len, node, start: 0 });
            let value = self.values.len() - 1;
            self.maxima.push((deep, other, value));
            parts.push(Part { value, indices: (0..len).collect() });
        }
        parts.pop().unwrap_or_else(|| self.root.clone())
    }
}

/// Levels of a tree over `n` values.
fn levels(n: usize) -> u32 {
    n.next_power_of_two().ilog2()
}

/// Runs of powers of two, the longest first.
fn runs<T>(mut all: &[T]) -> Vec<&[T]> {
    let mut runs = Vec::new();
    for bit in (0..usize::BITS).rev().map(|bit| 1 << bit) {
        if all.len() & bit != 0 {
            let (run, rest) = all.split_at(bit);
            runs.push(run);
            all = rest;
        }
    }
    runs
}

impl<'g> Maximum<'g> {
    /// Nodes are named after `name` and stand for what `id` stands for.
    pub(super) fn new(graph: &'g mut Graph, id: NodeId, name: &str) -> Self {
        let origin = graph.node(id).origin.clone();
        Maximum { graph, name: name.into(), origin, taps: 0, maxima: 0, joins: 0 }
    }

    pub(super) fn add(&mut self, suffix: &str, op: Op, operands: &[NodeId]) -> Result<NodeId, Failure> {
        self.graph.add(&format!("{}/{suffix}", self.name), self.origin.clone(), op, operands).map_err(Failure::Shape)
    }

    fn tap(&mut self, x: NodeId, axis: usize, indices: Vec<usize>) -> Result<NodeId, Failure> {
        let size = self.graph.node(x).shape[axis];
        if indices.iter().copied().eq(0..size) {
            return Ok(x);
        }
        let suffix = format!("tap{}", self.taps);
        self.taps += 1;
        self.add(&suffix, Op::Gather { axis, indices }, &[x])
    }

    /// `max(x, y)`, but `y` itself on channels from `compared` on.
    fn max(&mut self, x: NodeId, y: NodeId, compared: usize) -> Result<NodeId, Failure> {
        let n = self.maxima;
        self.maxima += 1;
        let channels = self.graph.node(x).shape[1];
        let diff = self.add(&format!("diff{n}"), Op::Sub, &[x, y])?;
        let block = |c| if c < compared { Block::RELU } else { Block::Zero };
        let relu = Op::BlockRelu { blocks: (0..channels).map(block).collect(), plannable: false };
        let relu = self.add(&format!("max{n}"), relu, &[diff])?;
        self.add(&format!("sum{n}"), Op::Add, &[y, relu])
    }

    /// Maximum over a window of a `[1, c, h, w]` map.
    pub(super) fn pool(&mut self, x: NodeId, window: &Window) -> Result<NodeId, Failure> {
        let &[_, c, h, w] = self.graph.node(x).shape.as_slice() else { return Err(Failure::EmptyWindow) };
        let [oh, ow] = window.output(h, w).ok_or(Failure::EmptyWindow)?;
        let (rows, columns) = (taps(window, 0, h, oh)?, taps(window, 1, w, ow)?);
        if levels(rows.len()) + levels(columns.len()) <= levels(rows.len() * columns.len()) {
            let y = self.along(x, 3, &columns)?;
            return self.along(y, 2, &rows);
        }
        // Both axes in one, so that maxima along either share a gate.
        let x = self.add("flat", Op::Reshape { shape: vec![1, c, 1, h * w] }, &[x])?;
        let mut tree = Tree::new(x, h * w);
        let mut parts = Vec::new();
        for run in runs(&columns) {
            let of_rows = |tap: &Vec<usize>| (0..h).flat_map(|y| tap.iter().map(move |o| y * w + o)).collect();
            let items = run.iter().map(|tap| tree.part(&tree.root, of_rows(tap))).collect();
            let line = tree.maximum(items);
            for run in runs(&rows) {
                let pick = |tap: &Vec<usize>| tap.iter().flat_map(|y| (0..ow).map(move |o| y * ow + o)).collect();
                let items = run.iter().map(|tap| tree.part(&line, pick(tap))).collect();
                parts.push(tree.maximum(items));
            }
        }
        let all = tree.maximum(parts);
        let y = self.play(tree, &all, 3)?;
        self.add("map", Op::Reshape { shape: vec![1, c, oh, ow] }, &[y])
    }

    /// Maximum of a value's gathers along an axis.
    fn along(&mut self, x: NodeId, axis: usize, taps: &[Vec<usize>]) -> Result<NodeId, Failure> {
        let mut tree = Tree::new(x, self.graph.node(x).shape[axis]);
        let items = taps.iter().map(|tap| tree.part(&tree.root, tap.clone())).collect();
        let all = tree.maximum(items);
        self.play(tree, &all, axis)
    }

    /// Writes a tree along an axis, one gate per level; yields the node of `wanted`.
    fn play(&mut self, mut tree: Tree, wanted: &Part, axis: usize) -> Result<NodeId, Failure> {
        for level in 1..=tree.values[wanted.value].level {
            let of_level = |m: &&(Part, Part, usize)| tree.values[m.2].level == level;
            let maxima: Vec<(Part, Part, usize)> = tree.maxima.iter().filter(of_level).cloned().collect();
            let first = self.side_by_side(&tree, maxima.iter().map(|m| &m.0), axis)?;
            let second = self.side_by_side(&tree, maxima.iter().map(|m| &m.1), axis)?;
            let channels = self.graph.node(first).shape[1];
            let node = self.max(first, second, channels)?;
            let mut start = 0;
            for (_, _, value) in maxima {
                let value = &mut tree.values[value];
                (value.node, value.start) = (node, start);
                start += value.len;
            }
        }
        self.side_by_side(&tree, std::iter::once(wanted), axis)
    }

    /// Parts of values one after the other along an axis; those of one node are one gather.
    fn side_by_side<'p>(
        &mut self,
        tree: &Tree,
        parts: impl Iterator<Item = &'p Part>,
        axis: usize,
    ) -> Result<NodeId, Failure> {
        let mut pieces: Vec<(NodeId, Vec<usize>)> = Vec::new();
        for part in parts {
            let value = &tree.values[part.value];
            let indices = part.indices.iter().map(|i| value.start + i);
            match pieces.last_mut() {
                Some((node, all)) if *node == value.node => all.extend(indices),
                _ => pieces.push((value.node, indices.collect())),
            }
        }
        let taps = pieces.into_iter().map(|(node, indices)| self.tap(node, axis, indices));
        match taps.collect::<Result<Vec<_>, _>>()?[..] {
            [] => Err(Failure::EmptyWindow),
            [one] => Ok(one),
            ref several => {
                let suffix = format!("join{}", self.joins);
                self.joins += 1;
                self.add(&suffix, Op::Concat { axis, parts: several.len() }, several)
            }
        }
    }

    /// Maximum over the channels of a `[1, c]` or `[1, c, h, w]` value: neighbours are compared,
    /// `c - 1` comparisons in all; one left over waits.
    pub(super) fn channels(&mut self, x: NodeId) -> Result<NodeId, Failure> {
        let mut x = x;
        loop {
            let n = self.graph.node(x).shape[1];
            if n == 1 {
                return Ok(x);
            }
            let first = self.tap(x, 1, (0..n).step_by(2).collect())?;
            let second = self.tap(x, 1, (0..n).step_by(2).map(|i| (i + 1).min(n - 1)).collect())?;
            x = self.max(first, second, n / 2)?;
        }
    }
}

/// Positions that each tap of a window reads on one axis of `size`, for each of the outputs; taps that
/// read alike stand once.
fn taps(window: &Window, axis: usize, size: usize, outputs: usize) -> Result<Vec<Vec<usize>>, Failure> {
    let kernel = window.kernel[axis];
    let mut inside = Vec::with_capacity(outputs);
    for o in 0..outputs {
        let real = |t: &usize| usize::try_from(window.position(axis, o, *t)).is_ok_and(|p| p < size);
        let (Some(first), Some(last)) = ((0..kernel).find(real), (0..kernel).rfind(real)) else {
            return Err(Failure::EmptyWindow);
        };
        inside.push((first, last));
    }
    let mut taps: Vec<Vec<usize>> = Vec::with_capacity(kernel);
    for t in 0..kernel {
        let clamped = |(o, &(first, last)): (usize, &(usize, usize))| {
            window.position(axis, o, t.clamp(first, last)).unsigned_abs()
        };
        let tap: Vec<usize> = inside.iter().enumerate().map(clamped).collect();
        if !taps.contains(&tap) {
            taps.push(tap);
        }
    }
    Ok(taps)
}

#[cfg(test)]
mod tests {
    use super::{levels, runs};

    #[test]
    fn levels_are_those_of_a_tree() {
        for (n, want) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (25, 5), (1000, 10)] {
            assert_eq!(levels(n), want);
        }
    }

    #[test]
    fn runs_add_up() {
        for n in 1..100 {
            let all: Vec<usize> = (0..n).collect();
            let runs = runs(&all);
            assert_eq!(runs.concat(), all);
            assert!(runs.iter().all(|r| r.len().is_power_of_two()));
        }
    }
}
