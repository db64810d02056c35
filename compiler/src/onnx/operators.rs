//! Which function imports which operator, and what to say about the others.

use std::rc::Rc;

use super::call::{Call, Draft, Value};
use super::error::{Outcome, Problem, fault};
use super::node::NodeView;
use super::{activations, arithmetic, constants, linear, pieces, pool, reshape, resize, tail};

/// Whether the operator's result has its first operand's shape.
pub(super) fn keeps_shape(operator: &str) -> bool {
    let own = ["BatchNormalization", "Identity", "Dropout", "Cast", "Softmax"];
    own.contains(&operator) || activations::OPERATORS.contains(&operator) || matches!(advice(operator), Some((_, true)))
}

/// What to do instead of an unsupported operator, and whether it keeps its operand's shape.
fn advice(operator: &str) -> Option<(&'static str, bool)> {
    Some(match operator {
        "HardSwish" => ("retrain the network with Relu, or with HardSigmoid, Clip or PRelu, in its place", true),
        "Elu" | "Selu" | "Celu" | "Gelu" | "Mish" | "Sigmoid" | "Tanh" | "Softplus" | "Softsign" | "Swish" | "Erf"
        | "ThresholdedRelu" => ("retrain the network with Relu in its place", true),
        "Exp" | "Log" | "Sqrt" | "Reciprocal" | "Pow" | "Abs" | "Neg" | "Floor" | "Ceil" | "Round" | "Sign" => {
            ("remove it, or fold it into the weights if it works on constants", true)
        }
        "LRN"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "GroupNormalization"
        | "LpNormalization"
        | "MeanVarianceNormalization" => ("retrain the network with BatchNormalization in its place", true),
        "LogSoftmax" => ("let the network end in Softmax, or in the logits before it (`--output-name NAME`)", true),
        "ConvTranspose" => ("use a network without transposed convolutions", false),
        "ArgMin" | "TopK" => {
            ("let the network end in its logits (`--output-name NAME`) and pick the class from them", false)
        }
        "If" | "Loop" | "Scan" => {
            ("export the model for inference with fixed shapes (onnxsim removes such nodes)", false)
        }
        "QuantizeLinear"
        | "DequantizeLinear"
        | "QLinearConv"
        | "QLinearMatMul"
        | "ConvInteger"
        | "MatMulInteger"
        | "DynamicQuantizeLinear" => ("export the float network; this compiler quantizes it itself", false),
        "LSTM" | "GRU" | "RNN" | "Attention" | "MultiHeadAttention" | "Einsum" => {
            ("only convolutional networks are supported", false)
        }
        _ => return None,
    })
}

const SUPPORTED: &[&str] = &[
    "Add",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "Div",
    "Dropout",
    "Equal",
    "Expand",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "ReduceMax",
    "ReduceMean",
    "Reshape",
    "Resize",
    "Shape",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Transpose",
    "Unsqueeze",
    "Upsample",
    "Where",
    "Size",
    "ReduceProd",
    "Range",
    "Floor",
    "Neg",
];

/// Whether the operator is known at all.
pub(super) fn check(view: &NodeView<'_>) -> Outcome<()> {
    let operator = view.operator();
    if !matches!(view.proto.domain.as_str(), "" | "ai.onnx") {
        let domain = view.proto.domain.clone();
        return Err(fault(Problem::Domain(domain), "export the model with standard ONNX operators only"));
    }
    if !SUPPORTED.contains(&operator) && !activations::OPERATORS.contains(&operator) {
        return Err(unsupported(operator));
    }
    Ok(())
}

/// Imports one node over its operands; the values of its first outputs.
pub(super) fn import<'m>(draft: &mut Draft, view: &NodeView<'m>, operands: Vec<Option<Value>>) -> Outcome<Vec<Value>> {
    let operator = view.operator();
    let mut call = Call { draft, view, operands };
    if call.operands.iter().flatten().all(|v| matches!(v, Value::Literal(_)))
        && let Some(literal) = constants::evaluate(&mut call)?
    {
        return Ok(vec![Value::Literal(Rc::new(literal))]);
    }
    let traced = match operator {
        "Conv" => linear::conv(&mut call)?,
        "BatchNormalization" => linear::batch_norm(&mut call)?,
        "Gemm" => linear::gemm(&mut call)?,
        "MatMul" => linear::matmul(&mut call)?,
        a if activations::OPERATORS.contains(&a) => activations::import(&mut call)?,
        "Add" | "Sub" | "Mul" | "Div" => arithmetic::binary(&mut call)?,
        "Sum" => arithmetic::sum(&mut call)?,
        "MaxPool" => pool::max_pool(&mut call)?,
        "AveragePool" => pool::average_pool(&mut call)?,
        "GlobalAveragePool" | "GlobalMaxPool" => pool::global(&mut call)?,
        "ReduceMean" | "ReduceMax" => pool::reduce(&mut call)?,
        "Pad" => reshape::pad(&mut call)?,
        "Transpose" => reshape::transpose(&mut call)?,
        "Flatten" => reshape::flatten(&mut call)?,
        "Reshape" => reshape::reshape(&mut call)?,
        "Squeeze" => reshape::squeeze(&mut call)?,
        "Unsqueeze" => reshape::unsqueeze(&mut call)?,
        "Identity" | "Dropout" | "Cast" => reshape::identity(&mut call)?,
        "Softmax" => reshape::softmax(&mut call)?,
        "ArgMax" => tail::argmax(&mut call)?,
        "Concat" => pieces::concat(&mut call)?,
        "Slice" => pieces::slice(&mut call)?,
        "Split" => return pieces::split(&mut call),
        "Resize" | "Upsample" => resize::resize(&mut call)?,
        "Expand" => resize::expand(&mut call)?,
        "Shape" => return Ok(vec![Value::Literal(Rc::new(constants::shape_of(&call)?))]),
        "Size" => return Ok(vec![Value::Literal(Rc::new(constants::size_of(&call)?))]),
        _ => return Err(unsupported(operator)),
    };
    Ok(vec![Value::Traced(traced)])
}

fn unsupported(operator: &str) -> super::error::Stop {
    let constants_only =
        "it is supported on constants only; remove it from the path between input and output, or simplify the model";
    let general = if SUPPORTED.contains(&operator) {
        constants_only
    } else {
        "remove it or replace it by convolutions, Relu, additions and pools"
    };
    fault(Problem::Operator(operator.into()), advice(operator).map_or(general, |(a, _)| a))
}
