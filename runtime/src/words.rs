//! Memory of secrets: erased when it is given up, and handed out again.
//!
//! Fresh memory is dear: the system clears every page when it is touched first, and takes it back as soon as
//! a large buffer is freed. A network's layers are of few sizes, so each thread keeps what it has erased.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Words that a thread keeps at most: 256 MiB.
const KEPT: usize = 1 << 25;
/// Words that are not worth keeping.
const SMALL: usize = 1 << 9;

/// 64-bit words, zeros at first. Erased when dropped; there is no `Debug`.
#[derive(Default)]
pub struct Words(Vec<u64>);

/// Erased vectors by their length, which is all that they have room for.
#[derive(Default)]
struct Kept {
    free: BTreeMap<usize, Vec<Vec<u64>>>,
    words: usize,
}

thread_local! {
    static KEPT_HERE: RefCell<Kept> = RefCell::default();
}

impl Kept {
    /// The smallest that fits without much waste, cut to `len`.
    fn take(&mut self, len: usize) -> Option<Vec<u64>> {
        let (&size, same) = self.free.range_mut(len..=len + len / 4).next()?;
        let mut words = same.pop()?;
        if same.is_empty() {
            self.free.remove(&size);
        }
        self.words -= size;
        words.truncate(len);
        Some(words)
    }

    /// Keeps an erased vector, if there is room.
    fn give(&mut self, mut words: Vec<u64>) {
        let size = words.capacity();
        if self.words + size <= KEPT {
            words.resize(size, 0);
            self.words += size;
            self.free.entry(size).or_default().push(words);
        }
    }
}

impl Words {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Words {
        // While a thread ends there is nothing kept any more.
        let kept = if len < SMALL { None } else { KEPT_HERE.try_with(|k| k.borrow_mut().take(len)).ok().flatten() };
        Words(kept.unwrap_or_else(|| vec![0; len]))
    }
}

impl From<Vec<u64>> for Words {
    fn from(words: Vec<u64>) -> Words {
        Words(words)
    }
}

impl Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.0
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if self.0.len() < SMALL {
            self.0.zeroize();
            return;
        }
        // What is kept is read again as zeros, so this cannot be optimised away.
        self.0.fill(0);
        let words = std::mem::take(&mut self.0);
        let mut left = Some(words);
        let _ = KEPT_HERE.try_with(|k| left.take().map(|words| k.borrow_mut().give(words)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_as_zeros() {
        let mut first = Words::zeros(1000);
        first.fill(7);
        let place = first.as_ptr();
        drop(first);
        // Not for what is much smaller.
        assert_ne!(Words::zeros(700).as_ptr(), place);
        let second = Words::zeros(900);
        assert!(second.as_ptr() == place && second.len() == 900 && second.iter().all(|w| *w == 0));
        drop(second);
        let third = Words::zeros(1000);
        assert!(third.as_ptr() == place && third.iter().all(|w| *w == 0));
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let all: Vec<Words> = (0..6).map(|_| Words::zeros(KEPT / 4)).collect();
        drop(all);
        KEPT_HERE.with(|k| assert_eq!(k.borrow().words, KEPT));
    }
}
