//! Every available kernel set against the plain one, with elements of either width against wide ones.

use bcc_ir::geometry::{ConvShape, PoolShape, Window};
use bcc_ir::program::{BlockMap, Source, Type, Width, carry_terms, steps};

use super::conv::{COLUMNS, ROWS};
use super::plain::compare;
use super::{KernelSet, Kernels, Masked, Select, available, plain};
use crate::buffer::{mask, stride, tail_mask};
use crate::element::Element;
use crate::prg::{Key, draw};

fn random(stream: u32, bits: u8, len: usize) -> Vec<u64> {
    draw(&Key::new([1; 16]), stream, Type::Ring { bits, len }, Width::Wide).words()
}

fn random_bits(stream: u32, planes: usize, len: usize) -> Vec<u64> {
    draw(&Key::new([2; 16]), stream, Type::Bits { planes, len }, Width::Wide).words()
}

/// Elements of words.
fn held<E: Element>(words: &[u64]) -> Vec<E> {
    words.iter().map(|v| E::of(*v)).collect()
}

/// Words of elements.
fn words<E: Element>(elements: &[E]) -> Vec<u64> {
    elements.iter().map(|v| v.word()).collect()
}

/// Says which sets the tests of this machine cover: `--nocapture` shows it.
#[test]
fn names_of_sets() {
    let mut names: Vec<&str> = available().into_iter().map(KernelSet::name).collect();
    println!("kernel sets: {}", names.join("; "));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() == count && names.contains(&plain().name()));
}

/// The reference.
fn wide() -> &'static dyn Kernels<u64> {
    plain().of()
}

fn name<E: Element>(set: KernelSet) -> String {
    format!("{}, {} bits an element", set.name(), E::BITS)
}

fn conv<E: Element>(set: KernelSet, bits: u8, shape: &ConvShape, x: &[u64], w: &[u64], want: &[u64]) {
    let (k, x, w) = (set.of::<E>(), held::<E>(x), held::<E>(w));
    let mut got = vec![E::ZERO; want.len()];
    k.conv(bits, shape, &x, &w, &mut got);
    assert!(words(&got) == want, "{} differs at {shape}, {bits} bits", name::<E>(set));
    if let Some(arranged) = k.arrange(bits, false, shape, &w) {
        assert!(arranged.fits(bits, shape));
        got.fill(E::of(5));
        k.conv_arranged(&arranged, &x, &mut got);
        assert!(words(&got) == want, "{} differs at {shape}, {bits} bits, arranged", name::<E>(set));
        // Some channels, then the others.
        let group = shape.out_channels / shape.groups;
        let half = shape.out_channels / 2 / group * group + (group / 2 + 1) / steps::ROWS * steps::ROWS;
        let (front, back) = got.split_at_mut(half * want.len() / shape.out_channels);
        front.fill(E::of(6));
        back.fill(E::of(7));
        k.conv_rows(&arranged, 0..half, &x, front);
        k.conv_rows(&arranged, half..shape.out_channels, &x, back);
        assert!(words(&got) == want, "{} differs at {shape}, {bits} bits, in two calls", name::<E>(set));
    }
}

fn conv_of_narrow_weights<E: Element>(set: KernelSet, bits: u8, shape: &ConvShape, x: &[u64], w: &[u64], want: &[u64]) {
    let k = set.of::<E>();
    if let Some(arranged) = k.arrange(bits, true, shape, &held(w)) {
        let mut got = vec![E::of(5); want.len()];
        k.conv_arranged(&arranged, &held(x), &mut got);
        assert!(words(&got) == want, "{} differs at {shape}, {bits} bits, narrow weights", name::<E>(set));
    }
}

fn check_conv(bits: u8, shape: ConvShape) {
    let x = random(0, bits, shape.input_len().unwrap());
    let w = random(1, bits, shape.weight_len().unwrap());
    let mut want = vec![0; shape.output_len().unwrap()];
    wide().conv(bits, &shape, &x, &w, &mut want);
    for set in available() {
        conv::<u64>(set, bits, &shape, &x, &w, &want);
        if bits <= 32 {
            conv::<u32>(set, bits, &shape, &x, &w, &want);
        }
    }
    // Weights of 16 bits, the extremes among them.
    let m = mask(bits);
    let edges = [0x7fff, 0x8000u64.wrapping_neg(), 0, u64::MAX];
    let narrow = w.iter().zip(0..).map(|(w, i)| if i % 3 == 0 { edges[i % 4] } else { *w as i16 as u64 } & m);
    let w: Vec<u64> = narrow.collect();
    wide().conv(bits, &shape, &x, &w, &mut want);
    for set in available() {
        conv_of_narrow_weights::<u64>(set, bits, &shape, &x, &w, &want);
        if bits <= 32 {
            conv_of_narrow_weights::<u32>(set, bits, &shape, &x, &w, &want);
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
                check_conv(32, shape);
            }
        }
    }
}

