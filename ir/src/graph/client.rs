//! What the client does in the clear with the opened output.

use serde::{Deserialize, Serialize};

use super::{Sample, resample};

/// A step of the client. It takes a tensor with the batch axis of 1 first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClientStep {
    /// Softmax over an axis.
    Softmax {
        /// Axis of the output.
        axis: usize,
    },
    /// The same elements in another shape.
    Reshape {
        /// The new shape.
        shape: Vec<usize>,
    },
    /// Permutes axes: output axis `i` is operand axis `perm[i]`.
    Transpose {
        /// The permutation.
        perm: Vec<usize>,
    },
    /// Resamples an axis.
    Resample {
        /// Axis.
        axis: usize,
        /// One entry per element of that axis in the result.
        samples: Vec<Sample>,
    },
    /// Position of the largest element along an axis.
    ArgMax {
        /// Axis.
        axis: usize,
        /// Whether the axis stays, with one element.
        keepdims: bool,
        /// Which of several largest elements: the last, or the first.
        select_last_index: bool,
    },
    /// The position that a tag tells: `-v mod 2^bits` (see [`Op::Tag`](super::Op::Tag)).
    Class {
        /// Bits of a position.
        bits: u8,
    },
}

impl ClientStep {
    /// Shape of the result on a tensor of shape `from`.
    ///
    /// # Errors
    /// What does not fit.
    pub fn shape(&self, from: &[usize]) -> Result<Vec<usize>, String> {
        let size = |axis: usize| {
            let size = from.get(axis).copied().filter(|n| *n > 0);
            size.ok_or_else(|| format!("axis {axis} of shape {from:?}"))
        };
        let count = |shape: &[usize]| shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let mut shape = from.to_vec();
        match self {
            ClientStep::Softmax { axis } => drop(size(*axis)?),
            ClientStep::Class { bits } if *bits > 52 => return Err(format!("a position of {bits} bits")),
            ClientStep::Class { .. } => {}
            ClientStep::Reshape { shape: new } => {
                if count(new).is_none() || count(new) != count(from) {
                    return Err(format!("{from:?} does not hold as many elements as {new:?}"));
                }
                shape.clone_from(new);
            }
            ClientStep::Transpose { perm } => {
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                if !sorted.into_iter().eq(0..from.len()) {
                    return Err(format!("{perm:?} is no permutation of {} axes", from.len()));
                }
                shape = perm.iter().map(|p| from[*p]).collect();
            }
            ClientStep::Resample { axis, samples } => {
                let n = size(*axis)?;
                if samples.is_empty() || !samples.iter().all(|s| s.fits(n)) {
                    return Err(format!("samples outside of an axis of {n}"));
                }
                shape[*axis] = samples.len();
            }
            ClientStep::ArgMax { axis, keepdims, .. } => {
                size(*axis)?;
                if *keepdims {
                    shape[*axis] = 1;
                } else {
                    shape.remove(*axis);
                }
            }
        }
        if count(&shape).is_none_or(|n| n > 1 << 36) {
            return Err(format!("{shape:?} is too large"));
        }
        Ok(shape)
    }

    /// The result on a tensor of shape `from`, row-major; softmax does not overflow.
    ///
    /// # Panics
    /// Where [`shape`](Self::shape) gives an error, or `x` is not of that shape.
    fn values(&self, from: &[usize], mut x: Vec<f64>) -> Vec<f64> {
        let split = |axis: usize| -> (usize, usize) { (from[axis], from[axis + 1..].iter().product()) };
        match self {
            ClientStep::Reshape { .. } => x,
            ClientStep::Class { bits } => {
                let positions = 2f64.powi(i32::from(*bits));
                x.into_iter().map(|v| (0.0 - v).rem_euclid(positions)).collect()
            }
            ClientStep::Softmax { axis } => {
                let (n, inner) = split(*axis);
                for slab in x.chunks_exact_mut(n * inner) {
                    for i in 0..inner {
                        let at = |j: usize| j * inner + i;
                        let top = (0..n).map(|j| slab[at(j)]).fold(f64::NEG_INFINITY, f64::max);
                        (0..n).for_each(|j| slab[at(j)] = (slab[at(j)] - top).exp());
                        let sum: f64 = (0..n).map(|j| slab[at(j)]).sum();
                        (0..n).for_each(|j| slab[at(j)] /= sum);
                    }
                }
                x
            }
            ClientStep::Transpose { perm } => {
                let step = |p: &usize| -> usize { from[p + 1..].iter().product() };
                let steps: Vec<(usize, usize)> = perm.iter().map(|p| (from[*p], step(p))).collect();
                let mut positions = vec![0];
                for (n, step) in steps {
                    positions = positions.iter().flat_map(|p| (0..n).map(move |i| p + i * step)).collect();
                }
                positions.into_iter().map(|p| x[p]).collect()
            }
            ClientStep::Resample { axis, samples } => resample(&x, from, *axis, samples, Sample::between),
            ClientStep::ArgMax { axis, select_last_index, .. } => {
                let (n, inner) = split(*axis);
                let mut y = Vec::with_capacity(x.len() / n);
                for slab in x.chunks_exact(n * inner) {
                    for i in 0..inner {
                        let better = |j: usize, best: usize| {
                            let (a, b) = (slab[j * inner + i], slab[best * inner + i]);
                            if *select_last_index { a >= b } else { a > b }
                        };
                        y.push((1..n).fold(0, |best, j| if better(j, best) { j } else { best }) as f64);
                    }
                }
                y
            }
        }
    }
}

