//! Rates that `bcc` and `bcr` know by themselves, of one machine.

use super::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
/// `cargo run --release -p bcc-runtime -- rates -o rates.ron`, medians of five, on two cores of a shared
/// x86-64 machine (AMD EPYC, AVX2).
const RATES: [(Kind, f64, f64); 28] = [
    (Kind::ConvMacs, 34256.0, 0.02),
    (Kind::ConvTaps, 0.0, 2.1889),
    (Kind::ConvWeights, 0.0, 1.831),
    (Kind::DepthwiseMacs, 19143.0, 0.7898),
    (Kind::DenseMacs, 100.0, 0.4994),
    (Kind::PoolTaps, 126.0, 1.4462),
    (Kind::Elements, 214.0, 0.2752),
    (Kind::Transposed, 122.0, 2.6994),
    (Kind::Gathered, 191.0, 0.4592),
    (Kind::Weights, 81.0, 0.3614),
    (Kind::DrawnBytes, 854.0, 0.0589),
    (Kind::DrawnElements, 0.0, 1.3792),
    (Kind::BitWords, 181.0, 0.1525),
    (Kind::ToBits, 177.0, 0.8833),
    (Kind::FromBits, 273.0, 0.9768),
    (Kind::Wraps, 144.0, 0.3365),
    (Kind::BlockElements, 137.0, 0.2441),
    (Kind::SelectElements, 487.0, 2.2848),
    (Kind::SumRuns, 0.0, 0.0507),
    (Kind::GateRuns, 0.0, 0.7871),
    (Kind::SelectRuns, 0.0, 0.6812),
    (Kind::NibbleProducts, 538.0, 10.5479),
    (Kind::NibbleOpens, 776.0, 13.3575),
    (Kind::CarryProducts, 262.0, 0.2267),
    (Kind::CarryOpens, 354.0, 0.1531),
    (Kind::SentBytes, 5869.0, 0.1511),
    (Kind::ReceivedBytes, 7810.0, 0.1824),
    (Kind::FreshBytes, 0.0, 0.757),
];

/// What the machine's two processors are worth together.
const CORES: f64 = 1.2;

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (2.436e9, 1.33e-4);

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
