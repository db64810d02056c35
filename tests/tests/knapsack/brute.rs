//! Every choice of small knapsacks, tried.

use bcc_tests::knapsacks::small;
use bcc_tests::random::Numbers;

use crate::solver::{Knapsack, Solution, SolveError, optimal, solve, undominated};

/// Calls `f` with every choice.
pub fn choices(k: &Knapsack, mut f: impl FnMut(&[usize])) {
    let mut chosen = vec![0; k.classes()];
    'all: loop {
        f(&chosen);
        for (i, j) in chosen.iter_mut().enumerate() {
            *j += 1;
            if *j < k.options(i).len() {
                continue 'all;
            }
            *j = 0;
        }
        return;
    }
}

pub fn value(k: &Knapsack, chosen: &[usize]) -> (f64, u64) {
    let options: Vec<_> = chosen.iter().enumerate().map(|(i, &j)| k.options(i).nth(j).expect("an option")).collect();
    (options.iter().map(|o| o.0).sum(), options.iter().map(|o| o.1).sum())
}

/// Largest absolute loss of every class, summed: what rounding is relative to.
pub fn scale(k: &Knapsack) -> f64 {
    (0..k.classes()).map(|i| k.options(i).map(|o| o.0.abs()).fold(0.0, f64::max)).sum()
}

pub fn check(k: &Knapsack, s: &Solution) {
    let (loss, cost) = value(k, &s.chosen);
    assert!((loss - s.loss).abs() <= 1e-12 * scale(k));
    assert_eq!(cost, s.cost);
    assert!(s.bound <= s.loss);
}

#[test]
fn solvers_agree_with_all_choices() {
    let mut rng = Numbers::new(1);
    for round in 0..4000 {
        let classes = 1 + rng.below_u64(6);
        let k = small(&mut rng, classes);
        let most: u64 = (0..k.classes()).map(|i| k.options(i).map(|o| o.1).max().unwrap_or(0)).sum();
        let budget = rng.below_u64(most + 2);
        let mut best = f64::INFINITY;
        let mut least = u64::MAX;
        choices(&k, |chosen| {
            let (loss, cost) = value(&k, chosen);
            least = least.min(cost);
            if cost <= budget {
                best = best.min(loss);
            }
        });
        assert_eq!(least, k.least_cost());
        let tiny = 1e-12 * scale(&k);
        for solved in [solve(&k, budget), optimal(&k, budget, &mut |_| ())] {
            let Ok(s) = solved else {
                assert_eq!(solved, Err(SolveError::Infeasible { least, budget }));
                assert!(best.is_infinite());
                continue;
            };
            check(&k, &s);
            assert!(s.cost <= budget);
            assert!(s.bound <= best + tiny && best <= s.loss + tiny, "round {round}: {best} {s:?}");
        }
        if let Ok(s) = optimal(&k, budget, &mut |_| ()) {
            assert!((s.loss - best).abs() <= tiny, "round {round}: {best} {s:?}");
            assert_eq!(s.gap(), 0.0);
        }
    }
}

#[test]
fn the_filter_keeps_what_no_other_beats() {
    let mut rng = Numbers::new(2);
    for _ in 0..2000 {
        let k = small(&mut rng, 1);
        let options: Vec<_> = k.options(0).collect();
        let kept = undominated(&options);
        let beats = |a: usize, b: usize| {
            let (x, y) = (options[a], options[b]);
            x.0 <= y.0 && x.1 <= y.1 && (x != y || a < b)
        };
        for b in 0..options.len() {
            assert_eq!(kept.contains(&b), !(0..options.len()).any(|a| a != b && beats(a, b)));
        }
        assert!(kept.is_sorted_by(|a, b| options[*a].1 < options[*b].1));
    }
}

#[test]
fn malformed_knapsacks_are_refused() {
    let refused = |options: &[(f64, u64)]| {
        let mut k = Knapsack::new();
        k.push([(1.0, 1)]);
        k.push(options.iter().copied());
        matches!(solve(&k, 10), Err(SolveError::Malformed { class: 1, .. }))
    };
    assert!(refused(&[]));
    assert!(refused(&[(f64::NAN, 1)]));
    assert!(refused(&[(f64::INFINITY, 1)]));
    assert!(refused(&[(0.0, u64::MAX)]));
    assert!(!refused(&[(-0.0, 0)]));
}
