//! Prices of the rows: the Lagrangian dual, smoothed and solved by Newton's method.
//!
//! For prices `μ >= 0` the relaxation falls apart into classes, and into groups of them where a row
//! counts open groups:
//!
//! ```text
//! L(μ) = Σ_i min_j p_ij + Σ_g min(C_g, O_g) - Σ_r μ_r limit_r,    p_ij = l_ij + Σ_r μ_r c_ijr,
//! ```
//!
//! with `C_g` the sum of the minima over options that do not open, `O_g` that over all options plus
//! `μ cost_g`. `L` is concave and piecewise linear. With each minimum replaced by
//! `-τ ln Σ exp(-p/τ)` it is smooth, with the mean costs as gradient and their covariances over `-τ`
//! as Hessian; its maximum is followed while `τ` falls to nothing. `L` itself is the bound, whatever
//! the prices.

use rayon::prelude::*;

use super::super::Sum;
use super::model::{Class, Fixed, Model, Unit};

/// Prices with the bound that they prove.
#[derive(Clone)]
pub(super) struct Prices {
    pub prices: Vec<f64>,
    pub bound: f64,
}

/// Value, gradient and negated Hessian.
#[derive(Clone)]
struct Terms {
    exact: f64,
    soft: f64,
    gradient: Vec<f64>,
    curvature: Vec<f64>,
}

impl Terms {
    fn zero(rows: usize) -> Terms {
        Terms { exact: 0.0, soft: 0.0, gradient: vec![0.0; rows], curvature: vec![0.0; rows * rows] }
    }

    fn add(&mut self, other: &Terms, weight: f64) {
        self.gradient.iter_mut().zip(&other.gradient).for_each(|(a, b)| *a += weight * b);
        self.curvature.iter_mut().zip(&other.curvature).for_each(|(a, b)| *a += weight * b);
    }
}

/// Adds a class's smoothed minimum over the options that `allowed` lets through.
fn class(c: &Class, prices: &[f64], tau: f64, closed: bool, weights: &mut Vec<(usize, f64)>, terms: &mut Terms) {
    weights.clear();
    let allowed = (0..c.options.len()).filter(|&j| !closed || !c.options[j].opens);
    weights.extend(allowed.map(|j| (j, c.price(j, prices))));
    let least = weights.iter().map(|w| w.1).fold(f64::INFINITY, f64::min);
    terms.exact += least;
    weights.retain(|w| w.1 - least < 40.0 * tau);
    weights.iter_mut().for_each(|w| w.1 = (-(w.1 - least) / tau).exp());
    let total: f64 = weights.iter().map(|w| w.1).sum();
    terms.soft += least - tau * total.ln();
    let rows = terms.gradient.len();
    for (at, &row) in c.rows.iter().enumerate() {
        let mean = weights.iter().map(|(j, w)| w * c.costs(*j)[at] as f64).sum::<f64>() / total;
        terms.gradient[row] += mean;
        if weights.len() == 1 {
            continue;
        }
        for (at2, &row2) in c.rows[..=at].iter().enumerate() {
            let mixed = |(j, w): &(usize, f64)| w * (c.costs(*j)[at] as f64 - mean) * c.costs(*j)[at2] as f64;
            let covariance = weights.iter().map(mixed).sum::<f64>() / (total * tau);
            terms.curvature[row * rows + row2] += covariance;
            if at2 < at {
                terms.curvature[row2 * rows + row] += covariance;
            }
        }
    }
}

