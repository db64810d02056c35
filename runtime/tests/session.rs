//! Whole sessions: transports, stored setup and material, and everything that can go wrong.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bcc_ir::program::traffic::traffic;
use bcc_ir::program::{Message, Phase, Program, Role};
use bcc_ir::time::Network;
use bcc_runtime::channel::{Fate, FrameInfo, Hooks, Link, Shape, Tamper, memory_pair};
use bcc_runtime::kernels;
use bcc_runtime::session::{
    Endpoint, Job, LocalOptions, Options, Party, PartyOutput, RunOutput, SessionError, Transport, run_local,
    run_local_all, run_party,
};
use bcc_runtime::stats::{PhaseStats, Stats};
use bcc_runtime::weights::WeightSource;
use common::{integers, small_network, tensor};

type Log = Arc<Mutex<Vec<(FrameInfo, Vec<u8>)>>>;

fn recorder() -> (Log, Hooks) {
    let log = Log::default();
    let sink = log.clone();
    let record = move |info: &FrameInfo, bytes: &[u8]| sink.lock().unwrap().push((*info, bytes.to_vec()));
    (log, Hooks { recorder: Some(Arc::new(record)), tamper: None })
}

fn transcript(log: &Log) -> Vec<(FrameInfo, Vec<u8>)> {
    let mut all = log.lock().unwrap().clone();
    all.sort_by_key(|(i, _)| (i.from, i.number));
    all
}

fn input(program: &Program) -> bcc_runtime::port::Tensor {
    tensor(&integers(3, program.input.shape[1], 500))
}

fn run(inferences: usize, options: &LocalOptions) -> Result<RunOutput, SessionError> {
    let (program, weights) = small_network();
    run_local(&program, &weights, &vec![input(&program); inferences], options)
}

fn text<T>(result: &Result<T, SessionError>) -> String {
    result.as_ref().err().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn same_seeds_same_bytes() {
    let mut first = None;
    for transport in [Transport::Memory, Transport::Tcp] {
        for kernels in kernels::available() {
            let (log, hooks) = recorder();
            let party = Options { hooks, kernels, ..Options::default() };
            let seeds = Some([[1; 32], [2; 32], [3; 32]]);
            let options = LocalOptions { party, transport, seeds, ..LocalOptions::default() };
            let out = run(2, &options).unwrap();
            let seen = (transcript(&log), out.outputs.iter().map(|o| o.integers.clone()).collect::<Vec<_>>());
            let want = first.get_or_insert_with(|| seen.clone());
            assert!(*want == seen, "{transport:?}, {}", kernels.name());
        }
    }
}

/// A slow network changes times alone. Every round of a phase takes at least half a round trip, and what a party sends
/// to another its time on the link.
#[test]
fn a_shaped_network_costs_time_alone() {
    let (program, _) = small_network();
    let mut seen = Vec::new();
    for shape in [None, Some(Shape::new(&slow()).unwrap())] {
        let (log, hooks) = recorder();
        let party = Options { hooks, shape, timeout: Duration::from_secs(5), ..Options::default() };
        let seeds = Some([[1; 32], [2; 32], [3; 32]]);
        let out = run(1, &LocalOptions { party, transport: Transport::Tcp, seeds, ..LocalOptions::default() }).unwrap();
        let integers = out.outputs.iter().map(|o| o.integers.clone()).collect::<Vec<_>>();
        seen.push((transcript(&log), integers, out.stats));
    }
    assert!(seen[0].0 == seen[1].0 && seen[0].1 == seen[1].1);
    let slow = slow();
    let traffic = traffic(&program).unwrap().total;
    for (phase, p) in Phase::ALL.into_iter().zip(phases(&seen[1].2)) {
        let before = phases(&seen[0].2)[phase.index()];
        assert_eq!((p.bytes, p.rounds), (before.bytes, before.rounds));
        let link = |from: Role, to: Role| {
            let on = |m: &&Message| (m.phase, m.from, m.to) == (phase, from, to);
            program.messages.iter().filter(on).map(|m| m.wire_bytes() as f64 * slow.byte_seconds()).sum::<f64>()
        };
        // Only what client and server exchange counts surely: the dealer may have worked before the phase began.
        let busiest = link(Role::Client, Role::Server).max(link(Role::Server, Role::Client));
        let rounds = if phase == Phase::Online { traffic.rounds[phase.index()] as f64 } else { 1.0 };
        assert!(p.seconds >= (rounds * slow.one_way_seconds()).max(busiest), "{phase}: {} s", p.seconds);
    }
}

fn slow() -> Network {
    Network { name: "slow".into(), bytes_per_second: 1e5, rtt_seconds: 0.02, shared_cores: None }
}

fn phases(stats: &Stats) -> [&PhaseStats; 3] {
    [&stats.phases.setup, &stats.phases.offline, &stats.phases.online]
}

#[test]
fn no_masked_message_repeats() {
    let (log, hooks) = recorder();
    let options = LocalOptions { party: Options { hooks, ..Options::default() }, ..LocalOptions::default() };
    run(2, &options).unwrap();
    run(2, &options).unwrap();
    let (program, _) = small_network();
    let all = transcript(&log);
    for (i, (a, x)) in all.iter().enumerate() {
        let message = &program.messages[a.message as usize];
        // Short messages may be equal by chance, the output is equal on purpose.
        if x.len() < 40 || message.reveal {
            continue;
        }
        assert!(all[..i].iter().all(|(b, y)| a.message != b.message || x != y), "'{}' repeats", message.name);
    }
}

#[test]
fn setup_is_kept_between_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let party = Options { state: Some(dir.path().into()), ..Options::default() };
    let options = LocalOptions { party, ..LocalOptions::default() };
    let setup = |out: RunOutput| out.stats.phases.setup.bytes.server;
    let first = run(1, &options).unwrap();
    let again = run(2, &options).unwrap();
    assert!(close(&again.outputs[0].integers, &first.outputs[0].integers));
    assert!(setup(first) > 0);
    assert_eq!(setup(again), 0);
    // One party lost it: all make a new one.
    std::fs::remove_file(dir.path().join("client/client.setup")).unwrap();
    assert!(setup(run(1, &options).unwrap()) > 0);
    assert_eq!(setup(run(1, &options).unwrap()), 0);
    // Other weights: the old mask must not be used for them.
    let (program, mut weights) = small_network();
    weights[0][0] += 1;
    assert!(setup(run_local(&program, &weights, &[input(&program)], &options).unwrap()) > 0);
    // A damaged file is an error, not another answer.
    let path = dir.path().join("server/server.setup");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let result = run(1, &options);
    assert!(text(&result).contains("damaged"), "{}", text(&result));
}

