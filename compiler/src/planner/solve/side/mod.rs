//! Side constraints: several budgets at once, caps on layers, a cap on what open layers cost.
//!
//! The problem is that of [`super`] with any number of limited sums, and at most one limit on groups
//! of classes that cost something once if any class in them chooses an option that opens them (a
//! round of messages for a layer with at least one gated channel):
//!
//! ```text
//! Σ_i c_i,x(i),r <= limit_r   for every row r,
//! Σ_g cost_g [some i in g chooses an opening option] <= limit.
//! ```
//!
//! 1. The Lagrangian dual with one price per row gives the bound.
//! 2. With those prices, but rows over disjoint classes (caps on layers; or one budget) kept as they
//!    are, each of these rows is a plain knapsack. Their solutions together, repaired and filled,
//!    give a solution, and their bounds a better bound. Exchanges between two classes and a beam
//!    search over the deviations of least reduced cost improve the solution.
//! 3. Options and groups whose reduced cost exceeds the gap are out. If few are left, an integer
//!    programme (microlp) over them proves the optimum; otherwise open and closed groups are
//!    branched over, best bound first, for a limited number of nodes.
//!
//! The gap that remains is reported, never guessed.

mod beam;
mod branch;
mod dual;
mod integer;
mod model;
mod parts;
mod primal;
mod swap;

use std::ops::Range;

use thiserror::Error;

use super::{Knapsack, Solution, SolveError, Stage};

/// A limit beside the budget.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// The costs of the options that a range of classes chooses sum to at most `limit`.
    Sum {
        /// What it limits, for messages.
        name: String,
        /// Largest sum.
        limit: u64,
        /// The classes that count.
        classes: Range<usize>,
        /// Costs of all options of these classes, in the order of `push`.
        costs: Vec<u64>,
    },
    /// The groups in which a class chooses an opening option cost at most `limit` together.
    Open {
        /// What it limits, for messages.
        name: String,
        /// Largest sum over open groups.
        limit: u64,
        /// Groups of classes; no class is in two.
        groups: Vec<OpenGroup>,
        /// Whether an option opens its group: all options of all classes, in the order of `push`.
        opens: Vec<bool>,
    },
}

/// Classes that cost something together, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenGroup {
    /// The classes (a layer's channels).
    pub classes: Range<usize>,
    /// What it costs if any of them chooses an opening option.
    pub cost: u64,
}

/// Why there is no solution under side constraints.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SideError {
    /// The knapsack itself is malformed.
    #[error(transparent)]
    Knapsack(#[from] SolveError),
    /// A constraint that does not fit the knapsack.
    #[error("the constraint \"{constraint}\" {reason}")]
    Malformed {
        /// Its name.
        constraint: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// A constraint that no choice meets, whatever the others.
    #[error(
        "\"{constraint}\" is limited to {limit}, but no choice stays below {least}: raise the limit to at least that"
    )]
    Infeasible {
        /// Its name.
        constraint: String,
        /// The least that is possible.
        least: u64,
        /// Its limit.
        limit: u64,
    },
    /// Each constraint can be met, but provably not all of them at once.
    #[error("no choice meets all of these limits at once, though each can be met alone: {names}. Raise one of them")]
    Together {
        /// Their names.
        names: String,
    },
    /// No choice was found that meets all constraints, nor a proof that there is none.
    #[error("no choice was found that meets all of these limits at once: {names}. Raise one of them")]
    NotFound {
        /// Their names.
        names: String,
    },
}

/// A solution of least loss under a budget on the knapsack's own costs (if there is one) and side
/// constraints, with a certified bound: check [`Solution::gap`]. `Solution::cost` is in the
/// knapsack's own costs.
///
/// # Errors
/// [`SideError`]: the constraints do not fit the knapsack, or cannot be met, or no choice was found
/// that meets them.
pub fn solve_with(
    k: &Knapsack,
    budget: Option<u64>,
    constraints: &[Constraint],
    watch: &mut dyn FnMut(Stage),
) -> Result<Solution, SideError> {
    k.check()?;
    let model = model::Model::new(k, budget, constraints)?;
    model.refuse()?;
    let names = || model.rows.iter().map(|row| format!("\"{}\"", row.name)).collect::<Vec<_>>().join(", ");
    let found = branch::search(&model, watch);
    let Some(chosen) = found.chosen else {
        let names = names();
        return Err(if found.empty { SideError::Together { names } } else { SideError::NotFound { names } });
    };
    let chosen: Vec<usize> = model.classes.iter().zip(chosen).map(|(class, j)| class.options[j].option).collect();
    let (loss, cost) = k.value(&chosen);
    let bound = if found.proven { loss } else { found.bound.min(loss) };
    Ok(Solution { chosen, loss, cost, bound })
}
