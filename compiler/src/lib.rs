//! The compiler of `bcc`: from ONNX files to three-party programs.
//!
//! [`onnx`] imports a file into a graph, [`passes`] rewrite and quantize it and lower it to the
//! program of three parties; [`float`] runs a graph on real numbers, for calibration and
//! comparison; [`planner`] chooses blocks under a budget; [`eval`] compares a compiled network with its float one. The binary `bcc` is the command line over this library.

pub mod check;
pub mod compile;
pub mod data;
pub mod eval;
pub mod float;
pub mod onnx;
pub mod passes;
pub mod plan;
pub mod planner;
pub mod predicted;
pub mod reference;
pub mod report;
pub mod twin;
