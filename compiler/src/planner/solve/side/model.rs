//! The problem with side constraints, without dominated options, laid out for pricing.

use std::ops::Range;

use rayon::prelude::*;

use super::super::{Knapsack, MAX_COST};
use super::{Constraint, SideError};

/// Which way a group goes; `None` is undecided.
pub(super) type Fixed = [Option<bool>];

/// One sum that is limited.
pub(super) struct Row {
    pub name: String,
    pub limit: i64,
}

/// A run of classes that are priced together: a group, or classes in none.
pub(super) struct Unit {
    pub classes: Range<usize>,
    pub group: Option<usize>,
}

/// A class with the options that no other dominates in loss, all rows and opening.
pub(super) struct Class {
    /// Rows that its options count in.
    pub rows: Vec<usize>,
    pub options: Vec<Choice>,
    /// Cost by option and row.
    pub costs: Vec<i64>,
    pub group: Option<usize>,
}

/// An option.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    /// Its index in the knapsack.
    pub option: usize,
    pub loss: f64,
    /// Whether it opens the group of its class.
    pub opens: bool,
}

/// The whole problem.
pub(super) struct Model {
    pub classes: Vec<Class>,
    pub rows: Vec<Row>,
    pub units: Vec<Unit>,
    /// Costs of opening the groups.
    pub groups: Vec<i64>,
    /// The row that open groups count in.
    pub open: Option<usize>,
}

impl Class {
    /// Costs of an option, in the order of `rows`.
    pub fn costs(&self, j: usize) -> &[i64] {
        &self.costs[j * self.rows.len()..(j + 1) * self.rows.len()]
    }

    /// Loss plus priced costs.
    pub fn price(&self, j: usize, prices: &[f64]) -> f64 {
        let costs = self.costs(j).iter().zip(&self.rows);
        self.options[j].loss + costs.map(|(c, row)| prices[*row] * *c as f64).sum::<f64>()
    }
}

/// The costs of a sum over part of the classes.
struct Counted<'a> {
    classes: Range<usize>,
    costs: &'a [u64],
}

impl Model {
    /// Checks the constraints and drops dominated options.
    pub fn new(k: &Knapsack, budget: Option<u64>, constraints: &[Constraint]) -> Result<Model, SideError> {
        let malformed = |name: &str, reason| SideError::Malformed { constraint: name.into(), reason };
        let mut rows = Vec::new();
        let mut counted = Vec::new();
        let mut open = None;
        let mut opening = None;
        let bounded = |limit: u64| limit.min(MAX_COST) as i64;
        if let Some(limit) = budget {
            rows.push(Row { name: "budget".into(), limit: bounded(limit) });
            counted.push(Counted { classes: 0..k.classes(), costs: &k.cost });
        }
        for constraint in constraints {
            match constraint {
                Constraint::Sum { name, limit, classes, costs } => {
                    if classes.start > classes.end || classes.end > k.classes() {
                        return Err(malformed(name, "counts classes that there are not"));
                    }
                    if costs.len() != k.starts[classes.end] - k.starts[classes.start] {
                        return Err(malformed(name, "has not one cost per option of its classes"));
                    }
                    rows.push(Row { name: name.clone(), limit: bounded(*limit) });
                    counted.push(Counted { classes: classes.clone(), costs });
                }
                Constraint::Open { name, limit, groups, opens } => {
                    if open.is_some() {
                        return Err(malformed(name, "is a second limit on open groups; only one is supported"));
                    }
                    if opens.len() != k.loss.len() {
                        return Err(malformed(name, "has not one mark per option"));
                    }
                    open = Some(rows.len());
                    rows.push(Row { name: name.clone(), limit: bounded(*limit) });
                    counted.push(Counted { classes: 0..0, costs: &[] });
                    opening = Some((name, groups, opens));
                }
            }
        }
        for (row, c) in rows.iter().zip(&counted) {
            let most = |i: usize| c.of(k, i).and_then(|costs| costs.iter().max()).copied().unwrap_or(0);
            if c.classes.clone().fold(0u64, |sum, i| sum.saturating_add(most(i))) > MAX_COST {
                return Err(malformed(&row.name, "has costs that sum to over 2^53"));
            }
        }

        let mut group_of = vec![None; k.classes()];
        let mut groups = Vec::new();
        if let Some((name, given, _)) = opening {
            for (g, group) in given.iter().enumerate() {
                if group.classes.end > k.classes() {
                    return Err(malformed(name, "groups classes that there are not"));
                }
                for i in group.classes.clone() {
                    if group_of[i].replace(g).is_some() {
                        return Err(malformed(name, "has a class in two groups"));
                    }
                }
                groups.push(bounded(group.cost));
            }
            if given.iter().fold(0u64, |sum, g| sum.saturating_add(g.cost)) > MAX_COST {
                return Err(malformed(name, "has costs that sum to over 2^53"));
            }
        }
        let marks = opening.map(|(_, _, opens)| opens.as_slice());
        let class = |i: usize| class(k, i, &counted, group_of[i], marks);
        let classes: Vec<Class> = (0..k.classes()).into_par_iter().with_min_len(64).map(class).collect();
        let units = units(&group_of);
        Ok(Model { classes, rows, units, groups, open })
    }