/// Enough channels that pixels can be rows of tiles.
#[test]
fn conv_of_many_channels() {
    let window = |kernel, stride, dilation, pad| Window { kernel, stride, dilation, pad };
    let windows = [
        window([3, 3], [1, 1], [1, 1], [1, 1, 1, 1]),
        window([3, 3], [2, 2], [1, 1], [1, 1, 1, 1]),
        window([3, 2], [3, 1], [2, 3], [0, 2, 3, 1]),
        window([5, 5], [1, 2], [1, 1], [4, 0, 0, 9]),
        window([2, 1], [1, 1], [3, 1], [2, 9, 0, 9]),
    ];
    for window in windows {
        for (in_channels, out_channels, groups) in [(64, 16, 1), (50, 1, 1), (150, 33, 1), (128, 40, 2)] {
            for input in [[9, 40], [7, 7], [17, 3]] {
                let shape = ConvShape { in_channels, input, out_channels, groups, window };
                for bits in [8, 17, 32, 40, 64] {
                    check_conv(bits, shape);
                }
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
                        for (out_channels, bits) in [(8, 33), (40, 40), (8, 12), (40, 32)] {
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
            wide().conv(bits, &shape, &x, &w, &mut want);
            for set in available() {
                conv::<u64>(set, bits, &shape, &x, &w, &want);
                if bits <= 32 {
                    conv::<u32>(set, bits, &shape, &x, &w, &want);
                }
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

fn bits<E: Element>() {
    for len in [1, 63, 64, 65, 300] {
        for (low, count, pad) in [(0, usize::from(E::BITS), 0), (0, 1, 3), (5, 20, 0), (E::BITS - 1, 1, 1)] {
            let x = random(3, E::BITS, len);
            let mut want = vec![0; (pad + count) * stride(len)];
            wide().to_bits(low, pad as u8, &x, &mut want);
            for set in available() {
                let mut got = vec![0; want.len()];
                set.of::<E>().to_bits(low, pad as u8, &held::<E>(&x), &mut got);
                assert_eq!(got, want, "{}: {len} elements, bits {low} + {count}", name::<E>(set));
            }
            // What is taken where there is no AVX2.
            let mut got = vec![0; want.len()];
            super::bits::to_bits(low, pad as u8, &held::<E>(&x), &mut got);
            assert_eq!(got, want, "by transposing: {len} elements, bits {low} + {count}");
            if pad == 0 {
                assert_eq!(want[0] & 1, x[0] >> low & 1);
            }
        }
    }
}

#[test]
fn bits_of_ring_elements() {
    bits::<u32>();
    bits::<u64>();
}

fn planes_of(values: &[u64], count: usize) -> Vec<u64> {
    let mut out = vec![0; count * stride(values.len())];
    wide().to_bits(0, 0, values, &mut out);
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

fn gates<E: Element>(map: &BlockMap) {
    let (pixels, count) = (map.pixels(), map.count());
    let (bits_of_blocks, x) = (random_bits(1, 1, count), random(2, E::BITS, pixels));
    let (mut sums, mut gated) = (vec![0; count], vec![0; pixels]);
    wide().block_sum(23, map, &x, &mut sums);
    wide().gate(map, &bits_of_blocks, &x, &mut gated);
    for set in available() {
        let (k, x) = (set.of::<E>(), held::<E>(&x));
        let (mut got_sums, mut got_gated) = (vec![E::ZERO; count], vec![E::ZERO; pixels]);
        k.block_sum(23, map, &x, &mut got_sums);
        k.gate(map, &bits_of_blocks, &x, &mut got_gated);
        assert!(words(&got_sums) == sums && words(&got_gated) == gated, "{} at {:?}", name::<E>(set), map.blocks);
    }
}

#[test]
fn gates_of_blocks() {
    for map in maps() {
        gates::<u32>(&map);
        gates::<u64>(&map);
    }
}

fn selection<E: Element>(
    set: KernelSet,
    moduli: [u8; 2],
    map: &BlockMap,
    public: bool,
    s: Select<'_, u64>,
) -> Vec<u64> {
    let [d, a, r, ra] = [s.d, s.a, s.r, s.ra].map(held::<E>);
    let lift = s.lift.map(|lift| lift.map(held::<E>));
    let lift = lift.as_ref().map(|lift| lift.each_ref().map(|x| &x[..]));
    let mut out = vec![E::ZERO; map.pixels()];
    set.of::<E>().select(moduli, map, public, Select { d: &d, delta: s.delta, a: &a, r: &r, ra: &ra, lift }, &mut out);
    words(&out)
}

#[test]
fn selections() {
    for map in maps() {
        let (pixels, count) = (map.pixels(), map.count());
        for [k, l] in [[20, 32], [33, 40], [63, 64], [64, 64], [32, 32], [31, 32], [3, 9]] {
            let (d, a, ra) = (random(1, k, pixels), random(2, k, pixels), random(3, l, pixels));
            let (delta, r) = (random_bits(4, 1, count), random(5, l, count));
            let high = (l - k).max(1);
            let lift = [6, 7, 8].map(|stream| random(stream, high, pixels));
            let lift = (k < l).then(|| [&lift[0][..], &lift[1][..], &lift[2][..]]);
            let s = Select { d: &d, delta: &delta, a: &a, r: &r, ra: &ra, lift };
            for public in [false, true] {
                let want = selection::<u64>(plain(), [k, l], &map, public, s);
                for set in available() {
                    let got = selection::<u64>(set, [k, l], &map, public, s);
                    assert!(got == want, "{} at {:?}, {k} to {l} bits", set.name(), map.blocks);
                    if l <= 32 {
                        let got = selection::<u32>(set, [k, l], &map, public, s);
                        assert!(got == want, "{} at {:?}, {k} to {l} bits, narrow", set.name(), map.blocks);
                    }
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
        wide().nibble_products(len, &t, &mut products);
        for public in [false, true] {
            let mut want = vec![0; (2 * nibbles - 1) * stride(len)];
            wide().nibble_open(len, public, &e, &products, &mut want);
            for set in available() {
                let (mut got_products, mut got) = (vec![0; products.len()], vec![0; want.len()]);
                set.of::<u32>().nibble_products(len, &t, &mut got_products);
                set.of::<u32>().nibble_open(len, public, &e, &products, &mut got);
                assert!(got_products == products && got == want, "{}: {len} of {nibbles} nibbles", set.name());
            }
        }
    }
}

/// What every pass over elements gives, by name.
fn of_elements<E: Element>(set: KernelSet) -> Vec<(&'static str, Vec<u64>)> {
    let (k, len) = (set.of::<E>(), 1000);
    let top = E::BITS - 2;
    let all = [(1, top), (2, top), (3, 23)].map(|(stream, bits)| held::<E>(&random(stream, bits, len)));
    let [a, b, small] = all;
    let both: [&[E]; 2] = [&a, &b];
    let (bias, plane) = (held::<E>(&random(3, 20, 10)), random(4, 64, 16));
    let pool = PoolShape { channels: 10, input: [10, 10], window: Window::new([3, 2]), counted: [0; 4] };
    let sources = [Source::Operand(1), Source::Zero, Source::Operand(0)];
    let factors: Vec<u64> = words(&bias);
    type Pass<'a, E> = (&'static str, usize, &'a dyn Fn(&mut [E]));
    let all: [Pass<'_, E>; 15] = [
        ("add", len, &|y| k.add(23, &a, &b, y)),
        ("sub", len, &|y| k.sub(23, &a, &b, y)),
        ("add_const", len, &|y| k.add_const(23, &a, E::of(77), y)),
        ("truncate", len, &|y| k.truncate(top, 11, 1, &a, y)),
        ("join", len, &|y| k.join(30, 20, &a, &b, y)),
        ("add_bias", len, &|y| k.add_bias(23, &a, &bias, y)),
        ("scale", len, &|y| k.scale(23, &factors, &a, y)),
        ("sum_pool", 10 * 8 * 9, &|y| k.sum_pool(23, &pool, &a, y)),
        ("gather", 40, &|y| k.gather(23, [2, 50, 10], &[3, 1], &a, y)),
        ("transpose", len, &|y| k.transpose(23, &[10, 20, 5], &[2, 0, 1], &a, y)),
        ("pad", 10 * 13 * 14, &|y| k.pad(23, [10, 10], [1, 2, 2, 2], &a, y)),
        ("assemble", 30, &|y| k.assemble(23, 10, &sources, &both, y)),
        ("to_ring", len, &|y| k.to_ring(&plane, y)),
        ("lift_public", len, &|y| k.lift_public(23, 30, &small, y)),
        ("lift_correction", len, &|y| k.lift_correction(23, &plane, &a, &b, y)),
    ];
    let run = |(name, size, f): Pass<'_, E>| {
        let mut out = vec![E::ZERO; size];
        f(&mut out);
        (name, words(&out))
    };
    let mut out: Vec<_> = all.into_iter().map(run).collect();
    let mut wraps = vec![0; 16];
    k.wrap(top, &a, &b, &mut wraps);
    out.push(("wrap", wraps));
    out
}

/// Kernels that differ in what they are compiled for alone, and in the size of elements.
#[test]
fn passes_over_elements() {
    for set in available() {
        for (got, want) in of_elements::<u64>(set).into_iter().zip(of_elements::<u64>(plain())) {
            assert_eq!(got, want, "{}", set.name());
        }
        for (got, want) in of_elements::<u32>(set).into_iter().zip(of_elements::<u32>(plain())) {
            assert_eq!(got, want, "{}, narrow", set.name());
        }
    }
}

/// The same on small operands, where the size of elements makes no difference.
#[test]
fn passes_of_either_width() {
    let len = 1000;
    let (a, b) = (random(1, 30, len), random(2, 30, len));
    let (x, y) = (held::<u32>(&a), held::<u32>(&b));
    let k = plain().of::<u32>();
    let mut want = vec![0; len];
    let mut got = vec![0; len];
    for bits in [7, 30, 32] {
        wide().add(bits, &a, &b, &mut want);
        k.add(bits, &x, &y, &mut got);
        assert_eq!(words(&got), want);
        wide().sub(bits, &a, &b, &mut want);
        k.sub(bits, &x, &y, &mut got);
        assert_eq!(words(&got), want);
        wide().join(bits, 13, &a, &b, &mut want);
        k.join(bits, 13, &x, &y, &mut got);
        assert_eq!(words(&got), want);
        wide().scale(bits, &b, &a, &mut want);
        k.scale(bits, &b, &x, &mut got);
        assert_eq!(words(&got), want);
        wide().lift_public(30, bits.max(30), &a, &mut want);
        k.lift_public(30, bits.max(30), &x, &mut got);
        assert_eq!(words(&got), want);
    }
    let (a, b) = (random(1, 32, len), random(2, 32, len));
    wide().truncate(32, 9, 1, &a, &mut want);
    k.truncate(32, 9, 1, &held::<u32>(&a), &mut got);
    assert_eq!(words(&got), want);
    let (mut wraps, mut of_wide) = (vec![0; 16], vec![0; 16]);
    wide().wrap(32, &a, &b, &mut of_wide);
    k.wrap(32, &held::<u32>(&a), &held::<u32>(&b), &mut wraps);
    assert_eq!(wraps, of_wide);
}

#[test]
fn passes_over_planes() {
    let (a, b) = (random(1, 64, 1000), random(2, 64, 1000));
    let both: [&[u64]; 2] = [&a, &b];
    let carries = Masked { hat: &a[..45], lambda: &b[..45], products: &a };
    // Five inputs, planes of five words.
    let (bits, products) = carry_terms(5);
    type Pass<'a> = (&'a str, usize, &'a dyn Fn(&dyn Kernels<u32>, &mut [u64]));
    let all: [Pass<'_>; 5] = [
        ("xor", 1000, &|k, y| k.xor(&a, &b, y)),
        ("xnor", 1000, &|k, y| k.xnor(640, &a, &b, y)),
        ("planes", 50, &|k, y| k.planes(640, &[(1, 0), (0, 9), (1, 3), (0, 0), (0, 1)], &both, y)),
        ("carry_open", 5 * bits.len(), &|k, y| k.carry_open(5, 320, true, carries, y)),
        ("carry_products", 5 * products.len(), &|k, y| k.carry_products(5, 320, &b[..45], y)),
    ];
    for (name, size, f) in all {
        let run = |set: KernelSet| {
            let mut out = vec![0; size];
            f(set.of(), &mut out);
            out
        };
        available().into_iter().for_each(|set| assert_eq!(run(set), run(plain()), "{name}: {}", set.name()));
    }
}
