//! Constant tensors: decoding from protobuf, and the little arithmetic that exporters leave on them.

use std::rc::Rc;

use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};

use super::error::{Outcome, Problem, REEXPORT, fault, mismatch};

/// Most elements of a constant.
pub(super) const MAX_CONST: usize = 1 << 27;

/// Elements of a [`Literal`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

impl Data {
    pub(super) fn len(&self) -> usize {
        match self {
            Data::Float(v) => v.len(),
            Data::Int(v) => v.len(),
        }
    }

    /// The elements at `positions`, in that order.
    fn pick(&self, positions: impl Iterator<Item = usize>) -> Data {
        match self {
            Data::Float(v) => Data::Float(positions.map(|i| v[i]).collect()),
            Data::Int(v) => Data::Int(positions.map(|i| v[i]).collect()),
        }
    }
}

/// A tensor known when compiling. Row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
}

/// Product of the sizes, unless it exceeds `limit`.
pub(super) fn checked_len(shape: &[usize], limit: usize) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= limit)
}

impl Literal {
    pub(super) fn ints(name: &str, data: Vec<i64>) -> Self {
        Literal { name: name.into(), shape: vec![data.len()], data: Data::Int(data) }
    }

    /// The elements as reals; all finite.
    pub(super) fn floats(&self) -> Outcome<Vec<f32>> {
        let v = match &self.data {
            Data::Float(v) => v.clone(),
            Data::Int(v) => v.iter().map(|&i| i as f32).collect(),
        };
        match v.iter().position(|x| !x.is_finite()) {
            None => Ok(v),
            Some(index) => Err(fault(
                Problem::NonFinite { tensor: self.name.clone(), index, value: v[index].into() },
                "train or convert the model again; a network with such a weight has no meaning",
            )),
        }
    }

    /// The elements as integers.
    pub(super) fn integers(&self) -> Outcome<&[i64]> {
        match &self.data {
            Data::Int(v) => Ok(v),
            Data::Float(_) => Err(self.bad("holds reals where integers belong")),
        }
    }

    fn bad(&self, reason: &str) -> super::error::Stop {
        bad(&self.name, reason)
    }

    /// The same elements in another shape of as many.
    pub(super) fn reshaped(&self, shape: Vec<usize>) -> Outcome<Literal> {
        if checked_len(&shape, MAX_CONST) != Some(self.data.len()) {
            return Err(mismatch(format!("{:?} does not hold as many elements as {shape:?}", self.shape)));
        }
        Ok(Literal { name: self.name.clone(), shape, data: self.data.clone() })
    }

