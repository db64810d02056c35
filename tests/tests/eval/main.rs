//! `bcc eval`, `bcc check`, image files and whole images, through the command line.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod check;
mod classes;
mod common;
mod maps;
mod refusals;
mod sizes;
