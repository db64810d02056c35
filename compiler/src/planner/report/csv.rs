//! Sweeps as CSV.

use super::super::summary::SweepRow;

/// Columns, in order. Names stay as they are: scripts read them.
const HEADER: &str = "budget,variant,drelus,share,setup_bytes,offline_bytes,online_bytes,rounds,offline_seconds,\
                      online_seconds,predicted,measured,accuracy";

/// A field as RFC 4180 has it.
fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.into() }
}

/// Seven significant digits: more than a measurement on images is worth, and the same everywhere.
fn number(x: f64) -> String {
    if x == 0.0 { "0".into() } else { format!("{x:.6e}") }
}

/// The rows of a sweep, with a header; what was not measured is empty. Lines end in CRLF.
pub fn csv(rows: &[SweepRow]) -> String {
    let mut out = format!("{HEADER}\r\n");
    for row in rows {
        let c = &row.costs;
        let fields = [
            quoted(&row.budget),
            quoted(&row.variant),
            c.drelus.to_string(),
            format!("{:.6}", c.share),
            c.setup_bytes.to_string(),
            c.offline_bytes.to_string(),
            c.online_bytes.to_string(),
            c.rounds.to_string(),
            format!("{:.6}", c.offline_seconds),
            format!("{:.6}", c.online_seconds),
            row.predicted.map(number).unwrap_or_default(),
            number(row.measured),
            row.accuracy.map(|a| format!("{a:.6}")).unwrap_or_default(),
        ];
        out += &fields.join(",");
        out += "\r\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::report::testing::row;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let mut r = row("6%, 40MB \"online\"", "plan", 0.06, f64::NAN);
        r.predicted = Some(1.0 / 3.0);
        let text = csv(&[r, row("6%", "uniform", 0.06, 0.5)]);
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("budget,variant,drelus,share,") && lines[0].ends_with(",accuracy"));
        assert!(lines[1].starts_with("\"6%, 40MB \"\"online\"\"\",plan,"), "{}", lines[1]);
        assert!(lines[1].ends_with(",3.333333e-1,NaN,"), "{}", lines[1]);
        assert!(lines[2].ends_with(",,5.000000e-1,"), "{}", lines[2]);
        assert_eq!(lines[2].split(',').count(), HEADER.split(',').count());
        assert_eq!(csv(&[]), format!("{HEADER}\r\n"));
    }
}
