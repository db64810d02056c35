//! An evaluation for people.

use comfy_table::{CellAlignment, Table, presets};

use super::{Accuracy, Evaluation, LayerErrors};

impl Evaluation {
    /// Scores, agreement, and the errors by layer.
    pub fn table(&self) -> String {
        let mut text = format!("{}, {} images\n", self.network, self.images);
        if let Some([h, w]) = self.labels_resized_from {
            text += &format!("label maps, of {h}x{w} pixels and others, are compared in the output's size\n");
        }
        let mut rows: Vec<(&str, usize, Option<&Accuracy>)> = vec![
            ("float", self.images, self.plain.as_ref()),
            ("float, with the plan", self.images, self.planned.as_ref()),
        ];
        if let Some(s) = &self.secure {
            if s.images < self.images {
                rows.push(("the same, on the secure images", s.images, s.planned.as_ref()));
            }
            rows.push(("secure", s.images, s.accuracy.as_ref()));
        }
        text += &format!("{}\n", scores(&rows));
        text += &format!("the plan keeps the class of {}\n", percent(self.plan_agreement));
        if let Some(s) = &self.secure {
            if s.refused > 0 {
                let why = s.refusal.as_deref().unwrap_or_default();
                text += &format!("{} images are refused by the client: {why}\n", s.refused);
            }
            if s.images > 0 {
                text += &format!(
                    "secure: the class of the float network with the plan for {}; output error {} at most, {} in the \
                     mean, in a range of {}\n",
                    percent(s.agreement),
                    short(s.error.largest),
                    short(s.error.mean),
                    short(s.error.range)
                );
                text += &format!(
                    "rounding the input as the client does: in floats the class stays for {}, and the output moves by {} \
                     at most, {} in the mean\n",
                    percent(s.rounding.agreement),
                    short(s.rounding.error.largest),
                    short(s.rounding.error.mean)
                );
            }
        }
        if let Some(l) = &self.layers {
            text += &layers(l);
        }
        text
    }
}

fn scores(rows: &[(&str, usize, Option<&Accuracy>)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    type Column = (&'static str, fn(&Accuracy) -> Option<f64>);
    let all: [Column; 4] =
        [("top-1", |a| a.top1), ("top-5", |a| a.top5), ("mIoU", |a| a.miou), ("pixels", |a| a.pixel_accuracy)];
    let used: Vec<&Column> = all.iter().filter(|(_, of)| rows.iter().any(|r| r.2.and_then(of).is_some())).collect();
    table.set_header(["network", "images", "labelled"].into_iter().chain(used.iter().map(|(name, _)| *name)));
    for (name, images, accuracy) in rows {
        let labelled = accuracy.map_or(0, |a| a.labelled);
        let mut row = vec![(*name).to_string(), images.to_string(), labelled.to_string()];
        row.extend(used.iter().map(|(_, of)| accuracy.and_then(of).map_or("-".into(), percent)));
        table.add_row(row);
    }
    right(&mut table, 1);
    table
}

fn layers(errors: &LayerErrors) -> String {
    let mut text = format!("\nfixed point against floats with the plan, on {} images\n", errors.images);
    if let Some(first) = &errors.overflow {
        text += &format!(
            "on {} images a value leaves its compiled range, and the secure result is wrong: {first}; a larger \
             --margin is safer\n",
            errors.overflows
        );
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["layer", "op", "range", "largest", "mean", "largest/range", "mean/range", "growth"]);
    for l in &errors.layers {
        let numbers = [l.range, l.largest, l.mean, l.relative_largest, l.relative_mean, l.growth].map(short);
        table.add_row([l.name.clone(), l.op.clone()].into_iter().chain(numbers));
    }
    right(&mut table, 2);
    text += &format!("{table}\n");
    if let Some(name) = &errors.grows_at {
        text += &format!("the error grows most at \"{name}\"\n");
    }
    text
}

fn right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Three digits.
fn short(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        1e-2..1e4 => {
            let digits = (2.0 - x.abs().log10().floor()).max(0.0) as usize;
            format!("{x:.digits$}")
        }
        _ => format!("{x:.2e}"),
    }
}
