//! One page that shows a plan: no scripts, no fonts, nothing to fetch.

use super::super::summary::{PlanSummary, SweepRow};
use super::table::is_taken;
use super::text::{accuracy, breakable, bytes, count, escape, of, percent, seconds, significant};
use super::{bars, chart, heat};
use crate::report::grouped;

const STYLE: &str = include_str!("page.css");

/// A key figure: what, value, and what to compare it with.
fn tile(what: &str, value: &str, beside: &str) -> String {
    format!(
        "<div class=\"tile\"><span>{}</span><strong>{}</strong><span>{}</span></div>\n",
        escape(what),
        escape(value),
        escape(beside)
    )
}

fn tiles(s: &PlanSummary) -> String {
    let (c, kept) = (&s.costs, &s.kept);
    let share = |part: u64, whole: u64| of(part, whole).map_or("-".into(), percent);
    let mut out = String::from("<div class=\"tiles\">\n");
    out += &tile(
        "sign decisions",
        &share(c.drelus, kept.drelus),
        &format!("{} of {}", grouped(c.drelus), grouped(kept.drelus)),
    );
    for (what, now, whole) in
        [("bytes offline", c.offline_bytes, kept.offline_bytes), ("bytes online", c.online_bytes, kept.online_bytes)]
    {
        out += &tile(what, &bytes(now), &format!("{} of {}", share(now, whole), bytes(whole)));
    }
    out += &tile("rounds online", &grouped(c.rounds), &format!("{} with every ReLU", grouped(kept.rounds)));
    for (what, now, whole) in [
        ("predicted time offline", c.offline_seconds, kept.offline_seconds),
        ("predicted time online", c.online_seconds, kept.online_seconds),
    ] {
        out += &tile(what, &seconds(now), &format!("{} with every ReLU", seconds(whole)));
    }
    let predicted = format!("predicted {}", significant(s.best.predicted));
    out += &tile("measured distortion", &significant(s.best.measured), &predicted);
    if let Some(a) = &s.accuracy {
        let beside = format!("original {}, {} images", accuracy(a.original), grouped(a.images as u64));
        out += &tile("accuracy", &accuracy(a.plan), &beside);
    }
    out + "</div>\n"
}

