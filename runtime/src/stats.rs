//! What a session took.

use bcc_ir::program::{Phase, Role};
use serde::{Deserialize, Serialize};

use crate::channel::PhaseTraffic;

/// Traffic and time of a session, with the JSON form that `bcr --stats` writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Inferences done.
    pub inferences: u32,
    /// Inferences in lockstep.
    pub batch: u32,
    /// By phase.
    pub phases: Phases,
}

/// One entry per phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Once per model.
    pub setup: PhaseStats,
    /// Before the input.
    pub offline: PhaseStats,
    /// With the input.
    pub online: PhaseStats,
}

/// A phase, all inferences together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseStats {
    /// Seconds at the client, until client and server were both done with the phase.
    pub seconds: f64,
    /// Rounds, once for all inferences in lockstep.
    pub rounds: u64,
    /// Bytes of messages sent, headers included; handshake and farewell are in no phase.
    pub bytes: Bytes,
}

/// Bytes by sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Sent by the client.
    pub client: u64,
    /// Sent by the server.
    pub server: u64,
    /// Sent by the dealer.
    pub dealer: u64,
}

/// One party's part of the statistics: sent to the others with its goodbye.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// By phase.
    pub phases: [(f64, PhaseTraffic); 3],
}

impl Share {
    /// Bytes of an encoded share.
    pub const BYTES: usize = 3 * 24;

    /// Little-endian seconds, rounds, bytes of each phase.
    pub fn bytes(&self) -> Vec<u8> {
        let words = |(s, t): &(f64, PhaseTraffic)| [s.to_bits(), t.rounds, t.bytes];
        self.phases.iter().flat_map(words).flat_map(u64::to_le_bytes).collect()
    }

    /// A share from its bytes; `None` for another length.
    pub fn parse(bytes: &[u8]) -> Option<Share> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let w: Vec<u64> = words.iter().map(|b| u64::from_le_bytes(*b)).collect();
        let phase = |i: usize| {
            let t = PhaseTraffic { rounds: w[i + 1], bytes: w[i + 2] };
            (f64::from_bits(w[i]), t)
        };
        (w.len() == 9).then(|| Share { phases: [phase(0), phase(3), phase(6)] })
    }
}

impl Stats {
    /// Puts the shares of the parties, by role, together.
    pub fn merge(inferences: u32, batch: u32, shares: &[Share; 3]) -> Stats {
        let phase = |p: Phase| {
            let of = |r: Role| shares[r.index()].phases[p.index()];
            PhaseStats {
                seconds: of(Role::Client).0,
                rounds: Role::ALL.map(|r| of(r).1.rounds).into_iter().max().unwrap_or(0),
                bytes: Bytes {
                    client: of(Role::Client).1.bytes,
                    server: of(Role::Server).1.bytes,
                    dealer: of(Role::Dealer).1.bytes,
                },
            }
        };
        let phases =
            Phases { setup: phase(Phase::Setup), offline: phase(Phase::Offline), online: phase(Phase::Online) };
        Stats { inferences, batch, phases }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_documented_form() {
        let mut s = Stats { inferences: 2, batch: 2, ..Stats::default() };
        s.phases.online.bytes.client = 5;
        let phase = |b| format!(r#"{{"seconds":0.0,"rounds":0,"bytes":{{"client":{b},"server":0,"dealer":0}}}}"#);
        let want = format!(
            r#"{{"inferences":2,"batch":2,"phases":{{"setup":{},"offline":{},"online":{}}}}}"#,
            phase(0),
            phase(0),
            phase(5)
        );
        assert_eq!(serde_json::to_string(&s).unwrap(), want);
    }

    #[test]
    fn shares_roundtrip() {
        let t = PhaseTraffic { bytes: 7, rounds: 3 };
        let s = Share { phases: [(1.5, t), (0.0, PhaseTraffic::default()), (2.25, t)] };
        assert_eq!(Share::parse(&s.bytes()), Some(s));
        assert_eq!(Share::parse(&[0; 71]), None);
    }
}
