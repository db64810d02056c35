//! What can go wrong when a model is built, written or inspected.

use std::path::PathBuf;

use crate::onnx::OPSETS;

/// Errors of this crate. Each names the graph value, node, net or path at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Two inputs, initializers or node outputs share a name.
    #[error("value `{0}` is defined twice")]
    DuplicateValue(String),
    /// A node reads a value that no input, initializer or earlier node defines.
    #[error("node `{node}` reads `{value}`, which is not defined before it")]
    UndefinedInput {
        /// Name of the reading node.
        node: String,
        /// Name of the missing value.
        value: String,
    },
    /// A graph output is not defined by any node, input or initializer.
    #[error("graph output `{0}` is not defined")]
    UndefinedOutput(String),
    /// An initializer's shape does not match its number of elements.
    #[error("initializer `{name}` of shape {dims:?} has {elements} elements")]
    InitializerSize {
        /// Name of the initializer.
        name: String,
        /// Its declared shape.
        dims: Vec<i64>,
        /// The number of elements it was given.
        elements: usize,
    },
    /// The operator set is outside the range the writer knows.
    #[error("opset {0} is not supported: {least} to {last} are", least = OPSETS.start(), last = OPSETS.end())]
    Opset(i64),
    /// A net holds an operator form that the operator set lacks.
    #[error("`{net}` needs opset {least} or later, not {opset}")]
    OpsetTooOld {
        /// Name of the net.
        net: &'static str,
        /// The first operator set that will do.
        least: i64,
        /// The one asked for.
        opset: i64,
    },
    /// The fixed batch size is not positive.
    #[error("batch size {0} is not positive")]
    Batch(i64),
    /// An image is too small for the nets.
    #[error("images of {}x{} are too small: {least}x{least} is the least", size[0], size[1])]
    Size {
        /// Height and width asked for.
        size: [usize; 2],
        /// The least height and width.
        least: usize,
    },
    /// No net of this name exists.
    #[error("no net is called `{name}`: the nets are {known}")]
    UnknownNet {
        /// The name asked for.
        name: String,
        /// All known names, separated by commas.
        known: String,
    },
    /// A net was asked for with a depth that its family does not have.
    #[error("a CIFAR-style ResNet has 6n + 2 layers, n > 0: depth {0} does not fit")]
    Depth(usize),
    /// A model could not be analysed.
    #[error("cannot analyse the model: {0}")]
    Inspect(String),
    /// A data set could not be read.
    #[error("cannot read {}: {reason}", path.display())]
    Dataset {
        /// The file's path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file's path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}
