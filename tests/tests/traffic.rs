//! What the report says, what the runtime counts and what sockets carried: the same numbers.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bcc_compiler::compile::Compiled;
use bcc_compiler::report::Report;
use bcc_ir::program::traffic::traffic;
use bcc_ir::program::{Phase, Program, Role};
use bcc_runtime::channel::{Control, Header, Link, accept, connect};
use bcc_runtime::session::{
    Endpoint, Job, LocalOptions, Options, Party, SessionError, Transport, run_local, run_party,
};
use bcc_runtime::stats::Stats;
use bcc_runtime::weights::WeightSource;
use bcc_tests::nets::tiny_compiled;
use bcc_tests::world::tensor;

const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes by sender and rounds, by phase.
type Numbers = [([u64; 3], u64); 3];

fn counted(stats: &Stats) -> Numbers {
    let p = &stats.phases;
    [&p.setup, &p.offline, &p.online].map(|p| ([p.bytes.client, p.bytes.server, p.bytes.dealer], p.rounds))
}

/// What the report promises for a session of that many inferences.
fn promised(program: &Program, inferences: u64, setup: bool) -> Numbers {
    let report = Report::new(program).unwrap();
    let p = &report.totals.phases;
    let times = [u64::from(setup), inferences, inferences];
    let mut all =
        [&p.setup, &p.offline, &p.online].map(|p| ([p.bytes.client, p.bytes.server, p.bytes.dealer], p.rounds));
    for ((bytes, rounds), times) in all.iter_mut().zip(times) {
        bytes.iter_mut().for_each(|b| *b *= times);
        *rounds *= times.min(1);
    }
    all
}

/// The report's parts add up to its totals, which are those of the program.
fn consistent(program: &Program) {
    let (report, t) = (Report::new(program).unwrap(), traffic(program).unwrap());
    let sum = |f: fn(&bcc_compiler::report::LayerRow) -> u64| report.layers.iter().map(f).sum::<u64>();
    let totals = &report.totals;
    assert_eq!(sum(|l| l.setup_bytes), totals.setup_bytes);
    assert_eq!(sum(|l| l.offline_bytes), totals.offline_bytes);
    assert_eq!(sum(|l| l.online_bytes), totals.online_bytes);
    assert_eq!(sum(|l| l.rounds), totals.rounds);
    assert_eq!(sum(|l| l.drelus), totals.drelus);
    let phases = [&totals.phases.setup, &totals.phases.offline, &totals.phases.online];
    for (phase, p) in Phase::ALL.into_iter().zip(phases) {
        let i = phase.index();
        let messages = program.messages.iter().filter(|m| m.phase == phase);
        assert_eq!(p.messages, messages.clone().count() as u64);
        assert_eq!(p.messages, t.total.messages[i]);
        assert_eq!([p.bytes.client, p.bytes.server, p.bytes.dealer], t.total.bytes[i]);
        assert_eq!(p.bytes.client + p.bytes.server + p.bytes.dealer, messages.map(|m| m.wire_bytes()).sum::<u64>());
    }
}

#[test]
fn the_report_equals_the_counters() {
    for (name, net, images) in tiny_compiled() {
        let program = &net.lowered.program;
        consistent(program);
        for inferences in [1, 3] {
            let inputs: Vec<_> = images[..inferences].iter().map(|i| tensor(&net, i)).collect();
            let local = LocalOptions { transport: Transport::Tcp, ..LocalOptions::default() };
            let out = run_local(program, &net.lowered.weights, &inputs, &local).unwrap();
            assert_eq!(out.stats.inferences as usize, inferences);
            assert_eq!(counted(&out.stats), promised(program, inferences as u64, true), "{name}, {inferences}");
        }
    }
}

#[test]
fn a_kept_setup_costs_nothing() {
    let (name, net, images) = tiny_compiled().last().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let party = Options { state: Some(dir.path().into()), ..Options::default() };
    let local = LocalOptions { party, transport: Transport::Tcp, ..LocalOptions::default() };
    for setup in [true, false, false] {
        let out = run_local(&net.lowered.program, &net.lowered.weights, &[tensor(&net, &images[0])], &local).unwrap();
        assert_eq!(counted(&out.stats), promised(&net.lowered.program, 1, setup), "{name}");
    }
}

/// Copies one direction of a connection, and yields what passed.
fn pump(mut from: TcpStream, mut to: TcpStream) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            match from.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    all.extend_from_slice(&piece[..n]);
                    if to.write_all(&piece[..n]).is_err() {
                        break;
                    }
                }
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        all
    })
}

/// A listener that passes one connection on to `target`; its address, and what passed in both
/// directions.
fn proxy(target: String) -> (String, JoinHandle<[Vec<u8>; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let handle = thread::spawn(move || {
        let (a, _) = listener.accept().unwrap();
        let b = TcpStream::connect(target).unwrap();
        let both = [pump(a.try_clone().unwrap(), b.try_clone().unwrap()), pump(b, a)];
        both.map(|p| p.join().unwrap())
    });
    (address, handle)
}

/// The frames of one direction of a link: header, payload.
fn frames(mut bytes: &[u8]) -> Vec<(Header, &[u8])> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_first_chunk::<{ Header::BYTES }>().expect("a whole header");
        let header = Header::parse(*header);
        let (payload, rest) = rest.split_at_checked(header.len as usize).expect("a whole payload");
        all.push((header, payload));
        bytes = rest;
    }
    all
}

