//! Convolutions of common shapes, as shares of what their inner loop does.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bcc_ir::geometry::{ConvShape, Window};
use bcc_ir::program::{Type, Width};
use bcc_ir::time::{byte_products, digit_products};
use bcc_runtime::element::Element;
use bcc_runtime::kernels::KernelSet;
use bcc_runtime::prg::{Key, draw};
use bcc_runtime::scratch::Scratch;
use rayon::ThreadPoolBuilder;
use serde::Serialize;

use crate::peak::{Operands, sets};
use crate::tiles;

/// Least time of a run of the inner loop.
const RUN: Duration = Duration::from_millis(1);

/// A convolution in one core.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// Its shape.
    pub shape: String,
    /// Modulus.
    pub bits: u8,
    /// Weights are integers of 16 bits.
    pub narrow: bool,
    /// Multiply-accumulates of the network a second, the median of all runs.
    pub macs: f64,
    /// The best run.
    pub best: f64,
    /// Multiply-accumulates of the median run by those of the inner loop in its place, from the first-level cache, of
    /// which each takes so many products as the kernels make: runs of both alternate.
    pub share: f64,
    /// The same, where the slower one counts of the inner loop, tiles of bytes filled up with zeros, and a pass that reads
    /// the operands and writes the result: more than this no kernel can do.
    pub bound: f64,
    /// The same, where the inner loop and the pass come one after the other.
    pub in_turn: f64,
}

/// Layers of ResNet-50.
fn shapes() -> [ConvShape; 9] {
    let shape = |in_channels, size, out_channels, kernel: usize, stride| ConvShape {
        in_channels,
        input: [size, size],
        out_channels,
        groups: 1,
        window: Window { stride: [stride; 2], pad: [kernel / 2; 4], ..Window::new([kernel; 2]) },
    };
    [
        shape(3, 224, 64, 7, 2),
        shape(64, 56, 64, 3, 1),
        shape(256, 56, 64, 1, 1),
        shape(64, 56, 256, 1, 1),
        shape(128, 28, 128, 3, 1),
        shape(256, 14, 256, 3, 1),
        shape(1024, 14, 256, 1, 1),
        shape(512, 7, 512, 3, 1),
        shape(512, 7, 2048, 1, 1),
    ]
}

/// Of all shapes, in rings of 32 and 40 bits, by a kernel set.
pub fn measure(set: KernelSet, runs: usize) -> Vec<Share> {
    let one = ThreadPoolBuilder::new().num_threads(1).build();
    let all = || {
        let mut shares = Vec::new();
        for shape in shapes() {
            for narrow in [false, true] {
                shares.extend(share::<u32>(set, &shape, 32, narrow, runs));
                shares.extend(share::<u64>(set, &shape, 40, narrow, runs));
            }
        }
        shares
    };
    one.map(|pool| pool.install(all)).unwrap_or_default()
}

/// The inner loop of a kernel set: a call, and multiply-accumulates of the network in it.
fn inner(set: KernelSet, bits: u8, narrow: bool) -> Option<(Box<dyn Fn() -> i32>, f64)> {
    let (name, digits) = (set.name(), digit_products(bits, narrow) as f64);
    if name == "amx" {
        let operands = tiles::Operands::new();
        let macs = tiles::PRODUCTS as f64 / byte_products(bits, narrow) as f64;
        return Some((Box::new(move || tiles::sums(black_box(&operands))), macs));
    }
    let instructions = name.split(',').next().and_then(|all| all.split(" with ").last())?;
    let set = sets().into_iter().find(|set| set.name == instructions)?;
    let (operands, whole) = (Operands::new(), bits <= 32 && name.ends_with("32-bit products"));
    let (sums, products) = if whole { (set.integers, 2.0) } else { (set.sums, digits) };
    Some((Box::new(move || sums(black_box(&operands))), set.summed as f64 / products))
}

fn share<E: Element>(set: KernelSet, shape: &ConvShape, bits: u8, narrow: bool, runs: usize) -> Option<Share> {
    let (x, w, y) = (shape.input_len()?, shape.weight_len()?, shape.output_len()?);
    let values = |stream, len, bits| -> Scratch<E> {
        let words = draw(&Key::new([1; 16]), stream, Type::Ring { bits, len }, Width::Wide).words();
        words.into_iter().map(E::of).collect()
    };
    // Of 15 bits, so that they are narrow whatever the modulus.
    let (x, w) = (values(0, x, bits), values(1, w, if narrow { 15 } else { bits }));
    let k = set.of::<E>();
    let ready = k.arrange(bits, narrow, shape, &w)?;
    let mut out = Scratch::<E>::zeros(y);
    let macs = (w.len() / shape.out_channels * y) as f64;
    let (call, each) = inner(set, bits, narrow)?;
    // As they are read: maps as elements, weights in as many bytes as count.
    let left = vec![1u64; w.len() * if narrow { 2 } else { usize::from(bits.div_ceil(8)) } / 8];
    let mut result = Scratch::<E>::zeros(y);
    let mut own: Vec<f64> = Vec::new();
    let mut limit: Vec<f64> = Vec::new();
    let mut passes: Vec<f64> = Vec::new();
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        k.conv_arranged(&ready, black_box(&x), &mut out);
        own.push(macs / start.elapsed().as_secs_f64());
        let (start, mut calls) = (Instant::now(), 0);
        while start.elapsed() < RUN {
            black_box(call());
            calls += 1;
        }
        limit.push(f64::from(calls) * each / start.elapsed().as_secs_f64());
        // Once before, as what was read and written last is in the caches there too.
        pass(&x, &left, &mut result);
        let start = Instant::now();
        pass(&x, &left, &mut result);
        passes.push(macs / start.elapsed().as_secs_f64());
    }
    own.sort_by(f64::total_cmp);
    limit.sort_by(f64::total_cmp);
    passes.sort_by(f64::total_cmp);
    let median = |v: &[f64]| v.get(v.len() / 2).copied().unwrap_or(1.0);
    let best = own.last().copied().unwrap_or_default();
    let share = median(&own) / median(&limit);
    let (macs, products, pass) = (median(&own), median(&limit) * filled(set, shape), median(&passes));
    let (bound, in_turn) = (macs / products.min(pass), macs * (1.0 / products + 1.0 / pass));
    Some(Share { shape: shape.to_string(), bits, narrow, macs, best, share, bound, in_turn })
}

/// What of the tiles of bytes that hold rows, columns and depth of a convolution is not padding; 1 without such tiles.
fn filled(set: KernelSet, shape: &ConvShape) -> f64 {
    if set.name() != "amx" {
        return 1.0;
    }
    let [height, width] = shape.output().unwrap_or_default();
    let taps = shape.window.kernel.iter().product::<usize>();
    let padded = shape.out_channels.next_multiple_of(16)
        * (height * width).next_multiple_of(16)
        * (shape.in_channels.next_multiple_of(4) * taps).next_multiple_of(64);
    (shape.out_channels * height * width * shape.in_channels * taps) as f64 / padded as f64
}

/// Reads and writes, no more.
fn pass<E: Element>(x: &[E], left: &[u64], result: &mut [E]) {
    let sum = x.iter().fold(E::ZERO, |sum, v| sum.plus(*v));
    let weights = left.iter().fold(0u64, |sum, v| sum.wrapping_add(*v));
    result.fill(sum.plus(E::of(weights)));
    black_box(result);
}
