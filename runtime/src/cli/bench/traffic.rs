//! Rounds and bytes: what sessions took, next to what the program says of itself.

use std::fmt;

use bcc_ir::program::traffic::LayerTraffic;
use bcc_ir::program::{Phase, Role};
use bcc_runtime::stats::{Bytes, PhaseStats};
use serde::Serialize;
use thiserror::Error;

/// Rounds and bytes of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    rounds: u64,
    bytes: Bytes,
}

impl Traffic {
    pub fn measured(p: &PhaseStats) -> Traffic {
        Traffic { rounds: p.rounds, bytes: p.bytes }
    }

    pub fn program(t: &LayerTraffic, phase: Phase) -> Traffic {
        let [client, server, dealer] = t.bytes[phase.index()];
        Traffic { rounds: t.rounds[phase.index()], bytes: Bytes { client, server, dealer } }
    }

    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Bytes that a party sent.
    pub fn sent(&self, role: Role) -> u64 {
        match role {
            Role::Client => self.bytes.client,
            Role::Server => self.bytes.server,
            Role::Dealer => self.bytes.dealer,
        }
    }

    pub fn total(&self) -> u64 {
        Role::ALL.into_iter().map(|role| self.sent(role)).sum()
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bytes { client, server, dealer } = self.bytes;
        let (rounds, total) = (self.rounds, self.total());
        write!(f, "{rounds} rounds and {total} bytes (client {client}, server {server}, dealer {dealer})")
    }
}

/// A session took other rounds or bytes than the program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the {phase} phase took {measured}, and the program says {program}")]
pub struct Difference {
    pub phase: Phase,
    pub measured: Traffic,
    pub program: Traffic,
}

/// The first session whose phase differs from the program's.
pub fn difference(
    phase: Phase,
    program: Traffic,
    measured: impl IntoIterator<Item = Traffic>,
) -> Result<(), Difference> {
    let other = measured.into_iter().find(|t| *t != program);
    other.map_or(Ok(()), |measured| Err(Difference { phase, measured, program }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(rounds: u64, [client, server, dealer]: [u64; 3]) -> Traffic {
        Traffic { rounds, bytes: Bytes { client, server, dealer } }
    }

    #[test]
    fn sums() {
        let t = traffic(4, [10, 20, 30]);
        assert_eq!((t.total(), t.rounds()), (60, 4));
        assert_eq!(Role::ALL.map(|role| t.sent(role)), [10, 20, 30]);
    }

    #[test]
    fn every_difference_of_any_session_is_found() {
        let program = traffic(4, [10, 20, 30]);
        assert_eq!(difference(Phase::Online, program, [program; 3]), Ok(()));
        assert_eq!(difference(Phase::Online, program, []), Ok(()));
        // The last of the same sum.
        for other in
            [traffic(5, [10, 20, 30]), traffic(4, [11, 20, 30]), traffic(4, [10, 20, 0]), traffic(4, [20, 10, 30])]
        {
            let found = difference(Phase::Offline, program, [program, other, traffic(0, [0; 3])]);
            assert_eq!(found, Err(Difference { phase: Phase::Offline, measured: other, program }));
        }
    }

    #[test]
    fn the_message_says_who() {
        let found = difference(Phase::Online, traffic(4, [10, 20, 30]), [traffic(4, [20, 10, 30])]);
        let want = "the online phase took 4 rounds and 60 bytes (client 20, server 10, dealer 30), \
                    and the program says 4 rounds and 60 bytes (client 10, server 20, dealer 30)";
        assert_eq!(found.map_err(|d| d.to_string()), Err(want.into()));
    }
}