    pub(super) fn transposed(&self, perm: &[usize]) -> Outcome<Literal> {
        let mut sorted = perm.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.shape.len()) {
            return Err(mismatch(format!("{perm:?} is no permutation of {} axes", self.shape.len())));
        }
        let strides = strides(&self.shape);
        let shape: Vec<usize> = perm.iter().map(|&p| self.shape[p]).collect();
        let steps: Vec<usize> = perm.iter().map(|&p| strides[p]).collect();
        Ok(self.picked(&shape, |at| at.iter().zip(&steps).map(|(i, s)| i * s).sum()))
    }

    /// A tensor of `shape` whose element at an index is this one's at flat position `source`.
    pub(super) fn picked(&self, shape: &[usize], source: impl Fn(&[usize]) -> usize) -> Literal {
        let mut positions = Vec::with_capacity(shape.iter().product());
        for_each_index(shape, |at| positions.push(source(at)));
        Literal { name: self.name.clone(), shape: shape.to_vec(), data: self.data.pick(positions.into_iter()) }
    }

    /// Element-wise `op` with NumPy broadcasting; integers stay integers.
    pub(super) fn binary(&self, other: &Literal, op: &str) -> Outcome<Literal> {
        let shape = broadcast(&self.shape, &other.shape)
            .ok_or_else(|| mismatch(format!("shapes {:?} and {:?} do not broadcast", self.shape, other.shape)))?;
        let len = checked_len(&shape, MAX_CONST).ok_or_else(|| too_large(&self.name, &shape))?;
        let mut pairs = Vec::with_capacity(len);
        let (left, right) = (broadcast_steps(&self.shape, &shape), broadcast_steps(&other.shape, &shape));
        for_each_index(&shape, |at| {
            let dot = |steps: &[usize]| -> usize { at.iter().zip(steps).map(|(i, s)| i * s).sum() };
            pairs.push((dot(&left), dot(&right)));
        });
        let data = match (&self.data, &other.data) {
            (Data::Int(a), Data::Int(b)) => {
                let f = |x: i64, y: i64| match op {
                    "Add" => x.checked_add(y),
                    "Sub" => x.checked_sub(y),
                    "Mul" => x.checked_mul(y),
                    _ => x.checked_div(y),
                };
                let values: Option<Vec<i64>> = pairs.iter().map(|&(i, j)| f(a[i], b[j])).collect();
                Data::Int(values.ok_or_else(|| mismatch("integer arithmetic overflows or divides by zero"))?)
            }
            (Data::Float(a), Data::Float(b)) => {
                let f = |x: f32, y: f32| match op {
                    "Add" => x + y,
                    "Sub" => x - y,
                    "Mul" => x * y,
                    _ => x / y,
                };
                Data::Float(pairs.iter().map(|&(i, j)| f(a[i], b[j])).collect())
            }
            _ => return Err(mismatch(format!("`{}` and `{}` have different types", self.name, other.name))),
        };
        Ok(Literal { name: self.name.clone(), shape, data })
    }

    /// Parts joined along `axis`.
    pub(super) fn concat(parts: &[Rc<Literal>], axis: usize) -> Outcome<Literal> {
        let first = &parts[0];
        let outside =
            |s: &[usize]| s.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, d)| *d).collect::<Vec<_>>();
        if axis >= first.shape.len()
            || parts.iter().any(|p| p.shape.len() != first.shape.len() || outside(&p.shape) != outside(&first.shape))
        {
            return Err(mismatch("parts of a constant Concat do not fit each other"));
        }
        let mut shape = first.shape.clone();
        shape[axis] = parts.iter().map(|p| p.shape[axis]).sum();
        checked_len(&shape, MAX_CONST).ok_or_else(|| too_large(&first.name, &shape))?;
        let outer: usize = shape[..axis].iter().product();
        let inner: usize = shape[axis + 1..].iter().product();
        let mut ints = Vec::new();
        let mut reals = Vec::new();
        for o in 0..outer {
            for p in parts {
                let run = p.shape[axis] * inner;
                match &p.data {
                    Data::Int(v) => ints.extend_from_slice(&v[o * run..(o + 1) * run]),
                    Data::Float(v) => reals.extend_from_slice(&v[o * run..(o + 1) * run]),
                }
            }
        }
        let data = match (ints.is_empty(), reals.is_empty()) {
            (_, true) => Data::Int(ints),
            (true, _) => Data::Float(reals),
            _ => return Err(mismatch("parts of a constant Concat have different types")),
        };
        Ok(Literal { name: first.name.clone(), shape, data })
    }

    /// Decodes a tensor of the file.
    pub(super) fn decode(proto: &TensorProto, name: &str) -> Outcome<Literal> {
        if proto.data_location == Some(DataLocation::External as i32) {
            let location = proto.external_data.iter().find(|e| e.key == "location");
            return Err(fault(
                Problem::External {
                    tensor: name.into(),
                    file: location.map_or_else(|| "an unnamed file".into(), |e| e.value.clone()),
                },
                "save the model as one file (onnx.save with save_as_external_data=False)",
            ));
        }
        if proto.segment.is_some() {
            return Err(bad(name, "is stored in segments"));
        }
        let shape: Option<Vec<usize>> = proto.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let shape = shape.ok_or_else(|| bad(name, &format!("has the impossible shape {:?}", proto.dims)))?;
        let len = checked_len(&shape, MAX_CONST).ok_or_else(|| too_large(name, &shape))?;
        let kind = DataType::try_from(proto.data_type).unwrap_or(DataType::Undefined);
        let data = elements(proto, kind, name, len)?;
        if data.len() != len {
            return Err(bad(name, &format!("of shape {shape:?} needs {len} elements and holds {}", data.len())));
        }
        Ok(Literal { name: name.into(), shape, data })
    }
}

