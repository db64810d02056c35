//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of seven, on two cores of a shared
/// x86-64 machine (Intel Xeon with AVX-512 and AMX).
const RATES: [(Kind, f64, f64); 34] = [
    (Kind::ConvMacs, 3521.0, 0.0038),
    (Kind::NarrowMacs, 2496.0, 0.0018),
    (Kind::DigitMacs, 6051.0, 0.0006),
    (Kind::ConvTaps, 0.0, 0.2848),
    (Kind::ConvReads, 0.0, 0.1645),
    (Kind::ConvSums, 0.0, 0.7156),
    (Kind::ConvWeights, 0.0, 1.136),
    (Kind::DepthwiseMacs, 410.0, 0.319),
    (Kind::DenseMacs, 105.0, 0.0772),
    (Kind::PoolTaps, 0.0, 0.92),
    (Kind::Elements, 0.0, 0.3915),
    (Kind::Transposed, 0.0, 2.037),
    (Kind::Gathered, 115.0, 0.3159),
    (Kind::Weights, 35.0, 0.964),
    (Kind::DrawnBytes, 62.0, 0.0459),
    (Kind::DrawnElements, 0.0, 0.1145),
    (Kind::BitWords, 24.0, 0.4086),
    (Kind::ToBits, 104.0, 0.3545),
    (Kind::FromBits, 31.0, 0.0764),
    (Kind::Wraps, 86.0, 0.2659),
    (Kind::BlockElements, 61.0, 0.1885),
    (Kind::SelectElements, 166.0, 1.091),
    (Kind::SumRuns, 0.0, 0.5144),
    (Kind::GateRuns, 0.0, 0.7121),
    (Kind::SelectRuns, 0.0, 0.0305),
    (Kind::NibbleProducts, 207.0, 7.269),
    (Kind::NibbleOpens, 626.0, 6.895),
    (Kind::CarryProducts, 295.0, 0.0726),
    (Kind::CarryOpens, 579.0, 0.0635),
    (Kind::SentBytes, 17850.0, 0.0018),
    (Kind::ReceivedBytes, 3663.0, 0.1627),
    (Kind::PackedBytes, 0.0, 0.1493),
    (Kind::UnpackedBytes, 0.0, 0.0645),
    (Kind::FreshBytes, 0.0, 0.3793),
];

/// What the two processors are worth together to a large convolution.
const CORES: f64 = 1.7;

/// What a session takes beyond kernels.
const SESSION: f64 = 0.16;

/// Seconds until threads that wait share a step.
const SHARE: f64 = 9.2e-05;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (3.69e+09, 6.38e-05);

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
