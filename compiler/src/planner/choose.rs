//! One call of the solver: losses and prices in, blocks out, or why there are none.

use bcc_ir::Block;

use super::budget::Budget;
use super::price::{Pricer, in_words};
use super::solve::{Constraint, Knapsack, OpenGroup, SideError, Solution, SolveError, optimal, solve, solve_with};
use super::target::Layer;
use super::{Cap, Losses, Planner, PlannerError};

impl Planner<'_> {
    /// Sum of the least prices.
    pub(super) fn least(&self, pricer: &Pricer<'_>, budget: &Budget) -> u64 {
        let each = |(i, l): (usize, &Layer)| -> u64 {
            let cheapest = l.menu.iter().map(|b| pricer.price(budget, i, *b)).min().unwrap_or(0);
            l.classes().map(|c| self.pins.0[c].map_or(cheapest, |b| pricer.price(budget, i, b))).sum()
        };
        self.targets.layers.iter().enumerate().map(each).sum()
    }

    pub(super) fn infeasible(&self, pricer: &Pricer<'_>, budget: &Budget, least: u64) -> PlannerError {
        let mut because = String::new();
        let decided = self.least(pricer, budget);
        if least > decided && !budget.counts_signs() {
            because += &format!(", of which {} are no choice of blocks", in_words(budget, least - decided));
        }
        let pinned: Vec<(String, u64)> = self
            .targets
            .layers
            .iter()
            .enumerate()
            .map(|(i, l)| {
                let own: u64 = l.classes().filter_map(|c| self.pins.0[c]).map(|b| pricer.price(budget, i, b)).sum();
                (l.name.clone(), own)
            })
            .filter(|(_, own)| *own > 0)
            .collect();
        if !pinned.is_empty() {
            let list: Vec<String> =
                pinned.iter().map(|(n, own)| format!("\"{n}\" ({})", in_words(budget, *own))).collect();
            because += &format!(", and pins take {}", list.join(", "));
        }
        let or_pins = if pinned.is_empty() { "" } else { ", loosen these pins" };
        PlannerError::Infeasible { budget: budget.to_string(), least: in_words(budget, least), because, or_pins }
    }

    /// The solver's choice within limits on prices.
    pub(super) fn choose(
        &self,
        pricer: &Pricer<'_>,
        losses: &Losses,
        limits: &[(Budget, u64)],
    ) -> Result<Solution, PlannerError> {
        self.progress.stage("solve", 0);
        let lists: Vec<Vec<Vec<u64>>> = limits.iter().map(|(b, _)| self.price_lists(pricer, b)).collect();
        let offered = self.offered(pricer, losses);
        let mut knapsack = Knapsack::new();
        for (i, layer) in self.targets.layers.iter().enumerate() {
            for channel in 0..layer.channels {
                match self.pins.0[layer.first_class + channel] {
                    // A pinned block stands in the present network: it changes nothing.
                    Some(block) => {
                        let price = limits.first().map_or(0, |(b, _)| pricer.price(b, i, block));
                        knapsack.push([(0.0, price)]);
                    }
                    None => {
                        let first = layer.choices(channel).start;
                        let price = |j: usize| lists.first().map_or(0, |l| l[i][j]);
                        let option = |&j: &usize| (losses.powered(first + j), price(j));
                        knapsack.push(offered[layer.first_class + channel].iter().map(option));
                    }
                }
            }
        }
        let mut solved = if limits.len() == 1 && self.settings.caps.is_empty() {
            match self.settings.optimal {
                true => optimal(&knapsack, limits[0].1, &mut |_| ()),
                false => solve(&knapsack, limits[0].1),
            }
            .map_err(|e| self.unsolved(pricer, e, limits))?
        } else {
            let constraints = self.constraints(pricer, limits, &lists, &offered);
            let budget = limits.first().map(|l| l.1);
            solve_with(&knapsack, budget, &constraints, &mut |_| ()).map_err(|e| match e {
                SideError::Knapsack(e) => self.unsolved(pricer, e, limits),
                other => PlannerError::Limits(other.to_string()),
            })?
        };
        for (chosen, offered) in solved.chosen.iter_mut().zip(&offered) {
            *chosen = offered[*chosen];
        }
        Ok(solved)
    }

    /// Choices of every class: those with room in the ring, or all where none has. A pinned class has
    /// one, whose number means nothing.
    fn offered(&self, pricer: &Pricer<'_>, losses: &Losses) -> Vec<Vec<usize>> {
        let mut offered = Vec::with_capacity(self.targets.classes());
        for layer in &self.targets.layers {
            for channel in 0..layer.channels {
                let first = layer.choices(channel).start;
                let room = |j: &usize| losses.largest.get(first + j).is_none_or(|s| pricer.has_room(*s));
                let all = 0..layer.menu.len();
                let some: Vec<usize> = all.clone().filter(room).collect();
                offered.push(match (self.pins.0[layer.first_class + channel], some.is_empty()) {
                    (Some(_), _) => vec![0],
                    (None, true) => all.collect(),
                    (None, false) => some,
                });
            }
        }
        offered
    }

    fn unsolved(&self, pricer: &Pricer<'_>, e: SolveError, limits: &[(Budget, u64)]) -> PlannerError {
        match (e, limits.first()) {
            (SolveError::Infeasible { least, .. }, Some((budget, _))) => self.infeasible(pricer, budget, least),
            (other, _) => PlannerError::Limits(other.to_string()),
        }
    }

    /// Prices by layer and choice.
    fn price_lists(&self, pricer: &Pricer<'_>, budget: &Budget) -> Vec<Vec<u64>> {
        let of = |(i, l): (usize, &Layer)| l.menu.iter().map(|b| pricer.price(budget, i, *b)).collect();
        self.targets.layers.iter().enumerate().map(of).collect()
    }

    /// Constraints beside the first budget.
    fn constraints(
        &self,
        pricer: &Pricer<'_>,
        limits: &[(Budget, u64)],
        lists: &[Vec<Vec<u64>>],
        offered: &[Vec<usize>],
    ) -> Vec<Constraint> {
        let targets = &self.targets;
        // Something of every choice, in the order in which the knapsack has them.
        let flat = |layers: &[usize], of: &dyn Fn(usize, Block) -> u64, listed: Option<&Vec<Vec<u64>>>| -> Vec<u64> {
            let mut costs = Vec::new();
            for &i in layers {
                let layer = &targets.layers[i];
                for class in layer.classes() {
                    match (self.pins.0[class], listed) {
                        (Some(block), _) => costs.push(of(i, block)),
                        (None, Some(list)) => costs.extend(offered[class].iter().map(|j| list[i][*j])),
                        (None, None) => costs.extend(offered[class].iter().map(|j| of(i, layer.menu[*j]))),
                    }
                }
            }
            costs
        };
        let all: Vec<usize> = (0..targets.layers.len()).collect();
        let mut constraints: Vec<Constraint> = limits
            .iter()
            .zip(lists)
            .skip(1)
            .map(|((budget, most), list)| Constraint::Sum {
                name: budget.to_string(),
                limit: *most,
                classes: 0..targets.classes(),
                costs: flat(&all, &|i, b| pricer.price(budget, i, b), Some(list)),
            })
            .collect();
        let drelus = |i: usize, b: Block| {
            let [h, w] = targets.layers[i].map;
            b.drelus(h, w) as u64
        };
        for cap in &self.settings.caps {
            match cap {
                Cap::Layer { layer, drelus: most } => {
                    let found = targets.layers.iter().position(|l| l.name == *layer);
                    let Some(i) = found else { continue };
                    constraints.push(Constraint::Sum {
                        name: format!("--cap {layer}"),
                        limit: *most,
                        classes: targets.layers[i].classes(),
                        costs: flat(&[i], &drelus, None),
                    });
                }
                Cap::Rounds(most) => constraints.push(Constraint::Open {
                    name: "--max-rounds".into(),
                    limit: *most,
                    groups: all
                        .iter()
                        .map(|&i| OpenGroup { classes: targets.layers[i].classes(), cost: pricer.rounds(i) })
                        .collect(),
                    opens: flat(&all, &|i, b| drelus(i, b), None).into_iter().map(|n| n > 0).collect(),
                }),
            }
        }
        constraints
    }

    /// The blocks of a solution by class.
    pub(super) fn blocks(&self, solution: &Solution) -> Vec<Block> {
        let mut blocks = Vec::with_capacity(self.targets.classes());
        for layer in &self.targets.layers {
            for class in layer.classes() {
                blocks.push(self.pins.0[class].unwrap_or_else(|| layer.menu[solution.chosen[class]]));
            }
        }
        blocks
    }
}
