//! The small networks written in every operator set, with fixed and symbolic batch: the same network.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::float::Executor;
use bcc_compiler::onnx::{ImportOptions, import_bytes};
use bcc_models::nets::{BuildOptions, find};
use bcc_tests::nets::{TINY, built, random_images};
use prost::Message;

#[test]
fn every_opset_gives_the_same_network() {
    let mut imported = 0;
    for name in TINY {
        let reference = built(name);
        let image = random_images(&reference, 1, 9).remove(0);
        let want = Executor::new(&reference).run(&image);
        for opset in 7..=21 {
            for batch in [Some(1), None, Some(4)] {
                let options = BuildOptions { opset, batch, ..BuildOptions::default() };
                // tiny_pools rounds up, which older sets do not know.
                let Ok(model) = find(name).unwrap().build(&options) else {
                    assert!(*name == "tiny_pools" && opset < 10, "{name}, opset {opset}");
                    continue;
                };
                let graph = import_bytes(&model.encode_to_vec(), &ImportOptions::default())
                    .unwrap_or_else(|e| panic!("{name}, opset {opset}, batch {batch:?}: {e}"));
                assert_eq!(Executor::new(&graph).run(&image), want, "{name}, opset {opset}, batch {batch:?}");
                imported += 1;
            }
        }
    }
    assert_eq!(imported, TINY.len() * 45 - 9);
}
