//! What the whole-system tests share: small networks, images, compilation.

pub mod nets;
pub mod random;
