//! From real numbers to fixed point.
//!
//! Values have `f` fraction bits, weights `g`. A linear layer yields `f + g` fraction bits in its
//! operand's modulus `2^m`; truncation by `g` leaves `f` bits and modulus `2^(m - g)`; a Block-ReLU
//! lifts again. So a layer needs `m >= g + need`, where `need` is the number of
//! bits with `|z| < 2^(need - 2)` units. Where an operand's modulus has fallen below that, a refresh
//! lifts it; where only its client share is local, a re-mask is enough. All that is decided with lifts to
//! the ring `2^L`; at the end each falls to what its ways on need (`narrow`).
//!
//! An average over `n` positions is a sum and a division. Where every way on leads to a linear
//! layer (or the output), the division by `n / 2^p`, `p = ceil(log2 n)`, is left to the gain, which
//! the next weights take in exactly, and only `p` bits are truncated. Elsewhere the sum is
//! multiplied by the integer nearest to `2^(p + q) / n` and truncated by `p + q` bits; `q` of up to
//! 12 bits bound the relative error of the divisor by `2^-(q + 1)`.
//!
//! An interpolation has factors of `b` bits per axis: as many as make them exact, else up to 12 and at
//! least 6; both axes are truncated together. With inexact factors a value moves by at most
//! `2^-(b + 1)` of the difference of its two neighbours, and never out from between them.
//!
//! What is joined has one scale, as summands have; where the result goes to a linear layer, only the
//! parts that need it are re-masked or refreshed.
//!
//! The ring is the smallest of 16, 24, .., 64 bits in which all of that fits. Room that small values leave goes to
//! their layer's weights, and so does the room of layers on the input, which is in the ring.

mod ahead;
mod integers;
mod narrow;

use std::collections::BTreeMap;

use bcc_ir::graph::{
    ClientShare, ConstData, Evidence, Fixed, Graph, Node, NodeId, Op, Range, Sample, Stage, Violations, exact_bits,
    verify,
};
use thiserror::Error;

use super::{PassOptions, gcd};

/// Why a graph cannot be quantized.
#[derive(Debug, Error)]
pub enum QuantizeError {
    /// A ring width that the runtime does not have.
    #[error("--ring {0}: the ring width is a multiple of 8 from 16 to 64 bits")]
    Ring(u8),
    /// Fraction bits out of bounds.
    #[error("{frac} fraction bits for values and {weight_frac} for weights: both must be from 1 to 24")]
    Fraction {
        /// Bits of values.
        frac: u8,
        /// Bits of weights.
        weight_frac: u8,
    },
    /// A value does not fit.
    #[error(
        "node \"{node}\" needs {needed} bits and has {available} in a ring of {ring}: {what}. Use a wider ring, fewer \
         fraction bits (--frac, --weight-frac), smaller blocks, or calibration images that show its true range"
    )]
    Narrow {
        /// Node.
        node: String,
        /// Bits needed.
        needed: u32,
        /// Bits there are.
        available: u8,
        /// Ring width.
        ring: u8,
        /// What has to fit.
        what: &'static str,
    },
    /// Summands on different scales.
    #[error("node \"{0}\" adds or joins values of different scales; an average pool before a sum must divide evenly")]
    Scales(String),
    /// The integers do not keep the bounds of the real numbers.
    #[error(
        "in a ring of {ring} bits the quantized network does not verify:\n{violations}\nUse a wider ring, or fewer \
         fraction bits (--frac, --weight-frac)"
    )]
    Verify {
        /// Ring width.
        ring: u8,
        /// What does not hold.
        violations: Violations,
    },
    /// A pass before left something unfit.
    #[error("node \"{0}\" has no range or an operator that quantization does not know")]
    Unfit(String),
}

