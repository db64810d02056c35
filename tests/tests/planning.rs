//! Plans of the trained networks: fast against exact distortions, measured plans, budgets, secure runs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::compile::CompileOptions;
use bcc_compiler::data::load_images;
use bcc_compiler::float::Executor;
use bcc_compiler::passes::BlockChoice;
use bcc_compiler::passes::correct::Correction;
use bcc_compiler::planner::budget::Budget;
use bcc_compiler::planner::exact::Exact;
use bcc_compiler::planner::linear::Pass;
use bcc_compiler::planner::menu::Menu;
use bcc_compiler::planner::pins::Pins;
use bcc_compiler::planner::target::Targets;
use bcc_compiler::planner::{Cap, Method, Outcome, Planner, PlannerError, Settings, Unseen};
use bcc_compiler::report::Report;
use bcc_ir::Block;
use bcc_ir::graph::Graph;
use bcc_ir::program::Phase;
use bcc_ir::time::{Network, default_rates};
use bcc_runtime::session::LocalOptions;
use bcc_tests::nets::{compiled, models_dir, options, trained};
use bcc_tests::random::Numbers;
use bcc_tests::world::run;

const SHAPE: [usize; 4] = [1, 1, 28, 28];

fn calibration(count: usize) -> Vec<Vec<f32>> {
    let mut all = load_images(&models_dir().join("data/fmnist_calib.npz"), &SHAPE).unwrap();
    all.truncate(count);
    all
}

fn settings(refine: usize, correct: Option<Correction>, method: Method) -> Settings {
    Settings {
        menu: Menu::Small,
        method,
        probes: 4,
        seed: 1,
        refine,
        correct,
        optimal: false,
        caps: Vec::new(),
        rates: default_rates(),
        network: Network::lan(),
    }
}

fn template(images: usize) -> CompileOptions {
    options(BlockChoice::Keep, calibration(images))
}

fn planner<'a>(graph: &'a Graph, images: usize, settings: Settings) -> Planner<'a> {
    Planner::new(graph, &template(images), settings, &|_, t| Ok(Pins::none(t)), None, &Unseen).unwrap()
}

fn canonical(network: &str) -> Graph {
    let mut graph = trained(network);
    bcc_compiler::passes::fold::run(&mut graph).unwrap();
    bcc_compiler::passes::canonicalize::run(&mut graph).unwrap();
    graph
}

/// Spearman's rank correlation.
fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |v: &[f64]| -> Vec<f64> {
        let mut order: Vec<usize> = (0..v.len()).collect();
        order.sort_by(|x, y| v[*x].total_cmp(&v[*y]));
        let mut ranks = vec![0.0; v.len()];
        for (rank, i) in order.into_iter().enumerate() {
            ranks[i] = rank as f64;
        }
        ranks
    };
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() - 1) as f64 / 2.0;
    let covariance: f64 = a.iter().zip(&b).map(|(x, y)| (x - mean) * (y - mean)).sum();
    let variance: f64 = a.iter().map(|x| (x - mean).powi(2)).sum();
    covariance / variance
}

#[test]
fn fast_distortions_rank_as_exact_ones() {
    for network in ["fmnist_resnet8", "fmnist_resnet20"] {
        let graph = canonical(network);
        let targets = Targets::of(&graph, &Menu::Small);
        let images = calibration(64);
        let executor = Executor::new(&graph);
        let references: Vec<Vec<f32>> = images.iter().map(|x| executor.run(x)).collect();
        let present = vec![Block::RELU; targets.classes()];
        let pass = Pass { executor: &executor, targets: &targets, present: &present, probes: 4, seed: 1 };
        let numbered: Vec<(usize, &[f32], &[f32])> =
            images.iter().zip(&references).enumerate().map(|(i, (x, r))| (i, x.as_slice(), r.as_slice())).collect();
        let losses = pass.run(&numbered).losses(&targets, 10, false);
        let pairs: Vec<(&[f32], &[f32])> = numbered.iter().map(|(_, x, r)| (*x, *r)).collect();
        let exact = Exact { executor: &executor, targets: &targets, present: &present, images: &pairs, centred: false };
        let mut numbers = Numbers::new(4);
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        for layer in &targets.layers {
            // 30 of each layer; the choice that changes nothing is none.
            let some: Vec<(usize, usize)> =
                (0..30).map(|_| (numbers.below(layer.channels), numbers.between(1, layer.menu.len() - 1))).collect();
            slow.extend(exact.losses(layer, &some, &|| ()));
            fast.extend(some.iter().map(|(c, j)| losses[layer.choices(*c).start + j]));
        }
        let correlation = spearman(&fast, &slow);
        let mut ratios: Vec<f64> = fast.iter().zip(&slow).filter(|(_, s)| **s > 0.0).map(|(f, s)| f / s).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{network}: {} pairs, Spearman {correlation:.4}, median ratio {:.3}",
            fast.len(),
            ratios[ratios.len() / 2]
        );
        assert!(correlation >= 0.98, "{network}: {correlation}");
    }
}

