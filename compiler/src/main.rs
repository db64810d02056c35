//! `bcc`: compiles ONNX networks to three-party programs and shows them.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bcc_compiler::compile::{CompileOptions, Compiled, Observer, compile_graph};
use bcc_compiler::data::load_images;
use bcc_compiler::onnx::{ImportOptions, import};
use bcc_compiler::passes::lower::LowerOptions;
use bcc_compiler::passes::{BlockChoice, PASSES, Pass, PassOptions};
use bcc_compiler::plan::{Plan, parse_block};
use bcc_compiler::predicted::Predicted;
use bcc_compiler::rates::default_rates;
use bcc_compiler::report::{BoundsSummary, Report, bounds, grouped};
use bcc_ir::graph::Graph;
use bcc_ir::program::file::{PROGRAM_FILE, load_program, save};
use bcc_ir::time::{Network, Rates};
use clap::{Args, Parser, Subcommand};
use indicatif::ProgressBar;
use miette::{IntoDiagnostic, Result, WrapErr, bail};

#[derive(Parser)]
#[command(version, about = "Compiles ONNX networks of the ResNet family for private inference by three parties")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile a network into a directory of program, weights and plan
    Compile(Box<CompileArgs>),
    /// Show every layer of a compiled network: shape, scale, modulus, DReLUs, bytes and rounds
    Inspect(InspectArgs),
    /// List the compiler's passes
    Passes,
}

#[derive(Args)]
struct CompileArgs {
    /// The ONNX file
    model: PathBuf,
    /// Directory for program.bcc (public), weights.bcc (for the server alone) and plan.ron
    #[arg(short, long, default_value = "out")]
    output: PathBuf,
    /// Calibration images: .npy, or .npz with an array "x"; shape [n, input...]
    #[arg(long, value_name = "FILE")]
    calib: Option<PathBuf>,
    /// Share of the sign decisions to keep; 100% keeps every ReLU
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true, conflicts_with_all = ["blocks", "plan"])]
    budget: Option<String>,
    /// One block for every channel of every ReLU: HxW, or identity
    #[arg(long, value_name = "HxW", allow_hyphen_values = true, conflicts_with = "plan")]
    blocks: Option<String>,
    /// A plan: blocks by layer and channel, in RON
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Fraction bits of values
    #[arg(long, default_value_t = 12)]
    frac: u8,
    /// Fraction bits of weights
    #[arg(long, default_value_t = 12)]
    weight_frac: u8,
    /// Ring width in bits, a multiple of 8 up to 64; the smallest that fits if not given
    #[arg(long, value_name = "BITS")]
    ring: Option<u8>,
    /// Factor between the largest magnitude seen in calibration and the bound that is assumed
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    margin: f64,
    /// Largest magnitude of the input; from calibration if not given
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    input_bound: Option<f64>,
    /// Decide signs by this many bits of the block sums: approximate and cheaper; exact if not given
    #[arg(long, value_name = "BITS")]
    drelu_window: Option<u8>,
    /// Value to compute, for a model with several outputs
    #[arg(long, value_name = "NAME")]
    output_name: Option<String>,
    /// Print the graph after this pass (see `bcc passes`; `import` for the imported graph)
    #[arg(long, value_name = "PASS")]
    print_after: Vec<String>,
    /// Write the graph after every pass into numbered files, and the program's listing
    #[arg(long, value_name = "DIR")]
    emit_ir_dir: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct InspectArgs {
    /// Directory that `bcc compile` wrote
    directory: PathBuf,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Print every instruction of every role instead
    #[arg(long, conflicts_with = "json")]
    listing: bool,
    /// Predict seconds on a network: loopback, lan, wan, or a file
    #[arg(long, value_name = "NAME", conflicts_with = "listing")]
    network: Option<String>,
    /// Rates that `bcr rates` measured; those of one machine that this version knows if not given
    #[arg(long, value_name = "FILE", requires = "network")]
    rates: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Compile(args) => compile(&args),
        Command::Inspect(args) => inspect(&args),
        Command::Passes => {
            let lines = PASSES.iter().map(|p| format!("{:14} {}\n", p.name, p.what));
            say(&lines.collect::<String>())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            eprintln!("{report:?}");
            ExitCode::FAILURE
        }
    }
}

