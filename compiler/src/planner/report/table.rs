//! Plans and sweeps as tables for terminals.

use comfy_table::{CellAlignment, Table, presets};

use super::super::Tried;
use super::super::price::Costs;
use super::super::summary::{PlanSummary, SweepRow};
use super::text::{accuracy, count, of, percent, seconds, significant};
use crate::report::grouped;

/// A table whose columns from `numbers` on are numbers.
fn plain(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>, numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// ` (38.1 % of 4,400)`, or nothing where there is nothing to compare with.
fn compared(part: u64, whole: u64) -> String {
    of(part, whole).map(|s| format!(" ({} of {})", percent(s), grouped(whole))).unwrap_or_default()
}

fn cost_lines(c: &Costs, kept: &Costs) -> String {
    let both = |c: &Costs| (seconds(c.offline_seconds), seconds(c.online_seconds));
    let (now, before) = (both(c), both(kept));
    let mut text = format!("DReLUs      {}{}\n", grouped(c.drelus), compared(c.drelus, kept.drelus));
    for (name, n, whole) in [
        ("setup", c.setup_bytes, kept.setup_bytes),
        ("offline", c.offline_bytes, kept.offline_bytes),
        ("online", c.online_bytes, kept.online_bytes),
    ] {
        text += &format!("{name:11} {} B{}\n", grouped(n), compared(n, whole));
    }
    text += &format!("rounds      {} ({} with every ReLU)\n", grouped(c.rounds), grouped(kept.rounds));
    text += &format!("ring        {} bits ({} with every ReLU)\n", c.ring, kept.ring);
    text +=
        &format!("predicted   {} offline, {} online ({} and {} with every ReLU)\n", now.0, now.1, before.0, before.1);
    text
}

/// Whether a candidate is the one that was taken. By bits: a distortion that is no number is one too.
pub(super) fn is_taken(tried: &Tried, best: &Tried) -> bool {
    tried.how == best.how && tried.measured.to_bits() == best.measured.to_bits()
}

/// The plan by layer, what it costs and does, and which others were tried.
pub fn table(summary: &PlanSummary) -> String {
    let head = [
        "layer",
        "channels",
        "map",
        "1x1",
        "larger",
        "identity",
        "zero",
        "DReLUs",
        "kept",
        "offline B",
        "online B",
        "rounds",
        "loss",
    ];
    let rows = summary.layers.iter().map(|l| {
        let mut row = vec![l.name.clone(), grouped(l.channels as u64), format!("{}x{}", l.map[0], l.map[1])];
        row.extend([l.relu, l.larger, l.identity, l.zero].map(|n| count(n as u64)));
        row.push(count(l.drelus));
        row.push(of(l.drelus, l.drelus_kept).map_or("-".into(), percent));
        row.extend([l.offline_bytes, l.online_bytes, l.rounds].map(count));
        row.push(if l.loss == 0.0 { "-".into() } else { significant(l.loss) });
        row
    });
    let mut text = format!("{}\n{}\n\n", summary.network, plain(&head, rows, 1));
    if !summary.budgets.is_empty() {
        text += &format!("budget      {}\n", summary.budgets.join(" and "));
    }
    text += &cost_lines(&summary.costs, &summary.kept);
    let best = &summary.best;
    text += &format!(
        "distortion  predicted {}, measured {} (mean squared error of an output element; a loss is known to {})\n",
        significant(best.predicted),
        significant(best.measured),
        percent(summary.loss_error)
    );
    text += &format!("solver gap  {}\n", percent(best.gap));
    if let Some(a) = &summary.accuracy {
        text += &format!(
            "accuracy    {} on {} images (original {})\n",
            accuracy(a.plan),
            grouped(a.images as u64),
            accuracy(a.original)
        );
    }
    for limit in &summary.limits {
        text += &format!("{limit}\n");
    }
    if !summary.tried.is_empty() {
        let rows = summary.tried.iter().map(|t| {
            let mut row = vec![t.how.clone()];
            row.extend([t.predicted, t.measured, t.uncorrected].map(significant));
            row.push(percent(t.gap));
            row.push(if is_taken(t, best) { "taken".into() } else { String::new() });
            row
        });
        let head = ["candidate", "predicted", "measured", "uncorrected", "gap", ""];
        text += &format!("\n{}\n", plain(&head, rows, 1));
    }
    text
}

/// A sweep: one line for each budget and variant.
pub fn sweep_table(rows: &[SweepRow]) -> String {
    let optional = |x: Option<String>| x.unwrap_or_else(|| "-".into());
    let head = [
        "budget",
        "variant",
        "DReLUs",
        "share",
        "offline B",
        "online B",
        "rounds",
        "offline",
        "online",
        "predicted",
        "measured",
        "accuracy",
    ];
    let rows = rows.iter().map(|r| {
        let c = &r.costs;
        vec![
            r.budget.clone(),
            r.variant.clone(),
            grouped(c.drelus),
            percent(c.share),
            grouped(c.offline_bytes),
            grouped(c.online_bytes),
            grouped(c.rounds),
            seconds(c.offline_seconds),
            seconds(c.online_seconds),
            optional(r.predicted.map(significant)),
            significant(r.measured),
            optional(r.accuracy.map(accuracy)),
        ]
    });
    format!("{}\n", plain(&head, rows, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::report::testing::{empty, resnet20, row, sweep};

    #[test]
    fn a_plan_is_shown_with_all_its_numbers() {
        let text = table(&resnet20());
        assert_eq!(text.lines().filter(|l| l.contains("Relu")).count(), 19, "{text}");
        for part in ["budget      6%", "DReLUs ", "solver gap", "accuracy ", "refined 2", "taken", "used of"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.is_ascii());
        assert_eq!(text.matches("taken").count(), 1);
    }

    #[test]
    fn empty_and_odd_inputs_have_tables() {
        assert!(table(&empty()).contains("DReLUs"));
        assert_eq!(sweep_table(&[]).lines().count(), 1);
        assert!(sweep_table(&[row("6%", "plan", f64::NAN, f64::INFINITY)]).contains("inf"));
        assert_eq!(sweep_table(&sweep()).lines().count(), 1 + sweep().len());
    }
}
