//! `bcc compile`.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;

use bcc_compiler::compile::{CompileOptions, Compiled, Observer, compile_graph};
use bcc_compiler::passes::{BlockChoice, PASSES, Pass};
use bcc_compiler::plan::{Plan, parse_block};
use bcc_compiler::planner::budget::Budget;
use bcc_compiler::planner::summary::PlanSummary;
use bcc_compiler::reference::{self, Owner};
use bcc_compiler::report::{BoundsSummary, Report, bounds, grouped};
use bcc_ir::graph::Graph;
use bcc_ir::program::file::save;
use indicatif::ProgressBar;
use miette::{IntoDiagnostic, Result, WrapErr, bail};

use super::args::CompileArgs;
use super::plan::{budgets, correction, planned};
use super::{say, say_json};

/// Prints and writes graphs on the way, and shows which pass is at work.
struct Watch<'a> {
    args: &'a CompileArgs,
    bar: ProgressBar,
    dumps: usize,
    failed: Option<miette::Report>,
}

impl Watch<'_> {
    fn dump(&mut self, name: &str, text: &str) {
        if let Some(dir) = &self.args.emit_ir_dir {
            let file = dir.join(format!("{:02}-{name}.txt", self.dumps));
            self.dumps += 1;
            if let Err(e) = fs::write(&file, text) {
                self.failed = Some(miette::miette!("cannot write {}: {e}", file.display()));
            }
        }
    }
}

impl Observer for Watch<'_> {
    fn begin(&mut self, pass: &Pass) {
        self.bar.set_message(format!("{}: {}", pass.name, pass.what));
    }

    fn end(&mut self, pass: Option<&Pass>, graph: &Graph) {
        let name = pass.map_or("import", |p| p.name);
        if self.args.print_after.iter().any(|p| p == name) {
            let text = format!("# after {name}\n{graph}\n");
            // With --json, standard output is for the machine.
            let print = || {
                if !self.args.json {
                    return say(&text);
                }
                eprint!("{text}");
                Ok(())
            };
            let said = self.bar.suspend(print);
            self.failed = self.failed.take().or(said.err());
        }
        if self.args.emit_ir_dir.is_some() {
            self.dump(name, &graph.to_string());
        }
    }
}

/// Sets blocks and correction among the options; a summary where a plan was chosen.
fn choose(args: &CompileArgs, graph: &Graph, options: &mut CompileOptions) -> Result<Option<PlanSummary>> {
    let asked = args.correct.as_deref().map(correction).transpose()?;
    let budgets = budgets(&args.budget)?;
    let keep = budgets.iter().all(|b| *b == Budget::Share(1.0)) && args.search.is_plain();
    if !budgets.is_empty() && !keep {
        let correct = asked.unwrap_or(Some(bcc_compiler::passes::correct::Correction::Weights));
        let (outcome, summary) = planned(graph, options, &args.search, &args.time, correct, &budgets)?;
        options.passes.blocks = BlockChoice::Plan(outcome.plan);
        (options.passes.correct, options.passes.corrected) = (correct, Some(outcome.network));
        return Ok(Some(summary));
    }
    options.passes.correct = asked.unwrap_or(None);
    if let Some(text) = &args.blocks {
        options.passes.blocks = BlockChoice::Uniform(parse_block(text).into_diagnostic().wrap_err("--blocks")?);
    } else if let Some(path) = &args.plan {
        let plan = Plan::load(path).into_diagnostic()?;
        options.passes.correct = asked.unwrap_or(plan.correct);
        note_clipped(&plan, graph);
        options.passes.blocks = BlockChoice::Plan(plan);
    }
    Ok(None)
}

/// Says which blocks of a plan are larger than their maps: they are those of larger images.
fn note_clipped(plan: &Plan, graph: &Graph) {
    let clipped = plan.clipped(graph);
    if let Some((layer, [h, w])) = clipped.first() {
        eprintln!(
            "bcc: the plan has blocks larger than their maps, which are cut off there, in {} layers; \"{layer}\" has maps \
             of {h}x{w}",
            clipped.len()
        );
    }
}

