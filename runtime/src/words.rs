//! Memory of secrets, handed out again and erased in the end.
//!
//! Fresh memory is dear: the system clears every page when it is touched first, and takes it back as soon as
//! a large buffer is freed. A network's layers are of few sizes, so each thread keeps what it has used, as it
//! is, for values of the same party, and erases it when the party is done ([`erase_kept`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

/// Words that a thread keeps at most: 256 MiB.
const KEPT: usize = 1 << 25;
/// Words that are not worth keeping.
const SMALL: usize = 1 << 9;

/// 64-bit words; erased, now or with all that the thread has kept. There is no `Debug`.
#[derive(Default)]
pub struct Words {
    /// At least `len` words: all that there is room for, where they have been handed out before.
    all: Vec<u64>,
    len: usize,
}

/// Used vectors by their length.
#[derive(Default)]
struct Kept {
    free: BTreeMap<usize, Vec<Vec<u64>>>,
    words: usize,
}

thread_local! {
    static KEPT_HERE: RefCell<Kept> = RefCell::default();
}

impl Kept {
    /// The smallest that fits without much waste.
    fn take(&mut self, len: usize) -> Option<Vec<u64>> {
        let (&size, same) = self.free.range_mut(len..=len + len / 4).next()?;
        let words = same.pop()?;
        if same.is_empty() {
            self.free.remove(&size);
        }
        self.words -= size;
        Some(words)
    }

    /// Keeps a vector, or erases it where there is no room.
    fn give(&mut self, mut words: Vec<u64>) {
        if self.words + words.len() > KEPT {
            erase(&mut words);
            return;
        }
        self.words += words.len();
        self.free.entry(words.len()).or_default().push(words);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.free.values_mut().flatten().for_each(|words| erase(words));
    }
}

/// Zeros that the compiler cannot leave out as never read. `Zeroize` writes them one at a time.
fn erase(words: &mut [u64]) {
    words.fill(0);
    std::hint::black_box(words);
}

/// Erases and frees what this thread keeps.
pub fn erase_kept() {
    // While a thread ends there is nothing kept any more.
    let _ = KEPT_HERE.try_with(|k| drop(k.take()));
}

impl Words {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Words {
        match kept(len) {
            Some(mut all) => {
                all[..len].fill(0);
                Words { all, len }
            }
            None => vec![0; len].into(),
        }
    }

    /// `len` words of any content, to be written before they are read.
    pub fn any(len: usize) -> Words {
        let mut all = kept(len).unwrap_or_else(|| vec![0; len]);
        // So that tests notice who reads them.
        if cfg!(debug_assertions) {
            all.fill(0xa5a5_a5a5_a5a5_a5a5);
        }
        Words { all, len }
    }
}

fn kept(len: usize) -> Option<Vec<u64>> {
    if len < SMALL { None } else { KEPT_HERE.try_with(|k| k.borrow_mut().take(len)).ok().flatten() }
}

impl From<Vec<u64>> for Words {
    fn from(all: Vec<u64>) -> Words {
        Words { len: all.len(), all }
    }
}

impl Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.all[..self.len]
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.all[..self.len]
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        let mut all = std::mem::take(&mut self.all);
        if all.len() < SMALL {
            erase(&mut all);
            return;
        }
        let mut left = Some(all);
        let _ = KEPT_HERE.try_with(|k| left.take().map(|all| k.borrow_mut().give(all)));
        left.iter_mut().for_each(|all| erase(all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back() {
        let mut first = Words::zeros(1000);
        first.fill(7);
        let place = first.as_ptr();
        drop(first);
        // Not for what is much smaller.
        assert_ne!(Words::zeros(700).as_ptr(), place);
        let second = Words::any(900);
        assert!(second.as_ptr() == place && second.len() == 900);
        drop(second);
        let third = Words::zeros(1000);
        assert!(third.as_ptr() == place && third.iter().all(|w| *w == 0));
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let all: Vec<Words> = (0..6).map(|_| Words::zeros(KEPT / 4)).collect();
        drop(all);
        KEPT_HERE.with(|k| assert_eq!(k.borrow().words, KEPT));
        erase_kept();
        KEPT_HERE.with(|k| assert_eq!(k.borrow().words, 0));
    }
}
