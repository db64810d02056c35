//! The passes, in order, as a table.

pub mod canonicalize;
pub mod correct;
pub mod fold;
mod layout;
pub mod lower;
mod maximum;
pub mod plan;
pub mod prune;
pub mod quantize;
pub mod range;
pub mod reveal;

use std::sync::Arc;

use bcc_ir::Block;
use bcc_ir::graph::{Graph, Stage, Violations, verify};
use thiserror::Error;

use crate::plan::{Plan, PlanError};
use correct::Correction;
use reveal::Reveal;

/// Which blocks the channels get.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockChoice {
    /// Every ReLU stays (a budget of 100 %).
    Keep,
    /// One block for all channels of all ReLUs.
    Uniform(Block),
    /// A plan file.
    Plan(Plan),
}

/// What the passes need to know beside the graph.
#[derive(Clone, Debug)]
pub struct PassOptions {
    /// Blocks.
    pub blocks: BlockChoice,
    /// What of the layers behind blocks is fitted to calibration images, if anything.
    pub correct: Option<Correction>,
    /// The network behind the pass `correct`, where the planner has it already for these blocks.
    pub corrected: Option<Arc<Graph>>,
    /// Calibration images, each as the network's input, row-major; may be empty.
    pub calibration: Vec<Vec<f32>>,
    /// Factor between the largest magnitude seen in calibration and an observed bound.
    pub margin: f64,
    /// Largest magnitude of the input; from calibration if `None`.
    pub input_bound: Option<f64>,
    /// What the client learns.
    pub reveal: Reveal,
    /// Fraction bits of values.
    pub frac: u8,
    /// Fraction bits of weights.
    pub weight_frac: u8,
    /// Ring width in bits, a multiple of 8; the smallest that fits if `None`.
    pub ring: Option<u8>,
}

impl Default for PassOptions {
    fn default() -> Self {
        PassOptions {
            blocks: BlockChoice::Keep,
            correct: None,
            corrected: None,
            calibration: Vec::new(),
            margin: 2.0,
            input_bound: None,
            reveal: Reveal::Output,
            frac: 12,
            weight_frac: 12,
            ring: None,
        }
    }
}

/// Why a pass failed.
#[derive(Debug, Error)]
pub enum PassError {
    /// Folding.
    #[error(transparent)]
    Fold(#[from] fold::FoldError),
    /// Canonicalization.
    #[error(transparent)]
    Canonicalize(#[from] canonicalize::CanonicalizeError),
    /// The plan does not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Correction.
    #[error(transparent)]
    Correct(#[from] correct::CorrectError),
    /// Pruning.
    #[error(transparent)]
    Prune(#[from] prune::PruneError),
    /// What is revealed.
    #[error(transparent)]
    Reveal(#[from] reveal::RevealError),
    /// Ranges.
    #[error(transparent)]
    Range(#[from] range::RangeError),
    /// Quantization.
    #[error(transparent)]
    Quantize(#[from] quantize::QuantizeError),
    /// A pass left a graph that breaks an invariant: a defect of the compiler.
    #[error("after pass {pass} the graph is not well formed; please report this:\n{violations}")]
    Invariant {
        /// Pass.
        pass: &'static str,
        /// What is broken.
        violations: Violations,
    },
}

/// One pass: a graph in, the same graph rewritten out. Nodes keep the names of the ONNX nodes they
/// stand for in their origin, and those that replace others take over theirs.
pub struct Pass {
    /// Name, for `--print-after`.
    pub name: &'static str,
    /// What it does, in a line.
    pub what: &'static str,
    /// Invariants that hold after it.
    pub stage: Stage,
    run: fn(&mut Graph, &PassOptions) -> Result<(), PassError>,
}

/// All passes in order.
pub static PASSES: &[Pass] = &[
    Pass {
        name: "fold",
        what: "folds batch norm, constants and identities into their neighbours",
        stage: Stage::Imported,
        run: |g, _| Ok(fold::run(g)?),
    },
    Pass {
        name: "canonicalize",
        what: "writes maximum pools as ReLUs of differences",
        stage: Stage::Canonical,
        run: |g, _| Ok(canonicalize::run(g)?),
    },
    Pass {
        name: "plan",
        what: "gives every channel its block",
        stage: Stage::Canonical,
        run: |g, o| Ok(plan::run(g, &o.blocks)?),
    },
    Pass {
        name: "correct",
        what: "fits the layers behind blocks to what the network without blocks computes, on calibration images",
        stage: Stage::Canonical,
        run: |g, o| Ok(correct::run(g, o)?),
    },
    Pass {
        name: "prune",
        what: "removes zero and unused channels with their weights, and ReLUs that pass everything",
        stage: Stage::Canonical,
        run: |g, _| Ok(prune::run(g)?),
    },
    Pass {
        name: "reveal",
        what: "lets the output be the class alone, where that is asked for",
        stage: Stage::Canonical,
        run: |g, o| Ok(reveal::run(g, o.reveal)?),
    },
    Pass {
        name: "range",
        what: "bounds every value, by intervals and calibration",
        stage: Stage::Ranged,
        run: |g, o| Ok(range::run(g, o)?),
    },
    Pass {
        name: "quantize",
        what: "chooses ring, fraction bits and moduli, quantizes weights, places refreshes",
        stage: Stage::Quantized,
        run: |g, o| Ok(quantize::run(g, o)?),
    },
];

/// Runs all passes on an imported graph and verifies the graph after each. `watch` is called before
/// each pass (`false`) and after it (`true`).
pub fn run_all(
    graph: &mut Graph,
    options: &PassOptions,
    watch: &mut dyn FnMut(&Pass, &Graph, bool),
) -> Result<(), PassError> {
    for pass in PASSES {
        watch(pass, graph, false);
        (pass.run)(graph, options)?;
        verify(graph, pass.stage).map_err(|violations| PassError::Invariant { pass: pass.name, violations })?;
        watch(pass, graph, true);
    }
    Ok(())
}

/// The greatest common divisor.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
