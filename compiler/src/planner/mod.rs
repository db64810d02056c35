//! Planning: from a budget to the block of every channel.
//!
//! 1. [`target`] numbers the channels and their choices ([`menu`]); [`pins`] fixes some.
//! 2. [`linear`] (or [`exact`]) estimates what every choice does to the network's output.
//! 3. [`price`] says what every choice costs, [`solve`] picks one per channel within the [`budget`].
//! 4. The plan is *measured*: the network with its blocks, corrected as it will be, runs on the
//!    calibration images. With `refine` steps, parts of the budget are applied one after the other,
//!    the losses taken anew around the network so far, against the original network's output; of all
//!    plans within the budget the one that measures best is kept.

pub mod budget;
mod choose;
pub mod exact;
pub mod linear;
pub mod menu;
pub mod pins;
pub mod price;
pub mod report;
mod search;
pub mod solve;
pub mod store;
pub mod summary;
pub mod target;

use std::sync::{Arc, Mutex, PoisonError};

use bcc_ir::Block;
use bcc_ir::graph::{Graph, Stage, verify};
use bcc_ir::time::{Network, Rates};
use rayon::prelude::*;
use serde::Serialize;
use thiserror::Error;

use crate::compile::{CompileError, CompileOptions};
use crate::float::Executor;
use crate::passes::correct::{Correction, correct};
use crate::passes::range::{RangeError, check_images};
use crate::passes::{PassError, canonicalize, fold};
use crate::plan::{Plan, PlanError};
use crate::report::Report;
use exact::Exact;
use linear::{Linear, Pass};
use menu::Menu;
use pins::Pins;
use price::{Costs, Pricer};
use store::{Key, Store, StoreError};
use summary::{Accuracy, PlanSummary};
use target::Targets;

/// How distortions are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Method {
    /// To first order, by backward passes.
    #[default]
    Fast,
    /// By running the rest of the network for every choice.
    Exact,
}

/// A limit on one layer, or on rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Sign decisions of a layer.
    Layer {
        /// Name of its ONNX node.
        layer: String,
        /// Most of them.
        drelus: u64,
    },
    /// Online rounds of all gates with signs.
    Rounds(u64),
}

/// Choices of the planner.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Blocks to choose from.
    pub menu: Menu,
    /// Distortion.
    pub method: Method,
    /// Output probes per image; as many as outputs, or more, make the fast distortion's sums exact.
    pub probes: usize,
    /// Seed of the probes.
    pub seed: u64,
    /// Further linearisations after the first.
    pub refine: usize,
    /// Correction that the plan is made for.
    pub correct: Option<Correction>,
    /// Prove every choice of the solver optimal.
    pub optimal: bool,
    /// Limits beside the budgets.
    pub caps: Vec<Cap>,
    /// Measured rates of kernels, for budgets of time.
    pub rates: Rates,
    /// The network that time is predicted for.
    pub network: Network,
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlannerError {
    /// No images.
    #[error("a plan is chosen on calibration images: give some (--calib images.npz)")]
    NoImages,
    /// Images that do not fit.
    #[error(transparent)]
    Images(#[from] RangeError),
    /// The network has no ReLU.
    #[error(
        "\"{0}\" has no ReLU whose blocks could be chosen; exact clips such as ReLU6 have none (--relu6 relu takes them as \
         ReLUs)"
    )]
    NoRelus(String),
    /// Pins.
    #[error(transparent)]
    Pins(#[from] PlanError),
    /// A budget below what can be reached.
    #[error(
        "the budget {budget} cannot be met: the least possible is {least}{because}. Raise the budget{or_pins} or offer \
         cheaper blocks (--menu)"
    )]
    Infeasible {
        /// The budget.
        budget: String,
        /// Least cost.
        least: String,
        /// What of it is fixed.
        because: String,
        /// A remedy, where pins are part of the cause.
        or_pins: &'static str,
    },
    /// Limits that cannot be met together.
    #[error("{0}")]
    Limits(String),
    /// A cap on a layer that is not there.
    #[error("--cap: \"{layer}\" is no ReLU of this network; its ReLUs are: {known}")]
    Cap {
        /// Layer.
        layer: String,
        /// Names of the network's ReLUs.
        known: String,
    },
    /// A network that does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A pass before planning.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// Finished work cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sees how planning goes on. Steps of a stage are counted from any thread.
pub trait Progress: Sync {
    /// A stage begins, of so many steps (0 where they cannot be counted).
    fn stage(&self, what: &str, steps: u64) {
        let _ = (what, steps);
    }

