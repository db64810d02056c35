//! What is known of a value: its range, and its fixed-point type.

use serde::{Deserialize, Serialize};

/// How a bound is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Evidence {
    /// Follows from the weights and the declared range of the input, which the client enforces.
    Proven,
    /// The largest magnitude seen on calibration data times `margin`.
    Observed {
        /// Factor over the largest magnitude seen.
        margin: f64,
    },
    /// Follows by interval arithmetic from an observed bound upstream.
    Derived,
}

/// Bound on the magnitude of a node's values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// `|x| <= bound` for every element.
    pub bound: f64,
    /// Where the bound comes from.
    pub evidence: Evidence,
    /// For a Block-ReLU: bound on the magnitude of the sum over any one block of its operand,
    /// with its own evidence. For a clip: on the distance of its operand to any of its bounds.
    pub block_sum: Option<(f64, Evidence)>,
}

/// Who can compute the client's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientShare {
    /// A randomness stream of client and dealer, and public linear steps on it: the dealer knows it.
    Dealt,
    /// Depends on the masked weights: the client knows it before the input, the dealer does not.
    Local,
}

/// Fixed-point type of a value: the integer `v` stands for `gain * v / 2^frac`, shared modulo
/// `2^modulus`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fixed {
    /// Fraction bits.
    pub frac: u8,
    /// Modulus width in bits.
    pub modulus: u8,
    /// Public real factor of the value, 1 unless an average pool left its division to the next
    /// linear layer.
    pub gain: f64,
    /// Who knows the client's share.
    pub client: ClientShare,
}

impl Fixed {
    /// Real value of one unit: `gain / 2^frac`.
    pub fn unit(&self) -> f64 {
        self.gain / (self.frac as f64).exp2()
    }
}
