//! Every protocol step against the reference protocol, on the same masks.
//!
//! `vectors/reference.json` holds runs of the reference with all their draws and messages. Each is
//! repeated twice: instruction by instruction on every kernel set, which compares shares of
//! intermediate values too, and as the program that the compiler lowers the step to, whose messages
//! and results must be the reference's.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bcc_compiler::passes::lower::{LowerOptions, lower};
use bcc_ir::geometry::{Block, ConvShape, Window};
use bcc_ir::graph::{ClientShare, ConstData, ConstId, Evidence, Fixed, Graph, NodeId, Op, Range};
use bcc_ir::program::{BlockMap, Inst, Phase, Program, Role, Stream, Type, carry_groups, carry_terms, verify};
use bcc_runtime::buffer::{Buffer, mask};
use bcc_runtime::exec::compute;
use bcc_runtime::kernels::{Kernels, available, best};
use bcc_runtime::prg::{Key, draw};
use serde::Deserialize;

// ---------------------------------------------------------------- the vectors

#[derive(Deserialize)]
struct Vectors {
    truncate: Vec<Truncate>,
    linear: Vec<Linear>,
    compare: Vec<Compare>,
    block_relu: Vec<BlockRelu>,
}

#[derive(Deserialize)]
struct Truncate {
    k: u8,
    f: u8,
    c: Vec<u64>,
    s: Vec<u64>,
    #[serde(rename = "out c")]
    out_c: Vec<u64>,
    #[serde(rename = "out s")]
    out_s: Vec<u64>,
    #[serde(rename = "out s centred")]
    centred: Vec<u64>,
}

#[derive(Deserialize)]
struct Linear {
    #[serde(rename = "L")]
    ring: u8,
    outputs: usize,
    inputs: usize,
    size: [usize; 2],
    kernel: usize,
    pad: usize,
    w: Vec<u64>,
    c: Vec<u64>,
    s: Vec<u64>,
    #[serde(rename = "out c")]
    out_c: Vec<u64>,
    #[serde(rename = "out s")]
    out_s: Vec<u64>,
    #[serde(flatten)]
    run: Run,
}

#[derive(Deserialize)]
struct Compare {
    bits: u8,
    levels: usize,
    public: Vec<u64>,
    secret: Vec<u64>,
    #[serde(flatten)]
    run: Run,
}

#[derive(Deserialize)]
struct BlockRelu {
    #[serde(rename = "L")]
    ring: u8,
    k: u8,
    lo: u8,
    hi: u8,
    levels: usize,
    map: [usize; 2],
    blocks: Vec<[usize; 2]>,
    z: Vec<i64>,
    c: Vec<u64>,
    s: Vec<u64>,
    #[serde(flatten)]
    run: Run,
}

/// One run of the reference: what it drew and what it computed, by label. Bits are packed into
/// words like planes of a [`Buffer`].
#[derive(Deserialize)]
struct Run {
    draws: Vec<(String, u8, Vec<u64>)>,
    values: BTreeMap<String, Vec<u64>>,
    traffic_bits: BTreeMap<String, u64>,
    #[serde(skip)]
    used: RefCell<BTreeSet<String>>,
}

impl Run {
    fn get(&self, label: &str) -> &[u64] {
        self.used.borrow_mut().insert(label.into());
        let drawn = self.draws.iter().find(|d| d.0 == label).map(|d| &d.2);
        drawn.or_else(|| self.values.get(label)).unwrap_or_else(|| panic!("the reference has no \"{label}\""))
    }

    fn ring(&self, bits: u8, label: &str) -> Buffer {
        ring(bits, self.get(label))
    }

    /// Planes of `len` bits whose labels are `before`, one of `labels`, `after`.
    fn planes(&self, len: usize, [before, after]: [&str; 2], labels: &[String]) -> Buffer {
        let words: Vec<u64> =
            labels.iter().flat_map(|l| self.get(&format!("{before}{l}{after}")).iter().copied()).collect();
        let mut buffer = Buffer::zeros(Type::Bits { planes: labels.len(), len });
        buffer.words_mut().copy_from_slice(&words);
        buffer
    }

