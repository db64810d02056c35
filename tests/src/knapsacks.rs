//! Random knapsacks.

use bcc_compiler::planner::solve::{Constraint, Knapsack, OpenGroup, solve};

use crate::random::Numbers;

/// Small, and of every kind: ties, zero costs, negative losses, single options, equal losses.
pub fn small(rng: &mut Numbers, classes: u64) -> Knapsack {
    let mut k = Knapsack::new();
    let kind = rng.below_u64(6);
    let scale = [1.0, 1e-12, 1e6][rng.below_u64(3) as usize];
    let costs = [3, 10, 1000][rng.below_u64(3) as usize];
    for _ in 0..classes {
        let options = 1 + rng.below_u64(6);
        k.push((0..options).map(|_| {
            let cost = rng.below_u64(costs);
            let loss = match kind {
                0 => rng.below_u64(4) as f64 - 1.0,
                1 => 2.0,
                2 => rng.unit() - 0.5,
                3 => -rng.unit(),
                4 => (costs - cost) as f64,
                _ => (rng.normal() * 3.0).exp(),
            };
            (loss * scale, cost)
        }));
    }
    k
}

/// The sides of ResNet-18's maps by number of channels, and the block heights and widths offered.
const LAYERS: [(u64, usize); 5] = [(112, 64), (56, 320), (28, 640), (14, 1280), (7, 2560)];

/// As a network's: the costs of all blocks of a map, losses log-normal and falling with the cost.
pub fn network(rng: &mut Numbers, classes: usize, options: usize) -> Knapsack {
    let mut k = Knapsack::new();
    for i in 0..classes {
        // Few channels on large maps, many on small ones, as in networks.
        let total: usize = LAYERS.iter().map(|l| l.1).sum();
        let mut at = i * total / classes;
        let (side, _) = *LAYERS
            .iter()
            .find(|l| {
                at < l.1 || {
                    at -= l.1;
                    false
                }
            })
            .unwrap_or(&LAYERS[4]);
        let scale = (rng.normal() * 2.0).exp();
        let power = 0.5 + 2.0 * rng.unit();
        let mut blocks = vec![(1, 1), (side, side)];
        while blocks.len() < options {
            blocks.push((1 + rng.below_u64(side.min(16)), 1 + rng.below_u64(side.min(16))));
        }
        k.push(blocks.into_iter().map(|(h, w)| {
            let cost = side.div_ceil(h) * side.div_ceil(w);
            let share = cost as f64 / (side * side) as f64;
            (scale * (1.0 - share).powf(power) * (rng.normal() * 0.1).exp(), cost)
        }));
    }
    k
}

/// Bytes by option: not quite proportional to the costs.
fn bytes(rng: &mut Numbers, k: &Knapsack) -> Vec<u64> {
    (0..k.classes())
        .flat_map(|i| k.options(i).map(|o| 40 * o.1 + 90).collect::<Vec<_>>())
        .map(|b| b + rng.below_u64(b))
        .collect()
}

/// A network with two budgets, and caps on parts of it at 0.7 to 1.1 of what they would use.
///
/// # Panics
/// If the solver finds its own budget infeasible, which is a defect.
pub fn capped(rng: &mut Numbers, classes: usize, options: usize, caps: usize) -> (Knapsack, u64, Vec<Constraint>) {
    let k = network(rng, classes, options);
    let all: u64 = (0..classes).filter_map(|i| k.options(i).next()).map(|o| o.1).sum();
    let budget = k.least_cost() + (all - k.least_cost()) / 10;
    let free = solve(&k, budget).expect("feasible");
    let bytes = bytes(rng, &k);
    let mut starts = vec![0];
    (0..k.classes()).for_each(|i| starts.push(starts[i] + k.options(i).len()));
    let used: u64 = (0..classes).map(|i| bytes[starts[i] + free.chosen[i]]).sum();
    let mut all =
        vec![Constraint::Sum { name: "bytes".into(), limit: used * 9 / 10, classes: 0..classes, costs: bytes }];
    for l in 0..caps {
        let classes = l * classes / caps..(l + 1) * classes / caps;
        let costs: Vec<u64> = classes.clone().flat_map(|i| k.options(i).map(|o| o.1).collect::<Vec<_>>()).collect();
        let used: u64 = classes.clone().filter_map(|i| k.options(i).nth(free.chosen[i])).map(|o| o.1).sum();
        let least: u64 = classes.clone().filter_map(|i| k.options(i).map(|o| o.1).min()).sum();
        let limit = least.max(used * (70 + rng.below_u64(41)) / 100);
        all.push(Constraint::Sum { name: format!("layer {l}"), limit, classes, costs });
    }
    (k, budget, all)
}

/// As [`capped`], with a limit on layers that use other options than the cheapest third.
///
/// # Panics
/// As [`capped`].
pub fn gated(rng: &mut Numbers, classes: usize, options: usize, layers: usize) -> (Knapsack, u64, Vec<Constraint>) {
    let (k, budget, mut all) = capped(rng, classes, options, 0);
    let groups = (0..layers)
        .map(|l| OpenGroup { classes: l * classes / layers..(l + 1) * classes / layers, cost: 1 + rng.below_u64(3) })
        .collect();
    let opens = (0..classes).flat_map(|i| (0..k.options(i).len()).map(|j| j % 3 == 0)).collect();
    all.push(Constraint::Open { name: "rounds".into(), limit: layers as u64, groups, opens });
    (k, budget, all)
}
