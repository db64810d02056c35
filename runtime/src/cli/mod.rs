//! The commands.

pub mod args;
mod bench;
mod data;
mod party;
mod profile;
mod rates;
mod run;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use args::{Cli, Command, Common};
use bcc_ir::program::file::{Loaded, PROGRAM_FILE, WEIGHTS_FILE, Weights, load_program};
use bcc_ir::time::{Network, Rates, default_rates};
use bcc_runtime::channel::Shape;
use bcc_runtime::session::{Options, SessionError};
use indicatif::{ProgressBar, ProgressStyle};
use miette::{IntoDiagnostic, Result, WrapErr, miette};

/// Runs a command.
pub fn main(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run(a) => run::run(a),
        Command::Bench(a) => bench::bench(&a),
        Command::Prepare(a) => match (&a.server, &a.dealer) {
            (Some(server), Some(dealer)) => party::prepare(&a, server, dealer),
            _ => run::prepare(&a),
        },
        Command::Client(a) => party::client(a),
        Command::Server(a) => party::server(a),
        Command::Dealer(a) => party::dealer(a),
        Command::Rates(a) => rates::rates(&a),
    }
}

fn program(dir: &Path) -> Result<Loaded> {
    load_program(&dir.join(PROGRAM_FILE)).into_diagnostic()
}

fn weights(dir: &Path, loaded: &Loaded) -> Result<Weights> {
    Weights::load(&dir.join(WEIGHTS_FILE), &loaded.program, loaded.digest).into_diagnostic()
}

/// Longest wait that can be asked for: times add up to points in time that must exist.
const LONGEST: Duration = Duration::from_secs(100_000_000);

fn seconds(value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|d| !d.is_zero() && *d <= LONGEST)
        .ok_or_else(|| miette!("{value} is no time to wait; give a positive number of seconds, at most {LONGEST:?}"))
}

/// Sets the threads up and takes over what the common options say. Where this thread is to be the only party of the
/// process it is one of those that compute, so that short work need not be handed to another. To be called before
/// anything is computed.
fn options(common: &Common, only_party: bool) -> Result<Options> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(common.threads.unwrap_or(0));
    let pool = if only_party { pool.use_current_thread() } else { pool };
    pool.build_global().into_diagnostic()?;
    let (_, shape) = network(common, &default_rates())?;
    Ok(Options { timeout: seconds(common.timeout)?, state: common.state.clone(), shape, ..Options::default() })
}

/// The network asked for, and what is imposed for it. This machine's own one is there already.
fn network(common: &Common, rates: &Rates) -> Result<(Network, Option<Shape>)> {
    let name = common.network.as_deref().unwrap_or("loopback");
    let network = Network::named(name, rates).into_diagnostic().wrap_err("--network")?;
    let shape = (name != "loopback").then(|| Shape::new(&network)).transpose();
    Ok((network, shape.into_diagnostic().wrap_err("--network")?))
}

/// A bar of inferences, on a terminal only.
fn progress(count: usize, options: &mut Options) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos}/{len} inferences [{elapsed}] {msg}");
    let bar = ProgressBar::new(count as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    let shared = bar.clone();
    options.progress = Some(Arc::new(move |done| shared.set_position(u64::from(done))));
    bar
}

/// The links protect nobody yet.
const WARNING: &str = "bcr: links are neither authenticated nor encrypted; use them only where you trust the network";

fn warn() {
    eprintln!("{WARNING}");
}

fn report(error: SessionError) -> miette::Report {
    Err::<(), _>(error).into_diagnostic().expect_err("made from an error")
}
