//! Layers with weights, and re-masking.

use bcc_ir::geometry::ConvShape;
use bcc_ir::graph::ConstId;
use bcc_ir::program::{Inst, Phase, Role, Type};

use super::{Lowering, Shares, shares};

impl Lowering<'_> {
    /// `z = W x + bias` with weights of the server and a dealt client share `c` of `x = c + s`.
    ///
    /// Once per model: `A` is drawn by server and dealer, the server sends `F = W - A` to the
    /// client. Per inference, before the input: client and dealer draw `c0`, the dealer sends
    /// `c1 = A c - c0` to the server, the client computes `F c + c0`. With the input the server
    /// computes `W s + c1 + bias`; nothing is sent. The sum is
    /// `F c + c0 + W s + A c - c0 + bias = W (c + s) + bias`.
    ///
    /// The client sees `W` under the mask `A`, the server sees `A c` under the mask `c0`.
    /// `None` where the operand's client share is not dealt.
    pub(super) fn linear(
        &mut self,
        shape: ConvShape,
        weight: ConstId,
        bias: Option<ConstId>,
        x: Shares,
    ) -> Option<Shares> {
        let dealt = x.dealer?;
        let bits = x.bits;
        let out = Type::Ring { bits, len: shape.output_len()? };
        let weights = Type::Ring { bits, len: shape.weight_len()? };
        let w = self.weight(weight, bits, false);
        let bias = bias.map(|b| self.weight(b, bits, true));
        let b = &mut self.b;
        let a = b.stream_model("A", weights);
        let (a_s, a_d) = (b.draw(Role::Server, Phase::Setup, a), b.draw(Role::Dealer, Phase::Setup, a));
        let f = b.emit(Role::Server, Phase::Setup, Inst::Sub, &[w, a_s], weights);
        let f = b.message("F", Role::Server, Role::Client, Phase::Setup, &[f], false)[0];

        let c0 = b.stream_cd("c0", out);
        let product = b.emit(Role::Dealer, Phase::Offline, Inst::Conv(shape), &[dealt, a_d], out);
        let c0_d = b.draw(Role::Dealer, Phase::Offline, c0);
        let c1 = b.emit(Role::Dealer, Phase::Offline, Inst::Sub, &[product, c0_d], out);
        let c1 = b.message("c1", Role::Dealer, Role::Server, Phase::Offline, &[c1], false)[0];
        let product = b.emit(Role::Client, Phase::Offline, Inst::Conv(shape), &[x.client, f], out);
        let c0_c = b.draw(Role::Client, Phase::Offline, c0);
        let client = b.emit(Role::Client, Phase::Offline, Inst::Add, &[product, c0_c], out);

        let product = b.emit(Role::Server, Phase::Online, Inst::Conv(shape), &[x.server, w], out);
        let mut server = b.emit(Role::Server, Phase::Online, Inst::Add, &[product, c1], out);
        if let Some(bias) = bias {
            server = b.emit(Role::Server, Phase::Online, Inst::AddBias, &[server, bias], out);
        }
        Some(shares(client, server, None, out))
    }

    /// Makes the client's share dealt: client and dealer draw `b`, the client sends `c - b` before
    /// the input, the server adds it to its share. The server sees `c` under the mask `b`.
    pub(super) fn remask(&mut self, x: Shares) -> Shares {
        let ty = x.ty();
        let b = &mut self.b;
        let mask = b.stream_cd("b", ty);
        let client = b.draw(Role::Client, Phase::Offline, mask);
        let dealer = b.draw(Role::Dealer, Phase::Offline, mask);
        let difference = b.emit(Role::Client, Phase::Offline, Inst::Sub, &[x.client, client], ty);
        let moved = b.message("c - b", Role::Client, Role::Server, Phase::Offline, &[difference], false)[0];
        let server = b.emit(Role::Server, Phase::Online, Inst::Add, &[x.server, moved], ty);
        shares(client, server, Some(dealer), ty)
    }
}