/// Probes are unbiased: with few of them the losses scatter around those of the unit vectors, which are
/// exact, and their sum comes close.
#[test]
fn probes_are_unbiased() {
    let graph = canonical("fmnist_resnet8");
    let targets = Targets::of(&graph, &Menu::Squares);
    let images = calibration(24);
    let executor = Executor::new(&graph);
    let references: Vec<Vec<f32>> = images.iter().map(|x| executor.run(x)).collect();
    let present = vec![Block::RELU; targets.classes()];
    let numbered: Vec<(usize, &[f32], &[f32])> =
        images.iter().zip(&references).enumerate().map(|(i, (x, r))| (i, x.as_slice(), r.as_slice())).collect();
    let losses = |probes: usize, seed: u64| {
        let pass = Pass { executor: &executor, targets: &targets, present: &present, probes, seed };
        pass.run(&numbered).losses(&targets, 10, false)
    };
    let all = losses(10, 1);
    assert_eq!(all, losses(99, 7), "unit vectors need no seed");
    let mut mean = vec![0.0; all.len()];
    for seed in 0..6 {
        mean.iter_mut().zip(losses(4, seed)).for_each(|(m, l)| *m += l / 6.0);
    }
    let (total, found) = (all.iter().sum::<f64>(), mean.iter().sum::<f64>());
    assert!((found / total - 1.0).abs() < 0.05, "{found} {total}");
}

/// Measured distortion of plans without correction: fast against exact, refined against one shot, and all
/// far below uniform blocks.
#[test]
fn measured_plans() {
    measured_plans_of("fmnist_resnet8", 128);
}

/// Takes some minutes: `cargo test --release -p bcc-tests --test planning -- --ignored --nocapture`.
#[test]
#[ignore = "700,000 partial networks"]
fn measured_plans_of_resnet20() {
    measured_plans_of("fmnist_resnet20", 64);
}

fn measured_plans_of(network: &str, images: usize) {
    let graph = trained(network);
    let mut fast = planner(&graph, images, settings(0, None, Method::Fast));
    let mut exact = planner(&graph, images, settings(0, None, Method::Exact));
    let mut refined = planner(&graph, images, settings(2, None, Method::Fast));
    for share in [0.05, 0.1, 0.2, 0.5] {
        let budget = [Budget::Share(share)];
        let [f, e, r] = [&mut fast, &mut exact, &mut refined].map(|p| p.plan(&budget).unwrap().best);
        let uniform = fast.uniform(&budget).unwrap().best;
        println!(
            "{share}: fast {:.4}, exact {:.4}, refined {:.4} ({}), uniform {:.4} ({})",
            f.measured, e.measured, r.measured, r.how, uniform.measured, uniform.how
        );
        // At 5 % plans leave the range in which any sum of losses means much, and rounding of another
        // processor's kernels may tip a few channels; it was 1.02 there, 1.01 at 50 % and less between.
        let most = if share == 0.05 { 1.15 } else { 1.05 };
        assert!(f.measured <= most * e.measured, "{share}: {} {}", f.measured, e.measured);
        assert!(r.measured <= f.measured, "{share}");
        assert!(f.measured < 0.7 * uniform.measured, "{share}: {} {}", f.measured, uniform.measured);
    }
}

