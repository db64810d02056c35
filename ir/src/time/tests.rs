//! Tiny programs, timed by hand.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::geometry::{ConvShape, Window};
use crate::program::traffic::{batch_traffic, traffic};
use crate::program::{
    Code, Inst, Instruction, Layer, Message, Phase, Port, Program, Role, Type, WeightEntry, WeightWidth,
};
use Role::{Client, Dealer, Server};

/// A program without anything.
pub fn empty() -> Program {
    Builder::new(0).program
}

/// Builds online code; every instruction belongs to the layer given last.
struct Builder {
    program: Program,
    layer: u32,
}

impl Builder {
    fn new(layers: usize) -> Builder {
        let port =
            |name: &str| Port { name: name.into(), shape: vec![1, 1], frac: 0, modulus: 8, gain: 1.0, bound: 1.0 };
        let layer = |i: usize| Layer {
            name: format!("layer {i}"),
            op: "Op".into(),
            shape: vec![1],
            frac: 0,
            modulus: 8,
            drelus: 0,
        };
        let program = Program {
            name: "by hand".into(),
            ring: 8,
            input: port("x"),
            output: port("y"),
            epilogue: Vec::new(),
            layers: (0..layers).map(layer).collect(),
            weights: Vec::new(),
            streams: Vec::new(),
            messages: Vec::new(),
            roles: [Code::default(), Code::default(), Code::default()],
            taps: Vec::new(),
        };
        Builder { program, layer: 0 }
    }

    fn push(&mut self, role: Role, inst: Inst, inputs: Vec<u32>, outputs: Vec<u32>) {
        let instruction = Instruction { inst, inputs, outputs, layer: self.layer };
        self.program.roles[role.index()].phases[Phase::Online.index()].push(instruction);
    }

    /// A pass over `len` elements.
    fn compute(&mut self, role: Role, len: usize) {
        let buffers = &mut self.program.roles[role.index()].buffers;
        buffers.push(Type::Ring { bits: 8, len });
        let b = buffers.len() as u32 - 1;
        self.push(role, Inst::Zero, vec![], vec![b]);
    }

    /// Declares and sends a message of `bytes`, header included.
    fn send(&mut self, from: Role, to: Role, bytes: usize) -> u32 {
        let message = self.program.messages.len() as u32;
        self.program.messages.push(Message {
            name: format!("message {message}"),
            from,
            to,
            phase: Phase::Online,
            layer: self.layer,
            parts: vec![Type::Ring { bits: 8, len: bytes - Message::HEADER as usize }],
            reveal: false,
        });
        self.push(from, Inst::Send { message }, vec![], vec![]);
        message
    }

    fn receive(&mut self, message: u32) {
        let to = self.program.messages[message as usize].to;
        self.push(to, Inst::Receive { message }, vec![], vec![]);
    }
}

/// Nothing takes time but passes over elements: a second each.
fn rates(seconds: f64) -> Rates {
    let mut all: BTreeMap<Kind, Rate> = Kind::ALL.into_iter().map(|k| (k, Rate::default())).collect();
    all.insert(Kind::Elements, Rate { call_ns: 0.0, unit_ns: 1e9 * seconds });
    Rates {
        measured: Measured { cores: 2.0, ..Measured::default() },
        loopback: Loopback { bytes_per_second: 1.0, rtt_seconds: 1.0 },
        rates: all,
    }
}

fn network(bytes_per_second: f64, rtt_seconds: f64, shared_cores: Option<f64>) -> Network {
    Network { name: "by hand".into(), bytes_per_second, rtt_seconds, shared_cores }
}

fn online(b: &Builder, rates: &Rates, network: &Network) -> PhasePrediction {
    let p = predict(&b.program, rates, network).unwrap().phase(Phase::Online).clone();
    // The layers are the path, taken apart.
    let sum: f64 = p.layers.iter().map(Seconds::total).sum();
    assert!((sum - p.path.total()).abs() < 1e-9, "{sum} of {}", p.path.total());
    p
}

