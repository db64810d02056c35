//! The importer, the float executor, folding and canonicalization, against tract as the reference.
#![allow(clippy::unwrap_used, clippy::panic)]

mod activations;
mod fuzz;
mod models;
mod operators;
mod passes;
mod refusals;
mod robust;
mod structure;
mod writer;
