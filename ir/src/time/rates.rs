//! Seconds per unit of work, measured on some machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Kind, Work};

/// What one kind of work takes on one core by itself, while the others do the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Nanoseconds of an instruction before its first unit.
    pub call_ns: f64,
    /// Nanoseconds of each unit.
    pub unit_ns: f64,
}

/// Where rates come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Processor and system.
    pub machine: String,
    /// Name of the kernel set.
    pub kernels: String,
    /// What the processors that a session keeps busy, four at most, are worth together, of one that works while the others
    /// do: their number, or less where they wait for each other. Threads of a party and, on one machine, all parties share
    /// them.
    pub cores: f64,
    /// What kernels take more in a session than by themselves, as a part of that (negative if less): their rates are
    /// raised by it.
    pub session_part: f64,
    /// Seconds that a step shared by several threads takes longer where these have been waiting: until they are awake.
    pub share_seconds: f64,
    /// How they were measured.
    pub how: String,
}

/// Two numbers of a machine's loopback network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loopback {
    /// Bytes per second in one direction of a link.
    pub bytes_per_second: f64,
    /// Seconds from sending a small message to having the answer.
    pub rtt_seconds: f64,
}

/// Rates of a machine. The file form is RON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Where they come from.
    pub measured: Measured,
    /// The machine's own network.
    pub loopback: Loopback,
    /// By kind of work; every kind is there.
    pub rates: BTreeMap<Kind, Rate>,
}

/// Why rates cannot be used.
#[derive(Debug, Error)]
pub enum RatesError {
    /// The file cannot be read.
    #[error("cannot read the rates {path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// Not RON of the rates' structure.
    #[error("{path} holds no rates: {reason}; write a new file with bcr rates -o {path}")]
    Syntax {
        /// File.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The structure is there, the values are not.
    #[error("{path}: {reason}; write a new file with bcr rates -o {path}")]
    Value {
        /// File.
        path: PathBuf,
        /// Which value and what is wrong.
        reason: String,
    },
}

impl Rates {
    /// Reads a file that `bcr rates` wrote.
    pub fn load(path: &Path) -> Result<Rates, RatesError> {
        let text = std::fs::read_to_string(path).map_err(|source| RatesError::Io { path: path.into(), source })?;
        let rates: Rates =
            ron::from_str(&text).map_err(|e| RatesError::Syntax { path: path.into(), reason: e.to_string() })?;
        match rates.fault() {
            None => Ok(rates),
            Some(reason) => Err(RatesError::Value { path: path.into(), reason }),
        }
    }

    /// The file form.
    pub fn to_ron(&self) -> Result<String, ron::Error> {
        let pretty = ron::ser::PrettyConfig::default().struct_names(true).compact_structs(false);
        let head = "// Nanoseconds on one core: of a call of each kind of work, and of each of its units.\n";
        Ok(head.to_string() + &ron::ser::to_string_pretty(self, pretty)? + "\n")
    }

    /// What is wrong with the values.
    fn fault(&self) -> Option<String> {
        if let Some(k) = Kind::ALL.into_iter().find(|k| !self.rates.contains_key(k)) {
            return Some(format!("there is no rate of {}", k.name()));
        }
        if !self.measured.cores.is_finite() || self.measured.cores < 1.0 {
            return Some("measured.cores is below 1".into());
        }
        if !self.measured.session_part.is_finite() || self.measured.session_part <= -1.0 {
            return Some("measured.session_part is no part".into());
        }
        if !self.measured.share_seconds.is_finite() || self.measured.share_seconds < 0.0 {
            return Some("measured.share_seconds is no time".into());
        }
        let loopback = [self.loopback.bytes_per_second, self.loopback.rtt_seconds];
        if loopback.iter().any(|v| !v.is_finite() || *v <= 0.0) {
            return Some("loopback needs positive numbers".into());
        }
        let bad = |v: f64| !v.is_finite() || v < 0.0;
        let (k, _) = self.rates.iter().find(|(_, r)| bad(r.call_ns) || bad(r.unit_ns))?;
        Some(format!("the rate of {} is no time", k.name()))
    }

