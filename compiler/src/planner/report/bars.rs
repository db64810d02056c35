//! Layers side by side: kinds of channels, loss, bytes.

use super::super::summary::{LayerSummary, PlanSummary};
use super::text::{breakable, bytes, escape, significant};

/// Width of a part in percent, 0 for what is no share.
fn width(part: f64, most: f64) -> f64 {
    let share = 100.0 * part / most;
    if share.is_finite() { share.clamp(0.0, 100.0) } else { 0.0 }
}

/// A bar of parts: class, size and title of each.
fn bar(parts: &[(&str, f64, String)], most: f64) -> String {
    let mut out = String::from("<div class=\"bar\">");
    for (class, size, title) in parts {
        let w = width(*size, most);
        if w > 0.0 {
            out += &format!("<i class=\"{class}\" style=\"width:{w:.3}%\" title=\"{}\"></i>", escape(title));
        }
    }
    out + "</div>"
}

fn row(l: &LayerSummary, most_loss: f64, most_bytes: f64) -> String {
    let kinds =
        [("s", l.relu, "1x1"), ("p3", l.larger, "larger"), ("i", l.identity, "identity"), ("z", l.zero, "zero")];
    let kinds = kinds.map(|(class, n, what)| (class, n as f64, format!("{n} of {} channels: {what}", l.channels)));
    let sent = [("off", l.offline_bytes, "offline"), ("on", l.online_bytes, "online")];
    let sent = sent.map(|(class, n, what)| (class, n as f64, format!("{} {what}", bytes(n))));
    format!(
        "<div class=\"layer\"><div class=\"name\">{}</div><div class=\"kinds\">{}</div>\
         <div class=\"measure\">{}<span>{}</span></div><div class=\"measure\">{}<span>{}</span></div></div>\n",
        breakable(&l.name),
        bar(&kinds, l.channels as f64),
        bar(&[("loss", l.loss, significant(l.loss))], most_loss),
        significant(l.loss),
        bar(&sent, most_bytes),
        bytes(l.offline_bytes.saturating_add(l.online_bytes))
    )
}

/// The section of the page.
pub(super) fn section(summary: &PlanSummary) -> String {
    let most = |f: fn(&LayerSummary) -> f64| summary.layers.iter().map(f).filter(|x| x.is_finite()).fold(0.0, f64::max);
    let most_loss = most(|l| l.loss);
    let most_bytes = most(|l| l.offline_bytes as f64 + l.online_bytes as f64);
    let rows: String = summary.layers.iter().map(|l| row(l, most_loss, most_bytes)).collect();
    let keys = |keys: &[(&str, &str)]| -> String {
        keys.iter().map(|(class, text)| format!("<span class=\"key\"><i class=\"{class}\"></i>{text}</span>")).collect()
    };
    format!(
        "<section><h2>Layers</h2>\n<div class=\"bars\">\n<div class=\"layer heads\"><div class=\"name\"></div>\
         <div><b>Channels</b> {}</div><div><b>Loss</b> {}</div><div><b>Bytes</b> {}</div></div>\n{rows}</div></section>\n",
        keys(&[("s", "1x1"), ("p3", "larger"), ("i", "identity"), ("z", "zero")]),
        keys(&[("loss", "predicted, in the output")]),
        keys(&[("off", "offline"), ("on", "online")])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::report::testing::{assert_well_formed, empty, resnet20};

    #[test]
    fn bars_are_no_wider_than_their_column() {
        for (part, most, w) in [(1.0, 2.0, 50.0), (3.0, 2.0, 100.0), (-1.0, 2.0, 0.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0)]
        {
            assert_eq!(width(part, most), w);
        }
        assert_eq!(width(f64::NAN, 1.0), 0.0);
        let mut plan = resnet20();
        plan.layers[3].loss = f64::NAN;
        plan.layers[4].loss = f64::INFINITY;
        let html = section(&plan);
        assert_well_formed(&html);
        assert!(!html.contains("NaN%") && !html.contains("inf%"));
        assert_well_formed(&section(&empty()));
    }
}
