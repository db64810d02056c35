//! The core of a knapsack, and the dynamic programme over it.

use rayon::prelude::*;

use super::{Knapsack, Sum};

/// Another option than the base one.
#[derive(Clone, Copy)]
struct Deviation {
    option: u32,
    /// Reduced cost, at least 0.
    reduced: f64,
    /// Cost over that of the base option.
    cost: i64,
}

/// A class that may deviate from the base choice.
struct Class {
    class: u32,
    /// Least reduced cost of its deviations.
    least: f64,
    deviations: Vec<Deviation>,
}

/// What may change in a better solution than the known one.
pub(super) struct Core {
    /// In the order of their least reduced costs.
    classes: Vec<Class>,
    lambda: f64,
    slack: i64,
    /// The Lagrangian bound. Values below are losses over it.
    pub bound: f64,
    /// What rounding may have done to a value.
    pub rounding: f64,
}

/// What the dynamic programme found.
pub(super) struct Outcome {
    /// Deviations `(class, option)` from the base of a better solution, if there is one.
    pub better: Option<Vec<(usize, usize)>>,
    /// No solution is less than this over the bound.
    pub floor: f64,
    /// Whether the best solution known is optimal.
    pub complete: bool,
}

/// How far the dynamic programme goes before it cuts; counted, not timed, so that results are the
/// same everywhere.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Most states at a time.
    pub states: usize,
    /// Most states made.
    pub merges: usize,
}

/// A partial choice: `node` ends the chain of its deviations, `via` extends it.
#[derive(Clone, Copy)]
struct State {
    cost: i64,
    reduced: f64,
    node: u32,
    via: u32,
}

const NONE: u32 = u32::MAX;

/// A deviation in a chain, with the one before.
#[derive(Clone, Copy)]
struct Node {
    before: u32,
    class: u32,
    option: u32,
}

/// Chains kept before those that no state needs are dropped.
const NODES: usize = 1 << 23;

impl Core {
    /// The deviations from `base` that a solution of loss less than `upper` may hold. `base`
    /// minimises the Lagrangian at `lambda` and leaves `slack` of the budget.
    pub fn new(k: &Knapsack, base: &[usize], lambda: f64, slack: u64, upper: f64) -> Core {
        let losses = || base.iter().enumerate().map(|(i, &j)| k.at(i, j).0);
        let rounding = 1e-13 * Sum::of(losses().map(f64::abs));
        let plain = Sum::of(losses().chain([-lambda * slack as f64]));
        let deviation = |i: usize, j: usize| {
            let ((loss, cost), (base_loss, base_cost)) = (k.at(i, j), k.at(i, base[i]));
            let cost = cost as i64 - base_cost as i64;
            ((loss - base_loss) + lambda * cost as f64, cost)
        };
        // Rounding may leave a base option a little above the minimum: count that in the bound.
        let least = |i: usize| (0..k.class(i).0.len()).map(|j| deviation(i, j).0).fold(0.0, f64::min);
        let under: Vec<f64> = (0..k.classes()).into_par_iter().with_min_len(256).map(least).collect();
        let bound = Sum::of(under.into_iter().chain([plain]));

        let gap = upper - bound;
        let class = |i: usize| {
            let deviations: Vec<Deviation> = (0..k.class(i).0.len())
                .filter(|&j| j != base[i])
                .map(|j| (j, deviation(i, j)))
                .filter(|(_, (reduced, _))| *reduced < gap)
                .map(|(j, (reduced, cost))| Deviation { option: j as u32, reduced: reduced.max(0.0), cost })
                .collect();
            let deviations = undominated(deviations, lambda);
            let least = deviations.iter().map(|d| d.reduced).reduce(f64::min)?;
            Some(Class { class: i as u32, least, deviations })
        };
        let mut classes: Vec<Class> = (0..k.classes()).into_par_iter().with_min_len(256).filter_map(class).collect();
        // Of equal ones in scattered order: in that of the classes, all that can save would come before
        // any that can spend.
        let scattered = |c: &Class| c.class.wrapping_mul(0x9e37_79b1);
        classes.sort_by(|a, b| a.least.total_cmp(&b.least).then(scattered(a).cmp(&scattered(b))));
        Core { classes, lambda, slack: slack as i64, bound, rounding }
    }