/// Equal but for the unit that truncation may differ by: masks differ between sessions.
fn close(a: &[i64], b: &[i64]) -> bool {
    a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 1).count() <= a.len() / 20
}

#[test]
fn stored_material_is_used_once() {
    let dir = tempfile::tempdir().unwrap();
    for transport in [Transport::Memory, Transport::Tcp] {
        let party = Options { material: Some(dir.path().into()), ..Options::default() };
        let options = LocalOptions { party, transport, ..LocalOptions::default() };
        let prepare = LocalOptions { prepare: Some(3), ..options.clone() };
        let stored = LocalOptions { stored: true, ..options.clone() };
        let fresh = run(1, &LocalOptions::default()).unwrap();
        let made = run(0, &prepare).unwrap();
        assert_eq!(made.stats.inferences, 3);
        assert!(made.stats.phases.offline.bytes.dealer > 0 && made.stats.phases.online.bytes.server == 0);
        let copies: Vec<_> = std::fs::read_dir(dir.path().join("client"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.is_file())
            .map(|p| (std::fs::read(&p).unwrap(), p))
            .collect();
        let out = run(2, &stored).unwrap();
        for o in &out.outputs {
            assert!(close(&o.integers, &fresh.outputs[0].integers));
        }
        let phases = &out.stats.phases;
        assert_eq!(phases.online.bytes, { fresh_online(&fresh, 2) });
        assert!(phases.offline.bytes.dealer == 0 && phases.setup.bytes.server == 0);
        run(1, &stored).unwrap();
        let result = run(1, &stored);
        assert!(matches!(result, Err(SessionError::NoMaterial { client: 0 })), "{}", text(&result));
        // Copied back at the client alone: the server has none of that name.
        for (bytes, path) in &copies {
            std::fs::write(path, bytes).unwrap();
        }
        let result = run(1, &stored);
        assert!(matches!(result, Err(SessionError::NoMaterial { client: 3 })), "{}", text(&result));
        std::fs::remove_dir_all(dir.path().join("client")).unwrap();
    }
}

fn fresh_online(out: &RunOutput, times: u64) -> bcc_runtime::stats::Bytes {
    let b = out.stats.phases.online.bytes;
    bcc_runtime::stats::Bytes { client: b.client * times, server: b.server * times, dealer: b.dealer * times }
}

fn tampered(
    transport: Transport,
    timeout: Duration,
    tamper: impl Fn(&FrameInfo, &mut Vec<u8>) -> Fate + Send + Sync + 'static,
) -> [Result<PartyOutput, SessionError>; 3] {
    let (program, weights) = small_network();
    let hooks = Hooks { recorder: None, tamper: Some(Arc::new(tamper) as Tamper) };
    let party = Options { hooks, timeout, ..Options::default() };
    let options = LocalOptions { party, transport, ..LocalOptions::default() };
    let start = Instant::now();
    let all = run_local_all(&program, &weights, &[input(&program), input(&program)], &options).unwrap();
    assert!(start.elapsed() < Duration::from_secs(6), "took {:?}", start.elapsed());
    all
}

/// Frames that each role sends in a session of two inferences.
fn frames() -> [u64; 3] {
    let (log, hooks) = recorder();
    run(2, &LocalOptions { party: Options { hooks, ..Options::default() }, ..LocalOptions::default() }).unwrap();
    let all = transcript(&log);
    Role::ALL.map(|r| all.iter().filter(|(i, _)| i.from == r).count() as u64)
}

#[test]
fn a_party_killed_at_any_message_is_named() {
    for (role, count) in Role::ALL.into_iter().zip(frames()) {
        for n in 0..count {
            let transport = if n % 5 == 1 { Transport::Tcp } else { Transport::Memory };
            let all = tampered(transport, Duration::from_secs(5), move |info, _| {
                if info.from == role && info.number == n { Fate::Kill } else { Fate::Deliver }
            });
            for (other, result) in Role::ALL.into_iter().zip(&all) {
                let said = text(result);
                // The dealer may have done its part before.
                let done = other == Role::Dealer && result.is_ok();
                assert!(done || result.is_err(), "{other} went on without the {role} ({n})");
                assert!(done || said.contains(&format!("the {role}")), "{other} says '{said}', the {role} died ({n})");
            }
        }
    }
}

fn on(phase: Phase, from: Role) -> impl Fn(&FrameInfo) -> bool {
    move |info| info.phase == phase && info.from == from && info.inference == 1
}

#[test]
fn lost_message_times_out_and_names_whom_we_wait_for() {
    // Two may wait at the same time: for the lost message, and for what would follow it.
    for (phase, from, messages) in [
        (Phase::Offline, Role::Dealer, ["the dealer for 0.4 s (waiting for 'c1', offline"; 2]),
        (
            Phase::Online,
            Role::Server,
            [
                "the server for 0.4 s (waiting for 's - a', online",
                "the client for 0.4 s (waiting for 'level 1 C', online",
            ],
        ),
    ] {
        for transport in [Transport::Memory, Transport::Tcp] {
            let lost = on(phase, from);
            let all =
                tampered(
                    transport,
                    Duration::from_millis(400),
                    move |info, _| {
                        if lost(info) { Fate::Drop } else { Fate::Deliver }
                    },
                );
            let said: Vec<String> = all.iter().map(text).collect();
            let named = |s: &String| messages.iter().any(|m| s.contains(&format!("no message from {m}")));
            assert!(said.iter().any(named), "{said:?}");
            assert!(all[0].is_err() && all[1].is_err(), "{said:?}");
        }
    }
}

#[test]
fn broken_frames_are_refused() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 4] = [
        (|f| f[8..16].copy_from_slice(&(1u64 << 60).to_le_bytes()), "announced 1152921504606846976 bytes"),
        (|f| f[0] ^= 1, "must run the same program"),
        (|f| f[8] ^= 1, "the server expects"),
        // Behind the last of 90 elements of 26 bits.
        (|f| *f.last_mut().unwrap() |= 0x80, "malformed"),
    ];
    for (change, message) in changes {
        for transport in [Transport::Memory, Transport::Tcp] {
            let all = tampered(transport, Duration::from_secs(5), move |info, frame| {
                if info.phase == Phase::Offline && info.from == Role::Client && info.number == 0 {
                    change(frame);
                }
                Fate::Deliver
            });
            let said: Vec<String> = all.iter().map(text).collect();
            assert!(said[1].contains(message) && said[1].contains("client"), "{said:?}");
            assert!(said[0].contains("the server stopped") && said[2].contains("the server stopped"), "{said:?}");
        }
    }
}