    /// All draws and values must have been compared or used.
    fn assert_exhausted(&self) {
        let labels = self.draws.iter().map(|d| &d.0).chain(self.values.keys());
        let left: Vec<&String> = labels.filter(|l| !self.used.borrow().contains(*l)).collect();
        assert!(left.is_empty(), "not compared: {left:?}");
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/reference.json")).unwrap()
}

// ---------------------------------------------------------------- buffers and instructions

fn ring(bits: u8, values: &[u64]) -> Buffer {
    assert!(values.iter().all(|v| *v <= mask(bits)), "a value of the reference is not reduced to {bits} bits");
    Buffer::ring(bits, values.to_vec())
}

fn ring_type(bits: u8, len: usize) -> Type {
    Type::Ring { bits, len }
}

fn plane_type(len: usize) -> Type {
    Type::Bits { planes: 1, len }
}

/// Shares that the reference does not have.
fn noise(stream: u32, ty: Type) -> Buffer {
    draw(&Key::new([7; 16]), stream, ty)
}

#[track_caller]
fn assert_words(got: &Buffer, want: &[u64], what: &str) {
    assert!(got.words() == want, "{what} differs:\n{:?}\n{want:?}", got.words());
}

#[track_caller]
fn assert_same(got: &Buffer, want: &Buffer, what: &str) {
    assert_eq!(got.ty(), want.ty(), "{what}");
    assert_words(got, want.words(), what);
}

/// Executes single instructions.
struct Exec(&'static dyn Kernels);

impl Exec {
    fn run(&self, inst: Inst, operands: &[&Buffer], ty: Type) -> Buffer {
        compute(self.0, &inst, operands, ty).unwrap_or_else(|| panic!("{inst:?} does not run on these operands"))
    }

    fn add(&self, a: &Buffer, b: &Buffer) -> Buffer {
        self.run(Inst::Add, &[a, b], a.ty())
    }

    fn sub(&self, a: &Buffer, b: &Buffer) -> Buffer {
        self.run(Inst::Sub, &[a, b], a.ty())
    }

    fn xor(&self, a: &Buffer, b: &Buffer) -> Buffer {
        self.run(Inst::Xor, &[a, b], a.ty())
    }

    /// Bits of ring elements as whole nibbles, left-aligned as the reference does it.
    fn nibbles(&self, x: &Buffer, low: u8, count: u8) -> Buffer {
        let pad = count.next_multiple_of(4) - count;
        let ty = Type::Bits { planes: usize::from(count + pad), len: x.ty().len() };
        self.run(Inst::ToBits { low, count, pad }, &[x], ty)
    }

    fn bit(&self, x: &Buffer, low: u8) -> Buffer {
        self.run(Inst::ToBits { low, count: 1, pad: 0 }, &[x], plane_type(x.ty().len()))
    }
}

fn on_every_kernel_set(check: impl Fn(&Exec)) {
    for k in available() {
        check(&Exec(k));
    }
}

// ---------------------------------------------------------------- labels of the comparison

fn groups_of_several(inputs: usize) -> impl Iterator<Item = usize> {
    carry_groups(inputs).into_iter().enumerate().filter(|(_, size)| *size > 1).map(|(i, _)| i)
}

/// Inputs of every level, the nibbles (level 1) first.
fn levels(nibbles: usize) -> Vec<usize> {
    let (mut all, mut n) = (vec![nibbles], nibbles);
    while n > 1 {
        all.push(n);
        n = n.div_ceil(4);
    }
    all
}

/// The reference's names of a level's dealt products, in the order of the planes.
fn product_labels(level: usize, inputs: usize) -> Vec<String> {
    if level == 1 {
        let name = |j: usize, set: usize| {
            let bits: Vec<String> = (0..4).filter(|i| set >> i & 1 == 1).map(|i| format!("t{i}")).collect();
            format!("nibble {j} {}", bits.join(" "))
        };
        return (0..inputs).flat_map(|j| (1..16).map(move |set| name(j, set))).collect();
    }
    let name = |set: &Vec<usize>| {
        // Planes are G0, G1, P1, G2, P2, ..; within a chunk the reference counts from 0.
        let input = |plane: usize| plane.div_ceil(2);
        let mut names: Vec<String> = set
            .iter()
            .map(|&plane| format!("{}{}", if plane == 0 || plane % 2 == 1 { "g" } else { "p" }, input(plane) % 4))
            .collect();
        names.sort();
        format!("level {level} chunk {} {}", input(set[0]) / 4, names.join(" "))
    };
    carry_terms(inputs).1.iter().map(name).collect()
}

/// The reference's names of a level's opened bits, in the order of the planes.
fn opened_labels(level: usize, inputs: usize) -> Vec<String> {
    let (places, unit): (Vec<usize>, String) = match level {
        1 => ((0..inputs).collect(), "nibble".into()),
        _ => (groups_of_several(inputs).collect(), format!("level {level} chunk")),
    };
    let bits = |i: usize| if i == 0 { vec!["G"] } else { vec!["G", "P"] };
    places
        .iter()
        .flat_map(|i| bits(*i).into_iter().map(move |b| (*i, b)))
        .map(|(i, b)| format!("{unit} {i} {b}"))
        .collect()
}

// ---------------------------------------------------------------- steps, instruction by instruction

#[test]
fn truncate() {
    on_every_kernel_set(|x| {
        for case in vectors().truncate {
            let ty = ring_type(case.k - case.f, case.c.len());
            let run =
                |values: &[u64], carry| x.run(Inst::Truncate { bits: case.f, carry }, &[&ring(case.k, values)], ty);
            assert_words(&run(&case.c, 0), &case.out_c, "the client's share");
            assert_words(&run(&case.s, 0), &case.out_s, "the server's share");
            assert_words(&run(&case.s, 1), &case.centred, "the server's centred share");
        }
    });
}

impl Linear {
    fn shape(&self) -> ConvShape {
        let Linear { inputs, outputs, size, kernel, pad, .. } = *self;
        let window = Window { pad: [pad; 4], ..Window::new([kernel, kernel]) };
        ConvShape { in_channels: inputs, input: size, out_channels: outputs, groups: 1, window }
    }
}

#[test]
fn linear() {
    on_every_kernel_set(|x| {
        for case in vectors().linear {
            let (l, run) = (case.ring, &case.run);
            let out = ring_type(l, case.shape().output_len().unwrap());
            let conv = |maps: &Buffer, w: &Buffer| x.run(Inst::Conv(case.shape()), &[maps, w], out);
            let (w, c, s) = (ring(l, &case.w), ring(l, &case.c), ring(l, &case.s));
            let (a, c0) = (run.ring(l, "A"), run.ring(l, "c0"));
            let f = x.sub(&w, &a);
            assert_words(&f, run.get("S>C F"), "F");
            let c1 = x.sub(&conv(&c, &a), &c0);
            assert_words(&c1, run.get("D>S c1"), "c1");
            assert_words(&x.add(&conv(&c, &f), &c0), &case.out_c, "the client's share");
            assert_words(&x.add(&conv(&s, &w), &c1), &case.out_s, "the server's share");
            run.assert_exhausted();
        }
    });
}

/// A carry level's bits: public, masks at the dealer, shares of the masks at client and server.
struct Masked {
    hat: Buffer,
    lambda: Buffer,
    shares: [Buffer; 2],
}

/// Shares of products that the dealer deals.
fn dealt(x: &Exec, run: &Run, labels: &[String], value: &Buffer) -> [Buffer; 2] {
    let len = value.ty().len();
    let client = run.planes(len, ["", ""], labels);
    let server = x.xor(value, &client);
    assert_same(&server, &run.planes(len, ["D>S ", ""], labels), "dealt products");
    [client, server]
}

/// Client's and server's shares of a level's bits under fresh masks, exchanged.
fn open(x: &Exec, run: &Run, labels: &[String], [client, server]: [Buffer; 2]) -> Masked {
    let len = client.ty().len();
    let (lambda, half) = (run.planes(len, ["", " lam"], labels), run.planes(len, ["", " lam_c"], labels));
    let shares = [x.xor(&half, &Buffer::zeros(half.ty())), x.xor(&lambda, &half)];
    let (own, other) = (x.xor(&client, &shares[0]), x.xor(&server, &shares[1]));
    assert_same(&own, &run.planes(len, ["C>S ", ""], labels), "the client's message");
    assert_same(&other, &run.planes(len, ["S>C ", ""], labels), "the server's message");
    let hat = x.xor(&own, &other);
    assert_same(&hat, &run.planes(len, ["", " hat"], labels), "opened bits");
    Masked { hat, lambda, shares }
}

/// The next level's inputs: a chunk of one passes unopened.
fn join(x: &Exec, inputs: usize, opened: &Buffer, before: &Buffer) -> Buffer {
    let (mut picks, mut next) = (Vec::new(), 0);
    for (i, size) in carry_groups(inputs).into_iter().enumerate() {
        for bit in 0..if i == 0 { 1 } else { 2 } {
            if size > 1 {
                picks.push((0, next));
                next += 1;
            } else {
                picks.push((1, (8 * i - 1 + bit) as u32));
            }
        }
    }
    let ty = Type::Bits { planes: picks.len(), len: opened.ty().len() };
    x.run(Inst::Planes { picks }, &[opened, before], ty)
}

/// The masked carry of `e + t`, whole nibbles each.
fn carry(x: &Exec, run: &Run, e: &Buffer, t: &Buffer) -> Masked {
    let Type::Bits { planes, len } = e.ty() else { panic!("e is bits") };
    let bits = |planes| Type::Bits { planes, len };
    let all = levels(planes / 4);

    let (products, opened) = (product_labels(1, all[0]), opened_labels(1, all[0]));
    let value = x.run(Inst::NibbleProducts, &[t], bits(products.len()));
    let [client, server] = dealt(x, run, &products, &value);
    let share = |public, products: &Buffer| x.run(Inst::NibbleOpen { public }, &[e, products], bits(opened.len()));
    let mut level = open(x, run, &opened, [share(true, &client), share(false, &server)]);

    for (n, &inputs) in all.iter().enumerate().skip(1) {
        let (products, opened) = (product_labels(n + 1, inputs), opened_labels(n + 1, inputs));
        let count = inputs as u8;
        let value = x.run(Inst::CarryProducts { inputs: count }, &[&level.lambda], bits(products.len()));
        let [client, server] = dealt(x, run, &products, &value);
        let share = |public, lambda: &Buffer, products: &Buffer| {
            x.run(Inst::CarryOpen { inputs: count, public }, &[&level.hat, lambda, products], bits(opened.len()))
        };
        let shares = [share(true, &level.shares[0], &client), share(false, &level.shares[1], &server)];
        let next = open(x, run, &opened, shares);
        level = Masked {
            hat: join(x, inputs, &next.hat, &level.hat),
            lambda: join(x, inputs, &next.lambda, &level.lambda),
            shares: [0, 1].map(|i| join(x, inputs, &next.shares[i], &level.shares[i])),
        };
    }
    assert_words(&level.hat, run.get("carry hat"), "the carry");
    assert_words(&level.lambda, run.get("carry lam"), "the carry's mask");
    assert_words(&level.shares[0], run.get("carry lam_c"), "the client's share of the carry's mask");
    level
}

#[test]
fn compare() {
    on_every_kernel_set(|x| {
        for case in vectors().compare {
            let n = case.public.len();
            let [e, t] = [&case.public, &case.secret].map(|v| x.nibbles(&ring(case.bits, v), 0, case.bits));
            let carry = carry(x, &case.run, &e, &t);
            let opened = x.xor(&carry.hat, &carry.lambda);
            for (i, (p, s)) in case.public.iter().zip(&case.secret).enumerate() {
                let want = (u128::from(*p) + u128::from(*s)) >> case.bits;
                assert_eq!(u128::from(opened.words()[i / 64] >> (i % 64) & 1), want, "{p} + {s}");
            }
            let all = levels(usize::from(case.bits.div_ceil(4)));
            assert_eq!(all.len(), case.levels);
            let sum = |labels: fn(usize, usize) -> Vec<String>| -> u64 {
                all.iter().enumerate().map(|(i, inputs)| (labels(i + 1, *inputs).len() * n) as u64).sum()
            };
            let (products, bits) = (sum(product_labels), sum(opened_labels));
            let counted = [("offline D>S", products), ("online C>S", bits), ("online S>C", bits)];
            assert_eq!(case.run.traffic_bits, counted.map(|(link, bits)| (link.to_string(), bits)).into());
            case.run.assert_exhausted();
        }
    });
}

impl BlockRelu {
    fn block_map(&self) -> BlockMap {
        BlockMap { map: self.map, blocks: self.blocks.clone() }
    }

    fn pixels(&self) -> usize {
        self.z.len()
    }

    /// `z` of the pixels in blocks with a sum of at least zero.
    fn gated(&self, x: &Exec) -> Buffer {
        let wide = Buffer::ring(64, self.z.iter().map(|v| *v as u64).collect());
        let sums = x.run(Inst::BlockSum(self.block_map()), &[&wide], ring_type(64, self.block_map().count()));
        let negative = x.bit(&sums, 63);
        let keep = x.run(Inst::Xnor, &[&negative, &Buffer::zeros(negative.ty())], negative.ty());
        x.run(Inst::Gate(self.block_map()), &[&keep, &wide], wide.ty())
    }
}

/// The public and the dealer's values of a Block-ReLU.
struct Opened {
    d: Buffer,
    te: Buffer,
    delta: Buffer,
    a_c: Buffer,
    a_s: Buffer,
    a: Buffer,
    rho: Buffer,
}

fn opened(x: &Exec, case: &BlockRelu) -> Opened {
    let (k, lo, hi, run) = (case.k, case.lo, case.hi, &case.run);
    let (a_c, a_s) = (run.ring(k, "a_c"), run.ring(k, "a_s"));
    let (moved, part) = (x.sub(&ring(k, &case.c), &a_c), x.sub(&ring(k, &case.s), &a_s));
    assert_words(&moved, run.get("C>S c - a_c"), "c - a_C");
    assert_words(&part, run.get("S>C s - a_s"), "s - a_S");
    let d = x.add(&moved, &part);
    let z = Buffer::ring(k, case.z.iter().map(|v| *v as u64).collect());
    assert_same(&x.add(&d, &x.add(&a_c, &a_s)), &z, "z");
    let eps = x.run(Inst::AddConst { value: 1 << (k - 2) }, &[&d], d.ty());
    assert_words(&eps, run.get("eps"), "eps");
    let te = x.bit(&eps, k - 1);
    assert_words(&te, run.get("top"), "the top bit of eps");
    let a = x.add(&a_c, &a_s);

    let sums = |of: &Buffer, name: &str| {
        let sums = x.run(Inst::BlockSum(case.block_map()), &[of], ring_type(hi, case.block_map().count()));
        let windows: Vec<u64> = sums.words().iter().map(|v| v >> lo).collect();
        assert_eq!(windows, run.get(name), "{name}");
        (x.nibbles(&sums, lo, hi - lo - 1), x.bit(&sums, hi - 1))
    };
    let ((e, top_e), (t, top_t)) = (sums(&d, "e"), sums(&a, "t"));
    let carry = carry(x, run, &e, &t);
    let delta = x.run(Inst::Xnor, &[&top_e, &carry.hat], top_e.ty());
    assert_words(&delta, run.get("delta"), "delta");
    let rho = x.xor(&top_t, &carry.lambda);
    assert_words(&rho, run.get("rho"), "rho");
    Opened { d, te, delta, a_c, a_s, a, rho }
}

/// Wrap of two shares of `a` and its top bit, modulo `2^high`.
fn wrap_and_top(x: &Exec, [c, s]: [&Buffer; 2], a: &Buffer, high: u8) -> [Buffer; 2] {
    let Type::Ring { bits: k, len } = a.ty() else { panic!("a is a ring buffer") };
    let wrap = x.run(Inst::Wrap, &[c, s], plane_type(len));
    [wrap, x.bit(a, k - 1)].map(|bit| x.run(Inst::ToRing, &[&bit], ring_type(high, len)))
}

/// `Select` by both parties, on shares `a`, `r`, `ra` and, where `k < L`, `w`, `ta`, `rta`.
fn select(x: &Exec, map: &BlockMap, public: [&Buffer; 2], shares: [Vec<Buffer>; 2], ty: Type) -> [Buffer; 2] {
    let [client, server] = shares;
    [(true, client), (false, server)].map(|(adds_public, own)| {
        let operands: Vec<&Buffer> = public.into_iter().chain(&own).collect();
        x.run(Inst::Select { map: map.clone(), public: adds_public }, &operands, ty)
    })
}

/// `Select` on shares made from the reference's: then each party's result is the reference's.
///
/// The reference shares `A` (lifted, less the top bit where `te` is 0) and `rho A`; here `A` and
/// `R` are computed from shares of `a`, `w`, `ta`, `rho a` and `rho ta`. Those of `ta` and `rho ta`
/// are free, and `a`, `w` and `rho a` are solved for. The reference has a share of rho at every
/// pixel, so every pixel is its own block.
fn select_like_the_reference(x: &Exec, case: &BlockRelu, o: &Opened) {
    let (k, l, n, run) = (case.k, case.ring, case.pixels(), &case.run);
    let (wide, high) = (ring_type(l, n), l - k);
    let [a_c, a_s, r_c, r_s, ra_c, ra_s] = ["A_c", "A_s", "r_c", "r_s", "rA_c", "rA_s"].map(|label| run.ring(l, label));
    assert_words(&x.add(&a_c, &a_s), run.get("A"), "A");
    let pixels = BlockMap { map: [1, n], blocks: vec![[1, 1]] };
    let one = ring(1, &vec![1; n]);
    let spread = |bit: &Buffer| x.bit(&x.run(Inst::Gate(case.block_map()), &[bit, &one], one.ty()), 0);
    let (delta, rho) = (spread(&o.delta), spread(&o.rho));
    assert_same(&x.add(&r_c, &r_s), &x.run(Inst::ToRing, &[&rho], wide), "shares of rho");

    let shares = if high == 0 {
        assert_same(&x.add(&a_c, &a_s), &o.a, "a");
        assert_same(&x.add(&ra_c, &ra_s), &x.run(Inst::Gate(pixels.clone()), &[&rho, &o.a], wide), "rho a");
        [vec![a_c, r_c, ra_c], vec![a_s, r_s, ra_s]]
    } else {
        let no_te = |i: usize| 1 - (o.te.words()[i / 64] >> (i % 64) & 1);
        let map2 = |p: &Buffer, q: &Buffer, bits: u8, f: &dyn Fn(u64, u64, u64) -> u64| {
            let pairs = p.words().iter().zip(q.words());
            Buffer::ring(bits, pairs.enumerate().map(|(i, (p, q))| f(*p, *q, no_te(i))).collect())
        };
        let [ta_c, rta_c] = [0, 1].map(|i| noise(i, ring_type(high, n)));
        let low_c = x.run(Inst::Reduce, &[&a_c], o.a.ty());
        let w_c = map2(&a_c, &ta_c, high, &|a, ta, no_te| (a >> k).wrapping_add(no_te.wrapping_mul(ta)).wrapping_neg());
        let wide_ra = |ra: &Buffer, rta: &Buffer| {
            map2(ra, rta, l, &|ra, rta, no_te| ra.wrapping_add(no_te.wrapping_mul(rta) << k))
        };
        let low_s = x.sub(&o.a, &low_c);
        let [w, ta] = wrap_and_top(x, [&low_c, &low_s], &o.a, high);
        let rta = x.run(Inst::Gate(pixels.clone()), &[&rho, &ta], ta.ty());
        let ra = x.run(Inst::Gate(pixels.clone()), &[&rho, &o.a], wide);
        let (w_s, ta_s, rta_s) = (x.sub(&w, &w_c), x.sub(&ta, &ta_c), x.sub(&rta, &rta_c));
        let (own, other) = (wide_ra(&ra_c, &rta_c), wide_ra(&ra_s, &rta_s));
        assert_same(&x.add(&own, &other), &ra, "rho a");
        [vec![low_c, r_c, own, w_c, ta_c, rta_c], vec![low_s, r_s, other, w_s, ta_s, rta_s]]
    };
    let [y_c, y_s] = select(x, &pixels, [&o.d, &delta], shares, wide);
    assert_words(&y_c, run.get("y_c"), "the client's share of the selection");
    assert_words(&y_s, run.get("y_s"), "the server's share of the selection");
}

/// The rest of the step as the protocol runs it, on the masks `a_C` and `a_S` themselves and one
/// share of rho for every block: only the sum of the selected shares is the reference's, and so is
/// the server's share after the re-mask.
fn select_and_remask(x: &Exec, case: &BlockRelu, o: &Opened) {
    let (k, l, n, run) = (case.k, case.ring, case.pixels(), &case.run);
    let (wide, high, map) = (ring_type(l, n), l - k, case.block_map());
    let shared = |value: Buffer, client: Buffer| {
        let server = x.sub(&value, &client);
        [client, server]
    };
    let gate = |value: &Buffer, ty| x.run(Inst::Gate(map.clone()), &[&o.rho, value], ty);
    let public = x.run(Inst::LiftPublic, &[&o.d], wide);
    assert_words(&public, run.get("pub"), "the public part of z");

    let copy = |v: &Buffer| ring(k, v.words());
    let blocks = ring_type(l, map.count());
    let mut pairs = vec![
        [copy(&o.a_c), copy(&o.a_s)],
        shared(x.run(Inst::ToRing, &[&o.rho], blocks), noise(2, blocks)),
        shared(gate(&o.a, wide), run.ring(l, "rA_c")),
    ];
    if high > 0 {
        let [w, ta] = wrap_and_top(x, [&o.a_c, &o.a_s], &o.a, high);
        let rta = gate(&ta, ta.ty());
        pairs.extend([(3, w), (4, ta), (5, rta)].map(|(i, v)| shared(v, noise(i, ring_type(high, n)))));
        lift_of_passed_channels(x, case, o, [&pairs[3], &pairs[4]], &public);
    }
    let (clients, servers) = pairs.into_iter().map(|[c, s]| (c, s)).unzip();
    let [y_c, y_s] = select(x, &map, [&o.d, &o.delta], [clients, servers], wide);
    let y = x.add(&y_c, &y_s);
    assert_same(&y, &x.add(&run.ring(l, "y_c"), &run.ring(l, "y_s")), "the selected value");
    if case.lo == 0 {
        assert_same(&y, &x.run(Inst::Reduce, &[&case.gated(x)], wide), "the gated z");
    }
    let b = run.ring(l, "b");
    assert_words(&b, run.get("out c"), "the client's new share");
    assert_words(&x.add(&y_s, &x.sub(&y_c, &b)), run.get("out s"), "the server's new share");
    assert_same(&x.sub(&run.ring(l, "y_c"), &b), &run.ring(l, "C>S y_c - b"), "the client's last message");
}

/// What an unsigned channel computes with the same shares: the reference's `A`, and `z` itself.
fn lift_of_passed_channels(x: &Exec, case: &BlockRelu, o: &Opened, [w, ta]: [&[Buffer; 2]; 2], public: &Buffer) {
    let wide = ring_type(case.ring, case.pixels());
    let [c, s] = [0, 1].map(|i| {
        let high = x.run(Inst::LiftCorrection, &[&o.te, &w[i], &ta[i]], w[i].ty());
        x.run(Inst::Join { shift: case.k }, &[[&o.a_c, &o.a_s][i], &high], wide)
    });
    let a = x.add(&c, &s);
    assert_words(&a, case.run.get("A"), "A");
    let z = Buffer::ring(case.ring, case.z.iter().map(|v| *v as u64).collect());
    assert_same(&x.add(public, &a), &z, "the lifted z");
}

#[test]
fn block_relu() {
    on_every_kernel_set(|x| {
        for case in vectors().block_relu {
            let o = opened(x, &case);
            select_like_the_reference(x, &case, &o);
            select_and_remask(x, &case, &o);
            case.run.assert_exhausted();
        }
    });
}

// ---------------------------------------------------------------- steps as lowered programs

/// What a program leaves behind: every buffer of every role, every message.
struct Trace<'a> {
    program: &'a Program,
    buffers: [Vec<Option<Rc<Buffer>>>; 3],
    sent: Vec<Option<Vec<Rc<Buffer>>>>,
}

impl<'a> Trace<'a> {
    /// Runs all roles in turn; streams are drawn from `draw`.
    fn new(program: &'a Program, weights: &[Vec<i64>], input: &Buffer, draw: &dyn Fn(&Stream) -> Buffer) -> Self {
        verify(program).unwrap();
        let buffers = Role::ALL.map(|r| vec![None; program.code(r).buffers.len()]);
        let mut trace = Trace { program, buffers, sent: vec![None; program.messages.len()] };
        for phase in Phase::ALL {
            let mut next = [0; 3];
            let lengths = Role::ALL.map(|r| program.code(r).phases[phase.index()].len());
            while next != lengths {
                let before = next;
                for role in Role::ALL {
                    let at = &mut next[role.index()];
                    while *at < lengths[role.index()] && trace.step(role, phase, *at, weights, input, draw) {
                        *at += 1;
                    }
                }
                assert_ne!(before, next, "all roles wait");
            }
        }
        trace
    }

