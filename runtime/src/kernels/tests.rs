//! Every available kernel set against the plain one.

use bcc_ir::geometry::{ConvShape, PoolShape, Window};
use bcc_ir::program::{BlockMap, Source, Type, carry_terms};

use super::conv::{COLUMNS, ROWS};
use super::plain::compare;
use super::{Kernels, Masked, Select, available, plain};
use crate::buffer::{mask, stride, tail_mask};
use crate::prg::{Key, draw};

fn random(stream: u32, bits: u8, len: usize) -> Vec<u64> {
    draw(&Key::new([1; 16]), stream, Type::Ring { bits, len }).words().to_vec()
}

fn random_bits(stream: u32, planes: usize, len: usize) -> Vec<u64> {
    draw(&Key::new([2; 16]), stream, Type::Bits { planes, len }).words().to_vec()
}

fn others() -> Vec<&'static dyn Kernels> {
    available().into_iter().skip(1).collect()
}

fn check_conv(bits: u8, shape: ConvShape) {
    let x = random(0, bits, shape.input_len().unwrap());
    let w = random(1, bits, shape.weight_len().unwrap());
    let mut want = vec![0; shape.output_len().unwrap()];
    plain().conv(bits, &shape, &x, &w, &mut want);
    for k in others() {
        let mut got = vec![0; want.len()];
        k.conv(bits, &shape, &x, &w, &mut got);
        assert!(got == want, "{} differs at {shape}, {bits} bits", k.name());
        if let Some(arranged) = k.arrange(bits, false, &shape, &w) {
            assert!(arranged.fits(bits, &shape));
            got.fill(5);
            k.conv_arranged(&arranged, &x, &mut got);
            assert!(got == want, "{} differs at {shape}, {bits} bits, arranged", k.name());
        }
    }
    // Weights of 16 bits, the extremes among them.
    let m = mask(bits);
    let edges = [0x7fff, 0x8000u64.wrapping_neg(), 0, u64::MAX];
    let narrow = w.iter().zip(0..).map(|(w, i)| if i % 3 == 0 { edges[i % 4] } else { *w as i16 as u64 } & m);
    let w: Vec<u64> = narrow.collect();
    plain().conv(bits, &shape, &x, &w, &mut want);
    for k in others() {
        if let Some(arranged) = k.arrange(bits, true, &shape, &w) {
            let mut got = vec![5; want.len()];
            k.conv_arranged(&arranged, &x, &mut got);
            assert!(got == want, "{} differs at {shape}, {bits} bits, narrow weights", k.name());
        }
    }
}

#[test]
fn conv_sizes_across_block_edges() {
    for out_channels in [1, 3, 4, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 5] {
        for width in [1, 2, COLUMNS - 1, COLUMNS, COLUMNS + 1, 67] {
            for in_channels in [1, 2, 15, 130] {
                let shape = ConvShape {
                    in_channels,
                    input: [2, width],
                    out_channels,
                    groups: 1,
                    window: Window { pad: [1, 1, 1, 1], kernel: [3, 2], ..Window::new([1, 1]) },
                };
                check_conv(64, shape);
            }
        }
    }
}

