//! The arithmetic of every instruction, behind one dispatch.
//!
//! [`Kernels`] is the set of all kernels; its default methods are the [plain](plain()) ones. A
//! faster set overrides what it does better and is made only where the processor has what it
//! needs. All sets give the same results, whatever the number of threads: integers modulo a power
//! of two add up the same in every order.
//!
//! Operands and results are the words of [`Buffer`](crate::buffer::Buffer)s: ring elements,
//! reduced, or planes of bits in whole words with zeros past the end. Results are all zero before
//! the call. Sizes are those that the program's verifier proved. `bits` is the width of the
//! result's modulus, `len` the bits in a plane.

mod bits;
pub(crate) mod blocks;
mod conv;
pub(crate) mod plain;
mod scratch;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

use bcc_ir::geometry::{ConvShape, PoolShape};
use bcc_ir::program::{BlockMap, Source};

pub use conv::Arranged;
pub use plain::compare::Masked;
pub use plain::gate::Select;

/// A set of kernels; each method does what the [`Inst`](bcc_ir::program::Inst) of its name says.
pub trait Kernels: Send + Sync {
    /// Name of the set.
    fn name(&self) -> &'static str;

    /// `a + b`.
    fn add(&self, bits: u8, a: &[u64], b: &[u64], out: &mut [u64]) {
        plain::element::add(bits, a, b, out);
    }
    /// `a - b`.
    fn sub(&self, bits: u8, a: &[u64], b: &[u64], out: &mut [u64]) {
        plain::element::sub(bits, a, b, out);
    }
    /// `a + value`; with 0 the reduction to a smaller modulus.
    fn add_const(&self, bits: u8, a: &[u64], value: u64, out: &mut [u64]) {
        plain::element::add_const(bits, a, value, out);
    }
    /// `(a + carry 2^drop mod 2^k) >> drop`.
    fn truncate(&self, k: u8, drop: u8, carry: u8, a: &[u64], out: &mut [u64]) {
        plain::element::truncate(k, drop, carry, a, out);
    }
    /// `low + 2^shift high`.
    fn join(&self, bits: u8, shift: u8, low: &[u64], high: &[u64], out: &mut [u64]) {
        plain::element::join(bits, shift, low, high, out);
    }
    /// Adds `b[c]` to channel `c`.
    fn add_bias(&self, bits: u8, x: &[u64], b: &[u64], out: &mut [u64]) {
        plain::element::add_bias(bits, x, b, out);
    }
    /// Multiplies every map by `factors`.
    fn scale(&self, bits: u8, factors: &[u64], x: &[u64], out: &mut [u64]) {
        plain::element::scale(bits, factors, x, out);
    }
    /// Convolution.
    fn conv(&self, bits: u8, shape: &ConvShape, x: &[u64], w: &[u64], out: &mut [u64]) {
        plain::linear::conv(bits, shape, x, w, out);
    }
    /// Weights as [`conv_arranged`](Self::conv_arranged) reads them, where that is faster; `narrow` if they are
    /// integers of at most 16 bits with their sign.
    fn arrange(&self, bits: u8, narrow: bool, shape: &ConvShape, w: &[u64]) -> Option<Arranged> {
        let _ = (bits, narrow, shape, w);
        None
    }
    /// Convolution with weights that this set has arranged for it.
    fn conv_arranged(&self, weights: &Arranged, x: &[u64], out: &mut [u64]) {
        let _ = (weights, x, out);
    }
    /// Sum over each window.
    fn sum_pool(&self, bits: u8, shape: &PoolShape, x: &[u64], out: &mut [u64]) {
        plain::linear::sum_pool(bits, shape, x, out);
    }
    /// Positions of the middle axis of `dims`, `[outer, axis, inner]`.
    fn gather(&self, bits: u8, dims: [usize; 3], indices: &[usize], x: &[u64], out: &mut [u64]) {
        plain::layout::gather(bits, dims, indices, x, out);
    }
    /// Permutation of axes.
    fn transpose(&self, bits: u8, shape: &[usize], perm: &[usize], x: &[u64], out: &mut [u64]) {
        plain::layout::transpose(bits, shape, perm, x, out);
    }
    /// Zeros around maps of `input` pixels: top, left, bottom, right.
    fn pad(&self, bits: u8, input: [usize; 2], pad: [usize; 4], x: &[u64], out: &mut [u64]) {
        plain::layout::pad(bits, input, pad, x, out);
    }
    /// Channels from operands.
    fn assemble(&self, bits: u8, inner: usize, sources: &[Source], operands: &[&[u64]], out: &mut [u64]) {
        plain::layout::assemble(bits, inner, sources, operands, out);
    }

