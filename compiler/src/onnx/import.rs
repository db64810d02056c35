//! The walk over the file's nodes: names, order, values, and the errors of all of them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::rc::Rc;

use bcc_ir::graph::Graph;
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto, ValueInfoProto};

use super::call::{Draft, Traced, Value};
use super::error::{ImportError, Outcome, Problem, REEXPORT, Site, Stop, fault};
use super::input::{Input, declared, input_shape};
use super::literal::{Literal, checked_len};
use super::node::NodeView;
use super::tail::move_to_client;
use super::{ImportOptions, operators};

/// Operator sets whose semantics are known here.
pub(super) const OPSETS: std::ops::RangeInclusive<i64> = 7..=21;

pub(super) struct Importer<'m> {
    draft: Draft,
    errors: Vec<ImportError>,
    values: HashMap<&'m str, Value>,
    initializers: HashMap<&'m str, &'m TensorProto>,
    /// Values whose shape the file declares.
    declared: HashMap<&'m str, &'m ValueInfoProto>,
}

impl<'m> Importer<'m> {
    /// Imports a decoded model; the graph means nothing where there are errors.
    pub(super) fn run(model: &'m ModelProto, options: &ImportOptions) -> (Graph, Vec<ImportError>) {
        let mut importer = Importer {
            draft: Draft { graph: Graph::new(""), batch: None, resized: None },
            errors: Vec::new(),
            values: HashMap::new(),
            initializers: HashMap::new(),
            declared: HashMap::new(),
        };
        importer.model(model, options);
        (importer.draft.graph, importer.errors)
    }

    fn report(&mut self, site: Site, problem: Problem, remedy: impl Into<String>) {
        self.errors.push(ImportError { site, problem, remedy: remedy.into() });
    }

    fn report_stop(&mut self, site: Site, stop: Stop) {
        if let Stop::Fault { problem, remedy } = stop {
            self.report(site, problem, remedy);
        }
    }

    fn model(&mut self, model: &'m ModelProto, options: &ImportOptions) {
        let Some(proto) = &model.graph else {
            let problem = Problem::Malformed("it holds no graph".into());
            return self.report(Site::File, problem, "check that this is the right file, and complete");
        };
        self.draft.graph.name = options.name.clone().unwrap_or_else(|| proto.name.clone());
        let opset = model.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx").map(|o| o.version);
        let convert = format!(
            "convert it to an opset from {} to {} (onnx.version_converter, or opset_version when exporting)",
            OPSETS.start(),
            OPSETS.end()
        );
        let opset = match opset {
            Some(v) if OPSETS.contains(&v) => v,
            Some(v) => return self.report(Site::File, Problem::Opset(v), convert),
            None => return self.report(Site::File, Problem::NoOpset, convert),
        };
        self.initializers = proto.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
        self.declared = proto.value_info.iter().map(|v| (v.name.as_str(), v)).collect();
        let names = node_names(proto);
        let Some(producers) = self.producers(proto, &names) else { return };
        let Some(output) = self.output_name(proto, options, &producers) else { return };
        let needed = needed_nodes(proto, &producers, output);
        let Some(order) = self.order(proto, &producers, &needed, &names) else { return };
        self.inputs(proto, options, &needed, output);
        for index in order {
            let view = NodeView { proto: &proto.node[index], name: names[index].clone(), opset };
            self.node(&view);
        }
        self.finish(output);
    }

    /// The node that computes each value.
    fn producers(&mut self, proto: &'m GraphProto, names: &[String]) -> Option<HashMap<&'m str, usize>> {
        let before = self.errors.len();
        let mut producers = HashMap::new();
        for (i, node) in proto.node.iter().enumerate() {
            for value in node.output.iter().filter(|v| !v.is_empty()) {
                let given =
                    self.initializers.contains_key(value.as_str()) || proto.input.iter().any(|p| p.name == *value);
                if producers.insert(value.as_str(), i).is_some() || given {
                    let site = Site::Node { name: names[i].clone(), operator: node.op_type.clone() };
                    self.report(site, Problem::ComputedTwice(value.clone()), REEXPORT);
                }
            }
        }
        (self.errors.len() == before).then_some(producers)
    }

    fn output_name(
        &mut self,
        proto: &'m GraphProto,
        options: &ImportOptions,
        producers: &HashMap<&'m str, usize>,
    ) -> Option<&'m str> {
        let declared: Vec<&'m str> = proto.output.iter().map(|o| o.name.as_str()).collect();
        match (&options.output, declared.as_slice()) {
            (Some(wish), _) => {
                let known = declared.iter().copied().chain(producers.keys().copied()).find(|n| n == wish);
                if known.is_none() {
                    let remedy = format!("choose one of the model's outputs ({}) or values", declared.join(", "));
                    self.report(Site::Output(wish.clone()), Problem::UnknownValue(wish.clone()), remedy);
                }
                known
            }
            (None, [one]) => Some(one),
            (None, several) => {
                let names = several.iter().map(|s| (*s).to_string()).collect();
                let remedy = "choose the one to compile (ImportOptions::output, `--output-name NAME`)";
                self.report(Site::File, Problem::Outputs(names), remedy);
                None
            }
        }
    }

