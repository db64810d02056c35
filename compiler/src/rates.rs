//! Rates that `bcc` knows by itself, of one machine.

use bcc_ir::time::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron` on two cores of a shared
/// x86-64 machine (AMD EPYC, AVX2).
const RATES: [(Kind, f64, f64); 28] = [
    (Kind::ConvMacs, 26647.0, 0.2767),
    (Kind::ConvTaps, 0.0, 0.8106),
    (Kind::ConvWeights, 0.0, 4.8555),
    (Kind::DepthwiseMacs, 21169.0, 0.7758),
    (Kind::DenseMacs, 124.0, 0.5457),
    (Kind::PoolTaps, 165.0, 1.2979),
    (Kind::Elements, 69.0, 0.5465),
    (Kind::Transposed, 279.0, 1.6342),
    (Kind::Gathered, 182.0, 0.4679),
    (Kind::Weights, 32.0, 0.487),
    (Kind::DrawnBytes, 497.0, 0.0398),
    (Kind::DrawnElements, 0.0, 1.0762),
    (Kind::BitWords, 81.0, 0.5291),
    (Kind::ToBits, 67.0, 3.6163),
    (Kind::FromBits, 122.0, 0.9034),
    (Kind::Wraps, 64.0, 0.7975),
    (Kind::BlockElements, 71.0, 0.171),
    (Kind::SelectElements, 136.0, 5.6594),
    (Kind::SumRuns, 0.0, 2.2949),
    (Kind::GateRuns, 0.0, 6.6624),
    (Kind::SelectRuns, 0.0, 3.3652),
    (Kind::NibbleProducts, 0.0, 25.3756),
    (Kind::NibbleOpens, 94.0, 76.6596),
    (Kind::CarryProducts, 2347.0, 1.1498),
    (Kind::CarryOpens, 3945.0, 0.7642),
    (Kind::SentBytes, 10201.0, 0.1296),
    (Kind::ReceivedBytes, 5006.0, 0.4031),
    (Kind::FreshBytes, 0.0, 0.5695),
];

/// What the machine's two processors are worth together.
const CORES: f64 = 2.0;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (2.824e9, 4.191e-5);

/// The rates of that machine. Those of one's own, from `bcr rates`, predict better.
pub fn default_rates() -> Rates {
    Rates {
        measured: Measured {
            machine: "built in: AMD EPYC, x86_64 linux".into(),
            kernels: "avx2".into(),
            cores: CORES,
            how: "bcr rates".into(),
        },
        loopback: Loopback { bytes_per_second: LOOPBACK.0, rtt_seconds: LOOPBACK.1 },
        rates: RATES.into_iter().map(|(kind, call_ns, unit_ns)| (kind, Rate { call_ns, unit_ns })).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_rate_in_order() {
        assert!(RATES.iter().map(|r| r.0).eq(Kind::ALL));
        assert!(RATES.iter().all(|(_, call, unit)| *call >= 0.0 && *unit >= 0.0));
    }
}
