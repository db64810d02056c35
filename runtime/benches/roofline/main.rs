//! What this machine can do at most, and what a program takes at least at that.
//!
//! `cargo bench -p bcc-runtime --bench roofline -- [--json] [OUT]`, `OUT` a folder with a compiled program.
#![allow(missing_docs)]

mod bound;
mod peak;
mod rates;
mod shapes;
mod tiles;

use std::path::PathBuf;

use bcc_ir::program::file::{PROGRAM_FILE, load_program};
use bcc_ir::program::{Phase, Role};
use bcc_ir::time::Count;
use bcc_runtime::kernels::{self, KernelSet};
use bcc_runtime::rates::machine;
use bound::Needs;
use clap::Parser;
use miette::{IntoDiagnostic, miette};
use rates::{Rates, measure};
use shapes::Share;

/// What this machine can do at most, and what a program takes at least at that.
#[derive(Parser)]
struct Args {
    /// Folder with a compiled program; cargo runs benches in the folder of their package.
    out: Option<PathBuf>,
    /// Measures convolutions of ResNet-50 instead, in one core, as shares of their inner loop.
    #[arg(long, conflicts_with = "out")]
    shapes: bool,
    /// Kernel set of those convolutions; the fastest if not given. A wrong name lists them.
    #[arg(long, requires = "shapes", value_name = "NAME")]
    kernels: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Runs of which the median counts.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn print_rates(rates: &Rates) {
    println!("{}, {} cores", machine(), rates.cores);
    println!("{:16} {:>12} {:>12} {:>12}  billion a second", "", "one core", "all cores", "best");
    for r in &rates.rates {
        let [one, all, best] = [r.one, r.all, r.best].map(|v| v / 1e9);
        println!("{:16} {one:12.2} {all:12.2} {best:12.2}  {}", r.name, r.unit);
    }
    println!("{:16} {:12.1}  microseconds", "round trip", 1e6 * rates.rtt_seconds);
}

fn print_shares(shares: &[Share]) {
    println!(
        "{:36} {:>4} {:>7} {:>8} {:>8}  billion a second  share  of bound  in turn",
        "", "bits", "weights", "median", "best"
    );
    for s in shares {
        let weights = if s.narrow { "narrow" } else { "wide" };
        let [median, best] = [s.macs, s.best].map(|v| v / 1e9);
        println!(
            "{:36} {:4} {weights:>7} {median:8.2} {best:8.2} {:22.0} % {:7.0} % {:6.0} %",
            s.shape,
            s.bits,
            100.0 * s.share,
            100.0 * s.bound,
            100.0 * s.in_turn
        );
    }
}

fn print_needs(needs: &Needs) {
    type Row = (&'static str, fn(&Count) -> u64);
    let rows: [Row; 8] = [
        ("wide macs", |c| c.wide_macs),
        ("narrow macs", |c| c.narrow_macs),
        ("digit products", |c| c.digit_products),
        ("byte products", |c| c.byte_products),
        ("bytes drawn", |c| c.drawn_bytes),
        ("bytes sent", |c| c.sent_bytes),
        ("bytes read", |c| c.read_bytes),
        ("bytes written", |c| c.written_bytes),
    ];
    for (phase, b) in Phase::ALL.into_iter().zip(&needs.bounds) {
        println!("\n{phase:16} {:>10} {:>10} {:>10} {:>10}  million", "client", "server", "dealer", "all");
        for (name, of) in rows {
            let parts = Role::ALL.map(|r| of(needs.counts.of(r, phase)) as f64 / 1e6);
            let [client, server, dealer] = parts;
            println!("{name:16} {client:10.1} {server:10.1} {dealer:10.1} {:10.1}", parts.iter().sum::<f64>());
        }
        println!("{:16} {:>43}", "rounds", needs.rounds[phase.index()]);
        let seconds = [
            ("products", b.products),
            ("randomness", b.randomness),
            ("links", b.links),
            ("rounds", b.rounds),
            ("passes, l2", b.passes_l2),
            ("passes, memory", b.passes_memory),
            ("least", b.least),
            ("  from memory", b.least_from_memory),
            ("sum", b.sum),
            ("  from memory", b.sum_from_memory),
        ];
        seconds.iter().for_each(|(name, s)| println!("{name:16} {s:43.4}  s"));
    }
}

/// The kernel set of a name.
fn kernel_set(name: &str) -> miette::Result<KernelSet> {
    let all = kernels::available();
    let names: Vec<&str> = all.iter().map(|set| set.name()).collect();
    let found = all.iter().find(|set| set.name() == name);
    found.copied().ok_or_else(|| miette!("this processor has no kernels {name:?}; it has {}", names.join("; ")))
}

fn main() -> miette::Result<()> {
    let args = Args::parse();
    if args.shapes {
        let set = match &args.kernels {
            Some(name) => kernel_set(name)?,
            None => kernels::best(),
        };
        let shares = shapes::measure(set, args.runs);
        match args.json {
            true => println!("{}", serde_json::to_string_pretty(&shares).into_diagnostic()?),
            false => print_shares(&shares),
        }
        return Ok(());
    }
    // A program that cannot be read is known before the machine is measured.
    let program =
        args.out.map(|out| load_program(&out.join(PROGRAM_FILE))).transpose().into_diagnostic()?.map(|l| l.program);
    let rates = measure(args.runs.max(1)).into_diagnostic()?;
    let needs = program.as_ref().map(|p| bound::needs(p, &rates));
    if args.json {
        let all = serde_json::json!({ "machine": machine(), "rates": rates, "program": needs });
        println!("{}", serde_json::to_string_pretty(&all).into_diagnostic()?);
    } else {
        print_rates(&rates);
        needs.iter().for_each(print_needs);
    }
    Ok(())
}
