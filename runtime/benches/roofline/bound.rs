//! The least time of a program at the machine's rates.

use bcc_ir::program::traffic::traffic;
use bcc_ir::program::{Phase, Program, Width};
use bcc_ir::time::{Count, Counts, counts};
use serde::Serialize;

use crate::rates::Rates;

/// Seconds of a phase, all parties on this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Bound {
    /// The phase.
    pub phase: String,
    /// Products of digits, of whole integers where they fit 32 bits, or of bytes, whatever is fastest, with the fastest
    /// instruction set for each.
    pub products: f64,
    /// Keystream, made into elements of 32 bits.
    pub randomness: f64,
    /// Bytes on links.
    pub links: f64,
    /// Half a round trip for every round.
    pub rounds: f64,
    /// Operands and results, were all in the second-level cache.
    pub passes_l2: f64,
    /// Operands and results, were all in memory.
    pub passes_memory: f64,
    /// The largest of these without `passes_memory`: all at the same time, nothing out of the cache.
    pub least: f64,
    /// The largest with `passes_memory`.
    pub least_from_memory: f64,
    /// The sum with `passes_l2`: one after the other in all cores.
    pub sum: f64,
    /// The sum with `passes_memory`.
    pub sum_from_memory: f64,
}

/// What a program takes, and its bounds.
#[derive(Clone, Debug, Serialize)]
pub struct Needs {
    /// By phase and role.
    pub counts: Counts,
    /// Rounds by phase.
    pub rounds: [u64; 3],
    /// By phase.
    pub bounds: Vec<Bound>,
}

/// A phase's bound.
fn bound(phase: Phase, count: &Count, rounds: u64, width: Width, rates: &Rates) -> Bound {
    let seconds = |units: u64, name: &str| rates.all(name).map_or(0.0, |rate| units as f64 / rate);
    let last = |prefix: &str| rates.rates.iter().rfind(|r| r.name.starts_with(prefix)).map_or("", |r| &r.name);
    let digits = seconds(count.digit_products, last("digits_"));
    let products = match width {
        Width::Narrow => digits.min(seconds(count.wide_macs + count.narrow_macs, last("integers_"))),
        Width::Wide => digits,
    };
    let bytes = seconds(count.byte_products, "bytes_amx");
    let products = if bytes > 0.0 { products.min(bytes) } else { products };
    let randomness = seconds(count.drawn_bytes, "draw_32");
    let links = seconds(count.sent_bytes, "tcp");
    let rounds = rounds as f64 * rates.rtt_seconds / 2.0;
    let bytes = count.read_bytes + count.written_bytes;
    let (passes_l2, passes_memory) = (seconds(bytes, "copy_l2"), seconds(bytes, "copy_memory"));
    let others = [products, randomness, links, rounds];
    let most = |last: f64| others.iter().copied().fold(last, f64::max);
    let sum = |last: f64| others.iter().sum::<f64>() + last;
    Bound {
        phase: phase.to_string(),
        products,
        randomness,
        links,
        rounds,
        passes_l2,
        passes_memory,
        least: most(passes_l2),
        least_from_memory: most(passes_memory),
        sum: sum(passes_l2),
        sum_from_memory: sum(passes_memory),
    }
}

/// Of a verified program.
pub fn needs(program: &Program, rates: &Rates) -> Needs {
    let rounds = traffic(program).expect("a verified program comes to its end").total.rounds;
    let counts = counts(program);
    let bounds = Phase::ALL.map(|p| bound(p, &counts.phase(p), rounds[p.index()], Width::of(program), rates)).to_vec();
    Needs { counts, rounds, bounds }
}
