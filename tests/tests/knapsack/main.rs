//! The knapsack solver against brute force and dynamic programming.

use bcc_compiler::planner::solve as solver;

mod brute;
mod large;
mod side;
