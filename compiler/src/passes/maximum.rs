//! Maxima as exact arithmetic: differences, ReLUs and sums,
//!
//! ```text
//! max(x, y) = y + ReLU(x - y)
//! ```
//!
//! whose ReLUs a plan must not touch. Of `n` values they are taken in `ceil(log2 n)` levels, which is
//! as many as a binary tree needs; each level is one gate after the other in rounds.
//!
//! A pool over a window is separable: the maximum along each row's window, then along each
//! column's. One axis with taps `t = 0..k` reads `x_t = Gather(x, o * stride - pad + t * dilation)`,
//! positions clamped to the window's nearest one inside the map, which changes no maximum. That takes
//! `ceil(log2 k_h) + ceil(log2 k_w)` levels with `k_h + k_w - 2` comparisons. Where this is more
//! than `ceil(log2 (k_h k_w))` (5x5: 6 and not 5), each axis is cut into runs of powers of two. A run
//! of `2^a` rows by one of `2^b` columns takes `a + b` levels, and as the areas of all runs add up to
//! the window, joining the shallowest two again and again ends after `ceil(log2 (k_h k_w))` levels
//! (the Kraft sum). The runs share less, so this takes more comparisons (5x5: 12 and not 8).
//!
//! A pool named `p` gives `p/tap0`, ..., and per maximum `p/diff0`, `p/max0` (the ReLU), `p/sum0`.

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
}

/// Levels of a tree over `n` values.
fn levels(n: usize) -> u32 {
    n.next_power_of_two().ilog2()
}

/// Lengths of runs of powers of two that add up to `n`, the longest first.
fn runs(n: usize) -> Vec<usize> {
    (0..usize::BITS).rev().map(|bit| 1 << bit).filter(|run| n & run != 0).collect()
}

impl<'g> Maximum<'g> {
    /// Nodes are named after `name` and stand for what `id` stands for.
    pub(super) fn new(graph: &'g mut Graph, id: NodeId, name: &str) -> Self {
        let origin = graph.node(id).origin.clone();
        Maximum { graph, name: name.into(), origin, taps: 0, maxima: 0 }
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

    /// Maximum of values, each with the levels it has taken so far.
    fn of(&mut self, mut all: Vec<(u32, NodeId)>) -> Result<Option<(u32, NodeId)>, Failure> {
        while all.len() > 1 {
            // The shallowest first; among equals in their order.
            all.sort_by_key(|(level, _)| *level);
            let (a, b) = (all[0], all[1]);
            let (deep, other) = if a.0 < b.0 { (b, a) } else { (a, b) };
            let channels = self.graph.node(deep.1).shape[1];
            let joined = (deep.0 + 1, self.max(deep.1, other.1, channels)?);
            all.drain(..2);
            all.push(joined);
        }
        Ok(all.pop())
    }

    /// Maximum of a value's gathers along an axis.
    fn along(&mut self, x: NodeId, axis: usize, taps: &[Vec<usize>]) -> Result<NodeId, Failure> {
        let all = taps.iter().map(|t| Ok((0, self.tap(x, axis, t.clone())?))).collect::<Result<Vec<_>, _>>()?;
        Ok(self.of(all)?.map_or(x, |(_, y)| y))
    }

    /// Maximum over a window of a `[1, c, h, w]` map.
    pub(super) fn pool(&mut self, x: NodeId, window: &Window) -> Result<NodeId, Failure> {
        let shape = self.graph.node(x).shape.clone();
        let outputs = window.output(shape[2], shape[3]).unwrap_or([0, 0]);
        let [rows, columns] = [0, 1].map(|axis| taps(window, axis, shape[axis + 2], outputs[axis]));
        let (rows, columns) = (rows?, columns?);
        if levels(rows.len()) + levels(columns.len()) <= levels(rows.len() * columns.len()) {
            let y = self.along(x, 3, &columns)?;
            return self.along(y, 2, &rows);
        }
        let mut parts = Vec::new();
        let mut first = 0;
        for run in runs(columns.len()) {
            let y = self.along(x, 3, &columns[first..first + run])?;
            first += run;
            let mut top = 0;
            for height in runs(rows.len()) {
                let part = self.along(y, 2, &rows[top..top + height])?;
                top += height;
                parts.push((levels(run) + levels(height), part));
            }
        }
        Ok(self.of(parts)?.map_or(x, |(_, y)| y))
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
            let runs = runs(n);
            assert_eq!(runs.iter().sum::<usize>(), n);
            assert!(runs.iter().all(|r| r.is_power_of_two()));
        }
    }
}
