//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of seven, on two cores of a shared
/// x86-64 machine (Intel Xeon with AVX-512 and AMX).
const RATES: [(Kind, f64, f64); 34] = [
    (Kind::ConvMacs, 8166.0, 0.0067),
    (Kind::NarrowMacs, 7404.0, 0.0056),
    (Kind::DigitMacs, 8809.0, 0.0011),
    (Kind::ConvTaps, 0.0, 0.1844),
    (Kind::ConvReads, 0.0, 0.1272),
    (Kind::ConvSums, 0.0, 0.8628),
    (Kind::ConvWeights, 0.0, 1.027),
    (Kind::DepthwiseMacs, 438.0, 0.288),
    (Kind::DenseMacs, 132.0, 0.0464),
    (Kind::PoolTaps, 0.0, 1.153),
    (Kind::Elements, 0.0, 0.3553),
    (Kind::Transposed, 0.0, 1.675),
    (Kind::Gathered, 109.0, 0.2844),
    (Kind::Weights, 44.0, 0.8578),
    (Kind::DrawnBytes, 59.0, 0.0425),
    (Kind::DrawnElements, 0.0, 0.0985),
    (Kind::BitWords, 21.0, 0.3587),
    (Kind::ToBits, 89.0, 0.3098),
    (Kind::FromBits, 27.0, 0.0676),
    (Kind::Wraps, 89.0, 0.2058),
    (Kind::BlockElements, 82.0, 0.0876),
    (Kind::SelectElements, 223.0, 1.013),
    (Kind::SumRuns, 0.0, 0.0928),
    (Kind::GateRuns, 0.0, 0.1193),
    (Kind::SelectRuns, 0.0, 0.0777),
    (Kind::NibbleProducts, 214.0, 5.842),
    (Kind::NibbleOpens, 585.0, 5.781),
    (Kind::CarryProducts, 281.0, 0.0713),
    (Kind::CarryOpens, 547.0, 0.0621),
    (Kind::SentBytes, 15527.0, 0.0018),
    (Kind::ReceivedBytes, 2246.0, 0.1393),
    (Kind::PackedBytes, 0.0, 0.1281),
    (Kind::UnpackedBytes, 0.0, 0.0546),
    (Kind::FreshBytes, 0.0, 0.2985),
];

/// What the two processors are worth together to a large convolution.
const CORES: f64 = 1.8;

/// Seconds until threads that wait share a step.
const SHARE: f64 = 0.0001;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (4.22e9, 4.97e-5);

/// The rates of that machine. Those of one's own, from `bcr rates`, predict better.
pub fn default_rates() -> Rates {
    Rates {
        measured: Measured {
            machine: "built in: Intel Xeon, x86_64 linux".into(),
            kernels: "amx".into(),
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
