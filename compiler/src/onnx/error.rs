//! What can be wrong with a file, and what to do about it.

use std::fmt;

use thiserror::Error;

/// Where a problem sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Site {
    /// The file as a whole.
    File,
    /// A graph input.
    Input(String),
    /// A graph output.
    Output(String),
    /// A node.
    Node {
        /// Its name; `Op_index` for a node without one of its own.
        name: String,
        /// Its operator.
        operator: String,
    },
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::File => f.write_str("file"),
            Site::Input(name) => write!(f, "input `{name}`"),
            Site::Output(name) => write!(f, "output `{name}`"),
            Site::Node { name, operator } => write!(f, "node `{name}` ({operator})"),
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Problem {
    /// The operating system does not give the file.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The bytes are no ONNX model.
    #[error("is not a complete ONNX model: {0}")]
    Malformed(String),
    /// An operator set whose semantics are not known here.
    #[error("uses ONNX opset {0}")]
    Opset(i64),
    /// No operator set is declared.
    #[error("does not declare an ONNX opset")]
    NoOpset,
    /// Two nodes compute the same value.
    #[error("value `{0}` is computed twice")]
    ComputedTwice(String),
    /// Nodes that wait for each other.
    #[error("nodes form a cycle: {}", .0.join(", "))]
    Cycle(Vec<String>),
    /// The output reads no data input, or more than one.
    #[error("{}", if .0.is_empty() { "no data input reaches the output".to_string() } else { format!("has {} data inputs: {}", .0.len(), .0.join(", ")) })]
    Inputs(Vec<String>),
    /// Not exactly one output, and none was chosen.
    #[error("{}", if .0.is_empty() { "has no output".to_string() } else { format!("has {} outputs: {}", .0.len(), .0.join(", ")) })]
    Outputs(Vec<String>),
    /// A name that no node, input or initializer defines.
    #[error("nothing computes the value `{0}`")]
    UnknownValue(String),
    /// The output is a constant.
    #[error("is constant: it does not depend on the input")]
    ConstantOutput,
    /// An element type that is no real number.
    #[error("has element type {0}")]
    ElementType(String),
    /// A declared or given shape that cannot be compiled.
    #[error("has shape {0}")]
    InputShape(String),
    /// An operator that is not supported.
    #[error("operator {0} is not supported")]
    Operator(String),
    /// An operator of another domain.
    #[error("operator domain `{0}` is not supported")]
    Domain(String),
    /// An attribute whose value, type or presence is not supported.
    #[error("attribute `{name}` {reason}")]
    Attribute {
        /// Attribute.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An operand that the operator needs is not there.
    #[error("operand {index} ({what}) is missing")]
    MissingOperand {
        /// Position, from 0.
        index: usize,
        /// Its role.
        what: &'static str,
    },
    /// An operand that is computed from the input, but must be known when compiling.
    #[error("operand {index} ({what}) is computed from the network's input; it must be constant")]
    NotConstant {
        /// Position, from 0.
        index: usize,
        /// Its role.
        what: &'static str,
    },
    /// An operand that is constant, but must be computed from the input.
    #[error("operand {index} ({what}) is constant; it must be computed from the network's input")]
    Constant {
        /// Position, from 0.
        index: usize,
        /// Its role.
        what: &'static str,
    },
    /// A further output of a node is read.
    #[error("reads output {index} of node `{node}`, and only output 0 is computed")]
    FurtherOutput {
        /// The node read from.
        node: String,
        /// Position of the output, from 0.
        index: usize,
    },
    /// Something that the client does not do behind its softmax or argmax.
    #[error("reads the result of {0}, which the client computes in the clear at the very end")]
    BehindClient(String),
    /// A constant tensor that is not as it declares itself.
    #[error("constant `{name}` {reason}")]
    Tensor {
        /// Name of the initializer or of the node that makes it.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Weights kept in another file.
    #[error("constant `{tensor}` is kept outside the ONNX file, in `{file}`")]
    External {
        /// Name of the initializer.
        tensor: String,
        /// The other file.
        file: String,
    },
    /// Weights kept in another file that cannot be read.
    #[error("constant `{tensor}` is kept in `{file}`, which cannot be read: {reason}")]
    ExternalFile {
        /// Name of the initializer.
        tensor: String,
        /// The other file.
        file: String,
        /// Reason.
        reason: String,
    },
    /// A weight that is no number.
    #[error("constant `{tensor}` holds {value} at element {index}")]
    NonFinite {
        /// Name of the initializer or of the node that makes it.
        tensor: String,
        /// Element, row-major.
        index: usize,
        /// The value found.
        value: f64,
    },
    /// Operands or attributes that do not fit each other.
    #[error("{0}")]
    Mismatch(String),
    /// A size beyond all sense.
    #[error("{0} is larger than any network this compiler is for")]
    TooLarge(String),
}

/// One problem of a file: where it is, what it is, and what to change.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{site}: {problem}; {remedy}")]
pub struct ImportError {
    /// Where it is.
    pub site: Site,
    /// What it is.
    pub problem: Problem,
    /// What to change.
    pub remedy: String,
}

/// All problems of a file, in the order of its nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportErrors(pub Vec<ImportError>);

impl fmt::Display for ImportErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "{one}"),
            all => {
                write!(f, "{} problems", all.len())?;
                all.iter().enumerate().try_for_each(|(i, e)| write!(f, "\n  {}. {e}", i + 1))
            }
        }
    }
}

impl std::error::Error for ImportErrors {}

/// Why an operator was not imported.
pub(super) enum Stop {
    /// An operand was lost to a problem that is already reported.
    Silent,
    /// A problem of this node.
    Fault {
        /// What it is.
        problem: Problem,
        /// What to change.
        remedy: String,
    },
}

pub(super) type Outcome<T> = Result<T, Stop>;

/// A problem of the node at hand.
pub(super) fn fault(problem: Problem, remedy: impl Into<String>) -> Stop {
    Stop::Fault { problem, remedy: remedy.into() }
}

/// Operands or attributes that do not fit each other: usually a broken or truncated export.
pub(super) fn mismatch(reason: impl Into<String>) -> Stop {
    fault(Problem::Mismatch(reason.into()), REEXPORT)
}

/// Remedy for files that contradict themselves.
pub(super) const REEXPORT: &str = "export the model again and check it with onnx.checker";
