//! Accuracy of planned, corrected networks on all 10,000 test images of Fashion-MNIST, without training.
//! Needs `models/scripts/fetch.sh fmnist`; says so and passes where that has not run.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::data::{load_images, load_labelled};
use bcc_compiler::float::Executor;
use bcc_compiler::passes::BlockChoice;
use bcc_compiler::passes::correct::Correction;
use bcc_compiler::planner::budget::Budget;
use bcc_compiler::planner::menu::Menu;
use bcc_compiler::planner::pins::Pins;
use bcc_compiler::planner::{Method, Planner, Settings, Unseen};
use bcc_ir::time::{Network, default_rates};
use bcc_tests::nets::{models_dir, options, trained};

#[test]
fn top_1_of_resnet20() {
    let path = models_dir().join("fetched/fmnist_test_full.npz");
    if !path.exists() {
        eprintln!("skipped: {} is not there; models/scripts/fetch.sh fmnist brings it", path.display());
        return;
    }
    let test = load_labelled(&path, &[1, 1, 28, 28]).unwrap();
    assert_eq!(test.images.len(), 10_000);
    let calibration = load_images(&models_dir().join("data/fmnist_calib.npz"), &[1, 1, 28, 28]).unwrap();
    let graph = trained("fmnist_resnet20");
    let settings = Settings {
        menu: Menu::Full,
        method: Method::Fast,
        probes: 4,
        seed: 1,
        refine: 0,
        correct: Some(Correction::Weights),
        optimal: false,
        caps: Vec::new(),
        rates: default_rates(),
        network: Network::lan(),
    };
    let template = options(BlockChoice::Keep, calibration);
    let mut planner = Planner::new(&graph, &template, settings, &|_, t| Ok(Pins::none(t)), None, &Unseen).unwrap();
    for (share, least) in [(0.03, 0.60), (0.06, 0.78), (0.12, 0.87), (0.20, 0.90)] {
        let o = planner.plan(&[Budget::Share(share)]).unwrap();
        let network = o.network.clone();
        let accuracy = test.accuracy(&Executor::new(&network));
        println!("{share}: top-1 {accuracy:.4}");
        assert!(accuracy >= least, "{share}: {accuracy}");
    }
}