/// Shape after all steps.
///
/// # Errors
/// The number of the first step that does not fit, and why.
pub fn epilogue_shape(steps: &[ClientStep], from: &[usize]) -> Result<Vec<usize>, String> {
    let mut shape = from.to_vec();
    for (i, step) in steps.iter().enumerate() {
        shape = step.shape(&shape).map_err(|e| format!("step {i} of the client: {e}"))?;
    }
    Ok(shape)
}

/// The steps on an opened output; the result and its shape.
///
/// # Panics
/// Where [`epilogue_shape`] gives an error; verified graphs and programs have no such steps.
pub fn run_epilogue(steps: &[ClientStep], output: Vec<f64>, shape: &[usize]) -> (Vec<f64>, Vec<usize>) {
    let (mut x, mut at) = (output, shape.to_vec());
    for step in steps {
        let next = step.shape(&at).expect("the verifier has accepted the client's steps");
        x = step.values(&at, x);
        at = next;
    }
    (x, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(step: ClientStep, x: &[f64], shape: &[usize]) -> (Vec<f64>, Vec<usize>) {
        run_epilogue(&[step], x.to_vec(), shape)
    }

    #[test]
    fn steps_by_hand() {
        let x = [1.0, 5.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(
            run(ClientStep::Transpose { perm: vec![0, 2, 1] }, &x, &[1, 2, 3]),
            (vec![1.0, 4.0, 5.0, 5.0, 3.0, 6.0], vec![1, 3, 2])
        );
        let samples = vec![Sample::at(1), Sample { low: 0, high: 1, weight: 0.25 }];
        assert_eq!(
            run(ClientStep::Resample { axis: 1, samples }, &x, &[1, 2, 3]),
            (vec![4.0, 5.0, 6.0, 1.75, 5.0, 3.75], vec![1, 2, 3])
        );
        let argmax = |keepdims, select_last_index| ClientStep::ArgMax { axis: 1, keepdims, select_last_index };
        assert_eq!(run(argmax(true, false), &x, &[1, 2, 3]), (vec![1.0, 0.0, 1.0], vec![1, 1, 3]));
        assert_eq!(run(argmax(false, true), &x, &[1, 2, 3]), (vec![1.0, 1.0, 1.0], vec![1, 3]));
    }

    #[test]
    fn softmax_does_not_overflow() {
        let (y, _) = run(ClientStep::Softmax { axis: 1 }, &[1000.0, 0.0, 1000.0, 2000.0], &[1, 2, 2]);
        assert!((y[0] - 0.5).abs() < 1e-12 && y[1] < 1e-12 && y.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn steps_that_do_not_fit() {
        let bad = [
            ClientStep::Softmax { axis: 2 },
            ClientStep::Reshape { shape: vec![7] },
            ClientStep::Reshape { shape: vec![usize::MAX, usize::MAX] },
            ClientStep::Transpose { perm: vec![0, 0] },
            ClientStep::Resample { axis: 1, samples: vec![Sample::at(3)] },
            ClientStep::Resample { axis: 1, samples: vec![Sample { low: 0, high: 1, weight: f64::NAN }] },
            ClientStep::Resample { axis: 9, samples: vec![Sample::at(0)] },
            ClientStep::Resample { axis: 1, samples: vec![] },
            ClientStep::ArgMax { axis: 2, keepdims: true, select_last_index: false },
            ClientStep::Class { bits: 60 },
        ];
        for step in bad {
            let error = epilogue_shape(&[ClientStep::Softmax { axis: 1 }, step.clone()], &[1, 3]);
            assert!(error.is_err_and(|e| e.starts_with("step 1 of the client: ")), "{step:?}");
        }
    }
}
