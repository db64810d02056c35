//! The machine's rates: units per second of one core, and of all of them at once.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use aes::Aes128Enc;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use bcc_ir::program::{Type, Width};
use bcc_runtime::kernels;
use bcc_runtime::prg::{Key, draw};
use serde::Serialize;

use crate::peak::{Operands, sets};
use crate::tiles;

/// Shortest time of a run.
const RUN: Duration = Duration::from_millis(40);
/// Bytes of a write to a connection.
const WRITE: usize = 1 << 20;
/// Bytes of a small message, and messages of a run.
const SMALL: usize = 80;
const TURNS: usize = 500;

/// A rate.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Stable name.
    pub name: String,
    /// What is counted.
    pub unit: &'static str,
    /// Units per second in one core, the median of all runs.
    pub one: f64,
    /// In all cores at once.
    pub all: f64,
    /// In all cores, the best run.
    pub best: f64,
}

/// All rates, the same ones in the same order on every machine with the same instruction sets.
#[derive(Clone, Debug, Serialize)]
pub struct Rates {
    /// Threads of `all`.
    pub cores: usize,
    /// Rates.
    pub rates: Vec<Rate>,
    /// Seconds from a small message to its answer.
    pub rtt_seconds: f64,
}

impl Rates {
    /// Units per second in all cores.
    pub fn all(&self, name: &str) -> Option<f64> {
        self.rates.iter().find(|r| r.name == name).map(|r| r.all)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Units per second of so many threads together, run by run, from the start of the first. `prepare` makes a call
/// that says how many units it did.
fn together<C: FnMut() -> usize>(threads: usize, runs: usize, prepare: impl Fn() -> C + Sync) -> Vec<f64> {
    let ready = Barrier::new(threads);
    let one = || {
        let mut call = prepare();
        call();
        let run = |_| {
            ready.wait();
            let (start, mut units) = (Instant::now(), 0);
            while start.elapsed() < RUN {
                units += call();
            }
            (units, start, Instant::now())
        };
        (0..runs).map(run).collect::<Vec<(usize, Instant, Instant)>>()
    };
    let all: Vec<_> = thread::scope(|s| {
        let running: Vec<_> = (0..threads).map(|_| s.spawn(one)).collect();
        running.into_iter().map(|t| t.join().expect("a measured call does not panic")).collect()
    });
    let rate = |run: usize| {
        let parts = || all.iter().map(|thread| thread[run]);
        let first = parts().map(|(_, start, _)| start).min();
        parts().map(|(units, start, end)| units as f64 / end.duration_since(first.unwrap_or(start)).as_secs_f64()).sum()
    };
    (0..runs).map(rate).collect()
}

struct Bench {
    runs: usize,
    rates: Rates,
}

impl Bench {
    /// Measures in one thread and in all; `prepare` takes the number of threads.
    fn add<C: FnMut() -> usize>(&mut self, name: String, unit: &'static str, prepare: impl Fn(usize) -> C + Sync) {
        let of = |threads: usize| together(threads, self.runs, || prepare(threads));
        let (one, all) = (of(1), of(self.rates.cores));
        self.push(name, unit, one, all);
    }

    fn push(&mut self, name: String, unit: &'static str, one: Vec<f64>, all: Vec<f64>) {
        let best = all.iter().copied().fold(0.0, f64::max);
        self.rates.rates.push(Rate { name, unit, one: median(one), all: median(all), best });
    }

    fn digits(&mut self) {
        for set in sets() {
            self.add(format!("digits_{}", set.name), "products", |_| {
                let operands = Operands::new();
                move || {
                    black_box((set.sums)(black_box(&operands)));
                    set.summed
                }
            });
            self.add(format!("integers_{}", set.name), "products", |_| {
                let operands = Operands::new();
                move || {
                    black_box((set.integers)(black_box(&operands)));
                    set.summed / 2
                }
            });
            if let Some(products) = set.products {
                self.add(format!("products_{}", set.name), "products", |_| {
                    move || {
                        black_box(products(black_box(3)));
                        set.multiplied
                    }
                });
            }
        }
        if tiles::available() {
            self.add("bytes_amx".into(), "products", |_| {
                let operands = tiles::Operands::new();
                move || {
                    black_box(tiles::sums(black_box(&operands)));
                    tiles::PRODUCTS
                }
            });
        }
    }

    fn randomness(&mut self) {
        // By the cipher crate, a kilobyte at a time.
        self.add("keystream".into(), "bytes", |_| {
            let cipher = Aes128Enc::new(&Array::from([7; 16]));
            let (mut blocks, mut first) = ([[0u8; 16]; 64], 0u64);
            move || {
                for (j, block) in blocks.iter_mut().enumerate() {
                    block[..8].copy_from_slice(&5u64.to_le_bytes());
                    block[8..].copy_from_slice(&(first + j as u64).to_le_bytes());
                }
                first += blocks.len() as u64;
                cipher.encrypt_blocks(Array::cast_slice_from_core_mut(&mut blocks));
                black_box(&blocks).as_flattened().len()
            }
        });
        // Short enough for one thread.
        let ty = Type::Ring { bits: 32, len: 1 << 13 };
        self.add("draw_32".into(), "bytes", |_| {
            let key = Key::new([7; 16]);
            move || {
                drop(black_box(draw(&key, 5, ty, Width::Narrow)));
                ty.drawn_bytes() as usize
            }
        });
    }

    fn memory(&mut self) {
        let (own, shared) = (cache(2).unwrap_or(512 << 10), cache(3).unwrap_or(32 << 20));
        for level in ["l2", "l3", "memory"] {
            // Words that a thread goes through.
            let words = |threads: usize| match level {
                "l2" => own / 16,
                "l3" => shared / 16 / threads,
                _ => shared / threads,
            };
            self.add(format!("read_{level}"), "bytes", |threads| {
                let from = vec![3u64; words(threads)];
                move || {
                    let (parts, _) = black_box(&from).as_chunks::<16>();
                    let mut sums = [0u64; 16];
                    for part in parts {
                        sums.iter_mut().zip(part).for_each(|(s, v)| *s ^= v);
                    }
                    black_box(sums);
                    8 * from.len()
                }
            });
            self.add(format!("write_{level}"), "bytes", |threads| {
                let mut to = vec![3u64; words(threads)];
                let mut value = 0;
                move || {
                    value += 1;
                    black_box(&mut to).fill(value);
                    8 * to.len()
                }
            });
            // Not the system's copy: what it does depends on sizes and places.
            self.add(format!("copy_{level}"), "bytes", |threads| {
                let (kernels, from) = (kernels::best().of(), vec![3u64; words(threads) / 2]);
                let mut to = from.clone();
                move || {
                    kernels.add_const(64, black_box(&from), 1, black_box(&mut to));
                    // Read and written.
                    16 * to.len()
                }
            });
        }
    }

    fn loopback(&mut self) -> std::io::Result<()> {
        let runs = self.runs;
        let one = stream(runs)?;
        let pairs = self.rates.cores / 2;
        let all = if pairs <= 1 {
            one.clone()
        } else {
            let streams = || -> std::io::Result<Vec<Vec<f64>>> {
                thread::scope(|s| {
                    let running: Vec<_> = (0..pairs).map(|_| s.spawn(|| stream(runs))).collect();
                    running.into_iter().map(|t| t.join().expect("a connection's thread does not panic")).collect()
                })
            };
            let rates = streams()?;
            (0..runs).map(|i| rates.iter().map(|r| r[i]).sum()).collect()
        };
        self.push("tcp".into(), "bytes", one, all);
        self.rates.rtt_seconds = turns(runs)?;
        Ok(())
    }
}

fn connection() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    Ok((here, there))
}

/// Bytes per second from one thread to another, run by run.
fn stream(runs: usize) -> std::io::Result<Vec<f64>> {
    let (mut here, mut there) = connection()?;
    let reader = thread::spawn(move || -> std::io::Result<()> {
        let mut part = vec![0; WRITE];
        while there.read(&mut part)? > 0 {}
        Ok(())
    });
    let part = vec![5u8; WRITE];
    let mut rates = Vec::new();
    for _ in 0..runs {
        let (start, mut bytes) = (Instant::now(), 0);
        while start.elapsed() < RUN {
            here.write_all(&part)?;
            bytes += part.len();
        }
        rates.push(bytes as f64 / start.elapsed().as_secs_f64());
    }
    drop(here);
    reader.join().expect("the reader does not panic")?;
    Ok(rates)
}

/// Seconds that a small message and its answer take between two threads.
fn turns(runs: usize) -> std::io::Result<f64> {
    let (mut here, mut there) = connection()?;
    let peer = thread::spawn(move || -> std::io::Result<()> {
        let mut message = [0; SMALL];
        for _ in 0..runs * TURNS {
            there.read_exact(&mut message)?;
            there.write_all(&message)?;
        }
        Ok(())
    });
    let mut message = [1; SMALL];
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        for _ in 0..TURNS {
            here.write_all(&message)?;
            here.read_exact(&mut message)?;
        }
        times.push(start.elapsed().as_secs_f64() / TURNS as f64);
    }
    peer.join().expect("the peer does not panic")?;
    Ok(median(times))
}

/// Bytes of the first core's cache of a level, where the system says.
fn cache(level: u32) -> Option<usize> {
    let path = format!("/sys/devices/system/cpu/cpu0/cache/index{level}/size");
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().strip_suffix('K')?.parse::<usize>().ok()? << 10)
}

/// Measures.
pub fn measure(runs: usize) -> std::io::Result<Rates> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut bench = Bench { runs, rates: Rates { cores, rates: Vec::new(), rtt_seconds: 0.0 } };
    bench.digits();
    bench.randomness();
    bench.memory();
    bench.loopback()?;
    Ok(bench.rates)
}
