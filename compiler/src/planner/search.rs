//! The way to a plan: from losses and prices to blocks, step by step, with everything measured.

use bcc_ir::Block;

use super::budget::Budget;
use super::price::{Costs, Pricer, in_words, limit};
use super::solve::{Constraint, Knapsack, OpenGroup, SideError, Solution, SolveError, optimal, solve, solve_with};
use super::target::Layer;
use super::{Cap, Losses, Outcome, Planner, PlannerError, Tried};

/// How often a plan is compiled anew until its exact cost meets the budget.
const COMPILATIONS: usize = 6;

impl Planner<'_> {
    /// The best plan within all budgets.
    ///
    /// # Errors
    /// Budgets that cannot be met, or a network that does not compile.
    pub fn plan(&mut self, budgets: &[Budget]) -> Result<Outcome, PlannerError> {
        let (imported, template, targets) = (self.imported, self.template.clone(), self.targets.clone());
        let base = self.pins.base();
        self.progress.stage("compile", 0);
        let model_of_time = (self.settings.rates.clone(), self.settings.network.clone());
        let (mut pricer, costs) = Pricer::new(imported, &template, &targets, model_of_time, &base)?;
        let first = match &self.first {
            Some(losses) => losses.clone(),
            None => {
                let losses = self.losses(&self.base, &base)?;
                self.first.insert(losses).clone()
            }
        };
        let fits = |c: &Costs| budgets.iter().all(|b| c.of(b) <= limit(b, &targets));
        if budgets.is_empty() || (fits(&costs) && self.pins.0.iter().all(Option::is_none) && self.settings.caps.is_empty()) {
            // Nothing has to go.
            let tried = Tried { how: "every ReLU".into(), predicted: 0.0, measured: 0.0, uncorrected: 0.0, gap: 0.0 };
            return Ok(self.outcome(&pricer, &base, costs, tried, Vec::new(), &first, budgets));
        }

        let mut all: Vec<(Vec<Block>, Costs, Tried)> = Vec::new();
        let steps = self.settings.refine;
        let (blocks, costs, solution) = self.within(&mut pricer, &first, &base, budgets, true)?;
        let predicted = first.around + solution.loss;
        let one_shot = self.tried("one shot", &blocks, predicted, solution.gap());
        all.push((blocks, costs, one_shot));
        let mut present = base.clone();
        let mut graph = self.base.clone();
        for step in 1..=steps {
            // Parts of the budget in equal ratios; the first step's losses are known already.
            let part = step as f64 / (steps as f64 + 1.0).max(1.0);
            let losses = if step == 1 { first.clone() } else { self.losses(&graph, &present)? };
            let partial: Vec<(Budget, u64)> = budgets.iter().map(|b| (*b, self.interim(&pricer, b, &base, part))).collect();
            let solution = self.choose(&pricer, &losses, &present, &partial)?;
            present = self.blocks(&solution);
            graph = self.network(&present, self.settings.correct);
            let losses = self.losses(&graph, &present)?;
            let (blocks, costs, solution) = self.within(&mut pricer, &losses, &present, budgets, false)?;
            let predicted = losses.around + solution.loss;
            let how = format!("refined {step}");
            if !all.iter().any(|(b, ..)| *b == blocks) {
                let tried = self.tried(&how, &blocks, predicted, solution.gap());
                all.push((blocks, costs, tried));
            }
        }
        let tried: Vec<Tried> = all.iter().map(|(_, _, t)| t.clone()).collect();
        let best = (0..all.len()).min_by(|a, b| all[*a].2.measured.total_cmp(&all[*b].2.measured)).unwrap_or(0);
        let (blocks, costs, best) = all.swap_remove(best);
        Ok(self.outcome(&pricer, &blocks, costs, best, tried, &first, budgets))
    }

    /// The most finely divided uniform plan within the budgets: one rectangle for all channels.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn uniform(&mut self, budgets: &[Budget]) -> Result<Outcome, PlannerError> {
        let (imported, template, targets) = (self.imported, self.template.clone(), self.targets.clone());
        let base = self.pins.base();
        let model_of_time = (self.settings.rates.clone(), self.settings.network.clone());
        let (pricer, _) = Pricer::new(imported, &template, &targets, model_of_time, &base)?;
        let largest = targets.layers.iter().map(|l| l.map[0].max(l.map[1])).max().unwrap_or(1);
        for side in 1..=largest {
            for (h, w) in [(side, side), (side, side + 1)] {
                let block = Block::Patch { h, w };
                let blocks: Vec<Block> = self.pins.0.iter().map(|p| p.unwrap_or(block)).collect();
                let by_count = budgets.iter().all(|b| match b {
                    Budget::Share(_) | Budget::Drelus(_) => targets.drelus_of(&blocks) <= limit(b, &targets),
                    _ => true,
                });
                if !by_count {
                    continue;
                }
                let costs = pricer.costs(&pricer.compile(&blocks, self.settings.correct)?, &blocks);
                if budgets.iter().all(|b| costs.of(b) <= limit(b, &targets)) {
                    let tried = self.tried(&format!("uniform {block}"), &blocks, f64::NAN, 0.0);
                    let none = Losses { by_choice: vec![0.0; targets.options()], error: 0.0, around: 0.0 };
                    return Ok(self.outcome(&pricer, &blocks, costs, tried.clone(), vec![tried], &none, budgets));
                }
            }
        }
        Err(PlannerError::Limits("no uniform block meets these budgets: the least possible is one block per channel".into()))
    }

    /// Runs a plan on the calibration images, with and without correction.
    fn tried(&self, how: &str, blocks: &[Block], predicted: f64, gap: f64) -> Tried {
        let uncorrected = self.measure(&self.network(blocks, None));
        let measured = match self.settings.correct {
            Some(c) => self.measure(&self.network(blocks, Some(c))),
            None => uncorrected,
        };
        Tried { how: how.into(), predicted, measured, uncorrected, gap }
    }

    /// A limit on the way from the base to a budget, in the solver's unit of prices.
    fn interim(&self, pricer: &Pricer<'_>, budget: &Budget, base: &[Block], part: f64) -> u64 {
        let start = pricer.total(budget, base) as f64;
        let least = self.least(pricer, budget) as f64;
        let most = limit(budget, &self.targets) as f64;
        let ratio = ((most - least) / (start - least).max(1.0)).clamp(1e-3, 1.0);
        (least + (start - least) * ratio.powf(part)).ceil() as u64
    }

    /// Sum of the least prices.
    fn least(&self, pricer: &Pricer<'_>, budget: &Budget) -> u64 {
        let each = |(i, l): (usize, &Layer)| -> u64 {
            let cheapest = l.menu.iter().map(|b| pricer.price(budget, i, *b)).min().unwrap_or(0);
            l.classes().map(|c| self.pins.0[c].map_or(cheapest, |b| pricer.price(budget, i, b))).sum()
        };
        self.targets.layers.iter().enumerate().map(each).sum()
    }

    /// Blocks whose exact costs are within the budgets, with the solver's answer they come from.
    fn within(
        &self,
        pricer: &mut Pricer<'_>,
        losses: &Losses,
        present: &[Block],
        budgets: &[Budget],
        report: bool,
    ) -> Result<(Vec<Block>, Costs, Solution), PlannerError> {
        let mut best: Option<(Vec<Block>, Costs, Solution)> = None;
        // What the exact costs of a plan have beside its prices; signed.
        let mut beside: Vec<i128> = budgets.iter().map(|_| 0).collect();
        let counts_only = budgets.iter().all(|b| matches!(b, Budget::Share(_) | Budget::Drelus(_)));
        if !counts_only {
            let compiled = pricer.compile(present, self.settings.correct)?;
            let costs = pricer.learn(&compiled, present);
            for (x, b) in beside.iter_mut().zip(budgets) {
                *x = i128::from(costs.of(b)) - i128::from(pricer.total(b, present));
            }
        }
        for _ in 0..COMPILATIONS {
            let mut limits = Vec::with_capacity(budgets.len());
            for (b, x) in budgets.iter().zip(&beside) {
                let left = i128::from(limit(b, &self.targets)) - x;
                let least = i128::from(self.least(pricer, b));
                if left < least && best.is_none() {
                    return Err(self.infeasible(pricer, b, (least + x).max(0) as u64));
                }
                limits.push((*b, left.max(least) as u64));
            }
            let solution = self.choose(pricer, losses, present, &limits)?;
            let blocks = self.blocks(&solution);
            if report {
                self.progress.stage("compile", 0);
            }
            let compiled = pricer.compile(&blocks, self.settings.correct)?;
            let costs = pricer.learn(&compiled, &blocks);
            let fits = budgets.iter().all(|b| costs.of(b) <= limit(b, &self.targets));
            let same = best.as_ref().is_some_and(|(b, ..)| *b == blocks);
            let better = fits && best.as_ref().is_none_or(|(_, _, s)| solution.loss < s.loss);
            // Prices follow the windows of the latest plan: its own cost is what counts now.
            for (x, b) in beside.iter_mut().zip(budgets) {
                *x = i128::from(costs.of(b)) - i128::from(pricer.total(b, &blocks));
            }
            if better {
                best = Some((blocks, costs, solution));
            }
            if counts_only || same || (fits && !better) {
                break;
            }
        }
        best.ok_or_else(|| {
            PlannerError::Limits(
                "no plan was found whose compiled program meets the budgets; raise them a little".into(),
            )
        })
    }

    fn infeasible(&self, pricer: &Pricer<'_>, budget: &Budget, least: u64) -> PlannerError {
        let mut because = String::new();
        let decided = self.least(pricer, budget);
        if least > decided && !matches!(budget, Budget::Share(_) | Budget::Drelus(_)) {
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
    fn choose(
        &self,
        pricer: &Pricer<'_>,
        losses: &Losses,
        present: &[Block],
        limits: &[(Budget, u64)],
    ) -> Result<Solution, PlannerError> {
        self.progress.stage("solve", 0);
        let lists: Vec<Vec<Vec<u64>>> = limits.iter().map(|(b, _)| self.price_lists(pricer, b)).collect();
        let mut knapsack = Knapsack::new();
        for (i, layer) in self.targets.layers.iter().enumerate() {
            for channel in 0..layer.channels {
                let class = layer.first_class + channel;
                let price = |j: usize| lists.first().map_or(0, |l| l[i][j]);
                match self.pins.0[class] {
                    // A pinned block stands in the present network: it changes nothing.
                    Some(block) => {
                        let price = limits.first().map_or(0, |(b, _)| pricer.price(b, i, block));
                        knapsack.push([(0.0, price)]);
                    }
                    None => {
                        let loss = &losses.by_choice[layer.choices(channel)];
                        knapsack.push(loss.iter().enumerate().map(|(j, l)| (*l, price(j))));
                    }
                }
            }
        }
        let solved = if limits.len() == 1 && self.settings.caps.is_empty() {
            match self.settings.optimal {
                true => optimal(&knapsack, limits[0].1, &mut |_| ()),
                false => solve(&knapsack, limits[0].1),
            }
            .map_err(|e| self.unsolved(pricer, e, limits))?
        } else {
            let constraints = self.constraints(pricer, limits, &lists);
            let budget = limits.first().map(|l| l.1);
            solve_with(&knapsack, budget, &constraints, &mut |_| ()).map_err(|e| match e {
                SideError::Knapsack(e) => self.unsolved(pricer, e, limits),
                other => PlannerError::Limits(other.to_string()),
            })?
        };
        Ok(solved)
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
    fn constraints(&self, pricer: &Pricer<'_>, limits: &[(Budget, u64)], lists: &[Vec<Vec<u64>>]) -> Vec<Constraint> {
        let targets = &self.targets;
        // Something of every choice, in the order in which the knapsack has them.
        let flat = |layers: &[usize], of: &dyn Fn(usize, Block) -> u64, listed: Option<&Vec<Vec<u64>>>| -> Vec<u64> {
            let mut costs = Vec::new();
            for &i in layers {
                let layer = &targets.layers[i];
                for class in layer.classes() {
                    match (self.pins.0[class], listed) {
                        (Some(block), _) => costs.push(of(i, block)),
                        (None, Some(list)) => costs.extend_from_slice(&list[i]),
                        (None, None) => costs.extend(layer.menu.iter().map(|b| of(i, *b))),
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
    fn blocks(&self, solution: &Solution) -> Vec<Block> {
        let mut blocks = Vec::with_capacity(self.targets.classes());
        for layer in &self.targets.layers {
            for class in layer.classes() {
                blocks.push(self.pins.0[class].unwrap_or_else(|| layer.menu[solution.chosen[class]]));
            }
        }
        blocks
    }

    #[allow(clippy::too_many_arguments)]
    fn outcome(
        &self,
        pricer: &Pricer<'_>,
        blocks: &[Block],
        costs: Costs,
        best: Tried,
        tried: Vec<Tried>,
        losses: &Losses,
        budgets: &[Budget],
    ) -> Outcome {
        let mut plan = pricer.plan(blocks);
        plan.correct = self.settings.correct;
        let layer_losses = self.targets.layers.iter().map(|l| layer_loss(l, blocks, losses)).collect();
        let limits = budgets.iter().map(|b| self.describe(pricer, b, blocks, &costs)).collect();
        Outcome { plan, blocks: blocks.to_vec(), costs, best, error: losses.error, tried, layer_losses, limits }
    }

    /// What takes up a budget, in a sentence.
    fn describe(&self, pricer: &Pricer<'_>, budget: &Budget, blocks: &[Block], costs: &Costs) -> String {
        let (used, most) = (costs.of(budget), limit(budget, &self.targets));
        let mut text = format!("{budget}: {} used of {}", in_words(budget, used), in_words(budget, most));
        let chosen = pricer.total(budget, blocks);
        if !matches!(budget, Budget::Share(_) | Budget::Drelus(_)) {
            let fixed = used.saturating_sub(chosen);
            text += &format!(
                "; {} depend on the blocks, {} do not (inputs, results of linear layers, maximum pools, headers)",
                in_words(budget, chosen),
                in_words(budget, fixed)
            );
        }
        let least = self.least(pricer, budget);
        text += &format!("; the cheapest choice of blocks takes {}", in_words(budget, least));
        text
    }
}

fn layer_loss(layer: &Layer, blocks: &[Block], losses: &Losses) -> f64 {
    let of = |channel: usize| {
        let block = blocks[layer.first_class + channel];
        let choice = layer.menu.iter().position(|b| *b == block)?;
        Some(losses.by_choice[layer.choices(channel).start + choice])
    };
    (0..layer.channels).filter_map(of).sum()
}
