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

/// Processors that a session keeps busy at a time, as far as there are so many: those of three parties, and of what copies
/// their messages.
pub fn busy() -> usize {
    processors().min(4)
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

/// Measures time.
pub enum Clock {
    /// That passes.
    Passing(Instant),
    /// That this thread, or all of this process, has had of a processor, from then on.
    #[cfg(unix)]
    Processor(rustix::time::ClockId, f64),
}

impl Clock {
    /// Starts one of this thread's processor time, where the system tells it, or of `passing` time.
    pub fn start(passing: bool) -> Clock {
        #[cfg(unix)]
        if !passing {
            return Clock::processor(rustix::time::ClockId::ThreadCPUTime);
        }
        let _ = passing;
        Clock::Passing(Instant::now())
    }

    /// Starts one of the processor time of all threads, where the system tells it.
    pub fn of_process() -> Clock {
        #[cfg(unix)]
        return Clock::processor(rustix::time::ClockId::ProcessCPUTime);
        #[cfg(not(unix))]
        Clock::start(true)
    }

    #[cfg(unix)]
    fn processor(id: rustix::time::ClockId) -> Clock {
        Clock::Processor(id, now(id))
    }

    /// Seconds since its start.
    pub fn seconds(&self) -> f64 {
        match self {
            Clock::Passing(start) => start.elapsed().as_secs_f64(),
            #[cfg(unix)]
            Clock::Processor(id, start) => now(*id) - start,
        }
    }
}

#[cfg(unix)]
fn now(id: rustix::time::ClockId) -> f64 {
    let time = rustix::time::clock_gettime(id);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}