fn elements(proto: &TensorProto, kind: DataType, name: &str, len: usize) -> Outcome<Data> {
    let raw = &proto.raw_data;
    // Every element type is read from raw bytes where there are any, from its own field otherwise.
    macro_rules! read {
        ($ty:ty, $field:expr, $convert:expr) => {
            if raw.is_empty() {
                $field
            } else {
                let size = size_of::<$ty>();
                if raw.len() != len * size {
                    return Err(bad(name, &format!("needs {} bytes of data and holds {}", len * size, raw.len())));
                }
                let chunks = raw.chunks_exact(size);
                chunks
                    .map(|c| <$ty>::from_le_bytes(c.try_into().expect("chunks have the size of the type")))
                    .map($convert)
                    .collect()
            }
        };
    }
    let ints32 = || proto.int32_data.iter().copied();
    Ok(match kind {
        DataType::Float => Data::Float(read!(f32, proto.float_data.clone(), |x| x)),
        DataType::Double => {
            let wide: Vec<f64> = read!(f64, proto.double_data.clone(), |x| x);
            if let Some(i) = wide.iter().position(|x| x.is_finite() && !(*x as f32).is_finite()) {
                return Err(bad(name, &format!("holds {} at element {i}, beyond 32-bit floats", wide[i])));
            }
            Data::Float(wide.into_iter().map(|x| x as f32).collect())
        }
        DataType::Float16 => Data::Float(read!(u16, ints32().map(|x| half(x as u16)).collect(), half)),
        DataType::Bfloat16 => {
            let widen = |x: u16| f32::from_bits(u32::from(x) << 16);
            Data::Float(read!(u16, ints32().map(|x| widen(x as u16)).collect(), widen))
        }
        DataType::Int64 => Data::Int(read!(i64, proto.int64_data.clone(), |x| x)),
        DataType::Int32 => Data::Int(read!(i32, ints32().map(i64::from).collect(), i64::from)),
        DataType::Int16 => Data::Int(read!(i16, ints32().map(i64::from).collect(), i64::from)),
        DataType::Int8 => Data::Int(read!(i8, ints32().map(i64::from).collect(), i64::from)),
        DataType::Uint16 => Data::Int(read!(u16, ints32().map(i64::from).collect(), i64::from)),
        DataType::Uint8 | DataType::Bool => Data::Int(read!(u8, ints32().map(i64::from).collect(), i64::from)),
        other => {
            return Err(bad(name, &format!("has the element type {}, which is not supported", other.as_str_name())));
        }
    })
}

/// A 16-bit float; every one has an exact 32-bit value.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1.0 + fraction / 1024.0) * 2f32.powi(e - 15),
    }
}

fn bad(name: &str, reason: &str) -> super::error::Stop {
    fault(Problem::Tensor { name: name.into(), reason: reason.into() }, REEXPORT)
}

pub(super) fn too_large(name: &str, shape: &[usize]) -> super::error::Stop {
    fault(Problem::TooLarge(format!("`{name}` of shape {shape:?}")), REEXPORT)
}

/// Row-major steps of a shape.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut steps = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        steps[i - 1] = steps[i].saturating_mul(shape[i]);
    }
    steps
}

/// Shape of an element-wise operation, or `None` where the shapes do not broadcast.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (size(a, i), size(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Steps of `shape` for an index into the larger `whole` that it broadcasts to.
pub(super) fn broadcast_steps(shape: &[usize], whole: &[usize]) -> Vec<usize> {
    let own = strides(shape);
    let skip = whole.len() - shape.len();
    (0..whole.len()).map(|i| if i < skip || shape[i - skip] == 1 { 0 } else { own[i - skip] }).collect()
}

/// Visits every index of a shape in row-major order.
pub(super) fn for_each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut at = vec![0; shape.len()];
    loop {
        visit(&at);
        let Some(axis) = (0..shape.len()).rev().find(|&i| at[i] + 1 < shape[i]) else { return };
        at[axis] += 1;
        at[axis + 1..].fill(0);
    }
}