const DIVISION_BITS: u8 = 12;
/// Most bits of the factors of an interpolation, how many save a refresh, and how many it has at least
/// where they are not exact.
const FACTOR_BITS: u8 = 12;
const GOOD_FACTOR_BITS: u32 = 8;
const LEAST_FACTOR_BITS: u32 = 6;
/// Inputs of up to 2^4 have all the fraction bits of other values.
const INPUT_MAGNITUDE_BITS: f64 = 4.0;
const MOST_WEIGHT_BITS: u8 = 24;
/// One layer in so many may have a fraction bit fewer in its weights than was asked for.
const SHARE: usize = 16;

/// Quantizes a graph with ranges.
pub fn run(graph: &mut Graph, options: &PassOptions) -> Result<(), QuantizeError> {
    let (frac, weight_frac) = (options.frac, options.weight_frac);
    if !(1..=24).contains(&frac) || !(1..=24).contains(&weight_frac) {
        return Err(QuantizeError::Fraction { frac, weight_frac });
    }
    let rings: Vec<u8> = match options.ring {
        Some(r) if r % 8 == 0 && (16..=64).contains(&r) => vec![r],
        Some(r) => return Err(QuantizeError::Ring(r)),
        None => (16..=64).step_by(8).collect(),
    };
    let linear = graph.topo().into_iter().filter(|id| matches!(graph.node(*id).op, Op::Conv { .. } | Op::Dense { .. }));
    let linear = linear.count();
    let real = graph.take_const_data();
    let mut last = None;
    for ring in rings {
        let fewer = linear / SHARE;
        let attempt = Attempt { graph: graph.clone(), ring, frac, weight_frac, dealt: BTreeMap::new(), fewer };
        match attempt.run().and_then(|g| finish(g, &real)) {
            Ok(g) => {
                *graph = g;
                return Ok(());
            }
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or(QuantizeError::Unfit(graph.name.clone())))
}

/// Puts in the integers and proves the result.
fn finish(mut graph: Graph, real: &[ConstData]) -> Result<Graph, QuantizeError> {
    integers::weights(&mut graph, real);
    integers::rebound(&mut graph);
    narrow::run(&mut graph);
    let ring = graph.ring.unwrap_or_default();
    verify(&graph, Stage::Quantized).map_err(|violations| QuantizeError::Verify { ring, violations })?;
    Ok(graph)
}

struct Attempt {
    graph: Graph,
    ring: u8,
    frac: u8,
    weight_frac: u8,
    /// Dealt versions of values, made for linear layers.
    dealt: BTreeMap<NodeId, NodeId>,
    /// How many more layers may have a fraction bit fewer in their weights than was asked for.
    fewer: usize,
}

/// The least common multiple, if it has no more than [`DIVISION_BITS`] bits.
fn common_multiple(divisors: &[usize]) -> Option<u64> {
    divisors.iter().try_fold(1u64, |all, &d| {
        let d = d as u64;
        let multiple = all / gcd(all as usize, d as usize) as u64 * d;
        (multiple < 1 << DIVISION_BITS).then_some(multiple)
    })
}

/// Smallest `k` with `units < 2^(k - 1 - spare)`; a few units are added for rounding.
fn bits(units: f64, spare: u32) -> u32 {
    (1..=128).find(|k| units + 4.0 < (f64::from(*k) - 1.0 - f64::from(spare)).exp2()).unwrap_or(128)
}

impl Attempt {
    fn run(mut self) -> Result<Graph, QuantizeError> {
        self.graph.ring = Some(self.ring);
        for id in self.graph.topo() {
            self.node(id)?;
        }
        self.open_class()?;
        Ok(self.graph)
    }

    /// Where classes compete by their tags, the output is the tag of the winner alone.
    fn open_class(&mut self) -> Result<(), QuantizeError> {
        let tag = |id: NodeId| match self.graph.node(id).op {
            Op::Tag { bits } => Some(bits),
            _ => None,
        };
        let (Some(bits), Some(output)) = (self.graph.topo().into_iter().find_map(tag), self.graph.output()) else {
            return Ok(());
        };
        let Node { name, origin, .. } = self.graph.node(output).clone();
        let x = self.fixed(output)?;
        let op = Op::LowBits { bits };
        let id = self.graph.add(&format!("{name}/class"), origin, op, &[output]).map_err(|_| self.unfit(output))?;
        let node = self.graph.node_mut(id);
        node.fixed = Some(Fixed { frac: 0, modulus: bits, gain: 1.0, ..x });
        let bound = (f64::from(bits) - 1.0).exp2();
        node.range = Some(Range { bound, evidence: Evidence::Derived, block_sum: None });
        self.graph.set_output(id);
        Ok(())
    }

    fn unfit(&self, id: NodeId) -> QuantizeError {
        QuantizeError::Unfit(self.graph.node(id).name.clone())
    }

    fn fixed(&self, id: NodeId) -> Result<Fixed, QuantizeError> {
        self.graph.node(id).fixed.ok_or_else(|| self.unfit(id))
    }

    fn range(&self, id: NodeId) -> Result<Range, QuantizeError> {
        self.graph.node(id).range.ok_or_else(|| self.unfit(id))
    }

    /// Checks that a value takes no more bits than it has.
    fn fit(&self, id: NodeId, needed: u32, available: u8, what: &'static str) -> Result<(), QuantizeError> {
        if needed <= u32::from(available) {
            return Ok(());
        }
        let node = self.graph.node(id).name.clone();
        Err(QuantizeError::Narrow { node, needed, available, ring: self.ring, what })
    }

    fn set(&mut self, id: NodeId, fixed: Fixed) -> Result<(), QuantizeError> {
        let units = self.range(id)?.bound / fixed.unit();
        self.fit(id, bits(units, 0), fixed.modulus, "its values must stay below half the modulus")?;
        self.graph.node_mut(id).fixed = Some(fixed);
        Ok(())
    }

    /// Puts a node of a quantization step behind `id` and lets the users of `id` read it.
    fn follow(&mut self, id: NodeId, op: Op, fixed: Fixed) -> Result<NodeId, QuantizeError> {
        let new = self.beside(id, op, fixed)?;
        self.graph.replace_uses(id, new);
        Ok(new)
    }

    fn beside(&mut self, id: NodeId, op: Op, fixed: Fixed) -> Result<NodeId, QuantizeError> {
        let Node { name, origin, .. } = self.graph.node(id).clone();
        let range = Range { evidence: Evidence::Derived, block_sum: None, ..self.range(id)? };
        let name = format!("{name}/{}", op.name());
        let new = self.graph.add(&name, origin, op, &[id]).map_err(|_| self.unfit(id))?;
        self.graph.node_mut(new).range = Some(range);
        self.set(new, fixed)?;
        Ok(new)
    }

    fn node(&mut self, id: NodeId) -> Result<(), QuantizeError> {
        let operands = self.graph.operands(id);
        let x = operands.first().map(|o| self.fixed(*o)).transpose()?;
        match (self.graph.node(id).op.clone(), x) {
            (Op::Input, None) => {
                let fixed =
                    Fixed { frac: self.input_frac(id)?, modulus: self.ring, gain: 1.0, client: ClientShare::Dealt };
                self.set(id, fixed)
            }
            (Op::Conv { .. } | Op::Dense { .. }, Some(_)) => self.linear(id, operands[0]),
            (Op::BlockRelu { .. } | Op::Clip { .. }, Some(x)) => self.gate(id, operands[0], x),
            (Op::AvgPool { .. }, Some(x)) => self.average(id, x),
            (Op::Add | Op::Sub, Some(x)) => {
                let y = self.fixed(operands[1])?;
                if (x.unit() / y.unit() - 1.0).abs() > 1e-9 {
                    return Err(QuantizeError::Scales(self.graph.node(id).name.clone()));
                }
                let dealt = x.client == ClientShare::Dealt && y.client == ClientShare::Dealt;
                let client = if dealt { ClientShare::Dealt } else { ClientShare::Local };
                self.set(id, Fixed { modulus: x.modulus.min(y.modulus), client, ..x })
            }
            (Op::Concat { .. }, Some(_)) => self.concat(id, &operands),
            (Op::Resample { axis, samples, .. }, Some(x)) => self.resample(id, axis, samples, x),
            (Op::Tag { bits }, Some(x)) => {
                let modulus = x.modulus.saturating_add(bits).min(self.ring);
                self.set(id, Fixed { frac: x.frac + bits, modulus, ..x })
            }
            (
                Op::Pad { .. } | Op::Gather { .. } | Op::Scatter { .. } | Op::Reshape { .. } | Op::Transpose { .. },
                Some(x),
            ) => self.set(id, x),
            _ => Err(self.unfit(id)),
        }
    }

    /// Fraction bits of the input: fewer for a large range, if it goes to linear layers alone. The
    /// bits go to their weights, which are small then.
    fn input_frac(&self, id: NodeId) -> Result<u8, QuantizeError> {
        let magnitude = self.range(id)?.bound.log2().ceil() - INPUT_MAGNITUDE_BITS;
        let fewer = if self.gain_goes_on(id) { magnitude.clamp(0.0, f64::from(self.frac)) } else { 0.0 };
        Ok(self.frac - fewer as u8)
    }

    fn linear(&mut self, id: NodeId, operand: NodeId) -> Result<(), QuantizeError> {
        let unit = (-f64::from(self.frac)).exp2();
        let value = bits(self.range(id)?.bound / unit, 1);
        // A few layers of large values or block sums give up a bit of their weights, rather than all a byte of the ring.
        let least = self.weight_frac.saturating_sub(1).max(1);
        let fits = |bits: u32| (least..=self.weight_frac).rev().find(|g| bits + u32::from(*g) <= u32::from(self.ring));
        // Room for the sums and the gates behind, where a refresh can make it.
        let whole = value.max(self.bits_ahead(id));
        let mut asked = fits(whole).or_else(|| fits(value)).unwrap_or(self.weight_frac);
        if asked < self.weight_frac {
            match self.fewer.checked_sub(1) {
                Some(left) => self.fewer = left,
                None => asked = self.weight_frac,
            }
        }
        let room = whole + u32::from(asked) <= u32::from(self.ring);
        let need = u32::from(asked) + if room { whole } else { value };
        self.fit(id, need, self.ring, "a quarter of the modulus must hold its values after truncation")?;
        let operand = self.dealt_operand(operand, need)?;
        self.graph.set_operand(id, 0, operand);
        let modulus = self.fixed(operand)?.modulus;
        let weight_frac = self.free_weight_bits(id, modulus, asked);
        let fixed = Fixed { frac: self.frac + weight_frac, modulus, gain: 1.0, client: ClientShare::Local };
        self.set(id, fixed)?;
        self.truncated(id, weight_frac)?;
        Ok(())
    }

    fn truncated(&mut self, id: NodeId, bits: u8) -> Result<NodeId, QuantizeError> {
        let fixed = self.fixed(id)?;
        self.fit(id, u32::from(bits) + 2, fixed.modulus, "truncation must leave a sign and a value")?;
        let fixed = Fixed { frac: fixed.frac - bits, modulus: fixed.modulus - bits, ..fixed };
        self.follow(id, Op::Truncate { bits }, fixed)
    }

    /// The operand itself, re-masked or refreshed, with a dealt client share and at least `need`
    /// bits.
    fn dealt_operand(&mut self, operand: NodeId, need: u32) -> Result<NodeId, QuantizeError> {
        let x = self.fixed(operand)?;
        let wide = u32::from(x.modulus) >= need;
        if wide && x.client == ClientShare::Dealt {
            return Ok(operand);
        }
        if let Some(&made) = self.dealt.get(&operand)
            && u32::from(self.fixed(made)?.modulus) >= need
        {
            return Ok(made);
        }
        let parts = self.graph.operands(operand);
        let made = if let Op::Concat { axis, .. } = self.graph.node(operand).op
            && self.some_part_will_do(&parts, need)?
        {
            // Only the parts that need it.
            let parts = parts.into_iter().map(|o| self.dealt_operand(o, need)).collect::<Result<Vec<_>, _>>()?;
            let made =
                self.beside(operand, Op::Concat { axis, parts: 1 }, Fixed { client: ClientShare::Dealt, ..x })?;
            self.graph.set_operands(made, &parts);
            self.graph.node_mut(made).op = Op::Concat { axis, parts: parts.len() };
            self.concat(made, &parts)?;
            made
        } else if wide {
            self.beside(operand, Op::Remask, Fixed { client: ClientShare::Dealt, ..x })?
        } else {
            let units = self.range(operand)?.bound / x.unit();
            self.fit(operand, bits(units, 1), x.modulus, "a refresh needs its values below a quarter of the modulus")?;
            let fixed = Fixed { client: ClientShare::Dealt, modulus: self.ring, ..x };
            self.beside(operand, Op::Refresh, fixed)?
        };
        self.dealt.insert(operand, made);
        Ok(made)
    }

    /// Whether one of several values is dealt and has `need` bits.
    fn some_part_will_do(&self, parts: &[NodeId], need: u32) -> Result<bool, QuantizeError> {
        let types = parts.iter().map(|o| self.fixed(*o)).collect::<Result<Vec<_>, _>>()?;
        Ok(types.iter().any(|f| f.client == ClientShare::Dealt && u32::from(f.modulus) >= need))
    }

    /// Parts of one scale; the result has the least of their moduli.
    fn concat(&mut self, id: NodeId, parts: &[NodeId]) -> Result<(), QuantizeError> {
        let types = parts.iter().map(|o| self.fixed(*o)).collect::<Result<Vec<_>, _>>()?;
        let first = *types.first().ok_or_else(|| self.unfit(id))?;
        if types.iter().any(|f| (first.unit() / f.unit() - 1.0).abs() > 1e-9) {
            return Err(QuantizeError::Scales(self.graph.node(id).name.clone()));
        }
        let dealt = types.iter().all(|f| f.client == ClientShare::Dealt);
        let client = if dealt { ClientShare::Dealt } else { ClientShare::Local };
        let modulus = types.iter().map(|f| f.modulus).min().unwrap_or(first.modulus);
        self.set(id, Fixed { modulus, client, ..first })
    }

    /// Interpolation along one axis. Where one along a later axis follows alone, both are truncated
    /// together behind it. What a linear layer behind needs is left to it where eight bits of each
    /// axis allow; else it costs a refresh.
    fn resample(&mut self, id: NodeId, axis: usize, samples: Vec<Sample>, x: Fixed) -> Result<(), QuantizeError> {
        let (mut left, mut last) = (1, id);
        while let Some(next) = self.resamples_next(last) {
            (left, last) = (left + 1, next);
        }
        let operand = self.graph.operand(id);
        let need = bits(self.range(operand)?.bound / x.unit(), 1);
        let wish = u32::from(exact_bits(&samples, FACTOR_BITS).unwrap_or(FACTOR_BITS));
        let least = wish.min(LEAST_FACTOR_BITS);
        self.fit(id, need + left * least, x.modulus, "an interpolation needs six bits for the factors of each axis")?;
        let before = self.pending_bits(operand);
        let room = (u32::from(x.modulus) - need) / left;
        let kept = u32::from(x.modulus).saturating_sub(u32::from(before) + self.linear_bits(last)) / left;
        let room = if kept >= wish.min(GOOD_FACTOR_BITS) { room.min(kept) } else { room };
        let factor_bits = wish.min(room) as u8;
        self.graph.node_mut(id).op = Op::Resample { axis, samples, bits: factor_bits };
        self.set(id, Fixed { frac: x.frac + factor_bits, ..x })?;
        let all = before + factor_bits;
        if last == id && all > 0 {
            self.truncated(id, all)?;
        }
        Ok(())
    }

    fn gate(&mut self, id: NodeId, operand: NodeId, x: Fixed) -> Result<(), QuantizeError> {
        let sum = self.range(id)?.block_sum.map_or(0.0, |(s, _)| s);
        let pixel = bits(self.range(operand)?.bound / x.unit(), 1);
        let sum = bits(sum / x.unit(), self.spare(id));
        self.fit(operand, pixel, x.modulus, "a sign decision needs its values below a quarter of the modulus")?;
        self.fit(operand, sum, x.modulus, "its block sums must stay below half the modulus")?;
        // A smaller modulus than there is would save a bit of every pixel at the opening, perhaps one before, and
        // take three for the lift.
        self.set(id, Fixed { modulus: self.ring, client: ClientShare::Dealt, ..x })
    }

    fn average(&mut self, id: NodeId, x: Fixed) -> Result<(), QuantizeError> {
        let pool = self.graph.pool_shape(id).ok_or_else(|| self.unfit(id))?;
        let window = pool.window;
        let [h, w] = window.output(pool.input[0], pool.input[1]).ok_or_else(|| self.unfit(id))?;
        let even = pool.uniform_divisor().filter(|n| n.is_power_of_two() || self.gain_goes_on(id));
        if let Some(divisor) = even {
            self.graph.node_mut(id).op = Op::SumPool { window, divisor };
            self.set(id, Fixed { gain: x.gain / divisor as f64, ..x })?;
            let p = divisor.next_power_of_two().ilog2() as u8;
            if p > 0 {
                self.truncated(id, p.min(x.frac))?;
            }
            return Ok(());
        }
        let divisors: Vec<usize> =
            (0..h).flat_map(|y| (0..w).map(move |x| (y, x))).map(|(y, x)| pool.divisor(y, x)).collect();
        let most = divisors.iter().copied().max().unwrap_or(1);
        let p = most.next_power_of_two().ilog2() as u8;
        self.graph.node_mut(id).op = Op::SumPool { window, divisor: 1 };
        let range = self.range(id)?;
        // As a sum the value is larger; the division brings it back.
        self.graph.node_mut(id).range = Some(Range { bound: range.bound * most as f64, ..range });
        self.set(id, x)?;
        if let Some(numerator) = common_multiple(&divisors).filter(|_| self.gain_goes_on(id)) {
            // Exact factors; the next weights absorb the common multiple.
            let fixed = Fixed { gain: x.gain / numerator as f64, ..x };
            if bits(range.bound / fixed.unit(), 1) <= u32::from(x.modulus) {
                let divided = self.follow(id, Op::Divide { numerator, shift: 0, divisors }, x)?;
                self.graph.node_mut(divided).range = Some(Range { evidence: Evidence::Derived, ..range });
                self.set(divided, fixed)?;
                self.truncated(divided, (numerator.next_power_of_two().ilog2() as u8).min(x.frac))?;
                return Ok(());
            }
        }
        let need = bits(range.bound / x.unit(), 1) + u32::from(p);
        let q = u32::from(x.modulus).saturating_sub(need).min(u32::from(DIVISION_BITS)) as u8;
        self.fit(id, need + 6, x.modulus, "an average with uneven divisors needs six bits for the division")?;
        let fixed = Fixed { frac: x.frac + p + q, ..x };
        let divided = self.follow(id, Op::Divide { numerator: 1 << (p + q), shift: p + q, divisors }, x)?;
        self.graph.node_mut(divided).range = Some(Range { evidence: Evidence::Derived, ..range });
        self.set(divided, fixed)?;
        self.truncated(divided, p + q)?;
        Ok(())
    }
}
