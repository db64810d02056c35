//! What lies ahead of a value: the bits it needs on its ways on.

use bcc_ir::graph::{NodeId, Op};

use super::{Attempt, MOST_WEIGHT_BITS, bits};

/// More fraction bits of weights than were asked for, where the ring has them: rounded weights are most of the error.
const SPARE_BITS: u32 = 1;
/// Values below 2^4 are small: their layers take as many bits as those of larger ones, more of them for the weights.
const SMALL_BITS: u32 = 4;

impl Attempt {
    /// Fraction bits for a layer's weights: those `asked` for, and more where its values leave room and it goes to
    /// gates (which lift again). Each takes a bit off the gate's operand, which costs a bit of a pixel's hundred and
    /// more. Where the input is read, the room is the ring, which is there; elsewhere a lift in front makes it, of
    /// which each bit is sent some six times, so there is one more bit, and several for small values alone.
    pub(super) fn free_weight_bits(&self, id: NodeId, modulus: u8, asked: u8) -> u8 {
        let Some(need) = self.gate_bits(id) else { return asked };
        let small = u32::from(self.frac) + SMALL_BITS + 2;
        let lifted = u32::from(asked) + (need + SPARE_BITS).max(small);
        let room = if self.is_input(self.graph.operand(id)) { modulus.into() } else { lifted.min(modulus.into()) };
        let lift = |g: u8| (self.ring + g - modulus).div_ceil(8);
        let fits = |g: &u8| u32::from(*g) + need <= room && lift(*g) == lift(asked);
        (asked..=MOST_WEIGHT_BITS).take_while(fits).last().unwrap_or(asked)
    }

    /// Whether a value is the input, or elements of it.
    fn is_input(&self, mut id: NodeId) -> bool {
        while let Op::Pad { .. } | Op::Gather { .. } | Op::Scatter { .. } | Op::Reshape { .. } | Op::Transpose { .. } =
            self.graph.node(id).op
        {
            id = self.graph.operand(id);
        }
        matches!(self.graph.node(id).op, Op::Input)
    }

    /// Bits that a value needs on its way to gates and the output; `None` if it also goes elsewhere.
    pub(super) fn gate_bits(&self, id: NodeId) -> Option<u32> {
        let unit = (-f64::from(self.frac)).exp2();
        let range = self.graph.node(id).range?;
        if matches!(self.graph.node(id).op, Op::BlockRelu { .. } | Op::Clip { .. }) {
            return Some(self.sum_bits(id));
        }
        let own = bits(range.bound / unit, 1);
        self.graph.users(id).into_iter().try_fold(own, |most, u| match self.graph.node(u).op {
            Op::Conv { .. } | Op::Dense { .. } | Op::AvgPool { .. } | Op::Resample { .. } => None,
            _ => Some(most.max(self.gate_bits(u)?)),
        })
    }

    /// Bits by which interpolations that end at a value, and go on, have grown its fraction.
    pub(super) fn pending_bits(&self, mut id: NodeId) -> u8 {
        let mut all = 0;
        while self.resamples_next(id).is_some()
            && let Op::Resample { bits, .. } = self.graph.node(id).op
        {
            all += bits;
            id = self.graph.operand(id);
        }
        all
    }

    /// Bits of a gate's block sums.
    pub(super) fn sum_bits(&self, id: NodeId) -> u32 {
        let unit = (-f64::from(self.frac)).exp2();
        let sum = self.graph.node(id).range.and_then(|r| r.block_sum);
        sum.map_or(0, |(s, _)| bits(s / unit, self.spare(id)))
    }

    /// Bits of what a value becomes on its way to gates, without a linear layer between, and of the gates' block sums.
    pub(super) fn bits_ahead(&self, id: NodeId) -> u32 {
        let unit = (-f64::from(self.frac)).exp2();
        let of = |u: NodeId| match self.graph.node(u).op {
            Op::Conv { .. } | Op::Dense { .. } => 0,
            Op::BlockRelu { .. } | Op::Clip { .. } => self.sum_bits(u),
            Op::Add | Op::Sub => {
                let own = self.graph.node(u).range.map_or(0, |r| bits(r.bound / unit, 1));
                own.max(self.bits_ahead(u))
            }
            _ => self.bits_ahead(u),
        };
        self.graph.users(id).into_iter().map(of).max().unwrap_or(0)
    }

    /// Bits that the linear layers need that a value goes to, without a gate between.
    pub(super) fn linear_bits(&self, id: NodeId) -> u32 {
        let unit = (-f64::from(self.frac)).exp2();
        let of = |u: NodeId| match self.graph.node(u).op {
            Op::Conv { .. } | Op::Dense { .. } => {
                let bound = self.graph.node(u).range.map_or(0.0, |r| r.bound);
                bits(bound / unit, 1) + u32::from(self.weight_frac)
            }
            Op::BlockRelu { .. } => 0,
            _ => self.linear_bits(u),
        };
        self.graph.users(id).into_iter().map(of).max().unwrap_or(0)
    }

    /// The interpolation along a later axis that alone reads another one.
    pub(super) fn resamples_next(&self, id: NodeId) -> Option<NodeId> {
        let axis = |id: NodeId| match self.graph.node(id).op {
            Op::Resample { axis, .. } => Some(axis),
            _ => None,
        };
        match self.graph.users(id)[..] {
            [user] if axis(id)? < axis(user)? && self.graph.output() != Some(id) => Some(user),
            _ => None,
        }
    }

    /// Bits that the sums of a gate's blocks leave free: where a clip decides, distances are selected
    /// as well, which takes a quarter of the modulus.
    pub(super) fn spare(&self, id: NodeId) -> u32 {
        u32::from(matches!(self.graph.node(id).op, Op::Clip { .. }))
    }

    /// Whether every way on from a value leads to a linear layer or the output before it is added
    /// to another one or joined with one.
    pub(super) fn gain_goes_on(&self, id: NodeId) -> bool {
        self.graph.users(id).into_iter().all(|u| match self.graph.node(u).op {
            Op::Conv { .. } | Op::Dense { .. } => true,
            Op::Add | Op::Sub | Op::Concat { .. } => false,
            _ => self.gain_goes_on(u),
        })
    }
}
