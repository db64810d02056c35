//! Samples and checks for the tests of reports.

use crate::planner::Tried;
use crate::planner::price::Costs;
use crate::planner::summary::{Accuracy, LayerSummary, PlanSummary, SweepRow};

/// A small generator of numbers in `0..1`: samples look the same everywhere.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Costs at a share of a million sign decisions.
pub fn costs(share: f64) -> Costs {
    let scaled = |most: f64| (share * most) as u64;
    Costs {
        drelus: scaled(1e6),
        share,
        program_drelus: scaled(1e6),
        setup_bytes: 1_100_000,
        offline_bytes: 1_200_000 + scaled(30e6),
        online_bytes: 300_000 + scaled(9e6),
        rounds: 80,
        ring: 32,
        offline_seconds: 0.004 + 0.15 * share,
        online_seconds: 0.006 + 0.09 * share,
    }
}

/// A row of a sweep.
pub fn row(budget: &str, variant: &str, share: f64, measured: f64) -> SweepRow {
    SweepRow {
        budget: budget.into(),
        variant: variant.into(),
        costs: costs(share),
        predicted: None,
        measured,
        accuracy: None,
    }
}

/// A plan of nothing.
pub fn empty() -> PlanSummary {
    let best = Tried { how: String::new(), predicted: f64::NAN, measured: f64::NAN, uncorrected: 0.0, gap: 0.0 };
    PlanSummary {
        network: String::new(),
        budgets: Vec::new(),
        costs: costs(0.0),
        kept: costs(0.0),
        best,
        loss_error: f64::INFINITY,
        tried: Vec::new(),
        layers: Vec::new(),
        limits: Vec::new(),
        accuracy: None,
    }
}

/// Blocks like those of a plan: larger ones in wide maps, some channels that pass or vanish.
fn layer(name: String, channels: usize, side: usize, noise: &mut Noise) -> LayerSummary {
    let blocks: Vec<[usize; 2]> = (0..channels)
        .map(|_| match noise.next() {
            x if x < 0.16 => [0, 0],
            x if x < 0.22 => [0, 1],
            x if x < 0.25 => [1, 1],
            _ => {
                let mut edge = || ((side as f64).powf(0.33 + 0.8 * noise.next()) as usize).clamp(1, side);
                [edge(), edge()]
            }
        })
        .collect();
    let count = |f: &dyn Fn(&[usize; 2]) -> bool| blocks.iter().filter(|b| f(b)).count();
    let signs = |b: &[usize; 2]| if b[0] == 0 { 0 } else { (side.div_ceil(b[0]) * side.div_ceil(b[1])) as u64 };
    let drelus: u64 = blocks.iter().map(signs).sum();
    let text = |b: &[usize; 2]| match b {
        [0, 0] => "identity".to_string(),
        [0, _] => "zero".to_string(),
        [h, w] => format!("{h}x{w}"),
    };
    LayerSummary {
        name,
        channels,
        map: [side, side],
        identity: count(&|b| *b == [0, 0]),
        zero: count(&|b| *b == [0, 1]),
        relu: count(&|b| *b == [1, 1]),
        larger: count(&|b| b[0] * b[1] > 1),
        drelus_kept: (channels * side * side) as u64,
        drelus,
        offline_bytes: 900 + drelus * 30,
        online_bytes: 200 + drelus * 9,
        rounds: 4,
        loss: 2e-3 * noise.next().powi(3),
        blocks: blocks.iter().map(text).collect(),
    }
}

