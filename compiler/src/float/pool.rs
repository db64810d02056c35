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

/// The gradient of [`average`]: every position gets its share of the windows that cover it.
pub(super) fn average_backward(g: &[f32], shape: &PoolShape, out: &mut [f32]) {
    let [oh, ow] = output(shape);
    let [h, w] = shape.input;
    for (map, g) in out.chunks_exact_mut(h * w).zip(g.chunks_exact(oh * ow)) {
        for (y, row) in g.chunks_exact(ow).enumerate() {
            for (x, g) in row.iter().enumerate() {
                let part = g / shape.divisor(y, x) as f32;
                for r in inside(shape, 0, y) {
                    inside(shape, 1, x).for_each(|c| map[r * w + c] += part);
                }
            }
        }
    }
}

/// The gradient of [`maximum`] at operand `z`: all of it to the first largest position of a window.
pub(super) fn maximum_backward(g: &[f32], z: &[f32], shape: &PoolShape, out: &mut [f32]) {
    let [oh, ow] = output(shape);
    let [h, w] = shape.input;
    let maps = out.chunks_exact_mut(h * w).zip(z.chunks_exact(h * w)).zip(g.chunks_exact(oh * ow));
    for ((map, z), g) in maps {
        for (y, row) in g.chunks_exact(ow).enumerate() {
            for (x, g) in row.iter().enumerate() {
                let all = inside(shape, 0, y).flat_map(|r| inside(shape, 1, x).map(move |c| r * w + c));
                let largest = all.reduce(|best, p| if z[p] > z[best] { p } else { best });
                if let Some(p) = largest {
                    map[p] += g;
                }
            }
        }
    }
}

/// Positions inside the map, on one axis, of the window at output `o`.
fn inside(shape: &PoolShape, axis: usize, o: usize) -> impl Iterator<Item = usize> + '_ {
    (0..shape.window.kernel[axis])
        .map(move |t| shape.window.position(axis, o, t))
        .filter_map(move |p| usize::try_from(p).ok().filter(|p| *p < shape.input[axis]))
}

fn output(shape: &PoolShape) -> [usize; 2] {
    shape.window.output(shape.input[0], shape.input[1]).expect("shapes are inferred before a run")
}

/// Combines every window's positions inside the map, first along rows, then along columns.
fn windows(x: &[f32], shape: &PoolShape, start: f32, combine: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let [oh, ow] = output(shape);
    let [h, w] = shape.input;
    let columns: Vec<Vec<usize>> = (0..ow).map(|o| inside(shape, 1, o).collect()).collect();
    let rows: Vec<Vec<usize>> = (0..oh).map(|o| inside(shape, 0, o).collect()).collect();
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
