//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of seven, on two cores of a shared
/// x86-64 machine (Intel Xeon with AVX-512 and AMX).
const RATES: [(Kind, f64, f64); 35] = [
    (Kind::ConvMacs, 2961.0, 0.0018),
    (Kind::NarrowMacs, 2352.0, 0.0),
    (Kind::DigitMacs, 5381.0, 0.0005),
    (Kind::ConvTaps, 0.0, 0.2814),
    (Kind::DeepTaps, 0.0, 0.0394),
    (Kind::ConvReads, 0.0, 0.0949),
    (Kind::ConvSums, 0.0, 0.5421),
    (Kind::ConvWeights, 0.0, 0.354),
    (Kind::DepthwiseMacs, 435.0, 0.2968),
    (Kind::DenseMacs, 102.0, 0.0505),
    (Kind::PoolTaps, 2.0, 0.8622),
    (Kind::Elements, 0.0, 0.3726),
    (Kind::Transposed, 0.0, 1.815),
    (Kind::Gathered, 113.0, 0.2947),
    (Kind::Weights, 45.0, 0.8657),
    (Kind::DrawnBytes, 61.0, 0.038),
    (Kind::DrawnElements, 0.0, 0.1381),
    (Kind::BitWords, 25.0, 0.3522),
    (Kind::ToBits, 104.0, 0.3186),
    (Kind::FromBits, 29.0, 0.0677),
    (Kind::Wraps, 91.0, 0.2182),
    (Kind::BlockElements, 59.0, 0.1601),
    (Kind::SelectElements, 166.0, 0.9789),
    (Kind::SumRuns, 0.0, 0.4454),
    (Kind::GateRuns, 0.0, 0.4233),
    (Kind::SelectRuns, 0.0, 0.0),
    (Kind::NibbleProducts, 209.0, 6.124),
    (Kind::NibbleOpens, 591.0, 5.756),
    (Kind::CarryProducts, 281.0, 0.0727),
    (Kind::CarryOpens, 547.0, 0.0564),
    (Kind::SentBytes, 17157.0, 0.0023),
    (Kind::ReceivedBytes, 2895.0, 0.1561),
    (Kind::PackedBytes, 0.0, 0.1442),
    (Kind::UnpackedBytes, 0.0, 0.0566),
    (Kind::FreshBytes, 0.0, 0.3605),
];

/// What the two processors are worth together to a large convolution.
const CORES: f64 = 1.5;

/// What a session takes beyond kernels.
const SESSION: f64 = 0.08;

/// Seconds until threads that wait share a step.
const SHARE: f64 = 2.8e-05;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (3.78e+09, 5.41e-05);

/// The rates of that machine. Those of one's own, from `bcr rates`, predict better.
pub fn default_rates() -> Rates {
    Rates {
        measured: Measured {
            machine: "built in: Intel Xeon, x86_64 linux".into(),
            kernels: "amx".into(),
            cores: CORES,
            session_part: SESSION,
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