    /// Needed nodes, operands before users and otherwise in the file's order.
    fn order(
        &mut self,
        proto: &'m GraphProto,
        producers: &HashMap<&'m str, usize>,
        needed: &BTreeSet<usize>,
        names: &[String],
    ) -> Option<Vec<usize>> {
        let mut missing: HashMap<usize, usize> = HashMap::new();
        let mut users: HashMap<usize, Vec<usize>> = HashMap::new();
        for &i in needed {
            let operands: BTreeSet<usize> =
                proto.node[i].input.iter().filter_map(|v| producers.get(v.as_str()).copied()).collect();
            missing.insert(i, operands.len());
            for o in operands {
                users.entry(o).or_default().push(i);
            }
        }
        let mut ready: BinaryHeap<Reverse<usize>> =
            needed.iter().filter(|i| missing[i] == 0).map(|&i| Reverse(i)).collect();
        let mut order = Vec::with_capacity(needed.len());
        while let Some(Reverse(i)) = ready.pop() {
            order.push(i);
            for u in users.get(&i).into_iter().flatten() {
                if let Some(n) = missing.get_mut(u) {
                    *n -= 1;
                    if *n == 0 {
                        ready.push(Reverse(*u));
                    }
                }
            }
        }
        if order.len() == needed.len() {
            return Some(order);
        }
        let done: HashSet<usize> = order.into_iter().collect();
        let stuck = needed.iter().filter(|i| !done.contains(i)).map(|&i| names[i].clone()).collect();
        self.report(Site::File, Problem::Cycle(stuck), "a network must not feed a node with its own result");
        None
    }

    /// Makes the input node from the one data input that the output needs.
    fn inputs(&mut self, proto: &'m GraphProto, options: &ImportOptions, needed: &BTreeSet<usize>, output: &str) {
        let read: HashSet<&str> =
            needed.iter().flat_map(|&i| proto.node[i].input.iter().map(String::as_str)).chain([output]).collect();
        let data: Vec<&'m ValueInfoProto> = proto
            .input
            .iter()
            .filter(|i| !self.initializers.contains_key(i.name.as_str()) && read.contains(i.name.as_str()))
            .collect();
        for info in &data {
            self.values.insert(&info.name, Value::Lost);
        }
        let [info] = data.as_slice() else {
            let names: Vec<String> = data.iter().map(|i| i.name.clone()).collect();
            let remedy = if names.is_empty() {
                "check the graph's inputs; the output must be computed from one of them"
            } else {
                "keep one input and store the others in the file as initializers"
            };
            return self.report(Site::File, Problem::Inputs(names), remedy);
        };
        match input_shape(info, options) {
            Ok(Input { shape, batch, resized }) => {
                self.draft.batch = batch;
                self.draft.resized = resized;
                let id = self.draft.graph.add_input(&info.name, shape.clone());
                self.values.insert(&info.name, Value::Traced(Traced { id, shape, client: None }));
            }
            Err(stop) => self.report_stop(Site::Input(info.name.clone()), stop),
        }
    }

