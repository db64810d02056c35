//! Beam search: deviations from the Lagrangian's minimum, least reduced cost first.
//!
//! As the list of states of the plain problem, but with a usage per row, so that dominance says
//! little; what counts is the bound. For a row that is over its limit by `e` the classes to come
//! need at least `e · min r/|Δc|`; one with `s` left costs at least `s · min(μ, min r/Δc)` in
//! the end.

use super::super::Sum;
use super::dual::Prices;
use super::model::{Fixed, Model};
use super::primal::allowed;

struct Deviation {
    option: usize,
    reduced: f64,
    /// Change by row of the class.
    costs: Vec<i64>,
}

struct Core {
    class: usize,
    least: f64,
    deviations: Vec<Deviation>,
}

/// What the classes from some rank on can do for one row.
#[derive(Clone, Copy)]
struct Rest {
    save: f64,
    spend: f64,
}

#[derive(Clone, Copy)]
struct State {
    reduced: f64,
    bound: f64,
    node: usize,
    /// Parent among the states before, and deviation, until the usage is made.
    from: usize,
    via: Option<usize>,
}

/// Most classes that are searched.
const CLASSES: usize = 4096;

/// Improves `chosen` by at most `width` states at a time. All groups are decided. `base` minimises
/// the Lagrangian.
pub(super) fn improve(
    model: &Model,
    fixed: &Fixed,
    prices: &Prices,
    base: &[usize],
    chosen: &mut [usize],
    width: usize,
) {
    let mut rows: Vec<usize> = (0..model.rows.len()).collect();
    rows.retain(|r| model.open != Some(*r));
    let usage = model.usage(base);
    let start: Vec<i64> = model.rows.iter().zip(&usage).map(|(row, u)| u - row.limit).collect();
    let price = |over: &[i64]| rows.iter().map(|&r| prices.prices[r] * (-over[r]) as f64).sum::<f64>();
    // What the known solution loses over the Lagrangian.
    let pairs = model.classes.iter().zip(chosen.iter().zip(base));
    let more = Sum::of(pairs.map(|(class, (&a, &b))| class.options[a].loss - class.options[b].loss));
    let mut upper = more + price(&start);

    let mut core = Vec::new();
    for (i, class) in model.classes.iter().enumerate() {
        let at = class.price(base[i], &prices.prices);
        let deviations: Vec<Deviation> = (0..class.options.len())
            .filter(|&j| j != base[i] && allowed(class, j, fixed))
            .filter_map(|j| {
                let reduced = (class.price(j, &prices.prices) - at).max(0.0);
                let costs = || class.costs(j).iter().zip(class.costs(base[i])).map(|(a, b)| a - b).collect();
                (reduced < upper).then(|| Deviation { option: j, reduced, costs: costs() })
            })
            .collect();
        if let Some(least) = deviations.iter().map(|d| d.reduced).reduce(f64::min) {
            core.push(Core { class: i, least, deviations });
        }
    }
    core.sort_by(|a, b| a.least.total_cmp(&b.least));
    core.truncate(CLASSES);
    let n = model.rows.len();
    let rests = rests(model, &core, n);
    // Rows over disjoint classes add up; others may be served by the same deviation.
    let whole: Vec<bool> = rows.iter().map(|&r| counts(model, r) * 2 > model.classes.len()).collect();

    let mut nodes: Vec<(usize, usize, usize)> = Vec::new();
    let mut best = None;
    let mut states = vec![State { reduced: 0.0, bound: 0.0, node: usize::MAX, from: 0, via: None }];
    let mut over = start;
    let (mut next, mut next_over) = (Vec::new(), Vec::new());
    let mut usage = vec![0; n];
    for (rank, c) in core.iter().enumerate() {
        if c.least >= upper || states.is_empty() {
            break;
        }
        let class = &model.classes[c.class];
        let rest = &rests[(rank + 1) * n..(rank + 2) * n];
        let least = core.get(rank + 1).map_or(f64::INFINITY, |c| c.least);
        let mut found = None;
        next.clear();
        for (from, state) in states.iter().enumerate() {
            let own = &over[from * n..(from + 1) * n];
            for via in (0..=c.deviations.len()).map(|v| v.checked_sub(1)) {
                usage.copy_from_slice(own);
                let mut reduced = state.reduced;
                if let Some(v) = via {
                    let d = &c.deviations[v];
                    reduced += d.reduced;
                    class.rows.iter().zip(&d.costs).for_each(|(r, cost)| usage[*r] += cost);
                }
                if reduced >= upper {
                    continue;
                }
                if via.is_some() && rows.iter().all(|&r| usage[r] <= 0) && reduced + price(&usage) < upper {
                    upper = reduced + price(&usage);
                    found = Some((from, via));
                }
                let (mut most, mut sum) = (least, 0.0);
                for (&r, whole) in rows.iter().zip(&whole) {
                    let o = usage[r];
                    let term = match o {
                        0 => 0.0,
                        1.. => o as f64 * rest[r].save,
                        _ => -o as f64 * rest[r].spend.min(prices.prices[r]),
                    };
                    if *whole { most = most.max(term) } else { sum += term }
                }
                let bound = reduced + most.max(sum);
                next.push(State { reduced, bound, node: state.node, from, via });
            }
        }
        if let Some((from, Some(via))) = found {
            nodes.push((states[from].node, rank, via));
            best = Some(nodes.len() - 1);
        }
        next.retain(|s| s.bound < upper);
        if next.len() > width {
            next.select_nth_unstable_by(width, |a, b| {
                a.bound.total_cmp(&b.bound).then(a.from.cmp(&b.from)).then(a.via.cmp(&b.via))
            });
            next.truncate(width);
            next.sort_unstable_by_key(|s| (s.from, s.via));
        }
        next_over.clear();
        for s in &mut next {
            let at = next_over.len();
            next_over.extend_from_slice(&over[s.from * n..(s.from + 1) * n]);
            if let Some(v) = s.via {
                class.rows.iter().zip(&c.deviations[v].costs).for_each(|(r, cost)| next_over[at + r] += cost);
                nodes.push((s.node, rank, v));
                s.node = nodes.len() - 1;
            }
        }
        std::mem::swap(&mut states, &mut next);
        std::mem::swap(&mut over, &mut next_over);
    }
    let Some(best) = best else { return };
    chosen.copy_from_slice(base);
    let mut at = best;
    while let Some(&(before, rank, via)) = nodes.get(at) {
        chosen[core[rank].class] = core[rank].deviations[via].option;
        at = before;
    }
}

/// Number of classes that a row counts.
fn counts(model: &Model, row: usize) -> usize {
    model.classes.iter().filter(|c| c.rows.contains(&row)).count()
}

/// For each rank and row, what the classes from there on can do.
fn rests(model: &Model, core: &[Core], n: usize) -> Vec<Rest> {
    let mut rest = vec![Rest { save: f64::INFINITY, spend: f64::INFINITY }; n];
    let mut rests = vec![rest.clone()];
    for c in core.iter().rev() {
        for d in &c.deviations {
            for (row, cost) in model.classes[c.class].rows.iter().zip(&d.costs) {
                let rate = d.reduced / cost.unsigned_abs() as f64;
                let rest = &mut rest[*row];
                match cost {
                    0 => {}
                    1.. => rest.spend = rest.spend.min(rate),
                    _ => rest.save = rest.save.min(rate),
                }
            }
        }
        rests.push(rest.clone());
    }
    rests.reverse();
    rests.concat()
}
