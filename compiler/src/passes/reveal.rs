//! What of the output is revealed.
//!
//! [`Reveal::Argmax`] lets the client learn the class alone, for every pixel of a map: the output is
//! tagged with the channels ([`Op::Tag`]), and the largest tagged value wins in a tournament of
//! `c - 1` comparisons and `ceil(log2 c)` levels. Of equal values the first channel wins, as in
//! ONNX. A softmax over the classes falls away, as it keeps their order. Quantization lets only the
//! winner's low bits out.

use std::fmt;
use std::str::FromStr;

use bcc_ir::graph::{ClientStep, Graph, NodeId, Op, ShapeError, map_of};
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
    let mut end = shape.clone();
    for step in &graph.epilogue {
        match step {
            // A softmax over the classes keeps their order.
            ClientStep::Softmax { axis: 1 } => {}
            // So does another shape of the map.
            ClientStep::Reshape { shape } if shape.starts_with(&end[..2]) => end.clone_from(shape),
            other => return Err(RevealError::Step { node: name, step: format!("{other:?}") }),
        }
    }
    let bits = classes.next_power_of_two().ilog2() as u8;
    let winner = tournament(graph, output, bits).map_err(|failure| match failure {
        Failure::Shape(source) => RevealError::Shape { node: name.clone(), source },
        // There are channels.
        Failure::EmptyWindow => RevealError::Classes { node: name.clone(), shape: shape.clone() },
    })?;
    graph.set_output(winner);
    graph.epilogue = vec![ClientStep::Class { bits }];
    end[1] = 1;
    if end != graph.node(winner).shape {
        graph.epilogue.push(ClientStep::Reshape { shape: end });
    }
    Ok(())
}

fn tournament(graph: &mut Graph, output: NodeId, bits: u8) -> Result<NodeId, Failure> {
    let name = format!("{}/argmax", graph.node(output).name);
    let mut maximum = Maximum::new(graph, output, &name);
    let tagged = maximum.add("tag", Op::Tag { bits }, &[output])?;
    maximum.channels(tagged)
}
