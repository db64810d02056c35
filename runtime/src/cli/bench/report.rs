//! What was measured, for people and as JSON.

use bcc_ir::program::traffic::{Stuck, batch_traffic};
use bcc_ir::program::{Phase, Program, Role};
use bcc_ir::time::{Network, Rates, predict_batch};
use bcc_runtime::stats::{PhaseStats, Stats};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::traffic::{Difference, Traffic, difference};
use crate::cli::profile::Profile;

/// What one session left.
pub struct Session {
    pub stats: Stats,
    /// By role.
    pub profiles: [Profile; 3],
}

/// Of all runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut v: Vec<f64> = values.into_iter().collect();
        v.sort_by(f64::total_cmp);
        let at = |i: usize| v.get(i).copied().unwrap_or(0.0);
        let last = v.len().saturating_sub(1);
        Spread { median: (at(last / 2) + at(v.len() / 2)) / 2.0, min: at(0), max: at(last) }
    }
}

/// One of each for every party.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parties<T> {
    client: T,
    server: T,
    dealer: T,
}

impl<T> Parties<T> {
    fn of(each: impl Fn(Role) -> T) -> Self {
        Parties { client: each(Role::Client), server: each(Role::Server), dealer: each(Role::Dealer) }
    }

    fn get(&self, role: Role) -> &T {
        match role {
            Role::Client => &self.client,
            Role::Server => &self.server,
            Role::Dealer => &self.dealer,
        }
    }
}

/// What the model of time says.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Predicted {
    seconds: f64,
    /// Of predicted to measured, the median.
    ratio: f64,
}

impl Predicted {
    fn new(seconds: f64, measured: Spread) -> Predicted {
        Predicted { seconds, ratio: if measured.median > 0.0 { seconds / measured.median } else { 0.0 } }
    }
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    seconds: Spread,
    predicted: Predicted,
    measured: Traffic,
    /// What the program says of itself.
    program: Traffic,
    /// Seconds of computing.
    busy: Parties<Spread>,
}

/// Both phases of a batch together.
#[derive(Clone, Debug, Serialize)]
pub struct TotalReport {
    seconds: Spread,
    predicted: Predicted,
}

/// Seconds of a session, for each of its inferences.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PerImage {
    offline: Spread,
    online: Spread,
    total: Spread,
}

/// Median seconds of computing for a layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    name: String,
    op: String,
    offline: Parties<f64>,
    online: Parties<f64>,
}

impl LayerReport {
    fn total(&self) -> f64 {
        Role::ALL.into_iter().map(|r| self.offline.get(r) + self.online.get(r)).sum()
    }
}

/// The JSON form; `docs/performance.md` says what each name means.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub runs: usize,
    /// Inferences of a session, in lockstep.
    pub batch: u16,
    pub input: Option<String>,
    pub kernels: String,
    pub network: Network,
    /// Of the first session; none if there was a setup already.
    pub setup: Option<PhaseReport>,
    pub offline: PhaseReport,
    pub online: PhaseReport,
    pub total: TotalReport,
    pub per_image: PerImage,
    /// Offline and online.
    pub images_per_second: Spread,
    pub peak_bytes: Parties<Option<Spread>>,
    pub layers: Vec<LayerReport>,
    #[serde(skip)]
    difference: Option<Difference>,
}

fn stats(s: &Session, phase: Phase) -> &PhaseStats {
    match phase {
        Phase::Setup => &s.stats.phases.setup,
        Phase::Offline => &s.stats.phases.offline,
        Phase::Online => &s.stats.phases.online,
    }
}

fn busy(s: &Session, role: Role, phase: Phase) -> &[f64] {
    &s.profiles[role.index()].busy[phase.index()]
}

impl Report {
    /// Of a `first` session that made the setup, unless it was there, and those after it.
    pub fn new(
        program: &Program,
        rates: &Rates,
        network: Network,
        batch: u16,
        first: Session,
        sessions: &[Session],
    ) -> Result<Report, Stuck> {
        let own = batch_traffic(program, batch)?.total;
        let prediction = predict_batch(program, rates, &network, batch)?;
        let mut different = None;
        let mut phase = |phase: Phase, sessions: &[Session]| {
            let program = Traffic::program(&own, phase);
            let of = |s: &Session| Traffic::measured(stats(s, phase));
            let found = difference(phase, program, sessions.iter().map(of)).err();
            different = different.or(found);
            let seconds = Spread::of(sessions.iter().map(|s| stats(s, phase).seconds));
            PhaseReport {
                seconds,
                predicted: Predicted::new(prediction.phase(phase).path.total(), seconds),
                measured: found.map_or(program, |d| d.measured),
                program,
                busy: Parties::of(|r| Spread::of(sessions.iter().map(|s| busy(s, r, phase).iter().sum()))),
            }
        };
        let made = Traffic::measured(&first.stats.phases.setup).total() > 0;
        let setup = made.then(|| phase(Phase::Setup, &[first]));
        let (offline, online) = (phase(Phase::Offline, sessions), phase(Phase::Online, sessions));
        let both = |s: &Session| s.stats.phases.offline.seconds + s.stats.phases.online.seconds;
        let seconds = Spread::of(sessions.iter().map(both));
        let images = f64::from(batch);
        let each = |s: Spread| Spread { median: s.median / images, min: s.min / images, max: s.max / images };
        let per_image = PerImage { offline: each(offline.seconds), online: each(online.seconds), total: each(seconds) };
        let predicted = Predicted::new(offline.predicted.seconds + online.predicted.seconds, seconds);
        let layer = |(i, l): (usize, &bcc_ir::program::Layer)| {
            let median = |r: Role, p: Phase| {
                Spread::of(sessions.iter().map(|s| busy(s, r, p).get(i).copied().unwrap_or(0.0))).median
            };
            LayerReport {
                name: l.name.clone(),
                op: l.op.clone(),
                offline: Parties::of(|r| median(r, Phase::Offline)),
                online: Parties::of(|r| median(r, Phase::Online)),
            }
        };
        let peak = |r: Role| {
            let all: Option<Vec<u64>> = sessions.iter().map(|s| s.profiles[r.index()].peak_bytes).collect();
            all.map(|v| Spread::of(v.into_iter().map(|b| b as f64)))
        };
        Ok(Report {
            runs: sessions.len(),
            batch,
            input: None,
            kernels: String::new(),
            network,
            setup,
            offline,
            online,
            total: TotalReport { seconds, predicted },
            per_image,
            images_per_second: Spread::of(sessions.iter().map(|s| images / both(s))),
            peak_bytes: Parties::of(peak),
            layers: program.layers.iter().enumerate().map(layer).collect(),
            difference: different,
        })
    }

