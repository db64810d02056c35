//! Runs a compiled program among three parties.
//!
//! [`session`] is the way in: [`session::run_local`] runs all three roles as threads of this
//! process, [`session::run_party`] one role over given links. Below it: [`exec`] interprets one
//! role's code, [`kernels`] computes, [`prg`] draws randomness, [`channel`] moves messages,
//! [`handshake`] agrees program, version and keys, [`state`] keeps a model's setup and [`store`]
//! offline material. [`images`] makes inputs of image files.
//!
//! Values that belong to a share, a key or a mask are erased when dropped and implement no
//! `Debug`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod buffer;
pub mod channel;
pub mod element;
pub mod exec;
pub mod handshake;
pub mod images;
pub mod kernels;
pub mod keys;
pub mod plan;
pub mod port;
pub mod prg;
pub mod rates;
pub mod scratch;
pub mod session;
pub mod state;
pub mod stats;
pub mod store;
pub mod vault;
pub mod weights;
pub mod wire;
pub mod words;
