//! The demonstration: a bundled network on bundled images, plain next to secure.

use std::path::{Path, PathBuf};

use bcc_compiler::compile::{CompileError, CompileOptions, Quiet, compile_file};
use bcc_compiler::data::{DataError, load_images};
use bcc_compiler::float::Executor;
use bcc_compiler::onnx::{Oracle, OracleError};
use bcc_compiler::passes::{BlockChoice, PassOptions};
use bcc_compiler::plan::{PlanError, parse_block};
use bcc_compiler::report::{Report, grouped};
use bcc_models::dataset;
use bcc_runtime::port::Tensor;
use bcc_runtime::session::{LocalOptions, SessionError, Transport, run_local};
use clap::Args;
use thiserror::Error;

const CLASSES: [&str; 10] =
    ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"];

/// Options of the demonstration.
#[derive(Args)]
pub struct DemoArgs {
    /// Bundled network: fmnist_resnet20 or fmnist_resnet8
    #[arg(long, default_value = "fmnist_resnet20")]
    network: String,
    /// Number of test images, up to 512
    #[arg(long, default_value_t = 12)]
    images: usize,
    /// Block of every ReLU, HxW; without it every ReLU stays
    #[arg(long, value_name = "HxW")]
    blocks: Option<String>,
}

/// Why the demonstration failed.
#[derive(Debug, Error)]
pub enum DemoError {
    /// Data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Labels.
    #[error(transparent)]
    Labels(#[from] bcc_models::ModelError),
    /// Blocks.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Compilation.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The plain run.
    #[error(transparent)]
    Plain(#[from] OracleError),
    /// The secure run.
    #[error(transparent)]
    Secure(#[from] SessionError),
    /// The program cannot be reported on.
    #[error("the compiled program does not run to its end")]
    Report,
}

fn bundled(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn largest(values: &[f64]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap_or(0)
}

fn name(class: usize) -> &'static str {
    CLASSES.get(class).copied().unwrap_or("?")
}

/// Compiles a bundled network, classifies bundled images in the clear and by three parties over
/// loopback TCP, and prints both.
pub fn demo(args: &DemoArgs) -> Result<(), DemoError> {
    let model = bundled(&format!("trained/{}.onnx", args.network));
    let shape = [1, 1, 28, 28];
    let calibration = load_images(&bundled("data/fmnist_calib.npz"), &shape)?;
    let test = bundled("data/fmnist_test.npz");
    let mut images = load_images(&test, &shape)?;
    let labels = dataset::load(&test)?.y;
    images.truncate(args.images);
    let blocks = match &args.blocks {
        Some(text) => BlockChoice::Uniform(parse_block(text)?),
        None => BlockChoice::Keep,
    };
    let passes = PassOptions { blocks, calibration, ..PassOptions::default() };
    let compiled = compile_file(&model, &CompileOptions { passes, ..CompileOptions::default() }, &mut Quiet)?;
    let (program, weights) = (&compiled.lowered.program, &compiled.lowered.weights);
    let report = Report::new(program).map_err(|_| DemoError::Report)?;
    println!(
        "{}: ring of {} bits, {} DReLUs, {} online rounds\n",
        args.network,
        report.ring,
        grouped(report.totals.drelus),
        report.totals.rounds
    );

    let inputs: Vec<Tensor> = images
        .iter()
        .map(|i| Tensor { shape: shape.to_vec(), data: i.iter().map(|x| f64::from(*x)).collect() })
        .collect();
    let options = LocalOptions { transport: Transport::Tcp, ..LocalOptions::default() };
    let secure = run_local(program, weights, &inputs, &options)?;
    // The file as it stands, by tract; with blocks, the compiler's float network that has them too.
    let oracle = if args.blocks.is_none() { Some(Oracle::load(&model, &shape)?) } else { None };
    let blocks = Executor::new(&compiled.real);
    println!("image  label     plain     secure    largest difference of a logit");
    let (mut same, mut worst) = (0, 0.0f64);
    for (i, (image, out)) in images.iter().zip(&secure.outputs).enumerate() {
        let logits = match &oracle {
            Some(oracle) => oracle.run(image)?,
            None => blocks.run(image),
        };
        let logits: Vec<f64> = logits.into_iter().map(f64::from).collect();
        let error = logits.iter().zip(&out.value.data).map(|(p, s)| (p - s).abs()).fold(0.0, f64::max);
        let (p, s) = (largest(&logits), largest(&out.value.data));
        same += usize::from(p == s);
        worst = worst.max(error);
        let label = labels.get(i).and_then(|l| usize::try_from(*l).ok()).map_or("?", name);
        println!("{i:>5}  {label:<9} {:<9} {:<9} {error:.4}", name(p), name(s));
    }
    println!("\nsame class on {same} of {} images, largest difference {worst:.4}", images.len());
    let n = images.len().max(1) as f64;
    let p = &secure.stats.phases;
    for (what, phase, per) in [("setup", &p.setup, 1.0), ("offline", &p.offline, n), ("online", &p.online, n)] {
        let bytes = phase.bytes.client + phase.bytes.server + phase.bytes.dealer;
        let each = if what == "setup" { "once" } else { "per image" };
        println!(
            "{what:8} {:7.1} ms, {:>9} B, {} rounds {each}",
            1e3 * phase.seconds / per,
            grouped((bytes as f64 / per) as u64),
            phase.rounds
        );
    }
    Ok(())
}