    /// Runs an instruction; false if it waits for a message.
    fn step(
        &mut self,
        role: Role,
        phase: Phase,
        index: usize,
        weights: &[Vec<i64>],
        input: &Buffer,
        draw: &dyn Fn(&Stream) -> Buffer,
    ) -> bool {
        let code = self.program.code(role);
        let i = &code.phases[phase.index()][index];
        let operands: Vec<Rc<Buffer>> =
            i.inputs.iter().map(|b| self.buffers[role.index()][*b as usize].clone().unwrap()).collect();
        let ty = i.outputs.first().map(|b| code.buffers[*b as usize]);
        let results = match &i.inst {
            Inst::Send { message } => {
                self.sent[*message as usize] = Some(operands);
                Vec::new()
            }
            Inst::Receive { message } => match &self.sent[*message as usize] {
                Some(parts) => parts.clone(),
                None => return false,
            },
            Inst::Output => Vec::new(),
            Inst::Input => vec![Rc::new(Buffer::ring(self.program.input.modulus, input.words().to_vec()))],
            Inst::Draw { stream } => vec![Rc::new(draw(&self.program.streams[*stream as usize]))],
            Inst::Weight { index } => {
                let Some(Type::Ring { bits, .. }) = ty else { panic!("weights are ring elements") };
                let values = weights[*index as usize].iter().map(|v| *v as u64).collect();
                vec![Rc::new(Buffer::ring(bits, values))]
            }
            inst => {
                let operands: Vec<&Buffer> = operands.iter().map(|b| &**b).collect();
                vec![Rc::new(compute(best(), inst, &operands, ty.unwrap()).unwrap())]
            }
        };
        assert_eq!(results.len(), i.outputs.len());
        for (b, value) in i.outputs.iter().zip(results) {
            assert_eq!(value.ty(), code.buffers[*b as usize], "{:?}", i.inst);
            self.buffers[role.index()][*b as usize] = Some(value);
        }
        true
    }

