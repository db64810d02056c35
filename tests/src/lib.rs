//! What the whole-system tests share: small networks, random graphs and knapsacks, images, and a world that runs
//! all parties in one process.

pub mod graphs;
pub mod knapsacks;
pub mod nets;
pub mod random;
pub mod world;