    /// Where rounds or bytes are not the program's.
    pub fn difference(&self) -> Option<Difference> {
        self.difference
    }

    /// Tables, the last one of the `most` layers that take most time.
    pub fn text(&self, most: usize) -> String {
        let n = &self.network;
        let input = self.input.as_deref().unwrap_or("pseudo-random numbers");
        let runs = match self.batch {
            1 => format!("{} runs", self.runs),
            many => format!("{} runs of {many} inferences in lockstep", self.runs),
        };
        let mut text = format!("medians of {runs} on {input}, {}, {} kernels\n", n.name, self.kernels);
        text += &(self.phases().to_string() + "\n" + &self.images() + "\n" + &self.parties().to_string() + "\n");
        if most > 0 {
            text += &(self.by_layer(most).to_string() + "\n");
        }
        text
    }

    fn phases(&self) -> Table {
        let head = ["phase", "seconds", "min", "max", "predicted", "ratio", "rounds", "MB"];
        let mut t = table(&head.map(String::from));
        let times = |s: &Spread, p: &Predicted| {
            let seconds = [s.median, s.min, s.max, p.seconds].map(|v| format!("{v:.4}"));
            [&seconds[..], &[format!("{:.2}", p.ratio)]].concat()
        };
        let phases = [("setup", self.setup.as_ref()), ("offline", Some(&self.offline)), ("online", Some(&self.online))];
        for (name, p) in phases.into_iter().filter_map(|(name, p)| p.map(|p| (name, p))) {
            let traffic = [p.measured.rounds().to_string(), megabytes(p.measured.total() as f64)];
            t.add_row([&[name.to_string()], &times(&p.seconds, &p.predicted)[..], &traffic].concat());
        }
        let total = times(&self.total.seconds, &self.total.predicted);
        t.add_row([&["offline + online".to_string()], &total[..], &[String::new(), String::new()]].concat());
        t
    }

    fn images(&self) -> String {
        let PerImage { offline, online, total } = &self.per_image;
        format!(
            "an image: {:.4} s offline, {:.4} s online, {:.4} s in all; {:.2} images a second",
            offline.median, online.median, total.median, self.images_per_second.median
        )
    }

    fn parties(&self) -> Table {
        let head = ["party", "busy offline, s", "busy online, s", "MB offline", "MB online", "peak, MB"];
        let mut t = table(&head.map(String::from));
        for role in Role::ALL {
            let sent = |p: &PhaseReport| megabytes(p.measured.sent(role) as f64);
            let busy = |p: &PhaseReport| format!("{:.4}", p.busy.get(role).median);
            let peak = self.peak_bytes.get(role).map_or("unknown".into(), |s| format!("{:.0}", s.median / 1e6));
            let (f, n) = (&self.offline, &self.online);
            t.add_row([role.to_string(), busy(f), busy(n), sent(f), sent(n), peak]);
        }
        t
    }

    fn by_layer(&self, most: usize) -> Table {
        let mut head = vec!["ms of computing".to_string(), "operator".into()];
        for phase in ["offline", "online"] {
            head.extend(Role::ALL.map(|role| format!("{phase}, {role}")));
        }
        head.push("sum".into());
        let mut t = table(&head);
        t.column_mut(1).into_iter().for_each(|c| c.set_cell_alignment(CellAlignment::Left));
        let mut layers: Vec<&LayerReport> = self.layers.iter().collect();
        layers.sort_by(|a, b| b.total().total_cmp(&a.total()));
        for l in layers.into_iter().take(most) {
            let mut row = vec![l.name.clone(), l.op.clone()];
            for parties in [&l.offline, &l.online] {
                row.extend(Role::ALL.map(|role| format!("{:.2}", 1e3 * parties.get(role))));
            }
            row.push(format!("{:.2}", 1e3 * l.total()));
            t.add_row(row);
        }
        t
    }
}

fn megabytes(bytes: f64) -> String {
    format!("{:.3}", bytes / 1e6)
}

/// Numbers to the right, names to the left.
fn table(head: &[String]) -> Table {
    let mut t = Table::new();
    t.load_style(presets::NOTHING);
    t.set_header(head);
    t.column_iter_mut().skip(1).for_each(|c| c.set_cell_alignment(CellAlignment::Right));
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let s = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(s, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of([]), Spread { median: 0.0, min: 0.0, max: 0.0 });
    }
}
