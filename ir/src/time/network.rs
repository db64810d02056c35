//! How fast links are, and where the parties run.
//!
//! A profile of one's own is a RON file:
//!
//! ```ron
//! Network(bandwidth: "100 Mbit/s", rtt: "40 ms")
//! ```
//!
//! `shared_cores: 4` says that all three parties run on one machine of four cores.

use std::path::{Path, PathBuf};

use ron::extensions::Extensions;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Rates;

/// A network between three parties. Each pair has a link, each direction of a link the whole
/// bandwidth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// `loopback`, `lan`, `wan`, or the file.
    pub name: String,
    /// Bytes per second in one direction of a link.
    pub bytes_per_second: f64,
    /// Seconds that a small message and its answer take on the way.
    pub rtt_seconds: f64,
    /// Cores that all three parties share, where they run on one machine ([`Measured::cores`]);
    /// otherwise each has a machine of its own.
    ///
    /// [`Measured::cores`]: super::Measured::cores
    pub shared_cores: Option<f64>,
}

/// Why a network cannot be used.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// Neither a profile nor a file.
    #[error(
        "there is no network \"{name}\": write loopback, lan, wan, or a file with Network(bandwidth: \"100 Mbit/s\", \
         rtt: \"40 ms\") ({source})"
    )]
    Unknown {
        /// What was given.
        name: String,
        /// Why it is no file.
        source: std::io::Error,
    },
    /// Not RON of a network's structure.
    #[error("{path} is no network: {reason}; write Network(bandwidth: \"100 Mbit/s\", rtt: \"40 ms\")")]
    Syntax {
        /// File.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A field that cannot be read.
    #[error("{path}, {field}: \"{text}\": {remedy}")]
    Field {
        /// File.
        path: PathBuf,
        /// Field.
        field: &'static str,
        /// What it holds.
        text: String,
        /// What to write.
        remedy: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename = "Network", deny_unknown_fields)]
struct File {
    bandwidth: String,
    rtt: String,
    #[serde(default)]
    shared_cores: Option<f64>,
}

