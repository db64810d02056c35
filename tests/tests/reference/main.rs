//! Every protocol step against the reference protocol, on the same masks.
//!
//! `vectors/reference.json` holds runs of the reference with all their draws and messages. Each is
//! repeated twice: instruction by instruction on every kernel set, which compares shares of
//! intermediate values too, and as the program that the compiler lowers the step to, whose messages
//! and results must be the reference's.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod lowered;
mod steps;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bcc_compiler::passes::lower::{LowerOptions, lower};
use bcc_ir::geometry::{Block, ConvShape, Window};
use bcc_ir::graph::{ClientShare, ConstData, ConstId, Evidence, Fixed, Graph, NodeId, Op, Range};
use bcc_ir::program::{BlockMap, Inst, Phase, Program, Role, Stream, Type, Width, carry_groups, carry_terms, verify};
use bcc_runtime::buffer::{Buffer, mask};
use bcc_runtime::exec::compute_whole;
use bcc_runtime::kernels::{KernelSet, available, best};
use bcc_runtime::prg::{Key, draw};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    truncate: Vec<Truncate>,
    linear: Vec<Linear>,
    compare: Vec<Compare>,
    block_relu: Vec<BlockRelu>,
}

#[derive(Deserialize)]
struct Truncate {
    k: u8,
    f: u8,
    c: Vec<u64>,
    s: Vec<u64>,
    #[serde(rename = "out c")]
    out_c: Vec<u64>,
    #[serde(rename = "out s")]
    out_s: Vec<u64>,
    #[serde(rename = "out s centred")]
    centred: Vec<u64>,
}

#[derive(Deserialize)]
struct Linear {
    #[serde(rename = "L")]
    ring: u8,
    outputs: usize,
    inputs: usize,
    size: [usize; 2],
    kernel: usize,
    pad: usize,
    w: Vec<u64>,
    c: Vec<u64>,
    s: Vec<u64>,
    #[serde(rename = "out c")]
    out_c: Vec<u64>,
    #[serde(rename = "out s")]
    out_s: Vec<u64>,
    #[serde(flatten)]
    run: Run,
}

#[derive(Deserialize)]
struct Compare {
    bits: u8,
    levels: usize,
    public: Vec<u64>,
    secret: Vec<u64>,
    #[serde(flatten)]
    run: Run,
}

#[derive(Deserialize)]
struct BlockRelu {
    #[serde(rename = "L")]
    ring: u8,
    k: u8,
    lo: u8,
    hi: u8,
    levels: usize,
    map: [usize; 2],
    blocks: Vec<[usize; 2]>,
    z: Vec<i64>,
    c: Vec<u64>,
    s: Vec<u64>,
    #[serde(flatten)]
    run: Run,
}

/// One run of the reference: what it drew and what it computed, by label. Bits are packed into
/// words like planes of a [`Buffer`].
#[derive(Deserialize)]
struct Run {
    draws: Vec<(String, u8, Vec<u64>)>,
    values: BTreeMap<String, Vec<u64>>,
    traffic_bits: BTreeMap<String, u64>,
    #[serde(skip)]
    used: RefCell<BTreeSet<String>>,
}

impl Run {
    fn get(&self, label: &str) -> &[u64] {
        self.used.borrow_mut().insert(label.into());
        let drawn = self.draws.iter().find(|d| d.0 == label).map(|d| &d.2);
        drawn.or_else(|| self.values.get(label)).unwrap_or_else(|| panic!("the reference has no \"{label}\""))
    }

    fn ring(&self, bits: u8, label: &str) -> Buffer {
        ring(bits, self.get(label))
    }

    /// Planes of `len` bits whose labels are `before`, one of `labels`, `after`.
    fn planes(&self, len: usize, [before, after]: [&str; 2], labels: &[String]) -> Buffer {
        let words: Vec<u64> =
            labels.iter().flat_map(|l| self.get(&format!("{before}{l}{after}")).iter().copied()).collect();
        planes_of(Type::Bits { planes: labels.len(), len }, &words)
    }

