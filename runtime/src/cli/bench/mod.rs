//! Whole programs, measured: sessions of `bcr run`, each in fresh processes.

mod report;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bcc_ir::program::{Port, Role};
use bcc_ir::time::{Rates, default_rates};
use bcc_runtime::stats::Stats;
use miette::{IntoDiagnostic, Result, WrapErr, miette};
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::WriteNpyExt;

use self::report::{Report, Session};
use super::args::Bench;
use super::data::say;
use super::profile::Profile;
use super::{WARNING, network, options, program, progress, warn};

/// `bcr bench`.
pub fn bench(a: &Bench) -> Result<()> {
    let loaded = program(&a.common.dir)?;
    let mut options = options(&a.common, true)?;
    let rates = a.rates.as_deref().map_or_else(|| Ok(default_rates()), Rates::load).into_diagnostic()?;
    let (mut network, _) = network(&a.common, &rates)?;
    // Whatever lies between them, all parties are on this machine.
    network.shared_cores = network.shared_cores.or(Some(rates.measured.cores));
    let kernels = options.kernels.name();
    let scratch = tempfile::tempdir().into_diagnostic().wrap_err("cannot make a temporary directory")?;
    let scratch = scratch.path();
    let input = match &a.input {
        Some(file) => file.clone(),
        None => numbers(&loaded.program.input, a.batch, scratch)?,
    };
    let state = options.state.clone().unwrap_or_else(|| scratch.join("state"));
    warn();
    let bar = progress(a.runs as usize + 1, &mut options);
    let mut sessions = Vec::new();
    for number in 0..=a.runs {
        let failed = || match a.batch {
            1 => format!("session {number}"),
            many => format!("session {number}, of {many} inputs"),
        };
        sessions.push(session(a, &input, &state, scratch).wrap_err_with(failed)?);
        bar.set_position(u64::from(number) + 1);
    }
    bar.finish_and_clear();
    let stuck = |e| miette!("the program does not run: {e:?}");
    let first = sessions.remove(0);
    let mut report = Report::new(&loaded.program, &rates, network, a.batch, first, &sessions).map_err(stuck)?;
    report.kernels = kernels.into();
    report.input = a.input.as_ref().map(|p| p.display().to_string());
    if a.json {
        say(&(serde_json::to_string_pretty(&report).into_diagnostic()? + "\n"))?;
    } else {
        say(&report.text(a.layers))?;
    }
    report.difference().map_or(Ok(()), Err).into_diagnostic()
}

/// One session of one batch.
fn session(a: &Bench, input: &Path, state: &Path, scratch: &Path) -> Result<Session> {
    let stats = scratch.join("stats.json");
    let mut command = Command::new(std::env::current_exe().into_diagnostic()?);
    let batch = a.batch.to_string();
    command.arg("run").arg(&a.common.dir).arg("--input").arg(input).args(["--count", &batch, "--batch", &batch]);
    command.arg("--state").arg(state).arg("--stats").arg(&stats).arg("--profile").arg(scratch);
    command.args(["--timeout", &a.common.timeout.to_string()]);
    if let Some(file) = &a.preprocess {
        command.arg("--preprocess").arg(file);
    }
    if let Some(n) = a.common.threads {
        command.args(["--threads", &n.to_string()]);
    }
    if let Some(network) = &a.common.network {
        command.args(["--network", network]);
    }
    let ended = command.stdin(Stdio::null()).output().into_diagnostic().wrap_err("cannot start bcr run")?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr).replace(WARNING, "");
        return Err(miette!("bcr run failed:\n{}", said.trim().trim_start_matches("Error:").trim_start()));
    }
    let bytes = std::fs::read(&stats).into_diagnostic().wrap_err("bcr run left no statistics")?;
    let stats: Stats = serde_json::from_slice(&bytes).into_diagnostic()?;
    let [client, server, dealer] = Role::ALL.map(|role| Profile::load(&Profile::path(scratch, role)));
    Ok(Session { stats, profiles: [client?, server?, dealer?] })
}

/// Pseudo-random numbers over a port's range, so many inputs, as a file.
fn numbers(port: &Port, inputs: u16, directory: &Path) -> Result<PathBuf> {
    // A bound may be beyond what the modulus holds.
    let held = (2f64.powi(i32::from(port.modulus) - 1) - 1.0) * (port.gain / 2f64.powi(i32::from(port.frac))).abs();
    let largest = port.bound.min(held * (1.0 - 1e-9));
    let mut state = 1u64;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = (z ^ (z >> 31)) as f64 / u64::MAX as f64;
        largest * (2.0 * unit - 1.0)
    };
    let mut shape = port.shape.clone();
    shape.first_mut().into_iter().for_each(|n| *n = inputs.into());
    let values = (0..shape.iter().product()).map(|_| next()).collect();
    let array: ArrayD<f64> = ArrayD::from_shape_vec(IxDyn(&shape), values).into_diagnostic()?;
    let path = directory.join("x.npy");
    let failed = || format!("cannot write {}", path.display());
    let file = std::fs::File::create(&path).into_diagnostic().wrap_err_with(failed)?;
    array.write_npy(std::io::BufWriter::new(file)).into_diagnostic().wrap_err_with(failed)?;
    Ok(path)
}
