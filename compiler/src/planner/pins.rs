//! Channels whose block the user has fixed: the rest is planned around them.

use bcc_ir::Block;
use bcc_ir::graph::Graph;

use super::target::Targets;
use crate::plan::{Plan, PlanError, parse_block, read_entries};

/// Fixed blocks by class; `None` where the planner chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins(pub Vec<Option<Block>>);

impl Pins {
    /// No channel is fixed.
    pub fn none(targets: &Targets) -> Pins {
        Pins(vec![None; targets.classes()])
    }

    /// The blocks of a plan, in which `auto` leaves a choice open, as do layers it does not name.
    ///
    /// # Errors
    /// A layer that the network does not have, or entries that do not fit one.
    pub fn of(graph: &Graph, targets: &Targets, plan: &Plan) -> Result<Pins, PlanError> {
        let mut pins = Pins::none(targets);
        for (name, entries) in &plan.layers {
            let Some(layer) = targets.layers.iter().find(|l| l.name == *name) else {
                return Err(PlanError::unknown(name, graph));
            };
            let pin = |text: &str| if text.trim() == "auto" { Ok(None) } else { parse_block(text).map(Some) };
            let read = read_entries(name, entries, layer.channels, &pin)?;
            pins.0[layer.classes()].copy_from_slice(&read);
        }
        Ok(pins)
    }

    /// Adds `LAYER=BLOCK`, the same block for all channels of a layer.
    ///
    /// # Errors
    /// As [`of`](Self::of), or a text without `=`.
    pub fn add(&mut self, graph: &Graph, targets: &Targets, text: &str) -> Result<(), PlanError> {
        // Names may hold `=`, blocks do not.
        let (name, block) = text.rsplit_once('=').ok_or_else(|| PlanError::Block { text: text.into() })?;
        let plan =
            Plan { layers: [(name.trim().to_string(), vec![block.trim().to_string()])].into(), ..Plan::default() };
        let more = Pins::of(graph, targets, &plan)?;
        for (own, new) in self.0.iter_mut().zip(more.0) {
            *own = new.or(*own);
        }
        Ok(())
    }

    /// The fixed blocks, ordinary ReLUs elsewhere.
    pub fn base(&self) -> Vec<Block> {
        self.0.iter().map(|p| p.unwrap_or(Block::RELU)).collect()
    }

    /// Names of layers with fixed channels, and how many channels.
    pub fn layers<'t>(&self, targets: &'t Targets) -> Vec<(&'t str, usize)> {
        let count = |l: &super::target::Layer| self.0[l.classes()].iter().filter(|p| p.is_some()).count();
        targets.layers.iter().map(|l| (l.name.as_str(), count(l))).filter(|(_, n)| *n > 0).collect()
    }
}
