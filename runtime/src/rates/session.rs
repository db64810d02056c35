//! What a session takes beyond its kernels: three parties run a small network.
//!
//! Kernels are measured one by one, again and again. In a session steps, strips and memory are looked after between them,
//! threads wait for each other at the end of steps, and what a kernel reads is in the caches of whoever wrote it, or in
//! memory. So kernels take longer there, by about the same part whatever the network: it is found as the part by which
//! the model's kernels must take longer for it to predict what this network takes.

use std::path::Path;

use bcc_ir::program::file::decode_program;
use bcc_ir::program::{Phase, Program, Type, Width};
use bcc_ir::time::{Network, Rates, predict};

use super::MeasureError;
use super::load::processors;
use crate::kernels::KernelSet;
use crate::port::Tensor;
use crate::prg::{Key, draw};
use crate::session::{LocalOptions, Options, Transport, run_local};

/// The program of the network `conv_relus` of `bcc-models`, made by
/// `bcc compile --input-bound 1 --frac 6 --weight-frac 6`. Its weights are drawn: times do not depend on values.
pub const PROGRAM: &[u8] = include_bytes!("session.bcc");

/// Sessions, of which the median counts.
const SESSIONS: usize = 9;
/// The part is between these: beyond them other programs were at work. It is negative where kernels are held up by each
/// other, all of them at work, more than a session is.
const PARTS: [f64; 2] = [-0.5, 2.0];
/// Halvings of the interval that the part is in.
const HALVINGS: usize = 16;

/// The part, for rates whose own is none.
pub fn part(kernels: KernelSet, rates: &Rates) -> Result<f64, MeasureError> {
    let program = decode_program(Path::new("session.bcc"), PROGRAM)?.program;
    let measured = seconds(kernels, &program)?;
    let mut rates = rates.clone();
    let [mut low, mut high] = PARTS;
    for _ in 0..HALVINGS {
        rates.measured.session_part = (low + high) / 2.0;
        let all = predict(&program, &rates, &Network::loopback(&rates)).map_err(|_| MeasureError::Unpredicted)?;
        let predicted = all.phase(Phase::Offline).path.total() + all.phase(Phase::Online).path.total();
        *(if predicted < measured { &mut low } else { &mut high }) = rates.measured.session_part;
    }
    Ok((low + high) / 2.0)
}

/// Seconds of an inference, offline and online.
fn seconds(kernels: KernelSet, program: &Program) -> Result<f64, MeasureError> {
    let weight = |(i, len): (u32, usize)| -> Vec<i64> {
        let words = draw(&Key::new([7; 16]), i, Type::Ring { bits: 16, len }, Width::Wide).words();
        words.into_iter().map(|v| i64::from(v as i16)).collect()
    };
    let lengths = program.weights.iter().map(|w| w.len);
    let weights: Vec<Vec<i64>> = (0..).zip(lengths).map(weight).collect();
    let shape = program.input.shape.clone();
    let zeros = [Tensor { data: vec![0.0; shape.iter().product()], shape }];
    let party = Options { kernels, ..Options::default() };
    let threads = Some(processors());
    let options = LocalOptions { party, transport: Transport::Tcp, threads, ..LocalOptions::default() };
    let mut times = Vec::new();
    for _ in 0..SESSIONS {
        let phases = run_local(program, &weights, &zeros, &options)?.stats.phases;
        times.push(phases.offline.seconds + phases.online.seconds);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[SESSIONS / 2])
}