    /// In a session.
    fn rate(&self, kind: Kind) -> Rate {
        let Rate { call_ns, unit_ns } = self.rates.get(&kind).copied().unwrap_or_default();
        let session = if kind.of_system() { 1.0 } else { 1.0 + self.measured.session_part };
        Rate { call_ns: call_ns * session, unit_ns: unit_ns * session }
    }

    /// Seconds of one core for a unit.
    pub fn unit_seconds(&self, kind: Kind) -> f64 {
        self.rate(kind).unit_ns * 1e-9
    }

    /// Seconds of one core for an instruction of no units.
    pub fn call_seconds(&self, kind: Kind) -> f64 {
        self.rate(kind).call_ns * 1e-9
    }

    /// Seconds of one core for work.
    pub fn seconds(&self, work: &Work) -> f64 {
        let of = |(k, units, calls): (Kind, u64, u64)| {
            units as f64 * self.unit_seconds(k) + calls as f64 * self.call_seconds(k)
        };
        work.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn some() -> Rates {
        let rate = |k: Kind| (k, Rate { call_ns: 100.0, unit_ns: 0.5 + k.index() as f64 });
        Rates {
            measured: Measured { machine: "a machine".into(), cores: 2.0, ..Measured::default() },
            loopback: Loopback { bytes_per_second: 1e9, rtt_seconds: 5e-5 },
            rates: Kind::ALL.into_iter().map(rate).collect(),
        }
    }

    fn load(name: &str, text: &str) -> Result<Rates, RatesError> {
        let dir = std::env::temp_dir().join(format!("bcc-rates-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("rates.ron");
        std::fs::write(&path, text).unwrap();
        let result = Rates::load(&path);
        std::fs::remove_dir_all(&dir).unwrap();
        result
    }

    #[test]
    fn files_roundtrip_and_name_kinds() {
        let text = some().to_ron().unwrap();
        assert!(text.contains("conv_macs:") && text.contains("received_bytes:"), "{text}");
        assert_eq!(load("whole", &text).unwrap(), some());
    }

    #[test]
    fn damaged_files_are_refused_by_name() {
        let text = some().to_ron().unwrap();
        let mut less = some();
        less.rates.remove(&Kind::Wraps);
        for (name, text, part) in [
            ("missing", less.to_ron().unwrap(), "no rate of wraps"),
            ("unknown", text.replace("wraps", "wrops"), "wrops"),
            ("negative", text.replacen("call_ns: 100.0", "call_ns: -1.0", 1), "conv_macs is no time"),
            ("nobody", text.replace("cores: 2.0", "cores: 0.5"), "measured.cores"),
            ("nobody", text.replace("session_part: 0.0", "session_part: -1.0"), "measured.session_part"),
            ("nobody", text.replace("share_seconds: 0.0", "share_seconds: -1.0"), "measured.share_seconds"),
            ("instant", text.replace("5e-5", "0.0"), "loopback"),
            ("cut", text[..text.len() / 2].to_string(), "holds no rates"),
        ] {
            let error = load(name, &text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("bcr rates -o"), "{name}: {error}");
        }
    }

    #[test]
    fn seconds_are_linear() {
        let r = some();
        let mut w = Work::of(Kind::ConvMacs, 1000);
        assert!((r.seconds(&w) - (100.0 + 500.0) * 1e-9).abs() < 1e-15);
        w.add(&Work::of(Kind::NarrowMacs, 10));
        assert!((r.seconds(&w) - (700.0 + 15.0) * 1e-9).abs() < 1e-15);
        // Kernels take more in a session, the system does not.
        let sent = Work::of(Kind::SentBytes, 1);
        let (before, mut longer) = (r.seconds(&sent), r);
        longer.measured.session_part = 0.5;
        assert!((longer.seconds(&w) - 1.5 * (700.0 + 15.0) * 1e-9).abs() < 1e-15);
        assert_eq!(longer.seconds(&sent), before);
    }
}