/// Prints and writes graphs on the way, and shows which pass is at work.
struct Watch<'a> {
    args: &'a CompileArgs,
    bar: ProgressBar,
    dumps: usize,
    failed: Option<miette::Report>,
}

impl Watch<'_> {
    fn dump(&mut self, name: &str, text: &str) {
        if let Some(dir) = &self.args.emit_ir_dir {
            let file = dir.join(format!("{:02}-{name}.txt", self.dumps));
            self.dumps += 1;
            if let Err(e) = fs::write(&file, text) {
                self.failed = Some(miette::miette!("cannot write {}: {e}", file.display()));
            }
        }
    }
}

impl Observer for Watch<'_> {
    fn begin(&mut self, pass: &Pass) {
        self.bar.set_message(format!("{}: {}", pass.name, pass.what));
    }

    fn end(&mut self, pass: Option<&Pass>, graph: &Graph) {
        let name = pass.map_or("import", |p| p.name);
        if self.args.print_after.iter().any(|p| p == name) {
            let text = format!("# after {name}\n{graph}\n");
            // With --json, standard output is for the machine.
            let print = || {
                if !self.args.json {
                    return say(&text);
                }
                eprint!("{text}");
                Ok(())
            };
            let said = self.bar.suspend(print);
            self.failed = self.failed.take().or(said.err());
        }
        if self.args.emit_ir_dir.is_some() {
            self.dump(name, &graph.to_string());
        }
    }
}

fn choice(args: &CompileArgs) -> Result<BlockChoice> {
    if let Some(budget) = &args.budget {
        let share = budget.strip_suffix('%').and_then(|s| s.trim().parse::<f64>().ok());
        return match share {
            Some(100.0) => Ok(BlockChoice::Keep),
            Some(s) if s > 0.0 && s < 100.0 => bail!(
                "--budget {budget}: this version does not choose blocks by itself; give them with --blocks HxW or \
                 --plan FILE, or keep every ReLU with --budget 100%"
            ),
            _ => bail!("--budget {budget}: write a share of the sign decisions, such as 100%"),
        };
    }
    if let Some(text) = &args.blocks {
        return Ok(BlockChoice::Uniform(parse_block(text).into_diagnostic().wrap_err("--blocks")?));
    }
    match &args.plan {
        Some(path) => Ok(BlockChoice::Plan(Plan::load(path).into_diagnostic()?)),
        None => Ok(BlockChoice::Keep),
    }
}

fn compile(args: &CompileArgs) -> Result<()> {
    if let Some(p) = args.print_after.iter().find(|p| *p != "import" && !PASSES.iter().any(|q| q.name == **p)) {
        let names: Vec<&str> = PASSES.iter().map(|p| p.name).collect();
        bail!("--print-after {p}: there is no such pass; there are import, {}", names.join(", "));
    }
    if args.drelu_window.is_some_and(|w| w < 2) {
        bail!("--drelu-window: a sign and at least one bit below it, so 2 or more");
    }
    let blocks = choice(args)?;
    let import_options = ImportOptions { output: args.output_name.clone(), ..ImportOptions::default() };
    let graph = import(&args.model, &import_options)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot import {}", args.model.display()))?;
    let shape = graph.input().map(|i| graph.node(i).shape.clone()).unwrap_or_default();
    let calibration = match &args.calib {
        Some(path) => load_images(path, &shape).into_diagnostic()?,
        None => Vec::new(),
    };
    let options = CompileOptions {
        passes: PassOptions {
            blocks,
            calibration,
            margin: args.margin,
            input_bound: args.input_bound,
            frac: args.frac,
            weight_frac: args.weight_frac,
            ring: args.ring,
        },
        lower: LowerOptions { drelu_window: args.drelu_window },
    };
    if let Some(dir) = &args.emit_ir_dir {
        make_directory(dir)?;
    }
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    let mut watch = Watch { args, bar, dumps: 0, failed: None };
    let compiled = compile_graph(graph, &options, &mut watch).into_diagnostic()?;
    watch.bar.set_message("write");
    watch.dump("program", &compiled.lowered.program.to_string());
    watch.bar.finish_and_clear();
    if let Some(e) = watch.failed {
        return Err(e);
    }
    write(&args.output, &compiled)?;
    summary(args, &compiled)
}