    /// Classes and options in the core.
    pub fn size(&self) -> (usize, usize) {
        (self.classes.len(), self.classes.iter().map(|c| c.deviations.len() + 1).sum())
    }

    /// Looks for the best solution of loss less than `bound + upper`, within an effort.
    pub fn run(&self, upper: f64, effort: Effort) -> Outcome {
        let Effort { states: mut cap, mut merges } = effort;
        let mut upper = upper;
        let mut cut = f64::INFINITY;
        let mut best = None;
        let mut nodes: Vec<Node> = Vec::new();
        let mut states = vec![State { cost: 0, reduced: 0.0, node: NONE, via: NONE }];
        let (mut shifted, mut merged) = (Vec::new(), Vec::new());
        let mut rests = self.rests(upper);
        let mut rests_at = upper;
        for (rank, class) in self.classes.iter().enumerate() {
            if class.least >= upper - self.rounding || states.is_empty() {
                break;
            }
            let needed = states.len() * class.deviations.len();
            if needed > merges {
                let bounds = states.iter().map(|s| rests[rank].bound(s, self));
                cut = bounds.fold(cut, f64::min);
                break;
            }
            merges -= needed;
            self.extend(class, upper, &mut states, &mut shifted, &mut merged);
            let mut found = None;
            for (at, state) in states.iter().enumerate().filter(|(_, s)| s.cost <= self.slack) {
                let value = state.reduced + self.lambda * (self.slack - state.cost) as f64;
                if value < upper {
                    upper = value;
                    found = Some(at);
                }
            }
            if let Some(at) = found {
                // Ends in a node of its own, which outlives the state.
                let state = &mut states[at];
                state.append(rank, &mut nodes);
                best = Some(state.node);
            }
            if upper < 0.5 * rests_at {
                rests = self.rests(upper);
                rests_at = upper;
            }
            let rest = &rests[rank + 1];
            states.retain(|s| rest.bound(s, self) < upper - self.rounding);
            if states.len() > cap {
                cut = cut.min(self.shorten(&mut states, rest, cap));
            }
            states.iter_mut().for_each(|s| s.append(rank, &mut nodes));
            if nodes.len() > NODES {
                collect(&mut nodes, &mut states, &mut best);
                if nodes.len() > NODES / 2 {
                    cap = (cap / 2).max(1);
                }
            }
        }
        let better = best.map(|node| {
            let chain = std::iter::successors(nodes.get(node as usize), |n| nodes.get(n.before as usize));
            chain.map(|n| (self.classes[n.class as usize].class as usize, n.option as usize)).collect()
        });
        Outcome { better, floor: cut.min(upper), complete: cut >= upper - self.rounding }
    }

    /// Adds the deviations of a class to the states, which are ordered by cost, none dominated.
    fn extend(
        &self,
        class: &Class,
        upper: f64,
        states: &mut Vec<State>,
        shifted: &mut Vec<State>,
        merged: &mut Vec<State>,
    ) {
        let before = states.clone();
        for d in &class.deviations {
            shifted.clear();
            shifted.extend(before.iter().filter(|s| s.reduced + d.reduced < upper - self.rounding).map(|s| State {
                cost: s.cost + d.cost,
                reduced: s.reduced + d.reduced,
                node: s.node,
                via: d.option,
            }));
            merged.clear();
            let (mut a, mut b) = (states.iter().peekable(), shifted.iter().peekable());
            let mut last: Option<State> = None;
            loop {
                let next = match (a.peek(), b.peek()) {
                    (Some(x), Some(y)) if (y.cost, y.reduced) < (x.cost, x.reduced) => b.next(),
                    (Some(_), _) => a.next(),
                    (None, _) => b.next(),
                };
                let Some(next) = next else { break };
                // Losses up to a constant: reduced - λ cost.
                if last.is_none_or(|l| next.reduced < l.reduced + self.lambda * (next.cost - l.cost) as f64) {
                    merged.push(*next);
                    last = Some(*next);
                }
            }
            std::mem::swap(states, merged);
        }
    }

