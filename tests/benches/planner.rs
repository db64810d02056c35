//! Times of planning: the knapsack at the size of a ResNet-50, and a backward pass with its losses.
#![allow(missing_docs)]

use bcc_compiler::data::load_images;
use bcc_compiler::float::Executor;
use bcc_compiler::passes::{canonicalize, fold};
use bcc_compiler::planner::linear::{Pass, WAVE};
use bcc_compiler::planner::menu::Menu;
use bcc_compiler::planner::solve::{optimal, solve, solve_with};
use bcc_compiler::planner::target::Targets;
use bcc_ir::Block;
use bcc_tests::knapsacks::{capped, gated, network};
use bcc_tests::nets::{models_dir, trained};
use bcc_tests::random::Numbers;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const CHANNELS: usize = 26_000;

fn knapsack(c: &mut Criterion) {
    let k = network(&mut Numbers::new(7), CHANNELS, 100);
    let all: u64 = (0..k.classes()).filter_map(|i| k.options(i).next()).map(|o| o.1).sum();
    let mut group = c.benchmark_group(format!("knapsack {CHANNELS} x 100"));
    group.sample_size(10);
    for share in [3, 10, 50] {
        let budget = k.least_cost() + (all - k.least_cost()) / share;
        group.bench_function(format!("solve, 1/{share}"), |b| b.iter(|| solve(&k, budget)));
        group.bench_function(format!("optimal, 1/{share}"), |b| b.iter(|| optimal(&k, budget, &mut |_| ())));
    }
    let instances = [
        ("two budgets", capped(&mut Numbers::new(1), CHANNELS, 100, 0)),
        ("two budgets, 60 caps", capped(&mut Numbers::new(2), CHANNELS, 100, 60)),
        ("two budgets, rounds of 60 layers", gated(&mut Numbers::new(3), CHANNELS, 100, 60)),
    ];
    for (name, (k, budget, limits)) in instances {
        group.bench_function(name, |b| b.iter(|| solve_with(&k, Some(budget), &limits, &mut |_| ())));
    }
}

/// ResNet-20 with the full menu: images per second of the fast distortion.
fn distortion(c: &mut Criterion) {
    let mut graph = trained("fmnist_resnet20");
    let Ok(images) = load_images(&models_dir().join("data/fmnist_calib.npz"), &[1, 1, 28, 28]) else { return };
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