fn make_directory(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).into_diagnostic().wrap_err_with(|| format!("cannot create {}", dir.display()))
}

fn write(dir: &Path, compiled: &Compiled) -> Result<()> {
    make_directory(dir)?;
    save(dir, &compiled.lowered.program, &compiled.lowered.weights).into_diagnostic()?;
    let plan = compiled.plan.to_ron().into_diagnostic()?;
    let path = dir.join("plan.ron");
    fs::write(&path, plan).into_diagnostic().wrap_err_with(|| format!("cannot write {}", path.display()))
}

fn summary(args: &CompileArgs, compiled: &Compiled) -> Result<()> {
    let report = Report::new(&compiled.lowered.program)
        .map_err(|e| miette::miette!("the compiled program does not run to its end: {e:?}"))?;
    let bounds = bounds(&compiled.graph);
    if args.json {
        let json = serde_json::json!({
            "network": report.network,
            "ring": report.ring,
            "output": args.output,
            "totals": report.totals,
            "bounds": bounds,
        });
        return say(&(serde_json::to_string_pretty(&json).into_diagnostic()? + "\n"));
    }
    let t = &report.totals;
    let mut text = format!("{} -> {}\n", args.model.display(), args.output.display());
    text += &format!("  ring of {} bits, {} DReLUs, {} online rounds\n", report.ring, grouped(t.drelus), t.rounds);
    text += &format!(
        "  setup {} B once, offline {} B and online {} B per inference\n",
        grouped(t.setup_bytes),
        grouped(t.offline_bytes),
        grouped(t.online_bytes)
    );
    say(&(text + &describe(&bounds)))
}

fn describe(b: &BoundsSummary) -> String {
    let mut text = format!(
        "  bounds: {} proven, {} rest on calibration, {} follow from those\n",
        b.proven,
        b.observed.len(),
        b.derived
    );
    for o in &b.observed {
        let what = if o.block_sum { "|block sum|" } else { "|x|" };
        text += &format!("    {what} <= {:.4} at \"{}\": {} times the largest seen\n", o.bound, o.node, o.margin);
    }
    if !b.observed.is_empty() {
        text += "  an input that drives a value past such a bound gives a wrong result; a larger --margin is safer\n";
    }
    text
}

/// Writes to standard output. Where nobody reads on, as behind `head`, the rest is not written.
fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).into_diagnostic().wrap_err("cannot print"),
        _ => Ok(()),
    }
}

fn inspect(args: &InspectArgs) -> Result<()> {
    let loaded = load_program(&args.directory.join(PROGRAM_FILE)).into_diagnostic()?;
    if args.listing {
        return say(&loaded.program.to_string());
    }
    let stuck = |e| miette::miette!("the program does not run: {e:?}");
    let mut report = Report::new(&loaded.program).map_err(stuck)?;
    if let Some(network) = &args.network {
        let rates = args.rates.as_deref().map_or_else(|| Ok(default_rates()), Rates::load).into_diagnostic()?;
        let network = Network::named(network, &rates).into_diagnostic().wrap_err("--network")?;
        report.predicted = Some(Predicted::new(&loaded.program, &rates, network).map_err(stuck)?);
    }
    if args.json {
        return say(&(serde_json::to_string_pretty(&report).into_diagnostic()? + "\n"));
    }
    say(&report.table())
}
