//! Block-ReLU and refresh: masked opening, sign, select, lift and re-mask.
//!
//! The client's share `c` of `z` (modulus `2^k`, `|z| < 2^(k-2)`) is known before the input. With
//! masks `a_C` (client and dealer) and `a_S` (server and dealer), `a = a_C + a_S mod 2^k` is the
//! dealer's alone. `d = (c - a_C) + (s - a_S) = z - a` becomes public to client and server: each
//! sees it under the other's mask. Where `c` is dealt, `a_C` is `c` itself and nothing is sent for
//! it.
//!
//! A block's sum is `e + t`, where `e` sums `d` (public) and `t` sums `a` (the dealer's). Its sign
//! is bit `hi - 1` of `e + t mod 2^hi`: the top bits of `e` and `t` and the carry from below
//! ([`super::carry`]). At the end `delta = DReLU xor rho` is public and `rho` the dealer's.
//! [`Inst::Select`] has the algebra of `y = DReLU * z` in the wider modulus.
//!
//! A channel that passes unchanged needs no sign. With `eps = d + 2^(k-2)` and its top bit `te`,
//! `z = eps - te 2^k - 2^(k-2) + a_C + a_S - 2^k (w + (1 - te) ta)`, where `w` is the wrap of
//! `a_C + a_S` and `ta` the top bit of `a` ([`Inst::Select`]). The server opens `te` alone to the
//! client, which answers with its share of the bracket modulo `2^(L-k)` under a dealt mask `v`; its
//! new share is `a_C + 2^k v`, which the dealer knows.
//!
//! Four messages carry a layer (two where one level of carries is enough, or no sign is needed):
//! server, client, server, client.

use bcc_ir::geometry::Block;
use bcc_ir::program::{BlockMap, BufferId, Inst, Phase, Role, Source, Type};

use super::carry::{self, Level, Masked};
use super::clip::{Bounds, Opened};
use super::{Lowering, Shares, StreamId, shares};
use Phase::{Offline, Online};
use Role::{Client, Dealer, Server};

/// The bits `lo .. hi` of a block sum that decide its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BitWindow {
    lo: u8,
    hi: u8,
}

impl BitWindow {
    /// Bits compared, the sign among them.
    pub(super) fn width(self) -> u8 {
        self.hi - self.lo
    }
}

/// The window for block sums of magnitude up to `sum` units in a modulus of `k` bits: the highest
/// bit follows from the bound, `width` cuts off low bits (approximate signs).
pub(super) fn window(sum: f64, k: u8, width: Option<u8>) -> Option<BitWindow> {
    let hi = (2..=k).find(|h| sum < (f64::from(*h) - 1.0).exp2())?;
    let lo = width.map_or(0, |w| hi.saturating_sub(w.max(2)));
    Some(BitWindow { lo, hi })
}

/// A value whose `d = z - a` is being opened.
struct Opening {
    z: Shares,
    /// `a_C` for the client to draw; `None` where it is `c`.
    a_c: Option<StreamId>,
    a_s: StreamId,
    /// `a_C`, `a_S` and `a` at the dealer.
    dealer: [BufferId; 3],
    /// `c - a_C` at client and server.
    moved: Option<[BufferId; 2]>,
}

/// A dealt value: the client's half is a stream, the server's a part of the dealer's message.
#[derive(Clone, Copy)]
struct Dealt {
    stream: StreamId,
    part: usize,
}

/// What the dealer gives for the channels with signs.
struct DealtGate {
    levels: Vec<Level>,
    r: Dealt,
    ra: Dealt,
    /// Shares of `w`, `ta` and `rho ta`; `None` where `k = L`.
    lift: Option<[Dealt; 3]>,
    b: StreamId,
}

/// What the dealer gives for the channels that pass.
struct DealtLift {
    w: Dealt,
    ta: Dealt,
    v: StreamId,
}

