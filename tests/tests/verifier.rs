//! The program verifier refuses programs that leak or break, and says where.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use bcc_compiler::passes::BlockChoice;
use bcc_ir::program::{Inst, Message, Pair, Phase, Program, Role, Scope, Stream, Type, verify};
use bcc_tests::nets::{built, compiled, mixed_plan, options, random_images};

fn program(name: &str) -> Program {
    let graph = built(name);
    let images = random_images(&graph, 4, 7);
    let plan = mixed_plan(&graph);
    compiled(graph, &options(BlockChoice::Plan(plan), images)).lowered.program
}

/// Every instruction by role, phase, index.
fn places(p: &Program) -> Vec<(usize, usize, usize)> {
    (0..3).flat_map(|r| (0..3).flat_map(move |f| (0..p.roles[r].phases[f].len()).map(move |i| (r, f, i)))).collect()
}

fn faults(p: &Program) -> String {
    match verify(p) {
        Ok(_) => String::new(),
        Err(f) => f.to_string(),
    }
}

#[test]
fn compiled_programs_pass() {
    for name in ["tiny_plain", "tiny_residual", "tiny_pools"] {
        assert_eq!(faults(&program(name)), "", "{name}");
    }
}

/// Drops the mask of every masked message part in turn: the part is sent as it was before.
#[test]
fn a_dropped_mask_is_refused() {
    let original = program("tiny_residual");
    let mut tried = 0;
    for (r, f, i) in places(&original) {
        let instruction = &original.roles[r].phases[f][i];
        let Inst::Send { message } = instruction.inst else { continue };
        if original.messages[message as usize].reveal {
            continue;
        }
        for (part, &buffer) in instruction.inputs.iter().enumerate() {
            let code = &original.roles[r];
            let writer = code.phases.iter().flatten().find(|w| w.outputs.contains(&buffer)).unwrap();
            let naked = match writer.inst {
                Inst::Add | Inst::Sub | Inst::Xor => writer.inputs[0],
                // The top bit of a masked value: send that of the server's own share instead.
                Inst::ToBits { .. } => continue,
                _ => panic!("{}: a part comes from {}", original.messages[message as usize].name, writer.inst.name()),
            };
            if code.buffers[naked as usize] != code.buffers[buffer as usize] {
                continue;
            }
            let mut mutant = original.clone();
            mutant.roles[r].phases[f][i].inputs[part] = naked;
            let name = &original.messages[message as usize].name;
            let found = verify(&mutant).unwrap_err().0;
            assert!(found.iter().any(|f| f.place.contains(name.as_str())), "part {part} of \"{name}\": {found:?}");
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried}");
}

/// Lets every pair of draws of one type and holder share a stream.
#[test]
fn a_mask_drawn_twice_is_refused() {
    let original = program("tiny_plain");
    // Streams whose draws mask a message; drawn twice they give away a difference.
    let (mut tried, mut refused) = (0, 0);
    for from in 0..original.streams.len() {
        for to in 0..original.streams.len() {
            let (a, b) = (&original.streams[from], &original.streams[to]);
            if from == to || a.ty != b.ty || a.pair != b.pair || a.scope != b.scope {
                continue;
            }
            let mut mutant = original.clone();
            for (r, f, i) in places(&original) {
                if let Inst::Draw { stream } = &mut mutant.roles[r].phases[f][i].inst
                    && *stream as usize == from
                {
                    *stream = to as u32;
                }
            }
            tried += 1;
            if !faults(&mutant).is_empty() {
                refused += 1;
            }
        }
    }
    assert!(tried > 30, "{tried}");
    assert_eq!(refused, tried, "every stream of a compiled program masks a message of its own");
}

/// Gives the key of every stream to the receiver of the message it masks.
#[test]
fn a_mask_that_the_receiver_can_draw_is_refused() {
    let original = program("tiny_residual");
    for s in 0..original.streams.len() {
        let mut mutant = original.clone();
        mutant.streams[s].pair = match mutant.streams[s].pair {
            Pair::ClientDealer => Pair::ServerDealer,
            Pair::ServerDealer => Pair::ClientDealer,
        };
        // The holders change too, as in a compiler that confuses the keys.
        let what = faults(&mutant);
        assert!(!what.is_empty(), "{}", original.streams[s].name);
    }
}

/// A mask that went through a step which loses uniformity protects nothing that is added later.
#[test]
fn a_squashed_mask_is_refused() {
    let original = program("tiny_plain");
    let mut tried = 0;
    for (r, f, i) in places(&original) {
        let Inst::Sub = original.roles[r].phases[f][i].inst else { continue };
        let [value, mask] = original.roles[r].phases[f][i].inputs[..] else { continue };
        let Type::Ring { bits, len } = original.roles[r].buffers[mask as usize] else { continue };
        let mut mutant = original.clone();
        let code = &mut mutant.roles[r];
        let is_draw = |w: &&bcc_ir::program::Instruction| w.outputs == [mask] && matches!(w.inst, Inst::Draw { .. });
        if !code.phases[f].iter().any(|w| is_draw(&w)) {
            continue;
        }
        // mask -> 4 * mask: only two of its bits in three are random.
        let squashed = code.buffers.len() as u32;
        code.buffers.push(Type::Ring { bits, len });
        let layer = code.phases[f][i].layer;
        code.phases[f][i].inputs = vec![value, squashed];
        let scale = bcc_ir::program::Instruction {
            inst: Inst::Scale { factors: vec![4] },
            inputs: vec![mask],
            outputs: vec![squashed],
            layer,
        };
        code.phases[f].insert(i, scale);
        let what = faults(&mutant);
        assert!(!what.is_empty(), "{r} {f} {i}");
        tried += 1;
    }
    assert!(tried > 8, "{tried}");
}

#[test]
fn a_message_to_the_dealer_is_refused() {
    let mut p = program("tiny_plain");
    let message = p.messages.len() as u32;
    let ty = Type::Ring { bits: p.input.modulus, len: p.input.shape.iter().product() };
    p.messages.push(Message {
        name: "leak".into(),
        from: Role::Client,
        to: Role::Dealer,
        phase: Phase::Online,
        layer: 0,
        parts: vec![ty],
        reveal: false,
    });
    let client = &mut p.roles[0].phases[2];
    let input = client.iter().find(|i| i.inst == Inst::Input).unwrap().outputs[0];
    let at = client.iter().position(|i| i.inst == Inst::Input).unwrap() + 1;
    let instruction =
        bcc_ir::program::Instruction { inst: Inst::Send { message }, inputs: vec![input], outputs: vec![], layer: 0 };
    client.insert(at, instruction);
    p.roles[2].buffers.push(ty);
    let outputs = vec![p.roles[2].buffers.len() as u32 - 1];
    let receive = bcc_ir::program::Instruction { inst: Inst::Receive { message }, inputs: vec![], outputs, layer: 0 };
    p.roles[2].phases[2].push(receive);
    let what = faults(&p);
    assert!(what.contains("the dealer"), "{what}");
}

#[test]
fn a_second_opened_value_is_refused() {
    let original = program("tiny_plain");
    for n in 0..original.messages.len() {
        let mut mutant = original.clone();
        mutant.messages[n].reveal = !mutant.messages[n].reveal;
        assert!(!faults(&mutant).is_empty(), "{}", original.messages[n].name);
        // Moving the mark to another message does not help either.
        mutant.messages.iter_mut().for_each(|m| m.reveal = false);
        mutant.messages[n].reveal = true;
        if !original.messages[n].reveal {
            assert!(!faults(&mutant).is_empty(), "{}", original.messages[n].name);
        }
    }
}

/// Reading the input early, reading before writing, writing twice, wrong roles.
#[test]
fn broken_order_and_roles_are_refused() {
    let original = program("tiny_plain");
    let mut early = original.clone();
    let at = early.roles[0].phases[2].iter().position(|i| i.inst == Inst::Input).unwrap();
    let input = early.roles[0].phases[2].remove(at);
    early.roles[0].phases[1].insert(0, input);
    assert!(faults(&early).contains("before the online phase") || faults(&early).contains("does not exist before"));

    for (r, f, i) in places(&original) {
        let mut missing = original.clone();
        let gone = missing.roles[r].phases[f].remove(i);
        assert!(!faults(&missing).is_empty(), "without {} of role {r}", gone.inst.name());
        let mut twice = original.clone();
        twice.roles[r].phases[f].insert(i, gone);
        let what = faults(&twice);
        assert!(!what.is_empty(), "instruction {i} of role {r}, phase {f} twice");
    }
}

#[test]
fn a_circle_of_waiting_roles_is_refused() {
    let original = program("tiny_plain");
    let mut swapped = 0;
    for r in 0..2 {
        let code = &original.roles[r].phases[2];
        for i in 1..code.len() {
            let pair = (&code[i - 1].inst, &code[i].inst);
            if !matches!(pair, (Inst::Send { .. }, Inst::Receive { .. })) {
                continue;
            }
            let mut mutant = original.clone();
            mutant.roles[r].phases[2].swap(i - 1, i);
            // The receive now comes before the send that its answer waits for.
            let what = faults(&mutant);
            if what.contains("wait for ever") {
                swapped += 1;
            }
        }
    }
    assert!(swapped > 0);
}

#[test]
fn model_streams_do_not_serve_inferences() {
    let original = program("tiny_plain");
    for s in 0..original.streams.len() {
        let mut mutant = original.clone();
        let stream: &mut Stream = &mut mutant.streams[s];
        stream.scope = match stream.scope {
            Scope::Model => Scope::Inference,
            Scope::Inference => Scope::Model,
        };
        assert!(!faults(&mutant).is_empty(), "{}", original.streams[s].name);
    }
}

/// Absurd types and sizes end in a fault, not in a panic or an allocation.
#[test]
fn absurd_sizes_are_refused() {
    let original = program("tiny_plain");
    for r in 0..3 {
        for b in 0..original.roles[r].buffers.len() {
            let absurd = [
                Type::Ring { bits: 0, len: 1 },
                Type::Ring { bits: 65, len: 4 },
                Type::Ring { bits: 32, len: usize::MAX },
                Type::Ring { bits: 32, len: 1 << 36 },
                Type::Bits { planes: usize::MAX, len: 1 },
                Type::Bits { planes: 1, len: 0 },
            ];
            for ty in absurd {
                let mut mutant = original.clone();
                mutant.roles[r].buffers[b] = ty;
                assert!(!faults(&mutant).is_empty(), "{ty}");
            }
        }
    }
}
