//! Constructors of node attributes.

use tract_onnx::pb::{AttributeProto, TensorProto, attribute_proto::AttributeType};

fn new(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: kind as i32, ..AttributeProto::default() }
}

/// An integer.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: value, ..new(name, AttributeType::Int) }
}

/// A list of integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..new(name, AttributeType::Ints) }
}

/// A float.
pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: value, ..new(name, AttributeType::Float) }
}

/// A list of floats.
pub fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto { floats: values.to_vec(), ..new(name, AttributeType::Floats) }
}

/// A string.
pub fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: value.as_bytes().to_vec(), ..new(name, AttributeType::String) }
}

/// A list of strings.
pub fn strings(name: &str, values: &[&str]) -> AttributeProto {
    AttributeProto {
        strings: values.iter().map(|v| v.as_bytes().to_vec()).collect(),
        ..new(name, AttributeType::Strings)
    }
}

/// A tensor.
pub fn tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(value), ..new(name, AttributeType::Tensor) }
}
