//! A slow network, imposed on a link by its sender.
//!
//! A frame waits until the link's direction is free, occupies it for its bytes, and is there half a round trip
//! after its last byte left: the rules of [`bcc_ir::time::predict()`]. Bytes before the last are written when they
//! would be there, in pieces, so that a large frame looks to its receiver as on such a network: it arrives for as
//! long as it occupies the link, which is no silence. What the machine's own network takes comes on top.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bcc_ir::time::Network;
use thiserror::Error;

use super::frame::{BEAT, SLOWEST};

/// What arrives in this time is written at once.
const PIECE_SECONDS: f64 = 2e-3;
/// Smallest piece: the short frames of greetings and farewells are one.
const PIECE_BYTES: f64 = 512.0;
/// By how much sleeping may be late. The end of a frame is waited for awake from here on.
const LATE: Duration = Duration::from_micros(60);
/// No frame takes longer: times add up to points in time that must exist.
const LONGEST: Duration = Duration::from_secs(100_000_000);

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    byte_seconds: f64,
    one_way: Duration,
}

/// Why a network cannot be imposed.
#[derive(Debug, Error, PartialEq)]
pub enum ShapeError {
    /// Slower than what is taken for a peer that hangs.
    #[error("{name} has {bytes_per_second} B/s each way; give it {SLOWEST} B/s, below which a peer is given up")]
    Slow {
        /// The network.
        name: String,
        /// Its bandwidth.
        bytes_per_second: f64,
    },
}

fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).map_or(LONGEST, |d| d.min(LONGEST))
}

impl Shape {
    /// The links of a network; where its parties run is not imposed.
    pub fn new(network: &Network) -> Result<Shape, ShapeError> {
        let bytes_per_second = network.bytes_per_second;
        if bytes_per_second < SLOWEST as f64 {
            return Err(ShapeError::Slow { name: network.name.clone(), bytes_per_second });
        }
        Ok(Shape { byte_seconds: network.byte_seconds(), one_way: span(network.one_way_seconds()) })
    }

    fn occupied(self, bytes: usize) -> Duration {
        span(bytes as f64 * self.byte_seconds)
    }
}

/// The sender's end of a shaped direction.
pub struct Line {
    shape: Shape,
    free: Option<Instant>,
}

impl Line {
    /// A direction that nothing has occupied yet.
    pub fn new(shape: Shape) -> Self {
        Line { shape, free: None }
    }

    /// Takes a frame at `now`.
    pub fn take(&mut self, now: Instant, bytes: usize) -> Flight {
        let start = self.free.map_or(now, |free| free.max(now));
        self.free = Some(start + self.shape.occupied(bytes));
        Flight { shape: self.shape, first: start + self.shape.one_way }
    }

    /// How long after `now` all frames taken are there.
    pub fn held(&self, now: Instant) -> Duration {
        self.free.map_or(Duration::ZERO, |free| (free + self.shape.one_way).saturating_duration_since(now))
    }
}

/// A frame on its way.
pub struct Flight {
    shape: Shape,
    /// When its first byte begins to arrive.
    first: Instant,
}

impl Flight {
    /// When so many of its bytes are there.
    fn there(&self, bytes: usize) -> Instant {
        self.first + self.shape.occupied(bytes)
    }

    /// Writes the frame, no byte before its time unless `hurry` is set. As long as nothing of it has been written,
    /// `beat` is called now and then, as where there is no frame.
    pub fn write<W: Write>(
        &self,
        frame: &[u8],
        out: &mut W,
        hurry: &AtomicBool,
        mut beat: impl FnMut(&mut W) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let piece = (PIECE_SECONDS / self.shape.byte_seconds).clamp(PIECE_BYTES, 1e9) as usize;
        let mut written = 0;
        for bytes in frame.chunks(piece) {
            let due = self.there(written + bytes.len());
            let exact = written + bytes.len() == frame.len();
            while !hurry.load(Ordering::Relaxed) && !pause(due, exact) {
                if written == 0 {
                    beat(out)?;
                }
            }
            out.write_all(bytes)?;
            written += bytes.len();
        }
        Ok(())
    }
}

