//! `bcc plan`: blocks under a budget, and sweeps over budgets.

use std::fs;
use std::path::{Path, PathBuf};

use bcc_compiler::compile::CompileOptions;
use bcc_compiler::data::Labelled;
use bcc_compiler::float::Executor;
use bcc_compiler::passes::correct::Correction;
use bcc_compiler::plan::{Plan, PlanError};
use bcc_compiler::planner::budget::Budget;
use bcc_compiler::planner::menu::Menu;
use bcc_compiler::planner::pins::Pins;
use bcc_compiler::planner::report::{csv, curve, page, sweep_table, table};
use bcc_compiler::planner::store::Store;
use bcc_compiler::planner::summary::{Accuracy, PlanSummary, SweepRow};
use bcc_compiler::planner::target::Targets;
use bcc_compiler::planner::{Cap, Method, Outcome, Planner, Settings};
use bcc_ir::graph::Graph;
use miette::{IntoDiagnostic, Result, WrapErr, bail};

use super::args::{PlanArgs, SearchArgs, TimeArgs};
use super::progress::Bar;
use super::{say, say_json};

/// Reads budgets.
pub(super) fn budgets(texts: &[String]) -> Result<Vec<Budget>> {
    texts.iter().map(|t| t.parse::<Budget>().into_diagnostic().wrap_err("--budget")).collect()
}

/// Reads a correction or `none`.
pub(super) fn correction(text: &str) -> Result<Option<Correction>> {
    match text {
        "none" => Ok(None),
        word => word.parse().map(Some).into_diagnostic().wrap_err("--correct"),
    }
}

fn settings(search: &SearchArgs, time: &TimeArgs, correct: Option<Correction>, graph: &Graph) -> Result<Settings> {
    let (rates, network) = time.read("loopback")?;
    let menu: Menu = search.menu.parse().into_diagnostic()?;
    if search.probes == 0 {
        bail!("--probes 0: the fast distortion needs at least one probe per image");
    }
    let method = if search.distortion == "exact" { Method::Exact } else { Method::Fast };
    let mut caps: Vec<Cap> = search.cap.iter().map(|c| cap(c, graph)).collect::<Result<_>>()?;
    caps.extend(search.max_rounds.map(Cap::Rounds));
    Ok(Settings {
        menu,
        method,
        probes: search.probes,
        seed: search.seed,
        refine: search.refine,
        correct,
        optimal: search.optimal,
        caps,
        rates,
        network,
    })
}

/// `LAYER=20%` or `LAYER=500 drelu`.
fn cap(text: &str, graph: &Graph) -> Result<Cap> {
    let Some((layer, budget)) = text.rsplit_once('=') else {
        bail!("--cap \"{text}\": write LAYER=BUDGET, such as relu1=20% or relu1=500 drelu")
    };
    let layer = layer.trim().to_string();
    let drelus = match budget.parse::<Budget>().into_diagnostic().wrap_err("--cap")? {
        Budget::Drelus(n) => n,
        Budget::Share(s) => {
            let len = graph.find(&layer).map_or(0, |id| graph.node(id).len());
            (s * len as f64) as u64
        }
        _ => bail!("--cap \"{text}\": a layer is limited by a share of its sign decisions or their number"),
    };
    Ok(Cap::Layer { layer, drelus })
}

fn pins(search: &SearchArgs, graph: &Graph, targets: &Targets) -> Result<Pins, PlanError> {
    let mut pins = match &search.pins {
        Some(path) => Pins::of(graph, targets, &Plan::load(path)?)?,
        None => Pins::none(targets),
    };
    for text in &search.pin {
        pins.add(graph, targets, text)?;
    }
    Ok(pins)
}

fn planner<'a>(
    graph: &'a Graph,
    options: &CompileOptions,
    search: &SearchArgs,
    settings: Settings,
    bar: &'a Bar,
) -> Result<Planner<'a>> {
    let store = search.resume.as_deref().map(Store::open).transpose().into_diagnostic()?;
    Planner::new(graph, options, settings, &|g, t| pins(search, g, t), store, bar).into_diagnostic()
}

/// A plan under budgets, and what it is in numbers.
pub(super) fn planned(
    graph: &Graph,
    options: &CompileOptions,
    search: &SearchArgs,
    time: &TimeArgs,
    correct: Option<Correction>,
    budgets: &[Budget],
) -> Result<(Outcome, PlanSummary)> {
    let bar = Bar::new();
    let mut planner = planner(graph, options, search, settings(search, time, correct, graph)?, &bar)?;
    let outcome = planner.plan(budgets).into_diagnostic()?;
    let summary = summarized(&mut planner, &outcome, budgets, None)?;
    bar.clear();
    Ok((outcome, summary))
}

fn summarized(
    planner: &mut Planner<'_>,
    outcome: &Outcome,
    budgets: &[Budget],
    accuracy: Option<Accuracy>,
) -> Result<PlanSummary> {
    let budgets = budgets.iter().map(ToString::to_string).collect();
    planner.summary(outcome, budgets, accuracy).into_diagnostic()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).into_diagnostic().wrap_err_with(|| format!("cannot write {}", path.display()))
}

