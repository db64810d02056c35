//! The class alone: which channel holds the largest value, and nothing else.
//!
//! The value `z` of channel `i` becomes `2^b z - i`, with `2^b` at least the number of channels. As
//! integers differ by one or not at all, the order of the results is that of the values, and of
//! equal values the first channel's is the largest. A tournament of exact maxima
//! ([`maximum`](crate::passes::maximum)) ends with one of them, unchanged to its last bit: nothing
//! in it truncates. Its low `b` bits are `-i mod 2^b`. Both parties reduce their shares modulo `2^b`
//! and the server opens that share alone, so the client learns `i` and no bit of `z`.
//!
//! The tag costs no message. With `z = c + s mod 2^m`, `2^b c + 2^b s = 2^b z mod 2^(m + b)`, so the
//! modulus grows with the value; the server subtracts `i`, which is public, from its share.

use bcc_ir::program::{Inst, Phase, Role, Type, WeightEntry, WeightWidth};

use super::{Lowering, Shares, shares};

impl Lowering<'_> {
    /// `2^bits x - i` for channel `i`, in the type `out`.
    pub(super) fn tag(&mut self, bits: u8, channels: usize, x: Shares, out: Type) -> Shares {
        let Type::Ring { bits: modulus, len } = out else { return x };
        let zero = Type::Ring { bits, len };
        let join = Inst::Join { shift: bits };
        let b = &mut self.b;
        let mut grown = |role, phase, share| {
            let low = b.emit(role, phase, Inst::Zero, &[], zero);
            b.emit(role, phase, join.clone(), &[low, share], out)
        };
        let client = grown(Role::Client, Phase::Offline, x.client);
        let dealer = x.dealer.map(|d| grown(Role::Dealer, Phase::Offline, d));
        let server = grown(Role::Server, Phase::Online, x.server);
        let tags = self.weights.len() as u32;
        self.weights.push((0..channels as i64).map(|i| -i).collect());
        let entry = WeightEntry { name: "positions".into(), len: channels, width: WeightWidth::I64 };
        self.b.program.weights.push(entry);
        let ty = Type::Ring { bits: modulus, len: channels };
        let tags = self.b.emit(Role::Server, Phase::Setup, Inst::Weight { index: tags }, &[], ty);
        let server = self.b.emit(Role::Server, Phase::Online, Inst::AddBias, &[server, tags], out);
        shares(client, server, dealer, out)
    }
}