const BANDWIDTHS: [(&str, f64); 10] = [
    ("Gbit/s", 1e9 / 8.0),
    ("Mbit/s", 1e6 / 8.0),
    ("kbit/s", 1e3 / 8.0),
    ("bit/s", 1.0 / 8.0),
    ("GB/s", 1e9),
    ("MB/s", 1e6),
    ("kB/s", 1e3),
    ("GiB/s", (1u64 << 30) as f64),
    ("MiB/s", (1u64 << 20) as f64),
    ("B/s", 1.0),
];
const TIMES: [(&str, f64); 5] = [("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("s", 1.0)];

/// A number and its unit, in the base unit.
fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    let value = number.parse::<f64>().ok()? * factor;
    value.is_finite().then_some(value)
}

impl Network {
    /// All parties on the machine that the rates were measured on.
    pub fn loopback(rates: &Rates) -> Network {
        Network {
            name: "loopback".into(),
            bytes_per_second: rates.loopback.bytes_per_second,
            rtt_seconds: rates.loopback.rtt_seconds,
            shared_cores: Some(rates.measured.cores),
        }
    }

    /// 1 Gbit/s and 0.2 ms there and back.
    pub fn lan() -> Network {
        Network { name: "lan".into(), bytes_per_second: 125e6, rtt_seconds: 0.2e-3, shared_cores: None }
    }

    /// 100 Mbit/s and 40 ms there and back.
    pub fn wan() -> Network {
        Network { name: "wan".into(), bytes_per_second: 12.5e6, rtt_seconds: 40e-3, shared_cores: None }
    }

    /// `loopback`, `lan`, `wan`, or a file.
    pub fn named(name: &str, rates: &Rates) -> Result<Network, NetworkError> {
        match name {
            "loopback" => Ok(Network::loopback(rates)),
            "lan" => Ok(Network::lan()),
            "wan" => Ok(Network::wan()),
            file => match std::fs::read_to_string(file) {
                Ok(text) => Network::parse(&text, Path::new(file)),
                Err(source) => Err(NetworkError::Unknown { name: file.into(), source }),
            },
        }
    }

    /// The file form; `path` is for messages and becomes the name.
    pub fn parse(text: &str, path: &Path) -> Result<Network, NetworkError> {
        let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
        let file: File =
            options.from_str(text).map_err(|e| NetworkError::Syntax { path: path.into(), reason: e.to_string() })?;
        let bad =
            |field, text: &str, remedy| NetworkError::Field { path: path.into(), field, text: text.into(), remedy };
        let bytes_per_second = quantity(&file.bandwidth, &BANDWIDTHS).filter(|v| *v > 0.0).ok_or_else(|| {
            let remedy =
                "write a positive number and bit/s, kbit/s, Mbit/s, Gbit/s, B/s, kB/s, MB/s, GB/s, MiB/s or GiB/s";
            bad("bandwidth", &file.bandwidth, remedy)
        })?;
        let rtt_seconds = quantity(&file.rtt, &TIMES)
            .ok_or_else(|| bad("rtt", &file.rtt, "write a number and ns, us, ms or s, such as \"40 ms\""))?;
        if let Some(cores) = file.shared_cores.filter(|c| !c.is_finite() || *c < 1.0) {
            return Err(bad(
                "shared_cores",
                &cores.to_string(),
                "write at least 1, or leave it out where each party has a machine",
            ));
        }
        Ok(Network { name: path.display().to_string(), bytes_per_second, rtt_seconds, shared_cores: file.shared_cores })
    }

    /// Seconds that a byte occupies one direction of a link.
    pub fn byte_seconds(&self) -> f64 {
        self.bytes_per_second.recip()
    }

    /// Seconds from the last byte sent to the last byte there: what a round costs at least.
    pub fn one_way_seconds(&self) -> f64 {
        self.rtt_seconds / 2.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Network, String> {
        Network::parse(text, Path::new("net.ron")).map_err(|e| e.to_string())
    }

    #[test]
    fn files_with_units() {
        let n = parse("Network(bandwidth: \"100 Mbit/s\", rtt: \"40 ms\")").unwrap();
        assert_eq!(n, Network { name: "net.ron".into(), ..Network::wan() });
        let n = parse("(bandwidth: \" 1.5GB/s \", rtt: \"0.25s\", shared_cores: 3)").unwrap();
        assert_eq!((n.bytes_per_second, n.rtt_seconds, n.shared_cores), (1.5e9, 0.25, Some(3.0)));
        let n = parse("Network(bandwidth: \"2 MiB/s\", rtt: \"0 us\")").unwrap();
        assert_eq!((n.byte_seconds(), n.one_way_seconds()), (1.0 / 2097152.0, 0.0));
    }

    #[test]
    fn errors_name_file_field_and_remedy() {
        for (bandwidth, rtt, parts) in [
            ("fast", "1 ms", ["bandwidth", "Mbit/s"]),
            ("100", "1 ms", ["bandwidth", "\"100\""]),
            ("0 Mbit/s", "1 ms", ["bandwidth", "positive"]),
            ("-1 Mbit/s", "1 ms", ["bandwidth", "positive"]),
            ("1.2.3 B/s", "1 ms", ["bandwidth", "positive"]),
            ("1 Mbit/s", "40", ["rtt", "such as"]),
            ("1 Mbit/s", "40 minutes", ["rtt", "minutes"]),
        ] {
            let error = parse(&format!("Network(bandwidth: \"{bandwidth}\", rtt: \"{rtt}\")")).unwrap_err();
            assert!(error.starts_with("net.ron, ") && parts.iter().all(|p| error.contains(p)), "{error}");
        }
        for (text, part) in [
            ("Network(bandwidth: \"1 B/s\")", "rtt"),
            ("Network(bandwidth: \"1 B/s\", rtt: \"1 s\", jitter: 1)", "jitter"),
            ("Link()", "Network"),
            ("(bandwidth: \"1 B/s\", rtt: \"1 s\", shared_cores: 0)", "at least 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("net.ron") && error.contains(part), "{error}");
        }
    }
}
