//! Steps as lowered programs.

use super::*;

/// What a program leaves behind: every buffer of every role, every message.
struct Trace<'a> {
    program: &'a Program,
    buffers: [Vec<Option<Rc<Buffer>>>; 3],
    sent: Vec<Option<Vec<Rc<Buffer>>>>,
}

impl<'a> Trace<'a> {
    /// Runs all roles in turn; streams are drawn from `draw`.
    fn new(program: &'a Program, weights: &[Vec<i64>], input: &Buffer, draw: &dyn Fn(&Stream) -> Buffer) -> Self {
        verify(program).unwrap();
        let buffers = Role::ALL.map(|r| vec![None; program.code(r).buffers.len()]);
        let mut trace = Trace { program, buffers, sent: vec![None; program.messages.len()] };
        for phase in Phase::ALL {
            let mut next = [0; 3];
            let lengths = Role::ALL.map(|r| program.code(r).phases[phase.index()].len());
            while next != lengths {
                let before = next;
                for role in Role::ALL {
                    let at = &mut next[role.index()];
                    while *at < lengths[role.index()] && trace.step(role, phase, *at, weights, input, draw) {
                        *at += 1;
                    }
                }
                assert_ne!(before, next, "all roles wait");
            }
        }
        trace
    }

    /// Runs an instruction; false if it waits for a message.
    fn step(
        &mut self,
        role: Role,
        phase: Phase,
        index: usize,
        weights: &[Vec<i64>],
        input: &Buffer,
        draw: &dyn Fn(&Stream) -> Buffer,
    ) -> bool {
        let code = self.program.code(role);
        let i = &code.phases[phase.index()][index];
        let operands: Vec<Rc<Buffer>> =
            i.inputs.iter().map(|b| self.buffers[role.index()][*b as usize].clone().unwrap()).collect();
        let ty = i.outputs.first().map(|b| code.buffers[*b as usize]);
        let results = match &i.inst {
            Inst::Send { message } => {
                self.sent[*message as usize] = Some(operands);
                Vec::new()
            }
            Inst::Receive { message } => match &self.sent[*message as usize] {
                Some(parts) => parts.clone(),
                None => return false,
            },
            Inst::Output => Vec::new(),
            Inst::Input => vec![Rc::new(Buffer::ring(self.program.input.modulus, Width::Wide, &input.words()))],
            Inst::Draw { stream } => vec![Rc::new(draw(&self.program.streams[*stream as usize]))],
            Inst::Weight { index } => {
                let Some(Type::Ring { bits, .. }) = ty else { panic!("weights are ring elements") };
                let values: Vec<u64> = weights[*index as usize].iter().map(|v| *v as u64).collect();
                vec![Rc::new(Buffer::ring(bits, Width::Wide, &values))]
            }
            inst => {
                let operands: Vec<&Buffer> = operands.iter().map(|b| &**b).collect();
                vec![Rc::new(compute(best(), inst, &operands, ty.unwrap()))]
            }
        };
        assert_eq!(results.len(), i.outputs.len());
        for (b, value) in i.outputs.iter().zip(results) {
            assert_eq!(value.ty(), code.buffers[*b as usize], "{:?}", i.inst);
            self.buffers[role.index()][*b as usize] = Some(value);
        }
        true
    }

    /// Client's and server's share of a node's value.
    fn shares(&self, node: &str) -> [&Buffer; 2] {
        let tap = self.program.taps.iter().find(|t| t.node == node).unwrap();
        [(Role::Client, tap.client), (Role::Server, tap.server)]
            .map(|(role, b)| &**self.buffers[role.index()][b as usize].as_ref().unwrap())
    }

    /// Parts of a message.
    fn message(&self, name: &str) -> Vec<&Buffer> {
        let index = self.program.messages.iter().position(|m| m.name == name);
        let parts = self.sent[index.unwrap_or_else(|| panic!("no message {name}"))].as_ref().unwrap();
        parts.iter().map(|b| &**b).collect()
    }

    /// All bit planes sent over a link, one after the other.
    fn planes(&self, from: Role, to: Role) -> Vec<u64> {
        let messages = self.program.messages.iter().zip(&self.sent).filter(|(m, _)| m.from == from && m.to == to);
        let parts = messages.flat_map(|(_, parts)| parts.as_ref().unwrap());
        parts.filter(|b| matches!(b.ty(), Type::Bits { .. })).flat_map(|b| b.words()).collect()
    }

