//! The knapsack solver: one option per channel, least loss within a budget, with a certificate.
//!
//! # Problem
//!
//! Class `i` (a channel) offers options `j` (blocks) with loss `l_ij` and cost `c_ij`. The
//! multiple-choice knapsack problem picks one option per class:
//!
//! ```text
//! minimise  Σ_i l_i,x(i)   subject to  Σ_i c_i,x(i) <= B.
//! ```
//!
//! # Relaxation and bound
//!
//! Pricing the budget at `λ >= 0` per unit leaves one minimum per class, and any price gives a
//! lower bound on every feasible choice:
//!
//! ```text
//! L(λ) = Σ_i min_j (l_ij + λ c_ij) - λ B.
//! ```
//!
//! Only options on the lower convex hull of a class's points `(c, l)` are ever minimal. Walking
//! all hulls at once, steepest step first, until the next step does not fit, solves the linear
//! relaxation; the slope of that step is the best price `λ*`, and `L(λ*)` its value (Sinha and
//! Zoltners 1979).
//!
//! # Reduced costs and core
//!
//! Let `b(i)` be the options chosen so far and `r_ij = (l_ij - l_i,b(i)) + λ (c_ij - c_i,b(i)) >= 0`.
//! A feasible choice `x` that leaves `s` of the budget unspent has, exactly,
//!
//! ```text
//! loss(x) = L(λ) + Σ_i r_i,x(i) + λ s.
//! ```
//!
//! With a known solution of loss `U`, options with `r_ij >= U - L(λ)` are in no better one. The
//! rest is the *core*. A dynamic programme adds its classes, cheapest deviation first, to a list of
//! states `(cost, Σ r)`, and drops a state that another dominates or that cannot come below `U`:
//! with excess cost `e` (or unspent `s`) it still needs a deviation of at least `r`, and at least
//! `e · min r/|Δc|` over what may save cost (`s · min(λ, min r/Δc)` over what may spend it). Every
//! state within the budget is a solution and lowers `U`; when no state is left, `U` is the optimum
//! (after Pisinger 1995; Kellerer, Pferschy and Pisinger, *Knapsack Problems*, chapter 11). A list
//! cut to a fixed length still certifies: the least bound of what was cut is a bound on the loss.
//!
//! [`solve()`] cuts the list short, [`optimal()`] lets it grow until the proof is complete.
//!
//! # Arithmetic
//!
//! Costs are integers and all sums of them exact. Losses are floats of any sign; sums over classes
//! are compensated, and bounds hold up to a rounding of 1e-12 of the sum of the absolute losses.

mod hull;
mod optimal;
mod side;
mod states;

use thiserror::Error;

pub use hull::undominated;
pub use optimal::{Proof, Stage, optimal, solve};
pub use side::{Constraint, OpenGroup, SideError, solve_with};

/// Largest sum of costs, 2^53: up to here floats hold them exactly.
pub const MAX_COST: u64 = 1 << 53;

/// A multiple-choice knapsack: classes of options, each with a loss and a cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Knapsack {
    /// Where each class's options start, and the end of the last.
    starts: Vec<usize>,
    loss: Vec<f64>,
    cost: Vec<u64>,
}

/// Why there is no solution.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SolveError {
    /// Even the cheapest options exceed the budget.
    #[error("the budget is {budget}, but the cheapest choice costs {least}: raise the budget to at least that")]
    Infeasible {
        /// Cost of the cheapest choice.
        least: u64,
        /// The budget.
        budget: u64,
    },
    /// A class without options, or an option without a usable loss or cost.
    #[error("class {class} of the knapsack {reason}")]
    Malformed {
        /// The class, in the order of `push`.
        class: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A choice of one option per class, and how good it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Option by class.
    pub chosen: Vec<usize>,
    /// Sum of the chosen losses.
    pub loss: f64,
    /// Sum of the chosen costs.
    pub cost: u64,
    /// Proven lower bound on the loss of every feasible choice; at most `loss`, and equal to it
    /// where the choice is proven optimal.
    pub bound: f64,
}

impl Solution {
    /// How far the loss can be from the optimum: `(loss - bound) / max(|loss|, |bound|)`, 0 when equal.
    pub fn gap(&self) -> f64 {
        let over = self.loss - self.bound;
        if over <= 0.0 { 0.0 } else { over / self.loss.abs().max(self.bound.abs()).max(f64::MIN_POSITIVE) }
    }
}

impl Default for Knapsack {
    fn default() -> Self {
        Self { starts: vec![0], loss: Vec::new(), cost: Vec::new() }
    }
}

impl Knapsack {
    /// A knapsack without classes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a class with options `(loss, cost)`: at least one, losses finite. The solvers refuse
    /// anything else.
    pub fn push(&mut self, options: impl IntoIterator<Item = (f64, u64)>) {
        for (loss, cost) in options {
            self.loss.push(loss);
            self.cost.push(cost);
        }
        self.starts.push(self.loss.len());
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.starts.len() - 1
    }

    /// The options `(loss, cost)` of a class, in the order of `push`.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn options(&self, class: usize) -> impl ExactSizeIterator<Item = (f64, u64)> {
        let (loss, cost) = self.class(class);
        loss.iter().copied().zip(cost.iter().copied())
    }

    /// Cost of the cheapest choice.
    pub fn least_cost(&self) -> u64 {
        (0..self.classes()).fold(0, |sum, i| sum.saturating_add(self.class(i).1.iter().copied().min().unwrap_or(0)))
    }

    /// Losses and costs of a class.
    fn class(&self, class: usize) -> (&[f64], &[u64]) {
        let range = self.starts[class]..self.starts[class + 1];
        (&self.loss[range.clone()], &self.cost[range])
    }

    /// Loss and cost of an option.
    fn at(&self, class: usize, option: usize) -> (f64, u64) {
        let at = self.starts[class] + option;
        (self.loss[at], self.cost[at])
    }

    /// Loss and cost of a choice.
    fn value(&self, chosen: &[usize]) -> (f64, u64) {
        let options = || chosen.iter().enumerate().map(|(i, &j)| self.at(i, j));
        (Sum::of(options().map(|o| o.0)), options().map(|o| o.1).sum())
    }

    /// What the solvers rely on: options everywhere, finite losses, sums of costs that floats hold.
    fn check(&self) -> Result<(), SolveError> {
        let mut total = 0u64;
        for class in 0..self.classes() {
            let (loss, cost) = self.class(class);
            let refuse = |reason| Err(SolveError::Malformed { class, reason });
            let Some(most) = cost.iter().max() else { return refuse("has no options") };
            if loss.len() > u32::MAX as usize || class > u32::MAX as usize {
                return refuse("is one too many, or has too many options");
            }
            if loss.iter().any(|l| !l.is_finite()) {
                return refuse("has a loss that is no finite number");
            }
            total = total.saturating_add(*most);
            if total > MAX_COST {
                return refuse("brings the sum of the largest costs over 2^53");
            }
        }
        Ok(())
    }
}

/// A sum of floats with the rounding errors carried along (Neumaier).
#[derive(Clone, Copy, Default)]
struct Sum {
    sum: f64,
    rest: f64,
}

impl Sum {
    fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        self.rest += if self.sum.abs() >= x.abs() { (self.sum - sum) + x } else { (x - sum) + self.sum };
        self.sum = sum;
    }

    fn get(self) -> f64 {
        self.sum + self.rest
    }

    fn of(values: impl IntoIterator<Item = f64>) -> f64 {
        let mut sum = Sum::default();
        values.into_iter().for_each(|x| sum.add(x));
        sum.get()
    }
}
