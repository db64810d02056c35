//! The core as an integer programme, for proofs where few options are left.

use good_lp::{Expression, ProblemVariables, Solution as _, SolverModel, Variable, WithTimeLimit, variable};
use good_lp::{ResolutionError, constraint, solvers::SolutionStatus, solvers::microlp::microlp};

use super::dual::Prices;
use super::model::{Fixed, Model};
use super::primal::{leanings, minima};

/// Most options in a core for microlp.
const OPTIONS: usize = 400;
/// Seconds after which it gives up. What it has found by then is not used, so that solutions do not
/// depend on the machine unless a proof does.
const SECONDS: f64 = 30.0;

/// By class, the options that a solution with a loss of at most `upper` may hold.
pub(super) fn survivors(model: &Model, fixed: &Fixed, prices: &Prices, upper: f64) -> Vec<Vec<usize>> {
    let over: Vec<f64> = (leanings(model, &prices.prices).into_iter().zip(fixed))
        .map(|(over, fixed)| match fixed {
            Some(true) => f64::NEG_INFINITY,
            Some(false) => f64::INFINITY,
            None => over,
        })
        .collect();
    let (_, total) = super::dual::spread(model);
    let gap = upper - prices.bound + 1e-9 * total;
    let class = |class: &super::model::Class| {
        let (closed, all) = minima(class, &prices.prices);
        // By how much either state of the group exceeds the better one.
        let (open_over, closed_over) = class.group.map_or((0.0, 0.0), |g| (over[g].max(0.0), (-over[g]).max(0.0)));
        let survives = |&j: &usize| {
            let price = class.price(j, &prices.prices);
            let open = open_over + (price - all);
            let shut = if class.options[j].opens { f64::INFINITY } else { closed_over + (price - closed) };
            open.min(shut) <= gap
        };
        (0..class.options.len()).filter(survives).collect()
    };
    model.classes.iter().map(class).collect()
}

/// Options in classes with a choice.
pub(super) fn size(core: &[Vec<usize>]) -> (usize, usize) {
    let open = || core.iter().filter(|c| c.len() > 1);
    (open().count(), open().map(Vec::len).sum())
}

/// What the integer programme says.
pub(super) enum Verdict {
    /// The best choice in the core.
    Best(Vec<usize>),
    /// The core holds no choice that fits.
    Empty,
    /// Too large, too slow or numerically unclear.
    Unknown,
}

/// The best choice in a core.
pub(super) fn prove(model: &Model, core: &[Vec<usize>]) -> Verdict {
    if core.iter().any(Vec::is_empty) {
        return Verdict::Empty;
    }
    if size(core).1 > OPTIONS {
        return Verdict::Unknown;
    }
    let mut chosen: Vec<usize> = core.iter().map(|c| c[0]).collect();
    // Losses are relative to the first survivor's, costs too: what is fixed leaves the programme.
    let scale = (model.classes.iter().zip(core))
        .flat_map(|(class, c)| c.iter().map(|&j| (class.options[j].loss - class.options[c[0]].loss).abs()))
        .fold(0.0, f64::max)
        .max(f64::MIN_POSITIVE);
    let mut variables = ProblemVariables::new();
    let groups: Vec<Variable> = model.groups.iter().map(|_| variables.add(variable().binary())).collect();
    let picks: Vec<Vec<Variable>> = (core.iter())
        .map(|c| if c.len() > 1 { c.iter().map(|_| variables.add(variable().binary())).collect() } else { Vec::new() })
        .collect();

    let mut objective = Expression::default();
    let mut rows: Vec<Vec<(Variable, f64)>> = vec![Vec::new(); model.rows.len()];
    let mut used: Vec<i64> = vec![0; model.rows.len()];
    let mut links: Vec<Expression> = Vec::new();
    for ((class, c), picks) in model.classes.iter().zip(core).zip(&picks) {
        class.rows.iter().zip(class.costs(c[0])).for_each(|(row, cost)| used[*row] += cost);
        if let Some(g) = class.group {
            let opening = c.iter().zip(picks).filter(|(j, _)| class.options[**j].opens).map(|(_, v)| *v);
            let opening: Vec<Variable> = opening.collect();
            if picks.is_empty() && class.options[c[0]].opens {
                links.push(Expression::from(1.0) - groups[g]);
            } else if !opening.is_empty() {
                links.push(opening.into_iter().sum::<Expression>() - groups[g]);
            }
        }
        for (&j, &pick) in c.iter().zip(picks) {
            objective += (class.options[j].loss - class.options[c[0]].loss) / scale * pick;
            for (row, (cost, first)) in class.rows.iter().zip(class.costs(j).iter().zip(class.costs(c[0]))) {
                rows[*row].push((pick, (cost - first) as f64));
            }
        }
    }
    if let Some(row) = model.open {
        rows[row].extend(groups.iter().zip(&model.groups).map(|(v, c)| (*v, *c as f64)));
    }
    let mut programme = variables.minimise(objective).using(microlp).with_time_limit(SECONDS);
    for picks in picks.iter().filter(|p| !p.is_empty()) {
        programme.add_constraint(constraint!(picks.iter().sum::<Expression>() == 1.0));
    }
    for link in links {
        programme.add_constraint(constraint!(link <= 0.0));
    }
    for ((row, terms), used) in model.rows.iter().zip(rows).zip(used) {
        let left = (row.limit - used) as f64;
        let scale = terms.iter().map(|t| t.1.abs()).fold(0.0, f64::max);
        if scale == 0.0 {
            if left < 0.0 {
                return Verdict::Empty;
            }
            continue;
        }
        let sum: Expression = terms.into_iter().map(|(v, c)| c / scale * v).sum();
        programme.add_constraint(constraint!(sum <= left / scale));
    }
    let solved = match programme.solve() {
        Ok(solved) if matches!(solved.status(), SolutionStatus::Optimal) => solved,
        Err(ResolutionError::Infeasible) => return Verdict::Empty,
        _ => return Verdict::Unknown,
    };
    for ((chosen, c), picks) in chosen.iter_mut().zip(core).zip(&picks) {
        let most = picks.iter().zip(c).max_by(|a, b| solved.value(*a.0).total_cmp(&solved.value(*b.0)));
        *chosen = most.map_or(c[0], |(_, j)| *j);
    }
    if model.fits(&model.usage(&chosen)) { Verdict::Best(chosen) } else { Verdict::Unknown }
}
