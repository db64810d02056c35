//! Numbers and names as text.

use crate::report::grouped;

/// A number, or `-` for 0.
pub fn count(n: u64) -> String {
    if n == 0 { "-".into() } else { grouped(n) }
}

/// Text as it may stand in elements and attributes of HTML and SVG. Control characters, which XML
/// cannot say at all, become `U+FFFD`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// An escaped name that may break after each `/`.
pub fn breakable(name: &str) -> String {
    let mut out = String::new();
    for (i, part) in name.split('/').enumerate() {
        if i > 0 {
            out.push('/');
            // A break right after a leading slash would leave it alone on its line.
            out.push_str(if i > 1 || !name.starts_with('/') { "<wbr/>" } else { "" });
        }
        out.push_str(&escape(part));
    }
    out
}

/// Three significant digits.
pub fn significant(x: f64) -> String {
    let size = x.abs();
    if !x.is_finite() || x == 0.0 {
        return if x == 0.0 { "0".into() } else { x.to_string() };
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{x:.2e}");
    }
    let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
    format!("{x:.decimals$}")
}

/// A share in percent, with more decimals for smaller ones.
pub fn percent(share: f64) -> String {
    let x = 100.0 * share;
    if !x.is_finite() {
        return x.to_string();
    }
    let decimals = match x.abs() {
        s if s >= 99.95 || s == 0.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 1.0 => 2,
        s if s >= 0.1 => 3,
        _ => return format!("{} %", significant(x)),
    };
    format!("{x:.decimals$} %")
}

/// A share of right answers: two decimals always, as such numbers are compared.
pub fn accuracy(share: f64) -> String {
    let x = 100.0 * share;
    if x.is_finite() { format!("{x:.2} %") } else { x.to_string() }
}

/// Bytes with three significant digits in the largest unit.
pub fn bytes(n: u64) -> String {
    let x = n as f64;
    match n {
        0..1_000 => format!("{n} B"),
        1_000..999_500 => format!("{} kB", significant(x / 1e3)),
        999_500..999_500_000 => format!("{} MB", significant(x / 1e6)),
        _ => format!("{} GB", significant(x / 1e9)),
    }
}

/// Seconds, milliseconds below one.
pub fn seconds(s: f64) -> String {
    if s.is_finite() && s != 0.0 && s < 1.0 {
        format!("{} ms", significant(s * 1e3))
    } else {
        format!("{} s", significant(s))
    }
}

/// `part` as a share of `whole`; `None` where there is no whole.
pub fn of(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_fixed_forms() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        for (x, text) in [
            (0.0, "0"),
            (1234.5, "1234"),
            (12.345, "12.3"),
            (0.0012345, "0.00123"),
            (0.00012345, "1.23e-4"),
            (-3.0, "-3.00"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(significant(x), text);
        }
        let shares = [0.0, 1.3e-7, 0.0005, 0.0601, 0.5, 1.0, f64::NAN].map(percent);
        assert_eq!(shares, ["0 %", "1.30e-5 %", "0.0500 %", "6.01 %", "50.0 %", "100 %", "NaN"]);
        assert_eq!([999, 4_400_000, 999_499_999, u64::MAX].map(bytes), ["999 B", "4.40 MB", "999 MB", "1.84e10 GB"]);
        assert_eq!([0.0, 0.0271, 1.5].map(seconds), ["0 s", "27.1 ms", "1.50 s"]);
    }

    #[test]
    fn names_cannot_break_out_of_markup() {
        assert_eq!(escape("<a href=\"x\">&'\u{1}"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\u{fffd}");
        assert_eq!(breakable("/a/<b>/c"), "/a/<wbr/>&lt;b&gt;/<wbr/>c");
        assert_eq!(breakable("a/b"), "a/<wbr/>b");
        assert_eq!(breakable(""), "");
    }
}
