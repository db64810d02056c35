//! Small programs, written by hand in the protocol's letters.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_ir::geometry::ConvShape;
use bcc_ir::program::{
    BlockMap, BufferId, Code, Inst, Instruction, Layer, Message, Pair, Phase, Port, Program, Role, Scope, Stream, Tap,
    Type, WeightEntry, WeightWidth, carry_groups, carry_terms, verify,
};
use bcc_runtime::port::Tensor;

pub use Phase::{Offline, Online, Setup};
pub use Role::{Client, Dealer, Server};

pub struct Builder {
    pub program: Program,
}

pub fn ring(bits: u8, len: usize) -> Type {
    Type::Ring { bits, len }
}

pub fn bits(planes: usize, len: usize) -> Type {
    Type::Bits { planes, len }
}

/// Shares of a value at client and server.
#[derive(Clone, Copy)]
pub struct Shared {
    pub c: BufferId,
    pub s: BufferId,
}

impl Builder {
    pub fn new(ring: u8) -> Self {
        let port =
            |name: &str| Port { name: name.into(), shape: Vec::new(), frac: 0, modulus: ring, gain: 1.0, bound: 1e18 };
        let layer =
            Layer { name: "layer".into(), op: "Test".into(), shape: vec![1], frac: 0, modulus: ring, drelus: 0 };
        Builder {
            program: Program {
                name: "test".into(),
                ring,
                input: port("x"),
                output: port("y"),
                epilogue: Vec::new(),
                layers: vec![layer],
                weights: Vec::new(),
                streams: Vec::new(),
                messages: Vec::new(),
                roles: [Code::default(), Code::default(), Code::default()],
                taps: Vec::new(),
            },
        }
    }

    fn buffer(&mut self, role: Role, ty: Type) -> BufferId {
        let buffers = &mut self.program.roles[role.index()].buffers;
        buffers.push(ty);
        buffers.len() as BufferId - 1
    }

    fn emit(&mut self, role: Role, phase: Phase, inst: Inst, inputs: &[BufferId], outputs: Vec<BufferId>) {
        let i = Instruction { inst, inputs: inputs.to_vec(), outputs, layer: 0 };
        self.program.roles[role.index()].phases[phase.index()].push(i);
    }

    pub fn op(&mut self, role: Role, phase: Phase, inst: Inst, inputs: &[BufferId], ty: Type) -> BufferId {
        let out = self.buffer(role, ty);
        self.emit(role, phase, inst, inputs, vec![out]);
        out
    }

    pub fn stream(&mut self, name: &str, pair: Pair, scope: Scope, ty: Type) -> Inst {
        self.program.streams.push(Stream { name: name.into(), pair, scope, ty });
        Inst::Draw { stream: self.program.streams.len() as u32 - 1 }
    }

    /// Draws the same stream at the dealer (offline) and at the pair's other party.
    pub fn masks(&mut self, name: &str, pair: Pair, ty: Type) -> (BufferId, BufferId) {
        let draw = self.stream(name, pair, Scope::Inference, ty);
        let role = if pair == Pair::ClientDealer { Client } else { Server };
        (self.op(role, Offline, draw.clone(), &[], ty), self.op(Dealer, Offline, draw, &[], ty))
    }

    pub fn message(&mut self, name: &str, from: Role, to: Role, phase: Phase, parts: &[BufferId]) -> Vec<BufferId> {
        let types: Vec<Type> = parts.iter().map(|b| self.program.roles[from.index()].buffers[*b as usize]).collect();
        let message = self.program.messages.len() as u32;
        self.program.messages.push(Message {
            name: name.into(),
            from,
            to,
            phase,
            layer: 0,
            parts: types.clone(),
            reveal: false,
        });
        self.emit(from, phase, Inst::Send { message }, parts, Vec::new());
        let out: Vec<BufferId> = types.into_iter().map(|t| self.buffer(to, t)).collect();
        self.emit(to, phase, Inst::Receive { message }, &[], out.clone());
        out
    }

    /// The input: C draws a dealt share, S receives the rest. Returns the shares and C's at D.
    pub fn input(&mut self, modulus: u8, len: usize) -> (Shared, BufferId) {
        let ty = ring(modulus, len);
        self.program.input.modulus = modulus;
        self.program.input.shape = vec![1, len];
        let (c, at_d) = self.masks("c", Pair::ClientDealer, ty);
        let x = self.op(Client, Online, Inst::Input, &[], ty);
        let masked = self.op(Client, Online, Inst::Sub, &[x, c], ty);
        let s = self.message("x - c", Client, Server, Online, &[masked])[0];
        (Shared { c, s }, at_d)
    }

