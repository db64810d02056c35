//! Command line of `bcc-models`: builds nets as ONNX files and runs the demonstration.

mod demo;

use std::path::PathBuf;

use bcc_models::nets::{self, BuildOptions, ResizeSize};
use clap::{Args, Parser, Subcommand, ValueEnum};
use miette::{IntoDiagnostic, Result};

/// Networks for bcc
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a net and write it as ONNX
    Build(BuildArgs),
    /// List the nets that can be built
    List,
    /// Classify bundled images with a bundled network, plain next to secure
    Demo(demo::DemoArgs),
}

#[derive(Args)]
struct BuildArgs {
    /// Name of the net, as listed by `list`
    net: String,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Seed of the weights
    #[arg(long, default_value_t = BuildOptions::default().seed)]
    seed: u64,
    /// Version of ONNX's operator set, 7 to 21
    #[arg(long, default_value_t = BuildOptions::default().opset)]
    opset: i64,
    /// Batch size of the input
    #[arg(long, default_value_t = 1, conflicts_with = "symbolic_batch")]
    batch: i64,
    /// Leave the batch size open, as the symbol `N`
    #[arg(long)]
    symbolic_batch: bool,
    /// Size of the input images, `256` or `HEIGHTxWIDTH` [default: the net's own]
    #[arg(long, value_parser = image_size)]
    size: Option<[usize; 2]>,
    /// How Resize nodes are told their size
    #[arg(long, value_enum, default_value_t = Resize::Sizes)]
    resize: Resize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Resize {
    /// As constants
    Sizes,
    /// As factors
    Scales,
    /// By Shape, Slice and Concat, as PyTorch writes it
    Shape,
}

impl From<Resize> for ResizeSize {
    fn from(resize: Resize) -> Self {
        match resize {
            Resize::Sizes => Self::Sizes,
            Resize::Scales => Self::Scales,
            Resize::Shape => Self::Shape,
        }
    }
}

fn image_size(text: &str) -> Result<[usize; 2], String> {
    let side = |s: &str| s.parse().map_err(|_| format!("`{text}` is no size: write 256 or HEIGHTxWIDTH"));
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    Ok([side(height)?, side(width)?])
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Build(args) => build(&args),
        Command::List => {
            list();
            Ok(())
        }
        Command::Demo(args) => demo::demo(&args).into_diagnostic(),
    }
}

fn build(args: &BuildArgs) -> Result<()> {
    let options = BuildOptions {
        seed: args.seed,
        opset: args.opset,
        batch: (!args.symbolic_batch).then_some(args.batch),
        size: args.size,
        resize: args.resize.into(),
    };
    let net = nets::find(&args.net).into_diagnostic()?;
    let model = net.build(&options).into_diagnostic()?;
    bcc_models::write_model(&model, &args.output).into_diagnostic()
}

fn list() {
    let width = nets::NETS.iter().map(|net| net.name.len()).max().unwrap_or(0);
    for net in nets::NETS {
        let input = net.input.map(|d| d.to_string()).join("x");
        println!("{:<width$} {input:<11} {}", net.name, net.summary);
    }
}
