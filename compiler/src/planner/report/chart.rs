//! The sweep as curves: what a budget does to the output and to accuracy.

use super::super::summary::SweepRow;
use super::scale::{Kind, Scale};
use super::text::{accuracy, bytes, escape, percent, significant};
use crate::report::grouped;

/// Colours and strokes of curves, for SVG files and the page alike.
pub(super) const STYLE: &str = include_str!("chart.css");

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const BOTTOM: f64 = 48.0;
/// Legend entries in a line, and how many letters of a name they show.
const ENTRIES: usize = 4;
const LETTERS: usize = 12;
/// Colours, strokes and marks before they repeat.
const STYLES: usize = 6;

/// What an axis shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    Share,
    Bytes,
    Distortion,
    Accuracy,
}

impl Axis {
    fn label(self) -> &'static str {
        match self {
            Axis::Share => "sign decisions, share of every ReLU kept",
            Axis::Bytes => "bytes per inference, offline and online",
            Axis::Distortion => "mean squared error of an output element",
            Axis::Accuracy => "accuracy on labelled images",
        }
    }

    fn of(self, row: &SweepRow) -> Option<f64> {
        match self {
            Axis::Share => Some(row.costs.share),
            Axis::Bytes => Some(row.costs.offline_bytes.saturating_add(row.costs.online_bytes) as f64),
            Axis::Distortion => Some(row.measured),
            Axis::Accuracy => row.accuracy,
        }
    }

    fn kind(self) -> Kind {
        if self == Axis::Accuracy { Kind::Linear } else { Kind::Log }
    }

    fn tick(self, x: f64) -> String {
        // Trailing zeros of round numbers say nothing.
        let short = |text: String| -> String {
            let (number, unit) = text.split_once(' ').map_or((text.as_str(), ""), |(n, u)| (n, u));
            let number = match number.contains('.') && !number.contains('e') {
                true => number.trim_end_matches('0').trim_end_matches('.'),
                false => number,
            }
            .replace(".00e", "e");
            if unit.is_empty() { number } else { format!("{number} {unit}") }
        };
        match self {
            Axis::Share | Axis::Accuracy => short(percent(x)),
            Axis::Bytes => short(bytes(x as u64)),
            Axis::Distortion => short(significant(x)),
        }
    }
}

/// Variants in the order of their first rows.
fn variants(rows: &[SweepRow]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.variant.as_str()) {
            names.push(&row.variant);
        }
    }
    names
}

/// A mark around the origin; shapes tell variants apart where colours do not.
fn mark(style: usize) -> &'static str {
    match style % STYLES {
        0 => "<circle class=\"mark\" r=\"4.5\"/>",
        1 => "<path class=\"mark\" d=\"M-4-4h8v8h-8z\"/>",
        2 => "<path class=\"mark\" d=\"M0-5.5 5.5 0 0 5.5-5.5 0z\"/>",
        3 => "<path class=\"mark\" d=\"M0-5.2 5 4h-10z\"/>",
        4 => "<path class=\"mark\" d=\"M0 5.2 5-4h-10z\"/>",
        _ => "<path class=\"mark\" d=\"M-4.5-1.5h3v-3h3v3h3v3h-3v3h-3v-3h-3z\"/>",
    }
}

fn title(row: &SweepRow) -> String {
    let c = &row.costs;
    let mut text = format!(
        "{}, {}: {} sign decisions ({}), {} offline, {} online; distortion {}",
        row.variant,
        row.budget,
        grouped(c.drelus),
        percent(c.share),
        bytes(c.offline_bytes),
        bytes(c.online_bytes),
        significant(row.measured)
    );
    if let Some(p) = row.predicted {
        text += &format!(", predicted {}", significant(p));
    }
    if let Some(a) = row.accuracy {
        text += &format!("; accuracy {}", accuracy(a));
    }
    escape(&text)
}

