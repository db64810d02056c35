//! The knapsack solver against brute force and dynamic programming.

use ::solve::solve as solver;

mod brute;
mod instances;
mod large;
mod side;
