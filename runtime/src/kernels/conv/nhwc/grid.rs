//! Where the pixels of maps lie.

use std::ops::Range;

use bcc_ir::geometry::ConvShape;

use super::{CHUNK, GROUP};
use crate::kernels::conv::window::BYTE_ROWS;

/// How the maps of a group's channels are laid out, and what of them is computed at a time. The maps of [`CHUNK`] channels
/// follow each other. In each the rows are sorted by their residue modulo the vertical stride, so that one output row reads
/// as far behind the other whatever the tap. Zeros between two rows are the padding of both.
pub struct Grid {
    /// Rows and columns of the input.
    pub input: [usize; 2],
    /// Rows of padding above.
    pub top: usize,
    /// Zeros before the first row.
    pub before: usize,
    /// Pixels from a row to the next.
    pub pitch: usize,
    /// Vertical stride: kinds of rows.
    pub kinds: usize,
    /// Rows of a kind.
    pub rows: usize,
    /// Horizontal stride: pixels from an output to the next.
    pub step: usize,
    /// Pixels from the maps of a chunk to those of the next.
    pub plane: usize,
    /// Pixels of all maps, and what tiles read behind them.
    pub pixels: usize,
    /// Whether some block reads a row, by its place.
    pub read: Vec<bool>,
    /// Where the taps of a window begin in the maps of a chunk.
    taps: Vec<usize>,
    /// Chunks of channels.
    chunks: usize,
    /// Pixels of the output.
    pub outputs: usize,
    /// The output's pixels.
    pub blocks: Vec<Block>,
}

/// Pixels that are computed at once.
pub struct Block {
    /// Where the first one's window begins.
    pub pixel: usize,
    /// Those that are in the output.
    pub valid: u16,
    /// The first of these.
    pub output: usize,
    /// Taps of the window, but rows of it at either end that are in the padding for all of them.
    pub taps: Range<usize>,
}

// As many as there are bits in `valid`.
const _: () = assert!(BYTE_ROWS == u16::BITS as usize);

impl Grid {
    /// Of the maps that one group of `shape` reads, unless there is no output.
    pub fn new(shape: &ConvShape) -> Option<Grid> {
        let [height, width] = shape.output()?;
        let window = &shape.window;
        let [top, left, _, right] = window.pad;
        let [[kinds, step], [kh, kw], [dilation_y, dilation_x]] = [window.stride, window.kernel, window.dilation];
        // Room for the padding of either side, and for as many outputs as a row has.
        let pitch = (shape.input[1] + left.max(right)).max(width * step).next_multiple_of(step);
        let rows = ((height - 1) * kinds + (kh - 1) * dilation_y + 1).div_ceil(kinds);
        let tap = |ky: usize, kx: usize| {
            let y = ky * dilation_y;
            (y % kinds * rows + y / kinds) * pitch + kx * dilation_x
        };
        let taps: Vec<usize> = (0..kh * kw).map(|t| tap(t / kw, t % kw)).collect();
        let mut read = vec![false; kinds * rows];
        let mut blocks = blocks([height, width], pitch / step, step);
        for block in &mut blocks {
            let last = block.output + block.valid.count_ones() as usize - 1;
            let outputs = block.output / width..last / width + 1;
            let inside = |y: usize, ky: usize| (top..top + shape.input[0]).contains(&(y * kinds + ky * dilation_y));
            let counts = |ky: &usize| outputs.clone().any(|y| inside(y, *ky));
            let first = (0..kh).find(counts).unwrap_or(0);
            let end = (0..kh).rfind(counts).map_or(0, |ky| ky + 1);
            block.taps = first * kw..end * kw;
            for (y, ky) in outputs.flat_map(|y| (first..end).map(move |ky| (y, ky))) {
                let y = y * kinds + ky * dilation_y;
                read[y % kinds * rows + y / kinds] = true;
            }
        }
        let plane = left + kinds * rows * pitch;
        let last = blocks.last().map_or(0, |b| b.pixel) + taps.iter().max().unwrap_or(&0);
        let chunks = (shape.in_channels / shape.groups).div_ceil(CHUNK);
        Some(Grid {
            input: shape.input,
            top,
            before: left,
            pitch,
            kinds,
            rows,
            step,
            plane,
            pixels: chunks.saturating_sub(1) * plane + plane.max(last + (BYTE_ROWS - 1) * step + 1),
            read,
            taps,
            chunks,
            outputs: height * width,
            blocks,
        })
    }

    /// Row of the padded input that is at a place among the rows of a map.
    pub fn row_at(&self, place: usize) -> usize {
        place % self.rows * self.kinds + place / self.rows
    }

    /// Taps of a window.
    pub fn taps(&self) -> usize {
        self.taps.len()
    }

