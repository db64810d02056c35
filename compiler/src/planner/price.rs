//! What plans cost: exactly, by compiling them, and choice by choice, for the solver.
//!
//! A plan's cost is read off the program it compiles to, so it is what `bcc inspect` shows and what
//! the parties send. It is no sum over channels: headers, bit planes padded to bytes, windows and
//! moduli that follow from the largest block. The solver works with a price per choice
//! ([`GateCost::choice`], with the windows and moduli of the latest compiled plan); the difference
//! between the sum of prices and the exact cost of that plan is taken off the budget, and the
//! plan is compiled again until it fits.

use std::sync::Arc;

use bcc_ir::Block;
use bcc_ir::graph::{Graph, NodeId, Op};
use bcc_ir::program::Phase;
use bcc_ir::time::{Network, Rates, predict};
use serde::Serialize;

use super::budget::Budget;
use super::target::{Layer, Targets};
use crate::compile::{CompileError, CompileOptions, Compiled, Quiet, compile_graph};
use crate::passes::BlockChoice;
use crate::passes::correct::Correction;
use crate::passes::lower::cost::{Bytes, GateCost};
use crate::plan::Plan;
use crate::report::Report;

/// Prices are counted in bits of traffic, or in picoseconds.
const BITS: f64 = 8.0;
const PICOSECONDS: f64 = 1e12;

/// What a plan costs, exactly.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Costs {
    /// Sign decisions of the plan's channels.
    pub drelus: u64,
    /// Their share of those with every ReLU kept.
    pub share: f64,
    /// Sign decisions of the program, those of clips and maxima included, which no plan chooses: what
    /// `bcc inspect` says.
    pub program_drelus: u64,
    /// Bytes once per model.
    pub setup_bytes: u64,
    /// Bytes per inference before the input.
    pub offline_bytes: u64,
    /// Bytes per inference with the input.
    pub online_bytes: u64,
    /// Online rounds.
    pub rounds: u64,
    /// Ring width in bits.
    pub ring: u8,
    /// Predicted seconds before the input.
    pub offline_seconds: f64,
    /// Predicted seconds with the input.
    pub online_seconds: f64,
}

impl Costs {
    /// The cost that a budget limits, in the unit of [`limit`].
    pub fn of(&self, budget: &Budget) -> u64 {
        let by_phase = |phase: &Option<Phase>, offline: f64, online: f64| match phase {
            Some(Phase::Online) => online,
            Some(_) => offline,
            None => offline + online,
        };
        match budget {
            Budget::Share(_) | Budget::Drelus(_) => self.drelus,
            Budget::Bytes { phase, .. } => {
                (BITS * by_phase(phase, self.offline_bytes as f64, self.online_bytes as f64)) as u64
            }
            Budget::Seconds { phase, .. } => {
                (PICOSECONDS * by_phase(phase, self.offline_seconds, self.online_seconds)).ceil() as u64
            }
        }
    }
}

/// Most that a budget allows: sign decisions, bits of traffic or picoseconds.
pub fn limit(budget: &Budget, targets: &Targets) -> u64 {
    match *budget {
        Budget::Share(s) => (s * targets.drelus() as f64).floor() as u64,
        Budget::Drelus(n) => n,
        Budget::Bytes { most, .. } => most.saturating_mul(8),
        Budget::Seconds { most, .. } => (most * PICOSECONDS) as u64,
    }
}

/// A cost in the words of its budget.
pub fn in_words(budget: &Budget, cost: u64) -> String {
    match budget {
        Budget::Share(_) | Budget::Drelus(_) => format!("{cost} sign decisions"),
        Budget::Bytes { phase, .. } => Budget::Bytes { most: cost.div_ceil(8), phase: *phase }.to_string(),
        Budget::Seconds { phase, .. } => {
            Budget::Seconds { most: (cost as f64 / PICOSECONDS * 1e4).ceil() / 1e4, phase: *phase }.to_string()
        }
    }
}

