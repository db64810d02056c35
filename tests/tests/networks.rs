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

/// Fixed secrets: the dither of the truncations, and so every error, is the same in every run.
fn repeatable() -> LocalOptions {
    LocalOptions { seeds: Some([[1; 32], [2; 32], [3; 32]]), ..LocalOptions::default() }
}

fn compare(c: &Compiled, test: &[Vec<f32>]) -> Agreement {
    let secure = run(c, test, &repeatable()).unwrap_or_else(|e| panic!("{e}"));
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
        println!("{network}: largest error {:.4} same {}/{} ties {}", a.largest(), a.same_class, a.images, a.near_ties);
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

/// Larger blocks, identity and zero channels. Without training, a network with blocks has many block
/// sums near zero, where the least error, even that of 32-bit floats, turns a whole block on or off;
/// so these run with more fraction bits, which leave next to no such block, and one image in
/// twenty may exceed the bound.
#[test]
fn blocks_identity_and_zero_channels() {
    type Choice = fn(&bcc_ir::graph::Graph) -> BlockChoice;
    let choices: [(&str, Choice); 4] = [
        ("2x2", |_| BlockChoice::Uniform(Block::Patch { h: 2, w: 2 })),
        ("4x4", |_| BlockChoice::Uniform(Block::Patch { h: 4, w: 4 })),
        ("mixed", |g| BlockChoice::Plan(mixed_plan(g))),
        ("identity layers", |g| BlockChoice::Plan(some_layers(g, 4, Block::Identity))),
    ];
    for (network, count) in [("fmnist_resnet8", 512), ("fmnist_resnet20", 512)] {
        let test = images("fmnist_test.npz", count);
        for (name, choice) in choices {
            let graph = trained(network);
            let blocks = choice(&graph);
            let mut o = options(blocks, images("fmnist_calib.npz", 256));
            (o.passes.frac, o.passes.weight_frac) = (20, 18);
            let a = compare(&compiled(graph, &o), &test);
            println!(
                "{network} {name}: logit error median {:.5}, largest {:.5}; same class {}/{}, near ties {}",
                a.quantile(0.5),
                a.largest(),
                a.same_class,
                a.images,
                a.near_ties
            );
            assert_eq!(a.gross, 0, "{network} {name}");
            assert!(a.same_class * 1000 >= a.images * 995, "{network} {name}: {a:?}");
            assert!(a.quantile(0.95) <= 0.05, "{network} {name}: {}", a.quantile(0.95));
        }
    }
}

/// At the default precision a block may be decided otherwise than in floats, but only where its mean
/// is near zero, and classes differ on near ties alone.
#[test]
fn blocks_at_the_default_precision() {
    let test = images("fmnist_test.npz", 64);
    for network in ["fmnist_resnet8", "fmnist_resnet20"] {
        let c = compile(network, |_| BlockChoice::Uniform(Block::Patch { h: 2, w: 2 }));
        let a = compare(&c, &test);
        assert_eq!(a.gross, 0, "{network}");
        let (_, opened) = run_opened(&c, &test[..8], repeatable()).unwrap_or_else(|e| panic!("{e}"));
        let mut seen = Seen { first: None, largest: 0.0, blocks: 0 };
        for (image, opened) in test.iter().zip(&opened) {
            seen.compare(&c, image, opened);
        }
        assert!(seen.blocks > 10_000, "{}", seen.blocks);
        assert!(seen.largest < 0.02, "{network}: a block with mean {} at {:?}", seen.largest, seen.first);
    }
}

/// Blocks that the first layers decide otherwise than the float network.
struct Seen {
    first: Option<String>,
    /// Largest float mean of such a block.
    largest: f64,
    blocks: usize,
}

impl Seen {
    /// Compares layer by layer, up to the first one with a block that differs: what comes after it
    /// works on other values.
    fn compare(&mut self, c: &Compiled, image: &[f32], opened: &bcc_tests::world::Opened) {
        let mut real = std::collections::BTreeMap::new();
        Executor::new(&c.real).run_with(image, &mut |id, v| {
            real.insert(c.real.node(id).name.clone(), v.to_vec());
        });
        for id in c.graph.topo() {
            let node = c.graph.node(id);
            let bcc_ir::graph::Op::BlockRelu { .. } = node.op else { continue };
            let float_node = c.real.find(&node.name).unwrap();
            let before = &real[&c.real.node(c.real.operand(float_node)).name];
            let secure = twin::decode(&c.graph, c.graph.operand(id), &opened[&c.graph.operand(id)]);
            let (channels, [h, w]) = node.map().unwrap();
            let mut differs = false;
            for channel in 0..channels {
                for (y, x) in (0..h).step_by(2).flat_map(|y| (0..w).step_by(2).map(move |x| (y, x))) {
                    let pixels = (y..(y + 2).min(h)).flat_map(|r| (x..(x + 2).min(w)).map(move |q| r * w + q));
                    let pixels: Vec<usize> = pixels.map(|p| channel * h * w + p).collect();
                    let float: f64 = pixels.iter().map(|p| f64::from(before[*p])).sum();
                    let fixed: f64 = pixels.iter().map(|p| secure[*p]).sum();
                    self.blocks += 1;
                    if (float >= 0.0) != (fixed >= 0.0) {
                        differs = true;
                        let mean = float.abs() / pixels.len() as f64;
                        if mean > self.largest {
                            self.largest = mean;
                            self.first = Some(node.name.clone());
                        }
                    }
                }
            }
            if differs {
                return;
            }
        }
    }
}

/// Every value inside the network, on real images.
#[test]
fn values_on_the_way_are_exact() {
    let c = compile("fmnist_resnet20", |g| BlockChoice::Plan(mixed_plan(g)));
    let test = images("fmnist_test.npz", 4);
    let (_, opened) = run_opened(&c, &test, repeatable()).unwrap_or_else(|e| panic!("{e}"));
    let mut checked = 0;
    for (image, o) in test.iter().zip(&opened) {
        checked += check_exact(&c.graph, o).unwrap_or_else(|e| panic!("{e}"));
        let input = c.graph.input().unwrap();
        assert_eq!(o[&input], twin::encode(&c.graph, input, image));
    }
    assert!(checked > 1_500_000, "{checked}");
}
