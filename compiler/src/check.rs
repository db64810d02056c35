//! Whether a network can be compiled, without compiling it: all that keeps it from that, or what it consists of.
//!
//! What needs calibration images is not looked at: ranges, and the ring that holds them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use bcc_ir::graph::{Graph, Op};
use serde::Serialize;

use crate::onnx::{ImportError, ImportOptions, Site, import};
use crate::passes::{canonicalize, fold};
use crate::report::grouped;

/// A problem of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// `file`, `input`, `output` or `node`.
    pub site: &'static str,
    /// Name of the input, output or node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Operator of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to change.
    pub remedy: String,
}

/// What a network consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Shape of the input.
    pub input: Vec<usize>,
    /// Shape of the output.
    pub output: Vec<usize>,
    /// Number of operators by kind, as imported.
    pub operators: BTreeMap<String, usize>,
    /// ReLUs that a plan may give blocks.
    pub relu_layers: usize,
    /// Sign decisions of those, with every ReLU kept.
    pub relus: u64,
    /// Sign decisions of maximum pools, which a plan does not change.
    pub pool_drelus: u64,
    /// Weights.
    pub parameters: u64,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether it can be compiled.
    pub covered: bool,
    /// All problems, in the order of the file's nodes.
    pub problems: Vec<Found>,
    /// What it consists of, where there are no problems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Contents>,
}

/// Checks a file.
pub fn check(path: &Path, options: &ImportOptions) -> Check {
    let problems = match import(path, options) {
        Ok(graph) => match contents(graph) {
            Ok(network) => return Check { covered: true, problems: Vec::new(), network: Some(network) },
            Err(problem) => {
                let remedy = "change the network there".into();
                vec![Found { site: "file", name: None, operator: None, problem, remedy }]
            }
        },
        Err(errors) => errors.0.into_iter().map(found).collect(),
    };
    Check { covered: false, problems, network: None }
}

fn found(error: ImportError) -> Found {
    let (site, name, operator) = match error.site {
        Site::File => ("file", None, None),
        Site::Input(name) => ("input", Some(name), None),
        Site::Output(name) => ("output", Some(name), None),
        Site::Node { name, operator } => ("node", Some(name), Some(operator)),
    };
    Found { site, name, operator, problem: error.problem.to_string(), remedy: error.remedy }
}

fn contents(mut graph: Graph) -> Result<Contents, String> {
    let shape = |g: &Graph, id: Option<_>| id.map(|i| g.node(i).shape.clone()).unwrap_or_default();
    let mut operators = BTreeMap::new();
    let mut parameters = 0;
    for id in graph.topo() {
        let op = &graph.node(id).op;
        if !matches!(op, Op::Input) {
            *operators.entry(op.name().to_string()).or_default() += 1;
        }
        parameters += op.consts().into_iter().map(|c| graph.constant(c).data.len() as u64).sum::<u64>();
    }
    fold::run(&mut graph).map_err(|e| e.to_string())?;
    canonicalize::run(&mut graph).map_err(|e| e.to_string())?;
    let (mut relu_layers, mut relus, mut pool_drelus) = (0, 0, 0);
    for id in graph.topo() {
        let node = graph.node(id);
        let (Op::BlockRelu { blocks, plannable }, Some((_, [h, w]))) = (&node.op, node.map()) else { continue };
        let drelus: u64 = blocks.iter().map(|b| b.drelus(h, w) as u64).sum();
        if *plannable {
            relu_layers += 1;
            relus += drelus;
        } else {
            pool_drelus += drelus;
        }
    }
    Ok(Contents {
        input: shape(&graph, graph.input()),
        output: shape(&graph, graph.output()),
        operators,
        relu_layers,
        relus,
        pool_drelus,
        parameters,
    })
}

impl Check {
    /// The result for people; `name` is the file's.
    pub fn text(&self, name: &str) -> String {
        let mut text = String::new();
        let put = match &self.network {
            Some(n) => covered(&mut text, name, n),
            None => self.problems(&mut text, name),
        };
        debug_assert!(put.is_ok(), "a string takes all that is written to it");
        text
    }

    fn problems(&self, text: &mut String, name: &str) -> std::fmt::Result {
        let plural = if self.problems.len() == 1 { "problem" } else { "problems" };
        writeln!(text, "{name}: {} {plural}", self.problems.len())?;
        for p in &self.problems {
            let site = match (&p.name, &p.operator) {
                (Some(name), Some(operator)) => format!("{} \"{name}\" ({operator})", p.site),
                (Some(name), None) => format!("{} \"{name}\"", p.site),
                _ => p.site.to_string(),
            };
            writeln!(text, "  {site}\n    {}\n    -> {}", p.problem, p.remedy)?;
        }
        Ok(())
    }
}

fn covered(text: &mut String, name: &str, n: &Contents) -> std::fmt::Result {
    let shape = |s: &[usize]| s.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    writeln!(text, "{name}: can be compiled")?;
    writeln!(text, "  input {}, output {}", shape(&n.input), shape(&n.output))?;
    writeln!(text, "  {} ReLUs in {} layers", grouped(n.relus), n.relu_layers)?;
    if n.pool_drelus > 0 {
        writeln!(text, "  {} sign decisions of maximum pools", grouped(n.pool_drelus))?;
    }
    writeln!(text, "  {} parameters", grouped(n.parameters))?;
    let operators: Vec<String> = n.operators.iter().map(|(op, count)| format!("{count} {op}")).collect();
    writeln!(text, "  operators: {}", operators.join(", "))
}