fn legend(names: &[&str]) -> String {
    let mut out = String::new();
    for (i, name) in names.iter().enumerate() {
        let (x, y) = (LEFT + (i % ENTRIES) as f64 * 102.0, 36.0 + 18.0 * (i / ENTRIES) as f64);
        let mut short: String = name.chars().take(LETTERS).collect();
        if short.len() < name.len() {
            short.pop();
            short.push('\u{2026}');
        }
        out += &format!(
            "<g class=\"v{}\" transform=\"translate({x:.0} {y:.0})\"><title>{}</title><path class=\"line\" d=\"M-12 0h24\"/>\
             {}<text x=\"17\" y=\"4\">{}</text></g>",
            i % STYLES,
            escape(name),
            mark(i),
            escape(&short)
        );
    }
    out
}

/// One pair of axes with a curve for every variant, in a space of `WIDTH x HEIGHT`.
fn panel(rows: &[SweepRow], x: Axis, y: Axis) -> String {
    let names = variants(rows);
    let top = 30.0 + 18.0 * names.len().div_ceil(ENTRIES) as f64;
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let values = |axis: Axis| -> Vec<f64> { rows.iter().filter_map(|r| axis.of(r)).collect() };
    let across = Scale::new(x.kind(), &values(x), LEFT, right);
    let up = Scale::new(y.kind(), &values(y), bottom, top);
    let mut out = format!("<text class=\"head\" x=\"8\" y=\"16\">{}</text>", y.label());
    out += &legend(&names);
    for tick in up.ticks(7) {
        let Some(p) = up.at(tick) else { continue };
        out += &format!(
            "<path class=\"grid\" d=\"M{LEFT} {p:.1}H{right}\"/><text class=\"tick\" x=\"{:.0}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 7.0,
            p + 4.0,
            y.tick(tick)
        );
    }
    for tick in across.ticks(if x == Axis::Bytes { 6 } else { 7 }) {
        let Some(p) = across.at(tick) else { continue };
        out += &format!(
            "<path class=\"grid\" d=\"M{p:.1} {top}V{bottom}\"/><text class=\"tick\" x=\"{p:.1}\" y=\"{:.0}\" \
             text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            x.tick(tick)
        );
    }
    out += &format!("<path class=\"axis\" d=\"M{LEFT} {top}V{bottom}H{right}\"/>");
    // Two strokes across an axis: it jumps to 0 there.
    if let Some(p) = up.cut() {
        out += &format!("<path class=\"axis\" d=\"M{} {p:.1}l10-5m-10 9l10-5\"/>", LEFT - 5.0);
    }
    if let Some(p) = across.cut() {
        out += &format!("<path class=\"axis\" d=\"M{p:.1} {}l-5 10m9-10l-5 10\"/>", bottom - 5.0);
    }
    out += &format!(
        "<text class=\"tick\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 10.0,
        x.label()
    );
    for (i, name) in names.iter().enumerate() {
        out += &series(rows.iter().filter(|r| r.variant == **name), i, (x, &across), (y, &up));
    }
    out
}

fn series<'a>(
    rows: impl Iterator<Item = &'a SweepRow>,
    index: usize,
    (x, across): (Axis, &Scale),
    (y, up): (Axis, &Scale),
) -> String {
    let place = |r: &'a SweepRow| {
        let (a, b) = (x.of(r)?, y.of(r)?);
        // A line to a 0 that is beyond a cut of the axis would have a slope that means nothing.
        let joined = (x.kind() == Kind::Linear || a > 0.0) && (y.kind() == Kind::Linear || b > 0.0);
        Some((across.at(a)?, up.at(b)?, joined, r))
    };
    let mut points: Vec<(f64, f64, bool, &SweepRow)> = rows.filter_map(place).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut out = format!("<g class=\"v{}\">", index % STYLES);
    let line: Vec<String> = points.iter().filter(|p| p.2).map(|p| format!("{:.1} {:.1}", p.0, p.1)).collect();
    if line.len() > 1 {
        out += &format!("<path class=\"line\" d=\"M{}\"/>", line.join("L"));
    }
    for (a, b, _, row) in &points {
        // The large, invisible circle is what a pointer or a finger finds.
        out += &format!(
            "<g transform=\"translate({a:.1} {b:.1})\"><title>{}</title><circle class=\"hit\" r=\"11\"/>{}</g>",
            title(row),
            mark(index)
        );
    }
    out + "</g>"
}

