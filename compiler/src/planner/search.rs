//! The way to a plan: from losses and prices to blocks, step by step, with everything measured.

use bcc_ir::Block;

use super::budget::Budget;
use super::price::{Costs, Pricer, in_words, limit};
use super::solve::{Constraint, Knapsack, OpenGroup, SideError, Solution, SolveError, optimal, solve, solve_with};
use super::target::Layer;
use super::{Cap, Losses, Method, Outcome, Planner, PlannerError, Tried};
use crate::compile::CompileError;
use crate::passes::PassError;
use crate::plan::Plan;
use crate::report::Report;

/// Powers of the fast losses that compete in the first plan. First order is too kind to large losses:
/// they leave the range where the network is nearly linear, and add up. A power above 1 spreads
/// them over more channels. Correction brings the network back into that range; then the first is
/// enough.
const POWERS: [f64; 2] = [1.0, 1.5];
/// How often a plan is compiled anew until its exact cost meets the budget.
const COMPILATIONS: usize = 8;

impl Planner<'_> {
    /// The best plan within all budgets.
    ///
    /// # Errors
    /// Budgets that cannot be met, or a network that does not compile.
    pub fn plan(&mut self, budgets: &[Budget]) -> Result<Outcome, PlannerError> {
        let targets = self.targets.clone();
        let base = self.pins.base();
        self.progress.stage("compile", 0);
        let mut pricer = self.pricer();
        let compiled = pricer.compile(&base, None)?;
        let costs = pricer.learn(&compiled, &base);
        drop(compiled);
        let first = match &self.first {
            Some(losses) => losses.clone(),
            None => {
                let losses = self.losses(&self.base, &base)?;
                self.first.insert(losses).clone()
            }
        };
        let fits = |c: &Costs| budgets.iter().all(|b| c.of(b) <= limit(b, &targets));
        if budgets.is_empty()
            || (fits(&costs) && self.pins.0.iter().all(Option::is_none) && self.settings.caps.is_empty())
        {
            // Nothing has to go.
            let tried = Tried { how: "every ReLU".into(), predicted: 0.0, measured: 0.0, uncorrected: 0.0, gap: 0.0 };
            return self.outcome(&mut pricer, &base, tried, Vec::new(), &first, budgets);
        }

        let mut all: Vec<(Vec<Block>, Costs, Tried)> = Vec::new();
        let power = self.first_plan(&mut pricer, &first, budgets, costs.ring, &mut all)?;
        let mut present = base.clone();
        let mut graph = self.base.clone();
        for step in 1..=self.settings.refine {
            // Parts of the budget in equal ratios, the last being one step short of the whole.
            let part = step as f64 / (self.settings.refine as f64 + 1.0);
            let losses = if step == 1 { first.clone() } else { self.losses(&graph, &present)? };
            let losses = Losses { power, ..losses };
            let partial: Vec<(Budget, u64)> =
                budgets.iter().map(|b| (*b, self.interim(&pricer, b, &base, part))).collect();
            present = self.blocks(&self.choose(&pricer, &losses, &partial)?);
            graph = self.network(&present, self.settings.correct);
            let losses = Losses { power, ..self.losses(&graph, &present)? };
            let (blocks, costs, solution) = self.within(&mut pricer, &losses, &present, budgets)?;
            if !all.iter().any(|(b, ..)| *b == blocks) {
                let tried =
                    self.tried(&format!("refined {step}"), &blocks, self.predicted(&losses, &blocks), &solution);
                all.push((blocks, costs, tried));
            }
        }
        let tried: Vec<Tried> = all.iter().map(|(_, _, t)| t.clone()).collect();
        let best = (0..all.len()).min_by(|a, b| all[*a].2.measured.total_cmp(&all[*b].2.measured)).unwrap_or(0);
        let (blocks, _, best) = all.swap_remove(best);
        self.outcome(&mut pricer, &blocks, best, tried, &first, budgets)
    }

    /// Plans from the first losses, by power and ring; the power of the best, whose ring is set.
    ///
    /// Large blocks may need a wider ring, in which everything costs more: where bytes or time are
    /// limited and no ring is asked for, the ring of the network with all ReLUs, which leaves large
    /// blocks out, competes with rings that have room for all.
    fn first_plan(
        &self,
        pricer: &mut Pricer<'_>,
        first: &Losses,
        budgets: &[Budget],
        narrow: u8,
        all: &mut Vec<(Vec<Block>, Costs, Tried)>,
    ) -> Result<f64, PlannerError> {
        let base = self.pins.base();
        let asked = self.template.passes.ring;
        let counts_only = budgets.iter().all(|b| matches!(b, Budget::Share(_) | Budget::Drelus(_)));
        let rings = if asked.is_some() || counts_only { vec![asked] } else { vec![Some(narrow), None] };
        let several = self.settings.method == Method::Fast && self.settings.correct.is_none();
        let powers = if several { &POWERS[..] } else { &POWERS[..1] };
        let mut best: Option<(Option<u8>, f64, f64)> = None;
        let mut failed = None;
        for (ring, power) in rings.iter().flat_map(|r| powers.iter().map(move |p| (*r, *p))) {
            pricer.set_ring(ring);
            let losses = Losses { power, ..first.clone() };
            let (blocks, costs, solution) = match self.within(pricer, &losses, &base, budgets) {
                Ok(found) => found,
                Err(e) => {
                    failed = failed.or(Some(e));
                    continue;
                }
            };
            if all.iter().any(|(b, ..)| *b == blocks) {
                continue;
            }
            let mut how = "one shot".to_string();
            if power != 1.0 {
                how += &format!(", power {power}");
            }
            if rings.len() > 1 {
                how += &format!(", ring {}", costs.ring);
            }
            let tried = self.tried(&how, &blocks, self.predicted(&losses, &blocks), &solution);
            if best.is_none_or(|(.., measured)| tried.measured < measured) {
                best = Some((ring, power, tried.measured));
            }
            all.push((blocks, costs, tried));
        }
        match (best, failed) {
            (Some((ring, power, _)), _) => {
                pricer.set_ring(ring);
                Ok(power)
            }
            (None, Some(e)) => Err(e),
            (None, None) => Err(PlannerError::Limits("no plan was found".into())),
        }
    }

    /// Mean squared error that losses predict for blocks.
    fn predicted(&self, losses: &Losses, blocks: &[Block]) -> f64 {
        losses.around + self.targets.layers.iter().map(|l| layer_loss(l, blocks, losses)).sum::<f64>()
    }

    /// The most finely divided uniform plan within the budgets: one rectangle for all channels.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn uniform(&mut self, budgets: &[Budget]) -> Result<Outcome, PlannerError> {
        let targets = self.targets.clone();
        let mut pricer = self.pricer();
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
                    let none = Solution { chosen: Vec::new(), loss: 0.0, cost: 0, bound: 0.0 };
                    let tried = self.tried(&format!("uniform {block}"), &blocks, f64::NAN, &none);
                    let none = Losses {
                        by_choice: vec![0.0; targets.options()],
                        error: 0.0,
                        around: 0.0,
                        largest: Vec::new(),
                        power: 1.0,
                    };
                    return self.outcome(&mut pricer, &blocks, tried.clone(), vec![tried], &none, budgets);
                }
            }
        }
        Err(PlannerError::Limits(
            "no uniform block meets these budgets: the least possible is one block per channel".into(),
        ))
    }

    /// Runs a plan on the calibration images, with and without correction.
    fn tried(&self, how: &str, blocks: &[Block], predicted: f64, solution: &Solution) -> Tried {
        let uncorrected = self.measure(&self.network(blocks, None));
        let measured = match self.settings.correct {
            Some(c) => self.measure(&self.network(blocks, Some(c))),
            None => uncorrected,
        };
        Tried { how: how.into(), predicted, measured, uncorrected, gap: solution.gap() }
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
    /// Losses are around a network with the blocks `present`.
    fn within(
        &self,
        pricer: &mut Pricer<'_>,
        losses: &Losses,
        present: &[Block],
        budgets: &[Budget],
    ) -> Result<(Vec<Block>, Costs, Solution), PlannerError> {
        let counts_only = budgets.iter().all(|b| matches!(b, Budget::Share(_) | Budget::Drelus(_)));
        let mut best: Option<(Vec<Block>, Costs, Solution)> = None;
        // What the exact cost of a plan has beside its prices; signed.
        let mut beside: Vec<i128> = vec![0; budgets.len()];
        let learn = |pricer: &mut Pricer<'_>, blocks: &[Block], correct| -> Result<(Costs, Vec<i128>), PlannerError> {
            self.progress.stage("compile", 0);
            let compiled = pricer.compile(blocks, correct)?;
            let costs = pricer.learn(&compiled, blocks);
            let beside = |b: &Budget| i128::from(costs.of(b)) - i128::from(pricer.total(b, blocks));
            let beside = budgets.iter().map(beside).collect();
            Ok((costs, beside))
        };
        if !counts_only {
            beside = learn(pricer, present, None)?.1;
        }
        for round in 1..=COMPILATIONS {
            let mut limits = Vec::with_capacity(budgets.len());
            for (b, x) in budgets.iter().zip(&beside) {
                let left = i128::from(limit(b, &self.targets)) - x;
                let least = i128::from(self.least(pricer, b));
                if left < least && round == 1 {
                    return Err(self.infeasible(pricer, b, (least + x).max(0) as u64));
                }
                limits.push((*b, left.max(least) as u64));
            }
            let solution = self.choose(pricer, losses, &limits)?;
            let blocks = self.blocks(&solution);
            if best.as_ref().is_some_and(|(b, ..)| *b == blocks) {
                break;
            }
            // Corrected weights may have other ranges: the costs that count are those with them. While
            // the blocks still move, the plain ones are close enough.
            let fits = |c: &Costs| budgets.iter().all(|b| c.of(b) <= limit(b, &self.targets));
            let mut learned = learn(pricer, &blocks, None);
            if learned.as_ref().is_ok_and(|(c, _)| fits(c)) && self.settings.correct.is_some() && !counts_only {
                learned = learn(pricer, &blocks, self.settings.correct);
            }
            let costs = match learned {
                Ok((costs, rest)) => {
                    beside = rest;
                    costs
                }
                Err(PlannerError::Compile(CompileError::Pass(PassError::Quantize(_)))) if pricer.tighten() => continue,
                Err(e) => return Err(e),
            };
            let better = best.as_ref().is_none_or(|(_, _, s)| solution.loss < s.loss);
            if fits(&costs) {
                if !better {
                    break;
                }
                best = Some((blocks, costs, solution));
                if counts_only {
                    break;
                }
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
    fn choose(&self, pricer: &Pricer<'_>, losses: &Losses, limits: &[(Budget, u64)]) -> Result<Solution, PlannerError> {
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
    fn blocks(&self, solution: &Solution) -> Vec<Block> {
        let mut blocks = Vec::with_capacity(self.targets.classes());
        for layer in &self.targets.layers {
            for class in layer.classes() {
                blocks.push(self.pins.0[class].unwrap_or_else(|| layer.menu[solution.chosen[class]]));
            }
        }
        blocks
    }

    /// The plan as it compiles, with the correction it is made for.
    fn outcome(
        &self,
        pricer: &mut Pricer<'_>,
        blocks: &[Block],
        best: Tried,
        tried: Vec<Tried>,
        losses: &Losses,
        budgets: &[Budget],
    ) -> Result<Outcome, PlannerError> {
        self.progress.stage("compile", 0);
        let compiled = pricer.compile(blocks, self.settings.correct)?;
        let costs = pricer.learn(&compiled, blocks);
        let report = Report::new(&compiled.lowered.program)
            .map_err(|e| PlannerError::Limits(format!("the planned program does not run to its end: {e:?}")))?;
        let plan = Plan { correct: self.settings.correct, ..pricer.plan(blocks) };
        let layer_losses = self.targets.layers.iter().map(|l| layer_loss(l, blocks, losses)).collect();
        let limits = budgets.iter().map(|b| self.describe(pricer, b, blocks, &costs)).collect();
        let blocks = blocks.to_vec();
        Ok(Outcome { plan, blocks, costs, report, best, error: losses.error, tried, layer_losses, limits })
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