    /// Cuts the states to the `cap` of least bounds, of equal ones those nearest to the budget.
    /// Returns the least bound that was cut.
    fn shorten(&self, states: &mut Vec<State>, rest: &Rest, cap: usize) -> f64 {
        let key = |(at, s): (usize, &State)| (rest.bound(s, self), s.cost.abs_diff(self.slack), at);
        let mut keys: Vec<(f64, u64, usize)> = states.iter().enumerate().map(key).collect();
        let order =
            |a: &(f64, u64, usize), b: &(f64, u64, usize)| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2)));
        let (kept, cut, _) = keys.select_nth_unstable_by(cap, order);
        let mut kept: Vec<usize> = kept.iter().map(|k| k.2).collect();
        kept.sort_unstable();
        *states = kept.into_iter().map(|at| states[at]).collect();
        cut.0
    }

    /// For each rank, what the classes from there on can do at a reduced cost below `upper`.
    fn rests(&self, upper: f64) -> Vec<Rest> {
        let mut rest = Rest { least: f64::INFINITY, save: f64::INFINITY, spend: f64::INFINITY, most: 0 };
        let mut rests = vec![rest];
        for class in self.classes.iter().rev() {
            rest.least = class.least;
            let mut most = 0;
            for d in class.deviations.iter().filter(|d| d.reduced < upper) {
                let rate = d.reduced / d.cost.unsigned_abs() as f64;
                if d.cost < 0 {
                    rest.save = rest.save.min(rate);
                    most = most.max(-d.cost);
                } else if d.cost > 0 {
                    rest.spend = rest.spend.min(rate);
                }
            }
            rest.most += most;
            rests.push(rest);
        }
        rests.reverse();
        rests
    }
}

/// Drops the deviations that another of the same class dominates, in cost and in loss.
fn undominated(mut deviations: Vec<Deviation>, lambda: f64) -> Vec<Deviation> {
    deviations.sort_by(|a, b| a.cost.cmp(&b.cost).then(a.reduced.total_cmp(&b.reduced)).then(a.option.cmp(&b.option)));
    // Losses up to a constant: reduced - λ cost.
    deviations.dedup_by(|next, last| next.reduced >= last.reduced + lambda * (next.cost - last.cost) as f64);
    deviations
}

/// What a number of classes can do.
#[derive(Clone, Copy)]
struct Rest {
    /// Least reduced cost of a deviation.
    least: f64,
    /// Least reduced cost per unit of cost saved.
    save: f64,
    /// Least reduced cost per unit of cost spent.
    spend: f64,
    /// The most cost that can be saved.
    most: i64,
}

impl Rest {
    /// Lower bound on what a state becomes, itself excepted if it is a solution.
    fn bound(&self, state: &State, core: &Core) -> f64 {
        let over = state.cost - core.slack;
        let more = if over > self.most {
            f64::INFINITY
        } else if over > 0 {
            over as f64 * self.save
        } else {
            -over as f64 * self.spend.min(core.lambda)
        };
        state.reduced + more.max(self.least)
    }
}

impl State {
    /// Puts the pending deviation into the chain.
    fn append(&mut self, class: usize, nodes: &mut Vec<Node>) {
        if self.via != NONE {
            nodes.push(Node { before: self.node, class: class as u32, option: self.via });
            self.node = nodes.len() as u32 - 1;
            self.via = NONE;
        }
    }
}

/// Drops the chains that neither a state nor the best solution needs.
fn collect(nodes: &mut Vec<Node>, states: &mut [State], best: &mut Option<u32>) {
    let mut keep = vec![false; nodes.len()];
    for start in states.iter().map(|s| s.node).chain(*best) {
        let mut at = start as usize;
        while at < nodes.len() && !keep[at] {
            keep[at] = true;
            at = nodes[at].before as usize;
        }
    }
    // A node stands after the one before it, so that is renumbered already.
    let mut renumbered = vec![NONE; nodes.len()];
    let new = |old: u32, renumbered: &[u32]| renumbered.get(old as usize).copied().unwrap_or(NONE);
    let mut count = 0;
    for at in (0..nodes.len()).filter(|&at| keep[at]) {
        nodes[count] = Node { before: new(nodes[at].before, &renumbered), ..nodes[at] };
        renumbered[at] = count as u32;
        count += 1;
    }
    nodes.truncate(count);
    states.iter_mut().for_each(|s| s.node = new(s.node, &renumbered));
    *best = best.map(|b| new(b, &renumbered));
}
