//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, fourteen times: the medians of what each kind takes in a
/// session, its rate and the session's part together, less the median part. On two cores of a shared
/// x86-64 machine (Intel Xeon with AVX-512 and AMX).
const RATES: [(Kind, f64, f64); 35] = [
    (Kind::ConvMacs, 3042.0, 0.003759),
    (Kind::NarrowMacs, 2907.0, 0.002293),
    (Kind::DigitMacs, 5562.0, 0.001189),
    (Kind::ConvTaps, 0.0, 0.2791),
    (Kind::DeepTaps, 0.0, 0.03881),
    (Kind::ConvReads, 0.0, 0.09047),
    (Kind::ConvSums, 0.0, 0.5203),
    (Kind::ConvWeights, 0.0, 0.3577),
    (Kind::DepthwiseMacs, 449.0, 0.3075),
    (Kind::DenseMacs, 109.0, 0.0504),
    (Kind::PoolTaps, 6.0, 0.8685),
    (Kind::Elements, 0.0, 0.3694),
    (Kind::Transposed, 0.0, 1.77),
    (Kind::Gathered, 120.0, 0.2819),
    (Kind::Weights, 50.0, 0.872),
    (Kind::DrawnBytes, 61.0, 0.03812),
    (Kind::DrawnElements, 0.0, 0.1186),
    (Kind::BitWords, 23.0, 0.3578),
    (Kind::ToBits, 97.0, 0.3202),
    (Kind::FromBits, 29.0, 0.06908),
    (Kind::Wraps, 94.0, 0.2139),
    (Kind::BlockElements, 61.0, 0.1557),
    (Kind::SelectElements, 168.0, 0.9727),
    (Kind::SumRuns, 0.0, 0.4811),
    (Kind::GateRuns, 0.0, 0.4425),
    (Kind::SelectRuns, 0.0, 0.0),
    (Kind::NibbleProducts, 221.0, 6.01),
    (Kind::NibbleOpens, 607.0, 5.569),
    (Kind::CarryProducts, 289.0, 0.08188),
    (Kind::CarryOpens, 563.0, 0.04677),
    (Kind::SentBytes, 16697.0, 0.0018),
    (Kind::ReceivedBytes, 2315.0, 0.1499),
    (Kind::PackedBytes, 0.0, 0.1291),
    (Kind::UnpackedBytes, 0.0, 0.05666),
    (Kind::FreshBytes, 0.0, 0.3397),
];

/// What the two processors are worth together to a large convolution.
const CORES: f64 = 1.5;

/// What a session takes beyond kernels.
const SESSION: f64 = 0.11;

/// Seconds until threads that wait share a step.
const SHARE: f64 = 2.9e-05;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (4.05e+09, 4.74e-05);

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