/// Prices of the choices on one layer's channels.
#[derive(Clone, Copy, Debug)]
struct LayerPrice {
    gate: GateCost,
    /// Bytes before the input that only this layer's channel needs of the layers before: zero saves
    /// them.
    before: f64,
}

/// Compiles plans and prices choices.
pub struct Pricer<'a> {
    imported: &'a Graph,
    template: CompileOptions,
    targets: Targets,
    rates: Rates,
    network: Network,
    prices: Vec<LayerPrice>,
    /// Seconds per byte of a gate, on the links and in computing.
    seconds_per_byte: f64,
    /// Factor on block sums where room is scarce: grows when a plan turns out not to fit its ring.
    spare: f64,
}

impl<'a> Pricer<'a> {
    /// A pricer that knows no plan yet.
    pub fn new(
        imported: &'a Graph,
        template: &CompileOptions,
        targets: &Targets,
        (rates, network): (Rates, Network),
    ) -> Pricer<'a> {
        let seconds_per_byte = network.byte_seconds();
        let gate = GateCost { ring: 32, modulus: 24, window: 24, dealt: false };
        let prices = vec![LayerPrice { gate, before: 0.0 }; targets.layers.len()];
        let (template, targets) = (template.clone(), targets.clone());
        Pricer { imported, template, targets, rates, network, prices, seconds_per_byte, spare: 1.0 }
    }

    /// Lets plans compile in rings of this width alone.
    pub fn set_ring(&mut self, ring: Option<u8>) {
        self.template.passes.ring = ring;
        self.spare = 1.0;
    }

    /// Whether the ring is set, so that plans may not fit it.
    pub fn is_tight(&self) -> bool {
        self.template.passes.ring.is_some()
    }

    /// Whether a block sum of the given magnitude on calibration images has room in the ring that
    /// plans compile in: below half of the modulus that truncation leaves. Without a set ring there is
    /// always room.
    pub fn has_room(&self, largest: f64) -> bool {
        let options = &self.template.passes;
        let Some(ring) = options.ring else { return true };
        let units = largest * self.spare * options.margin * f64::from(options.frac).exp2();
        // A few units for rounding, as the range check has them.
        units + 4.0 < (f64::from(ring) - f64::from(options.weight_frac) - 1.0).exp2()
    }

    /// After a plan that did not fit its set ring: asks for a bit more room. False where there is no
    /// ring set, or it has been asked too often.
    pub fn tighten(&mut self) -> bool {
        self.spare *= 2.0;
        self.is_tight() && self.spare < 20.0
    }

    /// Compiles a plan: its network as it has been corrected, or uncorrected.
    ///
    /// # Errors
    /// The network does not compile with it.
    pub fn compile(
        &self,
        blocks: &[Block],
        corrected: Option<(Correction, Arc<Graph>)>,
    ) -> Result<Compiled, CompileError> {
        let mut options = self.template.clone();
        options.passes.blocks = BlockChoice::Plan(self.plan(blocks));
        (options.passes.correct, options.passes.corrected) = corrected.unzip();
        compile_graph(self.imported.clone(), &options, &mut Quiet)
    }

    /// The plan file of blocks by class.
    pub fn plan(&self, blocks: &[Block]) -> Plan {
        let entries = |l: &Layer| Plan::entries(&blocks[l.classes()]);
        let layers = self.targets.layers.iter().map(|l| (l.name.clone(), entries(l))).collect();
        Plan { network: self.imported.name.clone(), correct: None, layers }
    }

    /// Exact costs of a compiled plan; windows and moduli for prices are taken from it.
    pub fn learn(&mut self, compiled: &Compiled, blocks: &[Block]) -> Costs {
        for (price, layer) in self.prices.iter_mut().zip(&self.targets.layers) {
            let graph = &compiled.graph;
            if let Some(gate) = graph.find(&layer.name).and_then(|id| GateCost::of(graph, id, self.template.lower)) {
                price.gate = gate;
            }
            price.before = before(self.imported, graph, &layer.name);
        }
        let costs = self.costs(compiled, blocks);
        let bytes = (costs.offline_bytes + costs.online_bytes).max(1) as f64;
        // Element passes go with the bytes; what a byte takes beside its way is the rest of the time.
        let idle = costs.rounds as f64 * self.network.one_way_seconds();
        self.seconds_per_byte = ((costs.offline_seconds + costs.online_seconds - idle) / bytes).max(0.0);
        costs
    }

    /// Exact costs of a compiled plan.
    pub fn costs(&self, compiled: &Compiled, blocks: &[Block]) -> Costs {
        let program = &compiled.lowered.program;
        let drelus = self.targets.drelus_of(blocks);
        let totals = Report::new(program).map(|r| (r.totals, r.ring)).ok();
        let time = predict(program, &self.rates, &self.network).ok();
        let seconds = |p: Phase| time.as_ref().map_or(0.0, |t| t.phase(p).path.total());
        let of = |f: fn(&crate::report::Totals) -> u64| totals.as_ref().map_or(0, |t| f(&t.0));
        Costs {
            drelus,
            share: drelus as f64 / self.targets.drelus().max(1) as f64,
            program_drelus: of(|t| t.drelus),
            setup_bytes: of(|t| t.setup_bytes),
            offline_bytes: of(|t| t.offline_bytes),
            online_bytes: of(|t| t.online_bytes),
            rounds: of(|t| t.rounds),
            ring: program.ring,
            offline_seconds: seconds(Phase::Offline),
            online_seconds: seconds(Phase::Online),
        }
    }

    /// Price of a block for one channel of a layer, in the unit of [`limit`].
    pub fn price(&self, budget: &Budget, layer: usize, block: Block) -> u64 {
        let target = &self.targets.layers[layer];
        let own = &self.prices[layer];
        let bytes = || -> Bytes {
            let mut bytes = own.gate.choice(block, target.map);
            if block != Block::Zero {
                bytes.offline += own.before;
            }
            bytes
        };
        let of = |phase: Option<Phase>| match phase {
            Some(Phase::Online) => bytes().online,
            Some(_) => bytes().offline,
            None => bytes().online + bytes().offline,
        };
        match *budget {
            Budget::Share(_) | Budget::Drelus(_) => block.drelus(target.map[0], target.map[1]) as u64,
            Budget::Bytes { phase, .. } => (BITS * of(phase)).ceil() as u64,
            Budget::Seconds { phase, .. } => (PICOSECONDS * self.seconds_per_byte * of(phase)).ceil() as u64,
        }
    }

    /// Sum of the prices of blocks by class.
    pub fn total(&self, budget: &Budget, blocks: &[Block]) -> u64 {
        let of =
            |(i, l): (usize, &Layer)| -> u64 { blocks[l.classes()].iter().map(|b| self.price(budget, i, *b)).sum() };
        self.targets.layers.iter().enumerate().map(of).sum()
    }

    /// Online rounds that a layer with at least one sign takes, by its window.
    pub fn rounds(&self, layer: usize) -> u64 {
        self.prices[layer].gate.messages()
    }
}

/// Bytes before the input, per channel, of the linear layers whose results only a gate reads.
fn before(imported: &Graph, quantized: &Graph, gate: &str) -> f64 {
    let Some(id) = imported.find(gate) else { return 0.0 };
    let mut bytes = 0.0;
    let mut stack: Vec<NodeId> = imported.operands(id);
    while let Some(node) = stack.pop() {
        if imported.users(node).len() != 1 {
            continue;
        }
        match imported.node(node).op {
            Op::Conv { .. } => {
                let fixed = quantized.find(&imported.node(node).name).and_then(|n| quantized.node(n).fixed);
                let pixels = imported.node(node).map().map_or(0, |(_, [h, w])| h * w);
                bytes += f64::from(fixed.map_or(32, |f| f.modulus)) / 8.0 * pixels as f64;
            }
            Op::Add | Op::Sub | Op::Affine { .. } => stack.extend(imported.operands(node)),
            _ => {}
        }
    }
    bytes
}
