//! Which channels of every tensor stay.

use std::collections::BTreeMap;

use bcc_ir::Block;
use bcc_ir::geometry::ConvShape;
use bcc_ir::graph::{ConstData, ConstId, Graph, NodeId, Op};

use super::{Flow, PruneError, count, flow};

/// One flag per channel.
pub(super) type Flags = Vec<bool>;

/// What stays.
pub(super) struct Kept {
    /// Channels of every node's value.
    pub(super) channels: BTreeMap<NodeId, Flags>,
    /// Operand channels of every layer with weights; those among them that its operand does not
    /// hold are zero.
    pub(super) inputs: BTreeMap<NodeId, Flags>,
}

/// Decides for every node.
pub(super) fn analyse(graph: &Graph) -> Result<Kept, PruneError> {
    let order = graph.topo();
    let mut zero: BTreeMap<NodeId, Flags> = BTreeMap::new();
    for &id in &order {
        let flags = zeros(graph, id, &zero)?;
        zero.insert(id, flags);
    }
    let mut needed: BTreeMap<NodeId, Flags> =
        order.iter().map(|id| (*id, vec![graph.output() == Some(*id); count(graph, *id)])).collect();
    let mut kept = Kept { channels: BTreeMap::new(), inputs: BTreeMap::new() };
    for &id in order.iter().rev() {
        let mut channels = needed.remove(&id).unwrap_or_default();
        channels.iter_mut().zip(&zero[&id]).for_each(|(needed, zero)| *needed &= !zero);
        let mut need = |operand: NodeId, i: usize| {
            if let Some(flag) = needed.get_mut(&operand).and_then(|flags| flags.get_mut(i)) {
                *flag = true;
            }
        };
        let operands = graph.operands(id);
        let flow = flow(graph, id);
        if let Flow::Opaque = flow {
            channels.fill(true);
            operands.iter().for_each(|o| (0..count(graph, *o)).for_each(|i| need(*o, i)));
        } else if let Flow::Layer(shape) = flow {
            let (outputs, inputs) = layer(&shape, &channels, &zero[&operands[0]]);
            set(&inputs).for_each(|i| need(operands[0], i));
            kept.inputs.insert(id, inputs);
            channels = outputs;
        }
        for i in set(&channels) {
            match &flow {
                Flow::Each => operands.iter().for_each(|o| need(*o, i)),
                Flow::Picks(picks) => picks[i].iter().for_each(|p| need(operands[0], *p)),
                Flow::Parts(sizes) => {
                    let (mut part, mut at) = (0, i);
                    while part + 1 < sizes.len() && at >= sizes[part] {
                        (part, at) = (part + 1, at - sizes[part]);
                    }
                    need(operands[part], at);
                }
                Flow::Split(parts) => need(operands[0], i / parts),
                Flow::Join(parts) => (i * parts..(i + 1) * parts).for_each(|p| need(operands[0], p)),
                Flow::Layer(_) | Flow::Opaque => {}
            }
        }
        kept.channels.insert(id, channels);
    }
    Ok(kept)
}

/// Positions of the flags that are set.
pub(super) fn set(flags: &[bool]) -> impl Iterator<Item = usize> + '_ {
    flags.iter().enumerate().filter_map(|(i, f)| f.then_some(i))
}

/// Channels of a node that are zero for every input.
fn zeros(graph: &Graph, id: NodeId, known: &BTreeMap<NodeId, Flags>) -> Result<Flags, PruneError> {
    let operands: Vec<&Flags> = graph.operands(id).iter().map(|o| &known[o]).collect();
    let all = 0..count(graph, id);
    Ok(match flow(graph, id) {
        Flow::Each => {
            let vanishes = |i: usize| match &graph.node(id).op {
                Op::BlockRelu { blocks, .. } => blocks[i] == Block::Zero,
                _ => false,
            };
            let moves = match graph.node(id).op {
                Op::Clip { low, high } => low.is_some_and(|b| b > 0.0) || high.is_some_and(|b| b < 0.0),
                _ => false,
            };
            all.map(|i| vanishes(i) || !moves && operands.iter().all(|o| o[i])).collect()
        }
        Flow::Picks(picks) => picks.iter().map(|p| p.is_none_or(|i| operands[0][i])).collect(),
        Flow::Parts(_) => operands.iter().flat_map(|o| o.iter().copied()).collect(),
        Flow::Split(parts) => all.map(|i| operands[0][i / parts]).collect(),
        Flow::Join(parts) => operands[0].chunks_exact(parts).map(|run| run.iter().all(|z| *z)).collect(),
        Flow::Layer(shape) => silent(graph, id, &shape, operands[0])?,
        Flow::Opaque => vec![false; all.len()],
    })
}

