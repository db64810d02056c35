//! Rates of the heavy kernels, by kernel set.
#![allow(missing_docs)]

use bcc_ir::geometry::{ConvShape, Window};
use bcc_ir::program::{Type, Width};
use bcc_runtime::element::Element;
use bcc_runtime::kernels;
use bcc_runtime::prg::{Key, draw};
use bcc_runtime::scratch::Scratch;
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
        for (bits, narrow) in [(32, false), (32, true), (40, false), (40, true), (64, false)] {
            if bits <= 32 {
                arranged::<u32>(c, &shape, bits, narrow);
            } else {
                arranged::<u64>(c, &shape, bits, narrow);
            }
        }
    }
}

/// A convolution with weights arranged before, which have 16 bits if they are `narrow`.
fn arranged<E: Element>(c: &mut Criterion, shape: &ConvShape, bits: u8, narrow: bool) {
    let (Some(x), Some(w), Some(y)) = (shape.input_len(), shape.weight_len(), shape.output_len()) else { return };
    // Where the runtime has them: from a cache line on.
    let values = |stream, len, bits: u8| -> Scratch<E> {
        let words = draw(&Key::new([1; 16]), stream, Type::Ring { bits, len }, Width::Wide).words();
        words.into_iter().map(E::of).collect()
    };
    // Of 15 bits, so that they are narrow whatever the modulus.
    let (x, w) = (values(0, x, bits), values(1, w, if narrow { 15 } else { bits }));
    let mut out = Scratch::<E>::zeros(y);
    let weights = if narrow { "narrow" } else { "wide" };
    let mut group = c.benchmark_group(format!("conv {shape} {bits} bits, {weights}"));
    group.sample_size(10);
    group.throughput(Throughput::Elements((w.len() / shape.out_channels * y) as u64));
    for set in kernels::available().into_iter().skip(1) {
        let k = set.of::<E>();
        let ready = k.arrange(bits, narrow, shape, &w);
        group.bench_function(set.name(), |b| {
            b.iter(|| match &ready {
                Some(ready) => k.conv_arranged(ready, &x, &mut out),
                None => {
                    out.fill(E::ZERO);
                    k.conv(bits, shape, &x, &w, &mut out);
                }
            });
        });
    }
}

fn randomness(c: &mut Criterion) {
    for bits in [20u8, 32, 64] {
        let len = 1 << 20;
        let mut group = c.benchmark_group(format!("draw {bits} bits"));
        group.throughput(Throughput::Bytes((len * usize::from(bits.div_ceil(8))) as u64));
        let width = Width::of_bits(bits);
        group.bench_function("aes", |b| b.iter(|| draw(&Key::new([1; 16]), 0, Type::Ring { bits, len }, width)));
    }
}

criterion_group!(benches, conv, randomness);
criterion_main!(benches);