pub(super) fn compile(args: &CompileArgs) -> Result<()> {
    if let Some(p) = args.print_after.iter().find(|p| *p != "import" && !PASSES.iter().any(|q| q.name == **p)) {
        let names: Vec<&str> = PASSES.iter().map(|p| p.name).collect();
        bail!("--print-after {p}: there is no such pass; there are import, {}", names.join(", "));
    }
    budgets(&args.budget)?;
    args.model.check_preprocess(None)?;
    let (graph, mut options) = args.model.load()?;
    let planned = choose(args, &graph, &mut options)?;
    if let Some(dir) = &args.emit_ir_dir {
        make_directory(dir)?;
    }
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    let mut watch = Watch { args, bar, dumps: 0, failed: None };
    let imported = graph.clone();
    let compiled = compile_graph(graph, &options, &mut watch).into_diagnostic()?;
    watch.bar.set_message("write");
    watch.dump("program", &compiled.lowered.program.to_string());
    watch.bar.finish_and_clear();
    if let Some(e) = watch.failed {
        return Err(e);
    }
    write(&args.output, &imported, &compiled)?;
    summary(args, &compiled, planned.as_ref())
}

fn make_directory(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).into_diagnostic().wrap_err_with(|| format!("cannot create {}", dir.display()))
}

fn write(dir: &Path, imported: &Graph, compiled: &Compiled) -> Result<()> {
    make_directory(dir)?;
    let digest = save(dir, &compiled.lowered.program, &compiled.lowered.weights).into_diagnostic()?;
    let owner = Owner::of(&compiled.lowered.program, digest, &compiled.lowered.weights).into_diagnostic()?;
    reference::save(dir, owner, imported, &compiled.real, &compiled.graph).into_diagnostic()?;
    let plan = compiled.plan.to_ron().into_diagnostic()?;
    let path = dir.join("plan.ron");
    fs::write(&path, plan).into_diagnostic().wrap_err_with(|| format!("cannot write {}", path.display()))
}

fn summary(args: &CompileArgs, compiled: &Compiled, planned: Option<&PlanSummary>) -> Result<()> {
    let report = Report::new(&compiled.lowered.program)
        .map_err(|e| miette::miette!("the compiled program does not run to its end: {e:?}"))?;
    let bounds = bounds(&compiled.graph);
    if args.json {
        let json = serde_json::json!({
            "network": report.network,
            "ring": report.ring,
            "output": args.output,
            "totals": report.totals,
            "bounds": bounds,
            "plan": planned,
        });
        return say_json(&json);
    }
    let t = &report.totals;
    let mut text = format!("{} -> {}\n", args.model.file.model.display(), args.output.display());
    text += &format!("  ring of {} bits, {} DReLUs, {} online rounds\n", report.ring, grouped(t.drelus), t.rounds);
    text += &format!(
        "  setup {} B once, offline {} B and online {} B per inference\n",
        grouped(t.setup_bytes),
        grouped(t.offline_bytes),
        grouped(t.online_bytes)
    );
    if let Some(p) = planned {
        let b = &p.best;
        text += &format!(
            "  plan ({}): {:.2} % of the DReLUs, mean squared output error {:.4} measured, {:.4} predicted\n",
            b.how,
            100.0 * p.costs.share,
            b.measured,
            b.predicted
        );
    }
    say(&(text + &describe(&bounds)))
}

fn describe(b: &BoundsSummary) -> String {
    let mut text = format!(
        "  bounds: {} proven, {} rest on calibration, {} follow from those\n",
        b.proven,
        b.observed.len(),
        b.derived
    );
    for o in &b.observed {
        let what = if o.block_sum { "|block sum|" } else { "|x|" };
        text += &format!("    {what} <= {:.4} at \"{}\": {} times the largest seen\n", o.bound, o.node, o.margin);
    }
    if !b.observed.is_empty() {
        text += "  an input that drives a value past such a bound gives a wrong result; a larger --margin is safer\n";
    }
    text
}
