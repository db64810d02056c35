//! From chosen scales to integers.

use std::collections::BTreeMap;

use bcc_ir::graph::{ConstData, ConstId, Evidence, Graph, NodeId, Op, interval, sign_bound};

/// Rounds weights and biases to integers, for every layer on the scale of its operand and result.
pub(super) fn weights(graph: &mut Graph, real: &[ConstData]) {
    for id in graph.topo() {
        let (Op::Conv { weight, bias, .. } | Op::Dense { weight, bias }) = graph.node(id).op.clone() else { continue };
        let operand = graph.node(graph.operand(id)).fixed.map_or(1.0, |f| f.unit());
        let unit = graph.node(id).fixed.map_or(1.0, |f| f.unit());
        let mut rounded = |c: ConstId, factor: f64| {
            let old = graph.constant(c);
            let (name, shape) = (old.name.clone(), old.shape.clone());
            let values = match real.get(c.0 as usize) {
                Some(ConstData::Float(v)) => v.iter().map(|x| (f64::from(*x) * factor).round() as i64).collect(),
                Some(ConstData::Int(v)) => v.clone(),
                None => Vec::new(),
            };
            graph.add_const(name, shape, ConstData::Int(values))
        };
        let new_weight = rounded(weight, operand / unit);
        let new_bias = bias.map(|b| rounded(b, 1.0 / unit));
        match &mut graph.node_mut(id).op {
            Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } => {
                *weight = new_weight;
                *bias = new_bias;
            }
            _ => {}
        }
    }
    graph.remove_dead();
}

/// Sets every bound that is not observed to what interval arithmetic over the integers gives.
pub(super) fn rebound(graph: &mut Graph) {
    let mut bounds: BTreeMap<NodeId, interval::Bounds> = BTreeMap::new();
    for id in graph.topo() {
        let operands = graph.operands(id);
        let inputs: Vec<&interval::Bounds> = operands.iter().map(|o| &bounds[o]).collect();
        let b = interval::step(graph, id, &inputs);
        let follows = |proven: bool| if proven { Evidence::Proven } else { Evidence::Derived };
        if let Some(mut range) = graph.node(id).range {
            if !matches!(range.evidence, Evidence::Observed { .. }) && !matches!(graph.node(id).op, Op::Input) {
                range.bound = interval::bound(&b.derived);
                range.evidence = follows(b.proven);
            }
            let pixel = inputs.first().map_or(0.0, |b| interval::bound(&b.channels));
            if let (Some(reach), Some((_, evidence))) = (sign_bound(graph, id, pixel), range.block_sum)
                && !matches!(evidence, Evidence::Observed { .. })
            {
                range.block_sum = Some((reach, follows(inputs[0].proven)));
            }
            graph.node_mut(id).range = Some(range);
        }
        bounds.insert(id, b);
    }
}
