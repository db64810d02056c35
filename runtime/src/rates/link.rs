//! Messages on a loopback connection.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bcc_ir::program::{Message, Type, Width};
use bcc_ir::time::{Loopback, Rate};

use super::{MeasureError, quartile};
use crate::buffer::Buffer;
use crate::channel::{Header, Link, LinkError, TcpLink, accept, connect, new_frame};
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
/// Sizes: nothing much, what fits into the system's buffers, and a layer's worth.
const TINY: usize = 16;
const MIDDLE: usize = 1 << 14;
/// How long a party computes at a time, at least.
const TURN: Duration = Duration::from_millis(1);
const LARGE: usize = 1 << 18;
/// Of the elements.
const WIDTH: Width = Width::Wide;

/// Rates of messages.
pub struct Measured {
    pub sent: Rate,
    pub received: Rate,
    pub loopback: Loopback,
}

/// The interpreter's way of sending: pack into a new frame, hand it to the link.
fn send(link: &mut TcpLink, buffer: &Buffer) -> Result<(), LinkError> {
    let mut frame = new_frame(Header::BYTES + buffer.ty().wire_bytes() as usize);
    wire::pack(buffer, &mut frame[Header::BYTES..]);
    let header = Header { index: 0, depth: 1, piece: 0, len: (frame.len() - Header::BYTES) as u64 };
    frame[..Header::BYTES].copy_from_slice(&header.bytes());
    link.send(frame)
}

/// The interpreter's way of receiving.
fn receive(link: &mut TcpLink, ty: Type) -> Result<Option<Buffer>, LinkError> {
    let header = Header::parse(link.header(PATIENCE)?);
    let payload = link.payload(header.len as usize, PATIENCE)?;
    Ok(wire::unpack(ty, WIDTH, payload.bytes()).ok())
}

fn ty(len: usize) -> Type {
    Type::Ring { bits: 32, len }
}

fn bytes(len: usize) -> f64 {
    (ty(len).wire_bytes() + Message::HEADER) as f64
}

/// What the other end does with the next message of so many elements.
enum Order {
    /// Send one back when it has come.
    Echo(usize),
    /// Wait until it is there, take it, and say how long that took and when it was done.
    Take(usize),
}

fn other_end(link: &mut TcpLink, orders: &Receiver<Order>, done: &Sender<(f64, Instant)>) -> Result<(), LinkError> {
    let answer = Buffer::zeros(ty(TINY), WIDTH);
    for order in orders {
        match order {
            Order::Echo(len) => {
                receive(link, ty(len))?;
                send(link, &answer)?;
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
                let start = Instant::now();
                drop(receive(link, ty(len))?);
                let end = Instant::now();
                let _ = done.send((end.duration_since(start).as_secs_f64(), end));
            }
        }
    }
    Ok(())
}

/// A call and a unit from the times of two sizes.
fn line(few: usize, short: f64, many: usize, long: f64) -> Rate {
    let (few, many) = ((bytes(few)), bytes(many));
    let unit = ((long - short) / (many - few)).max(0.0);
    let call = (short - unit * few).max(0.0);
    Rate { call_ns: (1e9 * call).round(), unit_ns: (1e13 * unit).round() / 1e4 }
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
    Measured {
        sent: Rate { call_ns: median(|m| m.sent.call_ns), unit_ns: median(|m| m.sent.unit_ns) },
        received: Rate { call_ns: median(|m| m.received.call_ns), unit_ns: median(|m| m.received.unit_ns) },
        loopback: Loopback {
            bytes_per_second: median(|m| m.loopback.bytes_per_second),
            rtt_seconds: median(|m| m.loopback.rtt_seconds),
        },
    }
}

fn exchange(
    here: &mut TcpLink,
    order: &Sender<Order>,
    times: &Receiver<(f64, Instant)>,
) -> Result<Measured, MeasureError> {
    let give = |o: Order| order.send(o).map_err(|_| MeasureError::Stopped);
    let mut taken = [0.0; 3];
    let mut sent = [0.0; 3];
    let mut whole = [0.0; 3];
    for (i, len) in [TINY, MIDDLE, LARGE].into_iter().enumerate() {
        let buffer = draw(&Key::new([6; 16]), 0, ty(len), WIDTH);
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..MESSAGES {
            give(Order::Take(len))?;
            // The other end waits already, as a party does.
            thread::sleep(Duration::from_micros(200));
            let start = Instant::now();
            send(here, &buffer)?;
            let handed = start.elapsed().as_secs_f64();
            let (took, end) = times.recv().map_err(|_| MeasureError::Stopped)?;
            for (all, t) in all.iter_mut().zip([handed, took, end.duration_since(start).as_secs_f64()]) {
                all.push(t);
            }
        }
        // Often the thread that writes, or the peer, gets the sender's core: its time is the network's.
        sent[i] = all[0].iter().copied().fold(f64::INFINITY, f64::min);
        [taken[i], whole[i]] = [1, 2].map(|j| quartile(all[j].clone()));
    }
    let small = draw(&Key::new([6; 16]), 0, ty(TINY), WIDTH);
    let mut turns = Vec::new();
    for _ in 0..5 * MESSAGES {
        give(Order::Echo(TINY))?;
        // A party computes while its peer waits for it, long enough for the peer's core to sleep.
        let busy = Instant::now();
        while busy.elapsed() < TURN {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        send(here, &small)?;
        receive(here, ty(TINY))?;
        turns.push(start.elapsed().as_secs_f64());
    }
    let sent = line(TINY, sent[0], LARGE, sent[2]);
    let received = line(TINY, taken[0], MIDDLE, taken[1]);
    let cost = |r: Rate, len: usize| 1e-9 * (r.call_ns + r.unit_ns * bytes(len));
    // What sending and receiving do not explain is the network's.
    let rtt_seconds = (quartile(turns) - 2.0 * (cost(sent, TINY) + cost(received, TINY))).max(SHORTEST);
    let travel = whole[2] - cost(sent, LARGE) - cost(received, LARGE) - rtt_seconds / 2.0;
    let bytes_per_second = (bytes(LARGE) / travel.max(bytes(LARGE) / FASTEST)).round();
    Ok(Measured {
        sent,
        received,
        loopback: Loopback { bytes_per_second, rtt_seconds: (rtt_seconds * 1e9).round() / 1e9 },
    })
}
