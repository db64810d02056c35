//! Frames that have been sent or read, to be filled again: fresh memory is dear.

use std::sync::Mutex;

/// Bytes that are kept at most.
const KEPT: usize = 1 << 27;
/// Frames that are not worth keeping.
const SMALL: usize = 1 << 14;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A vector with room for `bytes` and any content.
pub fn take(bytes: usize) -> Vec<u8> {
    let fits = |v: &Vec<u8>| (bytes..=bytes + bytes / 2).contains(&v.capacity());
    let spare = || {
        let mut all = SPARE.lock().ok()?;
        let place = all.iter().position(fits)?;
        Some(all.swap_remove(place))
    };
    if bytes < SMALL { Vec::with_capacity(bytes) } else { spare().unwrap_or_else(|| Vec::with_capacity(bytes)) }
}

/// Keeps a frame, in place of the oldest ones if need be.
pub fn give(frame: Vec<u8>) {
    if (SMALL..=KEPT).contains(&frame.capacity())
        && let Ok(mut all) = SPARE.lock()
    {
        all.push(frame);
        while all.iter().map(Vec::capacity).sum::<usize>() > KEPT {
            all.remove(0);
        }
    }
}
