//! The command line.

mod args;
mod check;
mod compile;
mod eval;
mod inspect;
mod plan;
mod progress;

use std::io::Write;
use std::process::ExitCode;

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
    /// Run a compiled network on data, in floats and among three parties, and show what it gets right and where
    /// fixed point departs from floats
    Eval(args::EvalArgs),
    /// Say all that keeps a network from being compiled, without compiling it
    Check(args::CheckArgs),
    /// List the compiler's passes
    Passes,
}

/// Does what the command line asks for.
pub fn run() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Compile(args) => compile::compile(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Check(args) => return check::check(&args),
        Command::Passes => {
            let lines = PASSES.iter().map(|p| format!("{:14} {}\n", p.name, p.what));
            say(&lines.collect::<String>())
        }
    }?;
    Ok(ExitCode::SUCCESS)
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
