//! Undominated options, lower convex hulls, and the linear relaxation they solve.

use rayon::prelude::*;

use super::{Knapsack, Sum};

/// Pareto filter: the options for which no other costs at most as much and loses no more.
///
/// Options are `(loss, cost)`. Of equal options the one with the lowest index stays. Returns
/// indices, ordered by cost; losses fall strictly along them.
pub fn undominated(options: &[(f64, u64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..options.len()).collect();
    sort(&mut order, |i| options[i]);
    order.dedup_by(|next, last| options[*next].0 >= options[*last].0);
    order
}

/// Orders by cost, then loss, then index.
fn sort(order: &mut [usize], option: impl Fn(usize) -> (f64, u64)) {
    order.sort_unstable_by(|&a, &b| {
        let ((l, c), (m, d)) = (option(a), option(b));
        // Adding zero makes the two zeros equal.
        c.cmp(&d).then((l + 0.0).total_cmp(&(m + 0.0))).then(a.cmp(&b))
    });
}

/// From one hull option of a class to the next: less loss for more cost.
struct Step {
    class: u32,
    option: u32,
    cost: u64,
    /// Loss saved per unit of cost; falls strictly along a class.
    slope: f64,
}

/// The optimum of the linear relaxation, rounded down.
pub(super) struct Relaxed {
    /// The hull options below the fractional class's upper one: a minimiser of the Lagrangian.
    pub base: Vec<usize>,
    /// Its loss.
    pub loss: f64,
    /// What it leaves of the budget.
    pub slack: u64,
    /// The multiplier: loss per unit of cost at the margin; 0 if the budget does not bind.
    pub lambda: f64,
    /// `base`, with the later steps that still fit.
    pub filled: Vec<usize>,
}

/// Takes the steepest steps that the budget allows. The budget covers the least cost.
pub(super) fn relax(k: &Knapsack, budget: u64) -> Relaxed {
    let hulls: Vec<(usize, Vec<Step>)> =
        (0..k.classes()).into_par_iter().with_min_len(256).map_init(Vec::new, |order, i| hull(k, i, order)).collect();
    let mut base = Vec::with_capacity(hulls.len());
    let mut steps = Vec::with_capacity(hulls.iter().map(|(_, steps)| steps.len()).sum());
    for (first, more) in hulls {
        base.push(first);
        steps.extend(more);
    }
    steps.par_sort_unstable_by(|a, b| b.slope.total_cmp(&a.slope).then(a.class.cmp(&b.class)));

    let mut slack = budget - k.least_cost();
    let split = steps.iter().position(|step| {
        if step.cost > slack {
            return true;
        }
        slack -= step.cost;
        base[step.class as usize] = step.option as usize;
        false
    });
    let mut filled = base.clone();
    if let Some(split) = split {
        let mut left = slack;
        let mut stopped = vec![false; base.len()];
        for step in &steps[split..] {
            let class = step.class as usize;
            if step.cost > left {
                stopped[class] = true;
            } else if !stopped[class] {
                left -= step.cost;
                filled[class] = step.option as usize;
            }
        }
    }
    let loss = Sum::of(base.iter().enumerate().map(|(i, &j)| k.at(i, j).0));
    Relaxed { base, loss, slack, lambda: split.map_or(0.0, |s| steps[s].slope), filled }
}

/// The cheapest option on the lower convex hull of a class, and the steps from there.
fn hull(k: &Knapsack, class: usize, order: &mut Vec<usize>) -> (usize, Vec<Step>) {
    let (loss, cost) = k.class(class);
    order.clear();
    order.extend(0..loss.len());
    sort(order, |j| (loss[j], cost[j]));
    let first = order[0];
    let mut steps: Vec<Step> = Vec::new();
    let mut last = first;
    for &j in &order[1..] {
        if loss[j] >= loss[last] {
            continue;
        }
        // Compares the rounded slopes, not products: the greedy order over all classes goes by
        // them and must keep the order within a class.
        let step = |from: usize| {
            let wider = cost[j] - cost[from];
            (wider, (loss[from] - loss[j]) / wider as f64)
        };
        let (mut wider, mut slope) = step(last);
        while let Some(before) = steps.last() {
            if slope < before.slope {
                break;
            }
            steps.pop();
            let from = steps.last().map_or(first, |s| s.option as usize);
            (wider, slope) = step(from);
        }
        steps.push(Step { class: class as u32, option: j as u32, cost: wider, slope });
        last = j;
    }
    (first, steps)
}