fn exact_costs(graph: &Graph, o: &Outcome, images: usize) -> Report {
    let mut options = template(images);
    options.passes.blocks = BlockChoice::Plan(o.plan.clone());
    options.passes.correct = o.plan.correct;
    Report::new(&compiled(graph.clone(), &options).lowered.program).unwrap()
}

/// Budgets of every kind are kept, nearly used up, and the totals are those of the compiled program.
#[test]
fn budgets_are_kept_to_the_byte() {
    let graph = trained("fmnist_resnet8");
    let mut p = planner(&graph, 32, settings(1, None, Method::Fast));
    let bytes = |most, phase| Budget::Bytes { most, phase };
    let budgets: [(Vec<Budget>, f64); 6] = [
        (vec![Budget::Share(0.1)], 0.98),
        (vec![Budget::Drelus(3000)], 0.98),
        (vec![bytes(1_200_000, None)], 0.93),
        (vec![bytes(250_000, Some(Phase::Online))], 0.93),
        (vec![Budget::Seconds { most: 0.02, phase: None }], 0.5),
        (vec![Budget::Share(0.3), bytes(1_300_000, None)], 0.9),
    ];
    for (budgets, least_use) in budgets {
        let o = p.plan(&budgets).unwrap();
        let report = exact_costs(&graph, &o, 32);
        assert_eq!(o.costs.offline_bytes, report.totals.offline_bytes, "{budgets:?}");
        assert_eq!(o.costs.online_bytes, report.totals.online_bytes, "{budgets:?}");
        assert_eq!(o.costs.rounds, report.totals.rounds, "{budgets:?}");
        assert_eq!(o.costs.drelus, report.totals.drelus, "{budgets:?}");
        let mut use_of_tightest = 0.0f64;
        for b in &budgets {
            let (used, most) = match b {
                Budget::Share(s) => (o.costs.drelus as f64, s * 56_448.0),
                Budget::Drelus(n) => (o.costs.drelus as f64, *n as f64),
                Budget::Bytes { most, phase: Some(_) } => (o.costs.online_bytes as f64, *most as f64),
                Budget::Bytes { most, .. } => ((o.costs.offline_bytes + o.costs.online_bytes) as f64, *most as f64),
                Budget::Seconds { most, .. } => (o.costs.offline_seconds + o.costs.online_seconds, *most),
            };
            assert!(used <= most, "{b}: {used}");
            use_of_tightest = use_of_tightest.max(used / most);
        }
        assert!(use_of_tightest >= least_use, "{budgets:?}: {use_of_tightest}");
    }
}

#[test]
fn pins_caps_and_rounds_are_kept() {
    let graph = trained("fmnist_resnet8");
    let names: Vec<String> =
        Targets::of(&canonical("fmnist_resnet8"), &Menu::Small).layers.into_iter().map(|l| l.name).collect();
    let mut s = settings(1, None, Method::Fast);
    s.caps = vec![Cap::Layer { layer: names[2].clone(), drelus: 40 }];
    let pins = |g: &Graph, t: &Targets| {
        let mut pins = Pins::none(t);
        pins.add(g, t, &format!("{}=4x4", names[0]))?;
        pins.add(g, t, &format!("{}=keep", names[5]))?;
        Ok(pins)
    };
    let mut p = Planner::new(&graph, &template(16), s, &pins, None, &Unseen).unwrap();
    let targets = p.targets().clone();
    let o = p.plan(&[Budget::Share(0.2)]).unwrap();
    let blocks = |i: usize| &o.blocks[targets.layers[i].classes()];
    assert!(blocks(0).iter().all(|b| *b == Block::Patch { h: 4, w: 4 }));
    assert!(blocks(5).iter().all(|b| *b == Block::RELU));
    let [h, w] = targets.layers[2].map;
    assert!(blocks(2).iter().map(|b| b.drelus(h, w)).sum::<usize>() <= 40);
    // With layers pinned, a small budget cannot be met, and the message says why.
    let e = p.plan(&[Budget::Drelus(1000)]).unwrap_err();
    let text = e.to_string();
    assert!(matches!(e, PlannerError::Infeasible { .. }), "{text}");
    for part in ["1000 drelu", "the least possible is", "pins take", &names[0], &names[5]] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let mut s = settings(0, None, Method::Fast);
    s.caps = vec![Cap::Rounds(16)];
    let mut p = planner(&graph, 16, s);
    let o = p.plan(&[Budget::Share(0.2)]).unwrap();
    let open = targets.layers.iter().filter(|l| o.blocks[l.classes()].iter().any(|b| matches!(b, Block::Patch { .. })));
    assert!(open.count() <= 4);
    let kept = exact_costs(&graph, &o, 16);
    assert!(kept.totals.rounds < 34, "{}", kept.totals.rounds);
}

