//! Lowering: a quantized graph to the program of three parties.
//!
//! Every value of the graph becomes a share of the client, which is computed before the input
//! arrives, a share of the server, computed with the input, and, where the client's share is
//! dealt, the dealer's copy of it. Nodes without weights work on both shares alike and cost
//! nothing; `linear` and `gate` hold the steps that send messages.

mod build;
mod carry;
mod class;
mod clip;
pub mod cost;
mod gate;
mod linear;

use std::collections::BTreeMap;

use bcc_ir::graph::{ConstData, ConstId, Graph, Node, NodeId, Op, Sample};
use bcc_ir::program::{
    BufferId, Inst, Layer, Phase, Port, Program, Role, Source, Stream, Tap, Type, WeightEntry, WeightWidth,
};

use super::gcd;
use build::Builder;

/// The program and the integers of its weights file, entry by entry.
pub struct Lowered {
    /// The public program.
    pub program: Program,
    /// One vector per entry of [`Program::weights`].
    pub weights: Vec<Vec<i64>>,
}

/// Choices of the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowerOptions {
    /// Bits of every block sum that decide the sign, from the highest one that the range allows;
    /// all of them (exact) if `None`.
    pub drelu_window: Option<u8>,
}

/// Why a quantized graph cannot be lowered; such graphs do not leave quantization.
#[derive(Debug, thiserror::Error)]
#[error("node \"{node}\" cannot be lowered: {reason}")]
pub struct LowerError {
    /// Graph node.
    pub node: String,
    /// Reason.
    pub reason: String,
}

/// Shares of one value.
#[derive(Clone, Copy)]
struct Shares {
    client: BufferId,
    server: BufferId,
    /// The dealer's copy of the client's share, where it is dealt.
    dealer: Option<BufferId>,
    bits: u8,
    len: usize,
}

impl Shares {
    fn ty(&self) -> Type {
        Type::Ring { bits: self.bits, len: self.len }
    }
}

/// Lowers a quantized graph.
pub fn lower(graph: &Graph, options: LowerOptions) -> Result<Lowered, LowerError> {
    let missing = |what: &str| LowerError { node: graph.name.clone(), reason: format!("the graph has no {what}") };
    let input = graph.input().ok_or_else(|| missing("input"))?;
    let output = graph.output().ok_or_else(|| missing("output"))?;
    let program = Program {
        name: graph.name.clone(),
        ring: graph.ring.ok_or_else(|| missing("ring width"))?,
        input: port(graph, input)?,
        output: port(graph, output)?,
        epilogue: graph.epilogue.clone(),
        layers: Vec::new(),
        weights: Vec::new(),
        streams: Vec::new(),
        messages: Vec::new(),
        roles: Default::default(),
        taps: Vec::new(),
    };
    let mut l = Lowering {
        graph,
        options,
        b: Builder::new(program),
        weights: Vec::new(),
        consts: BTreeMap::new(),
        values: BTreeMap::new(),
        layers: BTreeMap::new(),
    };
    for id in graph.topo() {
        l.node(id)?;
    }
    l.open_output(output);
    Ok(Lowered { program: l.b.finish(), weights: l.weights })
}

fn port(graph: &Graph, id: NodeId) -> Result<Port, LowerError> {
    let node = graph.node(id);
    let (Some(fixed), Some(range)) = (node.fixed, node.range) else { return Err(untyped(node)) };
    // The client rounds to the nearest unit, so half a unit less than the bound is left to it.
    let bound = if matches!(node.op, Op::Input) { range.bound - fixed.unit() / 2.0 } else { range.bound };
    let bound = bound.max(fixed.unit());
    Ok(Port {
        name: node.origin.first().unwrap_or(&node.name).clone(),
        shape: node.shape.clone(),
        frac: fixed.frac,
        modulus: fixed.modulus,
        gain: fixed.gain,
        bound,
    })
}

fn untyped(node: &Node) -> LowerError {
    LowerError { node: node.name.clone(), reason: "it has no fixed-point type".into() }
}

struct Lowering<'g> {
    graph: &'g Graph,
    options: LowerOptions,
    b: Builder,
    weights: Vec<Vec<i64>>,
    consts: BTreeMap<ConstId, u32>,
    values: BTreeMap<NodeId, Shares>,
    layers: BTreeMap<NodeId, u32>,
}

