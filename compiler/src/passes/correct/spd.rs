//! Systems of linear equations with a symmetric positive definite matrix, by a blocked Cholesky
//! factorisation whose work is in matrix products.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayViewMut2, Axis, s};

/// Columns that are factored together.
const BLOCK: usize = 64;

/// The lower factor `L` with `L L^T = A`.
pub(super) struct Factor(Array2<f64>);

impl Factor {
    /// Factors a matrix of which the lower triangle is read; `None` where it is not positive definite.
    pub(super) fn new(mut a: Array2<f64>) -> Option<Factor> {
        let n = a.nrows();
        for first in (0..n).step_by(BLOCK) {
            let end = n.min(first + BLOCK);
            small(a.slice_mut(s![first..end, first..end]))?;
            let (above, mut below) = a.view_mut().split_at(Axis(0), end);
            let own = above.slice(s![first..end, first..end]);
            let mut panel = below.slice_mut(s![.., first..end]);
            for mut row in panel.rows_mut() {
                for j in 0..end - first {
                    let sum: f64 = (0..j).map(|p| row[p] * own[[j, p]]).sum();
                    row[j] = (row[j] - sum) / own[[j, j]];
                }
            }
            let panel = panel.to_owned();
            for column in (end..n).step_by(BLOCK) {
                let stop = n.min(column + BLOCK);
                let left = panel.slice(s![column - end.., ..]);
                let right = panel.slice(s![column - end..stop - end, ..]);
                let mut rest = a.slice_mut(s![column.., column..stop]);
                general_mat_mul(-1.0, &left, &right.t(), 1.0, &mut rest);
            }
        }
        Some(Factor(a))
    }

    /// Solves `A x = b` for every column of `b`.
    pub(super) fn solve(&self, mut b: Array2<f64>) -> Array2<f64> {
        let l = &self.0;
        let n = l.nrows();
        let starts: Vec<usize> = (0..n).step_by(BLOCK).collect();
        for &first in &starts {
            let end = n.min(first + BLOCK);
            let (mut above, mut below) = b.view_mut().split_at(Axis(0), end);
            let mut own = above.slice_mut(s![first.., ..]);
            for i in 0..end - first {
                let (done, mut rest) = own.view_mut().split_at(Axis(0), i);
                let mut row = rest.row_mut(0);
                for p in 0..i {
                    row.scaled_add(-l[[first + i, first + p]], &done.row(p));
                }
                row /= l[[first + i, first + i]];
            }
            general_mat_mul(-1.0, &l.slice(s![end.., first..end]), &own, 1.0, &mut below);
        }
        for &first in starts.iter().rev() {
            let end = n.min(first + BLOCK);
            let (mut above, mut below) = b.view_mut().split_at(Axis(0), first);
            let mut own = below.slice_mut(s![..end - first, ..]);
            for i in (0..end - first).rev() {
                let (mut rest, done) = own.view_mut().split_at(Axis(0), i + 1);
                let mut row = rest.row_mut(i);
                for p in i + 1..end - first {
                    row.scaled_add(-l[[first + p, first + i]], &done.row(p - i - 1));
                }
                row /= l[[first + i, first + i]];
            }
            general_mat_mul(-1.0, &l.slice(s![first..end, ..first]).t(), &own, 1.0, &mut above);
        }
        b
    }
}

/// Factors a small matrix in place.
fn small(mut a: ArrayViewMut2<'_, f64>) -> Option<()> {
    for j in 0..a.nrows() {
        let square: f64 = (0..j).map(|p| a[[j, p]] * a[[j, p]]).sum();
        let pivot = a[[j, j]] - square;
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        let pivot = pivot.sqrt();
        a[[j, j]] = pivot;
        for i in j + 1..a.nrows() {
            let sum: f64 = (0..j).map(|p| a[[i, p]] * a[[j, p]]).sum();
            a[[i, j]] = (a[[i, j]] - sum) / pivot;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_solve_across_block_edges() {
        for n in [1, 2, 63, 64, 65, 130, 200] {
            let entry = |i: usize, j: usize| (((i * 37 + j * 101) % 53) as f64 / 53.0 - 0.5).sin();
            let m = Array2::from_shape_fn((n, n), |(i, j)| entry(i, j));
            let a = m.dot(&m.t()) + Array2::<f64>::eye(n);
            let b = Array2::from_shape_fn((n, 3), |(i, j)| entry(j, i));
            let x = Factor::new(a.clone()).expect("positive definite").solve(b.clone());
            let worst = (a.dot(&x) - &b).iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(worst < 1e-9, "{n}: {worst}");
        }
    }

    #[test]
    fn an_indefinite_matrix_has_no_factor() {
        let mut a = Array2::<f64>::eye(70);
        a[[68, 68]] = -1.0;
        assert!(Factor::new(a).is_none());
    }
}