    fn node(&mut self, view: &NodeView<'m>) {
        let proto = view.proto;
        let site = || Site::Node { name: view.name.clone(), operator: proto.op_type.clone() };
        let imported = operators::check(view)
            .and_then(|()| self.operands(view))
            .and_then(|operands| operators::import(&mut self.draft, view, operands));
        let lost = imported.is_err();
        let values = match imported {
            Ok(values) => values,
            Err(stop) => {
                self.report_stop(site(), self.resized(stop));
                vec![self.placeholder(view)]
            }
        };
        for (index, name) in proto.output.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let further = || match lost {
                true => Value::Lost,
                false => Value::Further { node: view.name.clone(), index },
            };
            self.values.insert(name, values.get(index).cloned().unwrap_or_else(further));
        }
    }

    /// What does not fit behind an input of another size than declared is most likely fixed to that.
    fn resized(&self, stop: Stop) -> Stop {
        match (stop, &self.draft.resized) {
            (Stop::Fault { problem: problem @ Problem::Mismatch(_), .. }, Some(why)) => fault(problem, why),
            (stop, _) => stop,
        }
    }

    /// Stands in for the result of a faulty node that keeps its operand's shape, or has one that the file declares, so
    /// that the nodes behind it are checked too.
    fn placeholder(&mut self, view: &NodeView<'m>) -> Value {
        if !operators::keeps_shape(view.operator()) {
            return self.stranger(view).unwrap_or(Value::Lost);
        }
        match view.proto.input.first().and_then(|v| self.values.get(v.as_str())) {
            Some(Value::Traced(t)) if t.client.is_none() => Value::Traced(t.clone()),
            _ => Value::Lost,
        }
    }

    /// A value of the shape that the file declares for a node's result, where it depends on the input.
    fn stranger(&mut self, view: &NodeView<'m>) -> Option<Value> {
        let traced = |v: &String| matches!(self.values.get(v.as_str()), Some(Value::Traced(_)));
        if self.draft.resized.is_some() || !view.proto.input.iter().any(traced) {
            return None;
        }
        let sizes = declared(self.declared.get(view.proto.output.first()?.as_str())?)?;
        let size = |d: &Option<i64>| usize::try_from((*d)?).ok().filter(|d| *d > 0);
        let shape: Option<Vec<usize>> = std::iter::once(Some(1)).chain(sizes.get(1..)?.iter().map(size)).collect();
        let shape = shape?;
        checked_len(&shape, 1 << 31)?;
        let id = self.draft.graph.add_input(&view.name, shape.clone());
        Some(Value::Traced(Traced { id, shape, client: None }))
    }

    fn finish(&mut self, output: &'m str) {
        match self.value(output) {
            Ok(Value::Traced(t)) => {
                self.draft.graph.set_output(t.id);
                self.draft.graph.epilogue = t.client.map_or_else(Vec::new, |(_, steps)| steps);
                move_to_client(&mut self.draft.graph);
                self.draft.graph.remove_dead();
            }
            Ok(Value::Literal(_)) => {
                let remedy = "check the graph: weights alone need no private inference";
                self.report(Site::Output(output.into()), Problem::ConstantOutput, remedy);
            }
            Ok(Value::Further { node, index }) => self.report(
                Site::Output(output.into()),
                Problem::FurtherOutput { node, index },
                "choose another output",
            ),
            Ok(Value::Lost) => {}
            Err(stop) => self.report_stop(Site::Output(output.into()), stop),
        }
    }

    /// What a name stands for.
    fn value(&mut self, name: &'m str) -> Outcome<Value> {
        if let Some(v) = self.values.get(name) {
            return Ok(v.clone());
        }
        let Some(proto) = self.initializers.get(name) else {
            return Err(fault(Problem::UnknownValue(name.into()), REEXPORT));
        };
        let literal = Literal::decode(proto, name);
        let value = literal.as_ref().map_or(Value::Lost, |l| Value::Literal(Rc::new(l.clone())));
        self.values.insert(name, value.clone());
        literal.map(|_| value)
    }

    /// The operands of a node; `None` for one that is left out.
    fn operands(&mut self, view: &NodeView<'m>) -> Outcome<Vec<Option<Value>>> {
        let mut all = Vec::with_capacity(view.proto.input.len());
        for name in &view.proto.input {
            all.push(match self.value(name) {
                _ if name.is_empty() => None,
                Ok(Value::Lost) => return Err(Stop::Silent),
                Ok(Value::Further { node, index }) => {
                    let remedy = "remove the nodes that use this output";
                    return Err(fault(Problem::FurtherOutput { node, index }, remedy));
                }
                Ok(value) => Some(value),
                Err(stop) => return Err(stop),
            });
        }
        Ok(all)
    }
}

/// A stable, unique name for every node: its own where it has one that no earlier node has,
/// operator and position otherwise.
fn node_names(proto: &GraphProto) -> Vec<String> {
    let own: HashSet<&str> = proto.node.iter().map(|n| n.name.as_str()).collect();
    let mut taken = HashSet::new();
    let mut names = Vec::with_capacity(proto.node.len());
    for (i, node) in proto.node.iter().enumerate() {
        let mut name = node.name.clone();
        if name.is_empty() || taken.contains(&name) {
            name = format!("{}_{i}", node.op_type);
            while own.contains(name.as_str()) || taken.contains(&name) {
                name.push('_');
            }
        }
        taken.insert(name.clone());
        names.push(name);
    }
    names
}

/// Nodes that the output needs.
fn needed_nodes(proto: &GraphProto, producers: &HashMap<&str, usize>, output: &str) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut stack: Vec<usize> = producers.get(output).copied().into_iter().collect();
    while let Some(i) = stack.pop() {
        if needed.insert(i) {
            stack.extend(proto.node[i].input.iter().filter_map(|v| producers.get(v.as_str()).copied()));
        }
    }
    needed
}