const LINKS: [[Role; 2]; 3] =
    [[Role::Client, Role::Server], [Role::Client, Role::Dealer], [Role::Server, Role::Dealer]];

/// Runs a session over TCP with a proxy in every link. The counters, and what the links carried from
/// the first to the second and back, in the order of [`LINKS`].
fn proxied(net: &Compiled, images: &[Vec<f32>]) -> (Stats, [[Vec<u8>; 2]; 3]) {
    let dial = |peer: Role, address: &str| {
        let address = address.to_string();
        let open =
            move || -> Result<Box<dyn Link>, SessionError> { Ok(Box::new(connect(&address, PATIENCE).unwrap())) };
        Endpoint { peer: Some(peer), open: Box::new(open) }
    };
    let mut endpoints: [Vec<Endpoint<'static>>; 3] = Default::default();
    let mut proxies = Vec::new();
    for [from, to] in LINKS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, proxy) = proxy(listener.local_addr().unwrap().to_string());
        proxies.push(proxy);
        endpoints[from.index()].push(dial(to, &address));
        let open = move || -> Result<Box<dyn Link>, SessionError> {
            Ok(Box::new(accept(&listener, Some(PATIENCE), PATIENCE).unwrap()))
        };
        endpoints[to.index()].push(Endpoint { peer: None, open: Box::new(open) });
    }
    let stats = thread::scope(|scope| {
        let parties: Vec<_> = Role::ALL
            .into_iter()
            .zip(endpoints)
            .map(|(role, endpoints)| {
                scope.spawn(move || {
                    let options = Options { timeout: PATIENCE, ..Options::default() };
                    let weights = (role == Role::Server).then_some(&net.lowered.weights as &dyn WeightSource);
                    let program = &net.lowered.program;
                    let party = Party { role, program, digest: [0; 32], weights, options: &options };
                    let inputs = images.iter().map(|i| tensor(net, i)).collect();
                    let job = if role == Role::Client { Job::Infer { inputs, stored: false } } else { Job::Serve };
                    run_party(party, job, endpoints).unwrap_or_else(|e| panic!("{role}: {e}")).stats
                })
            })
            .collect();
        let mut stats = parties.into_iter().map(|p| p.join().unwrap());
        let first = stats.next().unwrap();
        assert!(stats.all(|s| counted(&s) == counted(&first)), "the parties' counters differ");
        first
    });
    let carried: Vec<_> = proxies.into_iter().map(|p| p.join().unwrap()).collect();
    (stats, carried.try_into().unwrap())
}

#[test]
fn sockets_carry_what_the_report_says() {
    for (name, net, images) in tiny_compiled().filter(|(n, ..)| n.contains("mixed") || n.contains("Keep")) {
        let program = &net.lowered.program;
        let inferences = 2;
        let (stats, carried) = proxied(&net, &images[..inferences]);
        let mut numbers: Numbers = Default::default();
        let mut messages = vec![0; program.messages.len()];
        for (link, directions) in LINKS.into_iter().zip(&carried) {
            for (from, to, bytes) in [(link[0], link[1], &directions[0]), (link[1], link[0], &directions[1])] {
                for (header, payload) in frames(bytes) {
                    if let Some(control) = Control::from_index(header.index) {
                        check_control(&name, to, control, payload);
                        continue;
                    }
                    let m = &program.messages[header.index as usize];
                    assert_eq!((m.from, m.to), (from, to), "{name}");
                    assert_eq!((Header::BYTES + payload.len()) as u64, m.wire_bytes(), "{name}");
                    messages[header.index as usize] += 1;
                    let (bytes, rounds) = &mut numbers[m.phase.index()];
                    bytes[from.index()] += (Header::BYTES + payload.len()) as u64;
                    *rounds = (*rounds).max(u64::from(header.depth));
                }
            }
        }
        for (m, n) in program.messages.iter().zip(messages) {
            assert_eq!(n, if m.phase == Phase::Setup { 1 } else { inferences }, "{name}: \"{}\"", m.name);
        }
        assert_eq!(numbers, promised(program, inferences as u64, true), "{name}");
        assert_eq!(numbers, counted(&stats), "{name}");
    }
}

/// Control frames have fixed sizes: nothing that depends on data fits in, above all not to the
/// dealer.
fn check_control(name: &str, to: Role, control: Control, payload: &[u8]) {
    let size = match control {
        Control::Hello => 120,
        Control::Confirm => 32,
        Control::Ready | Control::Done | Control::Alive => 0,
        Control::Goodbye => 72,
        Control::Material | Control::Abort => panic!("{name}: {control:?} to the {to} in a session without trouble"),
    };
    assert_eq!(payload.len(), size, "{name}: {control:?} to the {to}");
}
