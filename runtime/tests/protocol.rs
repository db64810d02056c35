//! Protocol steps over all three parties, against plain arithmetic.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};

use bcc_ir::program::{BlockMap, Role};
use bcc_runtime::kernels;
use bcc_runtime::session::{LocalOptions, Options, run_local};
use common::{Builder, integers, relu_program, small_network, tensor};

fn block_of(map: &BlockMap) -> Vec<usize> {
    let mut ids = Vec::new();
    let mut first = 0;
    for [bh, bw] in &map.blocks {
        let across = map.map[1].div_ceil(*bw);
        for y in 0..map.map[0] {
            ids.extend((0..map.map[1]).map(|x| first + y / bh * across + x / bw));
        }
        first += across * map.map[0].div_ceil(*bh);
    }
    ids
}

fn block_relu(map: &BlockMap, z: &[i64]) -> Vec<i64> {
    let ids = block_of(map);
    let mut sums = vec![0i64; map.count()];
    ids.iter().zip(z).for_each(|(b, v)| sums[*b] += v);
    ids.iter().zip(z).map(|(b, v)| if sums[*b] >= 0 { *v } else { 0 }).collect()
}

#[test]
fn truncation_is_low_by_at_most_one_unit_after_centring() {
    let mut b = Builder::new(64);
    let (x, _) = b.input(64, 5000);
    let y = b.truncate(x, 64, 12, 5000);
    b.output(y, 52, 5000);
    let program = b.finish();
    let z = integers(1, 5000, 1 << 50);
    let out = run_local(&program, &Vec::<Vec<i64>>::new(), &[tensor(&z)], &LocalOptions::default()).unwrap();
    // One unit is added first, so the result is the floor or one above.
    for (z, y) in z.iter().zip(&out.outputs[0].integers) {
        assert!([0, 1].contains(&(y - (z >> 12))), "{z} >> 12 became {y}");
    }
}

#[test]
fn block_relu_against_plain_arithmetic() {
    let maps = [
        BlockMap { map: [8, 9], blocks: vec![[1, 1]; 3] },
        BlockMap { map: [7, 5], blocks: vec![[2, 2], [3, 1], [16, 16], [1, 4]] },
    ];
    for map in maps {
        for (k, l, window) in [
            (20, 32, [0, 20]),
            (26, 32, [0, 26]),
            (32, 32, [0, 32]),
            (52, 64, [0, 52]),
            (64, 64, [0, 64]),
            (40, 40, [0, 30]),
        ] {
            let program = relu_program(k, l, &map, window);
            // Block sums must fit the window, values 53-bit floats and a quarter of the modulus.
            let limit = 1i64 << (i64::from(window[1]) - 9).min(50);
            let z = integers(u64::from(k), map.pixels(), limit);
            let mut edge = z.clone();
            edge[..4].copy_from_slice(&[0, 1, -1, limit]);
            let inputs = [tensor(&z), tensor(&edge)];
            for kernels in kernels::available() {
                let party = Options { kernels, ..Options::default() };
                let options = LocalOptions { party, ..LocalOptions::default() };
                let out = run_local(&program, &Vec::<Vec<i64>>::new(), &inputs, &options).unwrap();
                assert!(out.outputs[0].integers == block_relu(&map, &z), "k={k} L={l} {}", kernels.name());
                assert!(out.outputs[1].integers == block_relu(&map, &edge), "k={k} L={l} {}", kernels.name());
            }
        }
    }
}

#[test]
fn approximate_window_is_wrong_only_near_zero() {
    let map = BlockMap { map: [20, 20], blocks: vec![[1, 1]; 2] };
    let program = relu_program(28, 32, &map, [6, 20]);
    let z = integers(5, map.pixels(), 1 << 18);
    let out = run_local(&program, &Vec::<Vec<i64>>::new(), &[tensor(&z)], &LocalOptions::default()).unwrap();
    for ((z, y), want) in z.iter().zip(&out.outputs[0].integers).zip(block_relu(&map, &z)) {
        assert!(*y == want || z.abs() < 64, "{z} became {y}");
    }
}

