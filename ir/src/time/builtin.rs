//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of seven, on two cores of a shared
/// x86-64 machine (Intel Xeon with AVX-512 and AMX).
const RATES: [(Kind, f64, f64); 34] = [
    (Kind::ConvMacs, 4000.0, 0.0038),
    (Kind::NarrowMacs, 2462.0, 0.0027),
    (Kind::DigitMacs, 6057.0, 0.0008),
    (Kind::ConvTaps, 0.0, 0.2791),
    (Kind::ConvReads, 0.0, 0.1427),
    (Kind::ConvSums, 0.0, 0.6527),
    (Kind::ConvWeights, 0.0, 1.119),
    (Kind::DepthwiseMacs, 417.0, 0.315),
    (Kind::DenseMacs, 103.0, 0.0693),
    (Kind::PoolTaps, 0.0, 1.217),
    (Kind::Elements, 0.0, 0.393),
    (Kind::Transposed, 0.0, 1.904),
    (Kind::Gathered, 112.0, 0.31),
    (Kind::Weights, 38.0, 0.9213),
    (Kind::DrawnBytes, 61.0, 0.0432),
    (Kind::DrawnElements, 0.0, 0.1266),
    (Kind::BitWords, 22.0, 0.4011),
    (Kind::ToBits, 99.0, 0.3583),
    (Kind::FromBits, 30.0, 0.0674),
    (Kind::Wraps, 92.0, 0.2231),
    (Kind::BlockElements, 61.0, 0.1725),
    (Kind::SelectElements, 162.0, 1.077),
    (Kind::SumRuns, 0.0, 0.5062),
    (Kind::GateRuns, 0.0, 0.5386),
    (Kind::SelectRuns, 0.0, 0.1461),
    (Kind::NibbleProducts, 207.0, 6.794),
    (Kind::NibbleOpens, 609.0, 6.871),
    (Kind::CarryProducts, 290.0, 0.0807),
    (Kind::CarryOpens, 562.0, 0.0616),
    (Kind::SentBytes, 17450.0, 0.0022),
    (Kind::ReceivedBytes, 3382.0, 0.1593),
    (Kind::PackedBytes, 0.0, 0.1608),
    (Kind::UnpackedBytes, 0.0, 0.0655),
    (Kind::FreshBytes, 0.0, 0.3651),
];

/// What the two processors are worth together to a large convolution.
const CORES: f64 = 1.7;

/// What a session takes beyond kernels.
const SESSION: f64 = 0.15;

/// Seconds until threads that wait share a step.
const SHARE: f64 = 8.2e-5;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (3.83e9, 5.64e-5);

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
