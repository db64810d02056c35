//! The trained networks on real images: the secure result against the float network with the same
//! blocks.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::compile::Compiled;
use bcc_compiler::data::load_images;
use bcc_compiler::float::Executor;
use bcc_compiler::onnx::Oracle;
use bcc_compiler::passes::BlockChoice;
use bcc_compiler::twin;
use bcc_ir::Block;
use bcc_runtime::session::LocalOptions;
use bcc_tests::nets::{compiled, mixed_plan, models_dir, options, some_layers, trained};
use bcc_tests::world::{check_exact, run, run_opened};

const SHAPE: [usize; 4] = [1, 1, 28, 28];

fn images(file: &str, count: usize) -> Vec<Vec<f32>> {
    let mut all = load_images(&models_dir().join("data").join(file), &SHAPE).unwrap();
    assert!(all.len() >= count);
    all.truncate(count);
    all
}

fn compile(network: &str, blocks: impl FnOnce(&bcc_ir::graph::Graph) -> BlockChoice) -> Compiled {
    let graph = trained(network);
    let choice = blocks(&graph);
    compiled(graph, &options(choice, images("fmnist_calib.npz", 256)))
}

fn class(logits: &[f64]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

/// How far the secure logits are from the float ones.
#[derive(Debug, Default)]
struct Agreement {
    images: usize,
    same_class: usize,
    /// Images whose two largest float logits are closer than twice the largest error.
    near_ties: usize,
    /// Images on which the classes differ though the float logits are no near tie.
    gross: usize,
    errors: Vec<f64>,
}

impl Agreement {
    fn largest(&self) -> f64 {
        self.errors.iter().copied().fold(0.0, f64::max)
    }

    /// The error that a share of the images stays below.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.errors.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share) as usize]
    }
}

fn compare(c: &Compiled, test: &[Vec<f32>]) -> Agreement {
    let secure = run(c, test, &LocalOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let executor = Executor::new(&c.real);
    let mut a = Agreement { images: test.len(), ..Agreement::default() };
    let real: Vec<Vec<f64>> = test.iter().map(|i| executor.run(i).into_iter().map(f64::from).collect()).collect();
    for (out, real) in secure.outputs.iter().zip(&real) {
        let error = out.value.data.iter().zip(real).map(|(s, r)| (s - r).abs()).fold(0.0, f64::max);
        a.errors.push(error);
        a.same_class += usize::from(class(&out.value.data) == class(real));
    }
    for (i, real) in real.iter().enumerate() {
        let mut sorted = real.clone();
        sorted.sort_by(|x, y| y.total_cmp(x));
        let tie = sorted[0] - sorted[1] < 2.0 * a.errors[i];
        a.near_ties += usize::from(tie);
        a.gross += usize::from(!tie && class(&secure.outputs[i].value.data) != class(real));
    }
    a
}

/// All ReLUs: every image has a logit error of at most 0.05 in a range of near 16.
#[test]
fn every_relu_kept() {
    for network in ["fmnist_resnet8", "fmnist_resnet20"] {
        let test = images("fmnist_test.npz", 512);
        let c = compile(network, |_| BlockChoice::Keep);
        let a = compare(&c, &test);
        println!("{network}: largest {:.4} same {}/{} ties {}", a.largest(), a.same_class, a.images, a.near_ties);
        assert!(a.same_class * 1000 >= a.images * 995, "{network}: {a:?}");
        assert!(a.largest() <= 0.05, "{network}: {}", a.largest());
        // The float reference is tract's as well.
        let oracle = Oracle::load(&models_dir().join(format!("trained/{network}.onnx")), &SHAPE).unwrap();
        let executor = Executor::new(&c.real);
        for image in &test[..8] {
            let (x, y) = (oracle.run(image).unwrap(), executor.run(image));
            assert!(x.iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-3));
        }
    }
}

#[test]
fn blocks_identity_and_zero_channels() {
    for network in ["fmnist_resnet8", "fmnist_resnet20"] {
        type Choice = fn(&bcc_ir::graph::Graph) -> BlockChoice;
        let choices: [(&str, Choice); 4] = [
            ("2x2", |_| BlockChoice::Uniform(Block::Patch { h: 2, w: 2 })),
            ("4x4", |_| BlockChoice::Uniform(Block::Patch { h: 4, w: 4 })),
            ("mixed", |g| BlockChoice::Plan(mixed_plan(g))),
            ("identity layers", |g| BlockChoice::Plan(some_layers(g, 4, Block::Identity))),
        ];
        for (name, choice) in choices {
            let test = images("fmnist_test.npz", 128);
            let c = compile(network, choice);
            let a = compare(&c, &test);
            println!(
                "{network} {name}: median {:.4} 90% {:.4} largest {:.4} same {}/{} ties {} gross {}",
                a.quantile(0.5),
                a.quantile(0.9),
                a.largest(),
                a.same_class,
                a.images,
                a.near_ties,
                a.gross
            );
        }
    }
}

/// Every value inside the network, on real images.
#[test]
fn values_on_the_way_are_exact() {
    let c = compile("fmnist_resnet20", |g| BlockChoice::Plan(mixed_plan(g)));
    let test = images("fmnist_test.npz", 4);
    let (_, opened) = run_opened(&c, &test, LocalOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let mut checked = 0;
    for (image, o) in test.iter().zip(&opened) {
        checked += check_exact(&c.graph, o).unwrap_or_else(|e| panic!("{e}"));
        let input = c.graph.input().unwrap();
        assert_eq!(o[&input], twin::encode(&c.graph, input, image));
    }
    assert!(checked > 1_500_000, "{checked}");
}
