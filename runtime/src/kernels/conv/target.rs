//! Where the product's tiles go.

use std::marker::PhantomData;

use super::tile::COLUMNS;
use crate::element::Element;

/// The output, written by tasks at places that do not overlap.
pub struct Shared<'a, E> {
    start: *mut E,
    len: usize,
    borrow: PhantomData<&'a mut [E]>,
}

// SAFETY: the pointer is only used in `Place::add`; whoever makes a place answers for it being nobody else's.
#[allow(unsafe_code)]
unsafe impl<E: Element> Sync for Shared<'_, E> {}

impl<'a, E: Element> Shared<'a, E> {
    /// Of a slice that is borrowed until then.
    pub fn new(all: &'a mut [E]) -> Self {
        Shared { start: all.as_mut_ptr(), len: all.len(), borrow: PhantomData }
    }

    /// Some rows and columns.
    ///
    /// # Safety
    /// No other task may have a place with the same elements at the same time.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub unsafe fn place(&self, rectangle: Rectangle, first: bool, mask: E) -> Place<'_, E> {
        let Rectangle { at, rows, pixels, columns } = rectangle;
        let end = if rows == 0 { at } else { at + (rows - 1) * pixels + columns };
        assert!(columns <= COLUMNS && end <= self.len, "a tile lies inside the output");
        Place { shared: self, rectangle, first, mask }
    }
}

/// A tile's part of the output.
#[derive(Clone, Copy)]
pub struct Rectangle {
    /// The first element.
    pub at: usize,
    /// Rows.
    pub rows: usize,
    /// From one to the next.
    pub pixels: usize,
    /// Elements of each, at most [`COLUMNS`].
    pub columns: usize,
}

/// A place in the output that one task has.
#[derive(Clone, Copy)]
pub struct Place<'a, E> {
    shared: &'a Shared<'a, E>,
    rectangle: Rectangle,
    first: bool,
    mask: E,
}

impl<E: Element> Place<'_, E> {
    /// Its columns.
    #[inline(always)]
    pub fn columns(&self) -> usize {
        self.rectangle.columns
    }

    /// Its rows.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.rectangle.rows
    }

    /// What of its elements counts.
    #[inline(always)]
    pub fn mask(&self) -> E {
        self.mask
    }

    /// Whether nothing is there yet.
    #[inline(always)]
    pub fn first(&self) -> bool {
        self.first
    }

    /// A row.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [E] {
        let Rectangle { at, rows, pixels, columns } = self.rectangle;
        assert!(row < rows, "the place has that row");
        // SAFETY: inside the output, which is borrowed exclusively, as `place` has found; and by its contract nobody
        // else touches it now.
        unsafe { std::slice::from_raw_parts_mut(self.shared.start.add(at + row * pixels), columns) }
    }

    /// Adds sums to a row, or writes them there if they are the `first`, and keeps the bits of the mask. Columns
    /// that the place has not are left out.
    #[inline(always)]
    pub fn add(mut self, row: usize, first: bool, sums: [E; COLUMNS]) {
        let mask = self.mask;
        let to = self.row(row);
        if let Some(to) = to.first_chunk_mut::<COLUMNS>() {
            // Values, not references, which compilers take to overlap.
            let before = if first { [E::ZERO; COLUMNS] } else { *to };
            let mut after = [E::ZERO; COLUMNS];
            for i in 0..COLUMNS {
                after[i] = before[i].plus(sums[i]) & mask;
            }
            *to = after;
        } else if first {
            to.iter_mut().zip(sums).for_each(|(y, v)| *y = v & mask);
        } else {
            to.iter_mut().zip(sums).for_each(|(y, v)| *y = y.plus(v) & mask);
        }
    }
}
