//! What a plan is, in numbers: for tables, pages and JSON.

use bcc_ir::Block;
use serde::Serialize;

use super::price::Costs;
use super::target::Targets;
use super::{Outcome, Tried};

/// One Block-ReLU under a plan.
#[derive(Clone, Debug, Serialize)]
pub struct LayerSummary {
    /// Name of its ONNX node.
    pub name: String,
    /// Channels.
    pub channels: usize,
    /// Rows and columns of a channel's map.
    pub map: [usize; 2],
    /// Channels that pass.
    pub identity: usize,
    /// Channels that vanish.
    pub zero: usize,
    /// Channels with an ordinary ReLU.
    pub relu: usize,
    /// Channels with larger blocks.
    pub larger: usize,
    /// Sign decisions with every ReLU kept.
    pub drelus_kept: u64,
    /// Sign decisions of the plan.
    pub drelus: u64,
    /// Bytes before the input that the gate sends.
    pub offline_bytes: u64,
    /// Bytes with the input that the gate sends.
    pub online_bytes: u64,
    /// Online rounds of the gate.
    pub rounds: u64,
    /// Predicted share in the output's mean squared error.
    pub loss: f64,
    /// Block of every channel, as in plan files.
    pub blocks: Vec<String>,
}

/// Share of labelled images that are classified rightly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Images.
    pub images: usize,
    /// With the plan.
    pub plan: f64,
    /// Of the original network.
    pub original: f64,
}

/// One row of a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct SweepRow {
    /// Budget, as given.
    pub budget: String,
    /// What was compared: `uniform`, `plan`, `refine` or `correct`.
    pub variant: String,
    /// Exact costs.
    pub costs: Costs,
    /// Predicted mean squared error of an output element; `None` for uniform blocks.
    pub predicted: Option<f64>,
    /// Measured on the calibration images.
    pub measured: f64,
    /// On labelled images, where given.
    pub accuracy: Option<f64>,
}

/// A plan with its reasons.
#[derive(Clone, Debug, Serialize)]
pub struct PlanSummary {
    /// Name of the network.
    pub network: String,
    /// Budgets, as given.
    pub budgets: Vec<String>,
    /// Exact costs.
    pub costs: Costs,
    /// Costs with every ReLU kept.
    pub kept: Costs,
    /// The plan that was taken.
    pub best: Tried,
    /// Median over choices of the relative standard error of a loss over images.
    pub loss_error: f64,
    /// All plans that were measured.
    pub tried: Vec<Tried>,
    /// By Block-ReLU, in order.
    pub layers: Vec<LayerSummary>,
    /// What takes up the budgets, in sentences.
    pub limits: Vec<String>,
    /// On labelled images, where given.
    pub accuracy: Option<Accuracy>,
}

impl PlanSummary {
    /// Of an outcome.
    pub fn new(
        network: &str,
        budgets: Vec<String>,
        targets: &Targets,
        outcome: &Outcome,
        kept: Costs,
        accuracy: Option<Accuracy>,
    ) -> PlanSummary {
        let layers = targets.layers.iter().zip(&outcome.layer_losses).map(|(layer, loss)| {
            let blocks = &outcome.blocks[layer.classes()];
            let count = |what: fn(&Block) -> bool| blocks.iter().filter(|b| what(b)).count();
            let row = outcome.report.layers.iter().find(|r| r.name == layer.name);
            LayerSummary {
                name: layer.name.clone(),
                channels: layer.channels,
                map: layer.map,
                identity: count(|b| *b == Block::Identity),
                zero: count(|b| *b == Block::Zero),
                relu: count(|b| *b == Block::RELU),
                larger: count(|b| matches!(b, Block::Patch { .. }) && *b != Block::RELU),
                drelus_kept: (layer.channels * layer.pixels()) as u64,
                drelus: blocks.iter().map(|b| b.drelus(layer.map[0], layer.map[1]) as u64).sum(),
                offline_bytes: row.map_or(0, |r| r.offline_bytes),
                online_bytes: row.map_or(0, |r| r.online_bytes),
                rounds: row.map_or(0, |r| r.rounds),
                loss: *loss,
                blocks: blocks.iter().map(ToString::to_string).collect(),
            }
        });
        PlanSummary {
            network: network.into(),
            budgets,
            costs: outcome.costs.clone(),
            kept,
            best: outcome.best.clone(),
            loss_error: outcome.error,
            tried: outcome.tried.clone(),
            layers: layers.collect(),
            limits: outcome.limits.clone(),
            accuracy,
        }
    }
}