    /// What a choice (indices into `Class::options`) counts, by row.
    pub fn usage(&self, chosen: &[usize]) -> Vec<i64> {
        let mut usage = vec![0; self.rows.len()];
        let mut opened = vec![false; self.groups.len()];
        for (class, &j) in self.classes.iter().zip(chosen) {
            class.rows.iter().zip(class.costs(j)).for_each(|(row, c)| usage[*row] += c);
            if let Some(g) = class.group {
                opened[g] |= class.options[j].opens;
            }
        }
        if let Some(row) = self.open {
            usage[row] += opened.iter().zip(&self.groups).filter(|(o, _)| **o).map(|(_, c)| c).sum::<i64>();
        }
        usage
    }

    /// Whether a choice keeps all limits.
    pub fn fits(&self, usage: &[i64]) -> bool {
        usage.iter().zip(&self.rows).all(|(u, row)| *u <= row.limit)
    }

    /// Groups that some class opens whatever it chooses.
    pub fn forced(&self) -> Vec<Option<bool>> {
        let mut fixed = vec![None; self.groups.len()];
        for class in &self.classes {
            if let Some(g) = class.group.filter(|_| class.options.iter().all(|o| o.opens)) {
                fixed[g] = Some(true);
            }
        }
        fixed
    }

    /// The first constraint that cannot be met, even by itself.
    pub fn refuse(&self) -> Result<(), SideError> {
        for (r, row) in self.rows.iter().enumerate() {
            let least = if self.open == Some(r) {
                self.forced().iter().zip(&self.groups).filter(|(f, _)| f.is_some()).map(|(_, c)| *c).sum()
            } else {
                let least = |c: &Class| {
                    let at = c.rows.iter().position(|x| *x == r)?;
                    c.costs.iter().skip(at).step_by(c.rows.len()).min().copied()
                };
                self.classes.iter().filter_map(least).sum::<i64>()
            };
            if least > row.limit {
                let (least, limit) = (least as u64, row.limit as u64);
                return Err(SideError::Infeasible { constraint: row.name.clone(), least, limit });
            }
        }
        Ok(())
    }
}

impl<'a> Counted<'a> {
    /// The costs of a class's options, if it is counted.
    fn of(&self, k: &Knapsack, class: usize) -> Option<&'a [u64]> {
        let first = k.starts[self.classes.start];
        self.classes.contains(&class).then(|| &self.costs[k.starts[class] - first..k.starts[class + 1] - first])
    }
}

fn class(k: &Knapsack, i: usize, counted: &[Counted], group: Option<usize>, marks: Option<&[bool]>) -> Class {
    let (loss, _) = k.class(i);
    let costs: Vec<(usize, &[u64])> =
        counted.iter().enumerate().filter_map(|(r, c)| c.of(k, i).map(|costs| (r, costs))).collect();
    let opens = |j: usize| group.is_some() && marks.is_some_and(|m| m[k.starts[i] + j]);
    // Ordered by loss, an option is dominated by an earlier one or not at all.
    let mut order: Vec<usize> = (0..loss.len()).collect();
    let key = |j: usize| costs.iter().map(move |(_, c)| c[j]);
    order.sort_by(|&a, &b| {
        (loss[a] + 0.0)
            .total_cmp(&(loss[b] + 0.0))
            .then_with(|| key(a).cmp(key(b)))
            .then(opens(a).cmp(&opens(b)))
            .then(a.cmp(&b))
    });
    let mut kept: Vec<usize> = Vec::new();
    for j in order {
        let dominated = |&a: &usize| opens(a) <= opens(j) && costs.iter().all(|(_, c)| c[a] <= c[j]);
        if !kept.iter().any(dominated) {
            kept.push(j);
        }
    }
    Class {
        rows: costs.iter().map(|(r, _)| *r).collect(),
        costs: kept.iter().flat_map(|&j| costs.iter().map(move |(_, c)| c[j] as i64)).collect(),
        options: kept.iter().map(|&j| Choice { option: j, loss: loss[j], opens: opens(j) }).collect(),
        group,
    }
}

/// Runs of classes of one group, or of at most 512 in none.
fn units(group_of: &[Option<usize>]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (i, &group) in group_of.iter().enumerate() {
        match units.last_mut() {
            Some(unit) if unit.group == group && (group.is_some() || unit.classes.len() < 512) => {
                unit.classes.end = i + 1;
            }
            _ => units.push(Unit { classes: i..i + 1, group }),
        }
    }
    units
}