fn unit(model: &Model, u: &Unit, fixed: &Fixed, prices: &[f64], tau: f64) -> Terms {
    let rows = model.rows.len();
    let mut weights = Vec::new();
    let mut sum = |closed: bool| {
        let mut terms = Terms::zero(rows);
        model.classes[u.classes.clone()].iter().for_each(|c| class(c, prices, tau, closed, &mut weights, &mut terms));
        terms
    };
    let (Some(g), Some(row)) = (u.group, model.open) else { return sum(false) };
    let open = |mut terms: Terms| {
        let cost = model.groups[g] as f64;
        terms.exact += prices[row] * cost;
        terms.soft += prices[row] * cost;
        terms.gradient[row] += cost;
        terms
    };
    match fixed[g] {
        Some(true) => return open(sum(false)),
        Some(false) => return sum(true),
        None => {}
    }
    let (closed, open) = (sum(true), open(sum(false)));
    let over = (open.soft - closed.soft) / tau;
    let share = 1.0 / (1.0 + over.exp());
    let mut terms = Terms::zero(rows);
    terms.exact = open.exact.min(closed.exact);
    terms.soft = open.soft.min(closed.soft) - tau * (-over.abs()).exp().ln_1p();
    terms.add(&open, share);
    terms.add(&closed, 1.0 - share);
    let weight = share * (1.0 - share) / tau;
    if weight > 0.0 {
        let apart: Vec<f64> = open.gradient.iter().zip(&closed.gradient).map(|(a, b)| a - b).collect();
        for (a, x) in apart.iter().enumerate() {
            apart.iter().enumerate().for_each(|(b, y)| terms.curvature[a * rows + b] += weight * x * y);
        }
    }
    terms
}

fn evaluate(model: &Model, fixed: &Fixed, prices: &[f64], tau: f64) -> Terms {
    let rows = model.rows.len();
    let parts: Vec<Terms> = model.units.par_iter().map(|u| unit(model, u, fixed, prices, tau)).collect();
    let mut total = Terms::zero(rows);
    let (mut exact, mut soft) = (Sum::default(), Sum::default());
    for part in &parts {
        exact.add(part.exact);
        soft.add(part.soft);
        total.add(part, 1.0);
    }
    for (r, row) in model.rows.iter().enumerate() {
        exact.add(-prices[r] * row.limit as f64);
        soft.add(-prices[r] * row.limit as f64);
        total.gradient[r] -= row.limit as f64;
    }
    (total.exact, total.soft) = (exact.get(), soft.get());
    total
}

/// What the choices decide about, in losses: the mean over the classes, and the sum. One, where
/// nothing depends on them.
pub(super) fn spread(model: &Model) -> (f64, f64) {
    let spread = |c: &Class| {
        let losses = || c.options.iter().map(|o| o.loss);
        losses().fold(f64::NEG_INFINITY, f64::max) - losses().fold(f64::INFINITY, f64::min)
    };
    let total: f64 = model.classes.iter().map(spread).sum();
    if total > 0.0 { (total / model.classes.len() as f64, total) } else { (1.0, 1.0) }
}

/// By how much `τ` falls from one level to the next.
const FALL: f64 = 0.5;
/// Evaluations at one level.
const EVALUATIONS: usize = 60;

/// The best prices, from `start` on where there is one, and then less exact. Ends early once the
/// bound exceeds `enough`.
pub(super) fn maximise(model: &Model, fixed: &Fixed, start: Option<&Prices>, enough: f64) -> Prices {
    let (mean, total) = spread(model);
    let mut prices = start.map_or_else(|| vec![0.0; model.rows.len()], |s| s.prices.clone());
    let mut best = Prices { bound: f64::NEG_INFINITY, prices: prices.clone() };
    let (first, accuracy) = if start.is_some() { (1e-2 * mean, 1e-10) } else { (mean, 1e-12) };
    let last = first.min(accuracy * total).max(f64::MIN_POSITIVE);
    let mut tau = first;
    let mut damping = 1e-6;
    // The last two levels' maxima, the latest first.
    let mut maxima: Vec<(f64, Vec<f64>)> = Vec::new();
    loop {
        let mut at = evaluate(model, fixed, &prices, tau);
        // They follow nearly a line as τ falls.
        if let [(t1, p1), (t2, p2)] = maxima.as_slice() {
            let ahead = (tau - t1) / (t1 - t2);
            let next: Vec<f64> = p1.iter().zip(p2).map(|(p, q)| (p + ahead * (p - q)).max(0.0)).collect();
            let there = evaluate(model, fixed, &next, tau);
            if there.soft > at.soft {
                (prices, at) = (next, there);
            }
        }
        for _ in 0..EVALUATIONS {
            best.offer(&at, &prices);
            let step = direction(model, &at, &prices, total, &mut damping);
            let next: Vec<f64> = prices.iter().zip(&step).map(|(p, s)| (p + s).max(0.0)).collect();
            let expected: f64 = next.iter().zip(&prices).zip(&at.gradient).map(|((n, p), g)| (n - p) * g).sum();
            if expected <= 1e-2 * tau {
                break;
            }
            let there = evaluate(model, fixed, &next, tau);
            if there.soft >= at.soft + 0.1 * expected {
                (prices, at) = (next, there);
                damping = (0.1 * damping).max(1e-10);
            } else {
                damping = (10.0 * damping).min(1e12);
            }
        }
        best.offer(&at, &prices);
        if tau <= last || best.bound > enough || at.exact - at.soft <= 0.1 * accuracy * total {
            return best;
        }
        maxima.insert(0, (tau, prices.clone()));
        maxima.truncate(2);
        tau = (FALL * tau).max(last);
    }
}

