//! Three roles with a clock each walk through a program.
//!
//! - A step takes its work at the rates, on as many cores as its work can be split over.
//!   Roles on one machine share its cores: where they want more than there are, each gets the same
//!   fraction of what it wants. The first step behind a wait that several threads share takes longer: they wake up, unless
//!   it is done before.
//!   Where roles share a machine, so does what copies their messages for the system.
//! - A message, or a piece of one, is handed to its link when the send's work is done; the sender goes on. It waits
//!   until the link's direction is free, occupies it for its bytes (header included), and is there
//!   half a round trip after its last byte left. A receive waits for that, then works.
//! - Inferences in lockstep do the same work each, at the same time where there are cores. They share messages: one
//!   call and one header for all payloads.
//! - All roles start a phase together. Setup and offline phase end when client and server are
//!   through, the online phase when the client has its output.
//!
//! Left out: connecting and greeting, the wait of client and server for each other between phases
//! (half a round trip more in what `bcr` counts), a dealer that works ahead, TCP's slow start and
//! headers, what else the processor does for the network, caches, and memory that the allocator
//! gives back and takes again.
//!
//! The *critical path* of a phase leads from its end back to its start, over what each step waited
//! for: the work before it, or a message, its time on the way (*latency*), on the link
//! (*bandwidth*), and before that its sender's work. So the parts of all layers add up to the phase.

use std::ops::Range;

use serde::Serialize;

use super::{Network, Rates, StepWork, code_work};
use crate::program::traffic::{Stuck, schedule};
use crate::program::{Inst, Phase, Program, Role};

/// Seconds of a critical path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// In instructions.
    pub compute: f64,
    /// Of messages on the way.
    pub latency: f64,
    /// Of messages occupying links.
    pub bandwidth: f64,
}

impl Seconds {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.compute + self.latency + self.bandwidth
    }

    fn add(&mut self, other: &Seconds) {
        self.compute += other.compute;
        self.latency += other.latency;
        self.bandwidth += other.bandwidth;
    }
}

/// One phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhasePrediction {
    /// From the start to the end.
    pub path: Seconds,
    /// What of it belongs to each layer of the program.
    pub layers: Vec<Seconds>,
    /// Seconds that client, server and dealer compute, on one core.
    pub busy: [f64; 3],
}

/// The times of one setup and one inference, or one batch of some in lockstep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// By [`Phase`].
    pub phases: [PhasePrediction; 3],
}

impl Prediction {
    /// A phase.
    pub fn phase(&self, phase: Phase) -> &PhasePrediction {
        &self.phases[phase.index()]
    }
}

/// Predicts the times of a verified program.
pub fn predict(program: &Program, rates: &Rates, network: &Network) -> Result<Prediction, Stuck> {
    predict_batch(program, rates, network, 1)
}

/// As [`predict()`], of `lanes` inferences in lockstep: the times of all together.
pub fn predict_batch(program: &Program, rates: &Rates, network: &Network, lanes: u16) -> Result<Prediction, Stuck> {
    // A program that does not get to its end has no time.
    schedule(program)?;
    let work = Role::ALL.map(|role| code_work(program, role));
    let lanes = |phase| if phase == Phase::Setup { 1 } else { lanes.max(1) };
    let walk = |phase| Walk::new(program, phase, rates, network, &work, lanes(phase)).run();
    Ok(Prediction { phases: Phase::ALL.map(walk) })
}

/// When a step ran.
#[derive(Clone, Copy, Default)]
struct Span {
    /// The one before was done.
    ready: f64,
    /// It started: later where it waited for a message.
    start: f64,
    end: f64,
}

/// A message's piece: both their numbers.
type Piece = (usize, usize);

/// When a piece of a message travelled.
#[derive(Clone, Copy)]
struct Flight {
    /// The step of its role that sends it.
    send: usize,
    /// It was there.
    arrive: f64,
    /// What the link was busy with before, if it had to wait for that.
    behind: Option<Piece>,
}

/// What a role is doing.
#[derive(Clone, Copy)]
enum State {
    /// Working on the step: seconds on one core that are left, cores that it can use.
    Work { left: f64, cores: u32 },
    /// Waiting for a message.
    Wait { piece: Piece },
    /// Through.
    Done,
}

struct Walk<'a> {
    program: &'a Program,
    phase: Phase,
    rates: &'a Rates,
    network: &'a Network,
    /// By role and phase.
    work: &'a [[Vec<StepWork>; 3]; 3],
    /// Inferences in lockstep.
    lanes: u16,
    now: f64,
    at: [usize; 3],
    states: [State; 3],
    spans: [Vec<Span>; 3],
    /// By message and piece.
    flights: Vec<Vec<Option<Flight>>>,
    /// When the link's direction is free again, and what it was last busy with.
    links: [[(f64, Option<Piece>); 3]; 3],
    busy: [f64; 3],
    /// Its threads have nothing to do and sleep.
    asleep: [bool; 3],
}