/// A table; `texts` first columns are not numbers. Cells are markup already.
fn table(head: &[&str], texts: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let class = |i: usize| if i < texts { "" } else { " class=\"n\"" };
    let line = |tag: &str, cells: &[String]| -> String {
        let cells = cells.iter().enumerate().map(|(i, c)| format!("<{tag}{}>{c}</{tag}>", class(i)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let head: Vec<String> = head.iter().map(|h| escape(h)).collect();
    let body: String = rows.map(|r| line("td", &r)).collect();
    format!("<div class=\"scroll\"><table><thead>{}</thead><tbody>\n{body}</tbody></table></div>\n", line("th", &head))
}

fn candidates(s: &PlanSummary) -> String {
    if s.tried.is_empty() {
        return String::new();
    }
    let rows = s.tried.iter().map(|t| {
        let taken = if is_taken(t, &s.best) { " <b class=\"taken\">taken</b>" } else { "" };
        let mut row = vec![format!("{}{taken}", escape(&t.how))];
        row.extend([t.predicted, t.measured, t.uncorrected].map(significant));
        row.push(percent(t.gap));
        row
    });
    format!(
        "<section><h2>Candidates</h2>\n<p>Distortion is the mean squared error of an output element. The gap is what the \
         solver leaves open between its choice and the best one; a predicted loss is known to {} (median of its standard \
         error over images).</p>\n{}</section>\n",
        percent(s.loss_error),
        table(&["candidate", "predicted", "measured", "without correction", "gap"], 1, rows)
    )
}

fn swept(rows: &[SweepRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let optional = |x: Option<String>| x.unwrap_or_else(|| "-".into());
    let lines = rows.iter().map(|r| {
        let c = &r.costs;
        vec![
            escape(&r.budget),
            escape(&r.variant),
            grouped(c.drelus),
            percent(c.share),
            bytes(c.offline_bytes),
            bytes(c.online_bytes),
            grouped(c.rounds),
            optional(r.predicted.map(significant)),
            significant(r.measured),
            optional(r.accuracy.map(accuracy)),
        ]
    });
    let head = [
        "budget",
        "variant",
        "sign decisions",
        "share",
        "offline",
        "online",
        "rounds",
        "predicted",
        "measured",
        "accuracy",
    ];
    format!(
        "<section><h2>Budgets compared</h2>\n<div class=\"charts\">\n{}</div>\n<details><summary>The numbers</summary>\n\
         {}</details></section>\n",
        chart::panels(rows).concat(),
        table(&head, 2, lines)
    )
}

fn layers(s: &PlanSummary) -> String {
    let head = [
        "layer",
        "map",
        "channels",
        "1x1",
        "larger",
        "identity",
        "zero",
        "sign decisions",
        "kept",
        "offline B",
        "online B",
        "rounds",
        "loss",
    ];
    let rows = s.layers.iter().map(|l| {
        let mut row = vec![breakable(&l.name), format!("{}x{}", l.map[0], l.map[1]), grouped(l.channels as u64)];
        row.extend([l.relu, l.larger, l.identity, l.zero].map(|n| count(n as u64)));
        row.push(count(l.drelus));
        row.push(of(l.drelus, l.drelus_kept).map_or("-".into(), percent));
        row.extend([l.offline_bytes, l.online_bytes, l.rounds].map(count));
        row.push(significant(l.loss));
        row
    });
    format!("<section><h2>Layers in numbers</h2>\n{}</section>\n", table(&head, 2, rows))
}

/// The plan and, where there are rows, a sweep as one HTML page.
pub fn page(summary: &PlanSummary, rows: &[SweepRow]) -> String {
    let network = escape(&summary.network);
    let budgets = match summary.budgets.is_empty() {
        true => String::new(),
        false => format!("<p class=\"budget\">Budget: {}</p>\n", escape(&summary.budgets.join(" and "))),
    };
    let limits: String = summary.limits.iter().map(|l| format!("<li>{}</li>\n", escape(l))).collect();
    let limits = if limits.is_empty() { limits } else { format!("<ul class=\"limits\">\n{limits}</ul>\n") };
    let curve = chart::STYLE;
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>Plan of {network}</title>\n<style>\n{curve}{STYLE}</style></head>\n<body><main>\n<header><h1>{network}</h1>\n\
         {budgets}</header>\n{}{limits}{}{}{}{}{}</main></body></html>\n",
        tiles(summary),
        heat::section(summary),
        bars::section(summary),
        swept(rows),
        candidates(summary),
        layers(summary)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::report::testing::{assert_well_formed, empty, resnet50, row, sweep};

    #[test]
    fn a_page_is_whole_and_the_same_every_time() {
        let html = page(&resnet50(), &sweep());
        assert_well_formed(&html);
        assert_eq!(html, page(&resnet50(), &sweep()));
        assert_eq!(html.matches("class=\"raw\"").count(), 49);
        assert!(html.len() < 4 << 20, "{} bytes", html.len());
        // Nothing is fetched, nothing runs.
        assert!(
            !html.contains("<script") && !html.contains("<link") && !html.contains("url(") && !html.contains("src=")
        );
    }

    #[test]
    fn names_stay_text() {
        let mut plan = resnet50();
        let bad = "</title><script>alert('1')</script>&\"";
        plan.network = bad.into();
        plan.layers[0].name = bad.into();
        plan.layers[0].blocks[0] = bad.into();
        plan.tried[0].how = bad.into();
        plan.limits.push(bad.into());
        plan.budgets.push(bad.into());
        let html = page(&plan, &[row(bad, bad, 0.5, 0.1)]);
        assert_well_formed(&html);
        assert!(!html.contains("<script"));
    }

    #[test]
    fn empty_plans_and_odd_rows_have_pages() {
        assert_well_formed(&page(&empty(), &[]));
        assert_well_formed(&page(&empty(), &[row("", "", f64::NAN, f64::NEG_INFINITY)]));
    }
}
