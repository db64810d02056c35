//! What the command line takes.

use std::path::{Path, PathBuf};

use bcc_compiler::compile::CompileOptions;
use bcc_compiler::data::Source;
use bcc_compiler::onnx::{ImportOptions, MaxPools, Relu6, import};
use bcc_compiler::passes::lower::LowerOptions;
use bcc_compiler::passes::{BlockChoice, PassOptions};
use bcc_ir::graph::Graph;
use bcc_ir::time::{Network, Rates, default_rates};
use bcc_runtime::images::is_images;
use clap::Args;
use miette::{IntoDiagnostic, Result, WrapErr, bail};

/// An ONNX file, and what of it is meant.
#[derive(Args)]
pub(super) struct FileArgs {
    /// The ONNX file
    pub model: PathBuf,
    /// Value to compute, for a model with several outputs
    #[arg(long, value_name = "NAME")]
    pub output_name: Option<String>,
    /// Shape of the input, such as 1x3x480x640: for a model that leaves sizes open, or for another height and width
    /// than the model declares, where all of it follows
    #[arg(long, value_name = "SHAPE")]
    pub input_shape: Option<String>,
}

/// The network and how its numbers are represented.
#[derive(Args)]
pub(super) struct ModelArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// Calibration images: .npy, or .npz with an array "x", of shape [n, input...]; or a folder of images, with
    /// --preprocess
    #[arg(long, value_name = "FILE")]
    pub calib: Option<PathBuf>,
    /// How pixels of image files become the network's input, in RON
    #[arg(long, value_name = "FILE")]
    pub preprocess: Option<PathBuf>,
    /// Use only the first N calibration images
    #[arg(long, value_name = "N")]
    pub images: Option<usize>,
    /// Fraction bits of values
    #[arg(long, default_value_t = 12)]
    pub frac: u8,
    /// Fraction bits of weights
    #[arg(long, default_value_t = 12)]
    pub weight_frac: u8,
    /// Ring width in bits, a multiple of 8 up to 64; the smallest that fits if not given
    #[arg(long, value_name = "BITS")]
    pub ring: Option<u8>,
    /// Factor between the largest magnitude seen in calibration and the bound that is assumed
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    pub margin: f64,
    /// Largest magnitude of the input; from calibration if not given
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub input_bound: Option<f64>,
    /// Decide signs by this many bits of the block sums: approximate and cheaper; exact if not given
    #[arg(long, value_name = "BITS")]
    pub drelu_window: Option<u8>,
    /// ReLU6 and other clips from 0 on: exact (two sign decisions, no blocks), or relu, as if there were no bound
    #[arg(long, default_value = "exact", value_parser = ["exact", "relu"])]
    pub relu6: String,
    /// Maximum pools: exact, first (in front of the ReLU before them: the same with fewer decisions, and blocks on the
    /// pooled map), or average (average pools in their place)
    #[arg(long, default_value = "exact", value_parser = ["exact", "first", "average"])]
    pub max_pool: String,
    /// What the client learns: output, or argmax (the class alone, of every pixel of a map)
    #[arg(long, default_value = "output", value_parser = ["output", "argmax"])]
    pub reveal: String,
}

impl FileArgs {
    /// Import options for the value and the input shape.
    pub(super) fn options(&self) -> Result<ImportOptions> {
        let size = |s: &str| s.trim().parse::<usize>().ok().filter(|n| *n > 0);
        let read = |text: &String| {
            let sizes: Option<Vec<usize>> = text.split(['x', 'X', ',']).map(size).collect();
            sizes.ok_or_else(|| {
                miette::miette!("--input-shape \"{text}\": write sizes of at least 1, such as 1x3x480x640")
            })
        };
        let input_shape = self.input_shape.as_ref().map(read).transpose()?;
        Ok(ImportOptions { output: self.output_name.clone(), input_shape, ..ImportOptions::default() })
    }
}

impl ModelArgs {
    /// Refuses a preprocessing that nothing is read with; `others` are images read beside those of `--calib`.
    pub(super) fn check_preprocess(&self, others: Option<&Path>) -> Result<()> {
        if self.preprocess.is_some() && !self.calib.as_deref().into_iter().chain(others).any(is_images) {
            bail!("--preprocess: it is for image files, and none are given; numbers are taken as they are");
        }
        Ok(())
    }

