//! Tables, pages and curves of plans.
use super::summary::{PlanSummary, SweepRow};
pub fn table(s: &PlanSummary) -> String { serde_json::to_string_pretty(s).unwrap_or_default() }
pub fn sweep_table(r: &[SweepRow]) -> String {
    r.iter().map(|r| format!("{} {} drelus {} ({:.4}) off {} on {} rounds {} ring {} t {:.3} {:.3} predicted {:?} measured {:.4} acc {:?}\n", r.budget, r.variant, r.costs.drelus, r.costs.share, r.costs.offline_bytes, r.costs.online_bytes, r.costs.rounds, r.costs.ring, r.costs.offline_seconds, r.costs.online_seconds, r.predicted, r.measured, r.accuracy)).collect()
}
pub fn csv(_: &[SweepRow]) -> String { String::new() }
pub fn curve(_: &[SweepRow]) -> String { String::new() }
pub fn page(_: &PlanSummary, _: &[SweepRow]) -> String { String::new() }
