//! The shape of the network's input.

use tract_onnx::pb::ValueInfoProto;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dim;
use tract_onnx::pb::type_proto::Value as Type;

use super::ImportOptions;
use super::error::{Outcome, Problem, fault};
use super::literal::checked_len;

/// Most elements of the input.
const MAX_INPUT: usize = 1 << 27;

/// Shape of the declared input with a batch of 1, and the declared batch size where it is fixed
/// and above 1.
pub(super) fn input_shape(info: &ValueInfoProto, options: &ImportOptions) -> Outcome<(Vec<usize>, Option<i64>)> {
    let kind = info.r#type.as_ref().and_then(|t| t.value.as_ref());
    let tensor = kind.map(|Type::TensorType(t)| t);
    let element =
        tensor.map_or(DataType::Undefined, |t| DataType::try_from(t.elem_type).unwrap_or(DataType::Undefined));
    if !matches!(element, DataType::Float | DataType::Float16 | DataType::Double | DataType::Bfloat16) {
        let remedy = "export a model whose input is a float tensor, and convert pixels before the network";
        return Err(fault(Problem::ElementType(element.as_str_name().into()), remedy));
    }
    let declared: Option<Vec<Option<i64>>> = tensor.and_then(|t| t.shape.as_ref()).map(|s| {
        let size = |d: &Dim| match d {
            Dim::DimValue(v) => Some(*v),
            Dim::DimParam(_) => None,
        };
        s.dim.iter().map(|d| d.value.as_ref().and_then(size)).collect()
    });
    let text = declared.as_ref().map_or("unknown".to_string(), |d| {
        let sizes: Vec<String> = d.iter().map(|v| v.map_or("?".into(), |v| v.to_string())).collect();
        format!("[{}]", sizes.join(", "))
    });
    let ranks = "the input must be an image [batch, channels, height, width] or [batch, height, width, channels], \
                 or a vector [batch, features]";
    let (shape, batch) = match (&options.input_shape, declared) {
        (Some(given), declared) => {
            let clash = |d: &Vec<Option<i64>>| {
                d.len() != given.len()
                    || d.iter()
                        .zip(given)
                        .skip(1)
                        .any(|(d, g)| d.is_some_and(|d| d > 0 && usize::try_from(d) != Ok(*g)))
            };
            if declared.as_ref().is_some_and(clash) {
                let remedy =
                    format!("the given input shape {given:?} contradicts the file; give one that agrees with it");
                return Err(fault(Problem::InputShape(text), remedy));
            }
            if given.first() != Some(&1) {
                let remedy = format!("the given input shape {given:?} must begin with a batch of 1");
                return Err(fault(Problem::InputShape(text), remedy));
            }
            let batch = declared.and_then(|d| d.first().copied().flatten()).filter(|b| *b > 1);
            (given.clone(), batch)
        }
        (None, None) => {
            let remedy = "give its shape (ImportOptions::input_shape, `--input-shape 1,C,H,W`)";
            return Err(fault(Problem::InputShape(text), remedy));
        }
        (None, Some(declared)) => {
            let fixed: Vec<Option<usize>> =
                declared.iter().skip(1).map(|d| d.and_then(|d| usize::try_from(d).ok()).filter(|d| *d > 0)).collect();
            let Some(rest) = fixed.into_iter().collect::<Option<Vec<usize>>>() else {
                let remedy = "give its shape (ImportOptions::input_shape, `--input-shape 1,C,H,W`), \
                              or export the model with fixed sizes";
                return Err(fault(Problem::InputShape(text), remedy));
            };
            let batch = declared.first().copied().flatten().filter(|b| *b > 1);
            (std::iter::once(1).chain(rest).collect(), batch)
        }
    };
    if !matches!(shape.len(), 2 | 4) || shape.contains(&0) {
        return Err(fault(Problem::InputShape(text), ranks));
    }
    if checked_len(&shape, MAX_INPUT).is_none() {
        return Err(fault(Problem::TooLarge(format!("an input of shape {text}")), ranks));
    }
    Ok((shape, batch))
}
