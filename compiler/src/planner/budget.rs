//! Budgets as users write them: a share or number of sign decisions, bytes, or time.

use std::fmt;
use std::str::FromStr;

use bcc_ir::program::Phase;
use serde::Serialize;
use thiserror::Error;

/// Most that a plan may cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Budget {
    /// Share of the sign decisions that the network's ReLUs take, above 0 and at most 1. Those
    /// inside maximum pools are not counted: no plan can change them.
    Share(f64),
    /// Sign decisions.
    Drelus(u64),
    /// Bytes that all parties send for one inference.
    Bytes {
        /// Bytes.
        most: u64,
        /// Offline and online together if `None`.
        phase: Option<Phase>,
    },
    /// Predicted seconds of one inference.
    Seconds {
        /// Seconds.
        most: f64,
        /// Offline and online together if `None`.
        phase: Option<Phase>,
    },
}

impl Budget {
    /// Whether it limits sign decisions, which follow from the blocks alone.
    pub fn counts_signs(&self) -> bool {
        matches!(self, Budget::Share(_) | Budget::Drelus(_))
    }
}

/// A budget that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "budget \"{text}\": {reason}. Write a share of the sign decisions (6%), their number (500k drelu), bytes (150MB, 40MB \
     online, 1GB offline) or time (0.8s, 300ms online)"
)]
pub struct BudgetError {
    text: String,
    reason: String,
}

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Budget, BudgetError> {
        let bad = |reason: &str| BudgetError { text: text.into(), reason: reason.into() };
        let trimmed = text.trim();
        let end =
            trimmed.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '_' | '-' | '+')).unwrap_or(trimmed.len());
        let (number, rest) = trimmed.split_at(end);
        let number: f64 = number.replace('_', "").parse().map_err(|_| bad("it does not begin with a number"))?;
        if !(number > 0.0 && number.is_finite()) {
            return Err(bad("a budget is more than 0"));
        }
        let mut words = rest.split_whitespace();
        let unit = words.next().unwrap_or("");
        let scale = |unit: &str| match unit {
            "k" => Some(1e3),
            "M" => Some(1e6),
            "G" => Some(1e9),
            "" => Some(1.0),
            _ => None,
        };
        let mut phase = || match words.next() {
            None => Ok(None),
            Some("online") => Ok(Some(Phase::Online)),
            Some("offline") => Ok(Some(Phase::Offline)),
            Some(other) => Err(bad(&format!("\"{other}\" is no phase"))),
        };
        let budget = if unit == "%" {
            if number > 100.0 {
                return Err(bad("a share is at most 100%"));
            }
            Budget::Share(number / 100.0)
        } else if let Some(factor) = unit.strip_suffix('B').and_then(|u| match u {
            "Ki" => Some(1024.0),
            "Mi" => Some(1024.0 * 1024.0),
            "Gi" => Some(1024.0 * 1024.0 * 1024.0),
            "K" => Some(1e3),
            u => scale(u),
        }) {
            Budget::Bytes { most: whole(number * factor).ok_or_else(|| bad("it is too large"))?, phase: phase()? }
        } else if let Some(factor) = match unit {
            "s" => Some(1.0),
            "ms" => Some(1e-3),
            "min" => Some(60.0),
            _ => None,
        } {
            Budget::Seconds { most: number * factor, phase: phase()? }
        } else {
            let (factor, what) = match scale(unit) {
                Some(f) if !unit.is_empty() => (f, words.next()),
                _ => (1.0, Some(unit)),
            };
            match what {
                Some("drelu" | "drelus") => Budget::Drelus(
                    whole(number * factor).filter(|n| *n > 0).ok_or_else(|| bad("it is no number of decisions"))?,
                ),
                _ => return Err(bad("its unit is not known")),
            }
        };
        match words.next() {
            Some(more) => Err(bad(&format!("\"{more}\" has no meaning there"))),
            None => Ok(budget),
        }
    }
}

fn whole(x: f64) -> Option<u64> {
    (x < 9e15).then_some(x.round() as u64)
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |phase: &Option<Phase>| phase.map(|p| format!(" {p}")).unwrap_or_default();
        match self {
            Budget::Share(s) => write!(f, "{}%", (s * 1e6).round() / 1e4),
            Budget::Drelus(n) => write!(f, "{n} drelu"),
            Budget::Bytes { most, phase } => {
                let (x, unit) = match *most {
                    m if m >= 1_000_000_000 && m % 1_000_000 == 0 => (m as f64 / 1e9, "GB"),
                    m if m >= 1_000_000 && m % 1_000 == 0 => (m as f64 / 1e6, "MB"),
                    m if m >= 1_000 && m % 10 == 0 => (m as f64 / 1e3, "kB"),
                    m => (m as f64, "B"),
                };
                write!(f, "{x}{unit}{}", of(phase))
            }
            Budget::Seconds { most, phase } => write!(f, "{most}s{}", of(phase)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_and_written() {
        let bytes = |most, phase| Budget::Bytes { most, phase };
        let cases = [
            ("6%", Budget::Share(0.06)),
            ("0.5 %", Budget::Share(0.005)),
            ("500k drelu", Budget::Drelus(500_000)),
            ("1.5M drelus", Budget::Drelus(1_500_000)),
            ("42 drelu", Budget::Drelus(42)),
            ("150MB", bytes(150_000_000, None)),
            ("40 MB online", bytes(40_000_000, Some(Phase::Online))),
            ("1GiB offline", bytes(1 << 30, Some(Phase::Offline))),
            ("1200000B", bytes(1_200_000, None)),
            ("0.8s", Budget::Seconds { most: 0.8, phase: None }),
            ("300ms online", Budget::Seconds { most: 0.3, phase: Some(Phase::Online) }),
        ];
        for (text, want) in cases {
            let read: Budget = text.parse().unwrap_or_else(|e| unreachable!("{e}"));
            assert_eq!(read, want, "{text}");
            assert_eq!(read.to_string().parse(), Ok(want), "{read}");
        }
    }

    #[test]
    fn what_is_no_budget_is_refused_with_its_text() {
        for text in [
            "0",
            "0%",
            "-3%",
            "101%",
            "x",
            "6",
            "6 percent",
            "10MB sometimes",
            "3 k",
            "1e400s",
            "nan%",
            "5%%",
            "5% online",
        ] {
            let error = text.parse::<Budget>().expect_err(text).to_string();
            assert!(error.contains(&format!("\"{text}\"")) && error.contains("40MB online"), "{error}");
        }
    }
}
