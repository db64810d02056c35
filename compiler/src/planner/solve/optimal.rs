//! The solvers of the plain problem: a good choice fast, or a proven one.

use super::states::{Core, Effort};
use super::{Knapsack, Solution, SolveError, hull};

/// Progress of a proof.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Stage {
    /// A solution and a lower bound are known.
    Bounded {
        /// Loss of the best solution so far.
        loss: f64,
        /// Proven lower bound.
        bound: f64,
    },
    /// The search goes on in a core of so many undecided classes.
    Core {
        /// Undecided classes.
        classes: usize,
        /// Options left in them.
        options: usize,
    },
    /// The best solution is optimal, by this proof.
    Proved(Proof),
}

/// What proves a solution optimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// The Lagrangian bound meets the loss.
    Bound,
    /// The dynamic programme over the core ended with all states.
    States,
    /// An integer programme over the core, to its tolerance of 1e-9 or so of the losses in it.
    Integers,
}

/// What [`solve`] spends.
const QUICK: [Effort; 1] = [Effort { states: 1 << 8, merges: 1 << 24 }];
/// What [`optimal`] spends, in turn, each with the solution of the one before.
const THOROUGH: [Effort; 3] = [
    Effort { states: 1 << 10, merges: 1 << 26 },
    Effort { states: 1 << 15, merges: 1 << 29 },
    Effort { states: 1 << 20, merges: 1 << 30 },
];

/// A solution with a small gap, fast.
///
/// # Errors
/// [`SolveError::Infeasible`] if nothing fits the budget, [`SolveError::Malformed`] if the
/// knapsack breaks the contract of [`Knapsack::push`].
pub fn solve(k: &Knapsack, budget: u64) -> Result<Solution, SolveError> {
    search(k, budget, &QUICK, &mut |_| ())
}

/// The optimum, with its proof: `bound == loss`, up to rounding.
///
/// The effort is limited. Where it does not suffice, as with thousands of equal classes, the best
/// solution returns with the bound that is proven: check [`Solution::gap`].
///
/// # Errors
/// As [`solve`].
pub fn optimal(k: &Knapsack, budget: u64, watch: &mut dyn FnMut(Stage)) -> Result<Solution, SolveError> {
    search(k, budget, &THOROUGH, watch)
}

/// [`optimal`] with given efforts.
pub(super) fn search(
    k: &Knapsack,
    budget: u64,
    efforts: &[Effort],
    watch: &mut dyn FnMut(Stage),
) -> Result<Solution, SolveError> {
    k.check()?;
    let least = k.least_cost();
    if budget < least {
        return Err(SolveError::Infeasible { least, budget });
    }
    // More than everything costs is as good as everything.
    let relaxed = hull::relax(k, budget.min(super::MAX_COST));
    let mut chosen = relaxed.filled;
    let (mut loss, mut cost) = k.value(&chosen);
    let mut bound = relaxed.loss - relaxed.lambda * relaxed.slack as f64;
    if relaxed.lambda == 0.0 || relaxed.slack == 0 || bound >= loss {
        watch(Stage::Proved(Proof::Bound));
        return Ok(Solution { chosen, loss, cost, bound: loss });
    }
    for &effort in efforts {
        watch(Stage::Bounded { loss, bound });
        let core = Core::new(k, &relaxed.base, relaxed.lambda, relaxed.slack, loss);
        let (classes, options) = core.size();
        watch(Stage::Core { classes, options });
        let outcome = core.run(loss - core.bound, effort);
        if let Some(better) = outcome.better {
            let mut other = relaxed.base.clone();
            better.into_iter().for_each(|(i, j)| other[i] = j);
            let value = k.value(&other);
            if value.0 < loss {
                (chosen, loss, cost) = (other, value.0, value.1);
            }
        }
        if outcome.complete {
            watch(Stage::Proved(Proof::States));
            return Ok(Solution { chosen, loss, cost, bound: loss });
        }
        bound = bound.max(core.bound + outcome.floor - core.rounding).min(loss);
    }
    watch(Stage::Bounded { loss, bound });
    Ok(Solution { chosen, loss, cost, bound })
}
