//! Rows over disjoint classes, kept exact.
//!
//! With the other rows priced, each such row is a knapsack of its own, and the plain solver takes
//! it. The sum of their bounds is at least the Lagrangian with all rows priced, as their own
//! integrality gaps are closed; the sum of their solutions meets all the rows that were kept.

use super::super::states::Effort;
use super::super::{Knapsack, Sum, optimal};
use super::dual::Prices;
use super::model::{Fixed, Model};
use super::primal::allowed;

/// What the plain solver may spend on a part.
const EFFORT: Effort = Effort { states: 1 << 12, merges: 1 << 26 };

/// The rows that are kept: small ones first, no class in two.
fn kept(model: &Model) -> Vec<Option<usize>> {
    let mut counted = vec![Vec::new(); model.rows.len()];
    for (i, class) in model.classes.iter().enumerate() {
        class.rows.iter().for_each(|row| counted[*row].push(i));
    }
    let mut order: Vec<usize> = (0..counted.len()).collect();
    order.sort_by_key(|r| counted[*r].len());
    let mut row_of = vec![None; model.classes.len()];
    for row in order {
        if counted[row].iter().all(|i| row_of[*i].is_none()) {
            counted[row].iter().for_each(|i| row_of[*i] = Some(row));
        }
    }
    row_of
}

/// A choice that meets the rows that are kept, and a bound; all groups are decided. `base` minimises
/// the Lagrangian.
pub(super) fn solve(model: &Model, fixed: &Fixed, prices: &Prices, base: &[usize]) -> Option<(Vec<usize>, f64)> {
    let row_of = kept(model);
    let mut bound = Sum::default();
    let mut chosen = base.to_vec();
    for (i, class) in model.classes.iter().enumerate().filter(|(i, _)| row_of[*i].is_none()) {
        bound.add(class.price(base[i], &prices.prices));
    }
    if let Some(row) = model.open {
        let open = fixed.iter().zip(&model.groups).filter(|(f, _)| **f == Some(true));
        bound.add(prices.prices[row] * open.map(|(_, cost)| *cost as f64).sum::<f64>());
    }
    for (r, row) in model.rows.iter().enumerate() {
        let classes: Vec<usize> = (0..row_of.len()).filter(|i| row_of[*i] == Some(r)).collect();
        if classes.is_empty() {
            bound.add(-prices.prices[r] * row.limit as f64);
            continue;
        }
        // The row itself costs nothing here: it is kept.
        let mut others = prices.prices.clone();
        others[r] = 0.0;
        let mut part = Knapsack::new();
        let mut options = Vec::new();
        for &i in &classes {
            let class = &model.classes[i];
            let own: Vec<usize> = (0..class.options.len()).filter(|&j| allowed(class, j, fixed)).collect();
            let at = class.rows.iter().position(|row| *row == r)?;
            part.push(own.iter().map(|&j| (class.price(j, &others), class.costs(j)[at] as u64)));
            options.push(own);
        }
        let solved = optimal::search(&part, row.limit as u64, &[EFFORT], &mut |_| ()).ok()?;
        bound.add(solved.bound);
        for ((i, own), j) in classes.into_iter().zip(options).zip(solved.chosen) {
            chosen[i] = own[j];
        }
    }
    Some((chosen, bound.get()))
}