    /// Client's and server's share of a node's value.
    fn shares(&self, node: &str) -> [&Buffer; 2] {
        let tap = self.program.taps.iter().find(|t| t.node == node).unwrap();
        [(Role::Client, tap.client), (Role::Server, tap.server)]
            .map(|(role, b)| &**self.buffers[role.index()][b as usize].as_ref().unwrap())
    }

    /// Parts of a message.
    fn message(&self, name: &str) -> Vec<&Buffer> {
        let index = self.program.messages.iter().position(|m| m.name == name);
        let parts = self.sent[index.unwrap_or_else(|| panic!("no message {name}"))].as_ref().unwrap();
        parts.iter().map(|b| &**b).collect()
    }

    /// All bit planes sent over a link, one after the other.
    fn planes(&self, from: Role, to: Role) -> Vec<u64> {
        let messages = self.program.messages.iter().zip(&self.sent).filter(|(m, _)| m.from == from && m.to == to);
        let parts = messages.flat_map(|(_, parts)| parts.as_ref().unwrap());
        parts.filter(|b| matches!(b.ty(), Type::Bits { .. })).flat_map(|b| b.words().iter().copied()).collect()
    }

    /// Bits of a layer's messages by phase and link, without headers and padding.
    fn traffic(&self, layer: &str) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for m in self.program.messages.iter().filter(|m| m.name.starts_with(&format!("{layer} "))) {
            let letter = |r: Role| r.to_string()[..1].to_uppercase();
            let bits = |ty: &Type| match *ty {
                Type::Ring { bits, len } => u64::from(bits) * len as u64,
                Type::Bits { planes, len } => (planes * len) as u64,
            };
            *all.entry(format!("{} {}>{}", m.phase, letter(m.from), letter(m.to))).or_default() +=
                m.parts.iter().map(bits).sum::<u64>();
        }
        all
    }
}

