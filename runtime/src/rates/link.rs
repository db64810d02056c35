//! Messages on a loopback connection.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bcc_ir::program::{Message, Type, Width};
use bcc_ir::time::{Loopback, Rate};

use super::cases::CUT;
use super::load::Clock;
use super::{MeasureError, quartile};
use crate::buffer::Buffer;
use crate::channel::{Header, Link, LinkError, Payload, TcpLink, accept, connect, new_frame};
use crate::prg::{Key, draw};
use crate::wire;

/// Longest wait for a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// From a message's header to its end, in the system's buffers.
const SOON: Duration = Duration::from_micros(50);
/// Bounds of what is left for the network, where other programs disturb.
const SHORTEST: f64 = 5e-6;
const FASTEST: f64 = 2e10;
/// Messages of a size.
const MESSAGES: usize = 50;
/// All over again, for the median.
const REPEATS: usize = 5;
/// Sizes: nothing much, and a layer's worth, which caches do not hold.
const TINY: usize = 16;
/// How long a party computes at a time, at least.
const TURN: Duration = Duration::from_millis(1);
const LARGE: usize = 1 << 20;
/// Large messages, one after the other, and how many of them are sent before the first one must be there.
const BURST: usize = 20;
const UNDERWAY: usize = 2;
/// Of the elements.
const WIDTH: Width = Width::Narrow;

/// Rates of messages.
pub struct Measured {
    pub sent: Rate,
    pub received: Rate,
    pub packed: Rate,
    pub unpacked: Rate,
    pub loopback: Loopback,
}

/// The interpreter's way of sending: pack into a new frame, hand it to the link.
fn frame([elements, bits]: &[Buffer; 2]) -> Vec<u8> {
    let mut frame = new_frame(Header::BYTES + (elements.ty().wire_bytes() + bits.ty().wire_bytes()) as usize);
    let (first, second) = frame[Header::BYTES..].split_at_mut(elements.ty().wire_bytes() as usize);
    wire::pack(elements, first);
    wire::pack(bits, second);
    let header = Header { index: 0, depth: 1, piece: 0, len: (frame.len() - Header::BYTES) as u64 };
    frame[..Header::BYTES].copy_from_slice(&header.bytes());
    frame
}

/// The interpreter's way of receiving: take the bytes, and unpack them where they are read.
fn take(link: &mut TcpLink) -> Result<Payload, LinkError> {
    let header = Header::parse(link.header(PATIENCE)?);
    link.payload(header.len as usize, PATIENCE)
}

fn unpack(payload: &Payload, [elements, bits]: [Type; 2]) -> Option<[Buffer; 2]> {
    let (first, second) = payload.bytes().split_at(elements.wire_bytes() as usize);
    let unpack = |ty, bytes| wire::unpack(ty, WIDTH, bytes).ok();
    unpack(elements, first).zip(unpack(bits, second)).map(Into::into)
}

/// Half of a message of a ReLU are elements, half are planes of bits.
fn types(len: usize) -> [Type; 2] {
    [Type::Ring { bits: CUT, len }, Type::Bits { planes: CUT.into(), len }]
}

fn buffers(len: usize) -> [Buffer; 2] {
    types(len).map(|ty| draw(&Key::new([6; 16]), 0, ty, WIDTH))
}

fn bytes(len: usize) -> f64 {
    (types(len).iter().map(|ty| ty.wire_bytes()).sum::<u64>() + Message::HEADER) as f64
}

/// What the other end does with the next message of so many elements.
enum Order {
    /// Send one back when it has come.
    Echo(usize),
    /// Wait until it is there, take it, and say how long that took, and unpacking it.
    Take(usize),
}

/// Seconds of taking a message, and of unpacking it.
type Taken = [f64; 2];

fn other_end(link: &mut TcpLink, orders: &Receiver<Order>, done: &Sender<Taken>) -> Result<(), LinkError> {
    let answer = buffers(TINY);
    for order in orders {
        match order {
            Order::Echo(len) => {
                let _ = unpack(&take(link)?, types(len));
                link.send(frame(&answer))?;
            }
            Order::Take(len) => {
                // A message that the system's buffers hold is there soon after its header.
                if len < LARGE {
                    while link.peek(PATIENCE)?.is_none() {}
                    let there = Instant::now();
                    while there.elapsed() < SOON {
                        std::hint::spin_loop();
                    }
                }
                // A large one waits for the sender in between.
                let clock = Clock::start(len < LARGE);
                let payload = take(link)?;
                let took = clock.seconds();
                drop(unpack(&payload, types(len)));
                let _ = done.send([took, clock.seconds() - took]);
            }
        }
    }
    Ok(())
}