#[track_caller]
fn near(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-6, "{got}, not {want}");
}

/// The server computes between a message of the client and its answer.
fn there_and_back() -> Builder {
    let mut b = Builder::new(3);
    b.compute(Client, 2);
    b.layer = 1;
    let up = b.send(Client, Server, 1000);
    b.receive(up);
    b.compute(Server, 3);
    b.layer = 2;
    let down = b.send(Server, Client, 500);
    b.receive(down);
    b
}

#[test]
fn latency_alone_is_rounds() {
    let b = there_and_back();
    let n = network(f64::INFINITY, 0.4, None);
    let p = online(&b, &rates(0.0), &n);
    let rounds = traffic(&b.program).unwrap().total.rounds[Phase::Online.index()];
    assert_eq!(rounds, 2);
    near(p.path.total(), rounds as f64 * n.one_way_seconds());
    near(p.path.latency, 0.4);
    near(p.layers[1].latency, 0.2);
}

#[test]
fn all_parts_add_up() {
    let p = online(&there_and_back(), &rates(1.0), &network(100.0, 0.4, None));
    near(p.path.compute, 5.0);
    near(p.path.bandwidth, 15.0);
    near(p.path.latency, 0.4);
    near(p.layers[0].total(), 2.0);
    near(p.layers[1].total(), 0.2 + 10.0 + 3.0);
    near(p.layers[2].total(), 0.2 + 5.0);
    near(p.busy[0], 2.0);
    near(p.busy[1], 3.0);
}

#[test]
fn lanes_share_messages_and_cores() {
    let b = there_and_back();
    let n = network(100.0, 0.4, None);
    let three = |seconds: f64| {
        let p = predict_batch(&b.program, &rates(seconds), &n, 3).unwrap();
        p.phase(Phase::Online).clone()
    };
    let p = three(0.0);
    let payloads = (1000 - 16) + (500 - 16);
    near(p.path.bandwidth, 0.01 * f64::from(3 * payloads + 2 * 16));
    near(p.path.latency, 0.4);
    // Three lanes on two cores, of a machine each.
    near(three(1.0).path.compute, 3.0 * 5.0 / 2.0);
    near(three(1.0).busy[0], 3.0 * 2.0);
    let t = [1, 3].map(|lanes| batch_traffic(&b.program, lanes).unwrap());
    assert_eq!(t[0], traffic(&b.program).unwrap());
    let online = Phase::Online.index();
    assert_eq!(t[1].total.bytes[online], [3 * 984 + 16, 3 * 484 + 16, 0]);
    assert_eq!(t[1].layers[1].bytes[online], [3 * 984 + 16, 0, 0]);
    assert_eq!((t[1].total.rounds, t[1].total.messages), (t[0].total.rounds, t[0].total.messages));
    b.program.messages.iter().for_each(|m| assert_eq!(m.batch_bytes(1), m.wire_bytes()));
}

/// A message is a call however many lanes it has; a pass is one for each.
#[test]
fn lanes_make_calls_each_but_for_messages() {
    let mut r = rates(0.0);
    for kind in [Kind::Elements, Kind::SentBytes] {
        r.rates.insert(kind, Rate { call_ns: 1e9, unit_ns: 0.0 });
    }
    let p = predict_batch(&there_and_back().program, &r, &network(f64::INFINITY, 0.0, Some(1.0)), 3).unwrap();
    // The client's pass and message; the server's the same.
    near(p.phase(Phase::Online).path.total(), (3.0 + 1.0) * 2.0);
}

#[test]
fn links_carry_both_ways_at_once_and_messages_in_turn() {
    let mut b = Builder::new(2);
    let up = b.send(Client, Server, 900);
    let first = b.send(Server, Client, 300);
    b.layer = 1;
    let second = b.send(Server, Client, 400);
    let dealt = b.send(Dealer, Client, 650);
    for m in [up, first, second, dealt] {
        b.receive(m);
    }
    let p = online(&b, &rates(0.0), &network(100.0, 2.0, None));
    // The server's two messages share a link's direction; the others have their own.
    near(p.path.bandwidth, 7.0);
    near(p.path.latency, 1.0);
    near(p.layers[0].total(), 3.0);
    near(p.layers[1].total(), 5.0);
}