    /// Images at `path`. The preprocessing is for those that are files: numbers are taken as they are.
    pub(super) fn source(&self, path: &Path, count: Option<usize>) -> Source {
        let preprocess = self.preprocess.clone().filter(|_| is_images(path));
        Source { path: path.into(), labels: None, preprocess, count }
    }

    /// The imported network, and options that keep every ReLU.
    pub(super) fn load(&self) -> Result<(Graph, CompileOptions)> {
        if self.drelu_window.is_some_and(|w| w < 2) {
            bail!("--drelu-window: a sign and at least one bit below it, so 2 or more");
        }
        if self.images == Some(0) {
            bail!("--images 0: at least one calibration image is needed");
        }
        let import_options = ImportOptions {
            relu6: if self.relu6 == "relu" { Relu6::Relu } else { Relu6::Exact },
            max_pools: match self.max_pool.as_str() {
                "first" => MaxPools::First,
                "average" => MaxPools::Average,
                _ => MaxPools::Exact,
            },
            ..self.file.options()?
        };
        let graph = import(&self.file.model, &import_options)
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot import {}", self.file.model.display()))?;
        let shape = graph.input().map(|i| graph.node(i).shape.clone()).unwrap_or_default();
        let calibration = match &self.calib {
            Some(path) => self.source(path, self.images).images(&shape).into_diagnostic()?,
            None => Vec::new(),
        };
        let passes = PassOptions {
            blocks: BlockChoice::Keep,
            correct: None,
            corrected: None,
            calibration,
            margin: self.margin,
            input_bound: self.input_bound,
            reveal: self.reveal.parse().into_diagnostic()?,
            frac: self.frac,
            weight_frac: self.weight_frac,
            ring: self.ring,
        };
        Ok((graph, CompileOptions { passes, lower: LowerOptions { drelu_window: self.drelu_window } }))
    }
}

/// The network between the parties, for predictions of time.
#[derive(Args)]
pub(super) struct TimeArgs {
    /// Predict seconds on a network: loopback, lan, wan, or a file
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// Rates that `bcr rates` measured; those of one machine that this version knows if not given
    #[arg(long, value_name = "FILE", requires = "network")]
    pub rates: Option<PathBuf>,
}

impl TimeArgs {
    /// Rates and network, the latter `default` if not given.
    pub(super) fn read(&self, default: &str) -> Result<(Rates, Network)> {
        let rates = self.rates.as_deref().map_or_else(|| Ok(default_rates()), Rates::load).into_diagnostic()?;
        let name = self.network.as_deref().unwrap_or(default);
        let network = Network::named(name, &rates).into_diagnostic().wrap_err("--network")?;
        Ok((rates, network))
    }
}

