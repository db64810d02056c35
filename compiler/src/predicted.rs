//! What `bcc inspect --network` adds to a report: predicted seconds.

use bcc_ir::program::traffic::Stuck;
use bcc_ir::program::{Phase, Program, Role};
use bcc_ir::time::{Measured, Network, PhasePrediction, Rates, predict};
use serde::Serialize;

/// Seconds that each party computes, on one core.
#[derive(Clone, Debug, Serialize)]
pub struct Busy {
    /// The client.
    pub client: f64,
    /// The server.
    pub server: f64,
    /// The dealer.
    pub dealer: f64,
}

/// A phase: seconds from its start to its end, and what they are spent on.
#[derive(Clone, Debug, Serialize)]
pub struct PredictedPhase {
    /// From start to end: the sum of the next three.
    pub seconds: f64,
    /// In instructions, as far as others wait for them.
    pub compute: f64,
    /// Of messages on the way.
    pub latency: f64,
    /// Of messages occupying links.
    pub bandwidth: f64,
    /// What each party computes.
    pub busy: Busy,
}

/// All phases.
#[derive(Clone, Debug, Serialize)]
pub struct PredictedPhases {
    /// Once per model.
    pub setup: PredictedPhase,
    /// Per inference, before the input.
    pub offline: PredictedPhase,
    /// Per inference, with the input.
    pub online: PredictedPhase,
}

/// A layer's seconds on the critical path of each phase; all layers add up to the phase.
#[derive(Clone, Debug, Serialize)]
pub struct PredictedLayer {
    /// Name of the graph node.
    pub name: String,
    /// Once per model.
    pub setup: f64,
    /// Per inference, before the input.
    pub offline: f64,
    /// Per inference, with the input.
    pub online: f64,
}

/// A program's times on a network, from its messages and rounds and measured rates.
#[derive(Clone, Debug, Serialize)]
pub struct Predicted {
    /// The network.
    pub network: Network,
    /// Where the rates were measured.
    pub rates: Measured,
    /// By phase.
    pub phases: PredictedPhases,
    /// By layer, in the program's order.
    pub layers: Vec<PredictedLayer>,
}

/// To the nanosecond.
fn short(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e9
}

fn phase(p: &PhasePrediction) -> PredictedPhase {
    let busy = |r: Role| short(p.busy[r.index()]);
    PredictedPhase {
        seconds: short(p.path.total()),
        compute: short(p.path.compute),
        latency: short(p.path.latency),
        bandwidth: short(p.path.bandwidth),
        busy: Busy { client: busy(Role::Client), server: busy(Role::Server), dealer: busy(Role::Dealer) },
    }
}

impl Predicted {
    /// Predicts for a verified program.
    pub fn new(program: &Program, rates: &Rates, network: Network) -> Result<Predicted, Stuck> {
        let p = predict(program, rates, &network)?;
        let layer = |(i, l): (usize, &bcc_ir::program::Layer)| {
            let of = |phase: Phase| p.phase(phase).layers.get(i).map_or(0.0, |s| short(s.total()));
            PredictedLayer {
                name: l.name.clone(),
                setup: of(Phase::Setup),
                offline: of(Phase::Offline),
                online: of(Phase::Online),
            }
        };
        Ok(Predicted {
            rates: rates.measured.clone(),
            phases: PredictedPhases {
                setup: phase(p.phase(Phase::Setup)),
                offline: phase(p.phase(Phase::Offline)),
                online: phase(p.phase(Phase::Online)),
            },
            layers: program.layers.iter().enumerate().map(layer).collect(),
            network,
        })
    }

    /// Lines for people.
    pub fn text(&self) -> String {
        let n = &self.network;
        let place = match n.shared_cores {
            Some(cores) => format!("one machine worth {cores} cores"),
            None => format!("three machines worth {} cores each", self.rates.cores),
        };
        let mut text = format!(
            "predicted on {}: {:.1} Mbit/s each way, {:.2} ms there and back, {place} ({}, {})\n",
            n.name,
            n.bytes_per_second * 8e-6,
            n.rtt_seconds * 1e3,
            self.rates.machine,
            self.rates.kernels
        );
        let p = &self.phases;
        for (name, p) in [("setup", &p.setup), ("offline", &p.offline), ("online", &p.online)] {
            let share = |part: f64| if p.seconds > 0.0 { 100.0 * part / p.seconds } else { 0.0 };
            text += &format!(
                "{name:8} {:>13.4} s: compute {:.0} %, latency {:.0} %, bandwidth {:.0} %\n",
                p.seconds,
                share(p.compute),
                share(p.latency),
                share(p.bandwidth)
            );
        }
        text
    }
}
