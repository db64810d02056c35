//! An ONNX file run by tract: the float reference for tests and demonstrations.

use std::path::Path;
use std::sync::Arc;

use prost::Message;
use thiserror::Error;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceFact, InferenceModelExt, IntoRunnable, Tensor, TractResult, TypedRunnableModel, tvec,
};

/// tract does not run the model.
#[derive(Debug, Error)]
#[error("tract cannot run the model: {0}")]
pub struct OracleError(String);

/// A model ready to run on inputs of one shape.
pub struct Oracle {
    plan: Arc<TypedRunnableModel>,
    shape: Vec<usize>,
}

impl Oracle {
    /// Loads a file for one input of `shape`, `[1, ...]`.
    ///
    /// # Errors
    /// What tract finds wrong with the file or the shape.
    pub fn load(path: &Path, shape: &[usize]) -> Result<Self, OracleError> {
        let bytes = std::fs::read(path).map_err(|e| OracleError(format!("{}: {e}", path.display())))?;
        Self::from_bytes(&bytes, shape)
    }

    /// As [`load`](Self::load), from the bytes of a file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_bytes(bytes: &[u8], shape: &[usize]) -> Result<Self, OracleError> {
        let proto = ModelProto::decode(bytes).map_err(|e| OracleError(e.to_string()))?;
        let plan = || -> TractResult<Arc<TypedRunnableModel>> {
            let model = tract_onnx::onnx().model_for_proto_model(&proto)?;
            model.with_input_fact(0, InferenceFact::dt_shape(DatumType::F32, shape))?.into_optimized()?.into_runnable()
        };
        let plan = plan().map_err(|e| OracleError(format!("{e:#}")))?;
        Ok(Oracle { plan, shape: shape.to_vec() })
    }

    /// The first output for one input, row-major.
    ///
    /// # Errors
    /// A wrong number of input elements, or a failure inside tract.
    pub fn run(&self, input: &[f32]) -> Result<Vec<f32>, OracleError> {
        let run = || -> TractResult<Vec<f32>> {
            let input = Tensor::from_shape(&self.shape, input)?;
            let outputs = self.plan.run(tvec![input.into()])?;
            Ok(outputs[0].to_plain_array_view::<f32>()?.iter().copied().collect())
        };
        run().map_err(|e| OracleError(format!("{e:#}")))
    }
}
