//! Small ONNX models, written as protobuf, and how they are compared.

use bcc_compiler::float::{Executor, apply_epilogue};
use bcc_compiler::onnx::{ImportErrors, ImportOptions, Oracle, import_bytes};
use bcc_compiler::passes::{canonicalize, fold};
use bcc_ir::graph::{Graph, Stage, verify};
use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as Dim};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, type_proto,
};

/// A deterministic source of numbers.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    pub fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..Default::default() }
}

pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Float as i32, f, ..Default::default() }
}

pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Ints as i32, ints: ints.to_vec(), ..Default::default() }
}

pub fn string(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::String as i32, s: s.into(), ..Default::default() }
}

pub fn tensor(name: &str, t: TensorProto) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Tensor as i32, t: Some(t), ..Default::default() }
}

pub fn reals(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    let (name, dims, data_type) = (name.into(), dims.to_vec(), DataType::Float as i32);
    TensorProto { name, dims, data_type, float_data: data.to_vec(), ..Default::default() }
}

pub fn longs(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    let raw_data = data.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Int64 as i32,
        raw_data,
        ..Default::default()
    }
}

fn info(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| {
        let value = if d < 0 { Dim::DimParam(format!("N{}", -d)) } else { Dim::DimValue(d) };
        Dimension { value: Some(value), ..Default::default() }
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { value, ..Default::default() }), ..Default::default() }
}

/// A model under construction: input `x`; the last node's first output is the output.
pub struct Model {
    pub proto: ModelProto,
    pub shape: Vec<i64>,
}

impl Model {
    /// `shape` with negative entries for symbolic sizes.
    pub fn new(opset: i64, shape: &[i64]) -> Self {
        let graph = GraphProto { name: "g".into(), input: vec![info("x", shape)], ..Default::default() };
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
        Model {
            proto: ModelProto { ir_version: 7, opset_import, graph: Some(graph), ..Default::default() },
            shape: shape.to_vec(),
        }
    }

    pub fn graph(&mut self) -> &mut GraphProto {
        self.proto.graph.as_mut().unwrap()
    }

    pub fn weight(&mut self, name: &str, dims: &[i64], data: &[f32]) -> String {
        self.graph().initializer.push(reals(name, dims, data));
        name.into()
    }

    pub fn random(&mut self, rng: &mut Rng, name: &str, dims: &[i64]) -> String {
        let data = rng.floats(dims.iter().product::<i64>() as usize);
        self.weight(name, dims, &data)
    }

    pub fn longs(&mut self, name: &str, data: &[i64]) -> String {
        self.graph().initializer.push(longs(name, &[data.len() as i64], data));
        name.into()
    }

    /// Adds a node named `n_<output>` that computes `output`.
    pub fn node(&mut self, op: &str, output: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        self.graph().node.push(NodeProto {
            op_type: op.into(),
            name: format!("n_{output}"),
            input: inputs.iter().map(|s| (*s).to_string()).collect(),
            output: vec![output.into()],
            attribute,
            ..Default::default()
        });
        output.into()
    }

    pub fn bytes(&mut self) -> Vec<u8> {
        let graph = self.graph();
        if graph.output.is_empty() {
            let last = graph.node.last().unwrap().output[0].clone();
            let mut output = info(&last, &[]);
            // The shape stays open.
            if let Some(type_proto::Value::TensorType(t)) = output.r#type.as_mut().and_then(|t| t.value.as_mut()) {
                t.shape = None;
            }
            graph.output.push(output);
        }
        self.proto.encode_to_vec()
    }

    pub fn import(&mut self) -> Result<Graph, ImportErrors> {
        import_bytes(&self.bytes(), &ImportOptions::default())
    }

    /// The message of a model that must be refused.
    pub fn refusal(&mut self) -> String {
        match self.import() {
            Ok(g) => panic!("imported as\n{g:?}"),
            Err(e) => e.to_string(),
        }
    }

    /// Compares the graph, as imported and after fold and canonicalize, with tract.
    pub fn check(&mut self, rng: &mut Rng, what: &str) -> Graph {
        let bytes = self.bytes();
        let shape: Vec<usize> =
            self.shape.iter().enumerate().map(|(i, &d)| if i == 0 { 1 } else { d as usize }).collect();
        let graph = self.import().unwrap_or_else(|e| panic!("{what}: {e}"));
        let oracle = Oracle::from_bytes(&bytes, &shape).unwrap_or_else(|e| panic!("{what}: {e}"));
        let input = rng.floats(shape.iter().product());
        let want = oracle.run(&input).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_close(&evaluate(&graph, &input), &want, 1e-4, what);
        check_passes(&graph, &input, what);
        graph
    }
}

/// Output of a graph after the client's steps.
pub fn evaluate(graph: &Graph, input: &[f32]) -> Vec<f32> {
    let value = Executor::try_new(graph).unwrap().run(input);
    apply_epilogue(&graph.epilogue, value, &graph.node(graph.output().unwrap()).shape).0
}

/// fold and canonicalize preserve what a graph computes.
pub fn check_passes(graph: &Graph, input: &[f32], what: &str) {
    let sound = |graph: &Graph, stage| verify(graph, stage).unwrap_or_else(|e| panic!("{what}, {stage:?}: {e}"));
    sound(graph, Stage::Imported);
    let want = evaluate(graph, input);
    let mut graph = graph.clone();
    fold::run(&mut graph).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_close(&evaluate(&graph, input), &want, 1e-4, &format!("{what}, folded"));
    canonicalize::run(&mut graph).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_close(&evaluate(&graph, input), &want, 1e-4, &format!("{what}, canonical"));
    sound(&graph, Stage::Canonical);
    for id in graph.topo() {
        let node = graph.node(id);
        assert!(!node.origin.is_empty(), "{what}: `{}` stands for no ONNX node", node.name);
        assert!(!matches!(node.op.name(), "affine" | "identity" | "max_pool"), "{what}: `{}` is left", node.name);
    }
}

/// Differences of at most `tolerance` times the largest magnitude.
pub fn assert_close(have: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(have.len(), want.len(), "{what}: number of elements");
    let scale = want.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in have.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}: element {i} is {a}, not {b} (scale {scale})");
    }
}