/// How blocks are chosen.
#[derive(Args)]
pub(super) struct SearchArgs {
    /// Blocks to choose from: full, small, squares, or a list such as 1x1,2x2,4x4,identity,zero
    #[arg(long, default_value = "full")]
    pub menu: String,
    /// Distortion of a choice: fast (backward passes) or exact (the rest of the network run for every choice)
    #[arg(long, default_value = "fast", value_parser = ["fast", "exact"])]
    pub distortion: String,
    /// Output probes per image of the fast distortion
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub probes: usize,
    /// Seed of the probes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Apply the budget in N parts and look anew at the network after each; the best plan measured is kept
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub refine: usize,
    /// Prove every choice of the solver optimal
    #[arg(long)]
    pub optimal: bool,
    /// Fix blocks: a plan file in which "auto" leaves a channel to the planner
    #[arg(long, value_name = "FILE")]
    pub pins: Option<PathBuf>,
    /// Fix the block of a layer: keep, HxW, identity or zero
    #[arg(long, value_name = "LAYER=BLOCK")]
    pub pin: Vec<String>,
    /// Most sign decisions of a layer, as a share of its own (20%) or a number (500 drelu)
    #[arg(long, value_name = "LAYER=BUDGET")]
    pub cap: Vec<String>,
    /// Most online rounds of all gates together
    #[arg(long, value_name = "N")]
    pub max_rounds: Option<u64>,
    /// Keep finished work here, and go on from what is there
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct CompileArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Directory for program.bcc (public), weights.bcc and reference.bcc (for the server alone) and plan.ron
    #[arg(short, long, default_value = "out")]
    pub output: PathBuf,
    /// Most that the plan may cost: 6%, "500k drelu", 150MB, "40MB online", 0.8s; may be given twice; 100% keeps every
    /// ReLU
    #[arg(long, value_name = "BUDGET", allow_hyphen_values = true, conflicts_with_all = ["blocks", "plan"])]
    pub budget: Vec<String>,
    /// One block for every channel of every ReLU: HxW, or identity
    #[arg(long, value_name = "HxW", allow_hyphen_values = true, conflicts_with = "plan")]
    pub blocks: Option<String>,
    /// A plan: blocks by layer and channel, in RON
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Fit the layers behind blocks to calibration images: mean, scale, weights or none. By default weights with a budget,
    /// what the plan says with a plan, and none with --blocks
    #[arg(long, value_name = "HOW")]
    pub correct: Option<String>,
    #[command(flatten)]
    pub search: SearchArgs,
    #[command(flatten)]
    pub time: TimeArgs,
    /// Print the graph after this pass (see `bcc passes`; `import` for the imported graph)
    #[arg(long, value_name = "PASS")]
    pub print_after: Vec<String>,
    /// Write the graph after every pass into numbered files, and the program's listing
    #[arg(long, value_name = "DIR")]
    pub emit_ir_dir: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Most that the plan may cost: 6%, "500k drelu", 150MB, "40MB online", 0.8s; may be given twice
    #[arg(long, value_name = "BUDGET", allow_hyphen_values = true, required_unless_present = "sweep")]
    pub budget: Vec<String>,
    /// The plan file to write
    #[arg(short, long, value_name = "FILE", default_value = "plan.ron")]
    pub output: PathBuf,
    /// Correction that the plan is made for: mean, scale, weights or none
    #[arg(long, default_value = "weights", value_name = "HOW")]
    pub correct: String,
    #[command(flatten)]
    pub search: SearchArgs,
    #[command(flatten)]
    pub time: TimeArgs,
    /// Images with classes, to measure the accuracy of plans on: .npz with "x" and "y", or a folder of images with
    /// labels, with --preprocess
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,
    /// Plan for each of these budgets, with commas between them; writes no plan file
    #[arg(long, value_name = "BUDGETS", value_delimiter = ',', conflicts_with_all = ["budget", "output"])]
    pub sweep: Vec<String>,
    /// What a sweep compares: any of uniform, plan, refine, correct, with commas between them
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "correct", requires = "sweep")]
    pub variants: Vec<String>,
    /// Write the sweep as a table
    #[arg(long, value_name = "FILE", requires = "sweep")]
    pub csv: Option<PathBuf>,
    /// Draw the sweep's curve
    #[arg(long, value_name = "FILE", requires = "sweep")]
    pub svg: Option<PathBuf>,
    /// Write a page with tables, curve and a map of the blocks
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct InspectArgs {
    /// Directory that `bcc compile` wrote
    pub directory: PathBuf,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
    /// Print every instruction of every role instead
    #[arg(long, conflicts_with_all = ["json", "network"])]
    pub listing: bool,
    #[command(flatten)]
    pub time: TimeArgs,
}

#[derive(Args)]
pub(super) struct EvalArgs {
    /// Directory that `bcc compile` wrote, with the server's files
    pub directory: PathBuf,
    /// Images: .npz with "x" and perhaps labels "y", or a folder of images, with --preprocess
    #[arg(long, value_name = "DATA")]
    pub data: PathBuf,
    /// Labels of a folder of images: lines file,label, the label a class or a .png with one class per pixel
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// How pixels of image files become the network's input, in RON
    #[arg(long, value_name = "FILE")]
    pub preprocess: Option<PathBuf>,
    /// Use only the first N images
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Run the first N images among three parties too, all in this process
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub secure: usize,
    /// Compare every layer in fixed point with the float network, on the first N images
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub layers: usize,
    /// Class of pixels that do not count; may be given several times
    #[arg(long, value_name = "CLASS", default_values_t = [255], allow_negative_numbers = true)]
    pub ignore_label: Vec<i32>,
    /// Added to the classes of label maps that are not ignored
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub label_offset: i32,
    /// Threads for computing; all cores by default
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

impl SearchArgs {
    /// Whether nothing asks for other blocks than a budget does.
    pub(super) fn is_plain(&self) -> bool {
        self.pins.is_none() && self.pin.is_empty() && self.cap.is_empty() && self.max_rounds.is_none()
    }
}