    /// Bits of a layer's messages by phase and link, without headers and padding.
    fn traffic(&self, layer: &str) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for m in self.program.messages.iter().filter(|m| m.name.starts_with(&format!("{layer} "))) {
            let letter = |r: Role| r.to_string()[..1].to_uppercase();
            let bits = |ty: &Type| match *ty {
                Type::Ring { bits, len } => u64::from(bits) * len as u64,
                Type::Bits { planes, len } => (planes * len) as u64,
            };
            *all.entry(format!("{} {}>{}", m.phase, letter(m.from), letter(m.to))).or_default() +=
                m.parts.iter().map(bits).sum::<u64>();
        }
        all
    }
}

/// A quantized graph under construction, values with `bits` of modulus and no fraction.
struct Net(Graph);

impl Net {
    fn new(ring: u8, bits: u8, shape: Vec<usize>) -> (Self, NodeId) {
        let mut graph = Graph::new("step");
        graph.ring = Some(ring);
        let x = graph.add_input("x", shape);
        let mut net = Net(graph);
        net.annotate(x, bits, ClientShare::Dealt, None);
        (net, x)
    }

    fn annotate(&mut self, id: NodeId, modulus: u8, client: ClientShare, block_sum: Option<f64>) {
        let node = self.0.node_mut(id);
        node.fixed = Some(Fixed { frac: 0, modulus, gain: 1.0, client });
        let block_sum = block_sum.map(|s| (s, Evidence::Proven));
        node.range = Some(Range { bound: 1.0, evidence: Evidence::Proven, block_sum });
    }

    fn weights(&mut self, shape: Vec<usize>, values: Vec<i64>) -> ConstId {
        self.0.add_const("w", shape, ConstData::Int(values))
    }

    fn add(&mut self, name: &str, op: Op, x: NodeId, modulus: u8, client: ClientShare) -> NodeId {
        let id = self.0.add(name, Vec::new(), op, &[x]).unwrap();
        self.annotate(id, modulus, client, None);
        self.0.set_output(id);
        id
    }
}

fn unreachable_stream(stream: &Stream) -> Buffer {
    panic!("the reference does not draw \"{}\"", stream.name)
}

#[test]
fn lowered_truncate() {
    for case in vectors().truncate {
        let (mut net, x) = Net::new(case.k, case.k, vec![1, case.c.len()]);
        net.add("low", Op::Truncate { bits: case.f }, x, case.k - case.f, ClientShare::Dealt);
        let lowered = lower(&net.0, LowerOptions::default()).unwrap();
        let input = Exec(best()).add(&ring(case.k, &case.c), &ring(case.k, &case.s));
        let trace = Trace::new(&lowered.program, &[], &input, &|stream| match stream.name.as_str() {
            "x c" => ring(case.k, &case.c),
            _ => unreachable_stream(stream),
        });
        let [client, server] = trace.shares("low");
        assert_words(client, &case.out_c, "the client's share");
        assert_words(server, &case.centred, "the server's share");
    }
}

#[test]
fn lowered_linear() {
    for case in vectors().linear {
        let (l, run, [h, w]) = (case.ring, &case.run, case.size);
        let (mut net, x) = Net::new(l, l, vec![1, case.inputs, h, w]);
        let shape = vec![case.outputs, case.inputs, case.kernel, case.kernel];
        let signed = case.w.iter().map(|v| ((v << (64 - l)) as i64) >> (64 - l)).collect();
        let weight = net.weights(shape, signed);
        let op = Op::Conv { weight, bias: None, window: case.shape().window, groups: 1 };
        net.add("conv", op, x, l, ClientShare::Local);
        let lowered = lower(&net.0, LowerOptions::default()).unwrap();
        let input = Exec(best()).add(&ring(l, &case.c), &ring(l, &case.s));
        let trace = Trace::new(&lowered.program, &lowered.weights, &input, &|stream| match stream.name.as_str() {
            "x c" => ring(l, &case.c),
            "conv A" => run.ring(l, "A"),
            "conv c0" => run.ring(l, "c0"),
            _ => unreachable_stream(stream),
        });
        assert_words(trace.message("conv F")[0], run.get("S>C F"), "F");
        assert_words(trace.message("conv c1")[0], run.get("D>S c1"), "c1");
        let [client, server] = trace.shares("conv");
        assert_words(client, &case.out_c, "the client's share");
        assert_words(server, &case.out_s, "the server's share");
        assert_eq!(trace.traffic("conv"), run.traffic_bits);
    }
}