    /// The output: S opens its share to C.
    pub fn output(&mut self, y: Shared, modulus: u8, len: usize) {
        self.program.output.modulus = modulus;
        self.program.output.shape = vec![1, len];
        let s = self.message("output", Server, Client, Online, &[y.s])[0];
        self.program.messages.last_mut().unwrap().reveal = true;
        let sum = self.op(Client, Online, Inst::Add, &[s, y.c], ring(modulus, len));
        self.emit(Client, Online, Inst::Output, &[sum], Vec::new());
    }

    pub fn tap(&mut self, node: &str, value: Shared, modulus: u8) {
        let tap = Tap { node: node.into(), client: value.c, server: value.s, frac: 0, modulus, gain: 1.0 };
        self.program.taps.push(tap);
    }

    /// A convolution of a dealt share with weights at S.
    pub fn conv(&mut self, x: Shared, c_at_d: BufferId, modulus: u8, shape: ConvShape) -> Shared {
        let (w_ty, y_ty) = (ring(modulus, shape.weight_len().unwrap()), ring(modulus, shape.output_len().unwrap()));
        self.program.weights.push(WeightEntry { name: "w".into(), len: w_ty.len(), width: WeightWidth::I64 });
        let index = self.program.weights.len() as u32 - 1;
        let draw = self.stream("A", Pair::ServerDealer, Scope::Model, w_ty);
        let w = self.op(Server, Setup, Inst::Weight { index }, &[], w_ty);
        let a = self.op(Server, Setup, draw.clone(), &[], w_ty);
        let f = self.op(Server, Setup, Inst::Sub, &[w, a], w_ty);
        let f = self.message("F", Server, Client, Setup, &[f])[0];
        let a = self.op(Dealer, Setup, draw, &[], w_ty);
        let (c0, c0_d) = self.masks("c0", Pair::ClientDealer, y_ty);
        let ac = self.op(Dealer, Offline, Inst::Conv(shape), &[c_at_d, a], y_ty);
        let c1 = self.op(Dealer, Offline, Inst::Sub, &[ac, c0_d], y_ty);
        let c1 = self.message("c1", Dealer, Server, Offline, &[c1])[0];
        let fc = self.op(Client, Offline, Inst::Conv(shape), &[x.c, f], y_ty);
        let c = self.op(Client, Offline, Inst::Add, &[fc, c0], y_ty);
        let ws = self.op(Server, Online, Inst::Conv(shape), &[x.s, w], y_ty);
        let s = self.op(Server, Online, Inst::Add, &[ws, c1], y_ty);
        Shared { c, s }
    }

    pub fn truncate(&mut self, z: Shared, k: u8, drop: u8, len: usize) -> Shared {
        let ty = ring(k - drop, len);
        let c = self.op(Client, Offline, Inst::Truncate { bits: drop, carry: 0 }, &[z.c], ty);
        let s = self.op(Server, Online, Inst::Truncate { bits: drop, carry: 1 }, &[z.s], ty);
        Shared { c, s }
    }

    /// XOR shares of what D holds: C's from a stream, S's by a message.
    fn deal_bits(&mut self, name: &str, at_d: BufferId, ty: Type) -> Shared {
        let (c, c_d) = self.masks(name, Pair::ClientDealer, ty);
        let s = self.op(Dealer, Offline, Inst::Xor, &[at_d, c_d], ty);
        let s = self.message(name, Dealer, Server, Offline, &[s])[0];
        Shared { c, s }
    }

    fn deal(&mut self, name: &str, at_d: BufferId, ty: Type) -> Shared {
        let (c, c_d) = self.masks(name, Pair::ClientDealer, ty);
        let s = self.op(Dealer, Offline, Inst::Sub, &[at_d, c_d], ty);
        let s = self.message(name, Dealer, Server, Offline, &[s])[0];
        Shared { c, s }
    }

    /// Opens XOR shares under fresh masks. Returns the masked bits at C and S, the shares of the
    /// masks, and the masks at D.
    fn open(&mut self, name: &str, o: Shared, ty: Type) -> (Shared, Shared, BufferId) {
        let (lc, lc_d) = self.masks(&format!("{name} mask C"), Pair::ClientDealer, ty);
        let (ls, ls_d) = self.masks(&format!("{name} mask S"), Pair::ServerDealer, ty);
        let lambda = self.op(Dealer, Offline, Inst::Xor, &[lc_d, ls_d], ty);
        let c = self.op(Client, Online, Inst::Xor, &[o.c, lc], ty);
        let s = self.op(Server, Online, Inst::Xor, &[o.s, ls], ty);
        let at_s = self.message(&format!("{name} C"), Client, Server, Online, &[c])[0];
        let at_c = self.message(&format!("{name} S"), Server, Client, Online, &[s])[0];
        let hat_c = self.op(Client, Online, Inst::Xor, &[c, at_c], ty);
        let hat_s = self.op(Server, Online, Inst::Xor, &[s, at_s], ty);
        (Shared { c: hat_c, s: hat_s }, Shared { c: lc, s: ls }, lambda)
    }

