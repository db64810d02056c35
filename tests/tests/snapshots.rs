//! Graphs after every pass and programs of small networks, as text. Review changes with
//! `cargo insta review`, or read the diff of `tests/tests/snapshots`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::compile::{Observer, compile_graph};
use bcc_compiler::passes::{BlockChoice, Pass};
use bcc_compiler::report::Report;
use bcc_ir::graph::Graph;
use bcc_tests::nets::{TINY, built, compiled, mixed_plan, options, random_images};

struct Dumps(String);

impl Observer for Dumps {
    fn end(&mut self, pass: Option<&Pass>, graph: &Graph) {
        self.0 += &format!("# {}\n{graph}\n", pass.map_or("import", |p| p.name));
    }
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn graph_after_every_pass() {
    for name in TINY {
        let graph = built(name);
        let images = random_images(&graph, 4, 7);
        let mut dumps = Dumps(String::new());
        compile_graph(graph, &options(BlockChoice::Keep, images), &mut dumps).unwrap();
        settings().bind(|| insta::assert_snapshot!(format!("passes_{name}"), dumps.0));
    }
}

#[test]
fn graph_after_every_pass_with_a_mixed_plan() {
    let graph = built("tiny_residual");
    let images = random_images(&graph, 4, 7);
    let plan = mixed_plan(&graph);
    let mut dumps = Dumps(String::new());
    compile_graph(graph, &options(BlockChoice::Plan(plan), images), &mut dumps).unwrap();
    settings().bind(|| insta::assert_snapshot!("passes_tiny_residual_mixed", dumps.0));
}

#[test]
fn programs() {
    for name in ["tiny_plain", "tiny_nhwc"] {
        let graph = built(name);
        let images = random_images(&graph, 4, 7);
        let program = compiled(graph, &options(BlockChoice::Keep, images)).lowered.program;
        let report = Report::new(&program).unwrap().table();
        settings().bind(|| insta::assert_snapshot!(format!("program_{name}"), format!("{program}\n{report}")));
    }
    let graph = built("tiny_plain");
    let images = random_images(&graph, 4, 7);
    let plan = mixed_plan(&graph);
    let program = compiled(graph, &options(BlockChoice::Plan(plan), images)).lowered.program;
    settings().bind(|| insta::assert_snapshot!("program_tiny_plain_mixed", program.to_string()));
}