/// The variants that a sweep can compare: name, refinement, correction.
const VARIANTS: [&str; 4] = ["uniform", "plan", "refine", "correct"];

pub(super) fn plan(args: &PlanArgs) -> Result<()> {
    let budgets = budgets(&args.budget)?;
    let correct = correction(&args.correct)?;
    if let Some(v) = args.variants.iter().find(|v| !VARIANTS.contains(&v.as_str())) {
        bail!("--variants {v}: there are {}", VARIANTS.join(", "));
    }
    let sweep = args.sweep.iter().map(|t| t.parse::<Budget>().into_diagnostic().wrap_err("--sweep"));
    let sweep: Vec<Budget> = sweep.collect::<Result<_>>()?;
    args.model.check_preprocess(args.eval.as_deref())?;
    let (graph, options) = args.model.load()?;
    let shape = graph.input().map(|i| graph.node(i).shape.clone()).unwrap_or_default();
    let labelled = |path: &PathBuf| args.model.source(path, None).load(&shape).and_then(|d| d.classes(path));
    let labelled = args.eval.as_ref().map(labelled).transpose().into_diagnostic()?;
    if args.sweep.is_empty() {
        single(args, &graph, &options, correct, &budgets, labelled.as_ref())
    } else {
        swept(args, &graph, &options, correct, &sweep, labelled.as_ref())
    }
}

fn single(
    args: &PlanArgs,
    graph: &Graph,
    options: &CompileOptions,
    correct: Option<Correction>,
    budgets: &[Budget],
    labelled: Option<&Labelled>,
) -> Result<()> {
    let bar = Bar::new();
    let settings = settings(&args.search, &args.time, correct, graph)?;
    let mut planner = planner(graph, options, &args.search, settings, &bar)?;
    let outcome = planner.plan(budgets).into_diagnostic()?;
    let accuracy = labelled.map(|data| accuracy(&planner, &outcome, data));
    let summary = summarized(&mut planner, &outcome, budgets, accuracy)?;
    bar.clear();
    write(&args.output, &outcome.plan.to_ron().into_diagnostic()?)?;
    if let Some(path) = &args.html {
        write(path, &page(&summary, &[]))?;
    }
    if args.json {
        return say_json(&summary);
    }
    say(&(table(&summary) + &format!("\nwrote {}\n", args.output.display())))
}

/// Accuracy of a plan's network and of the original one.
fn accuracy(planner: &Planner<'_>, outcome: &Outcome, data: &Labelled) -> Accuracy {
    let original = planner.original();
    Accuracy {
        images: data.images.len(),
        plan: data.accuracy(&Executor::new(&outcome.network)),
        original: data.accuracy(&Executor::new(&original)),
    }
}

fn swept(
    args: &PlanArgs,
    graph: &Graph,
    options: &CompileOptions,
    correct: Option<Correction>,
    sweep: &[Budget],
    labelled: Option<&Labelled>,
) -> Result<()> {
    let bar = Bar::new();
    let mut rows = Vec::new();
    let mut last = None;
    let mut at_hand: Option<(Option<Correction>, Planner<'_>)> = None;
    for variant in &args.variants {
        let used = if variant == "correct" { correct } else { None };
        // Variants with the same correction share the losses that their first plans come from.
        let mut planner = match at_hand.take() {
            Some((same, planner)) if same == used => planner,
            _ => {
                let settings = settings(&args.search, &args.time, used, graph)?;
                planner(graph, options, &args.search, settings, &bar)?
            }
        };
        planner.set_refine(if matches!(variant.as_str(), "plan" | "uniform") { 0 } else { args.search.refine });
        for (budget, text) in sweep.iter().zip(&args.sweep) {
            let uniform = variant == "uniform";
            let outcome = if uniform { planner.uniform(&[*budget]) } else { planner.plan(&[*budget]) };
            let outcome = outcome.into_diagnostic().wrap_err_with(|| format!("{variant} at {text}"))?;
            let accuracy = labelled.map(|data| data.accuracy(&Executor::new(&outcome.network)));
            rows.push(SweepRow {
                budget: text.trim().to_string(),
                variant: variant.clone(),
                costs: outcome.costs.clone(),
                predicted: Some(outcome.best.predicted).filter(|p| p.is_finite()),
                measured: outcome.best.measured,
                accuracy,
            });
            if args.html.is_some() {
                last = Some(summarized(&mut planner, &outcome, &[*budget], None)?);
            }
        }
        at_hand = Some((used, planner));
    }
    bar.clear();
    if let Some(path) = &args.csv {
        write(path, &csv(&rows))?;
    }
    if let Some(path) = &args.svg {
        write(path, &curve(&rows))?;
    }
    if let (Some(path), Some(summary)) = (&args.html, &last) {
        write(path, &page(summary, &rows))?;
    }
    if args.json {
        return say_json(&rows);
    }
    say(&sweep_table(&rows))
}