#[test]
fn a_message_that_is_there_is_not_waited_for() {
    let mut b = Builder::new(1);
    let early = b.send(Dealer, Client, 100);
    b.compute(Client, 9);
    b.receive(early);
    let p = online(&b, &rates(1.0), &network(100.0, 2.0, None));
    near(p.path.compute, 9.0);
    near(p.path.total(), 9.0);
}

#[test]
fn one_machine_shares_its_cores() {
    let mut b = Builder::new(1);
    b.compute(Client, 4);
    b.compute(Server, 1);
    b.compute(Dealer, 1);
    let total = |cores| online(&b, &rates(1.0), &network(1.0, 0.0, cores)).path.total();
    near(total(None), 4.0);
    near(total(Some(3.0)), 4.0);
    // Three want one core each of two until the short ones are through, at 1.5 s.
    near(total(Some(2.0)), 4.5);
    // Not quite two: 1 s of each of the three at half the speed, then the client's other 3.
    near(total(Some(1.5)), 5.0);
    near(total(Some(1.0)), 6.0);
}

#[test]
fn work_that_can_be_split_takes_several_cores() {
    let mut b = Builder::new(1);
    let code = &mut b.program.roles[0];
    code.buffers.push(Type::Ring { bits: 32, len: 1 << 20 });
    b.push(Client, Inst::Draw { stream: 0 }, vec![], vec![0]);
    let mut r = rates(0.0);
    r.rates.insert(Kind::DrawnBytes, Rate { call_ns: 0.0, unit_ns: 1e9 / (1u64 << 22) as f64 });
    near(online(&b, &r, &network(1.0, 0.0, None)).path.total(), 0.5);
    near(online(&b, &r, &network(1.0, 0.0, Some(4.0))).path.total(), 0.25);
    near(online(&b, &r, &network(1.0, 0.0, Some(1.0))).path.total(), 1.0);
}

#[test]
fn masks_count_in_every_phase_that_reads_them() {
    let mut b = Builder::new(1);
    let code = &mut b.program.roles[Dealer.index()];
    let len = 5000;
    code.buffers = vec![Type::Ring { bits: 20, len }; 4];
    let mut push = |phase: Phase, inst, inputs: &[u32], output| {
        let instruction = Instruction { inst, inputs: inputs.to_vec(), outputs: vec![output], layer: 0 };
        code.phases[phase.index()].push(instruction);
    };
    // Strip by strip, where the sums are made; one of them twice in a step, and again in the next phase.
    push(Phase::Offline, Inst::Draw { stream: 0 }, &[], 0);
    push(Phase::Offline, Inst::Draw { stream: 1 }, &[], 1);
    push(Phase::Offline, Inst::Sub, &[0, 1], 2);
    push(Phase::Offline, Inst::Add, &[2, 0], 2);
    push(Phase::Online, Inst::Add, &[1, 1], 3);
    for (phase, masks) in [(Phase::Setup, 0), (Phase::Offline, 2), (Phase::Online, 1)] {
        let work = phase_work(&b.program, Dealer, phase);
        assert_eq!(work.units(Kind::DrawnBytes), masks * 3 * len as u64, "{phase:?}");
        assert_eq!(work.units(Kind::DrawnElements), masks * len as u64, "{phase:?}");
    }
}

#[test]
fn a_program_that_waits_for_ever_has_no_time() {
    let mut b = Builder::new(1);
    b.program = there_and_back().program;
    b.program.roles[1].phases[Phase::Online.index()].pop();
    let stuck = predict(&b.program, &rates(0.0), &Network::lan()).unwrap_err();
    assert_eq!(stuck.waiting, vec![(Client, "message 1".to_string())]);
}

