//! Rates that `bcc` knows by itself, of one machine.

use bcc_ir::time::{Kind, Loopback, Measured, Rate, Rates};

/// Nanoseconds of a call and of a unit, on one core. Measured with
///
///     cargo run --release -p bcc-runtime -- rates -o rates.ron
///
/// on two cores of a shared x86-64 machine (AMD EPYC, AVX2).
const RATES: [(Kind, f64, f64); 24] = [
    (Kind::ConvMacs, 850.0, 0.2662),
    (Kind::ConvTaps, 0.0, 0.5422),
    (Kind::ConvWeights, 0.0, 2.3648),
    (Kind::DepthwiseMacs, 402.0, 0.6297),
    (Kind::DenseMacs, 141.0, 0.4523),
    (Kind::PoolTaps, 44.0, 1.3301),
    (Kind::Elements, 0.0, 0.7778),
    (Kind::Transposed, 57.0, 2.2713),
    (Kind::Gathered, 112.0, 0.5843),
    (Kind::Weights, 0.0, 0.5887),
    (Kind::DrawnBytes, 449.0, 0.2449),
    (Kind::BitWords, 51.0, 0.5194),
    (Kind::ToBits, 0.0, 4.3072),
    (Kind::FromBits, 102.0, 0.901),
    (Kind::Wraps, 54.0, 0.803),
    (Kind::BlockElements, 70.0, 0.1723),
    (Kind::SelectElements, 68.0, 5.9753),
    (Kind::BlockRuns, 0.0, 2.3657),
    (Kind::NibbleProducts, 0.0, 83.1809),
    (Kind::NibbleOpens, 0.0, 81.1047),
    (Kind::CarryProducts, 2428.0, 1.7963),
    (Kind::CarryOpens, 4118.0, 1.0895),
    (Kind::SentBytes, 4204.0, 0.1606),
    (Kind::ReceivedBytes, 7114.0, 0.5922),
];

/// Bytes per second and seconds there and back, of the same machine's loopback network.
const LOOPBACK: (f64, f64) = (2.989e9, 4.191e-5);

/// The rates of that machine. Those of one's own, from `bcr rates`, predict better.
pub fn default_rates() -> Rates {
    Rates {
        measured: Measured {
            machine: "built in: AMD EPYC, x86_64 linux".into(),
            kernels: "avx2".into(),
            cores: 2,
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
