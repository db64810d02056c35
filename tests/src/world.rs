//! Runs compiled networks with all parties in one process and opens every value on the way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bcc_compiler::compile::Compiled;
use bcc_compiler::twin;
use bcc_ir::graph::{Graph, NodeId, Op};
use bcc_ir::program::{BufferId, Role, Tap};
use bcc_runtime::buffer::{Buffer, mask};
use bcc_runtime::port::Tensor;
use bcc_runtime::session::{LocalOptions, RunOutput, SessionError, run_local};

/// An input of the network's shape.
pub fn tensor(compiled: &Compiled, image: &[f32]) -> Tensor {
    let shape = compiled.lowered.program.input.shape.clone();
    Tensor { shape, data: image.iter().map(|x| f64::from(*x)).collect() }
}

/// Runs inferences.
pub fn run(compiled: &Compiled, images: &[Vec<f32>], options: &LocalOptions) -> Result<RunOutput, SessionError> {
    let inputs: Vec<Tensor> = images.iter().map(|i| tensor(compiled, i)).collect();
    run_local(&compiled.lowered.program, &compiled.lowered.weights, &inputs, options)
}

/// Opened values by graph node, for one inference.
pub type Opened = BTreeMap<NodeId, Vec<i64>>;

/// By inference and tap: the shares that have been seen, added up.
type Sums = BTreeMap<(u32, usize), Vec<i64>>;

/// Runs inferences and opens both shares of every value of the quantized graph.
///
/// # Panics
/// If a tap is missing: the program would not be the graph's.
pub fn run_opened(
    compiled: &Compiled,
    images: &[Vec<f32>],
    mut options: LocalOptions,
) -> Result<(RunOutput, Vec<Opened>), SessionError> {
    let program = &compiled.lowered.program;
    let wanted = |side: fn(&Tap) -> BufferId| {
        let mut map: BTreeMap<BufferId, Vec<usize>> = BTreeMap::new();
        program.taps.iter().enumerate().for_each(|(i, t)| map.entry(side(t)).or_default().push(i));
        map
    };
    let sides = [wanted(|t| t.client), wanted(|t| t.server)];
    let seen: Arc<Mutex<Sums>> = Arc::default();
    let keep = seen.clone();
    options.party.observer = Some(Arc::new(move |role: Role, inference: u32, id: BufferId, buffer: &Buffer| {
        let Some(taps) = sides.get(role.index()).and_then(|s| s.get(&id)) else { return };
        let mut kept = keep.lock().expect("no test thread panics while it holds the lock");
        for &tap in taps {
            let words = buffer.words();
            let sum = kept.entry((inference, tap)).or_insert_with(|| vec![0; words.len()]);
            sum.iter_mut().zip(words).for_each(|(y, share)| *y = y.wrapping_add(share as i64));
        }
    }));
    let output = run(compiled, images, &options)?;
    let mut sums = seen.lock().expect("all parties have ended");
    let opened = (0..images.len() as u32)
        .map(|inference| {
            let open = |(i, tap): (usize, &Tap)| {
                let node = compiled.graph.find(&tap.node).expect("every tap is a node of the graph");
                let mut values = sums.remove(&(inference, i)).expect("both parties have run");
                values.iter_mut().for_each(|v| *v = signed(*v as u64, tap.modulus));
                (node, values)
            };
            program.taps.iter().enumerate().map(open).collect()
        })
        .collect();
    Ok((output, opened))
}

/// The signed integer that `value` modulo `2^bits` stands for.
pub fn signed(value: u64, bits: u8) -> i64 {
    let shift = 64 - u32::from(bits);
    ((value & mask(bits)) << shift) as i64 >> shift
}

/// Checks every opened value against the exact integer result of its node on its opened operands;
/// a truncation may yield its floor or one more. Yields the number of values checked.
pub fn check_exact(graph: &Graph, opened: &Opened) -> Result<usize, String> {
    let mut checked = 0;
    for id in graph.topo() {
        let node = graph.node(id);
        let got = &opened[&id];
        let unit = node.fixed.map_or(1.0, |f| f.unit());
        let bound = node.range.map_or(f64::INFINITY, |r| r.bound) / unit;
        if let Some(v) = got.iter().find(|v| v.unsigned_abs() as f64 > bound + 0.5) {
            return Err(format!("\"{}\": {v} units are beyond its bound of {bound}", node.name));
        }
        if matches!(node.op, Op::Input) {
            continue;
        }
        let operands: Vec<&[i64]> = graph.operands(id).iter().map(|o| opened[o].as_slice()).collect();
        let (want, slack) = match node.op {
            Op::Truncate { bits } => (operands[0].iter().map(|v| v >> bits).collect(), 1),
            _ => (twin::step(graph, id, &operands).map_err(|e| e.to_string())?, 0),
        };
        if want.len() != got.len() {
            return Err(format!("\"{}\": {} values, not {}", node.name, got.len(), want.len()));
        }
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            if !(0..=slack).contains(&(g - w)) {
                return Err(format!("\"{}\" ({}), element {i}: {g}, not {w}", node.name, node.op.name()));
            }
        }
        checked += got.len();
    }
    Ok(checked)
}
