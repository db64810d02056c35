//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of seven, on two cores of a shared
/// x86-64 machine (AMD EPYC, AVX2).
const RATES: [(Kind, f64, f64); 29] = [
    (Kind::ConvMacs, 3432.0, 0.0217),
    (Kind::ConvTaps, 0.0, 1.5042),
    (Kind::ConvReads, 0.0, 0.265),
    (Kind::ConvWeights, 0.0, 0.9228),
    (Kind::DepthwiseMacs, 683.0, 0.7023),
    (Kind::DenseMacs, 161.0, 0.202),
    (Kind::PoolTaps, 1.0, 2.8529),
    (Kind::Elements, 204.0, 0.2669),
    (Kind::Transposed, 242.0, 2.6647),
    (Kind::Gathered, 261.0, 0.4796),
    (Kind::Weights, 134.0, 0.2809),
    (Kind::DrawnBytes, 910.0, 0.06),
    (Kind::DrawnElements, 0.0, 0.9835),
    (Kind::BitWords, 143.0, 0.28),
    (Kind::ToBits, 157.0, 1.0853),
    (Kind::FromBits, 239.0, 1.0073),
    (Kind::Wraps, 149.0, 0.3801),
    (Kind::BlockElements, 236.0, 0.3924),
    (Kind::SelectElements, 441.0, 3.1663),
    (Kind::SumRuns, 0.0, 0.0772),
    (Kind::GateRuns, 0.0, 1.4067),
    (Kind::SelectRuns, 0.0, 0.858),
    (Kind::NibbleProducts, 823.0, 11.7722),
    (Kind::NibbleOpens, 964.0, 16.3892),
    (Kind::CarryProducts, 413.0, 0.3708),
    (Kind::CarryOpens, 497.0, 0.2231),
    (Kind::SentBytes, 6303.0, 0.0975),
    (Kind::ReceivedBytes, 7270.0, 0.1795),
    (Kind::FreshBytes, 0.0, 0.7641),
];

/// What the machine's two processors are worth together.
const CORES: f64 = 1.9;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (2.782e9, 1.38e-4);

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
