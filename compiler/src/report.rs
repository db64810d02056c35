//! What `bcc inspect` shows: traffic by layer, read off the program.

use bcc_ir::graph::{Evidence, Graph};
use bcc_ir::program::traffic::{LayerTraffic, Stuck, traffic};
use bcc_ir::program::{Phase, Program, Role};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::predicted::Predicted;

/// One layer of the report.
#[derive(Clone, Debug, Serialize)]
pub struct LayerRow {
    /// Name of the graph node.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// Fraction bits of the result.
    pub frac: u8,
    /// Modulus width of the result, in bits.
    pub modulus: u8,
    /// Sign decisions.
    pub drelus: u64,
    /// Bytes once per model, of all parties.
    pub setup_bytes: u64,
    /// Bytes per inference before the input.
    pub offline_bytes: u64,
    /// Bytes per inference with the input.
    pub online_bytes: u64,
    /// Online rounds.
    pub rounds: u64,
    /// Rounds of the setup that this layer adds.
    pub setup_rounds: u64,
    /// Rounds before the input that this layer adds.
    pub offline_rounds: u64,
}

/// Bytes by party.
#[derive(Clone, Debug, Serialize)]
pub struct PartyBytes {
    /// Sent by the client.
    pub client: u64,
    /// Sent by the server.
    pub server: u64,
    /// Sent by the dealer.
    pub dealer: u64,
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseTotals {
    /// Messages.
    pub messages: u64,
    /// Rounds.
    pub rounds: u64,
    /// Bytes by sender.
    pub bytes: PartyBytes,
}

/// All phases.
#[derive(Clone, Debug, Serialize)]
pub struct Phases {
    /// Once per model.
    pub setup: PhaseTotals,
    /// Per inference, before the input.
    pub offline: PhaseTotals,
    /// Per inference, with the input.
    pub online: PhaseTotals,
}

/// Sums over the layers.
#[derive(Clone, Debug, Serialize)]
pub struct Totals {
    /// Sign decisions.
    pub drelus: u64,
    /// Bytes once per model.
    pub setup_bytes: u64,
    /// Bytes per inference before the input.
    pub offline_bytes: u64,
    /// Bytes per inference with the input.
    pub online_bytes: u64,
    /// Online rounds.
    pub rounds: u64,
    /// By phase and party.
    pub phases: Phases,
}

/// The report of a program.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the network.
    pub network: String,
    /// Ring width in bits.
    pub ring: u8,
    /// Layers in order.
    pub layers: Vec<LayerRow>,
    /// Sums.
    pub totals: Totals,
    /// Seconds, where a network was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
}

fn phase_totals(t: &LayerTraffic, phase: Phase) -> PhaseTotals {
    let bytes = t.bytes[phase.index()];
    let of = |r: Role| bytes[r.index()];
    PhaseTotals {
        messages: t.messages[phase.index()],
        rounds: t.rounds[phase.index()],
        bytes: PartyBytes { client: of(Role::Client), server: of(Role::Server), dealer: of(Role::Dealer) },
    }
}

impl Report {
    /// Reads the report off a verified program.
    pub fn new(program: &Program) -> Result<Report, Stuck> {
        let t = traffic(program)?;
        let row = |(l, t): (&bcc_ir::program::Layer, &LayerTraffic)| LayerRow {
            name: l.name.clone(),
            op: l.op.clone(),
            shape: l.shape.clone(),
            frac: l.frac,
            modulus: l.modulus,
            drelus: l.drelus,
            setup_bytes: t.phase_bytes(Phase::Setup),
            offline_bytes: t.phase_bytes(Phase::Offline),
            online_bytes: t.phase_bytes(Phase::Online),
            rounds: t.rounds[Phase::Online.index()],
            setup_rounds: t.rounds[Phase::Setup.index()],
            offline_rounds: t.rounds[Phase::Offline.index()],
        };
        let totals = Totals {
            drelus: program.layers.iter().map(|l| l.drelus).sum(),
            setup_bytes: t.total.phase_bytes(Phase::Setup),
            offline_bytes: t.total.phase_bytes(Phase::Offline),
            online_bytes: t.total.phase_bytes(Phase::Online),
            rounds: t.total.rounds[Phase::Online.index()],
            phases: Phases {
                setup: phase_totals(&t.total, Phase::Setup),
                offline: phase_totals(&t.total, Phase::Offline),
                online: phase_totals(&t.total, Phase::Online),
            },
        };
        Ok(Report {
            network: program.name.clone(),
            ring: program.ring,
            layers: program.layers.iter().zip(&t.layers).map(row).collect(),
            totals,
            predicted: None,
        })
    }

