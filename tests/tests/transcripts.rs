//! Same seeds, same bytes: over every transport, with every set of kernels, on any number of
//! threads.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bcc_compiler::compile::Compiled;
use bcc_compiler::passes::BlockChoice;
use bcc_ir::program::{Phase, Role};
use bcc_runtime::channel::{FrameInfo, Header, Hooks, Link, accept, connect, memory_pair};
use bcc_runtime::kernels::{KernelSet, available};
use bcc_runtime::keys::Secrets;
use bcc_runtime::session::{
    Endpoint, Job, LocalOptions, Options, Party, PartyOutput, SessionError, Transport, run_party,
};
use bcc_runtime::weights::WeightSource;
use bcc_tests::nets::{built, compiled, mixed_plan, options, random_images};
use bcc_tests::world::{check_exact, run_opened, tensor};

const NETS: [(&str, bool); 3] = [("tiny_plain", true), ("tiny_pools", false), ("tiny_residual", true)];
const SEEDS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];
const PATIENCE: Duration = Duration::from_secs(20);

fn network(name: &str, mixed: bool) -> (Compiled, Vec<Vec<f32>>) {
    let graph = built(name);
    let images = random_images(&graph, 4, 7);
    let choice = if mixed { BlockChoice::Plan(mixed_plan(&graph)) } else { BlockChoice::Keep };
    let compiled = compiled(graph, &options(choice, images.clone()));
    (compiled, images[..2].to_vec())
}

type Frames = Vec<(FrameInfo, Vec<u8>)>;

/// All messages by sender and order, with headers, and the outputs.
#[derive(PartialEq)]
struct Transcript {
    frames: Frames,
    outputs: Vec<Vec<i64>>,
}

type Ends = (Box<dyn Link>, Box<dyn Link>);

fn link(transport: Transport) -> Ends {
    match transport {
        Transport::Memory => {
            let (a, b) = memory_pair();
            (Box::new(a), Box::new(b))
        }
        Transport::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let a = connect(&listener.local_addr().unwrap().to_string(), PATIENCE).unwrap();
            (Box::new(a), Box::new(accept(&listener, Some(PATIENCE), PATIENCE).unwrap()))
        }
    }
}

/// One session, every party on a pool of its own with that many threads: kernels that divide their
/// work divide it among these.
fn transcript(
    (net, images): &(Compiled, Vec<Vec<f32>>),
    kernels: KernelSet,
    transport: Transport,
    threads: usize,
    seeds: [[u8; 32]; 3],
) -> Transcript {
    let program = &net.lowered.program;
    let frames: Arc<Mutex<Frames>> = Arc::default();
    let log = frames.clone();
    let recorder = move |info: &FrameInfo, frame: &[u8]| log.lock().unwrap().push((*info, frame.to_vec()));
    let hooks = Hooks { recorder: Some(Arc::new(recorder)), tamper: None };
    let end = |peer, link: Box<dyn Link>| Endpoint { peer, open: Box::new(move || Ok(link)) };
    let [(cs, sc), (cd, dc), (sd, ds)] = [(); 3].map(|()| link(transport));
    let endpoints = [
        vec![end(Some(Role::Server), cs), end(Some(Role::Dealer), cd)],
        vec![end(None, sc), end(Some(Role::Dealer), sd)],
        vec![end(None, dc), end(None, ds)],
    ];
    let results: Vec<Result<PartyOutput, SessionError>> = thread::scope(|scope| {
        let mut parties = Vec::new();
        for (role, endpoints) in Role::ALL.into_iter().zip(endpoints) {
            let secrets = Some(Secrets::insecure_from_seed(seeds[role.index()]));
            let options = Options { kernels, hooks: hooks.clone(), secrets, timeout: PATIENCE, ..Options::default() };
            parties.push(scope.spawn(move || {
                let weights = (role == Role::Server).then_some(&net.lowered.weights as &dyn WeightSource);
                let party = Party { role, program, digest: [0; 32], weights, options: &options };
                let job = match role {
                    Role::Client => {
                        Job::Infer { inputs: images.iter().map(|i| tensor(net, i)).collect(), stored: false }
                    }
                    _ => Job::Serve,
                };
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| run_party(party, job, endpoints))
            }));
        }
        parties.into_iter().map(|p| p.join().unwrap()).collect()
    });
    let mut results = results.into_iter().map(|r| r.unwrap_or_else(|e| panic!("{e}")));
    let outputs = results.next().unwrap().outputs.into_iter().map(|o| o.integers).collect();
    let mut frames = frames.lock().unwrap().clone();
    frames.sort_by_key(|(i, _)| (i.from, i.number));
    Transcript { frames, outputs }
}

