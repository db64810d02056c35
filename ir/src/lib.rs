//! The two levels of intermediate representation of `bcc`.
//!
//! [`graph`] holds a network: a tensor graph whose nodes keep their ONNX names, first with real
//! numbers, after quantization with a fixed-point type on every value. [`program`] holds what the
//! three parties execute: a flat list of instructions per role and phase, with static message
//! sizes and named randomness streams. Both have a verifier, a text form and a serialized form.
//! [`time`] predicts how long a program takes from measured rates and a network.
//! Nothing here knows of ONNX or of sockets; of kernels it knows what they are measured by.

pub mod geometry;
pub mod graph;
pub mod program;
pub mod time;

pub use geometry::{Block, ConvShape, PoolShape, Window};
