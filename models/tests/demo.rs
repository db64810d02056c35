//! The demonstration of the README, on a few images.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

fn demo(args: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_bcc-models")).arg("demo").args(args).output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn plain_and_secure_agree() {
    for args in [vec!["--images", "5"], vec!["--network", "fmnist_resnet8", "--images", "5", "--blocks", "2x2"]] {
        let (ok, text) = demo(&args);
        assert!(ok && text.contains("same class on 5 of 5 images"), "{args:?}: {text}");
    }
}

#[test]
fn nonsense_is_refused() {
    let (ok, text) = demo(&["--blocks", "nonsense"]);
    assert!(!ok && text.contains("nonsense") && !text.contains("panicked"), "{text}");
    let (ok, text) = demo(&["--network", "../nothing"]);
    assert!(!ok && text.contains("nothing") && !text.contains("panicked"), "{text}");
}
