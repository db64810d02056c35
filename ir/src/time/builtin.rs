//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of five, on two cores of a shared
/// x86-64 machine (AMD EPYC, AVX2).
const RATES: [(Kind, f64, f64); 28] = [
    (Kind::ConvMacs, 22222.0, 0.0172),
    (Kind::ConvTaps, 0.0, 2.2011),
    (Kind::ConvWeights, 0.0, 1.9292),
    (Kind::DepthwiseMacs, 12283.0, 0.7836),
    (Kind::DenseMacs, 254.0, 0.8116),
    (Kind::PoolTaps, 320.0, 2.4045),
    (Kind::Elements, 193.0, 0.4309),
    (Kind::Transposed, 385.0, 2.7389),
    (Kind::Gathered, 308.0, 0.4315),
    (Kind::Weights, 197.0, 0.342),
    (Kind::DrawnBytes, 927.0, 0.0576),
    (Kind::DrawnElements, 0.0, 1.1487),
    (Kind::BitWords, 127.0, 0.4474),
    (Kind::ToBits, 85.0, 1.4287),
    (Kind::FromBits, 220.0, 0.9801),
    (Kind::Wraps, 126.0, 0.4064),
    (Kind::BlockElements, 219.0, 0.4739),
    (Kind::SelectElements, 535.0, 2.9933),
    (Kind::SumRuns, 0.0, 0.0),
    (Kind::GateRuns, 0.0, 0.9351),
    (Kind::SelectRuns, 0.0, 0.9879),
    (Kind::NibbleProducts, 466.0, 16.8728),
    (Kind::NibbleOpens, 617.0, 18.6107),
    (Kind::CarryProducts, 4594.0, 1.127),
    (Kind::CarryOpens, 7656.0, 1.2646),
    (Kind::SentBytes, 6332.0, 0.1155),
    (Kind::ReceivedBytes, 5508.0, 0.1628),
    (Kind::FreshBytes, 0.0, 0.6118),
];

/// What the machine's two processors are worth together.
const CORES: f64 = 1.2;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (2.633e9, 1.11e-4);

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