    /// Steps of the stage are done.
    fn done(&self, steps: u64) {
        let _ = steps;
    }
}

/// Progress that nobody sees.
pub struct Unseen;

impl Progress for Unseen {}

/// Which plan was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// How it came about: `one shot`, `refined 2`, ...
    pub how: String,
    /// Mean squared error of an output element that the losses predict.
    pub predicted: f64,
    /// Measured, with the correction the plan is made for.
    pub measured: f64,
    /// Measured without it.
    pub uncorrected: f64,
    /// Relative gap that the solver proved.
    pub gap: f64,
}

/// A plan with what it costs and does.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plan.
    pub plan: Plan,
    /// Its blocks by class.
    pub blocks: Vec<Block>,
    /// Exact costs.
    pub costs: Costs,
    /// The program it compiles to, layer by layer.
    pub report: Report,
    /// The network with the plan, corrected if asked for.
    pub network: Arc<Graph>,
    /// The plan that was taken.
    pub best: Tried,
    /// Standard error of the prediction, relative to it.
    pub error: f64,
    /// All plans within the budget that were measured.
    pub tried: Vec<Tried>,
    /// Predicted loss by layer, in the order of the targets.
    pub layer_losses: Vec<f64>,
    /// What limits the plan, in sentences.
    pub limits: Vec<String>,
}

/// Plans one network; several budgets share what was found for the first.
pub struct Planner<'a> {
    imported: &'a Graph,
    /// Canonical, with pinned blocks.
    base: Graph,
    template: CompileOptions,
    settings: Settings,
    targets: Targets,
    pins: Pins,
    /// Outputs of the original network on the calibration images.
    references: Vec<Vec<f32>>,
    store: Option<Store>,
    progress: &'a dyn Progress,
    key: Key,
    /// Losses around the base.
    first: Option<Losses>,
    /// Costs with every ReLU kept.
    kept: Option<Costs>,
    /// The network that was realized last: it is measured, compiled and linearised around, in any order.
    latest: Mutex<Option<(Vec<Block>, Realized)>>,
}

/// The network of a plan.
#[derive(Clone)]
struct Realized {
    graph: Arc<Graph>,
    /// Mean squared difference of an output element from the original network's.
    error: f64,
}

/// Losses of all choices around one network.
#[derive(Clone, Debug)]
struct Losses {
    /// By choice, as in [`Targets`].
    by_choice: Vec<f64>,
    /// Relative standard error of a sum of them, from the spread over images.
    error: f64,
    /// Mean squared error of the network they are taken around.
    around: f64,
    /// Largest magnitude of a block's sum by choice; empty if not known.
    largest: Vec<f64>,
    /// The solver adds up losses to this power.
    power: f64,
}

impl Losses {
    /// What the solver adds up.
    fn powered(&self, choice: usize) -> f64 {
        let loss = self.by_choice[choice];
        loss.signum() * loss.abs().powf(self.power)
    }
}

