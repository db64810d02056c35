//! How long a program takes, before it runs.
//!
//! The model is the program's own messages and rounds plus measured kernel rates. [`work()`] counts
//! what an instruction does, in units of a few [`Kind`]s; [`Rates`] say how many seconds of one core
//! a unit takes on some machine; a [`Network`] says how fast links are and where the parties run;
//! [`predict()`] walks the three roles through the program with a clock each.
//!
//! It is here, beside the program, because both sides need it: the runtime measures rates of the
//! very units that the compiler counts, and neither knows of the other. Counts follow from
//! [`Inst`](crate::program::Inst) and buffer types; what a kernel makes of them is in the rates.
//!
//! [`counts()`] says what a program takes of a machine whatever its kernels, for a bound on the time.
//!
//! A planner that changes one layer needs no walk: [`Rates::unit_seconds`] and
//! [`Rates::call_seconds`] price work, [`Network::byte_seconds`] bytes and
//! [`Network::one_way_seconds`] rounds, each linearly.

mod builtin;
mod counts;
mod memory;
mod network;
mod predict;
mod rates;
mod stepwise;
#[cfg(test)]
mod tests;
mod work;

pub use builtin::default_rates;
pub use counts::{Count, Counts, counts};
pub use memory::RESERVED;
pub use network::{Network, NetworkError};
pub use predict::{PhasePrediction, Prediction, Seconds, predict, predict_batch};
pub use rates::{Loopback, Measured, Rate, Rates, RatesError};
pub use stepwise::{StepWork, code_work, phase_work};
pub use work::{DEEP, Kind, NARROW, Work, byte_products, digit_products, narrow_weights, work};
