//! The command line.

mod args;
mod compile;
mod inspect;
mod plan;
mod progress;

use std::io::Write;

use bcc_compiler::passes::PASSES;
use clap::{Parser, Subcommand};
use miette::{IntoDiagnostic, Result, WrapErr};

#[derive(Parser)]
#[command(version, about = "Compiles ONNX networks of the ResNet family for private inference by three parties")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile a network into a directory of program, weights and plan
    Compile(Box<args::CompileArgs>),
    /// Choose the block of every channel under a budget, or along a sweep of budgets
    Plan(Box<args::PlanArgs>),
    /// Show every layer of a compiled network: shape, scale, modulus, DReLUs, bytes and rounds
    Inspect(args::InspectArgs),
    /// List the compiler's passes
    Passes,
}

/// Does what the command line asks for.
pub fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Compile(args) => compile::compile(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Passes => {
            let lines = PASSES.iter().map(|p| format!("{:14} {}\n", p.name, p.what));
            say(&lines.collect::<String>())
        }
    }
}

/// Writes to standard output. Where nobody reads on, as behind `head`, the rest is not written.
fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).into_diagnostic().wrap_err("cannot print"),
        _ => Ok(()),
    }
}

/// Writes JSON to standard output.
fn say_json(value: &impl serde::Serialize) -> Result<()> {
    say(&(serde_json::to_string_pretty(value).into_diagnostic()? + "\n"))
}
