//! The plain kernels: short, without tricks, the reference for every other set.

pub mod bits;
pub mod compare;
pub mod element;
pub mod gate;
pub mod layout;
pub mod linear;