#[test]
fn counts_by_hand() {
    let mut b = Builder::new(1);
    let ring = |bits, len| Type::Ring { bits, len };
    // 3x3 over 2 channels of 5x6, padded to keep the size, to 8 channels; and one group for each of 2 channels.
    let window = Window { pad: [1; 4], ..Window::new([3, 3]) };
    let shape = ConvShape { in_channels: 2, input: [5, 6], out_channels: 8, groups: 1, window };
    let (x, w, y) = (60, 8 * 2 * 9, 240);
    let entry = |name: &str, width| WeightEntry { name: name.into(), len: w, width };
    b.program.weights = vec![entry("narrow", WeightWidth::I16), entry("wide", WeightWidth::I32)];
    let code = &mut b.program.roles[Server.index()];
    code.buffers = vec![ring(40, w), ring(40, w), ring(40, x), ring(40, y), ring(40, y)];
    for index in [0, 1] {
        let inst = Inst::Weight { index };
        code.phases[0].push(Instruction { inst, inputs: vec![], outputs: vec![index], layer: 0 });
    }
    b.push(Server, Inst::Draw { stream: 0 }, vec![], vec![2]);
    b.push(Server, Inst::Conv(shape), vec![2, 0], vec![3]);
    b.push(Server, Inst::Conv(shape), vec![2, 1], vec![4]);
    b.program.roles[Dealer.index()].buffers = vec![
        ring(40, x),
        ring(40, 18),
        ring(40, x),
        Type::Bits { planes: 3, len: 65 },
        Type::Bits { planes: 1, len: 65 },
    ];
    b.push(Dealer, Inst::Conv(ConvShape { out_channels: 2, groups: 2, ..shape }), vec![0, 1], vec![2]);
    b.push(Dealer, Inst::Draw { stream: 1 }, vec![], vec![3]);
    b.push(Dealer, Inst::Planes { picks: vec![(0, 1)] }, vec![3], vec![4]);
    let message = b.send(Dealer, Client, 116);
    b.program.roles[Dealer.index()].phases[2].last_mut().unwrap().inputs = vec![4];
    b.program.roles[Client.index()].buffers = vec![ring(8, 100)];
    b.push(Client, Inst::Receive { message }, vec![], vec![0]);

    let counts = counts(&b.program);
    let (w, y) = (w as u64, y as u64);
    assert_eq!(counts.of(Server, Phase::Setup), &Count { written_bytes: 2 * 8 * w, ..Count::default() });
    let macs = w * 30;
    let server = Count {
        wide_macs: macs,
        narrow_macs: macs,
        digit_products: macs * (6 + 3),
        byte_products: macs * (15 + 9),
        drawn_bytes: 5 * 60,
        sent_bytes: 0,
        // Weights in one digit and in three.
        read_bytes: 2 * 480 + 2 * w + 6 * w,
        written_bytes: 480 + 2 * 8 * y,
    };
    assert_eq!(counts.of(Server, Phase::Online), &server);
    let dealer = Count {
        wide_macs: 18 * 30,
        digit_products: 6 * 18 * 30,
        byte_products: 15 * 18 * 30,
        drawn_bytes: 3 * 2 * 8,
        sent_bytes: 116,
        // The convolution, one plane of three, and that again.
        read_bytes: 480 + 8 * 18 + 16 + 16,
        written_bytes: 480 + 48 + 16 + 116,
        ..Count::default()
    };
    assert_eq!(counts.of(Dealer, Phase::Online), &dealer);
    let client = Count { read_bytes: 116, written_bytes: 800, ..Count::default() };
    assert_eq!(counts.of(Client, Phase::Online), &client);
    let mut all = client;
    [server, dealer].iter().for_each(|c| all.add(c));
    assert_eq!(counts.phase(Phase::Online), all);
    assert_eq!(counts.phase(Phase::Offline), Count::default());
}
