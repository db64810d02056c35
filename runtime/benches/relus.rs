//! A million ReLUs among three parties, as threads: greeting, offline and online phase.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use bcc_ir::program::BlockMap;
use bcc_runtime::session::{LocalOptions, run_local};
use bcc_runtime::weights::WeightSource;
use common::{integers, relu_program, tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn relus(c: &mut Criterion) {
    let map = BlockMap { map: [1000, 1000], blocks: vec![[1, 1]] };
    let program = relu_program(20, 32, &map, [0, 20]);
    let none: Vec<Vec<i64>> = Vec::new();
    let weights: &dyn WeightSource = &none;
    let input = [tensor(&integers(3, map.pixels(), 1 << 18))];
    let mut group = c.benchmark_group("relus");
    group.sample_size(10);
    group.throughput(Throughput::Elements(map.pixels() as u64));
    group.bench_function("20 bits", |b| {
        b.iter(|| run_local(&program, weights, &input, &LocalOptions::default()).unwrap());
    });
}

criterion_group!(benches, relus);
criterion_main!(benches);