impl Prices {
    /// Takes better prices.
    fn offer(&mut self, at: &Terms, prices: &[f64]) {
        if at.exact > self.bound {
            *self = Prices { bound: at.exact, prices: prices.to_vec() };
        }
    }
}

/// Newton's step, over the rows that are not held at a price of zero, damped until no price moves
/// far (Levenberg and Marquardt).
fn direction(model: &Model, at: &Terms, prices: &[f64], total: f64, damping: &mut f64) -> Vec<f64> {
    let rows = prices.len();
    let free: Vec<usize> = (0..rows).filter(|&r| prices[r] > 0.0 || at.gradient[r] > 0.0).collect();
    let n = free.len();
    let most: Vec<f64> = free.iter().map(|&r| 2.0 * prices[r] + total / model.rows[r].limit.max(1) as f64).collect();
    // Where nothing curves, the longest step does.
    let scale = |(&r, most): (&usize, &f64)| {
        let own = at.curvature[r * rows + r].max(at.gradient[r].abs() / most);
        1.0 / own.max(f64::MIN_POSITIVE).sqrt()
    };
    let scale: Vec<f64> = free.iter().zip(&most).map(scale).collect();
    loop {
        let mut matrix = vec![0.0; n * n];
        for a in 0..n {
            for b in 0..n {
                matrix[a * n + b] = at.curvature[free[a] * rows + free[b]] * scale[a] * scale[b];
            }
            matrix[a * n + a] = 1.0 + *damping;
        }
        let mut y: Vec<f64> = (0..n).map(|a| at.gradient[free[a]] * scale[a]).collect();
        cholesky(&mut matrix, &mut y);
        if (0..n).any(|a| (y[a] * scale[a]).abs() > most[a]) && *damping < 1.0 {
            *damping *= 10.0;
            continue;
        }
        let mut step = vec![0.0; rows];
        (0..n).for_each(|a| step[free[a]] = (y[a] * scale[a]).clamp(-most[a], most[a]));
        return step;
    }
}

/// Solves a positive definite system in place.
fn cholesky(matrix: &mut [f64], y: &mut [f64]) {
    let n = y.len();
    for a in 0..n {
        for b in 0..=a {
            let dot: f64 = (0..b).map(|c| matrix[a * n + c] * matrix[b * n + c]).sum();
            let rest = matrix[a * n + b] - dot;
            matrix[a * n + b] = if a == b { rest.max(1e-12).sqrt() } else { rest / matrix[b * n + b] };
        }
    }
    for a in 0..n {
        let dot: f64 = (0..a).map(|c| matrix[a * n + c] * y[c]).sum();
        y[a] = (y[a] - dot) / matrix[a * n + a];
    }
    for a in (0..n).rev() {
        let dot: f64 = (a + 1..n).map(|c| matrix[c * n + a] * y[c]).sum();
        y[a] = (y[a] - dot) / matrix[a * n + a];
    }
}
