//! Writes instructions, streams and messages into a program.

use bcc_ir::program::{BufferId, Inst, Instruction, Message, Pair, Phase, Program, Role, Scope, Stream, Type};

use super::StreamId;

/// A program being written; everything emitted belongs to the layer last entered.
pub(super) struct Builder {
    pub(super) program: Program,
    layer: u32,
    prefix: String,
}

impl Builder {
    pub(super) fn new(program: Program) -> Self {
        Builder { program, layer: 0, prefix: String::new() }
    }

    pub(super) fn finish(self) -> Program {
        self.program
    }

    pub(super) fn enter(&mut self, layer: u32, name: &str) {
        self.layer = layer;
        self.prefix = name.to_string();
    }

    fn named(&self, what: &str) -> String {
        format!("{} {what}", self.prefix)
    }

    fn push(&mut self, role: Role, phase: Phase, inst: Inst, inputs: &[BufferId], outputs: &[Type]) -> Vec<BufferId> {
        let code = &mut self.program.roles[role.index()];
        let first = code.buffers.len() as BufferId;
        code.buffers.extend_from_slice(outputs);
        let outputs: Vec<BufferId> = (first..code.buffers.len() as BufferId).collect();
        let layer = self.layer;
        code.phases[phase.index()].push(Instruction { inst, inputs: inputs.to_vec(), outputs: outputs.clone(), layer });
        outputs
    }

    /// An instruction with one result.
    pub(super) fn emit(&mut self, role: Role, phase: Phase, inst: Inst, inputs: &[BufferId], out: Type) -> BufferId {
        self.push(role, phase, inst, inputs, &[out])[0]
    }

    /// An instruction without result.
    pub(super) fn effect(&mut self, role: Role, phase: Phase, inst: Inst, inputs: &[BufferId]) {
        self.push(role, phase, inst, inputs, &[]);
    }

    fn stream(&mut self, what: &str, pair: Pair, scope: Scope, ty: Type) -> StreamId {
        let name = self.named(what);
        StreamId::new(&mut self.program.streams, Stream { name, pair, scope, ty })
    }

    /// A stream of client and dealer, fresh for every inference.
    pub(super) fn stream_cd(&mut self, what: &str, ty: Type) -> StreamId {
        self.stream(what, Pair::ClientDealer, Scope::Inference, ty)
    }

    /// A stream of server and dealer, fresh for every inference.
    pub(super) fn stream_sd(&mut self, what: &str, ty: Type) -> StreamId {
        self.stream(what, Pair::ServerDealer, Scope::Inference, ty)
    }

    /// A stream of server and dealer for the whole model.
    pub(super) fn stream_model(&mut self, what: &str, ty: Type) -> StreamId {
        self.stream(what, Pair::ServerDealer, Scope::Model, ty)
    }

    pub(super) fn draw(&mut self, role: Role, phase: Phase, stream: StreamId) -> BufferId {
        self.emit(role, phase, Inst::Draw { stream: stream.index }, &[], stream.ty)
    }

    /// Sends buffers of `from`; yields the receiver's buffers.
    pub(super) fn message(
        &mut self,
        what: &str,
        from: Role,
        to: Role,
        phase: Phase,
        parts: &[BufferId],
        reveal: bool,
    ) -> Vec<BufferId> {
        let types: Vec<Type> = parts.iter().map(|b| self.program.code(from).buffers[*b as usize]).collect();
        let message = self.program.messages.len() as u32;
        let name = self.named(what);
        let layer = self.layer;
        self.program.messages.push(Message { name, from, to, phase, layer, parts: types.clone(), reveal });
        self.effect(from, phase, Inst::Send { message }, parts);
        self.push(to, phase, Inst::Receive { message }, &[], &types)
    }
}
