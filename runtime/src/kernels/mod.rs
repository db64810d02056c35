//! The arithmetic of every instruction, behind one dispatch.
//!
//! [`Kernels`] are all kernels for elements of one width; its default methods are the [plain](plain()) ones. A
//! faster [set](KernelSet) overrides what it does better and is made only where the processor has what it
//! needs. All sets give the same results, whatever the number of threads: integers modulo a power
//! of two add up the same in every order.
//!
//! Operands and results are what [`Buffer`](crate::buffer::Buffer)s hold: ring elements,
//! reduced, or planes of bits in whole words with zeros past the end. Results of convolutions,
//! paddings, assemblies, bit planes, wraps and opened carries are all zero before the call, others hold
//! anything. Sizes are those that the program's verifier proved. `bits` is the width of the
//! result's modulus, `len` the bits in a plane.

mod bits;
pub(crate) mod blocks;
pub(crate) mod bytes;
mod conv;
pub(crate) mod keystream;
pub(crate) mod packed;
pub(crate) mod plain;
#[cfg(test)]
mod tests;
mod vector;

use bcc_ir::geometry::{ConvShape, PoolShape};
use bcc_ir::program::{BlockMap, Source};

use std::ops::Range;
use std::sync::OnceLock;

use conv::{Portable, Products, Tile, faster_last};

use crate::element::Element;

pub use conv::Arranged;
pub use plain::compare::Masked;
pub use plain::gate::Select;