/// Every pair of small numbers as public and secret part: the whole comparison over three parties,
/// exhaustively for narrow widths.
#[test]
fn carries_are_exact() {
    for k in [4u8, 5, 6, 8, 9, 10] {
        let range = 1i64 << (k - 2);
        let z: Vec<i64> = (-range + 1..range).cycle().take(4000).collect();
        let map = BlockMap { map: [1, z.len()], blocks: vec![[1, 1]] };
        let program = relu_program(k, 32, &map, [0, k]);
        let out = run_local(&program, &Vec::<Vec<i64>>::new(), &[tensor(&z)], &LocalOptions::default()).unwrap();
        assert!(out.outputs[0].integers == block_relu(&map, &z), "k={k}");
    }
}

#[test]
fn network_with_weights_and_observer() {
    let (program, weights) = small_network();
    let x = integers(3, program.input.shape[1], 500);
    let seen = Arc::new(Mutex::new(std::collections::HashMap::new()));
    let taps = program.taps.clone();
    let log = seen.clone();
    let observer: bcc_runtime::exec::Observer = Arc::new(move |role, inference, id, buffer| {
        for tap in &taps {
            let mine = match role {
                Role::Client => tap.client == id,
                Role::Server => tap.server == id,
                Role::Dealer => false,
            };
            if mine {
                log.lock().unwrap().insert((tap.node.clone(), role, inference), buffer.words());
            }
        }
    });
    let party = Options { observer: Some(observer), ..Options::default() };
    let options = LocalOptions { party, ..LocalOptions::default() };
    let inputs = [tensor(&x), tensor(&x)];
    let out = run_local(&program, &weights, &inputs, &options).unwrap();
    assert_eq!(out.stats.inferences, 2);
    let map = BlockMap { map: [5, 6], blocks: vec![[1, 1], [2, 2], [3, 4]] };
    let seen = seen.lock().unwrap();
    for inference in 0..2u32 {
        let share = |role| &seen[&("z".to_string(), role, inference)];
        let z: Vec<i64> = share(Role::Client)
            .iter()
            .zip(share(Role::Server))
            .map(|(c, s)| (c.wrapping_add(*s) << 38) as i64 >> 38)
            .collect();
        // The convolution in plain integers, truncated.
        for (i, z) in z.iter().enumerate() {
            let (o, y, x0) = (i / 30, i / 6 % 5, i % 6);
            let mut sum = 0;
            for c in 0..2 {
                for ky in 0..3 {
                    for kx in 0..3 {
                        let (iy, ix) = (y + ky, x0 + kx);
                        if (1..6).contains(&iy) && (1..7).contains(&ix) {
                            sum += weights[0][((o * 2 + c) * 3 + ky) * 3 + kx] * x[c * 30 + (iy - 1) * 6 + ix - 1];
                        }
                    }
                }
            }
            assert!([0, 1].contains(&(z - (sum >> 6))), "{z} for {sum}");
        }
        assert!(out.outputs[inference as usize].integers == block_relu(&map, &z));
    }
}

#[test]
fn stats_equal_the_program() {
    let (program, weights) = small_network();
    let x = tensor(&integers(3, program.input.shape[1], 500));
    let out = run_local(&program, &weights, &[x.clone(), x], &LocalOptions::default()).unwrap();
    let t = bcc_ir::program::traffic::traffic(&program).unwrap().total;
    let p = &out.stats.phases;
    for (i, (phase, times)) in [(&p.setup, 1), (&p.offline, 2), (&p.online, 2)].into_iter().enumerate() {
        assert_eq!(phase.rounds, t.rounds[i]);
        let b = phase.bytes;
        assert_eq!([b.client, b.server, b.dealer], t.bytes[i].map(|n| n * times), "phase {i}");
    }
}
