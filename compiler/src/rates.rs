//! Rates that `bcc` knows by itself, of one machine.

use bcc_ir::time::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
///
///     cargo run --release -p bcc-runtime -- rates -o rates.ron
///
/// on two cores of a shared x86-64 machine (AMD EPYC, AVX2).
const RATES: [(Kind, f64, f64); 28] = [
    (Kind::ConvMacs, 960.0, 0.2881),
    (Kind::ConvTaps, 0.0, 0.5615),
    (Kind::ConvWeights, 0.0, 2.1535),
    (Kind::DepthwiseMacs, 13693.0, 0.6468),
    (Kind::DenseMacs, 132.0, 0.5202),
    (Kind::PoolTaps, 131.0, 1.3501),
    (Kind::Elements, 86.0, 0.5228),
    (Kind::Transposed, 252.0, 1.6282),
    (Kind::Gathered, 148.0, 0.5021),
    (Kind::Weights, 32.0, 0.4875),
    (Kind::DrawnBytes, 504.0, 0.0405),
    (Kind::DrawnElements, 0.0, 1.0686),
    (Kind::BitWords, 67.0, 0.5162),
    (Kind::ToBits, 59.0, 3.6062),
    (Kind::FromBits, 110.0, 0.884),
    (Kind::Wraps, 55.0, 0.7978),
    (Kind::BlockElements, 75.0, 0.1249),
    (Kind::SelectElements, 94.0, 2.9998),
    (Kind::SumRuns, 0.0, 2.468),
    (Kind::GateRuns, 0.0, 7.2672),
    (Kind::SelectRuns, 0.0, 5.4869),
    (Kind::NibbleProducts, 0.0, 24.2758),
    (Kind::NibbleOpens, 106.0, 76.1147),
    (Kind::CarryProducts, 2330.0, 0.8343),
    (Kind::CarryOpens, 4117.0, 0.7479),
    (Kind::SentBytes, 4261.0, 0.2608),
    (Kind::ReceivedBytes, 5119.0, 0.3737),
    (Kind::FreshBytes, 0.0, 0.9099),
];

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (2.000e+10, 1.383e-5);

/// The rates of that machine. Those of one's own, from `bcr rates`, predict better.
pub fn default_rates() -> Rates {
    Rates {
        measured: Measured {
            machine: "built in: AMD EPYC, x86_64 linux".into(),
            kernels: "avx2".into(),
            cores: 2,
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