    /// Where every group of the depth, one tap of a chunk, begins, if pixels have so many digits.
    pub fn starts(&self, digits: usize) -> Vec<usize> {
        let pixels = (0..self.chunks).flat_map(|c| self.taps.iter().map(move |tap| c * self.plane + tap));
        pixels.map(|p| p * digits * GROUP).collect()
    }
}

/// The pixels of an output whose rows lie `pitch` apart, in whichever way makes fewer blocks: in each row for itself, or
/// across their ends. Maps have `step` pixels for each.
fn blocks([height, width]: [usize; 2], pitch: usize, step: usize) -> Vec<Block> {
    let block = |first: usize, within: bool| {
        let inside = |i: &usize| {
            let (y, x) = ((first + i) / pitch, (first + i) % pitch);
            y < height && x < width && (!within || y == first / pitch)
        };
        Block {
            pixel: first * step,
            valid: (0..BYTE_ROWS).filter(inside).map(|i| 1 << i).sum(),
            output: first / pitch * width + (first % pitch).min(width),
            taps: 0..0,
        }
    };
    let across = (0..(height - 1) * pitch + width).step_by(BYTE_ROWS).map(|p| block(p, false));
    let across: Vec<Block> = across.filter(|b| b.valid > 0).collect();
    if height * width.div_ceil(BYTE_ROWS) >= across.len() {
        return across;
    }
    let starts = (0..height).flat_map(|y| (0..width).step_by(BYTE_ROWS).map(move |x| y * pitch + x));
    starts.map(|p| block(p, true)).collect()
}

#[cfg(test)]
mod tests {
    use bcc_ir::geometry::Window;

    use super::*;

    fn shape(input: [usize; 2], window: Window) -> ConvShape {
        ConvShape { in_channels: 128, input, out_channels: 16, groups: 1, window }
    }

    #[test]
    fn every_output_once_and_every_tap_where_its_pixel_is() {
        for stride in [[1, 1], [2, 2], [3, 1], [1, 2]] {
            for (dilation, pad) in [([1, 1], [1; 4]), ([2, 3], [0, 2, 3, 1]), ([1, 1], [9, 0, 0, 9]), ([5, 9], [9; 4])]
            {
                for input in [[20, 19], [7, 7], [3, 33], [12, 1]] {
                    let window = Window { kernel: [3, 2], stride, dilation, pad };
                    let shape = shape(input, window);
                    let Some([height, width]) = shape.output() else { continue };
                    let grid = Grid::new(&shape).unwrap();
                    // The pixel of the input that each of a map has, none for padding.
                    let mut pixels = vec![None; grid.pixels];
                    let filled = |pixel: usize| {
                        let Some(p) = pixel.checked_sub(grid.before) else { return true };
                        let before_next = p % grid.pitch >= grid.pitch - grid.before;
                        grid.read.get(p / grid.pitch).is_some_and(|read| *read || before_next)
                    };
                    for place in (0..grid.kinds * grid.rows).filter(|place| grid.read[*place]) {
                        if let Some(y) = grid.row_at(place).checked_sub(grid.top).filter(|y| *y < input[0]) {
                            for x in 0..input[1] {
                                pixels[grid.before + place * grid.pitch + x] = Some([y, x]);
                            }
                        }
                    }
                    let mut outputs = 0;
                    for block in &grid.blocks {
                        assert_eq!(block.output, outputs);
                        for i in (0..BYTE_ROWS).filter(|i| block.valid >> i & 1 == 1) {
                            let (y, x) = (outputs / width, outputs % width);
                            for (t, tap) in grid.taps.iter().enumerate() {
                                let at = |axis, o, k| {
                                    let p = window.position(axis, o, k);
                                    usize::try_from(p).ok().filter(|p| *p < input[axis])
                                };
                                let want = at(0, y, t / 2).zip(at(1, x, t % 2)).map(|(y, x)| [y, x]);
                                let pixel = block.pixel + i * grid.step + tap;
                                assert_eq!(pixels[pixel], want, "{shape}");
                                assert!(
                                    if block.taps.contains(&t) { filled(pixel) } else { want.is_none() },
                                    "{shape}"
                                );
                            }
                            outputs += 1;
                        }
                        assert!(block.pixel + (BYTE_ROWS - 1) * grid.step + grid.taps[5] + grid.plane < grid.pixels);
                    }
                    assert_eq!(outputs, height * width);
                }
            }
        }
    }

    #[test]
    fn as_few_blocks_as_either_way_has() {
        let of = |size: usize, pad: usize| {
            let window = Window { pad: [pad; 4], dilation: [pad; 2], ..Window::new([3, 3]) };
            Grid::new(&shape([size; 2], window)).unwrap().blocks.len()
        };
        assert_eq!([of(56, 1), of(14, 1), of(7, 1), of(64, 1)], [200, 14, 4, 256]);
        // Across the ends of rows there would be 100 pixels for 64.
        assert_eq!(of(64, 36), 256);
    }
}
