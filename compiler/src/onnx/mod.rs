//! From an ONNX file to a [`Graph`].
//!
//! Operators are read from the file's own nodes; shapes follow from the graph's shape inference. A
//! graph node keeps the name of the ONNX node it stands for; where one ONNX node takes several, the
//! others carry its name and a suffix. Only nodes that the output needs are looked at.
//!
//! The compiled network is for one image. A batch axis that is symbolic, -1, 0, 1 or any fixed size
//! becomes 1; a constant that fixes the batch size elsewhere (the first entry of a Reshape) follows.
//! Everything that is not supported is an error with the node, the reason and a remedy, and a file
//! reports all of its problems at once.

mod activations;
mod arithmetic;
mod call;
mod constants;
mod error;
mod external;
mod import;
mod input;
mod linear;
mod literal;
mod node;
mod operators;
mod oracle;
mod pieces;
mod pool;
mod reshape;
mod resize;
mod substitute;
mod tail;

use std::path::Path;

use bcc_ir::graph::Graph;
use prost::Message;
use tract_onnx::pb::ModelProto;

pub use error::{ImportError, ImportErrors, Problem, Site};
pub use oracle::{Oracle, OracleError};
pub use substitute::{MaxPools, Relu6};

/// Choices that a file leaves open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Name of the value to compute: one of the outputs of a model with several, or any value
    /// inside. `None`: the model's only output.
    pub output: Option<String>,
    /// Shape of the input, `[1, ...]`, for a model that declares sizes symbolically, or for another height and width
    /// than it declares.
    pub input_shape: Option<Vec<usize>>,
    /// What ReLU6 and its like become.
    pub relu6: Relu6,
    /// What maximum pools become.
    pub max_pools: MaxPools,
    /// Name of the graph. `None`: the file name without its extension, or the name in the bytes.
    pub name: Option<String>,
}

/// Imports an ONNX file.
///
/// # Errors
/// All problems of the file: unreadable, no ONNX, unsupported or contradictory nodes.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Graph, ImportErrors> {
    let bytes = std::fs::read(path).map_err(|e| {
        file_error(Problem::Unreadable(format!("{}: {e}", path.display())), "check the path and its permissions")
    })?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned());
    let options = ImportOptions { name: options.name.clone().or(stem), ..options.clone() };
    let mut model = decode(&bytes)?;
    let mut errors = external::inline(&mut model, path.parent().unwrap_or(Path::new("")));
    let (graph, further) = import::Importer::run(&model, &options);
    // What is external still has been reported with the reason.
    errors.extend(further.into_iter().filter(|e| !matches!(e.problem, Problem::External { .. })));
    if errors.is_empty() { Ok(substituted(graph, &options)) } else { Err(ImportErrors(errors)) }
}

/// Imports the bytes of an ONNX file, which holds all its weights.
///
/// # Errors
/// As [`import()`].
pub fn import_bytes(bytes: &[u8], options: &ImportOptions) -> Result<Graph, ImportErrors> {
    match import::Importer::run(&decode(bytes)?, options) {
        (graph, errors) if errors.is_empty() => Ok(substituted(graph, options)),
        (_, errors) => Err(ImportErrors(errors)),
    }
}

/// What the options put in the place of clips and maximum pools.
fn substituted(mut graph: Graph, options: &ImportOptions) -> Graph {
    substitute::relu6(&mut graph, options.relu6);
    substitute::max_pools(&mut graph, options.max_pools);
    graph
}

fn decode(bytes: &[u8]) -> Result<ModelProto, ImportErrors> {
    let complete = "check that this is the right file, and complete";
    if bytes.is_empty() {
        return Err(file_error(Problem::Malformed("it is empty".into()), complete));
    }
    ModelProto::decode(bytes).map_err(|e| file_error(Problem::Malformed(e.to_string()), complete))
}

fn file_error(problem: Problem, remedy: &str) -> ImportErrors {
    ImportErrors(vec![ImportError { site: Site::File, problem, remedy: remedy.into() }])
}
