//! Networks for `bcc`: a writer of ONNX graphs, builders of the evaluated architectures with
//! calibrated random weights, and small networks that exercise the importer operator by operator.
//!
//! - [`onnx`] writes any graph, well-formed or deliberately not;
//! - [`nets`] holds the builders and the table of nets known by name;
//! - [`dataset`] reads images and labels;
//! - [`inspect`] counts what a compiler spends its budget on.

pub mod dataset;
pub mod error;
mod forward;
pub mod inspect;
pub mod nets;
pub mod onnx;
mod rng;

pub use error::ModelError;

use std::path::Path;

use prost::Message;
use tract_onnx::pb::ModelProto;

/// Writes `model` to `path` in ONNX's binary form, replacing what is there.
///
/// # Errors
/// [`ModelError::Write`] names the path.
pub fn write_model(model: &ModelProto, path: &Path) -> Result<(), ModelError> {
    std::fs::write(path, model.encode_to_vec()).map_err(|source| ModelError::Write { path: path.to_path_buf(), source })
}
