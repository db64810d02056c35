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

/// The network's input.
pub(super) struct Input {
    /// Its shape, with a batch of 1.
    pub(super) shape: Vec<usize>,
    /// The declared batch size, where it is fixed and above 1.
    pub(super) batch: Option<i64>,
    /// Declared and given shape, where they differ in height or width.
    pub(super) resized: Option<String>,
}

/// Sizes of a value's shape, `None` where they are open.
pub(super) fn declared(info: &ValueInfoProto) -> Option<Vec<Option<i64>>> {
    let Some(Type::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else { return None };
    let size = |d: &Dim| match d {
        Dim::DimValue(v) => Some(*v),
        Dim::DimParam(_) => None,
    };
    tensor.shape.as_ref().map(|s| s.dim.iter().map(|d| d.value.as_ref().and_then(size)).collect())
}

/// Whether a given shape is the declared one but for open sizes, `Ok(true)` if but for height and width too.
fn agree(declared: &[Option<i64>], given: &[usize]) -> Result<bool, ()> {
    if declared.len() != given.len() {
        return Err(());
    }
    let differs = |i: &usize| declared[*i].is_some_and(|d| d > 0 && usize::try_from(d) != Ok(given[*i]));
    let few = |d: Option<i64>| d.is_some_and(|d| (1..=4).contains(&d));
    let maps: &[usize] = match declared {
        [_, c, _, last] if few(*last) && !few(*c) => &[1, 2],
        [_, _, _, _] => &[2, 3],
        _ => &[],
    };
    let differing: Vec<usize> = (1..given.len()).filter(differs).collect();
    if differing.iter().all(|i| maps.contains(i)) { Ok(!differing.is_empty()) } else { Err(()) }
}

/// Reads the declared input, with the sizes that the options give.
pub(super) fn input_shape(info: &ValueInfoProto, options: &ImportOptions) -> Outcome<Input> {
    let kind = info.r#type.as_ref().and_then(|t| t.value.as_ref());
    let tensor = kind.map(|Type::TensorType(t)| t);
    let element =
        tensor.map_or(DataType::Undefined, |t| DataType::try_from(t.elem_type).unwrap_or(DataType::Undefined));
    if !matches!(element, DataType::Float | DataType::Float16 | DataType::Double | DataType::Bfloat16) {
        let remedy = "export a model whose input is a float tensor, and convert pixels before the network";
        return Err(fault(Problem::ElementType(element.as_str_name().into()), remedy));
    }
    let declared = declared(info);
    let text = declared.as_ref().map_or("unknown".to_string(), |d| {
        let sizes: Vec<String> = d.iter().map(|v| v.map_or("?".into(), |v| v.to_string())).collect();
        format!("[{}]", sizes.join(", "))
    });
    let ranks = "the input must be an image [batch, channels, height, width] or [batch, height, width, channels], \
                 or a vector [batch, features]";
    let mut resized = None;
    let (shape, batch) = match (&options.input_shape, declared) {
        (Some(given), declared) => {
            match declared.as_ref().map_or(Ok(false), |d| agree(d, given)) {
                Ok(false) => {}
                Ok(true) => {
                    resized = Some(format!(
                        "the model declares an input of {text} and is imported for {given:?} (--input-shape), and this \
                         node does not follow: use the declared size, or export the model with open sizes"
                    ));
                }
                Err(()) => {
                    let remedy = format!(
                        "the given input shape {given:?} contradicts the file; give one that agrees with it in all but \
                         height and width"
                    );
                    return Err(fault(Problem::InputShape(text), remedy));
                }
            }
            if given.first() != Some(&1) {
                let remedy = format!("the given input shape {given:?} must begin with a batch of 1");
                return Err(fault(Problem::InputShape(text), remedy));
            }
            let batch = declared.and_then(|d| d.first().copied().flatten()).filter(|b| *b > 1);
            (given.clone(), batch)
        }
        (None, None) => {
            let remedy = "give its shape (ImportOptions::input_shape, `--input-shape 1xCxHxW`)";
            return Err(fault(Problem::InputShape(text), remedy));
        }
        (None, Some(declared)) => {
            let fixed: Vec<Option<usize>> =
                declared.iter().skip(1).map(|d| d.and_then(|d| usize::try_from(d).ok()).filter(|d| *d > 0)).collect();
            let Some(rest) = fixed.into_iter().collect::<Option<Vec<usize>>>() else {
                let remedy = "give its shape (ImportOptions::input_shape, `--input-shape 1xCxHxW`), \
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
    Ok(Input { shape, batch, resized })
}
