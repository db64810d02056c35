//! Steps that run strip by strip send and give what their instructions do on whole buffers.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bcc_ir::program::steps::{Step, steps};
use bcc_ir::program::{BlockMap, Inst, Phase, Program, Role};
use bcc_runtime::channel::{Hooks, Recorder};
use bcc_runtime::exec::Observer;
use bcc_runtime::kernels::{self, KernelSet};
use bcc_runtime::session::{LocalOptions, Options, Transport, run_local};
use common::{integers, network, tensor};

type Frames = BTreeMap<(Role, u64), Vec<u8>>;

/// All frames and the outputs. With an observer, who looks at all buffers, nothing but whole buffers is made.
fn run(
    (program, weights): &(Program, Vec<Vec<i64>>),
    kernels: KernelSet,
    batch: u16,
    observer: Option<Observer>,
) -> (Frames, Vec<Vec<i64>>) {
    let log = Arc::new(Mutex::new(Frames::new()));
    let sink = log.clone();
    let recorder: Recorder = Arc::new(move |info, frame| {
        sink.lock().unwrap().insert((info.from, info.number), frame.to_vec());
    });
    let hooks = Hooks { recorder: Some(recorder), tamper: None };
    let party = Options { batch, hooks, observer, kernels, ..Options::default() };
    let seeds = Some([[1; 32], [2; 32], [3; 32]]);
    let options = LocalOptions { party, seeds, transport: Transport::Tcp, ..LocalOptions::default() };
    let inputs: Vec<_> = (0..u64::from(batch)).map(|i| tensor(&integers(7 + i, program.input.shape[1], 500))).collect();
    let out = run_local(program, weights, &inputs, &options).unwrap();
    let frames = log.lock().unwrap().clone();
    (frames, out.outputs.into_iter().map(|o| o.integers).collect())
}

fn check(name: &str, map: BlockMap) {
    // Elements of 32 and of 64 bits.
    for (ring, batch) in [(32, 1), (32, 2), (41, 1)] {
        let model = network(ring, 2, &map);
        let nobody: Observer = Arc::new(|_, _, _, _| {});
        let (want, whole) = run(&model, kernels::plain(), batch, Some(nobody));
        for k in [kernels::plain(), kernels::best()] {
            let (got, strips) = run(&model, k, batch, None);
            assert!(got == want, "{name}, {ring} bits, batch {batch}, {}: other frames", k.name());
            assert!(strips == whole, "{name}, {ring} bits, batch {batch}, {}: other outputs", k.name());
        }
    }
}

#[test]
fn pixels_by_themselves() {
    // Many strips, the last one not whole.
    check("1x1", BlockMap { map: [101, 103], blocks: vec![[1, 1]; 5] });
}

#[test]
fn blocks_of_many_sizes_on_maps_of_odd_size() {
    let sizes = [[1, 1], [2, 3], [4, 4], [33, 35], [5, 1], [1, 1], [7, 9]];
    let blocks = (0..45).map(|c| sizes[c % sizes.len()]).collect();
    check("odd", BlockMap { map: [33, 35], blocks });
}

#[test]
fn channels_larger_than_a_strip() {
    check("large", BlockMap { map: [90, 91], blocks: vec![[3, 3], [1, 1], [4, 2]] });
}

/// Messages of several pieces, made and read piece by piece, behind a convolution that is computed in parts.
#[test]
fn large_messages_travel_in_pieces() {
    let sizes = [[1, 1], [2, 2], [4, 5], [1, 3]];
    for blocks in [vec![[1, 1]; 160], (0..160).map(|c| sizes[c % sizes.len()]).collect()] {
        let map = BlockMap { map: [27, 29], blocks };
        let (program, _) = network(32, 2, &map);
        let steps = |role| steps(program.code(role), &program.messages, false)[Phase::Online.index()].clone();
        let pieces = |role| steps(role).iter().filter(|s| matches!(s, Step::Piece { .. })).count();
        // The opening to the client and the answer of two pieces or more each, but for the first or the last message.
        assert!(pieces(Role::Client) >= 4 && pieces(Role::Server) >= 4);
        let rows = steps(Role::Server).into_iter().filter(|s| matches!(s, Step::Rows { .. })).count();
        assert_eq!(rows, 2);
        check("pieces", map);
    }
}

/// Every instruction but a draw has one step; steps take many together.
#[test]
fn steps_take_every_instruction_once() {
    let (program, _) = network(32, 2, &BlockMap { map: [8, 8], blocks: vec![[1, 1]; 4] });
    let (mut instructions, mut count) = (0, 0);
    for role in Role::ALL {
        let code = program.code(role);
        for phase in [Phase::Offline, Phase::Online] {
            let all = &code.phases[phase.index()];
            let draw = |i: &usize| matches!(all[*i].inst, Inst::Draw { .. });
            let steps = &steps(code, &program.messages, false)[phase.index()];
            let mut seen: Vec<usize> = steps.iter().flat_map(|s| s.instructions().to_vec()).collect();
            seen.retain(|i| !draw(i));
            seen.sort_unstable();
            assert!(seen.into_iter().eq((0..all.len()).filter(|i| !draw(i))), "{role}, {phase}");
            (instructions, count) = (instructions + all.len(), count + steps.len());
        }
    }
    assert!(2 * count < instructions, "{count} steps of {instructions} instructions");
}