impl Lowering<'_> {
    fn error(&self, id: NodeId, reason: impl Into<String>) -> LowerError {
        LowerError { node: self.graph.node(id).name.clone(), reason: reason.into() }
    }

    fn node(&mut self, id: NodeId) -> Result<(), LowerError> {
        let graph = self.graph;
        let node = graph.node(id);
        let fixed = node.fixed.ok_or_else(|| untyped(node))?;
        let operands = graph.operands(id);
        let layer = self.layer(id, &operands);
        self.b.enter(layer, &node.name);
        let x: Vec<Shares> = operands.iter().map(|o| self.values[o]).collect();
        let len = node.len();
        let out = Type::Ring { bits: fixed.modulus, len };
        let value = match &node.op {
            Op::Input => self.input(out),
            Op::Conv { weight, bias, .. } | Op::Dense { weight, bias } => {
                let shape = graph.conv_shape(id).ok_or_else(|| self.error(id, "its operand has no channels"))?;
                self.linear(shape, *weight, *bias, x[0]).ok_or_else(|| self.error(id, "its operand is not dealt"))?
            }
            Op::BlockRelu { .. } | Op::Clip { .. } => {
                let (channels, map) = node.map().ok_or_else(|| self.error(id, "it has no channels"))?;
                let unit = fixed.unit();
                let sum = node.range.and_then(|r| r.block_sum).map_or(f64::INFINITY, |(s, _)| s / unit);
                let window = gate::window(sum, x[0].bits, self.options.drelu_window);
                let window = window.ok_or_else(|| self.error(id, "its block sums have no bound"))?;
                match &node.op {
                    Op::BlockRelu { blocks, .. } => self.block_relu(blocks, map, window, x[0], fixed.modulus),
                    op => {
                        let bounds = clip::Bounds::of(op, unit);
                        self.clip(bounds, (channels, map), window, x[0], fixed.modulus)
                    }
                }
            }
            Op::Refresh => self.refresh(x[0], fixed.modulus),
            Op::Remask => self.remask(x[0]),
            Op::Add => self.local2(Inst::Add, x[0], x[1], out),
            Op::Sub => self.local2(Inst::Sub, x[0], x[1], out),
            Op::Concat { axis, .. } => self.concat(&graph.rows(id, *axis), &x, out),
            Op::Resample { axis, samples, bits } => {
                self.resample(&graph.node(operands[0]).shape, *axis, samples, *bits, x[0], out)
            }
            Op::Truncate { bits } => self.truncate(*bits, x[0], out),
            Op::Tag { bits } => {
                let (channels, _) = node.map().ok_or_else(|| self.error(id, "it has no channels"))?;
                self.tag(*bits, channels, x[0], out)
            }
            Op::Reshape { .. } => x[0],
            op => {
                let inst = self.movement(op, id).ok_or_else(|| self.error(id, "no instruction computes it"))?;
                self.local(inst, x[0], out)
            }
        };
        self.values.insert(id, value);
        self.b.program.taps.push(Tap {
            node: node.name.clone(),
            client: value.client,
            server: value.server,
            frac: fixed.frac,
            modulus: fixed.modulus,
            gain: fixed.gain,
        });
        Ok(())
    }

    /// The layer a node reports to: its own, or its operand's for what only follows from it.
    fn layer(&mut self, id: NodeId, operands: &[NodeId]) -> u32 {
        let node = self.graph.node(id);
        let fixed = node.fixed.map_or((0, 0), |f| (f.frac, f.modulus));
        let drelus = match (&node.op, node.map()) {
            (Op::BlockRelu { blocks, .. }, Some((_, [h, w]))) => blocks.iter().map(|b| b.drelus(h, w) as u64).sum(),
            (Op::Clip { .. }, _) => (node.len() * node.op.clip_bounds().len()) as u64,
            _ => 0,
        };
        let entry = Layer {
            name: node.name.clone(),
            op: node.op.name().into(),
            shape: node.shape.clone(),
            frac: fixed.0,
            modulus: fixed.1,
            drelus,
        };
        let layers = &mut self.b.program.layers;
        let follows = matches!(node.op, Op::Truncate { .. } | Op::Divide { .. });
        let layer = match operands.first().and_then(|o| self.layers.get(o)) {
            Some(&l) if follows => {
                let row = &mut layers[l as usize];
                (row.frac, row.modulus) = fixed;
                l
            }
            _ => {
                layers.push(entry);
                layers.len() as u32 - 1
            }
        };
        self.layers.insert(id, layer);
        layer
    }

    fn weight(&mut self, id: ConstId, bits: u8, wide: bool) -> BufferId {
        let constant = self.graph.constant(id);
        let index = match self.consts.get(&id) {
            Some(&i) => i,
            None => {
                let values = match &constant.data {
                    ConstData::Int(v) => v.clone(),
                    ConstData::Float(_) => Vec::new(),
                };
                let fits = |bits: u32| values.iter().all(|v| *v >> (bits - 1) == *v >> 63);
                let width = match wide {
                    false if fits(16) => WeightWidth::I16,
                    false if fits(32) => WeightWidth::I32,
                    _ => WeightWidth::I64,
                };
                let entry = WeightEntry { name: constant.name.clone(), len: values.len(), width };
                self.b.program.weights.push(entry);
                self.weights.push(values);
                let i = self.weights.len() as u32 - 1;
                self.consts.insert(id, i);
                i
            }
        };
        let ty = Type::Ring { bits, len: constant.data.len() };
        self.b.emit(Role::Server, Phase::Setup, Inst::Weight { index }, &[], ty)
    }

    /// The same public step on both shares and on the dealer's copy.
    fn local(&mut self, inst: Inst, x: Shares, out: Type) -> Shares {
        let b = &mut self.b;
        let client = b.emit(Role::Client, Phase::Offline, inst.clone(), &[x.client], out);
        let dealer = x.dealer.map(|d| b.emit(Role::Dealer, Phase::Offline, inst.clone(), &[d], out));
        let server = b.emit(Role::Server, Phase::Online, inst, &[x.server], out);
        shares(client, server, dealer, out)
    }

    fn local2(&mut self, inst: Inst, x: Shares, y: Shares, out: Type) -> Shares {
        self.local_all(inst, &[x, y], out)
    }

    /// As [`local`](Self::local), of several operands; the dealer has its copy where it has all of theirs.
    fn local_all(&mut self, inst: Inst, x: &[Shares], out: Type) -> Shares {
        let b = &mut self.b;
        let of = |side: fn(&Shares) -> BufferId| x.iter().map(side).collect::<Vec<_>>();
        let client = b.emit(Role::Client, Phase::Offline, inst.clone(), &of(|x| x.client), out);
        let copies: Option<Vec<BufferId>> = x.iter().map(|x| x.dealer).collect();
        let dealer = copies.map(|d| b.emit(Role::Dealer, Phase::Offline, inst.clone(), &d, out));
        let server = b.emit(Role::Server, Phase::Online, inst, &of(|x| x.server), out);
        shares(client, server, dealer, out)
    }

    /// Joins parts, of each of which `rows` elements lie together.
    fn concat(&mut self, rows: &[usize], x: &[Shares], out: Type) -> Shares {
        let inner = rows.iter().copied().fold(0, gcd).max(1);
        let part = |(i, row): (usize, &usize)| std::iter::repeat_n(Source::Operand(i as u8), row / inner);
        let slab: Vec<Source> = rows.iter().enumerate().flat_map(part).collect();
        let outer = x[0].len / rows[0].max(1);
        self.local_all(Inst::Assemble { inner, sources: slab.repeat(outer) }, x, out)
    }

    /// Interpolation is linear with public factors, so each share goes through it: the two elements of
    /// every sample are gathered, multiplied by their factors and added.
    fn resample(&mut self, shape: &[usize], axis: usize, samples: &[Sample], bits: u8, x: Shares, out: Type) -> Shares {
        let inner: usize = shape[axis + 1..].iter().product();
        let mut side = |position: fn(&Sample) -> usize, which: usize| {
            let gather = Inst::Gather {
                outer: shape[..axis].iter().product(),
                axis: shape[axis],
                inner,
                indices: samples.iter().map(position).collect(),
            };
            let picked = self.local(gather, x, out);
            let factors = samples.iter().flat_map(|s| std::iter::repeat_n(s.factors(bits)[which], inner)).collect();
            self.local(Inst::Scale { factors }, picked, out)
        };
        let (low, high) = (side(|s| s.low, 0), side(|s| s.high, 1));
        self.local2(Inst::Add, low, high, out)
    }

    /// Drops `bits` low bits of both shares: `floor(c / 2^f) + floor((s + 2^f) / 2^f)`. With
    /// `z = c + s mod 2^k`, the sum of the floors of `c` and `s` is `floor(z / 2^f)` or one less
    /// modulo `2^(k - f)`, whatever the wrap, which is a multiple of `2^(k - f)`. The server's extra
    /// unit centres that: the result is `floor(z / 2^f)` or one more, and the error against
    /// `z / 2^f` lies in `(-1, 1]`.
    fn truncate(&mut self, bits: u8, x: Shares, out: Type) -> Shares {
        let b = &mut self.b;
        let plain = Inst::Truncate { bits, carry: 0 };
        let client = b.emit(Role::Client, Phase::Offline, plain.clone(), &[x.client], out);
        let dealer = x.dealer.map(|d| b.emit(Role::Dealer, Phase::Offline, plain.clone(), &[d], out));
        let server = b.emit(Role::Server, Phase::Online, Inst::Truncate { bits, carry: 1 }, &[x.server], out);
        shares(client, server, dealer, out)
    }

    /// The instruction of a node that treats both shares alike.
    fn movement(&self, op: &Op, id: NodeId) -> Option<Inst> {
        let shape = &self.graph.node(self.graph.operand(id)).shape;
        Some(match op {
            Op::LowBits { .. } => Inst::Reduce,
            Op::Gather { axis, indices } => Inst::Gather {
                outer: shape[..*axis].iter().product(),
                axis: shape[*axis],
                inner: shape[*axis + 1..].iter().product(),
                indices: indices.clone(),
            },
            Op::Scatter { axis, size, indices } => {
                let slab = scattered(*size, indices);
                let outer = shape[..*axis].iter().product();
                Inst::Assemble { inner: shape[*axis + 1..].iter().product(), sources: slab.repeat(outer) }
            }
            Op::Transpose { perm } => Inst::Transpose { shape: shape.clone(), perm: perm.clone() },
            Op::Pad { pad } => {
                let (channels, input) = bcc_ir::graph::map_of(shape)?;
                Inst::Pad { channels, input, pad: *pad }
            }
            Op::SumPool { .. } => Inst::SumPool(self.graph.pool_shape(id)?),
            Op::Divide { numerator, divisors, .. } => {
                let factor = |d: &usize| (*numerator as f64 / *d as f64).round() as u64;
                Inst::Scale { factors: divisors.iter().map(factor).collect() }
            }
            _ => return None,
        })
    }

    /// The client draws its share `c` and sends `x - c`; the dealer draws `c` too.
    fn input(&mut self, ty: Type) -> Shares {
        let b = &mut self.b;
        let c = b.stream_cd("c", ty);
        let client = b.draw(Role::Client, Phase::Offline, c);
        let dealer = b.draw(Role::Dealer, Phase::Offline, c);
        let x = b.emit(Role::Client, Phase::Online, Inst::Input, &[], ty);
        let masked = b.emit(Role::Client, Phase::Online, Inst::Sub, &[x, client], ty);
        let server = b.message("x - c", Role::Client, Role::Server, Phase::Online, &[masked], false);
        shares(client, server[0], Some(dealer), ty)
    }

    fn open_output(&mut self, id: NodeId) {
        let x = self.values[&id];
        let layer = self.b.program.layers.len() as u32;
        let name = "output".to_string();
        let node = self.graph.node(id);
        let fixed = node.fixed.map_or((0, 0), |f| (f.frac, f.modulus));
        let (op, shape) = ("open".to_string(), node.shape.clone());
        let entry = Layer { name: name.clone(), op, shape, frac: fixed.0, modulus: fixed.1, drelus: 0 };
        self.b.program.layers.push(entry);
        self.b.enter(layer, &name);
        let b = &mut self.b;
        let s = b.message("s", Role::Server, Role::Client, Phase::Online, &[x.server], true);
        let opened = b.emit(Role::Client, Phase::Online, Inst::Add, &[x.client, s[0]], x.ty());
        b.effect(Role::Client, Phase::Online, Inst::Output, &[opened]);
    }
}

/// Positions of one slab of a scatter; as its indices ascend, each takes the operand's next one.
fn scattered(size: usize, indices: &[usize]) -> Vec<Source> {
    let mut sources = vec![Source::Zero; size];
    for i in indices {
        sources[*i] = Source::Operand(0);
    }
    sources
}

fn shares(client: BufferId, server: BufferId, dealer: Option<BufferId>, ty: Type) -> Shares {
    let bits = match ty {
        Type::Ring { bits, .. } => bits,
        Type::Bits { .. } => 1,
    };
    Shares { client, server, dealer, bits, len: ty.len() }
}

/// A stream that was declared, with its type.
#[derive(Clone, Copy)]
struct StreamId {
    index: u32,
    ty: Type,
}

impl StreamId {
    fn new(streams: &mut Vec<Stream>, stream: Stream) -> Self {
        let ty = stream.ty;
        streams.push(stream);
        StreamId { index: streams.len() as u32 - 1, ty }
    }
}
