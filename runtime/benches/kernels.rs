//! Rates of the heavy kernels, by kernel set.
#![allow(missing_docs)]

use bcc_ir::geometry::{ConvShape, Window};
use bcc_ir::program::Type;
use bcc_runtime::kernels;
use bcc_runtime::prg::{Key, draw};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn conv(c: &mut Criterion) {
    let window = |k: usize, s: usize| Window {
        kernel: [k, k],
        stride: [s, s],
        dilation: [1, 1],
        pad: [k / 2, k / 2, k / 2, k / 2],
    };
    let shape = |in_channels, size, out_channels, groups, k, s| ConvShape {
        in_channels,
        input: [size, size],
        out_channels,
        groups,
        window: window(k, s),
    };
    let shapes = [
        shape(64, 56, 64, 1, 3, 1),
        shape(256, 56, 64, 1, 1, 1),
        shape(256, 14, 256, 1, 3, 1),
        shape(512, 7, 512, 1, 3, 1),
        shape(3, 224, 64, 1, 7, 2),
        shape(128, 56, 128, 128, 3, 1),
    ];
    for shape in shapes {
        let (Some(x), Some(w), Some(y)) = (shape.input_len(), shape.weight_len(), shape.output_len()) else { continue };
        let mut out = vec![0; y];
        for bits in [32, 40, 64] {
            let values = |stream, len| draw(&Key::new([1; 16]), stream, Type::Ring { bits, len }).words().to_vec();
            let (x, w) = (values(0, x), values(1, w));
            let mut group = c.benchmark_group(format!("conv {shape} {bits} bits"));
            group.sample_size(10);
            group.throughput(Throughput::Elements((w.len() / shape.out_channels * y) as u64));
            for k in kernels::available().into_iter().skip(1) {
                group.bench_function(k.name(), |b| {
                    b.iter(|| {
                        out.fill(0);
                        k.conv(bits, &shape, &x, &w, &mut out);
                    });
                });
            }
        }
    }
}

fn randomness(c: &mut Criterion) {
    for bits in [20u8, 32, 64] {
        let len = 1 << 20;
        let mut group = c.benchmark_group(format!("draw {bits} bits"));
        group.throughput(Throughput::Bytes((len * usize::from(bits.div_ceil(8))) as u64));
        group.bench_function("aes", |b| b.iter(|| draw(&Key::new([1; 16]), 0, Type::Ring { bits, len })));
    }
}

criterion_group!(benches, conv, randomness);
criterion_main!(benches);
