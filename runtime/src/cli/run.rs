//! All three parties on this machine: the client here, server and dealer as child processes on
//! loopback TCP, or all as threads.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bcc_ir::program::Role;
use bcc_ir::program::file::Loaded;
use bcc_runtime::port::encode;
use bcc_runtime::session::{
    Job, LocalOptions, Options, Output, Party, PartyOutput, SessionError, run_local, run_party,
};
use bcc_runtime::stats::Stats;
use miette::{IntoDiagnostic, Report, Result, WrapErr, miette};

use super::args::{Common, Prepare, Run};
use super::profile::Profile;
use super::{data, options, party, program, progress, report, warn, weights};

/// `bcr run`.
pub fn run(a: Run) -> Result<()> {
    let loaded = program(&a.common.dir)?;
    let mut options =
        Options { material: a.material.clone(), batch: a.data.batch, ..options(&a.common, !a.in_memory)? };
    let inputs = data::inputs(&a.data, &loaded.program.input)?;
    let bar = progress(inputs.len(), &mut options);
    let result = if a.in_memory {
        let weights = weights(&a.common.dir, &loaded)?;
        let stored = a.material.is_some();
        let local = LocalOptions { party: options, digest: loaded.digest, stored, ..LocalOptions::default() };
        let done = run_local(&loaded.program, &weights, &inputs, &local).map_err(report);
        done.map(|o| Finished { outputs: o.outputs, stats: o.stats, trouble: None })
    } else {
        for (number, x) in inputs.iter().enumerate() {
            // Before anything is started.
            let checked = encode(&loaded.program.input, x);
            checked.map_err(|source| report(SessionError::Input { number, source }))?;
        }
        warn();
        let job = Job::Infer { inputs, stored: a.material.is_some() };
        processes(&a.common, &loaded, options, job, a.profile.as_deref())
    };
    bar.finish_and_clear();
    let Finished { outputs, stats, trouble } = result?;
    data::report(&a.data, &outputs, &stats, trouble)
}

/// `bcr prepare` for all three parties.
pub fn prepare(a: &Prepare) -> Result<()> {
    let loaded = program(&a.common.dir)?;
    let mut options = Options { material: Some(a.material.clone()), batch: a.batch, ..options(&a.common, true)? };
    warn();
    let bar = progress(a.count as usize, &mut options);
    let result = processes(&a.common, &loaded, options, Job::Prepare { count: a.count }, None);
    bar.finish_and_clear();
    let Finished { stats, trouble, .. } = result?;
    trouble.map_or_else(|| data::say(&data::describe(&stats)), Err)
}

/// A party in a process of its own. Killed when dropped.
struct Process {
    role: Role,
    child: Child,
    address: String,
    complaints: Option<JoinHandle<String>>,
}

impl Process {
    fn start(role: Role, common: &Common, more: &[(&str, Option<&Path>)], dealer: Option<&str>) -> Result<Process> {
        let timeout = common.timeout.to_string();
        let mut command = Command::new(std::env::current_exe().into_diagnostic()?);
        command.arg(role.to_string()).arg(&common.dir);
        command.args(["--listen", "127.0.0.1:0", "--announce", "--timeout", &timeout, "--wait", &timeout]);
        for (name, value) in more {
            if let Some(value) = value {
                command.arg(name).arg(value);
            }
        }
        if let Some(network) = &common.network {
            command.args(["--network", network]);
        }
        if let Some(n) = common.threads {
            command.args(["--threads", &n.to_string()]);
        }
        if let Some(dealer) = dealer {
            command.args(["--dealer", dealer]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().into_diagnostic().wrap_err_with(|| format!("cannot start the {role}"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let complaints = thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut stderr) = stderr {
                // What came before a failure is all there is to report.
                let _ = stderr.read_to_string(&mut text);
            }
            text
        });
        let mut process = Process { role, child, address: String::new(), complaints: Some(complaints) };
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut process.address).into_diagnostic()?;
        }
        process.address.truncate(process.address.trim_end().len());
        if process.address.is_empty() {
            let (_, text) = process.end(Duration::from_secs(2));
            return Err(miette!("the {role} did not start:\n{}", text.trim_end()));
        }
        Ok(process)
    }

    /// Waits for its end, and kills it if that takes too long. Returns its status, unless it was
    /// killed here, and what it wrote.
    fn end(&mut self, patience: Duration) -> (Option<ExitStatus>, String) {
        let deadline = Instant::now() + patience;
        let mut status = None;
        while status.is_none() && Instant::now() < deadline {
            status = self.child.try_wait().ok().flatten();
            if status.is_none() {
                thread::sleep(Duration::from_millis(5));
            }
        }
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let text = self.complaints.take().and_then(|t| t.join().ok()).unwrap_or_default();
        (status, text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.complaints.is_some() {
            self.end(Duration::ZERO);
        }
    }
}

