//! The whole way from a file to a program.

use std::path::Path;

use bcc_ir::graph::Graph;
use bcc_ir::program::{Faults, verify};
use thiserror::Error;

use crate::onnx::{ImportErrors, ImportOptions, import};
use crate::passes::lower::{LowerError, LowerOptions, Lowered, lower};
use crate::passes::{Pass, PassError, PassOptions, run_all};
use crate::plan::Plan;

/// Choices of a compilation.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// Of the passes.
    pub passes: PassOptions,
    /// Of the backend.
    pub lower: LowerOptions,
}

/// A compiled network.
pub struct Compiled {
    /// The network in real numbers with its blocks, pruned: what the secure result approximates.
    pub real: Graph,
    /// The blocks of every ReLU, those included that were pruned; compiling with it gives the same
    /// program.
    pub plan: Plan,
    /// The quantized graph.
    pub graph: Graph,
    /// Program and weights.
    pub lowered: Lowered,
}

/// Why a network cannot be compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The file.
    #[error(transparent)]
    Import(#[from] ImportErrors),
    /// A pass.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The backend.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The backend wrote a program that breaks the rules: a defect of the compiler.
    #[error("the compiled program does not verify; please report this:\n{0}")]
    Invariant(#[from] Faults),
}

/// Watches a compilation.
pub trait Observer {
    /// A pass begins.
    fn begin(&mut self, pass: &Pass) {
        let _ = pass;
    }

    /// A pass has ended; the graph is its result. The first call, without a pass, shows the import.
    fn end(&mut self, pass: Option<&Pass>, graph: &Graph) {
        let _ = (pass, graph);
    }
}

/// An observer that does nothing.
pub struct Quiet;

impl Observer for Quiet {}

/// Compiles an ONNX file.
pub fn compile_file(
    path: &Path,
    options: &CompileOptions,
    observer: &mut dyn Observer,
) -> Result<Compiled, CompileError> {
    compile_graph(import(path, &ImportOptions::default())?, options, observer)
}

/// Compiles an imported graph.
pub fn compile_graph(
    mut graph: Graph,
    options: &CompileOptions,
    observer: &mut dyn Observer,
) -> Result<Compiled, CompileError> {
    observer.end(None, &graph);
    let (mut plan, mut real) = (None, None);
    run_all(&mut graph, &options.passes, &mut |pass, graph, done| {
        if !done {
            return observer.begin(pass);
        }
        match pass.name {
            "plan" => plan = Some(Plan::of(graph)),
            "prune" => real = Some(graph.clone()),
            _ => {}
        }
        observer.end(Some(pass), graph);
    })?;
    let lowered = lower(&graph, options.lower)?;
    verify(&lowered.program)?;
    let real = real.unwrap_or_else(|| graph.clone());
    let plan = Plan { correct: options.passes.correct, ..plan.unwrap_or_default() };
    Ok(Compiled { real, plan, graph, lowered })
}