/// A quantized graph under construction, values with `bits` of modulus and no fraction.
struct Net(Graph);

impl Net {
    fn new(ring: u8, bits: u8, shape: Vec<usize>) -> (Self, NodeId) {
        let mut graph = Graph::new("step");
        graph.ring = Some(ring);
        let x = graph.add_input("x", shape);
        let mut net = Net(graph);
        net.annotate(x, bits, ClientShare::Dealt, None);
        (net, x)
    }

    fn annotate(&mut self, id: NodeId, modulus: u8, client: ClientShare, block_sum: Option<f64>) {
        let node = self.0.node_mut(id);
        node.fixed = Some(Fixed { frac: 0, modulus, gain: 1.0, client });
        let block_sum = block_sum.map(|s| (s, Evidence::Proven));
        node.range = Some(Range { bound: 1.0, evidence: Evidence::Proven, block_sum });
    }

    fn weights(&mut self, shape: Vec<usize>, values: Vec<i64>) -> ConstId {
        self.0.add_const("w", shape, ConstData::Int(values))
    }

    fn add(&mut self, name: &str, op: Op, x: NodeId, modulus: u8, client: ClientShare) -> NodeId {
        let id = self.0.add(name, Vec::new(), op, &[x]).unwrap();
        self.annotate(id, modulus, client, None);
        self.0.set_output(id);
        id
    }
}