/// A value to be gated.
struct Wanted {
    z: Shares,
    /// Blocks of all signs: of a clip, those for one bound after the other.
    map: BlockMap,
    window: BitWindow,
    bounds: Option<Bounds>,
}

struct Gate {
    open: Opening,
    map: BlockMap,
    window: BitWindow,
    bounds: Option<Bounds>,
    dealt: DealtGate,
}

impl Gate {
    /// How often the opened value is decided on.
    fn copies(&self) -> usize {
        self.bounds.map_or(1, Bounds::signs)
    }
}

struct Pass {
    open: Opening,
    dealt: DealtLift,
}

impl Lowering<'_> {
    /// One layer of Block-ReLU on `z` of `blocks.len()` channels, the result modulo `2^ring`.
    pub(super) fn block_relu(
        &mut self,
        blocks: &[Block],
        map: [usize; 2],
        window: BitWindow,
        z: Shares,
        ring: u8,
    ) -> Shares {
        let (mut gated, mut passed, mut patches) = (Vec::new(), Vec::new(), Vec::new());
        for (i, b) in blocks.iter().enumerate() {
            match *b {
                Block::Patch { h, w } => {
                    gated.push(i);
                    patches.push([h, w]);
                }
                Block::Identity => passed.push(i),
                Block::Zero => {}
            }
        }
        let inner = map[0] * map[1];
        let wanted = |z| Wanted { z, map: BlockMap { map, blocks: patches }, window, bounds: None };
        let gate = self.channels(z, blocks.len(), inner, &gated).map(wanted);
        let pass = self.channels(z, blocks.len(), inner, &passed);
        let parts = self.gate_and_pass(gate, pass, ring);
        if gated.len() == blocks.len() || passed.len() == blocks.len() {
            return parts[0];
        }
        let source = |b: &Block| match b {
            Block::Patch { .. } => Source::Operand(0),
            Block::Identity => Source::Operand(u8::from(!gated.is_empty())),
            Block::Zero => Source::Zero,
        };
        let inst = Inst::Assemble { inner, sources: blocks.iter().map(source).collect() };
        let out = Type::Ring { bits: ring, len: blocks.len() * inner };
        let clients: Vec<BufferId> = parts.iter().map(|s| s.client).collect();
        let dealers: Vec<BufferId> = parts.iter().filter_map(|s| s.dealer).collect();
        let servers: Vec<BufferId> = parts.iter().map(|s| s.server).collect();
        let client = self.b.emit(Client, Offline, inst.clone(), &clients, out);
        let dealer = self.b.emit(Dealer, Offline, inst.clone(), &dealers, out);
        let server = self.b.emit(Server, Online, inst, &servers, out);
        shares(client, server, Some(dealer), out)
    }

    /// Clips `z` of so many channels; the module `clip` has the algebra.
    pub(super) fn clip(
        &mut self,
        bounds: Bounds,
        (channels, map): (usize, [usize; 2]),
        window: BitWindow,
        z: Shares,
        ring: u8,
    ) -> Shares {
        let map = BlockMap { map, blocks: vec![[1, 1]; channels * bounds.signs()] };
        self.gate_and_pass(Some(Wanted { z, map, window, bounds: Some(bounds) }), None, ring)[0]
    }

    /// Lifts `z` to modulus `2^ring` with a dealt client share.
    pub(super) fn refresh(&mut self, z: Shares, ring: u8) -> Shares {
        self.gate_and_pass(None, Some(z), ring)[0]
    }

    fn channels(&mut self, z: Shares, all: usize, inner: usize, wanted: &[usize]) -> Option<Shares> {
        if wanted.is_empty() {
            return None;
        }
        if wanted.len() == all {
            return Some(z);
        }
        let out = Type::Ring { bits: z.bits, len: wanted.len() * inner };
        Some(self.local(Inst::Gather { outer: 1, axis: all, inner, indices: wanted.to_vec() }, z, out))
    }

    /// Gated and passed channels in common messages; the results in that order.
    fn gate_and_pass(&mut self, gate: Option<Wanted>, pass: Option<Shares>, ring: u8) -> Vec<Shares> {
        // In the full ring nothing has to be lifted.
        let (plain, pass) = match pass {
            Some(z) if z.bits == ring => (Some(if z.dealer.is_some() { z } else { self.remask(z) }), None),
            other => (None, other),
        };
        let mut gate = gate.map(|g| (self.mask(g.z, "gate"), g));
        let mut pass = pass.map(|z| self.mask(z, "pass"));
        self.send_moved(gate.iter_mut().map(|g| &mut g.0).chain(pass.iter_mut()).collect());
        let mut parts = Vec::new();
        let gate = gate.map(|(open, Wanted { map, window, bounds, .. })| {
            let copies = bounds.map_or(1, Bounds::signs);
            let dealt = self.deal_gate(&open, copies, &map, window, ring, &mut parts);
            Gate { open, map, window, bounds, dealt }
        });
        let pass = pass.map(|open| {
            let dealt = self.deal_pass(&open, ring, &mut parts);
            Pass { open, dealt }
        });
        let mut results = Vec::new();
        if !parts.is_empty() {
            let dealt = self.b.message("dealt", Dealer, Server, Offline, &parts, false);
            results = self.online(gate, pass, &dealt, ring);
        }
        results.extend(plain);
        results
    }

    /// Declares the masks of an opening; the dealer adds them up.
    fn mask(&mut self, z: Shares, what: &str) -> Opening {
        let ty = z.ty();
        let b = &mut self.b;
        let (a_c, a_c_d) = match z.dealer {
            Some(d) => (None, d),
            None => {
                let a_c = b.stream_cd(&format!("{what} a_C"), ty);
                (Some(a_c), b.draw(Dealer, Offline, a_c))
            }
        };
        let a_s = b.stream_sd(&format!("{what} a_S"), ty);
        let a_s_d = b.draw(Dealer, Offline, a_s);
        let a = b.emit(Dealer, Offline, Inst::Add, &[a_c_d, a_s_d], ty);
        Opening { z, a_c, a_s, dealer: [a_c_d, a_s_d, a], moved: None }
    }

    /// The client sends `c - a_C` of the openings that need it, in one message.
    fn send_moved(&mut self, openings: Vec<&mut Opening>) {
        let b = &mut self.b;
        let mut own = Vec::new();
        let mut waiting = Vec::new();
        for o in openings {
            if let Some(stream) = o.a_c {
                let a_c = b.draw(Client, Offline, stream);
                own.push(b.emit(Client, Offline, Inst::Sub, &[o.z.client, a_c], o.z.ty()));
                waiting.push(o);
            }
        }
        if own.is_empty() {
            return;
        }
        let received = b.message("c - a_C", Client, Server, Offline, &own, false);
        for ((o, c), s) in waiting.into_iter().zip(own).zip(received) {
            o.moved = Some([c, s]);
        }
    }

    /// The dealer shares `value`: the client's half is a stream.
    fn share(&mut self, what: &str, value: BufferId, ty: Type, parts: &mut Vec<BufferId>) -> Dealt {
        let b = &mut self.b;
        let stream = b.stream_cd(what, ty);
        let half = b.draw(Dealer, Offline, stream);
        parts.push(b.emit(Dealer, Offline, Inst::Sub, &[value, half], ty));
        Dealt { stream, part: parts.len() - 1 }
    }

    /// Wrap of `a_C + a_S` and top bit of `a` at the dealer, modulo `2^(L-k)`.
    fn wrap_and_top(&mut self, o: &Opening, high: Type) -> [BufferId; 2] {
        let b = &mut self.b;
        let bit = Type::Bits { planes: 1, len: o.z.len };
        let [a_c, a_s, a] = o.dealer;
        let w = b.emit(Dealer, Offline, Inst::Wrap, &[a_c, a_s], bit);
        let top = b.emit(Dealer, Offline, Inst::ToBits { low: o.z.bits - 1, count: 1, pad: 0 }, &[a], bit);
        [w, top].map(|x| b.emit(Dealer, Offline, Inst::ToRing, &[x], high))
    }

    fn deal_gate(
        &mut self,
        o: &Opening,
        copies: usize,
        map: &BlockMap,
        window: BitWindow,
        ring: u8,
        parts: &mut Vec<BufferId>,
    ) -> DealtGate {
        let (k, pixels, blocks) = (o.z.bits, map.pixels(), map.count());
        let [_, _, a] = o.dealer;
        let a = self.repeat(Dealer, Offline, a, o.z.ty(), copies);
        let sum = Type::Ring { bits: window.hi, len: blocks };
        let t = self.b.emit(Dealer, Offline, Inst::BlockSum(map.clone()), &[a], sum);
        let (low, top) = self.bits_of(Dealer, Offline, t, window, blocks);
        let nibbles = usize::from((window.hi - window.lo - 1).div_ceil(4));
        let (levels, carry) = carry::deal(&mut self.b, low, nibbles, blocks, parts);
        let bit = Type::Bits { planes: 1, len: blocks };
        let rho = self.b.emit(Dealer, Offline, Inst::Xor, &[top, carry], bit);

        let (wide_blocks, wide) = (Type::Ring { bits: ring, len: blocks }, Type::Ring { bits: ring, len: pixels });
        let r = self.b.emit(Dealer, Offline, Inst::ToRing, &[rho], wide_blocks);
        let r = self.share("r", r, wide_blocks, parts);
        let ra = self.b.emit(Dealer, Offline, Inst::Gate(map.clone()), &[rho, a], wide);
        let ra = self.share("rho a", ra, wide, parts);
        let lift = (k < ring).then(|| {
            let one = Type::Ring { bits: ring - k, len: o.z.len };
            let high = Type::Ring { bits: ring - k, len: pixels };
            let [w, ta] = self.wrap_and_top(o, one);
            let all = self.repeat(Dealer, Offline, ta, one, copies);
            let rta = self.b.emit(Dealer, Offline, Inst::Gate(map.clone()), &[rho, all], high);
            let parts_of = [("w", w, one), ("ta", ta, one), ("rho ta", rta, high)];
            parts_of.map(|(what, v, ty)| self.share(what, v, ty, parts))
        });
        DealtGate { levels, r, ra, lift, b: self.b.stream_cd("b", Type::Ring { bits: ring, len: o.z.len }) }
    }

    fn deal_pass(&mut self, o: &Opening, ring: u8, parts: &mut Vec<BufferId>) -> DealtLift {
        let high = Type::Ring { bits: ring - o.z.bits, len: o.z.len };
        let [w, ta] = self.wrap_and_top(o, high);
        let w = self.share("pass w", w, high, parts);
        let ta = self.share("pass ta", ta, high, parts);
        DealtLift { w, ta, v: self.b.stream_cd("pass v", high) }
    }

    /// The bits below the sign of a block sum, left-aligned to whole nibbles, and the sign bit.
    fn bits_of(
        &mut self,
        role: Role,
        phase: Phase,
        sum: BufferId,
        w: BitWindow,
        blocks: usize,
    ) -> (BufferId, BufferId) {
        let count = w.hi - w.lo - 1;
        let pad = count.next_multiple_of(4) - count;
        let planes = usize::from(count + pad);
        let low = Inst::ToBits { low: w.lo, count, pad };
        let top = Inst::ToBits { low: w.hi - 1, count: 1, pad: 0 };
        let low = self.b.emit(role, phase, low, &[sum], Type::Bits { planes, len: blocks });
        let top = self.b.emit(role, phase, top, &[sum], Type::Bits { planes: 1, len: blocks });
        (low, top)
    }

    /// The server's part `s - a_S` of `d`, and `d` at the server.
    fn server_d(&mut self, o: &Opening) -> [BufferId; 2] {
        let b = &mut self.b;
        let a_s = b.draw(Server, Online, o.a_s);
        let part = b.emit(Server, Online, Inst::Sub, &[o.z.server, a_s], o.z.ty());
        let d = match o.moved {
            Some([_, moved]) => b.emit(Server, Online, Inst::Add, &[moved, part], o.z.ty()),
            None => part,
        };
        [part, d]
    }

    /// `a_C` at the client.
    fn client_mask(&mut self, o: &Opening, phase: Phase) -> BufferId {
        o.a_c.map_or(o.z.client, |s| self.b.draw(Client, phase, s))
    }

    /// The public sums `e` of the blocks at a role: nibbles below the sign bit, and the sign bit.
    fn public_sum(&mut self, role: Role, g: &Gate, d: BufferId) -> (BufferId, BufferId) {
        let blocks = g.map.count();
        let sum = Type::Ring { bits: g.window.hi, len: blocks };
        let e = self.b.emit(role, Online, Inst::BlockSum(g.map.clone()), &[d], sum);
        self.bits_of(role, Online, e, g.window, blocks)
    }

    /// What the server sends first: its part of `d` and of the first level's bits.
    fn start_server(&mut self, g: &Gate, dealt: &[BufferId], out: &mut Vec<BufferId>) -> Sign {
        let [part, d] = self.server_d(&g.open);
        let d = g.bounds.map_or(d, |t| self.distances(Server, t, d, g.open.z.ty()));
        let (e, top) = self.public_sum(Server, g, d);
        let mut sign = Sign { role: Server, d, e, top, masked: None, pending: None, level: 0 };
        out.push(part);
        out.push(sign.open(self, g, dealt));
        sign
    }

    fn start_client(&mut self, g: &Gate, part: BufferId) -> Sign {
        let d = match g.open.moved {
            Some([moved, _]) => self.b.emit(Client, Online, Inst::Add, &[moved, part], g.open.z.ty()),
            None => part,
        };
        let d = g.bounds.map_or(d, |t| self.distances(Client, t, d, g.open.z.ty()));
        let (e, top) = self.public_sum(Client, g, d);
        Sign { role: Client, d, e, top, masked: None, pending: None, level: 0 }
    }

    fn online(&mut self, gate: Option<Gate>, pass: Option<Pass>, dealt: &[BufferId], ring: u8) -> Vec<Shares> {
        let mut parts = Vec::new();
        let server = gate.as_ref().map(|g| self.start_server(g, dealt, &mut parts));
        let server_pass = pass.as_ref().map(|p| self.start_pass(p, &mut parts));
        let mut got = self.b.message("open", Server, Client, Online, &parts, false).into_iter();

        let mut parts = Vec::new();
        let signs = gate.as_ref().zip(server).map(|(g, mut server)| {
            let mut client = self.start_client(g, next(&mut got));
            parts = self.exchange(g, &mut client, &mut server, next(&mut got), dealt);
            parts.push(self.close_gate(g, &client, ring));
            server
        });
        if let Some(p) = &pass {
            parts.push(self.close_pass(p, next(&mut got)));
        }
        let what = if gate.is_some() { "y - b" } else { "lift" };
        let mut got = self.b.message(what, Client, Server, Online, &parts, false).into_iter();

        let mut results = Vec::new();
        if let Some((g, mut server)) = gate.as_ref().zip(signs) {
            if server.pending.is_some() {
                server.close(self, g, next(&mut got));
            }
            let y = self.selected(g, &server, dealt, ring);
            let wide = Type::Ring { bits: ring, len: g.open.z.len };
            let server = self.b.emit(Server, Online, Inst::Add, &[y, next(&mut got)], wide);
            let client = self.b.draw(Client, Offline, g.dealt.b);
            let dealer = self.b.draw(Dealer, Offline, g.dealt.b);
            results.push(shares(client, server, Some(dealer), wide));
        }
        if let Some((p, [d, te])) = pass.as_ref().zip(server_pass) {
            results.push(self.passed(p, [d, te, next(&mut got)], dealt, ring));
        }
        results
    }

    /// Opens the carry levels in turn, until the client has the sign; yields what the client still
    /// has to send of the last level.
    fn exchange(
        &mut self,
        g: &Gate,
        client: &mut Sign,
        server: &mut Sign,
        theirs: BufferId,
        dealt: &[BufferId],
    ) -> Vec<BufferId> {
        let mut reply = vec![client.open(self, g, dealt)];
        client.close(self, g, theirs);
        while client.level < g.dealt.levels.len() {
            let n = client.level + 1;
            reply.push(client.open(self, g, dealt));
            let got = self.b.message(&format!("levels {} {n}", n - 1), Client, Server, Online, &reply, false);
            server.close(self, g, got[0]);
            let mut back = vec![server.open(self, g, dealt)];
            server.close(self, g, got[1]);
            if server.level < g.dealt.levels.len() {
                back.push(server.open(self, g, dealt));
            }
            let got = self.b.message(&format!("level {n}"), Server, Client, Online, &back, false);
            client.close(self, g, got[0]);
            reply.clear();
            if let Some(&theirs) = got.get(1) {
                reply.push(client.open(self, g, dealt));
                client.close(self, g, theirs);
            }
        }
        reply
    }

    /// A role's share of `DReLU * z`, or of the clip, modulo `2^ring`.
    fn selected(&mut self, g: &Gate, sign: &Sign, dealt: &[BufferId], ring: u8) -> BufferId {
        let role = sign.role;
        let blocks = Type::Bits { planes: 1, len: g.map.count() };
        let carry = sign.masked.map_or(sign.top, |m| m.hat);
        let delta = self.b.emit(role, Online, Inst::Xnor, &[sign.top, carry], blocks);
        let a = match role {
            Server => self.b.draw(Server, Online, g.open.a_s),
            _ => self.client_mask(&g.open, Online),
        };
        let (k, len, copies) = (g.open.z.bits, g.open.z.len, g.copies());
        let mut operands = vec![sign.d, delta, self.repeat(role, Online, a, g.open.z.ty(), copies)];
        let own = |l: &mut Self, x: Dealt| match role {
            Server => dealt[x.part],
            _ => l.b.draw(Client, Online, x.stream),
        };
        operands.extend([g.dealt.r, g.dealt.ra].map(|x| own(self, x)));
        let lift = g.dealt.lift.map(|x| x.map(|x| own(self, x)));
        if let Some([w, ta, rta]) = lift {
            let high = Type::Ring { bits: ring - k, len };
            operands.extend([w, ta].map(|x| self.repeat(role, Online, x, high, copies)));
            operands.push(rta);
        }
        let inst = Inst::Select { map: g.map.clone(), public: role == Client };
        let y = self.b.emit(role, Online, inst, &operands, Type::Ring { bits: ring, len: g.map.pixels() });
        let Some(bounds) = g.bounds else { return y };
        let opened = Opened { d: sign.d, a, lift: lift.map(|[w, ta, _]| [w, ta]), from: (k, len) };
        self.clipped(role, bounds, y, &opened, ring)
    }

    /// The client's share of the gated values under the mask `b`.
    fn close_gate(&mut self, g: &Gate, sign: &Sign, ring: u8) -> BufferId {
        let y = self.selected(g, sign, &[], ring);
        let b = self.b.draw(Client, Online, g.dealt.b);
        self.b.emit(Client, Online, Inst::Sub, &[y, b], Type::Ring { bits: ring, len: g.open.z.len })
    }

    /// `d` and `te` of passed channels at the server, which sends `te`.
    fn start_pass(&mut self, p: &Pass, out: &mut Vec<BufferId>) -> [BufferId; 2] {
        let [_, d] = self.server_d(&p.open);
        let (k, len) = (p.open.z.bits, p.open.z.len);
        let eps = self.b.emit(Server, Online, Inst::AddConst { value: 1 << (k - 2) }, &[d], p.open.z.ty());
        let top = Inst::ToBits { low: k - 1, count: 1, pad: 0 };
        let te = self.b.emit(Server, Online, top, &[eps], Type::Bits { planes: 1, len });
        out.push(te);
        [d, te]
    }

    /// The client's part of the lift under the mask `v`.
    fn close_pass(&mut self, p: &Pass, te: BufferId) -> BufferId {
        let high = p.dealt.v.ty;
        let w = self.b.draw(Client, Online, p.dealt.w.stream);
        let ta = self.b.draw(Client, Online, p.dealt.ta.stream);
        let u = self.b.emit(Client, Online, Inst::LiftCorrection, &[te, w, ta], high);
        let v = self.b.draw(Client, Online, p.dealt.v);
        self.b.emit(Client, Online, Inst::Sub, &[u, v], high)
    }

    /// Shares of the passed channels modulo `2^ring`.
    fn passed(&mut self, p: &Pass, [d, te, u]: [BufferId; 3], dealt: &[BufferId], ring: u8) -> Shares {
        let (wide, high) = (Type::Ring { bits: ring, len: p.open.z.len }, p.dealt.v.ty);
        let (w, ta) = (dealt[p.dealt.w.part], dealt[p.dealt.ta.part]);
        let b = &mut self.b;
        let own = b.emit(Server, Online, Inst::LiftCorrection, &[te, w, ta], high);
        let both = b.emit(Server, Online, Inst::Add, &[own, u], high);
        let a_s = b.draw(Server, Online, p.open.a_s);
        let join = Inst::Join { shift: p.open.z.bits };
        let secret = b.emit(Server, Online, join.clone(), &[a_s, both], wide);
        let public = b.emit(Server, Online, Inst::LiftPublic, &[d], wide);
        let server = b.emit(Server, Online, Inst::Add, &[public, secret], wide);
        let v = b.draw(Client, Offline, p.dealt.v);
        let a_c = self.client_mask(&p.open, Offline);
        let b = &mut self.b;
        let client = b.emit(Client, Offline, join.clone(), &[a_c, v], wide);
        let v = b.draw(Dealer, Offline, p.dealt.v);
        let dealer = b.emit(Dealer, Offline, join, &[p.open.dealer[0], v], wide);
        shares(client, server, Some(dealer), wide)
    }
}

/// A role on its way through the carry levels.
struct Sign {
    role: Role,
    d: BufferId,
    e: BufferId,
    top: BufferId,
    masked: Option<Masked>,
    pending: Option<carry::Opening>,
    /// Levels that are closed.
    level: usize,
}

impl Sign {
    /// Yields what the role sends of its current level.
    fn open(&mut self, l: &mut Lowering<'_>, g: &Gate, dealt: &[BufferId]) -> BufferId {
        let opening = g.dealt.levels[self.level].open(&mut l.b, self.role, self.e, self.masked, dealt);
        self.pending = Some(opening);
        opening.own
    }

    fn close(&mut self, l: &mut Lowering<'_>, g: &Gate, theirs: BufferId) {
        let mine = self.pending.take().expect("a level is opened before it is closed");
        self.masked = Some(g.dealt.levels[self.level].close(&mut l.b, self.role, mine, theirs));
        self.level += 1;
    }
}

fn next(parts: &mut impl Iterator<Item = BufferId>) -> BufferId {
    parts.next().expect("the receiver asks for the parts in the order in which they were sent")
}
