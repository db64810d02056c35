//! Measures how long this machine takes for every kind of work: what [`bcc_ir::time::Rates`] hold.
//!
//! The real kernels run on random operands of the sizes of common layers, or of strips of them, through the functions
//! that the interpreter calls, results in memory that is at hand, with one thread in the pool; other processors do the
//! same meanwhile, as those of parties do. Every kind of work
//! has a *small* case, which shows what a call costs, and a *large* one; kinds that occur together
//! (a convolution's multiplications, gathered operands and weights; pixels of blocks and their rows)
//! have cases in which one of them outweighs the others. How much longer kernels take in a session shows a small network.
//! Other programs only ever add time, so the
//! lower quartile of a case's runs counts.

mod cases;
mod link;
mod load;
pub mod session;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bcc_ir::program::file::FileError;
use bcc_ir::time::{Kind, Loopback, Measured, Rate, Rates};
use thiserror::Error;

use crate::channel::LinkError;
use crate::kernels::KernelSet;
use crate::session::SessionError;
use cases::{Case, Size, cases};

/// Why rates cannot be measured.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// Rates are of one core.
    #[error("rates are measured on one thread, and the pool has {0}; start it with one")]
    Threads(usize),
    /// No connection from this machine to itself.
    #[error("cannot measure the loopback network: {0}")]
    Loopback(#[from] LinkError),
    /// The built-in network's program cannot be read.
    #[error("cannot run the built-in network: {0}; build bcr anew")]
    Program(#[from] FileError),
    /// The built-in network's program does not get to its end.
    #[error("cannot predict the built-in network; build bcr anew")]
    Unpredicted,
    /// The built-in network's session ended.
    #[error("cannot run the built-in network: {0}")]
    Session(#[from] SessionError),
    /// The other end of the loopback connection ended.
    #[error("the loopback network's other end stopped; try again")]
    Stopped,
}

/// Runs of a case.
const RUNS: usize = 25;
/// Shortest time of a run: short calls are repeated.
const RUN: Duration = Duration::from_micros(300);
/// Longest time for a case's runs.
const LIMIT: Duration = Duration::from_millis(150);
/// How often the kinds that occur together are told apart anew.
const SWEEPS: usize = 30;

/// Lower quartile.
fn quartile(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 4).copied().unwrap_or(0.0)
}

/// Seconds of a call.
fn seconds(mut call: impl FnMut()) -> f64 {
    let begin = Instant::now();
    call();
    let once = begin.elapsed().max(Duration::from_nanos(50));
    let repeat = (RUN.as_nanos() / once.as_nanos()).clamp(1, 10_000) as u32;
    let mut times = Vec::new();
    while times.len() < RUNS && (times.len() < 3 || begin.elapsed() < LIMIT) {
        let start = Instant::now();
        (0..repeat).for_each(|_| call());
        times.push(start.elapsed().as_secs_f64() / f64::from(repeat));
    }
    quartile(times)
}

/// Measures on the thread pool, which must have a single thread: convolutions are handed to it, as in a
/// session. `progress` hears how many of how many steps are done.
pub fn measure(kernels: KernelSet, progress: &mut dyn FnMut(usize, usize)) -> Result<Rates, MeasureError> {
    let threads = rayon::current_num_threads();
    if threads != 1 {
        return Err(MeasureError::Threads(threads));
    }
    let cases = cases();
    let steps = cases.len() + 2;
    let mut times = Vec::with_capacity(cases.len());
    for (i, case) in cases.iter().enumerate() {
        progress(i, steps);
        let call = || case.prepare(kernels);
        times.push(load::beside(load::busy() - 1, call, || seconds(call())));
    }
    let mut rates = fit(&cases, &times);
    rates.insert(Kind::FreshBytes, fresh());
    progress(cases.len(), steps);
    let link = link::measure()?;
    rates.insert(Kind::SentBytes, link.sent);
    rates.insert(Kind::ReceivedBytes, link.received);
    rates.insert(Kind::PackedBytes, link.packed);
    rates.insert(Kind::UnpackedBytes, link.unpacked);
    progress(cases.len() + 1, steps);
    let (cores, share_seconds) = cores(kernels, &cases);
    let measured = Measured {
        machine: machine(),
        kernels: kernels.name().into(),
        cores,
        session_part: 0.0,
        share_seconds,
        how: format!(
            "bcr rates: lower quartile of up to {RUNS} runs of the real kernels on up to four processors at the same time; a short and \
             a long call of each kind, convolutions of six shapes, blocks of 1x1 and 5x5, randomness of planes and of \
             20 bits; messages of both by processor time; sessions of three convolutions with ReLUs"
        ),
    };
    let mut rates = Rates { measured, loopback: link.loopback, rates };
    let part = session::part(kernels, &rates)?;
    rates.measured.session_part = (100.0 * part).round() / 100.0;
    progress(steps, steps);
    Ok(rates)
}

/// By how much a pool of as many threads as a session keeps processors busy is faster than one of a thread at a large
/// convolution, and by how much longer its threads take for a small one when they have been asleep; medians of five.
/// Threads share caches and memory, may share a core, are busy with other programs, and wait for each other at the end of
/// every call.
fn cores(kernels: KernelSet, cases: &[Case]) -> (f64, f64) {
    // Long enough for other programs to get their turn.
    const LONG: Duration = Duration::from_millis(40);
    // Long enough for threads to fall asleep, as those of a party do that waits for a message.
    const IDLE: Duration = Duration::from_millis(1);
    let all = load::busy();
    let Some(small) = cases.iter().find(|c| c.kind == Kind::ConvMacs && c.size == Size::Large) else {
        return (1.0, 0.0);
    };
    let large = cases::large_convolution();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok();
    let (Some(one), Some(many)) = (pool(1), pool(all)) else { return (1.0, 0.0) };
    let median = |of: &dyn Fn() -> f64| {
        let mut values: Vec<f64> = (0..5).map(|_| of()).collect();
        values.sort_by(f64::total_cmp);
        values.get(2).copied().unwrap_or(0.0)
    };
    // Calls per second, of one thread as rates are measured.
    let speed = |pool: &rayon::ThreadPool| {
        pool.install(|| {
            let mut call = large.prepare(kernels);
            let (start, mut calls) = (Instant::now(), 0u32);
            while start.elapsed() < LONG {
                call();
                calls += 1;
            }
            f64::from(calls) / start.elapsed().as_secs_f64()
        })
    };
    let alone = || load::beside(all - 1, || large.prepare(kernels), || speed(&one));
    let ratio = median(&|| speed(&many) / alone().max(f64::MIN_POSITIVE));
    let cores = ((10.0 * ratio).round() / 10.0).clamp(1.0, all as f64);
    // Seconds of a call behind a wait.
    let waking = |pool: &rayon::ThreadPool| {
        pool.install(|| {
            let mut call = small.prepare(kernels);
            let times = (0..RUNS).map(|_| {
                std::thread::sleep(IDLE);
                let start = Instant::now();
                call();
                start.elapsed().as_secs_f64()
            });
            quartile(times.collect())
        })
    };
    let share = if all > 1 { median(&|| waking(&many) - waking(&one) / cores) } else { 0.0 };
    (cores, (share.max(0.0) * 1e6).round() / 1e6)
}

/// Memory from the system: more than the allocator keeps for itself.
fn fresh() -> Rate {
    const BYTES: usize = 1 << 26;
    let time = seconds(|| {
        let mut all = vec![0u8; BYTES];
        all.iter_mut().step_by(4096).for_each(|b| *b = 1);
        std::hint::black_box(&all);
    });
    Rate { call_ns: 0.0, unit_ns: (1e13 * time / BYTES as f64).round() / 1e4 }
}

/// Rates that explain the cases: each kind in turn from its own cases, less what the others take.
fn fit(cases: &[Case], times: &[f64]) -> BTreeMap<Kind, Rate> {
    let none = Loopback { bytes_per_second: 1.0, rtt_seconds: 1.0 };
    let mut rates = Rates { measured: Measured::default(), loopback: none, rates: BTreeMap::new() };
    for _ in 0..SWEEPS {
        for kind in Kind::ALL {
            let of = |size: Size| {
                let (case, time) = cases.iter().zip(times).find(|(c, _)| c.kind == kind && c.size == size)?;
                let mut others = rates.clone();
                others.rates.insert(kind, Rate::default());
                Some((case.work.units(kind) as f64, 1e9 * (time - others.seconds(&case.work))))
            };
            let rate = match (of(Size::Small), of(Size::Large)) {
                (Some((few, short)), Some((many, long))) => {
                    let call_ns = ((short * many - long * few) / (many - few)).max(0.0);
                    Rate { call_ns, unit_ns: ((long - call_ns) / many).max(0.0) }
                }
                (None, Some((many, long))) => Rate { call_ns: 0.0, unit_ns: (long / many).max(0.0) },
                _ => continue,
            };
            rates.rates.insert(kind, rate);
        }
    }
    let short = |v: f64| (v * 1e5).round() / 1e5;
    rates.rates.values_mut().for_each(|r| *r = Rate { call_ns: r.call_ns.round(), unit_ns: short(r.unit_ns) });
    rates.rates
}

/// Processor and system, as far as they say.
pub fn machine() -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("model name"))?;
        line.split_once(':').map(|(_, name)| name.trim().to_string())
    });
    let name = processor.unwrap_or_else(|| "unknown processor".into());
    format!("{name}, {} {}", std::env::consts::ARCH, std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured without a case.
    fn elsewhere(kind: Kind) -> bool {
        let messages = [Kind::SentBytes, Kind::ReceivedBytes, Kind::PackedBytes, Kind::UnpackedBytes];
        kind == Kind::FreshBytes || messages.contains(&kind)
    }

    #[test]
    fn every_local_kind_has_a_large_case_that_counts_it() {
        let cases = cases();
        for kind in Kind::ALL {
            let case = cases.iter().find(|c| c.kind == kind && c.size == Size::Large);
            match kind {
                _ if elsewhere(kind) => assert!(case.is_none()),
                _ => assert!(case.is_some_and(|c| c.work.units(kind) > 0), "{}", kind.name()),
            }
        }
    }

    #[test]
    fn the_fit_finds_the_rates_that_made_the_times() {
        let cases = cases();
        let rate = |k: Kind| {
            let alone = cases.iter().any(|c| c.kind == k && c.size == Size::Small);
            Rate { call_ns: if alone { 100.0 } else { 0.0 }, unit_ns: 0.25 * (1 + k.index() % 5) as f64 }
        };
        let want: BTreeMap<Kind, Rate> =
            Kind::ALL.into_iter().filter(|k| !elsewhere(*k)).map(|k| (k, rate(k))).collect();
        let rates = Rates {
            measured: Measured::default(),
            loopback: Loopback { bytes_per_second: 1.0, rtt_seconds: 1.0 },
            rates: want.clone(),
        };
        let times: Vec<f64> = cases.iter().map(|c| rates.seconds(&c.work)).collect();
        assert_eq!(fit(&cases, &times), want);
    }

    #[test]
    fn quartiles() {
        assert_eq!(quartile(vec![4.0, 1.0, 3.0, 2.0]), 2.0);
        assert_eq!(quartile(Vec::new()), 0.0);
    }
}
