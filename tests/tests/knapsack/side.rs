//! Side constraints.

use bcc_tests::knapsacks::{capped, gated, network, small};
use bcc_tests::random::Numbers;

use crate::brute::{choices, scale, value};
use crate::solver::{Constraint, Knapsack, OpenGroup, SideError, Solution, optimal, solve_with};

/// What a choice counts of a constraint, and its limit.
fn counts(k: &Knapsack, constraint: &Constraint, chosen: &[usize]) -> (u64, u64) {
    let starts: Vec<usize> = (0..k.classes())
        .scan(0, |at, i| {
            *at += k.options(i).len();
            Some(*at - k.options(i).len())
        })
        .collect();
    match constraint {
        Constraint::Sum { limit, classes, costs, .. } => {
            let used = classes.clone().map(|i| costs[starts[i] - starts[classes.start] + chosen[i]]).sum();
            (used, *limit)
        }
        Constraint::Open { limit, groups, opens, .. } => {
            let open = |g: &&OpenGroup| g.classes.clone().any(|i| opens[starts[i] + chosen[i]]);
            (groups.iter().filter(open).map(|g| g.cost).sum(), *limit)
        }
    }
}

/// Random constraints: sums over all or some of the classes, and groups.
fn constraints(rng: &mut Numbers, k: &Knapsack) -> Vec<Constraint> {
    let n = k.classes();
    let mut all = Vec::new();
    for r in 0..rng.below_u64(3) {
        let start = rng.below_u64(n as u64) as usize;
        let classes = if r == 0 { 0..n } else { start..start + 1 + rng.below_u64((n - start) as u64) as usize };
        let options: usize = classes.clone().map(|i| k.options(i).len()).sum();
        let costs: Vec<u64> = (0..options).map(|_| rng.below_u64(20)).collect();
        let limit = rng.below_u64(14 * classes.len() as u64 + 1);
        all.push(Constraint::Sum { name: format!("sum {r}"), limit, classes, costs });
    }
    if rng.below_u64(2) == 0 {
        let split = rng.below_u64(n as u64 + 1) as usize;
        let groups = [0..split, split..n].map(|classes| OpenGroup { classes, cost: rng.below_u64(4) });
        let options: usize = (0..n).map(|i| k.options(i).len()).sum();
        let opens = (0..options).map(|_| rng.below_u64(2) == 0).collect();
        all.push(Constraint::Open { name: "open".into(), limit: rng.below_u64(6), groups: groups.into(), opens });
    }
    all
}

#[test]
fn solve_with_agrees_with_all_choices() {
    let mut rng = Numbers::new(3);
    let (mut met, mut unmet) = (0, 0);
    for round in 0..1500 {
        let classes = 1 + rng.below_u64(5);
        let k = small(&mut rng, classes);
        let constraints = constraints(&mut rng, &k);
        let most: u64 = (0..k.classes()).map(|i| k.options(i).map(|o| o.1).max().unwrap_or(0)).sum();
        let budget = (rng.below_u64(2) == 0).then(|| rng.below_u64(most + 1));
        let mut best = f64::INFINITY;
        choices(&k, |chosen| {
            let (loss, cost) = value(&k, chosen);
            let fits = |c: &Constraint| {
                let (used, limit) = counts(&k, c, chosen);
                used <= limit
            };
            if budget.is_none_or(|b| cost <= b) && constraints.iter().all(fits) {
                best = best.min(loss);
            }
        });
        let tiny = 1e-8 * scale(&k);
        match solve_with(&k, budget, &constraints, &mut |_| ()) {
            Ok(s) => {
                met += 1;
                assert!((value(&k, &s.chosen).0 - s.loss).abs() <= tiny);
                assert!(budget.is_none_or(|b| s.cost <= b));
                for c in &constraints {
                    let (used, limit) = counts(&k, c, &s.chosen);
                    assert!(used <= limit, "round {round}: {c:?}");
                }
                assert!((s.loss - best).abs() <= tiny, "round {round}: {best} {s:?} {k:?} {budget:?} {constraints:?}");
                assert!(s.bound <= best + tiny && s.gap() == 0.0, "round {round}: {best} {s:?}");
            }
            Err(SideError::Infeasible { .. } | SideError::Together { .. }) => {
                unmet += 1;
                assert!(best.is_infinite(), "round {round}: {best} {k:?} {budget:?} {constraints:?}");
            }
            Err(e) => assert_eq!(e.to_string(), "", "round {round}"),
        }
    }
    assert!(met > 300 && unmet > 100, "{met} {unmet}");
}

#[test]
fn a_limit_that_cannot_be_met_is_named() {
    let mut k = Knapsack::new();
    k.push([(1.0, 1), (0.0, 3)]);
    k.push([(1.0, 1), (0.0, 3)]);
    let sum =
        |limit, costs: [u64; 4]| Constraint::Sum { name: "bytes".into(), limit, classes: 0..2, costs: costs.into() };
    let with = |budget, c| solve_with(&k, budget, &[c], &mut |_| ());
    assert_eq!(
        with(None, sum(3, [2, 5, 2, 5])),
        Err(SideError::Infeasible { constraint: "bytes".into(), least: 4, limit: 3 })
    );
    assert_eq!(
        with(Some(1), sum(9, [2, 5, 2, 5])),
        Err(SideError::Infeasible { constraint: "budget".into(), least: 2, limit: 1 })
    );
    // Cheap in one is dear in the other.
    assert!(matches!(with(Some(3), sum(3, [5, 1, 5, 1])), Err(SideError::Together { .. })));
    assert!(matches!(with(None, sum(3, [5, 1, 5, 1])), Ok(Solution { .. })));
}

fn check(k: &Knapsack, budget: u64, all: &[Constraint], s: &Solution) {
    assert!((value(k, &s.chosen).0 - s.loss).abs() <= 1e-12 * scale(k));
    assert!(s.cost <= budget && s.bound <= s.loss);
    for c in all {
        let (used, limit) = counts(k, c, &s.chosen);
        assert!(used <= limit);
    }
}

#[test]
fn two_budgets_and_caps_solve_closely() {
    for (caps, gap) in [(0, 1e-6), (20, 1e-6)] {
        let (k, budget, all) = capped(&mut Numbers::new(11), 3000, 30, caps);
        let s = solve_with(&k, Some(budget), &all, &mut |_| ()).expect("feasible");
        check(&k, budget, &all, &s);
        assert!(s.gap() <= gap, "{caps}: {}", s.gap());
        assert_eq!(solve_with(&k, Some(budget), &all, &mut |_| ()), Ok(s));
    }
}

#[test]
fn a_limit_on_open_layers_solves_closely() {
    let (k, budget, all) = gated(&mut Numbers::new(12), 1000, 20, 20);
    let s = solve_with(&k, Some(budget), &all, &mut |_| ()).expect("feasible");
    check(&k, budget, &all, &s);
    assert!(s.gap() <= 1e-5, "{}", s.gap());
}

#[test]
fn a_budget_alone_is_the_plain_problem() {
    let k = network(&mut Numbers::new(13), 1000, 30);
    let budget = k.least_cost() * 5;
    let plain = optimal(&k, budget, &mut |_| ()).expect("feasible");
    let s = solve_with(&k, Some(budget), &[], &mut |_| ()).expect("feasible");
    assert!((s.loss - plain.loss).abs() <= 1e-12 * plain.loss);
    assert!(s.gap() <= 1e-12, "{}", s.gap());
}
