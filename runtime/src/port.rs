//! Between the client's numbers and ring elements.

use bcc_ir::graph::{ClientStep, run_epilogue};
use bcc_ir::program::Port;
use thiserror::Error;

use crate::buffer::mask;
use crate::words::Words;

/// Numbers with a shape.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Values, last axis fastest.
    pub data: Vec<f64>,
}

/// Why an input cannot be used.
#[derive(Debug, Error, PartialEq)]
pub enum InputError {
    /// Wrong shape.
    #[error("the input has shape {got:?}, the network takes {want:?}")]
    Shape {
        /// Its shape.
        got: Vec<usize>,
        /// The network's.
        want: Vec<usize>,
    },
    /// Not a number, or infinite.
    #[error("element {index:?} of the input is {value}; all elements must be finite numbers")]
    NotFinite {
        /// Where.
        index: Vec<usize>,
        /// What it is.
        value: f64,
    },
    /// Beyond the bound that the network was compiled for.
    #[error(
        "element {index:?} of the input is {value}, beyond the bound {bound} that the network was compiled for; \
         scale the input as in training, or compile with calibration images that cover it"
    )]
    Bound {
        /// Where.
        index: Vec<usize>,
        /// What it is.
        value: f64,
        /// The bound.
        bound: f64,
    },
}

fn position(shape: &[usize], mut flat: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, n) in index.iter_mut().zip(shape).rev() {
        (*i, flat) = (flat % n, flat / n);
    }
    index
}

/// Encodes an input: `round(x * 2^frac / gain)` modulo the port's modulus, ties to even. The shape
/// must be the port's, every element finite and at most the port's bound.
pub fn encode(port: &Port, x: &Tensor) -> Result<Words, InputError> {
    if x.shape != port.shape || x.data.len() != port.shape.iter().product::<usize>() {
        return Err(InputError::Shape { got: x.shape.clone(), want: port.shape.clone() });
    }
    let factor = 2f64.powi(i32::from(port.frac)) / port.gain;
    let limit = 2f64.powi(i32::from(port.modulus) - 1);
    let mut out = Words::zeros(x.data.len());
    for (i, (&value, y)) in x.data.iter().zip(out.iter_mut()).enumerate() {
        if !value.is_finite() {
            return Err(InputError::NotFinite { index: position(&x.shape, i), value });
        }
        let integer = (value * factor).round_ties_even();
        if value.abs() > port.bound || integer.abs() >= limit {
            return Err(InputError::Bound { index: position(&x.shape, i), value, bound: port.bound });
        }
        *y = integer as i64 as u64 & mask(port.modulus);
    }
    Ok(out)
}

/// The signed integers of elements modulo the port's modulus.
pub fn signed(port: &Port, values: Vec<u64>) -> Vec<i64> {
    let shift = 64 - u32::from(port.modulus.clamp(1, 64));
    // In the same memory.
    values.into_iter().map(|v| ((v << shift) as i64) >> shift).collect()
}

/// Real numbers of an output, and the steps that the client does in the clear.
///
/// # Panics
/// If the steps do not fit the port's shape; the program's verifier refuses such.
pub fn decode(port: &Port, epilogue: &[ClientStep], integers: &[i64]) -> Tensor {
    let unit = port.gain / 2f64.powi(i32::from(port.frac));
    let (data, shape) = run_epilogue(epilogue, integers.iter().map(|v| *v as f64 * unit).collect(), &port.shape);
    Tensor { shape, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(modulus: u8) -> Port {
        Port { name: "x".into(), shape: vec![1, 2, 2], frac: 4, modulus, gain: 0.5, bound: 3.0 }
    }

    fn tensor(data: [f64; 4]) -> Tensor {
        Tensor { shape: vec![1, 2, 2], data: data.to_vec() }
    }

    #[test]
    fn roundtrip() {
        for modulus in [8, 20, 64] {
            let p = port(modulus);
            let v = encode(&p, &tensor([0.0, -2.0, 1.0 / 32.0, 3.0])).unwrap();
            let integers = signed(&p, v.to_vec());
            assert_eq!(integers, [0, -64, 1, 96]);
            assert_eq!(decode(&p, &[], &integers).data, [0.0, -2.0, 1.0 / 32.0, 3.0]);
        }
    }

    #[test]
    fn refuses_bad_input() {
        let p = port(20);
        assert!(matches!(
            encode(&p, &tensor([0.0, 0.0, f64::NAN, 0.0])),
            Err(InputError::NotFinite { index, .. }) if index == [0, 1, 0]
        ));
        assert!(matches!(
            encode(&p, &tensor([0.0, 0.0, 0.0, -3.1])),
            Err(InputError::Bound { index, .. }) if index == [0, 1, 1]
        ));
        let flat = Tensor { shape: vec![4], data: vec![0.0; 4] };
        assert!(matches!(encode(&p, &flat), Err(InputError::Shape { .. })));
    }
}