/// The program of one Block-ReLU behind a layer with weights 1, which makes the client's share
/// local as it is in the reference: that layer's `c0` is the reference's `c`.
#[test]
fn lowered_block_relu() {
    for case in vectors().block_relu {
        let (k, l, n, run) = (case.k, case.ring, case.pixels(), &case.run);
        let channels = case.blocks.len();
        let (mut net, x) = Net::new(l, k, vec![1, channels, case.map[0], case.map[1]]);
        let weight = net.weights(vec![channels, 1, 1, 1], vec![1; channels]);
        let op = Op::Conv { weight, bias: None, window: Window::new([1, 1]), groups: channels };
        let z = net.add("conv", op, x, k, ClientShare::Local);
        let blocks = case.blocks.iter().map(|&[h, w]| Block::Patch { h, w }).collect();
        let relu = net.add("relu", Op::BlockRelu { blocks, plannable: true }, z, l, ClientShare::Dealt);
        net.annotate(relu, l, ClientShare::Dealt, Some(0.75 * f64::from(case.hi - 1).exp2()));
        let drelu_window = (case.lo > 0).then_some(case.hi - case.lo);
        let lowered = lower(&net.0, LowerOptions { drelu_window }).unwrap();

        let nibbles = usize::from((case.hi - case.lo - 1).div_ceil(4));
        let all = levels(nibbles);
        assert_eq!(all.len(), case.levels);
        let count = case.block_map().count();
        let lambda = |level: usize, part: &str| run.planes(count, ["", part], &opened_labels(level, all[level - 1]));
        let drawn = |stream: &Stream| {
            let ty = stream.ty;
            let (what, level) = match stream.name.rsplit_once(' ') {
                Some((what, number)) if number.parse::<usize>().is_ok() => (what, number.parse().unwrap()),
                _ => (stream.name.as_str(), 0),
            };
            match what {
                "x c" | "conv A" => Buffer::zeros(ty, Width::Wide),
                "conv c0" => ring(k, &case.c),
                "relu gate a_C" => run.ring(k, "a_c"),
                "relu gate a_S" => run.ring(k, "a_s"),
                "relu products" => run.planes(count, ["", ""], &product_labels(level, all[level - 1])),
                "relu lambda_C" => lambda(level, " lam_c"),
                "relu lambda_S" => Exec(best()).xor(&lambda(level, " lam"), &lambda(level, " lam_c")),
                "relu rho a" => run.ring(l, "rA_c"),
                "relu b" => run.ring(l, "b"),
                // The reference has no such shares, or others: the results do not depend on them.
                "relu r" | "relu w" | "relu ta" | "relu rho ta" => noise(stream.name.len() as u32, ty),
                _ => unreachable_stream(stream),
            }
        };
        let input = Exec(best()).add(&ring(k, &case.c), &ring(k, &case.s));
        let trace = Trace::new(&lowered.program, &lowered.weights, &input, &drawn);

        let [c, s] = trace.shares("conv");
        assert_words(c, &case.c, "the client's share of z");
        assert_words(s, &case.s, "the server's share of z");
        assert_words(trace.message("relu c - a_C")[0], run.get("C>S c - a_c"), "c - a_C");
        assert_words(trace.message("relu open")[0], run.get("S>C s - a_s"), "s - a_S");
        let sequence = |labels: fn(usize, usize) -> Vec<String>, link: &str| -> Vec<u64> {
            let labels: Vec<String> = all.iter().enumerate().flat_map(|(i, n)| labels(i + 1, *n)).collect();
            run.planes(count, [link, ""], &labels).words()
        };
        assert_eq!(trace.planes(Role::Dealer, Role::Server), sequence(product_labels, "D>S "), "dealt products");
        assert_eq!(trace.planes(Role::Client, Role::Server), sequence(opened_labels, "C>S "), "the client's bits");
        assert_eq!(trace.planes(Role::Server, Role::Client), sequence(opened_labels, "S>C "), "the server's bits");
        let [client, server] = trace.shares("relu");
        assert_eq!(client.ty(), ring_type(l, n));
        assert_words(client, run.get("out c"), "the client's share");
        assert_words(server, run.get("out s"), "the server's share");
        assert_eq!(trace.traffic("relu"), run.traffic_bits);
    }
}
