//! Inferences in lockstep: the same values and shares as one by one, in fewer rounds.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bcc_ir::program::traffic::batch_traffic;
use bcc_ir::program::{Message, Phase, Program};
use bcc_runtime::channel::{Hooks, Recorder};
use bcc_runtime::port::Tensor;
use bcc_runtime::session::{LocalOptions, Options, RunOutput, Transport, run_local};
use common::{integers, small_network, tensor};

const COUNT: u32 = 5;

fn inputs(program: &Program) -> Vec<Tensor> {
    (0..COUNT).map(|i| tensor(&integers(40 + u64::from(i), program.input.shape[1], 500))).collect()
}

fn options(batch: u16) -> LocalOptions {
    let party = Options { batch, ..Options::default() };
    LocalOptions { party, seeds: Some([[4; 32], [5; 32], [6; 32]]), ..LocalOptions::default() }
}

/// Payloads of all messages by sender, message and inference.
type Payloads = BTreeMap<(usize, u32, u32), Vec<u8>>;

/// All payloads, and the run's result.
fn record(batch: u16, transport: Transport) -> (Payloads, RunOutput) {
    let (program, weights) = small_network();
    let log = Arc::new(Mutex::new(Payloads::new()));
    let (sink, messages) = (log.clone(), program.messages.clone());
    let recorder: Recorder = Arc::new(move |info, frame| {
        let payload = &frame[Message::HEADER as usize..];
        let one = (messages[info.message as usize].wire_bytes() - Message::HEADER) as usize;
        let mut log = sink.lock().unwrap();
        for (lane, part) in payload.chunks_exact(one).enumerate() {
            log.insert((info.from.index(), info.message, info.inference + lane as u32), part.to_vec());
        }
    });
    let mut options = LocalOptions { transport, ..options(batch) };
    options.party.hooks = Hooks { recorder: Some(recorder), tamper: None };
    let out = run_local(&program, &weights, &inputs(&program), &options).unwrap();
    let log = log.lock().unwrap().clone();
    (log, out)
}

/// Equal but for the unit that truncation may differ by under other masks.
fn close(a: &[i64], b: &[i64]) -> bool {
    a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 1).count() <= a.len() / 20
}

#[test]
fn every_batch_gives_every_input_its_output() {
    let (program, _) = small_network();
    let (_, alone) = record(1, Transport::Memory);
    for batch in [2, 3, 5, 9] {
        let [(log, out), (again, same)] = [Transport::Memory, Transport::Tcp].map(|t| record(batch, t));
        assert!(log == again, "batches of {batch}");
        assert_eq!((out.outputs.len(), same.outputs.len()), (COUNT as usize, COUNT as usize));
        for ((o, same), want) in out.outputs.iter().zip(&same.outputs).zip(&alone.outputs) {
            assert!(o.integers == same.integers && close(&o.integers, &want.integers), "batches of {batch}");
        }
        // Every lane has its own keys: what is long enough not to be equal by chance is never equal.
        let masked: Vec<_> =
            log.iter().filter(|((_, m, _), p)| p.len() >= 24 && !program.messages[*m as usize].reveal).collect();
        for (i, (a, x)) in masked.iter().enumerate() {
            assert!(masked[..i].iter().all(|(b, y)| a.1 != b.1 || x != y), "message {} repeats", a.1);
        }
        assert!(masked.len() > 50, "{}", masked.len());
    }
}

#[test]
fn batches_share_rounds_and_headers() {
    let (program, _) = small_network();
    for batch in [1u16, 2, 3, 5, 9] {
        let (_, out) = record(batch, Transport::Memory);
        assert_eq!((out.stats.inferences, out.stats.batch), (COUNT, batch.into()));
        // The last batch is of what is left.
        let starts = (0..COUNT).step_by(batch.into());
        let batches: Vec<_> = starts
            .map(|first| batch_traffic(&program, (COUNT - first).min(batch.into()) as u16).unwrap().total)
            .collect();
        for (phase, got) in [(Phase::Offline, &out.stats.phases.offline), (Phase::Online, &out.stats.phases.online)] {
            let p = phase.index();
            assert!(batches.iter().all(|t| t.rounds[p] == got.rounds));
            let sent = [0, 1, 2].map(|role| batches.iter().map(|t| t.bytes[p][role]).sum::<u64>());
            assert_eq!([got.bytes.client, got.bytes.server, got.bytes.dealer], sent, "{phase}, batches of {batch}");
        }
    }
}

/// Made in batches of two, used in batches of three.
#[test]
fn stored_material_serves_any_batch() {
    let (program, weights) = small_network();
    let fresh = run_local(&program, &weights, &inputs(&program), &options(1)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let with = |batch| {
        let mut options = LocalOptions { seeds: None, ..options(batch) };
        options.party.material = Some(dir.path().into());
        options
    };
    run_local(&program, &weights, &[], &LocalOptions { prepare: Some(COUNT), ..with(2) }).unwrap();
    let stored = LocalOptions { stored: true, ..with(3) };
    let out = run_local(&program, &weights, &inputs(&program), &stored).unwrap();
    for (o, want) in out.outputs.iter().zip(&fresh.outputs) {
        assert!(close(&o.integers, &want.integers));
    }
    assert!(run_local(&program, &weights, &inputs(&program)[..1], &stored).is_err());
}
