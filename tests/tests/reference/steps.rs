//! Steps, instruction by instruction.

use super::*;

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
    pub(super) fn shape(&self) -> ConvShape {
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
    let shares = [x.xor(&half, &Buffer::zeros(half.ty(), Width::Wide)), x.xor(&lambda, &half)];
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
    pub(super) fn block_map(&self) -> BlockMap {
        BlockMap { map: self.map, blocks: self.blocks.clone() }
    }

    pub(super) fn pixels(&self) -> usize {
        self.z.len()
    }

    /// `z` of the pixels in blocks with a sum of at least zero.
    pub(super) fn gated(&self, x: &Exec) -> Buffer {
        let wide = Buffer::ring(64, Width::Wide, &self.z.iter().map(|v| *v as u64).collect::<Vec<_>>());
        let sums = x.run(Inst::BlockSum(self.block_map()), &[&wide], ring_type(64, self.block_map().count()));
        let negative = x.bit(&sums, 63);
        let keep = x.run(Inst::Xnor, &[&negative, &Buffer::zeros(negative.ty(), Width::Wide)], negative.ty());
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
    let z = Buffer::ring(k, Width::Wide, &case.z.iter().map(|v| *v as u64).collect::<Vec<_>>());
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
            let pairs = p.words().into_iter().zip(q.words());
            Buffer::ring(bits, Width::Wide, &pairs.enumerate().map(|(i, (p, q))| f(p, q, no_te(i))).collect::<Vec<_>>())
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

    let copy = |v: &Buffer| ring(k, &v.words());
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
    let z = Buffer::ring(case.ring, Width::Wide, &case.z.iter().map(|v| *v as u64).collect::<Vec<_>>());
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