fn unreachable_stream(stream: &Stream) -> Buffer {
    panic!("the reference does not draw \"{}\"", stream.name)
}

#[test]
fn lowered_truncate() {
    for case in vectors().truncate {
        let (mut net, x) = Net::new(case.k, case.k, vec![1, case.c.len()]);
        net.add("low", Op::Truncate { bits: case.f }, x, case.k - case.f, ClientShare::Dealt);
        let lowered = lower(&net.0, LowerOptions::default()).unwrap();
        let input = Exec(best()).add(&ring(case.k, &case.c), &ring(case.k, &case.s));
        let trace = Trace::new(&lowered.program, &[], &input, &|stream| match stream.name.as_str() {
            "x c" => ring(case.k, &case.c),
            _ => unreachable_stream(stream),
        });
        let [client, server] = trace.shares("low");
        assert_words(client, &case.out_c, "the client's share");
        assert_words(server, &case.centred, "the server's share");
    }
}

#[test]
fn lowered_linear() {
    for case in vectors().linear {
        let (l, run, [h, w]) = (case.ring, &case.run, case.size);
        let (mut net, x) = Net::new(l, l, vec![1, case.inputs, h, w]);
        let shape = vec![case.outputs, case.inputs, case.kernel, case.kernel];
        let signed = case.w.iter().map(|v| ((v << (64 - l)) as i64) >> (64 - l)).collect();
        let weight = net.weights(shape, signed);
        let op = Op::Conv { weight, bias: None, window: case.shape().window, groups: 1 };
        net.add("conv", op, x, l, ClientShare::Local);
        let lowered = lower(&net.0, LowerOptions::default()).unwrap();
        let input = Exec(best()).add(&ring(l, &case.c), &ring(l, &case.s));
        let trace = Trace::new(&lowered.program, &lowered.weights, &input, &|stream| match stream.name.as_str() {
            "x c" => ring(l, &case.c),
            "conv A" => run.ring(l, "A"),
            "conv c0" => run.ring(l, "c0"),
            _ => unreachable_stream(stream),
        });
        assert_words(trace.message("conv F")[0], run.get("S>C F"), "F");
        assert_words(trace.message("conv c1")[0], run.get("D>S c1"), "c1");
        let [client, server] = trace.shares("conv");
        assert_words(client, &case.out_c, "the client's share");
        assert_words(server, &case.out_s, "the server's share");
        assert_eq!(trace.traffic("conv"), run.traffic_bits);
    }
}

