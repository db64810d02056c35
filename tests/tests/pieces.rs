//! Layers whose messages travel in pieces: exact values, and the frames of parties that make and read them as a whole.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bcc_compiler::compile::Compiled;
use bcc_compiler::passes::BlockChoice;
use bcc_ir::Block;
use bcc_ir::geometry::Window;
use bcc_ir::graph::{ConstData, Graph, Op};
use bcc_ir::program::steps::Step;
use bcc_ir::program::traffic::traffic;
use bcc_ir::program::{Lifetimes, Phase, Role};
use bcc_runtime::channel::{Fate, Hooks, Recorder};
use bcc_runtime::session::{LocalOptions, Transport};
use bcc_tests::nets::{compiled, options, random_images};
use bcc_tests::random::Numbers;
use bcc_tests::world::{check_exact, run, run_opened};

/// Two layers of 160 channels with blocks over channels as `blocks` repeats them.
fn graph(blocks: &[Block]) -> Graph {
    let mut numbers = Numbers::new(5);
    let mut g = Graph::new("pieces");
    let mut at = g.add_input("x", vec![1, 2, 27, 31]);
    let mut channels = 2;
    for (name, out) in [("a", 160), ("b", 160)] {
        let shape = vec![out, channels, 1, 1];
        let values = numbers.values(shape.iter().product(), (3.0 / channels as f32).sqrt());
        let weight = g.add_const(format!("{name}.w"), shape, ConstData::Float(values));
        let conv = Op::Conv { weight, bias: None, window: Window::new([1, 1]), groups: 1 };
        at = g.add(name, vec![name.into()], conv, &[at]).unwrap();
        let all = (0..out).map(|c| blocks[c % blocks.len()]).collect();
        let relu = format!("{name}.relu");
        at = g.add(&relu, vec![relu.clone()], Op::BlockRelu { blocks: all, plannable: true }, &[at]).unwrap();
        channels = out;
    }
    g.set_output(at);
    g
}

type Frames = BTreeMap<(Role, u64), Vec<u8>>;

fn recorded() -> (LocalOptions, Arc<Mutex<Frames>>) {
    let log = Arc::new(Mutex::new(Frames::new()));
    let sink = log.clone();
    let recorder: Recorder = Arc::new(move |info, frame| {
        sink.lock().unwrap().insert((info.from, info.number), frame.to_vec());
    });
    let mut o = LocalOptions { transport: Transport::Tcp, ..LocalOptions::default() };
    o.seeds = Some([[1; 32], [2; 32], [3; 32]]);
    o.party.hooks = Hooks { recorder: Some(recorder), tamper: None };
    (o, log)
}

/// Steps of a role in a phase that are some of many.
fn parts(c: &Compiled, role: Role, phase: Phase) -> [usize; 3] {
    let program = &c.lowered.program;
    let steps = &Lifetimes::new(program.code(role), &program.messages, false).steps[phase.index()];
    let count = |of: fn(&Step) -> bool| steps.iter().filter(|s| of(s)).count();
    [
        count(|s| matches!(s, Step::Piece { .. })),
        count(|s| matches!(s, Step::Rows { .. })),
        count(|s| matches!(s, Step::Fused(f) if f.elements.len() < f.len)),
    ]
}

fn check(blocks: &[Block]) -> Compiled {
    let graph = graph(blocks);
    let images = random_images(&graph, 3, 9);
    let c = compiled(graph, &options(BlockChoice::Keep, images.clone()));
    let (whole, frames_of_whole) = recorded();
    let (out, opened) = run_opened(&c, &images[..1], whole).unwrap();
    check_exact(&c.graph, &opened[0]).unwrap();
    let (parted, frames) = recorded();
    let again = run(&c, &images[..1], &parted).unwrap();
    assert!(again.outputs[0].integers == out.outputs[0].integers);
    let (frames, frames_of_whole) = (frames.lock().unwrap(), frames_of_whole.lock().unwrap());
    assert!(*frames == *frames_of_whole);
    let sent: usize = frames.values().map(Vec::len).sum();
    let predicted = traffic(&c.lowered.program).unwrap().total.bytes;
    assert_eq!(sent as u64, predicted.iter().flatten().sum::<u64>());
    assert!(frames.len() > c.lowered.program.messages.len());
    c
}

#[test]
fn pixels_by_themselves() {
    let c = check(&[Block::RELU]);
    // The opening and the answer of both layers are read where they come in, and made before they go.
    let [pieces, rows, fused] = parts(&c, Role::Server, Phase::Online);
    assert!(pieces >= 8 && rows == 4 && fused >= 8, "{pieces} {rows} {fused}");
    let [pieces, _, fused] = parts(&c, Role::Client, Phase::Online);
    assert!(pieces >= 8 && fused >= 8, "{pieces} {fused}");
}

#[test]
fn channels_of_every_kind() {
    let patch = |h, w| Block::Patch { h, w };
    let c = check(&[Block::RELU, patch(2, 2), Block::Identity, patch(1, 4), patch(5, 4), Block::Zero]);
    let [pieces, _, fused] = parts(&c, Role::Client, Phase::Online);
    assert!(pieces >= 4 && fused >= 4, "{pieces} {fused}");
}

#[test]
fn channels_that_pass() {
    check(&[Block::Identity]);
}

#[test]
fn a_lost_piece_is_missed() {
    let graph = graph(&[Block::RELU]);
    let images = random_images(&graph, 3, 9);
    let c = compiled(graph, &options(BlockChoice::Keep, images.clone()));
    let mut options = LocalOptions::default();
    options.party.hooks.tamper = Some(Arc::new(|info, _| match (info.phase, info.from, info.piece) {
        (Phase::Online, Role::Server, 1) => Fate::Drop,
        _ => Fate::Deliver,
    }));
    let error = run(&c, &images[..1], &options).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("the server sent piece 2 of message") && error.contains("(piece 1 of message"), "{error}");
}
