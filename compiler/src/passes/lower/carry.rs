//! The carry of `e + t`, `e` public to client and server and `t` known to the dealer.
//!
//! Level 1 opens generate and propagate of every nibble ([`Inst::NibbleOpen`]); every further level
//! joins up to four neighbours ([`Inst::CarryOpen`]), until one bit is left: the carry out. A bit
//! is opened as `hat = bit xor lambda_C xor lambda_S`, `lambda_C` drawn by client and dealer,
//! `lambda_S` by server and dealer. The dealer gives XOR shares of the products of `t`'s bits
//! (level 1) or of the `lambda`s (further levels): the client's half is a stream, the server's a
//! message. Client and server see bits under a mask of the other's.

use bcc_ir::program::{BufferId, Inst, Phase, Role, Type, carry_groups, carry_terms};

use super::StreamId;
use super::build::Builder;
use Phase::{Offline, Online};
use Role::{Client, Dealer, Server};

/// One level as dealt.
pub(super) struct Level {
    /// Inputs of this level; 0 for the nibble level.
    inputs: usize,
    blocks: usize,
    products: StreamId,
    /// Position of the server's half of the products among the dealt parts.
    products_part: usize,
    lambda_c: StreamId,
    lambda_s: StreamId,
    opened: usize,
}

/// Masked bits at the inputs of a level, as one role has them.
#[derive(Clone, Copy)]
pub(super) struct Masked {
    pub(super) hat: BufferId,
    lambda: BufferId,
}

/// A role's masked share of the bits of one level, before it is opened.
#[derive(Clone, Copy)]
pub(super) struct Opening {
    /// What this role sends.
    pub(super) own: BufferId,
    lambda: BufferId,
    before: Option<Masked>,
}

/// Where plane `p` of a level's result comes from: the opened bits (0) or, passed on, the level's
/// inputs (1).
fn passing(inputs: usize) -> Option<Vec<(u8, u32)>> {
    let groups = carry_groups(inputs);
    if groups.iter().all(|g| *g > 1) {
        return None;
    }
    let (mut opened, mut first, mut picks) = (0, 0, Vec::new());
    for (i, size) in groups.iter().enumerate() {
        let bits = if i == 0 { 1 } else { 2 };
        for b in 0..bits {
            if *size > 1 {
                picks.push((0, opened));
                opened += 1;
            } else {
                picks.push((1, (2 * first - 1 + b) as u32));
            }
        }
        first += size;
    }
    Some(picks)
}

/// The dealer's side of all levels over `t` of `4 * nibbles` planes and `blocks` columns. Parts for
/// the server are appended to `parts`; yields the levels and the dealer's mask of the carry.
pub(super) fn deal(
    b: &mut Builder,
    t: BufferId,
    nibbles: usize,
    blocks: usize,
    parts: &mut Vec<BufferId>,
) -> (Vec<Level>, BufferId) {
    let mut levels: Vec<Level> = Vec::new();
    let mut lambda = t;
    let mut inputs = 0;
    loop {
        let (inst, products, opened) = if inputs == 0 {
            (Inst::NibbleProducts, 15 * nibbles, 2 * nibbles - 1)
        } else {
            let (bits, products) = carry_terms(inputs);
            (Inst::CarryProducts { inputs: inputs as u8 }, products.len(), bits.len())
        };
        let n = levels.len() + 1;
        let ty = Type::Bits { planes: products, len: blocks };
        let stream = b.stream_cd(&format!("products {n}"), ty);
        let value = b.emit(Dealer, Offline, inst, &[lambda], ty);
        let half = b.draw(Dealer, Offline, stream);
        parts.push(b.emit(Dealer, Offline, Inst::Xor, &[value, half], ty));

        let bits = Type::Bits { planes: opened, len: blocks };
        let lambda_c = b.stream_cd(&format!("lambda_C {n}"), bits);
        let lambda_s = b.stream_sd(&format!("lambda_S {n}"), bits);
        let (mine, theirs) = (b.draw(Dealer, Offline, lambda_c), b.draw(Dealer, Offline, lambda_s));
        let fresh = b.emit(Dealer, Offline, Inst::Xor, &[mine, theirs], bits);
        let level =
            Level { inputs, blocks, products: stream, products_part: parts.len() - 1, lambda_c, lambda_s, opened };
        lambda = level.joined(b, Dealer, Offline, fresh, lambda);
        inputs = if inputs == 0 { nibbles } else { carry_groups(inputs).len() };
        levels.push(level);
        if inputs == 1 {
            return (levels, lambda);
        }
    }
}

impl Level {
    fn joined(&self, b: &mut Builder, role: Role, phase: Phase, opened: BufferId, before: BufferId) -> BufferId {
        match passing(self.inputs) {
            Some(picks) if self.inputs > 0 => {
                let ty = Type::Bits { planes: picks.len(), len: self.blocks };
                b.emit(role, phase, Inst::Planes { picks }, &[opened, before], ty)
            }
            _ => opened,
        }
    }

    /// This role's share of the level's bits under its mask. `e` holds the nibbles of the public
    /// summand, `before` the opened inputs of a further level; `dealt` the server's dealt parts.
    pub(super) fn open(
        &self,
        b: &mut Builder,
        role: Role,
        e: BufferId,
        before: Option<Masked>,
        dealt: &[BufferId],
    ) -> Opening {
        let public = role == Client;
        let products = match role {
            Server => dealt[self.products_part],
            _ => b.draw(role, Online, self.products),
        };
        let lambda = b.draw(role, Online, if role == Server { self.lambda_s } else { self.lambda_c });
        let ty = Type::Bits { planes: self.opened, len: self.blocks };
        let share = match before {
            None => b.emit(role, Online, Inst::NibbleOpen { public }, &[e, products], ty),
            Some(m) => {
                let inst = Inst::CarryOpen { inputs: self.inputs as u8, public };
                b.emit(role, Online, inst, &[m.hat, m.lambda, products], ty)
            }
        };
        let own = b.emit(role, Online, Inst::Xor, &[share, lambda], ty);
        Opening { own, lambda, before }
    }

    /// Puts both roles' masked shares together: the inputs of the next level.
    pub(super) fn close(&self, b: &mut Builder, role: Role, mine: Opening, other: BufferId) -> Masked {
        let ty = Type::Bits { planes: self.opened, len: self.blocks };
        let hat = b.emit(role, Online, Inst::Xor, &[mine.own, other], ty);
        match mine.before {
            None => Masked { hat, lambda: mine.lambda },
            Some(before) => Masked {
                hat: self.joined(b, role, Online, hat, before.hat),
                lambda: self.joined(b, role, Online, mine.lambda, before.lambda),
            },
        }
    }
}
