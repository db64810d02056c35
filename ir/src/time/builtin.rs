//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of seven, on two cores of a shared
/// x86-64 machine (AMD EPYC, AVX2).
const RATES: [(Kind, f64, f64); 31] = [
    (Kind::ConvMacs, 4239.0, 0.06),
    (Kind::NarrowMacs, 4239.0, 0.06),
    (Kind::DigitMacs, 4239.0, 0.0224),
    (Kind::ConvTaps, 0.0, 1.4385),
    (Kind::ConvReads, 0.0, 0.3578),
    (Kind::ConvWeights, 0.0, 0.7761),
    (Kind::DepthwiseMacs, 771.0, 0.4613),
    (Kind::DenseMacs, 96.0, 0.1664),
    (Kind::PoolTaps, 106.0, 1.307),
    (Kind::Elements, 101.0, 0.2522),
    (Kind::Transposed, 0.0, 2.586),
    (Kind::Gathered, 137.0, 0.4268),
    (Kind::Weights, 82.0, 0.2912),
    (Kind::DrawnBytes, 505.0, 0.0608),
    (Kind::DrawnElements, 0.0, 0.6945),
    (Kind::BitWords, 143.0, 0.2354),
    (Kind::ToBits, 77.0, 0.8601),
    (Kind::FromBits, 144.0, 0.6082),
    (Kind::Wraps, 81.0, 0.262),
    (Kind::BlockElements, 127.0, 0.2397),
    (Kind::SelectElements, 266.0, 2.2604),
    (Kind::SumRuns, 0.0, 0.0584),
    (Kind::GateRuns, 0.0, 0.781),
    (Kind::SelectRuns, 0.0, 0.4904),
    (Kind::NibbleProducts, 524.0, 9.6745),
    (Kind::NibbleOpens, 732.0, 12.5522),
    (Kind::CarryProducts, 252.0, 0.2114),
    (Kind::CarryOpens, 352.0, 0.1376),
    (Kind::SentBytes, 5232.0, 0.0886),
    (Kind::ReceivedBytes, 7989.0, 0.1789),
    (Kind::FreshBytes, 0.0, 0.6692),
];

/// What the two processors are worth together to a convolution of common size.
const CORES: f64 = 1.3;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (4.43e9, 1.34e-4);

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
