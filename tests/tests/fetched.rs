//! The trained ResNet-50 (thin) as its authors ship it, on real photos. `models/scripts/fetch.sh all`
//! brings both; without them this test says so and passes, except in CI.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::data::load_images;
use bcc_compiler::float::Executor;
use bcc_compiler::onnx::{ImportOptions, import};
use bcc_compiler::passes::BlockChoice;
use bcc_runtime::session::LocalOptions;
use bcc_tests::nets::{compiled, models_dir, options};
use bcc_tests::world::run;

#[test]
fn thin_resnet50_as_shipped() {
    let folder = models_dir().join("fetched");
    let (model, photos) = (folder.join("open_nsfw.onnx"), folder.join("photos_nsfw.npz"));
    if !(model.exists() && photos.exists()) {
        assert!(std::env::var_os("CI").is_none(), "run models/scripts/fetch.sh all first");
        println!("skipped: models/scripts/fetch.sh all brings the model and the photos");
        return;
    }
    let graph = import(&model, &ImportOptions::default()).unwrap();
    let images = load_images(&photos, &[1, 224, 224, 3]).unwrap();
    let (calibration, test) = images.split_at(images.len() - 3);
    let c = compiled(graph, &options(BlockChoice::Keep, calibration.to_vec()));
    let out = run(&c, test, &LocalOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let executor = Executor::new(&c.real);
    let port = &c.lowered.program.output;
    for (o, image) in out.outputs.iter().zip(test) {
        let logits = executor.run(image);
        let secure: Vec<f64> = o.integers.iter().map(|v| *v as f64 * port.gain / f64::from(port.frac).exp2()).collect();
        let error = secure.iter().zip(&logits).map(|(s, r)| (s - f64::from(*r)).abs()).fold(0.0, f64::max);
        println!("ring {}: logits {logits:?}, secure {secure:?}, error {error:.4}", c.lowered.program.ring);
        assert!(error <= 0.1, "{error}");
        // The client's softmax of the same logits.
        let sum: f64 = o.value.data.iter().sum();
        assert!((sum - 1.0).abs() < 1e-9);
    }
}
