//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron` on two cores of a shared
/// x86-64 machine (AMD EPYC, AVX2).
const RATES: [(Kind, f64, f64); 28] = [
    (Kind::ConvMacs, 20523.0, 0.0179),
    (Kind::ConvTaps, 0.0, 1.7237),
    (Kind::ConvWeights, 0.0, 1.4259),
    (Kind::DepthwiseMacs, 17169.0, 0.8388),
    (Kind::DenseMacs, 203.0, 0.513),
    (Kind::PoolTaps, 703.0, 1.4059),
    (Kind::Elements, 215.0, 0.2749),
    (Kind::Transposed, 557.0, 2.0377),
    (Kind::Gathered, 297.0, 0.3866),
    (Kind::Weights, 0.0, 6.5772),
    (Kind::DrawnBytes, 702.0, 0.0928),
    (Kind::DrawnElements, 0.0, 1.4956),
    (Kind::BitWords, 108.0, 0.319),
    (Kind::ToBits, 22.0, 1.2456),
    (Kind::FromBits, 170.0, 0.8382),
    (Kind::Wraps, 90.0, 0.39),
    (Kind::BlockElements, 117.0, 0.2325),
    (Kind::SelectElements, 238.0, 2.3595),
    (Kind::SumRuns, 0.0, 0.0316),
    (Kind::GateRuns, 0.0, 0.7633),
    (Kind::SelectRuns, 0.0, 0.5478),
    (Kind::NibbleProducts, 379.0, 12.5009),
    (Kind::NibbleOpens, 669.0, 13.4567),
    (Kind::CarryProducts, 2287.0, 0.6856),
    (Kind::CarryOpens, 4061.0, 0.738),
    (Kind::SentBytes, 4738.0, 0.1197),
    (Kind::ReceivedBytes, 6770.0, 0.1745),
    (Kind::FreshBytes, 0.0, 0.5141),
];

/// What the machine's two processors are worth together.
const CORES: f64 = 2.0;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (2.824e9, 4.191e-5);

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