#[test]
fn truncated_frames_are_refused() {
    for transport in [Transport::Memory, Transport::Tcp] {
        let cut = on(Phase::Online, Role::Client);
        let all = tampered(transport, Duration::from_millis(500), move |info, frame| {
            if cut(info) {
                frame.truncate(frame.len() - 3);
            }
            Fate::Deliver
        });
        let said: Vec<String> = all.iter().map(text).collect();
        assert!(all[0].is_err() && all[1].is_err(), "{said:?}");
        assert!(said.iter().any(|s| s.contains("client")), "{said:?}");
    }
}

#[test]
fn bad_input_stops_before_anything_is_sent() {
    let (program, weights) = small_network();
    let mut x = input(&program);
    x.data[5] = f64::NAN;
    let options = LocalOptions { transport: Transport::Tcp, ..LocalOptions::default() };
    let start = Instant::now();
    let result = run_local(&program, &weights, &[input(&program), x], &options);
    assert_eq!(text(&result), "input 1: element [0, 5] of the input is NaN; all elements must be finite numbers");
    assert!(start.elapsed() < Duration::from_secs(1));
}

/// Three parties with digests of their own; the server may lack the dealer.
fn meet(digests: [[u8; 32]; 3], stored: bool) -> [Result<PartyOutput, SessionError>; 3] {
    let (program, weights) = small_network();
    let options = Options { timeout: Duration::from_secs(3), ..Options::default() };
    let dir = tempfile::tempdir().unwrap();
    let client_options = Options { material: stored.then(|| dir.path().into()), ..options.clone() };
    fn end<L: Link + 'static>(peer: Option<Role>, link: L) -> Endpoint<'static> {
        Endpoint { peer, open: Box::new(move || Ok(Box::new(link) as Box<dyn Link>)) }
    }
    let ((cs, sc), (cd, dc), (sd, ds)) = (memory_pair(), memory_pair(), memory_pair());
    let start = Instant::now();
    let results = thread::scope(|scope| {
        let party = |role: Role| Party {
            role,
            program: &program,
            digest: digests[role.index()],
            weights: (role == Role::Server).then_some(&weights as &dyn WeightSource),
            options: if role == Role::Client { &client_options } else { &options },
        };
        let job = Job::Infer { inputs: vec![input(&program)], stored };
        let mut client = vec![end(Some(Role::Server), cs)];
        if !stored {
            client.push(end(Some(Role::Dealer), cd));
        } else {
            drop(cd);
        }
        let server = vec![end(None, sc), end(Some(Role::Dealer), sd)];
        let dealer = vec![end(None, dc), end(None, ds)];
        let (c, s, d) = (party(Role::Client), party(Role::Server), party(Role::Dealer));
        let c = scope.spawn(move || run_party(c, job, client));
        let s = scope.spawn(move || run_party(s, Job::Serve, server));
        let d = scope.spawn(move || run_party(d, Job::Serve, dealer));
        [c.join().unwrap(), s.join().unwrap(), d.join().unwrap()]
    });
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
    results
}

#[test]
fn other_programs_are_refused_on_both_sides() {
    let all = meet([[1; 32], [2; 32], [1; 32]], false);
    let said: Vec<String> = all.iter().map(text).collect();
    assert!(said[0].starts_with("the server runs program 020202020202, this client runs 010101010101"), "{said:?}");
    assert!(said[1].starts_with("the client runs program 010101010101, this server runs 020202020202"), "{said:?}");
    assert!(!said[2].is_empty());
    let all = meet([[1; 32], [1; 32], [2; 32]], false);
    let said: Vec<String> = all.iter().map(text).collect();
    assert!(said[2].contains("program") && said[2].contains("this dealer"), "{said:?}");
    assert!(said[0].contains("the dealer") || said[1].contains("the dealer"), "{said:?}");
}

#[test]
fn sessions_that_are_not_offered_are_refused_on_both_sides() {
    let all = meet([[1; 32]; 3], true);
    let said: Vec<String> = all.iter().map(text).collect();
    for s in &said[..2] {
        assert!(s.contains("stored offline material, which the server does not offer"), "{said:?}");
    }
}