    /// All draws and values must have been compared or used.
    fn assert_exhausted(&self) {
        let labels = self.draws.iter().map(|d| &d.0).chain(self.values.keys());
        let left: Vec<&String> = labels.filter(|l| !self.used.borrow().contains(*l)).collect();
        assert!(left.is_empty(), "not compared: {left:?}");
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../vectors/reference.json")).unwrap()
}

fn ring(bits: u8, values: &[u64]) -> Buffer {
    assert!(values.iter().all(|v| *v <= mask(bits)), "a value of the reference is not reduced to {bits} bits");
    Buffer::ring(bits, Width::Wide, values)
}

fn ring_type(bits: u8, len: usize) -> Type {
    Type::Ring { bits, len }
}

fn plane_type(len: usize) -> Type {
    Type::Bits { planes: 1, len }
}

/// Shares that the reference does not have.
fn noise(stream: u32, ty: Type) -> Buffer {
    draw(&Key::new([7; 16]), stream, ty, Width::Wide)
}

#[track_caller]
fn assert_words(got: &Buffer, want: &[u64], what: &str) {
    assert!(got.words() == want, "{what} differs:\n{:?}\n{want:?}", got.words());
}

#[track_caller]
fn assert_same(got: &Buffer, want: &Buffer, what: &str) {
    assert_eq!(got.ty(), want.ty(), "{what}");
    assert_words(got, &want.words(), what);
}

/// Executes an instruction with elements of 64 bits, and of 32 where they fit: both must give the same.
fn compute(k: KernelSet, inst: &Inst, operands: &[&Buffer], ty: Type) -> Buffer {
    let run = |operands: &[&Buffer], width| {
        let value = compute_whole(k, inst, operands, ty, width);
        value.unwrap_or_else(|| panic!("{inst:?} does not run on these operands"))
    };
    let wide = run(operands, Width::Wide);
    let fits = |ty| !matches!(ty, Type::Ring { bits: 33.., .. });
    if fits(ty) && operands.iter().all(|b| fits(b.ty())) {
        let narrow = |b: &&Buffer| match b.ty() {
            Type::Ring { bits, .. } => Buffer::ring(bits, Width::Narrow, &b.words()),
            ty => planes_of(ty, &b.words()),
        };
        let operands: Vec<Buffer> = operands.iter().map(narrow).collect();
        let narrow = run(&operands.iter().collect::<Vec<_>>(), Width::Narrow);
        assert!(narrow.words() == wide.words(), "{inst:?} differs in 32 bits");
    }
    wide
}

/// Planes of given words.
fn planes_of(ty: Type, words: &[u64]) -> Buffer {
    let mut buffer = Buffer::zeros(ty, Width::Wide);
    buffer.planes_mut().unwrap().copy_from_slice(words);
    buffer
}

/// Executes single instructions.
struct Exec(KernelSet);

impl Exec {
    fn run(&self, inst: Inst, operands: &[&Buffer], ty: Type) -> Buffer {
        compute(self.0, &inst, operands, ty)
    }

    fn add(&self, a: &Buffer, b: &Buffer) -> Buffer {
        self.run(Inst::Add, &[a, b], a.ty())
    }

    fn sub(&self, a: &Buffer, b: &Buffer) -> Buffer {
        self.run(Inst::Sub, &[a, b], a.ty())
    }

    fn xor(&self, a: &Buffer, b: &Buffer) -> Buffer {
        self.run(Inst::Xor, &[a, b], a.ty())
    }

    /// Bits of ring elements as whole nibbles, left-aligned as the reference does it.
    fn nibbles(&self, x: &Buffer, low: u8, count: u8) -> Buffer {
        let pad = count.next_multiple_of(4) - count;
        let ty = Type::Bits { planes: usize::from(count + pad), len: x.ty().len() };
        self.run(Inst::ToBits { low, count, pad }, &[x], ty)
    }

    fn bit(&self, x: &Buffer, low: u8) -> Buffer {
        self.run(Inst::ToBits { low, count: 1, pad: 0 }, &[x], plane_type(x.ty().len()))
    }
}

fn on_every_kernel_set(check: impl Fn(&Exec)) {
    for k in available() {
        check(&Exec(k));
    }
}

fn groups_of_several(inputs: usize) -> impl Iterator<Item = usize> {
    carry_groups(inputs).into_iter().enumerate().filter(|(_, size)| *size > 1).map(|(i, _)| i)
}

/// Inputs of every level, the nibbles (level 1) first.
fn levels(nibbles: usize) -> Vec<usize> {
    let (mut all, mut n) = (vec![nibbles], nibbles);
    while n > 1 {
        all.push(n);
        n = n.div_ceil(4);
    }
    all
}

/// The reference's names of a level's dealt products, in the order of the planes.
fn product_labels(level: usize, inputs: usize) -> Vec<String> {
    if level == 1 {
        let name = |j: usize, set: usize| {
            let bits: Vec<String> = (0..4).filter(|i| set >> i & 1 == 1).map(|i| format!("t{i}")).collect();
            format!("nibble {j} {}", bits.join(" "))
        };
        return (0..inputs).flat_map(|j| (1..16).map(move |set| name(j, set))).collect();
    }
    let name = |set: &Vec<usize>| {
        // Planes are G0, G1, P1, G2, P2, ..; within a chunk the reference counts from 0.
        let input = |plane: usize| plane.div_ceil(2);
        let mut names: Vec<String> = set
            .iter()
            .map(|&plane| format!("{}{}", if plane == 0 || plane % 2 == 1 { "g" } else { "p" }, input(plane) % 4))
            .collect();
        names.sort();
        format!("level {level} chunk {} {}", input(set[0]) / 4, names.join(" "))
    };
    carry_terms(inputs).1.iter().map(name).collect()
}

/// The reference's names of a level's opened bits, in the order of the planes.
fn opened_labels(level: usize, inputs: usize) -> Vec<String> {
    let (places, unit): (Vec<usize>, String) = match level {
        1 => ((0..inputs).collect(), "nibble".into()),
        _ => (groups_of_several(inputs).collect(), format!("level {level} chunk")),
    };
    let bits = |i: usize| if i == 0 { vec!["G"] } else { vec!["G", "P"] };
    places
        .iter()
        .flat_map(|i| bits(*i).into_iter().map(move |b| (*i, b)))
        .map(|(i, b)| format!("{unit} {i} {b}"))
        .collect()
}
