//! The small networks written in every operator set, with fixed and symbolic batch: the same network.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::float::Executor;
use bcc_compiler::onnx::{ImportOptions, import_bytes};
use bcc_models::nets::{BuildOptions, find};
use bcc_tests::nets::{TINY, built, random_images};
use prost::Message;

fn first(name: &str) -> i64 {
    match name {
        "tiny_pools" => 10,
        "tiny_segment" | "tiny_upsample" => 11,
        _ => 7,
    }
}

#[test]
fn every_opset_gives_the_same_network() {
    let mut imported = 0i64;
    for name in TINY {
        let reference = built(name);
        let image = random_images(&reference, 1, 9).remove(0);
        let want = Executor::new(&reference).run(&image);
        for opset in 7..=21 {
            for batch in [Some(1), None, Some(4)] {
                let options = BuildOptions { opset, batch, ..BuildOptions::default() };
                // Older sets do not know pools that round up, and Resize as it is.
                let Ok(model) = find(name).unwrap().build(&options) else {
                    assert!(opset < first(name), "{name}, opset {opset}");
                    continue;
                };
                let graph = import_bytes(&model.encode_to_vec(), &ImportOptions::default())
                    .unwrap_or_else(|e| panic!("{name}, opset {opset}, batch {batch:?}: {e}"));
                assert_eq!(Executor::new(&graph).run(&image), want, "{name}, opset {opset}, batch {batch:?}");
                imported += 1;
            }
        }
    }
    let expected: i64 = TINY.iter().map(|name| 3 * (22 - first(name))).sum();
    assert_eq!(imported, expected);
}