    /// The report as a table and lines of totals.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let head = ["layer", "op", "shape", "frac", "mod", "DReLUs", "setup B", "offline B", "online B", "rounds"];
        let seconds = self.predicted.as_ref().map(|p| &p.layers);
        table.set_header(head.into_iter().chain(seconds.map(|_| "online ms")));
        for (i, l) in self.layers.iter().enumerate() {
            let shape = l.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
            let numbers = [l.drelus, l.setup_bytes, l.offline_bytes, l.online_bytes, l.rounds];
            let numbers = numbers.map(|n| if n == 0 { "-".to_string() } else { grouped(n) });
            let mut row = vec![l.name.clone(), l.op.clone(), shape, l.frac.to_string(), l.modulus.to_string()];
            row.extend(numbers);
            row.extend(seconds.and_then(|s| s.get(i)).map(|s| format!("{:.3}", 1e3 * s.online)));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let t = &self.totals;
        let mut text = format!("{}, ring of {} bits\n{table}\n\n", self.network, self.ring);
        text += &format!("DReLUs {}\n", grouped(t.drelus));
        for (name, p) in [("setup", &t.phases.setup), ("offline", &t.phases.offline), ("online", &t.phases.online)] {
            let b = &p.bytes;
            text += &format!(
                "{name:8} {:>15} B in {} messages, {} rounds (client {}, server {}, dealer {})\n",
                grouped(b.client + b.server + b.dealer),
                p.messages,
                p.rounds,
                grouped(b.client),
                grouped(b.server),
                grouped(b.dealer)
            );
        }
        if let Some(p) = &self.predicted {
            text += &p.text();
        }
        text
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// On what the bounds of a quantized graph rest.
#[derive(Clone, Debug, Serialize)]
pub struct BoundsSummary {
    /// Bounds that follow from the weights and the input's declared range.
    pub proven: usize,
    /// Bounds that follow from observed ones.
    pub derived: usize,
    /// Nodes whose bound is what calibration showed times a margin, in order.
    pub observed: Vec<ObservedBound>,
}

/// A bound that rests on calibration.
#[derive(Clone, Debug, Serialize)]
pub struct ObservedBound {
    /// Node.
    pub node: String,
    /// `|x| <= bound`, or for `sum` the magnitude of a block sum.
    pub bound: f64,
    /// Factor over the largest magnitude seen.
    pub margin: f64,
    /// Whether it bounds block sums.
    pub block_sum: bool,
}

/// Sorts the bounds of a graph by evidence.
pub fn bounds(graph: &Graph) -> BoundsSummary {
    let mut summary = BoundsSummary { proven: 0, derived: 0, observed: Vec::new() };
    for id in graph.topo() {
        let node = graph.node(id);
        let Some(r) = node.range else { continue };
        let sum = r.block_sum.into_iter().map(|(b, e)| (b, e, true));
        for (bound, evidence, block_sum) in std::iter::once((r.bound, r.evidence, false)).chain(sum) {
            match evidence {
                Evidence::Proven => summary.proven += 1,
                Evidence::Derived => summary.derived += 1,
                Evidence::Observed { margin } => {
                    summary.observed.push(ObservedBound { node: node.name.clone(), bound, margin, block_sum });
                }
            }
        }
    }
    summary
}
