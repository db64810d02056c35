//! Correction without training: what it keeps, what it wins, and that it is repeatable.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::compile::Compiled;
use bcc_compiler::data::load_images;
use bcc_compiler::float::Executor;
use bcc_compiler::passes::BlockChoice;
use bcc_compiler::passes::correct::Correction;
use bcc_ir::Block;
use bcc_ir::graph::Graph;
use bcc_tests::nets::{built, compiled, models_dir, options, random_images, trained};

fn fmnist(file: &str, count: usize) -> Vec<Vec<f32>> {
    let mut all = load_images(&models_dir().join("data").join(file), &[1, 1, 28, 28]).unwrap();
    all.truncate(count);
    all
}

fn corrected(graph: &Graph, block: Block, images: &[Vec<f32>], correct: Option<Correction>) -> Compiled {
    let mut o = options(BlockChoice::Uniform(block), images.to_vec());
    o.passes.correct = correct;
    compiled(graph.clone(), &o)
}

/// Mean squared difference of the outputs of two graphs.
fn distance(a: &Graph, b: &Graph, images: &[Vec<f32>]) -> f64 {
    let (a, b) = (Executor::new(a), Executor::new(b));
    let one = |x: &Vec<f32>| a.run(x).iter().zip(b.run(x)).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    images.iter().map(one).sum::<f64>() / images.len() as f64
}

/// On images that were not fitted: more of a layer fitted, less distortion.
#[test]
fn more_freedom_brings_the_network_closer_on_other_images() {
    let graph = trained("fmnist_resnet8");
    let calib = fmnist("fmnist_calib.npz", 256);
    let test = fmnist("fmnist_test.npz", 128);
    let original = compiled(graph.clone(), &options(BlockChoice::Keep, calib.clone())).real;
    let block = Block::Patch { h: 2, w: 2 };
    let all = [None, Some(Correction::Mean), Some(Correction::Scale), Some(Correction::Weights)];
    let errors: Vec<f64> =
        all.iter().map(|c| distance(&corrected(&graph, block, &calib, *c).real, &original, &test)).collect();
    println!("{errors:?}");
    assert!(errors[3] < 0.7 * errors[2] && errors[2] < errors[0] && errors[3] < 0.25 * errors[0], "{errors:?}");
}

/// The same images give the same bytes, whatever the number of threads; without blocks nothing moves.
#[test]
fn repeatable_and_idle_without_blocks() {
    let graph = trained("fmnist_resnet8");
    let calib = fmnist("fmnist_calib.npz", 48);
    let block = Block::Patch { h: 3, w: 2 };
    let one = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| corrected(&graph, block, &calib, Some(Correction::Weights)).lowered.weights)
    };
    assert_eq!(one(1), one(3));
    let kept = corrected(&graph, Block::RELU, &calib, Some(Correction::Weights));
    let plain = corrected(&graph, Block::RELU, &calib, None);
    assert_eq!(kept.lowered.weights, plain.lowered.weights);
}

/// Operators of every kind behind blocks: groups, pools, transposes, dense layers.
#[test]
fn small_networks_stay_sound() {
    for name in ["tiny_plain", "tiny_residual", "tiny_pools", "tiny_nhwc", "tiny_grouped"] {
        let graph = built(name);
        let images = random_images(&graph, 24, 3);
        let original = compiled(graph.clone(), &options(BlockChoice::Keep, images.clone())).real;
        let block = Block::Patch { h: 2, w: 2 };
        let before = distance(&corrected(&graph, block, &images, None).real, &original, &images);
        for correction in [Correction::Mean, Correction::Scale, Correction::Weights] {
            let c = corrected(&graph, block, &images, Some(correction));
            let after = distance(&c.real, &original, &images);
            assert!(after.is_finite() && after <= 1.2 * before, "{name} {correction}: {after} of {before}");
            assert_eq!(c.plan.correct, Some(correction));
        }
    }
}
