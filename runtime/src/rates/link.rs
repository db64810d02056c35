//! Messages on a loopback connection.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bcc_ir::program::{Message, Type, Width};
use bcc_ir::time::{Loopback, Rate};

use super::cases::CUT;
use super::load::processor_seconds;
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
    pub loopback: Loopback,
}

/// The interpreter's way of sending: pack into a new frame, hand it to the link.
fn send(link: &mut TcpLink, [elements, bits]: &[Buffer; 2]) -> Result<(), LinkError> {
    let mut frame = new_frame(Header::BYTES + (elements.ty().wire_bytes() + bits.ty().wire_bytes()) as usize);
    let (first, second) = frame[Header::BYTES..].split_at_mut(elements.ty().wire_bytes() as usize);
    wire::pack(elements, first);
    wire::pack(bits, second);
    let header = Header { index: 0, depth: 1, piece: 0, len: (frame.len() - Header::BYTES) as u64 };
    frame[..Header::BYTES].copy_from_slice(&header.bytes());
    link.send(frame)
}

/// The interpreter's way of receiving.
fn receive(link: &mut TcpLink, [elements, bits]: [Type; 2]) -> Result<Option<[Buffer; 2]>, LinkError> {
    let header = Header::parse(link.header(PATIENCE)?);
    let payload = link.payload(header.len as usize, PATIENCE)?;
    let (first, second) = payload.bytes().split_at(elements.wire_bytes() as usize);
    let unpack = |ty, bytes| wire::unpack(ty, WIDTH, bytes).ok();
    Ok(unpack(elements, first).zip(unpack(bits, second)).map(Into::into))
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
    /// Wait until it is there, take it, and say how long that took and when it was done.
    Take(usize),
}

fn other_end(link: &mut TcpLink, orders: &Receiver<Order>, done: &Sender<(f64, Instant)>) -> Result<(), LinkError> {
    let answer = buffers(TINY);
    for order in orders {
        match order {
            Order::Echo(len) => {
                receive(link, types(len))?;
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
                let before = processor_seconds(false, start);
                drop(receive(link, types(len))?);
                let (own, end) = (processor_seconds(false, start) - before, Instant::now());
                // A large one waits for the sender in between.
                let took = if len < LARGE { end.duration_since(start).as_secs_f64() } else { own };
                let _ = done.send((took, end));
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
    let take = || times.recv().map_err(|_| MeasureError::Stopped);
    let tiny = buffers(TINY);
    let (mut taken, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..MESSAGES {
        give(Order::Take(TINY))?;
        // The other end waits already, as a party does.
        thread::sleep(Duration::from_micros(200));
        let start = Instant::now();
        send(here, &tiny)?;
        sent.push(start.elapsed().as_secs_f64());
        taken.push(take()?.0);
    }
    // Often the thread that writes, or the peer, gets the sender's core: its time is the network's.
    let call = [sent.into_iter().fold(f64::INFINITY, f64::min), quartile(taken)];
    // One after the other, so that both ends and the system in between are at work at the same time.
    let large = buffers(LARGE);
    let start = Instant::now();
    let processor = || [false, true].map(|all| processor_seconds(all, start));
    let before = processor();
    let mut received = 0.0;
    for i in 0..BURST + UNDERWAY {
        if i < BURST {
            give(Order::Take(LARGE))?;
            send(here, &large)?;
        }
        if i >= UNDERWAY {
            received += take()?.0;
        }
    }
    let [own, all] = [0, 1].map(|i| processor()[i] - before[i]);
    let copied = all - own - received;
    let rate = |call: f64, seconds: f64| {
        let unit = (seconds / BURST as f64 - call).max(0.0) / bytes(LARGE);
        Rate { call_ns: (1e9 * call).round(), unit_ns: (1e13 * unit).round() / 1e4 }
    };
    let (sent, received) = (rate(call[0], own), rate(call[1], received));
    let mut turns = Vec::new();
    for _ in 0..5 * MESSAGES {
        give(Order::Echo(TINY))?;
        // A party computes while its peer waits for it, long enough for the peer's core to sleep.
        let busy = Instant::now();
        while busy.elapsed() < TURN {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        send(here, &tiny)?;
        receive(here, types(TINY))?;
        turns.push(start.elapsed().as_secs_f64());
    }
    // What sending and receiving do not explain is the network's.
    let rtt_seconds = (quartile(turns) - 2.0 * (call[0] + call[1])).max(SHORTEST);
    let bytes_per_second = (BURST as f64 * bytes(LARGE) / copied).min(FASTEST).round();
    Ok(Measured {
        sent,
        received,
        loopback: Loopback { bytes_per_second, rtt_seconds: (rtt_seconds * 1e9).round() / 1e9 },
    })
}