/// A session that got to its outputs.
struct Finished {
    outputs: Vec<Output>,
    stats: Stats,
    /// What went wrong after that.
    trouble: Option<Report>,
}

/// The client in this process, the others in processes of their own. `profile` is a directory for what each did.
fn processes(common: &Common, loaded: &Loaded, options: Options, job: Job, profile: Option<&Path>) -> Result<Finished> {
    let profile = |role: Role| profile.map(|directory| Profile::path(directory, role));
    let sub = |d: &Option<PathBuf>, role: Role| d.as_ref().map(|d| d.join(role.to_string()));
    let mut processes = Vec::new();
    let stored = matches!(job, Job::Infer { stored: true, .. });
    if !stored {
        let (state, profile) = (sub(&options.state, Role::Dealer), profile(Role::Dealer));
        let more = [("--state", state.as_deref()), ("--profile", profile.as_deref())];
        processes.push(Process::start(Role::Dealer, common, &more, None)?);
    }
    let dealer = processes.first().map(|p| p.address.clone());
    let (state, material) = (sub(&options.state, Role::Server), sub(&options.material, Role::Server));
    let saved = profile(Role::Server);
    let more = [("--state", state.as_deref()), ("--material", material.as_deref()), ("--profile", saved.as_deref())];
    processes.push(Process::start(Role::Server, common, &more, dealer.as_deref())?);
    let options =
        Options { state: sub(&options.state, Role::Client), material: sub(&options.material, Role::Client), ..options };
    let endpoints = processes.iter().rev().map(|p| party::dial(p.role, &p.address, &options)).collect();
    let me =
        Party { role: Role::Client, program: &loaded.program, digest: loaded.digest, weights: None, options: &options };
    let result = run_party(me, job, endpoints);
    // A peer that waits for somebody hears from this client that it stopped, and stops too.
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut end = |p: &mut Process| (p.role, p.end(deadline.saturating_duration_since(Instant::now())));
    let ends: Vec<_> = processes.iter_mut().map(&mut end).collect();
    match result {
        Ok(PartyOutput { outputs, stats, meter, unfinished }) => {
            profile(Role::Client).map_or(Ok(()), |path| Profile::new(&meter).save(&path))?;
            let failed = ends.iter().find(|(_, (s, _))| !s.is_some_and(|s| s.success()));
            let failed = failed.map(|(role, (_, text))| miette!("the {role} failed at the end:\n{}", text.trim_end()));
            let trouble = unfinished.map(|e| explain(e, ends)).or(failed);
            Ok(Finished { outputs, stats, trouble })
        }
        Err(e) => Err(explain(e, ends)),
    }
}

/// The client's error, and what the others said.
fn explain(error: SessionError, ends: Vec<(Role, (Option<ExitStatus>, String))>) -> Report {
    let mut notes = Vec::new();
    for (role, (status, text)) in ends {
        match status {
            Some(s) if s.success() => {}
            Some(s) if s.code().is_none() => notes.push(format!("the {role}'s process was killed ({s})")),
            Some(_) => notes.push(format!("the {role} said: {}", text.trim())),
            None => notes.push(format!("the {role} did not end by itself and was stopped")),
        }
    }
    if notes.is_empty() { report(error) } else { miette!(help = notes.join("\n"), "{error}") }
}
