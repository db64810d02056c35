//! What a model contains, found by shape inference, independent of how it was built.

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{Framework, InferenceModelExt};
use tract_onnx::tract_hir::infer::Factoid;

use crate::error::ModelError;

/// The ReLUs of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReluCount {
    /// `Relu` nodes.
    pub layers: usize,
    /// Their output elements for one image.
    pub elements: usize,
}

/// Counts the `Relu` nodes of `model` and their output elements, the first dimension, taken to be
/// the batch, left out.
///
/// # Errors
/// [`ModelError::Inspect`] if shape inference fails or leaves the shape of a ReLU open.
pub fn relu_count(model: &ModelProto) -> Result<ReluCount, ModelError> {
    let failed = |message: String| ModelError::Inspect(message);
    let mut inferred = tract_onnx::onnx().model_for_proto_model(model).map_err(|e| failed(format!("{e:#}")))?;
    inferred.analyse(true).map_err(|e| failed(format!("{e:#}")))?;
    let nodes = model.graph.iter().flat_map(|g| &g.node);
    let mut count = ReluCount::default();
    for relu in nodes.filter(|n| n.op_type == "Relu") {
        let open = || failed(format!("the shape of `{}` is not known", relu.name));
        let node = inferred.node_by_name(&relu.name).map_err(|_| open())?;
        let mut elements = 1;
        for dim in node.outputs[0].fact.shape.dims().skip(1) {
            let size = dim.concretize().ok_or_else(open)?;
            elements *= usize::try_from(size.to_i64().map_err(|_| open())?).map_err(|_| open())?;
        }
        count.layers += 1;
        count.elements += elements;
    }
    Ok(count)
}