/// Hands the list of kernels that take slices and nothing else to a macro: what each does, the plain one, and
/// the one that is compiled for every instruction set.
macro_rules! each_kernel {
    ($then:ident $($set:tt)*) => {
        $then! {
            $($set)*;
            /// `a + b`.
            fn add(bits: u8, a: &[E], b: &[E], out: &mut [E]) = plain::element::add;
            /// `a - b`.
            fn sub(bits: u8, a: &[E], b: &[E], out: &mut [E]) = plain::element::sub;
            /// `a + value`; with 0 the reduction to a smaller modulus.
            fn add_const(bits: u8, a: &[E], value: E, out: &mut [E]) = plain::element::add_const;
            /// `(a + carry 2^drop mod 2^k) >> drop`.
            fn truncate(k: u8, drop: u8, carry: u8, a: &[E], out: &mut [E]) = plain::element::truncate;
            /// `low + 2^shift high`.
            fn join(bits: u8, shift: u8, low: &[E], high: &[E], out: &mut [E]) = plain::element::join;
            /// Adds `b[c]` to channel `c`.
            fn add_bias(bits: u8, x: &[E], b: &[E], out: &mut [E]) = plain::element::add_bias;
            /// Multiplies every map by `factors`.
            fn scale(bits: u8, factors: &[u64], x: &[E], out: &mut [E]) = plain::element::scale;
            /// Sum over each window.
            fn sum_pool(bits: u8, shape: &PoolShape, x: &[E], out: &mut [E]) = plain::linear::sum_pool;
            /// Positions of the middle axis of `dims`, `[outer, axis, inner]`.
            fn gather(bits: u8, dims: [usize; 3], indices: &[usize], x: &[E], out: &mut [E]) = plain::layout::gather;
            /// Permutation of axes.
            fn transpose(bits: u8, shape: &[usize], perm: &[usize], x: &[E], out: &mut [E]) = plain::layout::transpose;
            /// Zeros around maps of `input` pixels: top, left, bottom, right.
            fn pad(bits: u8, input: [usize; 2], pad: [usize; 4], x: &[E], out: &mut [E]) = plain::layout::pad;
            /// Channels from operands.
            fn assemble(bits: u8, inner: usize, sources: &[Source], operands: &[&[E]], out: &mut [E]) = plain::layout::assemble;
            /// `a xor b`.
            fn xor(a: &[u64], b: &[u64], out: &mut [u64]) = plain::bits::xor;
            /// `1 xor a xor b`.
            fn xnor(len: usize, a: &[u64], b: &[u64], out: &mut [u64]) = plain::bits::xnor;
            /// Planes from operands.
            fn planes(len: usize, picks: &[(u8, u32)], operands: &[&[u64]], out: &mut [u64]) = plain::bits::planes;
            /// Bits of ring elements as planes.
            fn to_bits(low: u8, pad: u8, x: &[E], out: &mut [u64]) = plain::bits::to_bits | bits::to_bits_fast;
            /// A plane as 0 and 1.
            fn to_ring(plane: &[u64], out: &mut [E]) = plain::bits::to_ring | bits::to_ring;
            /// Whether `a + b >= 2^k`.
            fn wrap(k: u8, a: &[E], b: &[E], out: &mut [u64]) = plain::bits::wrap;
            /// Sums of blocks.
            fn block_sum(bits: u8, map: &BlockMap, x: &[E], out: &mut [E]) = plain::gate::block_sum | vector::gate::block_sum;
            /// Dealer: products of the bits of nibbles.
            fn nibble_products(len: usize, t: &[u64], out: &mut [u64]) = plain::compare::nibble_products | vector::compare::nibble_products;
            /// Client, server: shares of generate and propagate of nibbles.
            fn nibble_open(len: usize, public: bool, e: &[u64], products: &[u64], out: &mut [u64]) = plain::compare::nibble_open | vector::compare::nibble_open;
            /// Dealer: products of mask bits.
            fn carry_products(inputs: usize, len: usize, lambda: &[u64], out: &mut [u64]) = plain::compare::carry_products | vector::compare::carry_products;
            /// Client, server: shares of generate and propagate of groups.
            fn carry_open(inputs: usize, len: usize, public: bool, masked: Masked<'_>, out: &mut [u64]) = plain::compare::carry_open | vector::compare::carry_open;
            /// Dealer: `gate * x`.
            fn gate(map: &BlockMap, gate: &[u64], x: &[E], out: &mut [E]) = plain::gate::gate | vector::gate::gate;
            /// Client, server: a share of `DReLU * z` modulo `2^l` of `z` modulo `2^k`.
            fn select(moduli: [u8; 2], map: &BlockMap, public: bool, s: Select<'_, E>, out: &mut [E]) = plain::gate::select | vector::gate::select;
            /// The public part of a lift from `2^k` to `2^l`.
            fn lift_public(k: u8, l: u8, d: &[E], out: &mut [E]) = plain::gate::lift_public;
            /// The high part of a share's lift.
            fn lift_correction(bits: u8, te: &[u64], w: &[E], ta: &[E], out: &mut [E]) = plain::gate::lift_correction;
        }
    };
}

/// The last of one or two.
macro_rules! last {
    ($plain:path) => {
        $plain
    };
    ($plain:path, $fast:path) => {
        $fast
    };
}

/// The trait, with the plain kernels as defaults.
macro_rules! declare {
    (; $($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) = $plain:path $(| $fast:path)?;)*) => {
        /// Kernels for elements held in `E`; each method does what the [`Inst`](bcc_ir::program::Inst) of its name
        /// says.
        pub trait Kernels<E: Element>: Send + Sync {
            /// Convolution.
            fn conv(&self, bits: u8, shape: &ConvShape, x: &[E], w: &[E], out: &mut [E]) {
                plain::linear::conv(bits, shape, x, w, out);
            }
            /// Weights as [`conv_arranged`](Self::conv_arranged) reads them, where that is faster; `narrow` if
            /// they are integers of at most 16 bits with their sign.
            fn arrange(&self, bits: u8, narrow: bool, shape: &ConvShape, w: &[E]) -> Option<Arranged> {
                let _ = (bits, narrow, shape, w);
                None
            }
            /// Convolution with weights that this set has arranged for it; `out` may hold anything.
            fn conv_arranged(&self, weights: &Arranged, x: &[E], out: &mut [E]) {
                self.conv_rows(weights, 0..weights.channels(), x, out);
            }
            /// As [`conv_arranged`](Self::conv_arranged), some output channels only, which is all that `out` has. They
            /// start at a multiple of [`ROWS`](bcc_ir::program::steps::ROWS) in their group.
            fn conv_rows(&self, weights: &Arranged, channels: Range<usize>, x: &[E], out: &mut [E]) {
                let _ = (weights, channels, x, out);
            }

            $($(#[$doc])* fn $name(&self, $($arg: $ty),*) {
                $plain($($arg),*);
            })*
        }
    };
}

/// A set around a tile kernel, compiled for its instruction set.
macro_rules! set {
    ($set:ty, #[$features:meta]; $($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) = $plain:path $(| $fast:path)?;)*) => {
        impl<E: Element> Kernels<E> for $set {
            fn conv(&self, bits: u8, shape: &ConvShape, x: &[E], w: &[E], out: &mut [E]) {
                conv::conv(self, bits, shape, x, w, out);
            }

            fn arrange(&self, bits: u8, narrow: bool, shape: &ConvShape, w: &[E]) -> Option<Arranged> {
                conv::arrange(self, bits, narrow, shape, w)
            }

            fn conv_rows(&self, weights: &Arranged, channels: Range<usize>, x: &[E], out: &mut [E]) {
                conv::product(self, weights, channels, x, out);
            }

            $(fn $name(&self, $($arg: $ty),*) {
                #[$features]
                #[allow(clippy::extra_unused_type_parameters, reason = "some take planes alone")]
                fn compiled<E: Element>($($arg: $ty),*) {
                    last!($plain $(, $fast)?)($($arg),*);
                }
                // SAFETY: a set exists only where the processor has its instructions.
                #[allow(unsafe_code, unused_unsafe)]
                unsafe {
                    compiled::<E>($($arg),*)
                }
            })*
        }
    };
}

each_kernel!(declare);
each_kernel!(set conv::Portable, #[inline]);
#[cfg(target_arch = "x86_64")]
each_kernel!(set conv::Avx2, #[target_feature(enable = "avx2")]);
#[cfg(target_arch = "x86_64")]
each_kernel!(set conv::Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512dq")]);

struct Plain;

impl<E: Element> Kernels<E> for Plain {}

/// A set of kernels: one for each width of elements.
#[derive(Clone, Copy)]
pub struct KernelSet {
    name: &'static str,
    pub(crate) narrow: &'static dyn Kernels<u32>,
    pub(crate) wide: &'static dyn Kernels<u64>,
}

impl KernelSet {
    fn new<K: Kernels<u32> + Kernels<u64>>(name: &'static str, kernels: &'static K) -> KernelSet {
        KernelSet { name, narrow: kernels, wide: kernels }
    }

    fn of_tile<K: Tile + Kernels<u32> + Kernels<u64> + 'static>(tile: K) -> KernelSet {
        // Made once.
        KernelSet::new(tile.name(), Box::leak(Box::new(tile)))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Its kernels for elements held in `E`.
    pub fn of<E: Element>(self) -> &'static dyn Kernels<E> {
        E::kernels(self)
    }
}

/// The plain set: the reference.
pub fn plain() -> KernelSet {
    KernelSet::new("plain", &Plain)
}

/// Every set that this processor can run, the plain one first, the fastest last.
pub fn available() -> Vec<KernelSet> {
    static ALL: OnceLock<Vec<KernelSet>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut sets = vec![plain()];
        INSTRUCTION_SETS.iter().for_each(|set| sets.extend(set()));
        sets
    })
    .clone()
}

/// The fastest set that this processor can run.
pub fn best() -> KernelSet {
    static BEST: OnceLock<KernelSet> = OnceLock::new();
    *BEST.get_or_init(|| INSTRUCTION_SETS.iter().rev().find_map(|set| set().pop()).unwrap_or(plain()))
}

/// For each instruction set the sets that are compiled for it, if the processor has it, the fastest last.
const INSTRUCTION_SETS: &[fn() -> Vec<KernelSet>] = &[
    // So that tests on every machine cover how bytes are laid out.
    #[cfg(test)]
    || sets([Portable(Products::Bytes)]),
    || sets(faster_last(Portable(Products::Digits), Portable(Products::Whole))),
    #[cfg(target_arch = "x86_64")]
    || sets(conv::Avx2::all()),
    #[cfg(target_arch = "x86_64")]
    || sets(conv::Avx512::all()),
];

fn sets<K: Tile + Kernels<u32> + Kernels<u64> + 'static>(tiles: impl IntoIterator<Item = K>) -> Vec<KernelSet> {
    tiles.into_iter().map(KernelSet::of_tile).collect()
}
