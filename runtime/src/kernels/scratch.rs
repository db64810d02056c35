//! Working memory of kernels: narrow elements in the memory of words.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::words::Words;

/// Types whose every bit pattern is a value and whose alignment is at most 8.
///
/// # Safety
/// Exactly that.
pub unsafe trait Element: Copy {}

// SAFETY: integers have no invalid bit patterns.
unsafe impl Element for i16 {}
// SAFETY: as above.
unsafe impl Element for u32 {}
// SAFETY: as above, without padding between elements.
unsafe impl<const N: usize> Element for [u32; N] {}

/// Narrow elements, erased as [`Words`] are. (`Vec<i16>` would be erased an element at a time.)
pub struct Scratch<T> {
    words: Words,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Scratch<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let words = (len * size_of::<T>()).div_ceil(8);
        Scratch { words: Words::zeros(words), len, element: PhantomData }
    }

    /// `len` elements of any content, to be written before they are read.
    pub fn any(len: usize) -> Self {
        let words = (len * size_of::<T>()).div_ceil(8);
        Scratch { words: Words::any(words), len, element: PhantomData }
    }
}

impl<T: Element> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` made room for `len` elements; every bit pattern is one, and words are aligned.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }
}

impl<T: Element> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the words are borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }
}
