//! The search: bound, solution, proof; and branching over open and closed groups in between.

use std::collections::HashSet;

use super::super::{Proof, Stage, Sum};
use super::dual::{self, Prices};
use super::integer::{self, Verdict};
use super::model::{Fixed, Model};
use super::{beam, parts, primal, swap};

/// What a search found.
pub(super) struct Found {
    /// The best choice (indices into `Class::options`).
    pub chosen: Option<Vec<usize>>,
    /// No choice loses less.
    pub bound: f64,
    /// The choice is optimal.
    pub proven: bool,
    /// There is no choice, provably.
    pub empty: bool,
}

/// Most nodes of the tree over groups.
const NODES: usize = 64;
/// States of the beam search.
const WIDTH: usize = 256;
/// Part of the loss that branching does not fight for.
const CLOSE: f64 = 1e-6;

struct Node {
    fixed: Vec<Option<bool>>,
    prices: Prices,
}

/// The best choice so far.
struct Best {
    chosen: Option<Vec<usize>>,
    loss: f64,
    /// Decisions on the groups that were tried.
    tried: HashSet<Vec<Option<bool>>>,
}

pub(super) fn search(model: &Model, watch: &mut dyn FnMut(Stage)) -> Found {
    let (_, total) = dual::spread(model);
    let worst = Sum::of(model.classes.iter().map(|c| c.options.last().map_or(0.0, |o| o.loss)));
    let impossible = worst + 1e-9 * (total + worst.abs());
    let fixed = model.forced();
    let prices = dual::maximise(model, &fixed, None, impossible);
    if prices.bound > impossible {
        return Found { chosen: None, bound: prices.bound, proven: false, empty: true };
    }
    let root = Node { fixed, prices };
    let mut best = Best { chosen: None, loss: f64::INFINITY, tried: HashSet::new() };
    let mut bound = root.prices.bound.max(attempt(model, &root.fixed, &root.prices, impossible, &mut best));
    watch(Stage::Bounded { loss: best.loss, bound });
    if bound >= best.loss {
        watch(Stage::Proved(Proof::Bound));
        return Found { chosen: best.chosen, bound, proven: true, empty: false };
    }
    if let Some(found) = by_integers(model, &root, &mut best, watch) {
        return found;
    }
    if !model.groups.is_empty() && best.loss - bound > CLOSE * best.loss.abs() {
        let root = Node { fixed: root.fixed.clone(), prices: root.prices.clone() };
        bound = bound.max(branch(model, root, impossible, &mut best, watch));
    }
    if let Some(found) = by_integers(model, &root, &mut best, watch) {
        return found;
    }
    Found { chosen: best.chosen, bound, proven: false, empty: false }
}

/// Tries to find a better choice from prices. Returns a bound, if all groups are fixed.
fn attempt(model: &Model, fixed: &Fixed, prices: &Prices, impossible: f64, best: &mut Best) -> f64 {
    let none = f64::NEG_INFINITY;
    let Some(decided) = primal::decide(model, fixed, &prices.prices) else { return none };
    if !best.tried.insert(decided.clone()) {
        return none;
    }
    // With all groups decided, other prices are right.
    let own = (decided != fixed).then(|| dual::maximise(model, &decided, Some(prices), impossible));
    let prices = own.as_ref().unwrap_or(prices);
    if prices.bound >= best.loss {
        return none;
    }
    let base = primal::base(model, &decided, &prices.prices);
    let parts = parts::solve(model, &decided, prices, &base);
    let bound = parts.as_ref().map_or(none, |(_, bound)| *bound);
    for start in parts.into_iter().map(|(chosen, _)| chosen).chain([base.clone()]) {
        let mut chosen = start;
        if primal::repair(model, &decided, prices, &mut chosen) {
            primal::fill(model, &decided, prices, &mut chosen);
            swap::improve(model, &decided, prices, &mut chosen);
            primal::fill(model, &decided, prices, &mut chosen);
            beam::improve(model, &decided, prices, &base, &mut chosen, WIDTH);
            primal::fill(model, &decided, prices, &mut chosen);
            best.offer(model, chosen);
            break;
        }
    }
    if decided == fixed { bound } else { none }
}

impl Best {
    fn offer(&mut self, model: &Model, chosen: Vec<usize>) {
        let loss = Sum::of(model.classes.iter().zip(&chosen).map(|(c, &j)| c.options[j].loss));
        if loss < self.loss {
            (self.chosen, self.loss) = (Some(chosen), loss);
        }
    }
}

/// The proof by integer programming, where the core is small enough.
fn by_integers(model: &Model, root: &Node, best: &mut Best, watch: &mut dyn FnMut(Stage)) -> Option<Found> {
    let core = integer::survivors(model, &root.fixed, &root.prices, best.loss);
    let (classes, options) = integer::size(&core);
    watch(Stage::Core { classes, options });
    match integer::prove(model, &core) {
        Verdict::Best(chosen) => best.offer(model, chosen),
        Verdict::Empty if best.chosen.is_none() => {
            return Some(Found { chosen: None, bound: f64::INFINITY, proven: false, empty: true });
        }
        Verdict::Empty | Verdict::Unknown => return None,
    }
    watch(Stage::Proved(Proof::Integers));
    Some(Found { chosen: best.chosen.take(), bound: best.loss, proven: true, empty: false })
}

/// Branches over the groups, least bound first. Returns the bound.
fn branch(model: &Model, root: Node, impossible: f64, best: &mut Best, watch: &mut dyn FnMut(Stage)) -> f64 {
    let mut open = vec![root];
    let mut settled = f64::INFINITY;
    for _ in 0..NODES {
        let least = (0..open.len()).min_by(|&a, &b| open[a].prices.bound.total_cmp(&open[b].prices.bound));
        let Some(node) = least.map(|at| open.swap_remove(at)) else { break };
        let bound = node.prices.bound;
        watch(Stage::Bounded { loss: best.loss, bound: bound.min(settled) });
        let over = primal::leanings(model, &node.prices.prices);
        let undecided = (0..over.len()).filter(|&g| node.fixed[g].is_none());
        let closest = undecided.min_by(|&a, &b| over[a].abs().total_cmp(&over[b].abs()));
        let done = best.loss - bound <= CLOSE * best.loss.abs();
        let Some(g) = closest.filter(|_| !done) else {
            settled = settled.min(bound);
            if done {
                // The others' bounds are no less.
                break;
            }
            continue;
        };
        for side in [over[g] < 0.0, over[g] >= 0.0] {
            let mut fixed = node.fixed.clone();
            fixed[g] = Some(side);
            let opened: i64 = fixed.iter().zip(&model.groups).filter(|(f, _)| **f == Some(true)).map(|(_, c)| c).sum();
            if model.open.is_some_and(|row| opened > model.rows[row].limit) {
                continue;
            }
            let mut prices = dual::maximise(model, &fixed, Some(&node.prices), impossible.min(best.loss));
            prices.bound = prices.bound.max(bound);
            if prices.bound < best.loss {
                let better = attempt(model, &fixed, &prices, impossible, best);
                prices.bound = prices.bound.max(better);
                open.push(Node { fixed, prices });
            }
        }
    }
    open.iter().map(|n| n.prices.bound).fold(settled, f64::min).min(best.loss)
}