fn expect(want: &Transcript, got: &Transcript, what: &str) {
    assert_eq!(want.frames.len(), got.frames.len(), "{what}");
    for (a, b) in want.frames.iter().zip(&got.frames) {
        assert!(a == b, "{what}: {:?} differs from {:?}", b.0, a.0);
    }
    assert_eq!(want.outputs, got.outputs, "{what}");
}

#[test]
fn same_seeds_same_bytes() {
    for (name, mixed) in NETS {
        let net = network(name, mixed);
        let kernels = available();
        let want = transcript(&net, kernels[0], Transport::Memory, 1, SEEDS);
        for kernels in kernels {
            for threads in [1, 2, 3] {
                for transport in [Transport::Memory, Transport::Tcp] {
                    let got = transcript(&net, kernels, transport, threads, SEEDS);
                    let what = format!("{name}, {}, {threads} threads, {transport:?}", kernels.name());
                    expect(&want, &got, &what);
                }
            }
        }
    }
}

/// Another seed of any one party changes every message but those whose masks it cannot draw.
#[test]
fn other_seeds_other_bytes() {
    let net = network("tiny_plain", true);
    let program = &net.0.lowered.program;
    let kernels = available()[0];
    let base = transcript(&net, kernels, Transport::Memory, 1, SEEDS);
    for changed in [vec![Role::Client], vec![Role::Server], vec![Role::Dealer], Role::ALL.to_vec()] {
        let mut seeds = SEEDS;
        changed.iter().for_each(|r| seeds[r.index()] = [9 + r.index() as u8; 32]);
        let other = transcript(&net, kernels, Transport::Memory, 1, seeds);
        for ((a, x), (b, y)) in base.frames.iter().zip(&other.frames) {
            assert_eq!(a, b);
            assert_eq!(x[..Header::BYTES], y[..Header::BYTES]);
            let m = &program.messages[a.message as usize];
            // The masks of the weights are of server and dealer alone, that of the input of client and
            // dealer; the opened output may be equal by chance.
            let input = m.from == Role::Client && m.phase == Phase::Online && m.layer == 0;
            let apart = match changed[..] {
                [Role::Client] => a.phase == Phase::Setup,
                [Role::Server] => input,
                _ => false,
            };
            if apart {
                assert_eq!(x, y, "\"{}\" with other seeds of {changed:?}", m.name);
            } else if !m.reveal {
                assert_ne!(x[Header::BYTES..], y[Header::BYTES..], "\"{}\" with other seeds of {changed:?}", m.name);
            }
        }
    }
}

/// Masks decide which way a truncation rounds and nothing else: with other seeds every value is
/// still the exact one of its operands up to that unit, and the outputs agree within
/// [`OUTPUT_UNITS`].
#[test]
fn other_seeds_same_result() {
    /// Units of `2^-12` that the outputs of these networks may differ by, of logits near 1.
    const OUTPUT_UNITS: u64 = 16;
    for (name, mixed) in NETS {
        let (net, images) = network(name, mixed);
        let mut first: Option<Vec<Vec<i64>>> = None;
        for seed in 0..6 {
            let seeds = Some([[seed; 32], [seed + 50; 32], [seed + 100; 32]]);
            let (out, opened) = run_opened(&net, &images, LocalOptions { seeds, ..LocalOptions::default() })
                .unwrap_or_else(|e| panic!("{e}"));
            for o in &opened {
                check_exact(&net.graph, o).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
            let outputs: Vec<Vec<i64>> = out.outputs.into_iter().map(|o| o.integers).collect();
            let want = first.get_or_insert_with(|| outputs.clone());
            let pairs = want.iter().flatten().zip(outputs.iter().flatten());
            let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= OUTPUT_UNITS, "{name}: {worst} units");
        }
    }
}
