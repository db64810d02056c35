//! Average and maximum pools.

use bcc_ir::geometry::PoolShape;

/// Average over the positions inside the map, divided by [`PoolShape::divisor`].
pub(super) fn average(x: &[f32], shape: &PoolShape) -> Vec<f32> {
    let [oh, ow] = output(shape);
    let mut reciprocals = Vec::with_capacity(oh * ow);
    for y in 0..oh {
        reciprocals.extend((0..ow).map(|x| 1.0 / shape.divisor(y, x) as f32));
    }
    let mut sums = windows(x, shape, 0.0, |a, b| a + b);
    for map in sums.chunks_exact_mut(oh * ow) {
        map.iter_mut().zip(&reciprocals).for_each(|(v, r)| *v *= r);
    }
    sums
}

/// Maximum over the positions inside the map.
pub(super) fn maximum(x: &[f32], shape: &PoolShape) -> Vec<f32> {
    windows(x, shape, f32::NEG_INFINITY, f32::max)
}

fn output(shape: &PoolShape) -> [usize; 2] {
    shape.window.output(shape.input[0], shape.input[1]).expect("shapes are inferred before a run")
}

/// Combines every window's positions inside the map, first along rows, then along columns.
fn windows(x: &[f32], shape: &PoolShape, start: f32, combine: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let [oh, ow] = output(shape);
    let [h, w] = shape.input;
    let inside = |axis: usize, o: usize| {
        (0..shape.window.kernel[axis])
            .map(move |t| shape.window.position(axis, o, t))
            .filter_map(move |p| usize::try_from(p).ok().filter(|p| *p < shape.input[axis]))
    };
    let columns: Vec<Vec<usize>> = (0..ow).map(|o| inside(1, o).collect()).collect();
    let rows: Vec<Vec<usize>> = (0..oh).map(|o| inside(0, o).collect()).collect();
    let mut result = Vec::with_capacity(shape.channels * oh * ow);
    let mut narrow = vec![0.0; h * ow];
    for map in x.chunks_exact(h * w) {
        for (row, out) in map.chunks_exact(w).zip(narrow.chunks_exact_mut(ow)) {
            for (v, taps) in out.iter_mut().zip(&columns) {
                *v = taps.iter().fold(start, |a, &t| combine(a, row[t]));
            }
        }
        for taps in &rows {
            let at = result.len();
            result.resize(at + ow, start);
            for &t in taps {
                for (v, n) in result[at..].iter_mut().zip(&narrow[t * ow..(t + 1) * ow]) {
                    *v = combine(*v, *n);
                }
            }
        }
    }
    result
}
