//! The other processors at work meanwhile: threads of a party, and parties on one machine, share caches and memory, of
//! which one thread alone has more.

use std::num::NonZero;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// Processors of this machine.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Does `work` while `others` threads repeat what each makes for itself. Each has a thread pool of its own, of itself.
pub fn beside<'a, T>(others: usize, make: impl Fn() -> Box<dyn FnMut() + 'a> + Sync, work: impl FnOnce() -> T) -> T {
    let (done, ready) = (AtomicBool::new(false), Barrier::new(others + 1));
    thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
                let mut call = make();
                ready.wait();
                while !done.load(Ordering::Relaxed) {
                    call();
                }
                drop(pool);
            });
        }
        ready.wait();
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Seconds that this thread, or all of this process, have had of a processor; where the system does not say, that have passed
/// since `start`.
pub fn processor_seconds(all: bool, start: Instant) -> f64 {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};
        let _ = start;
        let time = clock_gettime(if all { ClockId::ProcessCPUTime } else { ClockId::ThreadCPUTime });
        time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
    }
    #[cfg(not(unix))]
    {
        let _ = all;
        start.elapsed().as_secs_f64()
    }
}
