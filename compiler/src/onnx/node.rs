//! A node of the file with typed access to its attributes.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};

use super::error::{Outcome, Problem, REEXPORT, Stop, fault};

/// Most taps, steps and padding of a window on one axis.
const MAX_EXTENT: i64 = 1 << 16;

/// A node, the name that messages and the graph use for it, and its operator set.
pub(super) struct NodeView<'m> {
    pub(super) proto: &'m NodeProto,
    pub(super) name: String,
    pub(super) opset: i64,
}

impl<'m> NodeView<'m> {
    pub(super) fn operator(&self) -> &'m str {
        &self.proto.op_type
    }

    /// Refuses attributes that the importer does not know: their effect would be lost.
    pub(super) fn only(&self, known: &[&str]) -> Outcome<()> {
        match self.proto.attribute.iter().find(|a| !known.contains(&a.name.as_str())) {
            None => Ok(()),
            Some(a) => Err(self.bad_attribute(&a.name, "is not known for this operator", "remove it from the node")),
        }
    }

    pub(super) fn bad_attribute(&self, name: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Stop {
        fault(Problem::Attribute { name: name.into(), reason: reason.into() }, remedy)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.proto.attribute.iter().any(|a| a.name == name)
    }

    fn attribute(&self, name: &str, kind: AttributeType) -> Outcome<Option<&'m AttributeProto>> {
        let Some(a) = self.proto.attribute.iter().find(|a| a.name == name) else { return Ok(None) };
        if !a.ref_attr_name.is_empty() {
            return Err(self.bad_attribute(name, "refers to a function's attribute", "inline the model's functions"));
        }
        // Files older than IR version 2 leave the type out.
        if a.r#type != kind as i32 && a.r#type != AttributeType::Undefined as i32 {
            let reason = format!("is not of type {}", kind.as_str_name());
            return Err(self.bad_attribute(name, reason, REEXPORT));
        }
        Ok(Some(a))
    }

    pub(super) fn int(&self, name: &str) -> Outcome<Option<i64>> {
        Ok(self.attribute(name, AttributeType::Int)?.map(|a| a.i))
    }

    /// An attribute that is 0 or 1.
    pub(super) fn flag(&self, name: &str, default: bool) -> Outcome<bool> {
        match self.int(name)? {
            None => Ok(default),
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(v) => Err(self.bad_attribute(name, format!("is {v}, neither 0 nor 1"), REEXPORT)),
        }
    }

    pub(super) fn float(&self, name: &str, default: f32) -> Outcome<f32> {
        match self.attribute(name, AttributeType::Float)?.map(|a| a.f) {
            None => Ok(default),
            Some(v) if v.is_finite() => Ok(v),
            Some(v) => Err(self.bad_attribute(name, format!("is {v}"), REEXPORT)),
        }
    }

    pub(super) fn floats(&self, name: &str) -> Outcome<Option<&'m [f32]>> {
        Ok(self.attribute(name, AttributeType::Floats)?.map(|a| a.floats.as_slice()))
    }

    pub(super) fn ints(&self, name: &str) -> Outcome<Option<&'m [i64]>> {
        Ok(self.attribute(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }

    pub(super) fn string(&self, name: &str) -> Outcome<Option<String>> {
        Ok(self.attribute(name, AttributeType::String)?.map(|a| String::from_utf8_lossy(&a.s).into_owned()))
    }

    pub(super) fn tensor(&self, name: &str) -> Outcome<Option<&'m TensorProto>> {
        Ok(self.attribute(name, AttributeType::Tensor)?.and_then(|a| a.t.as_ref()))
    }

    /// `N` sizes of at least `least`, such as strides; `None` where the attribute is absent.
    pub(super) fn extents<const N: usize>(&self, name: &str, least: i64) -> Outcome<Option<[usize; N]>> {
        let Some(values) = self.ints(name)? else { return Ok(None) };
        let Ok(list) = <[i64; N]>::try_from(values) else {
            let reason = format!("has {} values where {N} belong to a two-dimensional map", values.len());
            return Err(self.bad_attribute(name, reason, "only two-dimensional operators are supported"));
        };
        if let Some(v) = list.iter().find(|v| **v < least) {
            let remedy = if *v < 0 && name == "pads" { "crop before the operator instead" } else { REEXPORT };
            return Err(self.bad_attribute(name, format!("holds {v}, below {least}"), remedy));
        }
        if let Some(v) = list.iter().find(|v| **v > MAX_EXTENT) {
            return Err(fault(Problem::TooLarge(format!("attribute `{name}` with {v}")), REEXPORT));
        }
        Ok(Some(list.map(|v| v as usize)))
    }
}

/// Axis `axis` of `rank`, counted from the end where negative.
pub(super) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    (0..rank).contains(&axis).then_some(axis as usize)
}