/// Sleeps until `due`, at most for a [`BEAT`]; whether that time has come.
fn pause(due: Instant, exact: bool) -> bool {
    let left = due.saturating_duration_since(Instant::now());
    if left > BEAT {
        thread::sleep(BEAT);
        return false;
    }
    if left > LATE {
        thread::sleep(left - LATE);
    }
    while exact && Instant::now() < due {
        thread::yield_now();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(bytes_per_second: f64, rtt_seconds: f64) -> Shape {
        Shape::new(&Network { name: "net".into(), bytes_per_second, rtt_seconds, shared_cores: None }).unwrap()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn frames_queue_for_the_link_and_travel_at_once() {
        let mut line = Line::new(shape(1e6, 0.04));
        let now = Instant::now();
        assert_eq!(line.held(now), Duration::ZERO);
        // 0.1 s on the link and 20 ms on the way.
        assert_eq!(line.take(now, 100_000).there(100_000), now + ms(120));
        // Behind it, though handed over before it was gone; its way is no wait for others.
        assert_eq!(line.take(now + ms(50), 50_000).there(50_000), now + ms(170));
        assert_eq!(line.held(now + ms(50)), ms(120));
        // A free link is taken at once.
        let late = line.take(now + ms(500), 1000);
        assert_eq!((late.there(0), late.there(1000)), (now + ms(520), now + ms(521)));
        assert_eq!(line.held(now + ms(600)), Duration::ZERO);
    }

    /// Notes when which byte came.
    struct Arrivals(Vec<(usize, Instant)>);

    impl Write for Arrivals {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let before = self.0.last().map_or(0, |a| a.0);
            self.0.push((before + bytes.len(), Instant::now()));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_byte_is_early() {
        let mut line = Line::new(shape(1e6, 0.02));
        let mut out = Arrivals(Vec::new());
        let start = Instant::now();
        let flight = line.take(start, 50_000);
        flight.write(&[7; 50_000], &mut out, &AtomicBool::new(false), |_| Ok(())).unwrap();
        assert!(out.0.len() > 5 && out.0.last().is_some_and(|a| a.0 == 50_000));
        for (bytes, at) in &out.0 {
            // Sleep is never short, so only what is not the end may come early, by what sleep may be late.
            let due = start + ms(10) + Duration::from_secs_f64(*bytes as f64 / 1e6);
            assert!(*at + LATE >= due, "{bytes} bytes");
        }
        assert!(out.0[out.0.len() - 1].1 >= start + ms(60));
    }

    #[test]
    fn held_frames_show_life_and_can_be_let_go() {
        let mut line = Line::new(shape(1e6, 1.0));
        let (mut out, mut beats) = (Arrivals(Vec::new()), 0);
        let start = Instant::now();
        let flight = line.take(start, 16);
        let hurry = AtomicBool::new(false);
        let beat = |_: &mut Arrivals| {
            beats += 1;
            hurry.store(beats == 2, Ordering::Relaxed);
            Ok(())
        };
        flight.write(&[1; 16], &mut out, &hurry, beat).unwrap();
        assert!(beats == 2 && out.0[0].0 == 16);
        assert!(start.elapsed() >= 2 * BEAT);
    }

    #[test]
    fn absurd_networks() {
        let slow = Network { name: "slow".into(), bytes_per_second: 10.0, rtt_seconds: 0.0, shared_cores: None };
        let error = Shape::new(&slow).unwrap_err().to_string();
        assert!(error.contains("slow has 10 B/s") && error.contains("1024"), "{error}");
        let mut line = Line::new(shape(1024.0, 1e300));
        assert!(line.take(Instant::now(), usize::MAX).there(usize::MAX) > Instant::now());
    }
}