impl<'a> Walk<'a> {
    fn new(
        program: &'a Program,
        phase: Phase,
        rates: &'a Rates,
        network: &'a Network,
        work: &'a [[Vec<StepWork>; 3]; 3],
        lanes: u16,
    ) -> Self {
        let spans = Role::ALL.map(|r| vec![Span::default(); work[r.index()][phase.index()].len()]);
        let mut walk = Walk {
            program,
            phase,
            rates,
            network,
            work,
            lanes,
            now: 0.0,
            at: [0; 3],
            states: [State::Done; 3],
            spans,
            flights: program.messages.iter().map(|m| vec![None; m.pieces()]).collect(),
            links: [[(0.0, None); 3]; 3],
            busy: [0.0; 3],
            asleep: [true; 3],
        };
        Role::ALL.into_iter().for_each(|r| walk.enter(r));
        walk
    }

    fn run(mut self) -> PhasePrediction {
        while self.step() {}
        self.path()
    }

    /// A role's steps.
    fn steps(&self, role: Role) -> &'a [StepWork] {
        &self.work[role.index()][self.phase.index()]
    }

    /// The instruction of a step that has but one.
    fn inst(&self, role: Role, at: usize) -> Option<&'a Inst> {
        let index = self.steps(role).get(at)?.step.single()?;
        self.program.code(role).phases[self.phase.index()].get(index).map(|i| &i.inst)
    }

    /// The pieces of a message that a step sends or receives.
    fn pieces(&self, role: Role, at: usize, message: usize) -> Range<usize> {
        self.steps(role)[at].step.pieces(&self.program.messages[message])
    }

    fn flight(&self, (message, piece): Piece) -> Option<Flight> {
        self.flights[message][piece]
    }

    /// Seconds that a piece occupies a link.
    fn bandwidth(&self, (message, piece): Piece) -> f64 {
        self.program.messages[message].piece_batch_bytes(piece, self.lanes) as f64 * self.network.byte_seconds()
    }

    /// Comes to the next step.
    fn enter(&mut self, role: Role) {
        let r = role.index();
        let next = self.inst(role, self.at[r]);
        if let Some(span) = self.spans[r].get_mut(self.at[r]) {
            span.ready = self.now;
        }
        match next {
            None if self.at[r] == self.steps(role).len() => self.states[r] = State::Done,
            Some(Inst::Receive { message }) => {
                let message = *message as usize;
                let piece = (message, self.pieces(role, self.at[r], message).end - 1);
                self.states[r] = State::Wait { piece };
                if self.flight(piece).is_some_and(|f| f.arrive <= self.now) {
                    self.begin(role);
                } else {
                    self.asleep[r] = true;
                }
            }
            _ => self.begin(role),
        }
    }

    /// Starts to work on the step.
    fn begin(&mut self, role: Role) {
        let r = role.index();
        let step = &self.steps(role)[self.at[r]];
        let (lanes, threads) = (u32::from(self.lanes), self.cores().ceil() as u32);
        let (calls, at_once) = match self.inst(role, self.at[r]) {
            Some(Inst::Send { .. }) => (1, 1),
            // Taken from the link in one call, made into buffers in all lanes.
            Some(Inst::Receive { .. }) => (1, lanes),
            _ => (lanes, lanes),
        };
        let work = step.total().times(lanes.into(), calls.into());
        let cores = step.parallelism(threads).max(at_once.min(threads));
        let mut left = self.rates.seconds(&work);
        if cores > 1 && std::mem::take(&mut self.asleep[r]) {
            // Short steps are done before the others are awake.
            let share = self.share(cores);
            left += (share * self.rates.measured.share_seconds).min((share - 1.0).max(0.0) * left);
        }
        self.busy[r] += left;
        self.spans[r][self.at[r]].start = self.now;
        self.states[r] = State::Work { left, cores };
    }

    /// Is through with the step.
    fn end(&mut self, role: Role) {
        let r = role.index();
        let index = self.at[r];
        self.spans[r][index].end = self.now;
        if let Some(Inst::Send { message }) = self.inst(role, index) {
            let m = &self.program.messages[*message as usize];
            for piece in self.pieces(role, index, *message as usize) {
                let piece = (*message as usize, piece);
                let bandwidth = self.bandwidth(piece);
                let link = &mut self.links[m.from.index()][m.to.index()];
                let (free, last) = *link;
                let gone = self.now.max(free) + bandwidth;
                *link = (gone, Some(piece));
                let behind = if free > self.now { last } else { None };
                let arrive = gone + self.network.one_way_seconds();
                self.flights[piece.0][piece.1] = Some(Flight { send: index, arrive, behind });
            }
        }
        self.at[r] += 1;
        self.enter(role);
    }

    /// Cores of a role's machine.
    fn cores(&self) -> f64 {
        self.network.shared_cores.unwrap_or(self.rates.measured.cores)
    }

    /// Cores that are busy with copying messages for the system: one for each direction that a message occupies, less
    /// where the link is slower than a copy.
    fn writing(&self) -> f64 {
        let copy = 1.0 / self.rates.loopback.bytes_per_second;
        let each = (copy / self.network.byte_seconds()).min(1.0);
        self.links.iter().flatten().filter(|(free, _)| *free > self.now).count() as f64 * each
    }

    /// Cores that a role gets of `wanted`.
    fn share(&self, wanted: u32) -> f64 {
        let all: u32 = self.states.iter().map(|s| if let State::Work { cores, .. } = s { *cores } else { 0 }).sum();
        let all = f64::from(all) + self.writing();
        match self.network.shared_cores {
            Some(cores) if all > cores => f64::from(wanted) * cores / all,
            _ => f64::from(wanted).min(self.cores()),
        }
    }

    /// Goes to the next time at which something happens; `false` if nothing does.
    fn step(&mut self) -> bool {
        let next = |r: Role| match self.states[r.index()] {
            State::Work { left, cores } => Some(self.now + left / self.share(cores)),
            State::Wait { piece } => self.flight(piece).map(|f| f.arrive),
            State::Done => None,
        };
        let times = Role::ALL.map(next);
        let then = times.iter().flatten().copied().min_by(f64::total_cmp);
        // Rates that are no times give times without an end.
        let Some(then) = then.filter(|then| then.is_finite()) else { return false };
        // Cores are shared otherwise from where a link is free again.
        let free = self.links.iter().flatten().map(|(free, _)| *free).filter(|free| *free > self.now);
        let then = free.fold(then, f64::min);
        let passed = then - self.now;
        let shares = self.states.map(|s| if let State::Work { cores, .. } = s { self.share(cores) } else { 0.0 });
        for (state, share) in self.states.iter_mut().zip(shares) {
            if let State::Work { left, .. } = state {
                *left = (*left - passed * share).max(0.0);
            }
        }
        self.now = then;
        for (role, time) in Role::ALL.into_iter().zip(times) {
            if time == Some(then) {
                match self.states[role.index()] {
                    State::Work { .. } => self.end(role),
                    State::Wait { .. } => self.begin(role),
                    State::Done => {}
                }
            }
        }
        true
    }

    /// Follows the critical path back from the end of the phase.
    fn path(self) -> PhasePrediction {
        let mut layers = vec![Seconds::default(); self.program.layers.len()];
        let mut path = Seconds::default();
        let end = |r: Role| self.spans[r.index()].last().map_or(0.0, |s| s.end);
        let mut role = Role::Client;
        if self.phase != Phase::Online && end(Role::Server) > end(Role::Client) {
            role = Role::Server;
        }
        let mut add = |layer: u32, part: Seconds| {
            path.add(&part);
            if let Some(l) = layers.get_mut(layer as usize) {
                l.add(&part);
            }
        };
        let mut left = self.spans[role.index()].len();
        while let Some(index) = left.checked_sub(1) {
            let span = self.spans[role.index()][index];
            let step = &self.steps(role)[index];
            let all = self.rates.seconds(&step.total());
            for (at, (layer, work)) in step.layers.iter().enumerate() {
                // Where nothing is known of the parts, the first one has all.
                let part = if all > 0.0 { self.rates.seconds(work) / all } else { f64::from(u8::from(at == 0)) };
                add(*layer, Seconds { compute: part * (span.end - span.start), ..Seconds::default() });
            }
            left = index;
            if span.start <= span.ready {
                continue;
            }
            let Some(Inst::Receive { message }) = self.inst(role, index) else { continue };
            let message = *message as usize;
            let mut piece = (message, self.pieces(role, index, message).end - 1);
            let mut latency = self.network.one_way_seconds();
            while let Some(flight) = self.flight(piece) {
                let m = &self.program.messages[piece.0];
                add(m.layer, Seconds { latency, bandwidth: self.bandwidth(piece), ..Seconds::default() });
                latency = 0.0;
                match flight.behind {
                    Some(before) => piece = before,
                    None => {
                        (role, left) = (m.from, flight.send + 1);
                        break;
                    }
                }
            }
        }
        PhasePrediction { path, layers, busy: self.busy }
    }
}
