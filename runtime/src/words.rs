//! Memory of secrets, handed out again and erased in the end.
//!
//! Fresh memory is dear: the system clears every page when it is touched first, and takes it back as soon as
//! a large buffer is freed. A network's layers are of few sizes, so what has been used is kept as it is and handed
//! out again, whichever thread asks, and erased when a party is done ([`erase_kept`]).

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bcc_ir::time::RESERVED;
use bytemuck::Zeroable;
use rayon::prelude::*;

/// Words that are kept at most.
pub const KEPT: usize = (RESERVED / 8) as usize;
/// Words that are not worth keeping.
const SMALL: usize = 1 << 9;
/// How many times as long as what is asked for a vector may be.
const MOST: usize = 4;
/// Words of a cache line, where memory begins: a load of a whole line from elsewhere takes two.
const LINE: usize = 8;

/// 64-bit words; erased, now or with all that is kept. There is no `Debug`.
#[derive(Default)]
pub struct Words {
    /// At least `start + len` words.
    all: Vec<u64>,
    start: usize,
    len: usize,
}

/// Used vectors.
#[derive(Default)]
struct Kept {
    /// By their length, the one that came last at the end, each with the number of its coming.
    free: BTreeMap<usize, Vec<(u64, Vec<u64>)>>,
    words: usize,
    /// How many have come.
    come: u64,
}

static POOL: Mutex<Kept> = Mutex::new(Kept { free: BTreeMap::new(), words: 0, come: 0 });

impl Kept {
    /// The smallest that fits, if it is not much larger: what was a message is then of use to a network's buffers.
    fn take(&mut self, len: usize) -> Option<Vec<u64>> {
        let (&size, same) = self.free.range_mut(len..=MOST * len).next()?;
        let (_, block) = same.pop()?;
        if same.is_empty() {
            self.free.remove(&size);
        }
        self.words -= size;
        Some(block)
    }

    /// Keeps a vector; gives back those for which there is no room, which have not been used for longest.
    fn give(&mut self, block: Vec<u64>) -> Vec<Vec<u64>> {
        let mut back = Vec::new();
        if block.len() > KEPT {
            return vec![block];
        }
        self.words += block.len();
        self.come += 1;
        self.free.entry(block.len()).or_default().push((self.come, block));
        while self.words > KEPT {
            let came = |(size, same): (&usize, &Vec<(u64, _)>)| Some((same.first()?.0, *size));
            let Some((_, size)) = self.free.iter().filter_map(came).min() else { break };
            let Some(same) = self.free.get_mut(&size) else { break };
            back.push(same.remove(0).1);
            if same.is_empty() {
                self.free.remove(&size);
            }
            self.words -= size;
        }
        back
    }

    fn blocks(&mut self) -> impl Iterator<Item = &mut Vec<u64>> {
        self.free.values_mut().flatten().map(|(_, block)| block)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.blocks().for_each(|block| erase(block));
    }
}

/// Zeros that the compiler cannot leave out as never read. `Zeroize` writes them one at a time.
#[inline(always)]
pub fn erase<T: Zeroable + Copy>(items: &mut [T]) {
    items.fill(T::zeroed());
    std::hint::black_box(items);
}

/// Vectors are put in and taken out whole, so a thread that panicked has left nothing half done.
fn pool() -> MutexGuard<'static, Kept> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Erases and frees what is kept.
pub fn erase_kept() {
    let kept = std::mem::take(&mut *pool());
    drop(kept);
}

/// Has the system give what is kept in fact, page by page.
pub fn touch_kept() {
    let mut kept = std::mem::take(&mut *pool());
    kept.blocks().collect::<Vec<_>>().into_par_iter().for_each(|block| erase(block));
    let mut pool = pool();
    std::mem::swap(&mut *pool, &mut kept);
    // What was given back meanwhile.
    let blocks = std::mem::take(&mut kept.free).into_values().flatten();
    blocks.flat_map(|(_, block)| pool.give(block)).for_each(|mut left| erase(&mut left));
}

impl Words {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Words {
        match kept(len) {
            Some(all) => {
                let mut words = Words::within(all, len);
                words.fill(0);
                words
            }
            None => Words::fresh(len),
        }
    }

    /// `len` words of any content, to be written before they are read.
    pub fn any(len: usize) -> Words {
        let mut words = kept(len).map_or_else(|| Words::fresh(len), |all| Words::within(all, len));
        // So that tests notice who reads them.
        if cfg!(debug_assertions) {
            words.fill(0xa5a5_a5a5_a5a5_a5a5);
        }
        words
    }

    /// `len` words of new memory, which are zeros.
    fn fresh(len: usize) -> Words {
        Words::within(vec![0; len + LINE - 1], len)
    }

    /// `len` words from the first line on.
    fn within(all: Vec<u64>, len: usize) -> Words {
        let start = all.as_ptr().align_offset(LINE * size_of::<u64>()).min(LINE - 1);
        Words { all, start, len }
    }
}

fn kept(len: usize) -> Option<Vec<u64>> {
    if len < SMALL { None } else { pool().take(len + LINE - 1) }
}

impl Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.all[self.start..][..self.len]
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.all[self.start..][..self.len]
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        let mut all = std::mem::take(&mut self.all);
        if all.len() < SMALL {
            erase(&mut all);
        } else {
            let back = pool().give(all);
            back.into_iter().for_each(|mut left| erase(&mut left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back() {
        let mut kept = Kept::default();
        assert!(kept.give(vec![0; 1000]).is_empty());
        // Not for what is much smaller.
        assert!(kept.take(200).is_none());
        assert!(kept.take(900).is_some_and(|b| b.len() == 1000));
        assert!(kept.take(900).is_none() && kept.words == 0);
    }

    #[test]
    fn zeros_are_zeros_whatever_was_there() {
        for len in [0, 3, 1000, 1 << 18] {
            let mut first = Words::any(len);
            assert!(first.len() == len && first.as_ptr().addr().is_multiple_of(64));
            first.fill(7);
            drop(first);
            assert!(Words::zeros(len).iter().all(|w| *w == 0));
        }
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let mut kept = Kept::default();
        for _ in 0..4 {
            assert!(kept.give(vec![0; KEPT / 4]).is_empty());
        }
        // The one that came first goes, or what is larger than all that may be kept.
        kept.give(vec![0; 1000]).iter().for_each(|back| assert_eq!(back.len(), KEPT / 4));
        assert_eq!(kept.words, KEPT / 4 * 3 + 1000);
        assert!(kept.give(vec![0; KEPT / 4 - 1000]).is_empty() && kept.words == KEPT);
        assert_eq!(kept.give(vec![0; KEPT / 2]).len(), 2);
        assert!(kept.take(1000).is_some() && kept.take(KEPT / 2).is_some() && kept.take(KEPT / 4).is_some());
        assert_eq!(kept.give(vec![0; KEPT + 1]).len(), 1);
    }
}
