//! Integers of any size in the memory of words.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;

use crate::words::Words;

/// Integers of at most 8 bytes, or arrays of such, erased as [`Words`] are. There is no `Debug`.
pub struct Scratch<T> {
    words: Words,
    len: usize,
    item: PhantomData<T>,
}

impl<T: Pod> Scratch<T> {
    /// `len` items in that memory, which holds as many.
    pub fn within(words: Words, len: usize) -> Self {
        Scratch { words, len, item: PhantomData }
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Scratch::within(Words::zeros(words::<T>(len)), len)
    }

    /// `len` items of any content, to be written before they are read.
    pub fn any(len: usize) -> Self {
        Scratch::within(Words::any(words::<T>(len)), len)
    }
}

impl<T: Pod> FromIterator<T> for Scratch<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let all: Vec<T> = all.into_iter().collect();
        let mut scratch = Scratch::any(all.len());
        scratch.copy_from_slice(&all);
        scratch
    }
}

/// Words that hold `len` items.
const fn words<T>(len: usize) -> usize {
    (len * size_of::<T>()).div_ceil(size_of::<u64>())
}

impl<T: Pod> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // Items are whole words or whole parts of one, and no more aligned than they.
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl<T: Pod> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_fill_words() {
        let odd: Scratch<u32> = (0..7).collect();
        assert!((*odd).iter().copied().eq(0..7) && odd.words.len() == 4);
        let mut arrays = Scratch::<[u32; 16]>::zeros(3);
        arrays[2][15] = 9;
        assert_eq!((arrays.len(), arrays.words.len(), arrays[2][15]), (3, 24, 9));
        assert!(Scratch::<i16>::any(0).is_empty());
    }
}