/// The program of one Block-ReLU behind a layer with weights 1, which makes the client's share
/// local as it is in the reference: that layer's `c0` is the reference's `c`.
#[test]
fn lowered_block_relu() {
    for case in vectors().block_relu {
        let (k, l, n, run) = (case.k, case.ring, case.pixels(), &case.run);
        let channels = case.blocks.len();
        let (mut net, x) = Net::new(l, k, vec![1, channels, case.map[0], case.map[1]]);
        let weight = net.weights(vec![channels, 1, 1, 1], vec![1; channels]);
        let op = Op::Conv { weight, bias: None, window: Window::new([1, 1]), groups: channels };
        let z = net.add("conv", op, x, k, ClientShare::Local);
        let blocks = case.blocks.iter().map(|&[h, w]| Block::Patch { h, w }).collect();
        let relu = net.add("relu", Op::BlockRelu { blocks, plannable: true }, z, l, ClientShare::Dealt);
        net.annotate(relu, l, ClientShare::Dealt, Some(0.75 * f64::from(case.hi - 1).exp2()));
        let drelu_window = (case.lo > 0).then_some(case.hi - case.lo);
        let lowered = lower(&net.0, LowerOptions { drelu_window }).unwrap();

        let nibbles = usize::from((case.hi - case.lo - 1).div_ceil(4));
        let all = levels(nibbles);
        assert_eq!(all.len(), case.levels);
        let count = case.block_map().count();
        let lambda = |level: usize, part: &str| run.planes(count, ["", part], &opened_labels(level, all[level - 1]));
        let drawn = |stream: &Stream| {
            let ty = stream.ty;
            let (what, level) = match stream.name.rsplit_once(' ') {
                Some((what, number)) if number.parse::<usize>().is_ok() => (what, number.parse().unwrap()),
                _ => (stream.name.as_str(), 0),
            };
            match what {
                "x c" | "conv A" => Buffer::zeros(ty),
                "conv c0" => ring(k, &case.c),
                "relu gate a_C" => run.ring(k, "a_c"),
                "relu gate a_S" => run.ring(k, "a_s"),
                "relu products" => run.planes(count, ["", ""], &product_labels(level, all[level - 1])),
                "relu lambda_C" => lambda(level, " lam_c"),
                "relu lambda_S" => Exec(best()).xor(&lambda(level, " lam"), &lambda(level, " lam_c")),
                "relu rho a" => run.ring(l, "rA_c"),
                "relu b" => run.ring(l, "b"),
                // The reference has no such shares, or others: the results do not depend on them.
                "relu r" | "relu w" | "relu ta" | "relu rho ta" => noise(stream.name.len() as u32, ty),
                _ => unreachable_stream(stream),
            }
        };
        let input = Exec(best()).add(&ring(k, &case.c), &ring(k, &case.s));
        let trace = Trace::new(&lowered.program, &lowered.weights, &input, &drawn);

        let [c, s] = trace.shares("conv");
        assert_words(c, &case.c, "the client's share of z");
        assert_words(s, &case.s, "the server's share of z");
        assert_words(trace.message("relu c - a_C")[0], run.get("C>S c - a_c"), "c - a_C");
        assert_words(trace.message("relu open")[0], run.get("S>C s - a_s"), "s - a_S");
        let sequence = |labels: fn(usize, usize) -> Vec<String>, link: &str| -> Vec<u64> {
            let labels: Vec<String> = all.iter().enumerate().flat_map(|(i, n)| labels(i + 1, *n)).collect();
            run.planes(count, [link, ""], &labels).words().to_vec()
        };
        assert_eq!(trace.planes(Role::Dealer, Role::Server), sequence(product_labels, "D>S "), "dealt products");
        assert_eq!(trace.planes(Role::Client, Role::Server), sequence(opened_labels, "C>S "), "the client's bits");
        assert_eq!(trace.planes(Role::Server, Role::Client), sequence(opened_labels, "S>C "), "the server's bits");
        let [client, server] = trace.shares("relu");
        assert_eq!(client.ty(), ring_type(l, n));
        assert_words(client, run.get("out c"), "the client's share");
        assert_words(server, run.get("out s"), "the server's share");
        assert_eq!(trace.traffic("relu"), run.traffic_bits);
    }
}