    /// The carry of `e + t` over `planes` (a multiple of 4) bits. Returns the masked carry and the
    /// mask at D.
    pub fn carry(&mut self, e: Shared, t: BufferId, planes: usize, n: usize) -> (Shared, BufferId) {
        let q = planes / 4;
        let ty = bits(15 * q, n);
        let products = self.op(Dealer, Offline, Inst::NibbleProducts, &[t], ty);
        let products = self.deal_bits("nibbles", products, ty);
        let mut ty = bits(2 * q - 1, n);
        let c = self.op(Client, Online, Inst::NibbleOpen { public: true }, &[e.c, products.c], ty);
        let s = self.op(Server, Online, Inst::NibbleOpen { public: false }, &[e.s, products.s], ty);
        let (mut hat, mut share, mut lambda) = self.open("level 1", Shared { c, s }, ty);
        let mut inputs = q;
        while inputs > 1 {
            let (opened, sets) = carry_terms(inputs);
            let set_ty = bits(sets.len(), n);
            let p = Inst::CarryProducts { inputs: inputs as u8 };
            let products = self.op(Dealer, Offline, p, &[lambda], set_ty);
            let products = self.deal_bits("products", products, set_ty);
            let open = |public| Inst::CarryOpen { inputs: inputs as u8, public };
            let open_ty = bits(opened.len(), n);
            let c = self.op(Client, Online, open(true), &[hat.c, share.c, products.c], open_ty);
            let s = self.op(Server, Online, open(false), &[hat.s, share.s, products.s], open_ty);
            let (new_hat, new_share, new_lambda) = self.open("level", Shared { c, s }, open_ty);
            let groups = carry_groups(inputs);
            if *groups.last().unwrap() > 1 {
                (hat, share, lambda) = (new_hat, new_share, new_lambda);
            } else {
                // The last input passes unopened.
                let mut picks: Vec<(u8, u32)> = (0..opened.len() as u32).map(|p| (0, p)).collect();
                picks.extend([(1, 2 * inputs as u32 - 3), (1, 2 * inputs as u32 - 2)]);
                ty = bits(picks.len(), n);
                let planes = Inst::Planes { picks };
                hat = Shared {
                    c: self.op(Client, Online, planes.clone(), &[new_hat.c, hat.c], ty),
                    s: self.op(Server, Online, planes.clone(), &[new_hat.s, hat.s], ty),
                };
                share = Shared {
                    c: self.op(Client, Offline, planes.clone(), &[new_share.c, share.c], ty),
                    s: self.op(Server, Offline, planes.clone(), &[new_share.s, share.s], ty),
                };
                lambda = self.op(Dealer, Offline, planes, &[new_lambda, lambda], ty);
            }
            inputs = groups.len();
        }
        (hat, lambda)
    }

