//! The map of shapes: a row per layer, a cell per channel, coloured by its block.

use super::super::summary::{LayerSummary, PlanSummary};
use super::text::{breakable, escape};
use crate::report::grouped;

/// Colours between 1x1 and the whole map.
const STEPS: usize = 6;

/// What colours a cell. The order is that of sorted rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    /// A patch by its area, as cut to the map, and its rows.
    Patch {
        area: usize,
        rows: usize,
    },
    Identity,
    Zero,
    /// Nothing that this page knows.
    Other,
}

impl Shape {
    fn of(block: &str, [h, w]: [usize; 2]) -> Shape {
        let patch = || {
            let (rows, columns) = block.split_once('x')?;
            let (rows, columns): (usize, usize) = (rows.parse().ok()?, columns.parse().ok()?);
            let rows = rows.min(h.max(1));
            Some(Shape::Patch { area: rows.checked_mul(columns.min(w.max(1)))?, rows })
        };
        match block {
            "identity" => Shape::Identity,
            "zero" => Shape::Zero,
            _ => patch().unwrap_or(Shape::Other),
        }
    }

    /// Class of its colour: `s` for 1x1, `p0` to `p5` by the logarithm of the area, `w` for the whole map.
    fn class(self, [h, w]: [usize; 2]) -> String {
        let whole = h.saturating_mul(w);
        match self {
            Shape::Patch { area, .. } if area <= 1 => "s".into(),
            Shape::Patch { area, .. } if area >= whole => "w".into(),
            Shape::Patch { area, .. } => {
                let t = (area as f64).ln() / (whole as f64).ln();
                format!("p{}", ((t * STEPS as f64) as usize).min(STEPS - 1))
            }
            Shape::Identity => "i".into(),
            Shape::Zero => "z".into(),
            Shape::Other => "o".into(),
        }
    }
}

/// Neighbouring channels with the same block.
#[derive(Debug, PartialEq, Eq)]
struct Run<'a> {
    first: usize,
    count: usize,
    block: &'a str,
}

fn runs<'a>(blocks: impl Iterator<Item = &'a str>) -> Vec<Run<'a>> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    for (channel, block) in blocks.enumerate() {
        match runs.last_mut() {
            Some(run) if run.block == block => run.count += 1,
            _ => runs.push(Run { first: channel, count: 1, block }),
        }
    }
    runs
}

/// A strip as wide as the page gives it, one unit a channel.
fn strip(class: &str, runs: &[Run<'_>], map: [usize; 2], title: impl Fn(&Run<'_>) -> String) -> String {
    let width: usize = runs.iter().map(|r| r.count).sum();
    let mut out = format!("<svg class=\"{class}\" viewBox=\"0 0 {} 1\" preserveAspectRatio=\"none\">", width.max(1));
    for run in runs {
        out += &format!(
            "<rect class=\"{}\" x=\"{}\" width=\"{}\" height=\"1\"><title>{}</title></rect>",
            Shape::of(run.block, map).class(map),
            run.first,
            run.count,
            escape(&title(run))
        );
    }
    out + "</svg>"
}

fn row(layer: &LayerSummary) -> String {
    let map = layer.map;
    let in_order = runs(layer.blocks.iter().map(String::as_str));
    let mut sorted: Vec<&str> = layer.blocks.iter().map(String::as_str).collect();
    sorted.sort_by_key(|b| (Shape::of(b, map), *b));
    let sorted = runs(sorted.into_iter());
    let channels = |r: &Run<'_>| match r.count {
        1 => format!("channel {}: {}", r.first, r.block),
        n => format!("channels {} to {}: {}", r.first, r.first + n - 1, r.block),
    };
    let counts = |r: &Run<'_>| format!("{} of {} channels: {}", grouped(r.count as u64), layer.channels, r.block);
    format!(
        "<div class=\"layer\"><div class=\"name\">{}</div><div class=\"of\">{} &#215; {}&#215;{}</div>\
         <div class=\"strips\">{}{}</div></div>\n",
        breakable(&layer.name),
        grouped(layer.channels as u64),
        map[0],
        map[1],
        strip("raw", &in_order, map, channels),
        strip("sorted", &sorted, map, counts)
    )
}

fn legend() -> String {
    let swatch = |class: &str, text: &str| format!("<span class=\"key\"><i class=\"{class}\"></i>{text}</span>");
    let ramp: String = (0..STEPS).map(|i| format!("<i class=\"p{i}\"></i>")).collect();
    format!(
        "<p class=\"legend\">{}<span class=\"key ramp\">{ramp}larger blocks, by area</span>{}{}{}</p>\n",
        swatch("s", "1x1, every ReLU"),
        swatch("w", "whole map"),
        swatch("i", "identity"),
        swatch("z", "zero")
    )
}

/// The section of the page.
pub(super) fn section(summary: &PlanSummary) -> String {
    let rows: String = summary.layers.iter().map(row).collect();
    format!(
        "<section><h2>Shapes</h2>\n<p>Every channel of every layer, coloured by the area of its block relative to its map. \
         Point at a cell for its channel, counted from 0, and block.</p>\n<input type=\"checkbox\" id=\"by-block\" \
         checked=\"checked\"/> <label for=\"by-block\">below each row, the same channels sorted by block</label>\n{}\
         <div class=\"heat\">\n{rows}</div></section>\n",
        legend()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::report::testing::{assert_well_formed, empty, resnet50};

    #[test]
    fn merged_cells_add_up_to_the_channels() {
        for layer in &resnet50().layers {
            let runs = runs(layer.blocks.iter().map(String::as_str));
            assert_eq!(runs.iter().map(|r| r.count).sum::<usize>(), layer.channels);
            assert!(runs.windows(2).all(|r| r[0].first + r[0].count == r[1].first && r[0].block != r[1].block));
            let html = row(layer);
            assert_well_formed(&html);
            let widths = |part: &str| -> usize {
                part.split(" width=\"").skip(1).filter_map(|w| w.split('"').next()?.parse::<usize>().ok()).sum()
            };
            let strips: Vec<&str> = html.split("<svg").skip(1).collect();
            assert_eq!(strips.len(), 2);
            assert!(strips.iter().all(|s| widths(s) == layer.channels));
            assert!(strips.iter().all(|s| s.contains(&format!("viewBox=\"0 0 {} 1\"", layer.channels))));
        }
    }

    #[test]
    fn colours_follow_the_area_in_the_map() {
        let class = |b: &str, map| Shape::of(b, map).class(map);
        let map = [28, 28];
        assert_eq!(
            ["1x1", "1x2", "4x4", "28x27", "28x28", "99x99"].map(|b| class(b, map)),
            ["s", "p0", "p2", "p5", "w", "w"]
        );
        assert_eq!(["identity", "zero", "what", "x", "2x", ""].map(|b| class(b, map)), ["i", "z", "o", "o", "o", "o"]);
        assert_eq!([[1, 1], [0, 0]].map(|m| class("1x1", m)), ["s", "s"]);
        assert!(Shape::of("1x1", map) < Shape::of("2x2", map) && Shape::of("28x28", map) < Shape::Identity);
    }

    #[test]
    fn a_plan_without_layers_has_a_section() {
        assert_well_formed(&section(&empty()));
        assert!(runs(std::iter::empty()).is_empty());
    }
}
