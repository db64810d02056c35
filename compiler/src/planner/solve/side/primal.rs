//! Solutions from prices: the Lagrangian's minimum, made to fit, and filled up.

use super::dual::{self, Prices};
use super::model::{Class, Fixed, Model};

/// Minima of a class at given prices, over the options that do not open and over all.
pub(super) fn minima(class: &Class, prices: &[f64]) -> (f64, f64) {
    let mut least = (f64::INFINITY, f64::INFINITY);
    for (j, option) in class.options.iter().enumerate() {
        let price = class.price(j, prices);
        least.1 = least.1.min(price);
        if !option.opens {
            least.0 = least.0.min(price);
        }
    }
    least
}

/// By group, how much more it costs open than closed at given prices.
pub(super) fn leanings(model: &Model, prices: &[f64]) -> Vec<f64> {
    let price = model.open.map_or(0.0, |row| prices[row]);
    let mut over: Vec<f64> = model.groups.iter().map(|cost| price * *cost as f64).collect();
    for class in &model.classes {
        if let Some(g) = class.group {
            let (closed, all) = minima(class, prices);
            over[g] -= closed - all;
        }
    }
    over
}

/// Decides all groups: open where that pays, and where it pays most if not all can be.
pub(super) fn decide(model: &Model, fixed: &Fixed, prices: &[f64]) -> Option<Vec<Option<bool>>> {
    let mut decided = fixed.to_vec();
    let Some(row) = model.open else { return Some(decided) };
    let over = leanings(model, prices);
    let mut left = model.rows[row].limit;
    left -= (0..over.len()).filter(|&g| fixed[g] == Some(true)).map(|g| model.groups[g]).sum::<i64>();
    // What opening saves before its price, per unit.
    let saves = |g: usize| {
        let cost = model.groups[g] as f64;
        (prices[row] * cost - over[g]) / cost.max(1e-9)
    };
    let mut free: Vec<usize> = (0..over.len()).filter(|&g| fixed[g].is_none()).collect();
    free.sort_by(|&a, &b| saves(b).total_cmp(&saves(a)));
    for g in free {
        let opens = saves(g) > 0.0 && model.groups[g] <= left;
        left -= if opens { model.groups[g] } else { 0 };
        decided[g] = Some(opens);
    }
    (left >= 0).then_some(decided)
}

/// Whether a decision on the groups lets a class choose an option.
pub(super) fn allowed(class: &Class, j: usize, fixed: &Fixed) -> bool {
    !class.options[j].opens || class.group.is_none_or(|g| fixed[g] != Some(false))
}

/// By class, the option of least price that a decision allows.
pub(super) fn base(model: &Model, fixed: &Fixed, prices: &[f64]) -> Vec<usize> {
    let best = |class: &Class| {
        let options = (0..class.options.len()).filter(|&j| allowed(class, j, fixed));
        options.min_by(|&a, &b| class.price(a, prices).total_cmp(&class.price(b, prices))).unwrap_or(0)
    };
    model.classes.iter().map(best).collect()
}

/// What a choice counts of the rows that it may change; the groups are decided.
pub(super) fn changed(class: &Class, from: usize, to: usize) -> impl Iterator<Item = (usize, i64)> {
    class.rows.iter().zip(class.costs(to).iter().zip(class.costs(from))).map(|(row, (t, f))| (*row, t - f))
}

/// Changes a choice until it fits, at little loss. Whether it does.
pub(super) fn repair(model: &Model, fixed: &Fixed, prices: &Prices, chosen: &mut [usize]) -> bool {
    let (_, total) = dual::spread(model);
    let weight: Vec<f64> = (model.rows.iter().zip(&prices.prices))
        .map(|(row, p)| p.max(1e-3 * total / row.limit.max(1) as f64).max(f64::MIN_POSITIVE))
        .collect();
    let mut usage = model.usage(chosen);
    let over = |row: usize, used: i64| weight[row] * (used - model.rows[row].limit).max(0) as f64;
    for _ in 0..200 {
        if model.fits(&usage) {
            return true;
        }
        let rate = |class: &Class, from: usize, to: usize, usage: &[i64]| {
            let less: f64 = changed(class, from, to).map(|(r, c)| over(r, usage[r]) - over(r, usage[r] + c)).sum();
            // The loss, not the price: what a large change frees beyond need is lost.
            let loss = class.options[to].loss - class.options[from].loss;
            (less > 0.0).then(|| loss.max(0.0) / less)
        };
        let best = |(i, class): (usize, &Class)| {
            let rates = (0..class.options.len())
                .filter(|&j| j != chosen[i] && allowed(class, j, fixed))
                .filter_map(|j| Some((rate(class, chosen[i], j, &usage)?, i, j)));
            rates.min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let mut moves: Vec<(f64, usize, usize)> = model.classes.iter().enumerate().filter_map(best).collect();
        moves.sort_by(|a, b| a.0.total_cmp(&b.0));
        if moves.is_empty() {
            return false;
        }
        for (before, i, j) in moves {
            let class = &model.classes[i];
            if rate(class, chosen[i], j, &usage).is_some_and(|now| now <= 1.5 * before) {
                changed(class, chosen[i], j).for_each(|(r, c)| usage[r] += c);
                chosen[i] = j;
            }
        }
    }
    model.fits(&usage)
}

/// Spends what is left, on one class at a time, where a unit of it saves most.
pub(super) fn fill(model: &Model, fixed: &Fixed, prices: &Prices, chosen: &mut [usize]) {
    let mut usage = model.usage(chosen);
    let fits = |class: &Class, from: usize, to: usize, usage: &[i64]| {
        changed(class, from, to).all(|(r, c)| usage[r] + c <= model.rows[r].limit)
    };
    for _ in 0..50 {
        let best = |(i, class): (usize, &Class)| {
            // Options are ordered by loss.
            let better = (0..chosen[i]).filter(|&j| allowed(class, j, fixed) && fits(class, chosen[i], j, &usage));
            let rated = better.filter_map(|j| {
                let saved = class.options[chosen[i]].loss - class.options[j].loss;
                let spent: f64 = changed(class, chosen[i], j).map(|(r, c)| prices.prices[r] * c as f64).sum();
                (saved > 0.0).then(|| (spent.max(0.0) / saved, i, j))
            });
            rated.min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let mut moves: Vec<(f64, usize, usize)> = model.classes.iter().enumerate().filter_map(best).collect();
        moves.sort_by(|a, b| a.0.total_cmp(&b.0));
        if moves.is_empty() {
            return;
        }
        for (_, i, j) in moves {
            let class = &model.classes[i];
            if fits(class, chosen[i], j, &usage) {
                changed(class, chosen[i], j).for_each(|(r, c)| usage[r] += c);
                chosen[i] = j;
            }
        }
    }
}