/// Measures.
pub fn measure() -> Result<Measured, MeasureError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(LinkError::Io)?;
    let address = listener.local_addr().map_err(LinkError::Io)?.to_string();
    let mut here = connect(&address, PATIENCE).map_err(LinkError::Io)?;
    let mut there = accept(&listener, Some(PATIENCE), PATIENCE).map_err(LinkError::Io)?;
    let (order, orders) = channel();
    let (done, times) = channel();
    let peer = thread::spawn(move || other_end(&mut there, &orders, &done));
    let result = (0..REPEATS).map(|_| exchange(&mut here, &order, &times)).collect::<Result<Vec<_>, _>>().map(middle);
    drop((order, here));
    match peer.join() {
        Ok(ended) => {
            let measured = result?;
            ended?;
            Ok(measured)
        }
        Err(_) => Err(MeasureError::Stopped),
    }
}

/// The median of every number.
fn middle(all: Vec<Measured>) -> Measured {
    let median = |of: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let rate = |of: fn(&Measured) -> Rate| {
        let mut rates: Vec<Rate> = all.iter().map(of).collect();
        rates.sort_by(|a, b| a.unit_ns.total_cmp(&b.unit_ns));
        let mut calls: Vec<f64> = rates.iter().map(|r| r.call_ns).collect();
        calls.sort_by(f64::total_cmp);
        let middle = rates.len() / 2;
        Rate { call_ns: calls.get(middle).copied().unwrap_or(0.0), ..rates.get(middle).copied().unwrap_or_default() }
    };
    Measured {
        sent: rate(|m| m.sent),
        received: rate(|m| m.received),
        packed: rate(|m| m.packed),
        unpacked: rate(|m| m.unpacked),
        loopback: Loopback {
            bytes_per_second: median(|m| m.loopback.bytes_per_second),
            rtt_seconds: median(|m| m.loopback.rtt_seconds),
        },
    }
}

fn exchange(here: &mut TcpLink, order: &Sender<Order>, times: &Receiver<Taken>) -> Result<Measured, MeasureError> {
    let give = |o: Order| order.send(o).map_err(|_| MeasureError::Stopped);
    let taken = || times.recv().map_err(|_| MeasureError::Stopped);
    let tiny = buffers(TINY);
    let (mut calls, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..MESSAGES {
        give(Order::Take(TINY))?;
        // The other end waits already, as a party does.
        thread::sleep(Duration::from_micros(200));
        let start = Instant::now();
        here.send(frame(&tiny))?;
        calls.push(start.elapsed().as_secs_f64());
        answers.push(taken()?.iter().sum());
    }
    // Often the thread that writes, or the peer, gets the sender's core: its time is the network's.
    let [send, receive] = [calls.into_iter().fold(f64::INFINITY, f64::min), quartile(answers)];
    // One after the other, so that both ends and the system in between are at work at the same time.
    let large = buffers(LARGE);
    let (own, all) = (Clock::start(false), Clock::of_process());
    let (mut packing, mut taking, mut unpacking) = (0.0, 0.0, 0.0);
    for i in 0..BURST + UNDERWAY {
        if i < BURST {
            give(Order::Take(LARGE))?;
            let before = own.seconds();
            let frame = frame(&large);
            packing += own.seconds() - before;
            here.send(frame)?;
        }
        if i >= UNDERWAY {
            let [took, unpacked] = taken()?;
            (taking, unpacking) = (taking + took, unpacking + unpacked);
        }
    }
    let (own, all) = (own.seconds(), all.seconds());
    // Where the system tells no processor times they overlap.
    let copying = (all - own - taking - unpacking).max(BURST as f64 * bytes(LARGE) / FASTEST);
    let rate = |call: f64, seconds: f64| {
        let unit = (seconds / BURST as f64 - call).max(0.0) / bytes(LARGE);
        Rate { call_ns: (1e9 * call).round(), unit_ns: (1e13 * unit).round() / 1e4 }
    };
    let mut turns = Vec::new();
    for _ in 0..5 * MESSAGES {
        give(Order::Echo(TINY))?;
        // A party computes while its peer waits for it, long enough for the peer's core to sleep.
        let busy = Instant::now();
        while busy.elapsed() < TURN {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        here.send(frame(&tiny))?;
        let _ = unpack(&take(here)?, types(TINY));
        turns.push(start.elapsed().as_secs_f64());
    }
    // What sending and receiving do not explain is the network's.
    let rtt_seconds = (quartile(turns) - 2.0 * (send + receive)).max(SHORTEST);
    let bytes_per_second = (BURST as f64 * bytes(LARGE) / copying).round();
    Ok(Measured {
        sent: rate(send, own - packing),
        received: rate(receive, taking),
        packed: rate(0.0, packing),
        unpacked: rate(0.0, unpacking),
        loopback: Loopback { bytes_per_second, rtt_seconds: (rtt_seconds * 1e9).round() / 1e9 },
    })
}
