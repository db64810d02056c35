//! The paper's four networks on small photos: the secure result against the float network with the same
//! blocks, logit by logit, and every value against the integer result of its node. In full size they are run
//! by `bcc eval`, see `docs/networks.md`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::data::load_images;
use bcc_compiler::float::Executor;
use bcc_compiler::onnx::{ImportOptions, import_bytes};
use bcc_compiler::passes::BlockChoice;
use bcc_ir::Block;
use bcc_ir::graph::Graph;
use bcc_models::nets::{BuildOptions, NETS};
use bcc_runtime::session::LocalOptions;
use bcc_tests::nets::{compiled, mixed_plan, models_dir, options};
use bcc_tests::world::{check_exact, run, run_opened};
use prost::Message;

fn network(name: &str, size: usize) -> Graph {
    let info = NETS.iter().find(|n| n.name == name).unwrap();
    let model = info.build(&BuildOptions { size: Some([size, size]), ..BuildOptions::default() }).unwrap();
    let options = ImportOptions { name: Some(name.into()), ..ImportOptions::default() };
    import_bytes(&model.encode_to_vec(), &options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Photos of `size` pixels each way; `None`, with a word, where they are not fetched.
fn fetched(file: &str, size: usize) -> Option<Vec<Vec<f32>>> {
    let path = models_dir().join("fetched").join(file);
    if !path.exists() {
        assert!(std::env::var_os("CI").is_none(), "run models/scripts/fetch.sh photos first");
        println!("skipped: models/scripts/fetch.sh photos brings the photos");
        return None;
    }
    Some(load_images(&path, &[1, 3, size, size]).unwrap())
}

/// Photos of 224x224 pixels, of which every so many-th is taken.
fn photos(size: usize) -> Option<Vec<Vec<f32>>> {
    let whole = fetched("photos_imagenet.npz", 224)?;
    let small = |image: &Vec<f32>| {
        let pick = |p: usize| {
            image[p / (size * size) * 224 * 224 + p / size % size * 224 / size * 224 + p % size * 224 / size]
        };
        (0..3 * size * size).map(pick).collect()
    };
    Some(whole.iter().map(small).collect())
}

/// `frac` are the bits of values and weights; `bound` is the largest error relative to the largest output.
fn with_every_relu(name: &str, size: usize, frac: [u8; 2], bound: f64) {
    let Some(photos) = photos(size) else { return };
    let (calibration, test) = photos.split_at(20);
    let mut options = options(BlockChoice::Keep, calibration.to_vec());
    [options.passes.frac, options.passes.weight_frac] = frac;
    let c = compiled(network(name, size), &options);
    let out = run(&c, &test[..2], &LocalOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let port = &c.lowered.program.output;
    let executor = Executor::new(&c.real);
    let (mut worst, mut largest, mut outputs) = (0f64, 0f64, 0);
    for (o, image) in out.outputs.iter().zip(test) {
        let logits = executor.run(image);
        assert_eq!(logits.len(), o.integers.len());
        for (secure, float) in o.integers.iter().zip(&logits) {
            let secure = *secure as f64 * port.gain / f64::from(port.frac).exp2();
            worst = worst.max((secure - f64::from(*float)).abs());
            largest = largest.max(f64::from(float.abs()));
            outputs += 1;
        }
    }
    println!(
        "{name} {size}x{size}: ring {}, {outputs} outputs up to {largest:.2}, error {worst:.4}",
        c.lowered.program.ring
    );
    assert!(worst < bound * largest, "{name}: {worst} of {largest}");
}

fn with_blocks(name: &str, size: usize) {
    let Some(photos) = photos(size) else { return };
    let graph = network(name, size);
    let plan = BlockChoice::Plan(mixed_plan(&graph));
    let c = compiled(graph, &options(plan, photos[..6].to_vec()));
    let (_, opened) = run_opened(&c, &photos[..1], LocalOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let values = check_exact(&c.graph, &opened[0]).unwrap_or_else(|e| panic!("{name}: {e}"));
    println!("{name} {size}x{size}, mixed blocks: {values} values are exact");
    assert!(values > 100_000);
}

#[test]
fn resnet18() {
    with_every_relu("resnet18_cifar", 32, [12, 12], 0.01);
    with_blocks("resnet18_cifar", 32);
}

#[test]
fn resnet50() {
    with_every_relu("resnet50", 64, [12, 12], 0.02);
    with_blocks("resnet50_avg", 64);
}

#[test]
fn deeplab_on_mobilenet() {
    with_every_relu("deeplabv3_mobilenetv2", 64, [12, 12], 0.02);
    with_blocks("deeplabv3_mobilenetv2", 64);
    // What is left is the rounding of values and weights, 58 layers deep in a network that was never trained:
    // more bits take it down.
    with_every_relu("deeplabv3_mobilenetv2_relu6", 64, [12, 12], 0.04);
    with_every_relu("deeplabv3_mobilenetv2_relu6", 64, [16, 18], 0.004);
}

#[test]
fn deeplab_on_resnet() {
    with_every_relu("deeplabv3_resnet50", 64, [12, 12], 0.02);
    with_blocks("deeplabv3_resnet50", 64);
}

/// A whole photo with 4x4 blocks, a sixteenth of the sign decisions: every value, of several hundred million, is
/// the integer result of its node.
fn whole(name: &str) {
    let Some(photos) = fetched("photos_512.npz", 512) else { return };
    let plan = BlockChoice::Uniform(Block::Patch { h: 4, w: 4 });
    let c = compiled(network(name, 512), &options(plan, photos[..1].to_vec()));
    let (_, opened) = run_opened(&c, &photos[..1], LocalOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let values = check_exact(&c.graph, &opened[0]).unwrap_or_else(|e| panic!("{name}: {e}"));
    println!("{name} 512x512, 4x4 blocks: {values} values are exact");
}

#[test]
#[ignore = "minutes, and up to 20 GB"]
fn whole_deeplab_on_mobilenet() {
    whole("deeplabv3_mobilenetv2");
}

#[test]
#[ignore = "minutes, and up to 20 GB"]
fn whole_deeplab_on_resnet() {
    whole("deeplabv3_resnet50_avg");
}