/// Outputs of a layer whose bias is zero and whose weights on inputs that are not zero are zero.
fn silent(graph: &Graph, id: NodeId, shape: &ConvShape, zero: &[bool]) -> Result<Flags, PruneError> {
    let broken = || PruneError::Constant { node: graph.node(id).name.clone() };
    let (Op::Conv { weight, bias, .. } | Op::Dense { weight, bias }) = graph.node(id).op else {
        return Err(broken());
    };
    let weights = reals(graph, weight).ok_or_else(broken)?;
    let biases = bias.map(|b| reals(graph, b).ok_or_else(broken)).transpose()?;
    let (inputs, outputs) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let taps = shape.window.kernel[0] * shape.window.kernel[1];
    if weights.len() != shape.out_channels * inputs * taps || biases.is_some_and(|b| b.len() != shape.out_channels) {
        return Err(broken());
    }
    let silent = |(o, row): (usize, &[f32])| {
        let live = row.chunks_exact(taps).zip(&zero[o / outputs * inputs..]).filter(|(_, z)| !**z);
        biases.is_none_or(|b| b[o] == 0.0) && live.flat_map(|(w, _)| w).all(|w| *w == 0.0)
    };
    Ok(weights.chunks_exact(inputs * taps).enumerate().map(silent).collect())
}

pub(super) fn reals(graph: &Graph, id: ConstId) -> Option<&[f32]> {
    match graph.get_const(id).map(|c| &c.data) {
        Some(ConstData::Float(v)) => Some(v),
        _ => None,
    }
}

/// Outputs and inputs that a layer keeps, given the outputs wanted and the inputs that are zero: of
/// every group that stays as many, of groups without a wanted output none. No inputs where all are
/// zero.
fn layer(shape: &ConvShape, wanted: &[bool], zero: &[bool]) -> (Flags, Flags) {
    let groups = shape.groups;
    let (per_in, per_out) = (shape.in_channels / groups, shape.out_channels / groups);
    let stays: Flags = wanted.chunks_exact(per_out).map(|group| group.contains(&true)).collect();
    let even = |flags: &[bool], size: usize| -> Flags {
        let counts = || flags.chunks_exact(size).map(|g| set(g).count()).zip(&stays).filter(|(_, s)| **s);
        let first = counts().next().map_or(0, |(n, _)| n);
        let equal = counts().all(|(n, _)| n == first);
        flags.iter().enumerate().map(|(i, f)| stays[i / size] && (*f || !equal)).collect()
    };
    let live: Flags = zero.iter().map(|z| !z).collect();
    let inputs = even(&live, per_in);
    // Without inputs there are no groups.
    let outputs = if inputs.contains(&true) { even(wanted, per_out) } else { wanted.to_vec() };
    (outputs, inputs)
}

#[cfg(test)]
mod tests {
    use bcc_ir::geometry::{ConvShape, Window};

    use super::layer;

    fn kept(groups: usize, wanted: &str, zero: &str) -> (String, String) {
        let flags = |text: &str| text.chars().map(|c| c == '1').collect::<Vec<bool>>();
        let text = |flags: Vec<bool>| flags.into_iter().map(|f| if f { '1' } else { '0' }).collect();
        let window = Window::new([1, 1]);
        let shape = ConvShape { in_channels: zero.len(), input: [2, 2], out_channels: wanted.len(), groups, window };
        let (outputs, inputs) = layer(&shape, &flags(wanted), &flags(zero));
        (text(outputs), text(inputs))
    }

    #[test]
    fn groups_stay_of_equal_size() {
        let same = |groups, wanted, zero, outputs: &str, inputs: &str| {
            assert_eq!(kept(groups, wanted, zero), (outputs.into(), inputs.into()), "{groups} {wanted} {zero}");
        };
        same(1, "1011", "0100", "1011", "1011");
        same(1, "1011", "1111", "1011", "0000");
        same(1, "0000", "0100", "0000", "0000");
        // Depthwise: a channel goes with its group, and stays for its bias.
        same(4, "1011", "0100", "1011", "1011");
        same(4, "1111", "0100", "1111", "1111");
        same(4, "0000", "0000", "0000", "0000");
        // Two groups: one as a whole, as many in each, or all.
        same(2, "1000", "0000", "1000", "1100");
        same(2, "1001", "0110", "1001", "1001");
        same(2, "1011", "0100", "1111", "1111");
        same(2, "1101", "0101", "1111", "1010");
        same(2, "1111", "1111", "1111", "0000");
        same(2, "0111", "1111", "0111", "0000");
        same(2, "1111", "1101", "1111", "1111");
    }
}
