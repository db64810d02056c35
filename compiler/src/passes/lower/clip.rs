//! Clips, on top of the gate.
//!
//! With bounds `t_0 < t_1`,
//!
//! ```text
//! min(max(z, t_0), t_1) = t_0 + ReLU(z - t_0) - ReLU(z - t_1)
//! min(z, t_1)           = t_1 + (z - t_1)     - ReLU(z - t_1)
//! ```
//!
//! `z` is opened once, as `d = z - a`. Then `d - t_j` is public too and opens the distance `z - t_j`
//! under the same `a`, so the halves of `a`, its wrap and its top bit serve both distances. Each
//! distance has a sign of its own: dealt products, masks of carries, `rho_j` and its products with
//! `a` are fresh, and both signs travel in the same messages. What the parties see is what a gate
//! shows: `d` under the other's mask, and bits under fresh ones.
//!
//! The results are joined before the client's share is masked, so one value per pixel is sent
//! back. The summand `z - t_1` without a gate is lifted as in [`Inst::Select`] with the gate open:
//! its public part and `a - 2^k (w + (1 - te) ta)`, which every party has.

use bcc_ir::graph::Op;
use bcc_ir::program::{BufferId, Inst, Phase, Role, Source, Type};

use super::Lowering;
use Phase::Online;

/// Bounds of a clip in units of its operand, at least one of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) low: Option<i64>,
    pub(super) high: Option<i64>,
}

impl Bounds {
    /// Of an operator, nearest to its bounds; none for other operators than clips.
    pub(super) fn of(op: &Op, unit: f64) -> Bounds {
        let units = |b: f64| (b / unit).round() as i64;
        match *op {
            Op::Clip { low, high } => Bounds { low: low.map(units), high: high.map(units) },
            _ => Bounds { low: None, high: None },
        }
    }

    /// Those that are there, the lower one first.
    fn list(self) -> Vec<i64> {
        self.low.into_iter().chain(self.high).collect()
    }

    /// Number of signs of a pixel.
    pub(super) fn signs(self) -> usize {
        self.list().len()
    }
}

/// What a role has of an opened value, for the lift.
pub(super) struct Opened {
    /// `z` less the bound, as opened.
    pub(super) d: BufferId,
    /// Its half of `a`.
    pub(super) a: BufferId,
    /// Its shares of the wrap and the top bit of `a`, where the modulus grows.
    pub(super) lift: Option<[BufferId; 2]>,
    /// Modulus in bits, and pixels.
    pub(super) from: (u8, usize),
}

impl Lowering<'_> {
    /// A buffer of `len` elements, so many times in a row.
    pub(super) fn repeat(&mut self, role: Role, phase: Phase, x: BufferId, ty: Type, times: usize) -> BufferId {
        let Type::Ring { bits, len } = ty else { return x };
        if times == 1 {
            return x;
        }
        let inst = Inst::Gather { outer: 1, axis: 1, inner: len, indices: vec![0; times] };
        self.b.emit(role, phase, inst, &[x], Type::Ring { bits, len: len * times })
    }

    /// `d - t_j` for every bound, one after the other.
    pub(super) fn distances(&mut self, role: Role, bounds: Bounds, d: BufferId, ty: Type) -> BufferId {
        let Type::Ring { bits, len } = ty else { return d };
        let mut all = Vec::new();
        for t in bounds.list() {
            let value = modulo(t.wrapping_neg(), bits);
            all.push(self.b.emit(role, Online, Inst::AddConst { value }, &[d], ty));
        }
        if let [one] = all[..] {
            return one;
        }
        let sources = (0..all.len()).map(|i| Source::Operand(i as u8)).collect();
        let out = Type::Ring { bits, len: len * all.len() };
        self.b.emit(role, Online, Inst::Assemble { inner: len, sources }, &all, out)
    }

    /// A role's share of the clip from its share `y` of the gated distances, modulo `2^ring`.
    pub(super) fn clipped(&mut self, role: Role, bounds: Bounds, y: BufferId, x: &Opened, ring: u8) -> BufferId {
        let (_, len) = x.from;
        let wide = Type::Ring { bits: ring, len };
        let (sum, t) = match (bounds.low, bounds.high) {
            (Some(low), Some(_)) => {
                let part = |i: usize| Inst::Gather { outer: 1, axis: 2, inner: len, indices: vec![i] };
                let over = [0, 1].map(|i| self.b.emit(role, Online, part(i), &[y], wide));
                (self.b.emit(role, Online, Inst::Sub, &over, wide), low)
            }
            (None, Some(high)) => {
                let z = self.opened(role, x, ring);
                (self.b.emit(role, Online, Inst::Sub, &[z, y], wide), high)
            }
            (low, None) => (y, low.unwrap_or_default()),
        };
        if role == Role::Client || t == 0 {
            return sum;
        }
        self.b.emit(role, Online, Inst::AddConst { value: modulo(t, ring) }, &[sum], wide)
    }

    /// A role's share of an opened value, modulo `2^ring`.
    fn opened(&mut self, role: Role, x: &Opened, ring: u8) -> BufferId {
        let ((k, len), b) = (x.from, &mut self.b);
        let wide = Type::Ring { bits: ring, len };
        let mut own = x.a;
        if let Some([w, ta]) = x.lift {
            let narrow = Type::Ring { bits: k, len };
            let eps = b.emit(role, Online, Inst::AddConst { value: 1 << (k - 2) }, &[x.d], narrow);
            let top = Inst::ToBits { low: k - 1, count: 1, pad: 0 };
            let te = b.emit(role, Online, top, &[eps], Type::Bits { planes: 1, len });
            let high = Type::Ring { bits: ring - k, len };
            let correction = b.emit(role, Online, Inst::LiftCorrection, &[te, w, ta], high);
            own = b.emit(role, Online, Inst::Join { shift: k }, &[own, correction], wide);
        }
        if role != Role::Client {
            return own;
        }
        let public = b.emit(role, Online, Inst::LiftPublic, &[x.d], wide);
        b.emit(role, Online, Inst::Add, &[own, public], wide)
    }
}

/// An integer modulo `2^bits`.
fn modulo(t: i64, bits: u8) -> u64 {
    t as u64 & (u64::MAX >> (64 - u32::from(bits)))
}