/// Bodies of the panels that rows are worth: by share of sign decisions, and by bytes where a budget
/// is no share or number of sign decisions.
fn bodies(rows: &[SweepRow]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let other = rows.iter().any(|r| !(r.budget.contains('%') || r.budget.contains("drelu")));
    let judged = rows.iter().any(|r| r.accuracy.is_some());
    let mut panels = Vec::new();
    for x in [Axis::Share, Axis::Bytes].into_iter().take(1 + usize::from(other)) {
        panels.push(panel(rows, x, Axis::Distortion));
        if judged {
            panels.push(panel(rows, x, Axis::Accuracy));
        }
    }
    panels
}

fn svg(width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"curve\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"budgets compared\">{body}</svg>\n"
    )
}

/// One SVG for every panel, without styles.
pub(super) fn panels(rows: &[SweepRow]) -> Vec<String> {
    bodies(rows).iter().map(|body| svg(WIDTH, HEIGHT, body)).collect()
}

/// The sweep as an SVG file: distortion, and accuracy where it was measured, over the share of sign
/// decisions; over bytes as well where budgets limit other things. Points that are no numbers are
/// left out; points at 0 stand beyond a cut of the axis.
pub fn curve(rows: &[SweepRow]) -> String {
    let bodies = bodies(rows);
    let style = format!("<style>\n{STYLE}</style>");
    if bodies.is_empty() {
        let text = "<text class=\"head\" x=\"16\" y=\"30\">no rows</text>";
        return svg(WIDTH, 48.0, &format!("{style}{text}"));
    }
    let columns = if rows.iter().any(|r| r.accuracy.is_some()) { 2 } else { 1 };
    let mut body = style;
    for (i, panel) in bodies.iter().enumerate() {
        let (x, y) = ((i % columns) as f64 * WIDTH, (i / columns) as f64 * HEIGHT);
        body += &format!("\n<g transform=\"translate({x} {y})\">{panel}</g>");
    }
    svg(WIDTH * columns as f64, HEIGHT * bodies.len().div_ceil(columns) as f64, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::report::testing::{assert_well_formed, row, sweep};

    #[test]
    fn a_sweep_is_one_curve_for_each_variant_and_panel() {
        let rows = sweep();
        let svg = curve(&rows);
        assert_well_formed(&svg);
        assert_eq!(svg, curve(&rows));
        assert_eq!(svg.matches("class=\"hit\"").count(), 2 * rows.len());
        assert!(svg.contains("accuracy on labelled images") && !svg.contains("bytes per inference"));
    }

    #[test]
    fn other_budgets_are_drawn_over_bytes_too() {
        let rows = [row("40MB online", "plan", 0.06, 0.1), row("80MB", "plan", 0.12, 0.05)];
        let svg = curve(&rows);
        assert_well_formed(&svg);
        assert_eq!(svg.matches("class=\"hit\"").count(), 4);
        assert!(svg.contains("bytes per inference"));
    }

    #[test]
    fn odd_rows_do_no_harm() {
        let names: Vec<String> = (0..9).map(|i| format!("a <variant> & \"number\" {i}")).collect();
        let many: Vec<SweepRow> = names.iter().map(|n| row("6%", n, 0.06, 0.1)).collect();
        let sets: [Vec<SweepRow>; 6] = [
            vec![],
            vec![row("6%", "plan", 0.06, 0.1)],
            vec![row("6%", "plan", 0.06, 0.1), row("6%", "plan", 0.06, 0.1)],
            vec![row("x", "plan", f64::NAN, f64::NAN), row("", "", -1.0, f64::INFINITY)],
            vec![row("6%", "plan", 0.0, 0.0), row("100%", "plan", 1.0, 0.0)],
            many,
        ];
        for rows in sets {
            let svg = curve(&rows);
            assert_well_formed(&svg);
            assert!(!svg.contains("NaN\"") && !svg.contains("M-inf"), "{svg}");
        }
    }
}
