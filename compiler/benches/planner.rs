//! Times of planning: the knapsack at the size of a ResNet-50, and a backward pass with its losses.
#![allow(missing_docs)]

#[path = "../../tests/tests/knapsack/instances.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod instances;

use std::path::Path;

use bcc_compiler::data::load_images;
use bcc_compiler::float::Executor;
use bcc_compiler::onnx::{ImportOptions, import};
use bcc_compiler::passes::{canonicalize, fold};
use bcc_compiler::planner::linear::{Pass, WAVE};
use bcc_compiler::planner::menu::Menu;
use bcc_compiler::planner::solve as solver;
use bcc_compiler::planner::target::Targets;
use bcc_ir::Block;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use instances::{Rng, capped, gated, network};
use solver::{optimal, solve, solve_with};

const CHANNELS: usize = 26_000;

fn knapsack(c: &mut Criterion) {
    let k = network(&mut Rng(7), CHANNELS, 100);
    let all: u64 = (0..k.classes()).filter_map(|i| k.options(i).next()).map(|o| o.1).sum();
    let mut group = c.benchmark_group(format!("knapsack {CHANNELS} x 100"));
    group.sample_size(10);
    for share in [3, 10, 50] {
        let budget = k.least_cost() + (all - k.least_cost()) / share;
        group.bench_function(format!("solve, 1/{share}"), |b| b.iter(|| solve(&k, budget)));
        group.bench_function(format!("optimal, 1/{share}"), |b| b.iter(|| optimal(&k, budget, &mut |_| ())));
    }
    let instances = [
        ("two budgets", capped(&mut Rng(1), CHANNELS, 100, 0)),
        ("two budgets, 60 caps", capped(&mut Rng(2), CHANNELS, 100, 60)),
        ("two budgets, rounds of 60 layers", gated(&mut Rng(3), CHANNELS, 100, 60)),
    ];
    for (name, (k, budget, limits)) in instances {
        group.bench_function(name, |b| b.iter(|| solve_with(&k, Some(budget), &limits, &mut |_| ())));
    }
}

/// ResNet-20 with the full menu: images per second of the fast distortion.
fn distortion(c: &mut Criterion) {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let graph = import(&models.join("trained/fmnist_resnet20.onnx"), &ImportOptions::default());
    let images = load_images(&models.join("data/fmnist_calib.npz"), &[1, 1, 28, 28]);
    let (Ok(mut graph), Ok(images)) = (graph, images) else { return };
    if fold::run(&mut graph).is_err() || canonicalize::run(&mut graph).is_err() {
        return;
    }
    let executor = Executor::new(&graph);
    let targets = Targets::of(&graph, &Menu::Full);
    let present = vec![Block::RELU; targets.classes()];
    let references: Vec<Vec<f32>> = images.iter().map(|x| executor.run(x)).collect();
    let wave: Vec<(usize, &[f32], &[f32])> =
        (0..WAVE).map(|i| (i, images[i].as_slice(), references[i].as_slice())).collect();
    let mut group = c.benchmark_group("distortion of ResNet-20");
    group.throughput(Throughput::Elements(WAVE as u64));
    for probes in [1, 4, 10] {
        let pass = Pass { executor: &executor, targets: &targets, present: &present, probes, seed: 1 };
        group.bench_function(format!("{probes} probes"), |b| b.iter(|| pass.run(&wave)));
    }
}

criterion_group!(benches, knapsack, distortion);
criterion_main!(benches);
