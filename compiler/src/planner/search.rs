//! The way to a plan: from losses and prices to blocks, step by step, with everything measured.

use std::sync::Arc;

use bcc_ir::Block;
use bcc_ir::graph::Graph;

use super::budget::Budget;
use super::price::{Costs, Pricer, in_words, limit};
use super::solve::Solution;
use super::target::Layer;
use super::{Losses, Method, Outcome, Planner, PlannerError, Realized, Tried};
use crate::compile::CompileError;
use crate::passes::PassError;
use crate::plan::Plan;
use crate::report::Report;

/// Powers of the fast losses that compete in the first plan. First order is too kind to large losses:
/// they leave the range where the network is nearly linear, and add up. A power above 1 spreads
/// them over more channels. Correction brings the network back into that range; then the first is
/// enough.
const POWERS: [f64; 4] = [1.0, 1.5, 2.0, 3.0];
/// How often a plan is compiled anew until its exact cost meets the budget.
const COMPILATIONS: usize = 8;

/// A plan that was measured.
struct Candidate {
    blocks: Vec<Block>,
    network: Arc<Graph>,
    tried: Tried,
}

/// Blocks within budgets.
struct Within {
    blocks: Vec<Block>,
    /// Where they had to be compiled to be known.
    costs: Option<Costs>,
    /// The solver's answer that they come from.
    solution: Solution,
}

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
        let costs = pricer.learn(&pricer.compile(&base, None)?, &base);
        if base.iter().all(|b| *b == Block::RELU) {
            self.kept = Some(costs.clone());
        }
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
            let network = self.realized(&base).graph;
            let best = Candidate { blocks: base, network, tried };
            return self.outcome(&mut pricer, best, Vec::new(), &first, budgets);
        }

        let mut all: Vec<Candidate> = Vec::new();
        let power = self.first_plan(&mut pricer, &first, budgets, costs.ring, &mut all)?;
        let mut losses = Losses { power, ..first.clone() };
        for step in 1..=self.settings.refine {
            // Parts of the budget in equal ratios, the last being one step short of the whole.
            let part = step as f64 / (self.settings.refine as f64 + 1.0);
            let partial: Vec<(Budget, u64)> =
                budgets.iter().map(|b| (*b, self.interim(&pricer, b, &base, part))).collect();
            let present = self.blocks(&self.choose(&pricer, &losses, &partial)?);
            let graph = self.realized(&present).graph;
            losses = Losses { power, ..self.losses(&graph, &present)? };
            let Within { blocks, solution, .. } = match self.within(&mut pricer, &losses, &present, budgets) {
                Ok(found) => found,
                Err(PlannerError::Store(e)) => return Err(e.into()),
                // There are plans already; one that would not fit is no loss.
                Err(_) => continue,
            };
            if !all.iter().any(|c| c.blocks == blocks) {
                let predicted = self.predicted(&losses, &blocks);
                all.push(self.candidate(format!("refined {step}"), blocks, predicted, &solution));
            }
        }
        let tried: Vec<Tried> = all.iter().map(|c| c.tried.clone()).collect();
        let measured = |i: &usize| all[*i].tried.measured;
        let best = (0..all.len()).min_by(|a, b| measured(a).total_cmp(&measured(b))).unwrap_or(0);
        let best = all.swap_remove(best);
        self.outcome(&mut pricer, best, tried, &first, budgets)
    }

    /// Plans from the first losses, by power and ring; the power of the best, whose ring is set.
    ///
    /// Large blocks may need a wider ring, more bytes before them and wider integers in all: where bytes or time are
    /// limited and no ring is asked for, the ring of the network with all ReLUs, which leaves large
    /// blocks out, competes with rings that have room for all.
    fn first_plan(
        &self,
        pricer: &mut Pricer<'_>,
        first: &Losses,
        budgets: &[Budget],
        narrow: u8,
        all: &mut Vec<Candidate>,
    ) -> Result<f64, PlannerError> {
        let base = self.pins.base();
        let asked = self.template.passes.ring;
        let counts_only = budgets.iter().all(Budget::counts_signs);
        let rings = if asked.is_some() || counts_only { vec![asked] } else { vec![Some(narrow), None] };
        let several = self.settings.method == Method::Fast && self.settings.correct.is_none();
        let powers = if several { &POWERS[..] } else { &POWERS[..1] };
        let mut best: Option<(Option<u8>, f64, f64)> = None;
        let mut failed = None;
        for (ring, power) in rings.iter().flat_map(|r| powers.iter().map(move |p| (*r, *p))) {
            pricer.set_ring(ring);
            let losses = Losses { power, ..first.clone() };
            let Within { blocks, costs, solution } = match self.within(pricer, &losses, &base, budgets) {
                Ok(found) => found,
                Err(e) => {
                    failed = failed.or(Some(e));
                    continue;
                }
            };
            if all.iter().any(|c| c.blocks == blocks) {
                continue;
            }
            let mut how = "one shot".to_string();
            if power != 1.0 {
                how += &format!(", power {power}");
            }
            if let Some(costs) = costs.filter(|_| rings.len() > 1) {
                how += &format!(", ring {}", costs.ring);
            }
            let predicted = self.predicted(&losses, &blocks);
            let candidate = self.candidate(how, blocks, predicted, &solution);
            let measured = candidate.tried.measured;
            if best.is_none_or(|(.., least)| measured < least) {
                best = Some((ring, power, measured));
            }
            all.push(candidate);
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
                // Before anything is compiled: the count alone may be too much.
                let mut counts = budgets.iter().filter(|b| b.counts_signs());
                if counts.any(|b| targets.drelus_of(&blocks) > limit(b, &targets)) {
                    continue;
                }
                let realized = self.realized(&blocks).graph;
                let corrected = self.correction(&blocks).map(|c| (c, realized));
                let costs = pricer.costs(&pricer.compile(&blocks, corrected)?, &blocks);
                if budgets.iter().all(|b| costs.of(b) <= limit(b, &targets)) {
                    let none = Solution { chosen: Vec::new(), loss: 0.0, cost: 0, bound: 0.0 };
                    let best = self.candidate(format!("uniform {block}"), blocks, f64::NAN, &none);
                    let none = Losses {
                        by_choice: vec![0.0; targets.options()],
                        error: 0.0,
                        around: 0.0,
                        largest: Vec::new(),
                        power: 1.0,
                    };
                    let tried = vec![best.tried.clone()];
                    return self.outcome(&mut pricer, best, tried, &none, budgets);
                }
            }
        }
        Err(PlannerError::Limits(
            "no uniform block meets these budgets: the least possible is one block per channel".into(),
        ))
    }

    /// Runs a plan on the calibration images, with and without correction.
    fn candidate(&self, how: String, blocks: Vec<Block>, predicted: f64, solution: &Solution) -> Candidate {
        let Realized { graph: network, error: measured } = self.realized(&blocks);
        let uncorrected = match self.correction(&blocks) {
            Some(_) => self.measure(&self.uncorrected(&blocks)),
            None => measured,
        };
        let tried = Tried { how, predicted, measured, uncorrected, gap: solution.gap() };
        Candidate { blocks, network, tried }
    }

    /// A limit on the way from the base to a budget, in the solver's unit of prices.
    fn interim(&self, pricer: &Pricer<'_>, budget: &Budget, base: &[Block], part: f64) -> u64 {
        let start = pricer.total(budget, base) as f64;
        let least = self.least(pricer, budget) as f64;
        let most = limit(budget, &self.targets) as f64;
        let ratio = ((most - least) / (start - least).max(1.0)).clamp(1e-3, 1.0);
        (least + (start - least) * ratio.powf(part)).ceil() as u64
    }

    /// Blocks whose exact costs are within the budgets.
    /// Losses are around a network with the blocks `present`.
    fn within(
        &self,
        pricer: &mut Pricer<'_>,
        losses: &Losses,
        present: &[Block],
        budgets: &[Budget],
    ) -> Result<Within, PlannerError> {
        let counts_only = budgets.iter().all(Budget::counts_signs);
        let mut best: Option<Within> = None;
        // What the exact cost of a plan has beside its prices; signed.
        let mut beside: Vec<i128> = vec![0; budgets.len()];
        let learn = |pricer: &mut Pricer<'_>, blocks: &[Block], correct: bool| {
            let corrected = self.correction(blocks).filter(|_| correct).map(|c| (c, self.realized(blocks).graph));
            self.progress.stage("compile", 0);
            let compiled = pricer.compile(blocks, corrected)?;
            let costs = pricer.learn(&compiled, blocks);
            let beside = |b: &Budget| i128::from(costs.of(b)) - i128::from(pricer.total(b, blocks));
            let beside = budgets.iter().map(beside).collect();
            Ok::<(Costs, Vec<i128>), PlannerError>((costs, beside))
        };
        if !counts_only {
            beside = learn(pricer, present, false)?.1;
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
            if counts_only && !pricer.is_tight() {
                // What the solver counts is what the program decides; nothing has to be compiled.
                return Ok(Within { blocks, costs: None, solution });
            }
            if best.as_ref().is_some_and(|b| b.blocks == blocks) {
                break;
            }
            // Corrected weights may have other ranges: the costs that count are those with them. While
            // the blocks still move, the plain ones are close enough.
            let fits = |c: &Costs| budgets.iter().all(|b| c.of(b) <= limit(b, &self.targets));
            let mut learned = learn(pricer, &blocks, false);
            if learned.as_ref().is_ok_and(|(c, _)| fits(c)) && self.correction(&blocks).is_some() {
                learned = learn(pricer, &blocks, true);
            }
            let costs = match learned {
                Ok((costs, rest)) => {
                    beside = rest;
                    costs
                }
                Err(PlannerError::Compile(CompileError::Pass(PassError::Quantize(_)))) if pricer.tighten() => continue,
                Err(e) => return Err(e),
            };
            let better = best.as_ref().is_none_or(|b| solution.loss < b.solution.loss);
            if fits(&costs) {
                if !better {
                    break;
                }
                best = Some(Within { blocks, costs: Some(costs), solution });
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

    /// The plan as it compiles, with the correction it is made for.
    fn outcome(
        &self,
        pricer: &mut Pricer<'_>,
        best: Candidate,
        tried: Vec<Tried>,
        losses: &Losses,
        budgets: &[Budget],
    ) -> Result<Outcome, PlannerError> {
        let Candidate { blocks, network, tried: best } = best;
        self.progress.stage("compile", 0);
        let corrected = self.correction(&blocks).map(|c| (c, network.clone()));
        let compiled = pricer.compile(&blocks, corrected)?;
        let costs = pricer.learn(&compiled, &blocks);
        let report = Report::new(&compiled.lowered.program)
            .map_err(|e| PlannerError::Limits(format!("the planned program does not run to its end: {e:?}")))?;
        let plan = Plan { correct: self.settings.correct, ..pricer.plan(&blocks) };
        let layer_losses = self.targets.layers.iter().map(|l| layer_loss(l, &blocks, losses)).collect();
        let limits = budgets.iter().map(|b| self.describe(pricer, b, &blocks, &costs)).collect();
        Ok(Outcome { plan, blocks, costs, report, network, best, error: losses.error, tried, layer_losses, limits })
    }

    /// What takes up a budget, in a sentence.
    fn describe(&self, pricer: &Pricer<'_>, budget: &Budget, blocks: &[Block], costs: &Costs) -> String {
        let (used, most) = (costs.of(budget), limit(budget, &self.targets));
        let mut text = format!("{budget}: {} used of {}", in_words(budget, used), in_words(budget, most));
        let chosen = pricer.total(budget, blocks);
        if !budget.counts_signs() {
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
