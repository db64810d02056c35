//! Knapsacks of the size of networks.

use bcc_tests::knapsacks::network;
use bcc_tests::random::Numbers;

use crate::brute::check;
use crate::solver::{Knapsack, optimal, solve};

/// The dynamic programme over the budget: the least loss at every cost, class by class, with
/// back-pointers.
fn dynamic(k: &Knapsack, budget: usize) -> (f64, Vec<usize>) {
    let mut least = vec![0.0; budget + 1];
    let mut from = Vec::new();
    for i in 0..k.classes() {
        let mut next = vec![f64::INFINITY; budget + 1];
        let mut choice = vec![usize::MAX; budget + 1];
        for (j, (loss, cost)) in k.options(i).enumerate() {
            for b in cost as usize..=budget {
                let loss = least[b - cost as usize] + loss;
                if loss < next[b] {
                    (next[b], choice[b]) = (loss, j);
                }
            }
        }
        least = next;
        from.push(choice);
    }
    let mut left = budget;
    let mut chosen = vec![0; k.classes()];
    for i in (0..k.classes()).rev() {
        chosen[i] = from[i][left];
        left -= k.options(i).nth(chosen[i]).expect("a choice").1 as usize;
    }
    (least[budget], chosen)
}

#[test]
fn optimal_agrees_with_dynamic_programming() {
    for seed in 0..12 {
        let mut rng = Numbers::new(100 + seed);
        let mut k = Knapsack::new();
        for _ in 0..200 {
            let scale = rng.normal().exp();
            // Half of the instances with losses that nearly follow the costs: the hard ones.
            let noise = if seed % 2 == 0 { 1.0 } else { 0.01 };
            k.push((0..12).map(|_| {
                let cost = rng.below_u64(60);
                (scale * (60 - cost) as f64 * (1.0 + noise * rng.unit()), cost)
            }));
        }
        let budget = 2000 + 500 * seed as usize;
        let (best, chosen) = dynamic(&k, budget);
        let s = optimal(&k, budget as u64, &mut |_| ()).expect("feasible");
        check(&k, &s);
        assert!((s.loss - best).abs() <= 1e-9 * best, "{} {best}", s.loss);
        assert_eq!(s.gap(), 0.0);
        assert_eq!(chosen.len(), s.chosen.len());
    }
}

#[test]
fn a_network_of_26000_channels_solves_closely() {
    let k = network(&mut Numbers::new(7), 26_000, 100);
    let all: u64 = (0..k.classes()).filter_map(|i| k.options(i).next()).map(|o| o.1).sum();
    for share in [3, 10, 50] {
        let budget = k.least_cost() + (all - k.least_cost()) / share;
        let s = solve(&k, budget).expect("feasible");
        check(&k, &s);
        assert!(s.cost <= budget);
        assert!(s.gap() <= 1e-6, "{}", s.gap());
        assert_eq!(solve(&k, budget), Ok(s));
    }
}

#[test]
fn optimal_is_deterministic() {
    let k = network(&mut Numbers::new(8), 2_000, 40);
    let budget = k.least_cost() * 3;
    let once = optimal(&k, budget, &mut |_| ()).expect("feasible");
    assert_eq!(once.gap(), 0.0);
    assert_eq!(optimal(&k, budget, &mut |_| ()), Ok(once));
}
