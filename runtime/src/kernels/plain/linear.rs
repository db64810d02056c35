//! Sums over windows.

use bcc_ir::geometry::{ConvShape, PoolShape, Window};

use crate::element::Element;

/// Input position of a tap, if it is not in the padding.
#[inline(always)]
fn tap(window: &Window, input: [usize; 2], [oy, ox]: [usize; 2], [ky, kx]: [usize; 2]) -> Option<usize> {
    let y = usize::try_from(window.position(0, oy, ky)).ok().filter(|y| *y < input[0])?;
    let x = usize::try_from(window.position(1, ox, kx)).ok().filter(|x| *x < input[1])?;
    Some(y * input[1] + x)
}

/// Convolution by its definition.
#[inline(always)]
pub fn conv<E: Element>(bits: u8, shape: &ConvShape, x: &[E], w: &[E], out: &mut [E]) {
    let Some([height, width]) = shape.output() else { return };
    let [kh, kw] = shape.window.kernel;
    let size = shape.input[0] * shape.input[1];
    let (in_group, out_group) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    for o in 0..shape.out_channels {
        let first = o / out_group * in_group;
        for oy in 0..height {
            for ox in 0..width {
                let mut sum = E::ZERO;
                for c in 0..in_group {
                    for ky in 0..kh {
                        for kx in 0..kw {
                            if let Some(p) = tap(&shape.window, shape.input, [oy, ox], [ky, kx]) {
                                let weight = w[((o * in_group + c) * kh + ky) * kw + kx];
                                sum = sum.plus(weight.times(x[(first + c) * size + p]));
                            }
                        }
                    }
                }
                out[(o * height + oy) * width + ox] = sum & E::mask(bits);
            }
        }
    }
}

/// Sum over each window.
#[inline(always)]
pub fn sum_pool<E: Element>(bits: u8, shape: &PoolShape, x: &[E], out: &mut [E]) {
    let Some([height, width]) = shape.window.output(shape.input[0], shape.input[1]) else { return };
    let [kh, kw] = shape.window.kernel;
    let size = shape.input[0] * shape.input[1];
    for (map, out) in x.chunks_exact(size).zip(out.chunks_exact_mut(height * width)) {
        for oy in 0..height {
            for ox in 0..width {
                let mut sum = E::ZERO;
                for ky in 0..kh {
                    for kx in 0..kw {
                        if let Some(p) = tap(&shape.window, shape.input, [oy, ox], [ky, kx]) {
                            sum = sum.plus(map[p]);
                        }
                    }
                }
                out[oy * width + ox] = sum & E::mask(bits);
            }
        }
    }
}