impl<'a> Planner<'a> {
    /// Prepares an imported graph. The calibration images of `template` are those that everything is
    /// estimated and measured on.
    ///
    /// # Errors
    /// Images, pins or the network do not fit.
    pub fn new(
        imported: &'a Graph,
        template: &CompileOptions,
        settings: Settings,
        pins: &dyn Fn(&Graph, &Targets) -> Result<Pins, PlanError>,
        store: Option<Store>,
        progress: &'a dyn Progress,
    ) -> Result<Planner<'a>, PlannerError> {
        let mut original = imported.clone();
        fold::run(&mut original).map_err(PassError::from)?;
        canonicalize::run(&mut original).map_err(PassError::from)?;
        verify(&original, Stage::Canonical)
            .map_err(|violations| PassError::Invariant { pass: "canonicalize", violations })?;
        let targets = Targets::of(&original, &settings.menu);
        if targets.layers.is_empty() {
            return Err(PlannerError::NoRelus(imported.name.clone()));
        }
        let images = &template.passes.calibration;
        if images.is_empty() {
            return Err(PlannerError::NoImages);
        }
        check_images(&original, images)?;
        for cap in &settings.caps {
            if let Cap::Layer { layer, .. } = cap
                && !targets.layers.iter().any(|l| l.name == *layer)
            {
                let names: Vec<&str> = targets.layers.iter().map(|l| l.name.as_str()).collect();
                return Err(PlannerError::Cap { layer: layer.clone(), known: names.join(", ") });
            }
        }
        let pins = pins(&original, &targets)?;
        progress.stage("the network as it is", images.len() as u64);
        let executor = Executor::new(&original);
        let references = images
            .par_iter()
            .map(|x| {
                let y = executor.run(x);
                progress.done(1);
                y
            })
            .collect();
        let mut base = original.clone();
        targets.apply(&mut base, &pins.base());
        let mut key = Key::new("distortion").with(&postcard::to_allocvec(&original).unwrap_or_default());
        for image in images {
            key = key.with_floats(image);
        }
        let template = template.clone();
        Ok(Planner {
            imported,
            base,
            template,
            settings,
            targets,
            pins,
            references,
            store,
            progress,
            key,
            first: None,
            kept: None,
            latest: Mutex::new(None),
        })
    }

    /// Channels and choices.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Lets further plans be refined so often.
    pub fn set_refine(&mut self, steps: usize) {
        self.settings.refine = steps;
    }

    /// The canonical network with every ReLU.
    pub fn original(&self) -> Graph {
        let mut graph = self.base.clone();
        self.targets.apply(&mut graph, &vec![Block::RELU; self.targets.classes()]);
        graph
    }

    /// An outcome in numbers, with the costs of every ReLU kept beside it.
    ///
    /// # Errors
    /// The network does not compile with every ReLU, or with the plan.
    pub fn summary(
        &mut self,
        outcome: &Outcome,
        budgets: Vec<String>,
        accuracy: Option<Accuracy>,
    ) -> Result<PlanSummary, PlannerError> {
        let relus = vec![Block::RELU; self.targets.classes()];
        let pricer = self.pricer();
        let kept = match &self.kept {
            Some(costs) => costs.clone(),
            None => pricer.costs(&pricer.compile(&relus, None)?, &relus),
        };
        self.kept = Some(kept.clone());
        Ok(PlanSummary::new(&self.imported.name, budgets, &self.targets, outcome, kept, accuracy))
    }

    /// Compiles plans, without prices so far.
    fn pricer(&self) -> Pricer<'a> {
        let model_of_time = (self.settings.rates.clone(), self.settings.network.clone());
        Pricer::new(self.imported, &self.template, &self.targets, model_of_time)
    }

    /// The calibration images.
    fn images(&self) -> &[Vec<f32>] {
        &self.template.passes.calibration
    }

    /// The network with blocks, not corrected.
    fn uncorrected(&self, blocks: &[Block]) -> Graph {
        let mut graph = self.base.clone();
        self.targets.apply(&mut graph, blocks);
        graph
    }

    /// The network with blocks, corrected if asked for, and measured.
    fn realized(&self, blocks: &[Block]) -> Realized {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((same, found)) = &*latest
            && same == blocks
        {
            return found.clone();
        }
        let mut graph = self.uncorrected(blocks);
        let error = match self.correction(blocks) {
            Some(c) => {
                self.progress.stage(&format!("correct {c}"), 0);
                self.error(correct(&mut graph, self.images(), c).par_iter())
            }
            None => self.measure(&graph),
        };
        let found = Realized { graph: Arc::new(graph), error };
        *latest = Some((blocks.to_vec(), found.clone()));
        found
    }

    /// The correction of a network with these blocks: without any there is nothing to correct.
    fn correction(&self, blocks: &[Block]) -> Option<Correction> {
        self.settings.correct.filter(|_| blocks.iter().any(|b| *b != Block::RELU))
    }

    /// Mean squared difference of an output element from the original network's, over the images.
    pub fn measure(&self, graph: &Graph) -> f64 {
        self.progress.stage("measure", self.images().len() as u64);
        let executor = Executor::new(graph);
        self.error(self.images().par_iter().map(|x| {
            let y = executor.run(x);
            self.progress.done(1);
            y
        }))
    }

    /// Mean squared difference of an output element, from the outputs of all images.
    fn error<V: AsRef<[f32]>>(&self, outputs: impl IndexedParallelIterator<Item = V>) -> f64 {
        let one =
            |(y, r): (V, &Vec<f32>)| -> f64 { y.as_ref().iter().zip(r).map(|(a, b)| f64::from(a - b).powi(2)).sum() };
        let each: Vec<f64> = outputs.zip(&self.references).map(one).collect();
        let elements: usize = self.references.iter().map(Vec::len).sum();
        each.iter().sum::<f64>() / elements as f64
    }

    /// Losses of all choices around a network that has the given blocks.
    fn losses(&self, graph: &Graph, present: &[Block]) -> Result<Losses, PlannerError> {
        match self.settings.method {
            Method::Fast => self.fast(graph, present),
            Method::Exact => self.exact(graph, present),
        }
    }

    fn work_key(&self, kind: &str, graph: &Graph, present: &[Block]) -> Key {
        let menus: Vec<String> = self.targets.layers.iter().map(|l| format!("{:?}", l.menu)).collect();
        // A corrected network has other weights than the original.
        self.key
            .clone()
            .with(kind.as_bytes())
            .with(menus.join(";").as_bytes())
            .with(format!("{present:?}").as_bytes())
            .with(&postcard::to_allocvec(graph).unwrap_or_default())
            .with(format!("{} {}", self.settings.probes, self.settings.seed).as_bytes())
    }

    fn fast(&self, graph: &Graph, present: &[Block]) -> Result<Losses, PlannerError> {
        let key = self.work_key("fast", graph, present);
        let executor = Executor::new(graph);
        let pass = Pass {
            executor: &executor,
            targets: &self.targets,
            present,
            probes: self.settings.probes,
            seed: self.settings.seed,
        };
        let outputs = self.references[0].len();
        let mut sums: Linear = self
            .store
            .as_ref()
            .and_then(|s| s.load(&key))
            .unwrap_or_else(|| Linear::new(&self.targets, pass.probe_count(outputs)));
        let images = self.images();
        self.progress.stage("distortion", images.len() as u64);
        self.progress.done(sums.images as u64);
        let data: Vec<(usize, &[f32], &[f32])> = images
            .iter()
            .zip(&self.references)
            .enumerate()
            .map(|(i, (x, r))| (i, x.as_slice(), r.as_slice()))
            .collect();
        let mut saved = std::time::Instant::now();
        // Waves of a fixed size: the sums do not depend on the number of threads, and an interruption
        // loses one wave at most, or a few seconds.
        while sums.images < data.len() {
            let wave = &data[sums.images..data.len().min(sums.images + linear::WAVE)];
            sums.merge(&pass.run(wave));
            self.progress.done(wave.len() as u64);
            if let Some(store) = &self.store
                && (sums.images == data.len() || saved.elapsed().as_secs() >= 5)
            {
                store.save(&key, &sums)?;
                saved = std::time::Instant::now();
            }
        }
        Ok(Losses {
            by_choice: sums.losses(&self.targets, outputs, self.settings.correct.is_some()),
            error: sums.relative_error(&self.targets),
            around: sums.error / (sums.images * outputs) as f64,
            largest: sums.options.iter().map(|o| o.largest).collect(),
            power: 1.0,
        })
    }

    fn exact(&self, graph: &Graph, present: &[Block]) -> Result<Losses, PlannerError> {
        let executor = Executor::new(graph);
        let images: Vec<(&[f32], &[f32])> =
            self.images().iter().zip(&self.references).map(|(x, r)| (x.as_slice(), r.as_slice())).collect();
        let centred = self.settings.correct.is_some();
        let exact = Exact { executor: &executor, targets: &self.targets, present, images: &images, centred };
        self.progress.stage("exact distortion", (images.len() * self.targets.layers.len()) as u64);
        let key = self.work_key(if centred { "exact, centred" } else { "exact" }, graph, present);
        let mut by_choice = Vec::with_capacity(self.targets.options());
        for layer in &self.targets.layers {
            let key = key.clone().with(layer.name.as_bytes());
            let found: Option<Vec<f64>> = self.store.as_ref().and_then(|s| s.load(&key));
            by_choice.extend(match found {
                Some(losses) => {
                    self.progress.done(images.len() as u64);
                    losses
                }
                None => {
                    let pairs: Vec<(usize, usize)> =
                        (0..layer.channels).flat_map(|c| (0..layer.menu.len()).map(move |j| (c, j))).collect();
                    let losses = exact.losses(layer, &pairs, &|| self.progress.done(1));
                    if let Some(store) = &self.store {
                        store.save(&key, &losses)?;
                    }
                    losses
                }
            });
        }
        Ok(Losses { by_choice, error: 0.0, around: self.measure(graph), largest: self.largest(graph), power: 1.0 })
    }

    /// Largest magnitude of a block's sum by choice.
    fn largest(&self, graph: &Graph) -> Vec<f64> {
        let executor = Executor::new(graph);
        let one = |x: &Vec<f32>| {
            let values = executor.values(x);
            linear::largest(&self.targets, |node| values.operand_of(node))
        };
        let each: Vec<Vec<f64>> = self.images().par_iter().map(one).collect();
        let larger = |mut all: Vec<f64>, one: Vec<f64>| {
            all.iter_mut().zip(one).for_each(|(a, o)| *a = a.max(o));
            all
        };
        each.into_iter().reduce(larger).unwrap_or_default()
    }
}
