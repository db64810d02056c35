//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of seven, on two cores of a shared
/// x86-64 machine (AMD EPYC, AVX2).
const RATES: [(Kind, f64, f64); 32] = [
    (Kind::ConvMacs, 3393.0, 0.0436),
    (Kind::NarrowMacs, 2427.0, 0.0442),
    (Kind::DigitMacs, 11108.0, 0.0232),
    (Kind::ConvTaps, 0.0, 0.517),
    (Kind::ConvReads, 0.0, 0.1948),
    (Kind::ConvSums, 0.0, 0.0),
    (Kind::ConvWeights, 0.0, 0.6145),
    (Kind::DepthwiseMacs, 877.0, 0.6718),
    (Kind::DenseMacs, 197.0, 0.0873),
    (Kind::PoolTaps, 220.0, 2.6822),
    (Kind::Elements, 220.0, 0.1416),
    (Kind::Transposed, 581.0, 2.2881),
    (Kind::Gathered, 362.0, 0.2516),
    (Kind::Weights, 211.0, 1.4274),
    (Kind::DrawnBytes, 915.0, 0.0612),
    (Kind::DrawnElements, 0.0, 0.7657),
    (Kind::BitWords, 218.0, 0.2501),
    (Kind::ToBits, 245.0, 0.6273),
    (Kind::FromBits, 218.0, 0.1238),
    (Kind::Wraps, 165.0, 0.4845),
    (Kind::BlockElements, 272.0, 0.3227),
    (Kind::SelectElements, 525.0, 2.2925),
    (Kind::SumRuns, 0.0, 0.0),
    (Kind::GateRuns, 0.0, 0.7597),
    (Kind::SelectRuns, 0.0, 0.0),
    (Kind::NibbleProducts, 891.0, 13.0505),
    (Kind::NibbleOpens, 1032.0, 15.0853),
    (Kind::CarryProducts, 459.0, 0.4127),
    (Kind::CarryOpens, 585.0, 0.2529),
    (Kind::SentBytes, 20008.0, 0.1023),
    (Kind::ReceivedBytes, 8862.0, 0.1888),
    (Kind::FreshBytes, 0.0, 0.7211),
];

/// What the two processors are worth together to a large convolution.
const CORES: f64 = 1.3;

/// Seconds until threads that wait share a step.
const SHARE: f64 = 9.1e-5;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (4.43e9, 1.34e-4);

/// The rates of that machine. Those of one's own, from `bcr rates`, predict better.
pub fn default_rates() -> Rates {
    Rates {
        measured: Measured {
            machine: "built in: AMD EPYC, x86_64 linux".into(),
            kernels: "avx2, 32-bit products".into(),
            cores: CORES,
            share_seconds: SHARE,
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