    /// `a xor b`.
    fn xor(&self, a: &[u64], b: &[u64], out: &mut [u64]) {
        plain::bits::xor(a, b, out);
    }
    /// `1 xor a xor b`.
    fn xnor(&self, len: usize, a: &[u64], b: &[u64], out: &mut [u64]) {
        plain::bits::xnor(len, a, b, out);
    }
    /// Planes from operands.
    fn planes(&self, len: usize, picks: &[(u8, u32)], operands: &[&[u64]], out: &mut [u64]) {
        plain::bits::planes(len, picks, operands, out);
    }
    /// Bits of ring elements as planes.
    fn to_bits(&self, low: u8, pad: u8, x: &[u64], out: &mut [u64]) {
        plain::bits::to_bits(low, pad, x, out);
    }
    /// A plane as 0 and 1.
    fn to_ring(&self, plane: &[u64], out: &mut [u64]) {
        plain::bits::to_ring(plane, out);
    }
    /// Whether `a + b >= 2^k`.
    fn wrap(&self, k: u8, a: &[u64], b: &[u64], out: &mut [u64]) {
        plain::bits::wrap(k, a, b, out);
    }

    /// Sums of blocks.
    fn block_sum(&self, bits: u8, map: &BlockMap, x: &[u64], out: &mut [u64]) {
        plain::gate::block_sum(bits, map, x, out);
    }
    /// Dealer: products of the bits of nibbles.
    fn nibble_products(&self, len: usize, t: &[u64], out: &mut [u64]) {
        plain::compare::nibble_products(len, t, out);
    }
    /// Client, server: shares of generate and propagate of nibbles.
    fn nibble_open(&self, len: usize, public: bool, e: &[u64], products: &[u64], out: &mut [u64]) {
        plain::compare::nibble_open(len, public, e, products, out);
    }
    /// Dealer: products of mask bits.
    fn carry_products(&self, inputs: usize, len: usize, lambda: &[u64], out: &mut [u64]) {
        plain::compare::carry_products(inputs, len, lambda, out);
    }
    /// Client, server: shares of generate and propagate of groups.
    fn carry_open(&self, inputs: usize, len: usize, public: bool, masked: Masked<'_>, out: &mut [u64]) {
        plain::compare::carry_open(inputs, len, public, masked, out);
    }
    /// Dealer: `gate * x`.
    fn gate(&self, map: &BlockMap, gate: &[u64], x: &[u64], out: &mut [u64]) {
        plain::gate::gate(map, gate, x, out);
    }
    /// Client, server: a share of `DReLU * z` modulo `2^l` of `z` modulo `2^k`.
    fn select(&self, [k, l]: [u8; 2], map: &BlockMap, public: bool, s: Select<'_>, out: &mut [u64]) {
        plain::gate::select(k, l, map, public, s, out);
    }
    /// The public part of a lift from `2^k` to `2^l`.
    fn lift_public(&self, k: u8, l: u8, d: &[u64], out: &mut [u64]) {
        plain::gate::lift_public(k, l, d, out);
    }
    /// The high part of a share's lift.
    fn lift_correction(&self, bits: u8, te: &[u64], w: &[u64], ta: &[u64], out: &mut [u64]) {
        plain::gate::lift_correction(bits, te, w, ta, out);
    }
}

struct Plain;

impl Kernels for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }
}

/// Blocked convolutions on the tile kernel `T`, bits moved 64 at a time.
struct Blocked<T>(T);

impl<T: conv::Tile> Kernels for Blocked<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn conv(&self, bits: u8, shape: &ConvShape, x: &[u64], w: &[u64], out: &mut [u64]) {
        conv::conv(&self.0, bits, shape, x, w, out);
    }

    fn arrange(&self, bits: u8, narrow: bool, shape: &ConvShape, w: &[u64]) -> Option<Arranged> {
        conv::arrange(&self.0, bits, narrow, shape, w)
    }

    fn conv_arranged(&self, weights: &Arranged, x: &[u64], out: &mut [u64]) {
        conv::product(&self.0, weights, x, out);
    }

    fn to_bits(&self, low: u8, pad: u8, x: &[u64], out: &mut [u64]) {
        bits::to_bits(low, pad, x, out);
    }
}

/// The plain set: the reference.
pub fn plain() -> &'static dyn Kernels {
    &Plain
}

/// Every set that this processor can run, the plain one first, the fastest last.
pub fn available() -> Vec<&'static dyn Kernels> {
    let mut sets: Vec<&'static dyn Kernels> = vec![&Plain, &Blocked(conv::Portable)];
    #[cfg(target_arch = "x86_64")]
    {
        static AVX2: OnceLock<Option<Blocked<conv::Avx2>>> = OnceLock::new();
        static AVX512: OnceLock<Option<Blocked<conv::Avx512>>> = OnceLock::new();
        sets.extend(AVX2.get_or_init(|| conv::Avx2::new().map(Blocked)).iter().map(|s| s as &dyn Kernels));
        sets.extend(AVX512.get_or_init(|| conv::Avx512::new().map(Blocked)).iter().map(|s| s as &dyn Kernels));
    }
    sets
}

/// The fastest set that this processor can run.
pub fn best() -> &'static dyn Kernels {
    available().pop().unwrap_or(&Plain)
}
