//! What the client does at the end: `ArgMax`, and enlargements of the last secret result.
//!
//! A map that is only enlarged on its way to the output is opened before: the client enlarges it in the
//! clear, and nothing large is shared, sent or masked. That opens no more than the output shows: an
//! enlargement goes to the client only where every element of its operand has a part in its result
//! and the result is not the smaller one.

use bcc_ir::graph::{ClientStep, Graph, Op, Sample, covers};

use super::call::{Call, Traced};
use super::error::{Outcome, REEXPORT};
use super::node::axis_of;

/// `ArgMax`, which the client computes on the opened result.
pub(super) fn argmax(call: &mut Call) -> Outcome<Traced> {
    let view = call.view;
    view.only(&["axis", "keepdims", "select_last_index"])?;
    let x = call.traced(0, "data")?;
    let rank = x.shape.len();
    let axis = view.int("axis")?.unwrap_or(0);
    let axis =
        axis_of(axis, rank).ok_or_else(|| view.bad_attribute("axis", format!("is {axis} on {rank} axes"), REEXPORT))?;
    let keepdims = view.flag("keepdims", true)?;
    let step = ClientStep::ArgMax { axis, keepdims, select_last_index: view.flag("select_last_index", false)? };
    let mut shape = x.shape.clone();
    if keepdims {
        shape[axis] = 1;
    } else {
        shape.remove(axis);
    }
    let (source, mut steps) = x.client.unwrap_or_else(|| (format!("argmax `{}`", view.name), Vec::new()));
    steps.push(step);
    Ok(Traced { id: x.id, shape, client: Some((source, steps)) })
}

/// Moves enlargements at the end of the graph to the client's steps.
pub(super) fn move_to_client(graph: &mut Graph) {
    let Some(output) = graph.output() else { return };
    let mut steps = Vec::new();
    let mut found = None;
    let mut at = output;
    loop {
        let node = graph.node(at);
        let operand = match graph.operands(at)[..] {
            [operand] => operand,
            _ => break,
        };
        let from = graph.node(operand);
        let grows = |axis: usize, samples: &[Sample]| node.len() >= from.len() && covers(samples, from.shape[axis]);
        match &node.op {
            Op::Identity => {}
            Op::Reshape { shape } => steps.push(ClientStep::Reshape { shape: shape.clone() }),
            Op::Transpose { perm } => steps.push(ClientStep::Transpose { perm: perm.clone() }),
            Op::Resample { axis, samples, .. } if grows(*axis, samples) => {
                steps.push(ClientStep::Resample { axis: *axis, samples: samples.clone() });
                found = Some((operand, steps.len()));
            }
            Op::Gather { axis, indices } => {
                let samples: Vec<Sample> = indices.iter().map(|i| Sample::at(*i)).collect();
                if !grows(*axis, &samples) {
                    break;
                }
                steps.push(ClientStep::Resample { axis: *axis, samples });
                found = Some((operand, steps.len()));
            }
            _ => break,
        }
        at = operand;
    }
    if let Some((end, count)) = found {
        steps.truncate(count);
        steps.reverse();
        steps.append(&mut graph.epilogue);
        graph.epilogue = steps;
        graph.set_output(end);
    }
}