#[test]
fn optimal_choices_are_no_worse() {
    let graph = trained("fmnist_resnet8");
    for share in [0.05, 0.3] {
        let mut plain = planner(&graph, 16, settings(0, None, Method::Fast));
        let mut s = settings(0, None, Method::Fast);
        s.optimal = true;
        let mut optimal = planner(&graph, 16, s);
        let [a, b] = [&mut plain, &mut optimal].map(|p| p.plan(&[Budget::Share(share)]).unwrap().best);
        assert!(b.predicted <= a.predicted + 1e-12 && b.gap <= 1e-9, "{a:?} {b:?}");
    }
}

/// Plans made with one thread are those made with several.
#[test]
fn plans_do_not_depend_on_threads() {
    let graph = trained("fmnist_resnet8");
    let one = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            planner(&graph, 16, settings(1, Some(Correction::Weights), Method::Fast)).plan(&[Budget::Share(0.1)])
        })
        .unwrap()
        .plan
    };
    assert_eq!(one(1), one(3));
}

/// Planned and corrected programs run: the secure result is the float network's, traffic is the plan's.
#[test]
fn planned_programs_run() {
    let graph = trained("fmnist_resnet20");
    let test = load_images(&models_dir().join("data/fmnist_test.npz"), &SHAPE).unwrap();
    let test = &test[..64];
    let mut p = planner(&graph, 64, settings(0, Some(Correction::Weights), Method::Fast));
    for budget in [Budget::Share(0.06), Budget::Share(0.2), Budget::Bytes { most: 3_500_000, phase: None }] {
        let o = p.plan(&[budget]).unwrap();
        let mut options = template(64);
        options.passes.blocks = BlockChoice::Plan(o.plan.clone());
        options.passes.correct = o.plan.correct;
        // Blocks near zero are decided as floats do: see the networks' tests.
        let (frac, weight_frac) = (options.passes.frac, options.passes.weight_frac);
        let c = compiled(graph.clone(), &options);
        let secrets = LocalOptions { seeds: Some([[1; 32], [2; 32], [3; 32]]), ..LocalOptions::default() };
        let secure = run(&c, test, &secrets).unwrap();
        let executor = Executor::new(&c.real);
        let (mut same, mut errors) = (0, Vec::new());
        let class = |v: &[f64]| (0..v.len()).max_by(|a, b| v[*a].total_cmp(&v[*b])).unwrap();
        for (x, out) in test.iter().zip(&secure.outputs) {
            let real: Vec<f64> = executor.run(x).into_iter().map(f64::from).collect();
            same += usize::from(class(&real) == class(&out.value.data));
            errors.push(real.iter().zip(&out.value.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max));
        }
        errors.sort_by(f64::total_cmp);
        let sent =
            |p: &bcc_runtime::stats::PhaseStats| (p.bytes.client + p.bytes.server + p.bytes.dealer) / test.len() as u64;
        assert_eq!(sent(&secure.stats.phases.offline), o.costs.offline_bytes, "{budget}");
        assert_eq!(sent(&secure.stats.phases.online), o.costs.online_bytes, "{budget}");
        assert_eq!(secure.stats.phases.online.rounds, o.costs.rounds, "{budget}");
        println!(
            "{budget}, {frac}+{weight_frac} bits: same class {same}/{}, median error {:.4}, largest {:.4}",
            test.len(),
            errors[32],
            errors[63]
        );
        assert!(same >= 60 && errors[32] < 0.1, "{budget}: {same} {errors:?}");
    }
}