fn plan(network: &str, budgets: &[&str], shapes: Vec<(String, usize, usize)>) -> PlanSummary {
    let mut noise = Noise(7);
    let layers: Vec<LayerSummary> = shapes.into_iter().map(|(n, c, s)| layer(n, c, s, &mut noise)).collect();
    let sum = |f: fn(&LayerSummary) -> u64| layers.iter().map(f).sum::<u64>();
    let (drelus, all) = (sum(|l| l.drelus), sum(|l| l.drelus_kept));
    let mut now = costs(drelus as f64 / all as f64);
    let mut kept = costs(1.0);
    (now.drelus, kept.drelus) = (drelus, all);
    (now.offline_bytes, kept.offline_bytes) = (sum(|l| l.offline_bytes) + 400_000, all * 31 + 400_000);
    (now.online_bytes, kept.online_bytes) = (sum(|l| l.online_bytes) + 90_000, all * 9 + 90_000);
    (now.rounds, kept.rounds) = (4 * layers.len() as u64, 4 * layers.len() as u64 + 4);
    let tried = |how: &str, predicted, measured, uncorrected| Tried {
        how: how.into(),
        predicted,
        measured,
        uncorrected,
        gap: 1.3e-5,
    };
    let tried = vec![
        tried("one shot", 0.0198, 0.0412, 0.0731),
        tried("refined 1", 0.0172, 0.0263, 0.0511),
        tried("refined 2", 0.0169, 0.0187, 0.0402),
        tried("refined 3", 0.0171, 0.0201, 0.0399),
    ];
    PlanSummary {
        network: network.into(),
        budgets: budgets.iter().map(ToString::to_string).collect(),
        costs: now,
        kept,
        best: tried[2].clone(),
        loss_error: 0.043,
        tried,
        layers,
        limits: vec![format!(
            "6%: {drelus} sign decisions used of {} sign decisions; the cheapest choice of blocks takes 0 sign decisions",
            (all as f64 * 0.06) as u64
        )],
        accuracy: Some(Accuracy { images: 512, plan: 0.912, original: 0.9297 }),
    }
}

/// A plan like one of the bundled ResNet-20.
pub fn resnet20() -> PlanSummary {
    let shape = |i: usize| match i {
        0..7 => (16, 28),
        7..13 => (32, 14),
        _ => (64, 7),
    };
    let shapes = (0..19).map(|i| (format!("/{}/Relu", i + 2), shape(i).0, shape(i).1)).collect();
    plan("fmnist_resnet20", &["6%"], shapes)
}

/// A plan like one of a ResNet-50 on images of 224x224, with the long names of its exporter.
pub fn resnet50() -> PlanSummary {
    let mut shapes = vec![("/relu/Relu".to_string(), 64, 112)];
    for (stage, (blocks, side)) in [(3, 56), (4, 28), (6, 14), (3, 7)].into_iter().enumerate() {
        for block in 0..blocks {
            for (i, wide) in [1, 1, 4].into_iter().enumerate() {
                let suffix = if i == 0 { String::new() } else { format!("_{i}") };
                let name = format!("/layer{0}/layer{0}.{block}/relu{suffix}/Relu", stage + 1);
                // The first convolution of a stage is before its stride.
                let side = if stage > 0 && block == 0 && i == 0 { 2 * side } else { side };
                shapes.push((name, (64 << stage) * wide, side));
            }
        }
    }
    plan("resnet50 <v1.5> & \"friends\"", &["6%", "40MB online"], shapes)
}

/// A sweep of two variants, with uniform blocks beside.
pub fn sweep() -> Vec<SweepRow> {
    let mut rows = Vec::new();
    for (k, share) in [0.01, 0.02, 0.04, 0.06, 0.12, 0.25, 0.5, 1.0].into_iter().enumerate() {
        for (v, (variant, base)) in
            [("uniform", 1.6), ("plan", 0.5), ("refine", 0.3), ("correct", 0.17)].into_iter().enumerate()
        {
            let measured = if share == 1.0 { 0.0 } else { base * 0.4f64.powi(k as i32) };
            let mut r = row(&format!("{}%", 100.0 * share), variant, share * (1.0 - 0.02 * v as f64), measured);
            r.predicted = (v > 0).then_some(0.8 * measured);
            r.accuracy = Some(0.93 - 0.6 * (1.0 - (-measured).exp()));
            rows.push(r);
        }
    }
    rows
}

/// Every tag is closed in its order, attributes are quoted, ampersands begin an entity.
pub fn assert_well_formed(text: &str) {
    let text = text.strip_prefix("<!DOCTYPE html>").unwrap_or(text);
    let mut open: Vec<&str> = Vec::new();
    let mut pieces = text.split('<');
    let outside = pieces.next().unwrap_or("");
    assert!(outside.trim().is_empty(), "text before the first element: {outside}");
    for piece in pieces {
        let Some((tag, after)) = piece.split_once('>') else { unreachable!("no end: <{piece}") };
        assert!(!after.contains('>'), "a bare > after <{tag}>: {after}");
        for entity in after.split('&').skip(1).chain(tag.split('&').skip(1)) {
            assert!(entity.split_once(';').is_some_and(|(name, _)| name.len() < 8), "a bare &: {entity}");
        }
        assert!(tag.matches('"').count().is_multiple_of(2), "quotes of <{tag}>");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another element");
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap_or(""));
        }
        assert!(!open.is_empty() || after.trim().is_empty(), "text after the last element: {after}");
    }
    assert!(open.is_empty(), "left open: {open:?}");
}