#[test]
fn conv_windows() {
    for groups in [1, 2, 8] {
        for kernel in [[1, 1], [3, 3], [1, 7], [7, 7]] {
            for stride in [[1, 1], [2, 2], [3, 1]] {
                for dilation in [[1, 1], [2, 3]] {
                    for pad in [[0, 0, 0, 0], [1, 0, 2, 3], [9, 9, 9, 9]] {
                        for (out_channels, bits) in [(8, 33), (40, 40), (8, 12)] {
                            let window = Window { kernel, stride, dilation, pad };
                            let shape = ConvShape { in_channels: 8, input: [13, 21], out_channels, groups, window };
                            if shape.output().is_some() {
                                check_conv(bits, shape);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn conv_moduli() {
    // Deeper than a slice, so that sums of extremes would leave 32 bits.
    let window = Window::new([1, 1]);
    let shape = ConvShape { in_channels: 500, input: [3, 7], out_channels: 9, groups: 1, window };
    for bits in 1..=64 {
        check_conv(bits, shape);
        let (low, m) = (1u64 << (bits - 1), mask(bits));
        for (x, w) in [(low, low), (m, m), (low, m), (0x7ff & m, 0x7ff & m), (0x800 & m, 0x800 & m)] {
            let x = vec![x; shape.input_len().unwrap()];
            let w = vec![w; shape.weight_len().unwrap()];
            let mut want = vec![0; shape.output_len().unwrap()];
            plain().conv(bits, &shape, &x, &w, &mut want);
            for k in others() {
                let mut got = vec![0; want.len()];
                k.conv(bits, &shape, &x, &w, &mut got);
                assert!(got == want, "{} differs at {bits} bits", k.name());
            }
        }
    }
}

#[test]
fn dense_layers() {
    for (inputs, outputs) in [(1, 1), (7, 9), (64, 10), (1000, 33)] {
        check_conv(64, ConvShape::dense(inputs, outputs));
        check_conv(32, ConvShape { groups: 2, ..ConvShape::dense(2 * inputs, 8 * outputs) });
    }
    // One pixel in and out, but the window lies in the padding.
    for (stride, pad) in [([3, 3], [1, 0, 0, 0]), ([2, 2], [0, 1, 0, 0]), ([1, 1], [0; 4]), ([2, 5], [0; 4])] {
        let window = Window { stride, pad, ..Window::new([1, 1]) };
        check_conv(40, ConvShape { window, ..ConvShape::dense(4, 9) });
    }
}

#[test]
fn bits_of_ring_elements() {
    for len in [1, 63, 64, 65, 300] {
        for (low, count, pad) in [(0, 64, 0), (0, 1, 3), (5, 20, 0), (63, 1, 1)] {
            let x = random(3, 64, len);
            let mut want = vec![0; (pad + count) * stride(len)];
            plain().to_bits(low, pad as u8, &x, &mut want);
            for k in others() {
                let mut got = vec![0; want.len()];
                k.to_bits(low, pad as u8, &x, &mut got);
                assert_eq!(got, want, "{}: {len} elements, bits {low} + {count}", k.name());
            }
            // What is taken where there is no AVX2.
            let mut got = vec![0; want.len()];
            super::bits::to_bits(low, pad as u8, &x, &mut got);
            assert_eq!(got, want, "by transposing: {len} elements, bits {low} + {count}");
            if pad == 0 {
                assert_eq!(want[0] & 1, x[0] >> low & 1);
            }
        }
    }
}

fn planes_of(values: &[u64], count: usize) -> Vec<u64> {
    let mut out = vec![0; count * stride(values.len())];
    plain().to_bits(0, 0, values, &mut out);
    out
}

/// The whole comparison on unmasked bits: shares of products are (products xor r, r).
#[test]
fn carry_of_every_pair_of_nibbles() {
    let (e, t): (Vec<u64>, Vec<u64>) = (0..256).map(|i| (i & 15, i >> 4)).unzip();
    let (planes_e, planes_t) = (planes_of(&e, 4), planes_of(&t, 4));
    let mut products = vec![0; 15 * 4];
    compare::nibble_products(256, &planes_t, &mut products);
    let r = random_bits(0, 15, 256);
    let masked: Vec<u64> = products.iter().zip(&r).map(|(a, b)| a ^ b).collect();
    let mut shares = [vec![0; 4], vec![0; 4]];
    compare::nibble_open(256, true, &planes_e, &masked, &mut shares[0]);
    compare::nibble_open(256, false, &planes_e, &r, &mut shares[1]);
    for i in 0..256 {
        let carry = (shares[0][i / 64] ^ shares[1][i / 64]) >> (i % 64) & 1;
        assert_eq!(carry, (e[i] + t[i]) >> 4, "{} + {}", e[i], t[i]);
    }
}

/// Sharing by random planes of every level, for all widths of whole nibbles.
#[test]
fn carry_against_addition() {
    let len = 1000;
    for nibbles in 1..=16usize {
        let bits = 4 * nibbles as u8;
        let (e, mut t) = (random(10, bits, len), random(11, bits, len));
        // Long carry chains: all positions propagate.
        for i in 0..len / 2 {
            t[i] = (!e[i]).wrapping_add((i % 3) as u64) & mask(bits);
        }
        let (planes_e, planes_t) = (planes_of(&e, 4 * nibbles), planes_of(&t, 4 * nibbles));
        let mut products = vec![0; 15 * nibbles * stride(len)];
        compare::nibble_products(len, &planes_t, &mut products);
        let r = random_bits(12, 15 * nibbles, len);
        let masked: Vec<u64> = products.iter().zip(&r).map(|(a, b)| a ^ b).collect();
        let planes = 2 * nibbles - 1;
        let mut level: Vec<u64> = vec![0; planes * stride(len)];
        let mut other = level.clone();
        compare::nibble_open(len, true, &planes_e, &masked, &mut level);
        compare::nibble_open(len, false, &planes_e, &r, &mut other);
        level.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);

        let mut n = nibbles;
        while n > 1 {
            let words = (2 * n - 1) * stride(len);
            let lambda = random_bits(20 + n as u32, 2 * n - 1, len);
            let hat: Vec<u64> = level.iter().zip(&lambda).map(|(a, b)| a ^ b).collect();
            let (opened, sets) = carry_terms(n);
            let mut products = vec![0; sets.len() * stride(len)];
            compare::carry_products(n, len, &lambda, &mut products);
            let split = |v: &[u64], stream| -> (Vec<u64>, Vec<u64>) {
                let r = random_bits(stream, v.len() / stride(len), len);
                (v.iter().zip(&r).map(|(a, b)| a ^ b).collect(), r)
            };
            let (lambda_c, lambda_s) = split(&lambda, 50);
            let (products_c, products_s) = split(&products, 51);
            let mut open = vec![0; opened.len() * stride(len)];
            let mut open_s = open.clone();
            let c = Masked { hat: &hat, lambda: &lambda_c, products: &products_c };
            let s = Masked { hat: &hat, lambda: &lambda_s, products: &products_s };
            compare::carry_open(n, len, true, c, &mut open);
            compare::carry_open(n, len, false, s, &mut open_s);
            open.iter_mut().zip(open_s).for_each(|(a, b)| *a ^= b);
            // A last group of one input passes unopened.
            if n % 4 == 1 {
                open.extend_from_slice(&level[words - 2 * stride(len)..words]);
            }
            level = open;
            n = n.div_ceil(4);
        }
        for i in 0..len {
            let carry = level[i / 64] >> (i % 64) & 1;
            let want = (u128::from(e[i]) + u128::from(t[i])) >> bits;
            assert_eq!(u128::from(carry), want, "{bits} bits: {} + {}", e[i], t[i]);
        }
        assert_eq!(level[stride(len) - 1] & !tail_mask(len), 0);
    }
}

fn maps() -> Vec<BlockMap> {
    let all = [
        ([7, 9], vec![[1, 1]; 3]),
        ([12, 13], vec![[1, 1], [2, 3], [1, 4], [4, 1], [99, 99], [12, 13], [5, 7]]),
        ([1, 1], vec![[1, 1], [2, 2]]),
        ([3, 70], vec![[1, 1], [1, 2], [2, 1], [3, 64]]),
    ];
    all.map(|(map, blocks)| BlockMap { map, blocks }).to_vec()
}

#[test]
fn gates_of_blocks() {
    for map in maps() {
        let (pixels, count) = (map.pixels(), map.count());
        let bits_of_blocks = random_bits(1, 1, count);
        let x = random(2, 64, pixels);
        let (mut sums, mut gated) = (vec![0; count], vec![0; pixels]);
        plain().block_sum(23, &map, &x, &mut sums);
        plain().gate(&map, &bits_of_blocks, &x, &mut gated);
        for k in others() {
            let (mut got_sums, mut got_gated) = (vec![0; count], vec![0; pixels]);
            k.block_sum(23, &map, &x, &mut got_sums);
            k.gate(&map, &bits_of_blocks, &x, &mut got_gated);
            assert!(got_sums == sums && got_gated == gated, "{} at {:?}", k.name(), map.blocks);
        }
    }
}

#[test]
fn selections() {
    for map in maps() {
        let (pixels, count) = (map.pixels(), map.count());
        for [k, l] in [[20, 32], [33, 40], [63, 64], [64, 64], [32, 32], [3, 9]] {
            let (d, a, ra) = (random(1, k, pixels), random(2, k, pixels), random(3, l, pixels));
            let (delta, r) = (random_bits(4, 1, count), random(5, l, count));
            let high = (l - k).max(1);
            let lift = [6, 7, 8].map(|stream| random(stream, high, pixels));
            let lift = (k < l).then(|| [&lift[0][..], &lift[1][..], &lift[2][..]]);
            let s = Select { d: &d, delta: &delta, a: &a, r: &r, ra: &ra, lift };
            for public in [false, true] {
                let mut want = vec![0; pixels];
                plain().select([k, l], &map, public, s, &mut want);
                for set in others() {
                    let mut got = vec![0; pixels];
                    set.select([k, l], &map, public, s, &mut got);
                    assert!(got == want, "{} at {:?}, {k} to {l} bits", set.name(), map.blocks);
                }
            }
        }
    }
}

#[test]
fn nibbles() {
    for (len, nibbles) in [(1, 1), (64, 2), (65, 3), (513, 5), (1100, 2)] {
        let (e, t) = (random_bits(1, 4 * nibbles, len), random_bits(2, 4 * nibbles, len));
        let mut products = vec![0; 15 * nibbles * stride(len)];
        plain().nibble_products(len, &t, &mut products);
        for public in [false, true] {
            let mut want = vec![0; (2 * nibbles - 1) * stride(len)];
            plain().nibble_open(len, public, &e, &products, &mut want);
            for k in others() {
                let (mut got_products, mut got) = (vec![0; products.len()], vec![0; want.len()]);
                k.nibble_products(len, &t, &mut got_products);
                k.nibble_open(len, public, &e, &products, &mut got);
                assert!(got_products == products && got == want, "{}: {len} of {nibbles} nibbles", k.name());
            }
        }
    }
}

/// Kernels that differ in what they are compiled for alone.
#[test]
fn passes() {
    let len = 1000;
    let (a, b) = (random(1, 40, len), random(2, 40, len));
    let both: [&[u64]; 2] = [&a, &b];
    let bias = random(3, 40, 10);
    let words = |k: &dyn Kernels, f: &dyn Fn(&dyn Kernels, &mut [u64]), len: usize| {
        let mut out = vec![0; len];
        f(k, &mut out);
        out
    };
    let pool = PoolShape { channels: 10, input: [10, 10], window: Window::new([3, 2]), counted: [0; 4] };
    let sources = [Source::Operand(1), Source::Zero, Source::Operand(0)];
    let carries = Masked { hat: &a[..45], lambda: &b[..45], products: &a };
    type Pass<'a> = (&'a str, usize, &'a dyn Fn(&dyn Kernels, &mut [u64]));
    let all: [Pass<'_>; 19] = [
        ("add", len, &|k, y| k.add(33, &a, &b, y)),
        ("sub", len, &|k, y| k.sub(33, &a, &b, y)),
        ("add_const", len, &|k, y| k.add_const(33, &a, 77, y)),
        ("truncate", len, &|k, y| k.truncate(40, 11, 1, &a, y)),
        ("join", len, &|k, y| k.join(50, 30, &a, &b, y)),
        ("add_bias", len, &|k, y| k.add_bias(33, &a, &bias, y)),
        ("scale", len, &|k, y| k.scale(33, &bias, &a, y)),
        ("sum_pool", 10 * 8 * 9, &|k, y| k.sum_pool(33, &pool, &a, y)),
        ("gather", 40, &|k, y| k.gather(33, [2, 50, 10], &[3, 1], &a, y)),
        ("transpose", len, &|k, y| k.transpose(33, &[10, 20, 5], &[2, 0, 1], &a, y)),
        ("pad", 10 * 13 * 14, &|k, y| k.pad(33, [10, 10], [1, 2, 2, 2], &a, y)),
        ("assemble", 30, &|k, y| k.assemble(33, 10, &sources, &both, y)),
        ("xor", len, &|k, y| k.xor(&a, &b, y)),
        ("xnor", len, &|k, y| k.xnor(640, &a, &b, y)),
        ("planes", 50, &|k, y| k.planes(640, &[(1, 0), (0, 9), (1, 3), (0, 0), (0, 1)], &both, y)),
        ("to_ring", len, &|k, y| k.to_ring(&a[..16], y)),
        ("wrap", 16, &|k, y| k.wrap(40, &a, &b, y)),
        ("lift_public", len, &|k, y| k.lift_public(40, 50, &a, y)),
        ("lift_correction", len, &|k, y| k.lift_correction(33, &a[..16], &a, &b, y)),
    ];
    for (name, size, f) in all {
        let want = words(plain(), f, size);
        for k in others() {
            assert_eq!(words(k, f, size), want, "{name}: {}", k.name());
        }
    }
    // Five inputs, planes of five words.
    let (bits, products) = carry_terms(5);
    let open = |k: &dyn Kernels, y: &mut [u64]| k.carry_open(5, 320, true, carries, y);
    let dealt = |k: &dyn Kernels, y: &mut [u64]| k.carry_products(5, 320, &b[..45], y);
    for k in others() {
        assert_eq!(words(k, &open, 5 * bits.len()), words(plain(), &open, 5 * bits.len()), "carry_open: {}", k.name());
        let size = 5 * products.len();
        assert_eq!(words(k, &dealt, size), words(plain(), &dealt, size), "carry_products: {}", k.name());
    }
}
