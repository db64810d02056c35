//! What of the output is revealed.
//!
//! [`Reveal::Argmax`] lets the client learn the class alone, for every pixel of a map: the output is
//! tagged with the channels ([`Op::Tag`]), and the largest tagged value wins in a tournament of
//! `c - 1` comparisons and `ceil(log2 c)` levels. Of equal values the first channel wins, as in
//! ONNX. A softmax over the classes falls away, as it keeps their order; an argmax of the network is
//! this one; enlargements before it, which the client would do, are done on shares. Quantization lets
//! only the winner's low bits out.

use std::fmt;
use std::str::FromStr;

use bcc_ir::graph::{ClientStep, Graph, NodeId, Op, Sample, ShapeError, map_of};
use thiserror::Error;

use super::maximum::{Failure, Maximum};

/// What the client learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reveal {
    /// The network's output.
    #[default]
    Output,
    /// The position of its largest channel.
    Argmax,
}

impl fmt::Display for Reveal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reveal::Output => "output",
            Reveal::Argmax => "argmax",
        })
    }
}

/// A word that names nothing to reveal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{0}\" cannot be revealed: write output or argmax")]
pub struct UnknownReveal(String);

impl FromStr for Reveal {
    type Err = UnknownReveal;

    fn from_str(text: &str) -> Result<Reveal, UnknownReveal> {
        match text {
            "output" => Ok(Reveal::Output),
            "argmax" => Ok(Reveal::Argmax),
            other => Err(UnknownReveal(other.into())),
        }
    }
}

/// Why the class cannot be revealed alone.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RevealError {
    /// An output without classes along axis 1.
    #[error(
        "--reveal argmax: the output \"{node}\" has shape {shape:?}; it must be [1, classes] or [1, classes, h, w] with \
         2 classes or more. Let the network end in its logits (--output-name)"
    )]
    Classes {
        /// Node.
        node: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Something that the client would do with the logits.
    #[error(
        "--reveal argmax: behind the last secret layer \"{node}\" comes {step}, which only the client computes, from \
         logits that it must not see. Let the network end before it (--output-name)"
    )]
    Step {
        /// Last node.
        node: String,
        /// The client's step.
        step: String,
    },
    /// A rewrite that does not fit its operands.
    #[error("--reveal argmax on \"{node}\": {source}")]
    Shape {
        /// The output's node.
        node: String,
        /// What does not fit.
        source: ShapeError,
    },
}

/// Lets the graph end in what is revealed.
///
/// # Errors
/// An output without classes, or client's steps that work on logits.
pub fn run(graph: &mut Graph, reveal: Reveal) -> Result<(), RevealError> {
    let (Reveal::Argmax, Some(output)) = (reveal, graph.output()) else { return Ok(()) };
    let node = graph.node(output);
    let (name, shape) = (node.name.clone(), node.shape.clone());
    let Some((classes, _)) = map_of(&shape).filter(|(c, _)| *c > 1) else {
        return Err(RevealError::Classes { node: name, shape });
    };
    let steps = std::mem::take(&mut graph.epilogue);
    let refused = |step: &ClientStep| RevealError::Step { node: name.clone(), step: format!("{step:?}") };
    let unfit = |source| RevealError::Shape { node: name.clone(), source };
    let (mut logits, mut end, mut soft) = (output, shape.clone(), false);
    let mut rest = steps.iter();
    let mut keep = true;
    for step in rest.by_ref() {
        match step {
            // A softmax over the classes keeps their order.
            ClientStep::Softmax { axis: 1 } => soft = true,
            // So does another shape of the map.
            ClientStep::Reshape { shape } if shape.starts_with(&end[..2]) => end.clone_from(shape),
            // Another size does not: it comes before the comparisons, on shares.
            ClientStep::Resample { axis: axis @ 2.., samples } if !soft && end == graph.node(logits).shape => {
                logits = resampled(graph, logits, *axis, samples).map_err(unfit)?;
                end.clone_from(&graph.node(logits).shape);
            }
            ClientStep::ArgMax { axis: 1, keepdims, select_last_index: false } => {
                keep = *keepdims;
                break;
            }
            other => return Err(refused(other)),
        }
    }
    let bits = classes.next_power_of_two().ilog2() as u8;
    let winner = tournament(graph, logits, bits).map_err(|failure| match failure {
        Failure::Shape(source) => RevealError::Shape { node: name.clone(), source },
        // There are channels.
        Failure::EmptyWindow => RevealError::Classes { node: name.clone(), shape: shape.clone() },
    })?;
    graph.set_output(winner);
    graph.epilogue = vec![ClientStep::Class { bits }];
    end[1] = 1;
    if !keep {
        end.remove(1);
    }
    if end != graph.node(winner).shape {
        graph.epilogue.push(ClientStep::Reshape { shape: end });
    }
    // What follows an argmax works on the classes.
    graph.epilogue.extend(rest.cloned());
    Ok(())
}

fn resampled(graph: &mut Graph, id: NodeId, axis: usize, samples: &[Sample]) -> Result<NodeId, ShapeError> {
    let name = format!("{}/resize", graph.node(id).name);
    let origin = graph.node(id).origin.clone();
    graph.add(&name, origin, Op::resampling(axis, samples.to_vec()), &[id])
}

fn tournament(graph: &mut Graph, output: NodeId, bits: u8) -> Result<NodeId, Failure> {
    let name = format!("{}/argmax", graph.node(output).name);
    let mut maximum = Maximum::new(graph, output, &name);
    let tagged = maximum.add("tag", Op::Tag { bits }, &[output])?;
    maximum.channels(tagged)
}