    /// Block-ReLU of `z` modulo `2^k`, result modulo `2^l`; the window is `lo .. hi`.
    pub fn block_relu(&mut self, z: Shared, k: u8, l: u8, map: &BlockMap, [lo, hi]: [u8; 2]) -> Shared {
        let (n, nb) = (map.pixels(), map.count());
        let ty = ring(k, n);
        let (a_c, a_c_d) = self.masks("a C", Pair::ClientDealer, ty);
        let (a_s, a_s_d) = self.masks("a S", Pair::ServerDealer, ty);
        let a = self.op(Dealer, Offline, Inst::Add, &[a_c_d, a_s_d], ty);
        let d_c = self.op(Client, Offline, Inst::Sub, &[z.c, a_c], ty);
        let d_c_at_s = self.message("c - a", Client, Server, Offline, &[d_c])[0];
        let d_s = self.op(Server, Online, Inst::Sub, &[z.s, a_s], ty);
        let d_s_at_c = self.message("s - a", Server, Client, Online, &[d_s])[0];
        let d = Shared {
            c: self.op(Client, Online, Inst::Add, &[d_c, d_s_at_c], ty),
            s: self.op(Server, Online, Inst::Add, &[d_s, d_c_at_s], ty),
        };
        let count = hi - lo - 1;
        let pad = count.next_multiple_of(4) - count;
        let planes = usize::from(count + pad);
        let both = |b: &mut Self, inst: Inst, x: Shared, ty: Type| Shared {
            c: b.op(Client, Online, inst.clone(), &[x.c], ty),
            s: b.op(Server, Online, inst, &[x.s], ty),
        };
        let e = both(self, Inst::BlockSum(map.clone()), d, ring(hi, nb));
        let low = Inst::ToBits { low: lo, count, pad };
        let top = Inst::ToBits { low: hi - 1, count: 1, pad: 0 };
        let e_bits = both(self, low.clone(), e, bits(planes, nb));
        let e_top = both(self, top.clone(), e, bits(1, nb));
        let t = self.op(Dealer, Offline, Inst::BlockSum(map.clone()), &[a], ring(hi, nb));
        let t_bits = self.op(Dealer, Offline, low, &[t], bits(planes, nb));
        let t_top = self.op(Dealer, Offline, top, &[t], bits(1, nb));
        let (carry, lambda) = self.carry(e_bits, t_bits, planes, nb);
        let delta = Shared {
            c: self.op(Client, Online, Inst::Xnor, &[e_top.c, carry.c], bits(1, nb)),
            s: self.op(Server, Online, Inst::Xnor, &[e_top.s, carry.s], bits(1, nb)),
        };
        let rho = self.op(Dealer, Offline, Inst::Xor, &[t_top, lambda], bits(1, nb));
        let r = self.op(Dealer, Offline, Inst::ToRing, &[rho], ring(l, nb));
        let r = self.deal("rho", r, ring(l, nb));
        let ra = self.op(Dealer, Offline, Inst::Gate(map.clone()), &[rho, a], ring(l, n));
        let ra = self.deal("rho a", ra, ring(l, n));
        let mut c = vec![d.c, delta.c, a_c, r.c, ra.c];
        let mut s = vec![d.s, delta.s, a_s, r.s, ra.s];
        if k < l {
            let ty = ring(l - k, n);
            let w = self.op(Dealer, Offline, Inst::Wrap, &[a_c_d, a_s_d], bits(1, n));
            let w = self.op(Dealer, Offline, Inst::ToRing, &[w], ty);
            let ta = self.op(Dealer, Offline, Inst::ToBits { low: k - 1, count: 1, pad: 0 }, &[a], bits(1, n));
            let ta = self.op(Dealer, Offline, Inst::ToRing, &[ta], ty);
            let rta = self.op(Dealer, Offline, Inst::Gate(map.clone()), &[rho, ta], ty);
            for (name, v) in [("w", w), ("ta", ta), ("rho ta", rta)] {
                let v = self.deal(name, v, ty);
                c.push(v.c);
                s.push(v.s);
            }
        }
        let select = |public| Inst::Select { map: map.clone(), public };
        Shared {
            c: self.op(Client, Online, select(true), &c, ring(l, n)),
            s: self.op(Server, Online, select(false), &s, ring(l, n)),
        }
    }

    /// The program; it must verify.
    pub fn finish(self) -> Program {
        if let Err(faults) = verify(&self.program) {
            panic!("{faults}");
        }
        self.program
    }
}

/// Block-ReLU alone on inputs modulo `2^k`.
pub fn relu_program(k: u8, l: u8, map: &BlockMap, window: [u8; 2]) -> Program {
    let mut b = Builder::new(l);
    let (x, _) = b.input(k, map.pixels());
    let y = b.block_relu(x, k, l, map, window);
    b.output(y, l, map.pixels());
    b.finish()
}

/// A convolution, a truncation, a Block-ReLU: every kind of message, all phases.
pub fn small_network() -> (Program, Vec<Vec<i64>>) {
    let map = BlockMap { map: [5, 6], blocks: vec![[1, 1], [2, 2], [3, 4]] };
    network(32, 2, &map)
}

/// A 3x3 convolution of some channels, truncation, and Block-ReLU.
pub fn network(ring: u8, in_channels: usize, map: &BlockMap) -> (Program, Vec<Vec<i64>>) {
    let shape = ConvShape {
        in_channels,
        input: map.map,
        out_channels: map.blocks.len(),
        groups: 1,
        window: bcc_ir::Window { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1, 1, 1] },
    };
    let mut b = Builder::new(ring);
    let (x, c_at_d) = b.input(ring, shape.input_len().unwrap());
    let z = b.conv(x, c_at_d, ring, shape);
    let z = b.truncate(z, ring, 6, shape.output_len().unwrap());
    b.tap("z", z, ring - 6);
    let y = b.block_relu(z, ring - 6, ring, map, [0, 26]);
    b.tap("y", y, ring);
    b.output(y, ring, map.pixels());
    let weights = (0..shape.weight_len().unwrap() as i64).map(|i| (i * 37 % 101) - 50).collect();
    (b.finish(), vec![weights])
}

/// Deterministic integers in `-limit .. limit`.
pub fn integers(seed: u64, len: usize, limit: i64) -> Vec<i64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 1) as i64 % limit * if state & 1 == 1 { 1 } else { -1 }
        })
        .collect()
}

pub fn tensor(values: &[i64]) -> Tensor {
    Tensor { shape: vec![1, values.len()], data: values.iter().map(|v| *v as f64).collect() }
}
