//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of seven, on two cores of a shared
/// x86-64 machine (Intel Xeon with AVX-512 and AMX).
const RATES: [(Kind, f64, f64); 35] = [
    (Kind::ConvMacs, 3070.0, 0.001721),
    (Kind::NarrowMacs, 2785.5, 0.0),
    (Kind::DigitMacs, 5254.0, 0.0004654),
    (Kind::ConvTaps, 0.0, 0.3199),
    (Kind::DeepTaps, 0.0, 0.04721),
    (Kind::ConvReads, 0.0, 0.1069),
    (Kind::ConvSums, 0.0, 0.5453),
    (Kind::ConvWeights, 0.0, 0.3763),
    (Kind::DepthwiseMacs, 448.0, 0.3068),
    (Kind::DenseMacs, 105.0, 0.05579),
    (Kind::PoolTaps, 3.0, 0.8766),
    (Kind::Elements, 0.0, 0.3797),
    (Kind::Transposed, 0.0, 1.804),
    (Kind::Gathered, 122.0, 0.2855),
    (Kind::Weights, 46.0, 0.8733),
    (Kind::DrawnBytes, 61.0, 0.03821),
    (Kind::DrawnElements, 0.0, 0.1171),
    (Kind::BitWords, 21.0, 0.3685),
    (Kind::ToBits, 96.0, 0.3222),
    (Kind::FromBits, 28.0, 0.06862),
    (Kind::Wraps, 95.0, 0.22),
    (Kind::BlockElements, 61.0, 0.1585),
    (Kind::SelectElements, 171.0, 0.9497),
    (Kind::SumRuns, 0.0, 0.4292),
    (Kind::GateRuns, 0.0, 0.4679),
    (Kind::SelectRuns, 0.0, 0.02906),
    (Kind::NibbleProducts, 211.0, 6.154),
    (Kind::NibbleOpens, 600.0, 5.827),
    (Kind::CarryProducts, 289.0, 0.07911),
    (Kind::CarryOpens, 560.0, 0.05419),
    (Kind::SentBytes, 15846.0, 0.00255),
    (Kind::ReceivedBytes, 2548.0, 0.1476),
    (Kind::PackedBytes, 0.0, 0.1244),
    (Kind::UnpackedBytes, 0.0, 0.05707),
    (Kind::FreshBytes, 0.0, 0.3529),
];

/// What the two processors are worth together to a large convolution.
const CORES: f64 = 1.4;

/// What a session takes beyond kernels.
const SESSION: f64 = 0.11;

/// Seconds until threads that wait share a step.
const SHARE: f64 = 3.1e-05;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (3.91e+09, 5.42e-05);

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
