//! One party's way through a session.

use std::time::{Duration, Instant};

use bcc_ir::program::{Pair, Phase, Role, Type};

use super::{Endpoint, Job, Output, Party, PartyOutput, SessionError};
use crate::channel::{Channels, Control, Link, frame, leave};
use crate::exec::{ExecError, Lane, Machine, pair_index};
use crate::handshake::{Greeter, Hello, Met, Mode};
use crate::keys::{Chain, Secrets};
use crate::port::{decode, encode, signed};
use crate::state::{self, Binding, SetupState};
use crate::stats::{Share, Stats};
use crate::store::{MaterialId, Store};
use crate::weights::fingerprint;

/// Names of material that the client offers at a time.
const OFFERED: usize = 64;
/// The dealer waits for the end of batches, which may take many messages.
const DEALER_PATIENCE: u32 = 20;
/// How long the dealer looks at one peer before it looks at the other, at first.
const GLANCE: Duration = Duration::from_millis(1);

/// Runs one party. Endpoints are opened in the given order; the server's to the client comes before
/// that to the dealer. The program must have been verified.
///
/// Every failure is told to the peers, which then fail too, naming this party and the reason.
pub fn run_party(party: Party<'_>, job: Job, endpoints: Vec<Endpoint<'_>>) -> Result<PartyOutput, SessionError> {
    let mut session = Session::new(party, job)?;
    let mut links = [None, None, None];
    let met = session.greet(endpoints, &mut links);
    let options = party.options;
    let mut channels = Channels::new(party.role, links, options.timeout, options.hooks.clone());
    let result = met.and_then(|met| session.run(met, &mut channels));
    if let Err(e) = &result
        && !e.killed()
    {
        channels.abort(&e.to_string());
    }
    result
}

struct Session<'a> {
    party: Party<'a>,
    secrets: Secrets,
    mode: Mode,
    count: u32,
    batch: u32,
    offered: u8,
    inputs: Vec<crate::words::Words>,
    binding: Binding,
    state: Option<SetupState>,
    store: Option<Store>,
    machine: Machine<'a>,
    seconds: [f64; 3],
    /// Dealer: batches that each peer has ended.
    ended: [u32; 3],
}

impl<'a> Session<'a> {
    fn new(party: Party<'a>, job: Job) -> Result<Self, SessionError> {
        let (role, program, options) = (party.role, party.program, party.options);
        let mut inputs = Vec::new();
        let (mode, count) = match &job {
            Job::Infer { inputs: given, stored } => {
                for (number, x) in given.iter().enumerate() {
                    let x = encode(&program.input, x).map_err(|source| SessionError::Input { number, source })?;
                    inputs.push(x);
                }
                (if *stored { Mode::Stored } else { Mode::Stream }, given.len() as u32)
            }
            Job::Prepare { count } => (Mode::Prepare, *count),
            Job::Serve => (Mode::Stream, 0),
        };
        if matches!(job, Job::Serve) == (role == Role::Client) {
            return Err(SessionError::Usage("the client infers or prepares, server and dealer serve"));
        }
        if (role == Role::Server) != party.weights.is_some() {
            return Err(SessionError::Usage("the server, and nobody else, has the weights"));
        }
        let keeps = options.state.is_some() || options.material.is_some();
        let weights = match party.weights {
            Some(w) if keeps => fingerprint(program, w).map_err(ExecError::from)?,
            _ => [0; 32],
        };
        let binding = Binding { digest: party.digest, weights };
        let machine = Machine::new(program, role, options.kernels, party.weights, options.observer.clone());
        let state = match &options.state {
            Some(directory) => state::load(directory, role, binding, machine.plan().received.len())?,
            None => None,
        };
        let store = match &options.material {
            Some(directory) if role != Role::Dealer => Some(Store::open(directory, role, binding)?),
            _ => None,
        };
        if mode != Mode::Stream && store.is_none() {
            return Err(SessionError::NoStore(role));
        }
        let secrets = match &options.secrets {
            Some(given) => given.clone(),
            None => Secrets::random().map_err(SessionError::Randomness)?,
        };
        let offered = mode as u8;
        Ok(Session {
            party,
            secrets,
            mode,
            count,
            batch: u32::from(options.batch.max(1)),
            offered,
            inputs,
            binding,
            state,
            store,
            machine,
            seconds: [0.0; 3],
            ended: [0; 3],
        })
    }

    /// Opens all links and greets on them.
    fn greet(
        &mut self,
        endpoints: Vec<Endpoint<'_>>,
        links: &mut [Option<Box<dyn Link>>; 3],
    ) -> Result<[Option<Met>; 3], SessionError> {
        let role = self.party.role;
        if role != Role::Client {
            let dealer = role == Role::Dealer || endpoints.iter().any(|e| e.peer == Some(Role::Dealer));
            let stored = role == Role::Dealer || self.store.is_some();
            self.offered = if dealer { Mode::Stream as u8 } else { 0 };
            self.offered |= if dealer && stored { Mode::Prepare as u8 } else { 0 };
            self.offered |= if role == Role::Server && stored { Mode::Stored as u8 } else { 0 };
        }
        let mut hello = Hello::new(role, self.offered, self.count, self.party.digest);
        hello.batch = self.batch as u16;
        hello.setup = self.state.as_ref().map_or([0; 16], |s| s.id);
        if role == Role::Server {
            hello.fresh_setup = self.secrets.setup_id();
        }
        let greeter = Greeter { hello, secrets: &self.secrets, timeout: self.party.options.timeout };

        let mut met = [None, None, None];
        // The client opens all its connections first, so that everybody sees when it gives up.
        let mut opened: Vec<(Option<Role>, Box<dyn Link>)> = Vec::new();
        let mut unopened = endpoints.into_iter();
        if role == Role::Client {
            for endpoint in unopened.by_ref() {
                match (endpoint.open)() {
                    Ok(link) => opened.push((endpoint.peer, link)),
                    Err(e) => {
                        leave(opened.iter_mut().map(|(_, link)| link), &frame::abort(&e.to_string()));
                        return Err(e);
                    }
                }
            }
        }
        let mut opened = opened.into_iter();
        loop {
            let (peer, mut link) = match opened.next() {
                Some(next) => next,
                None => {
                    let Some(endpoint) = unopened.next() else { break };
                    let unneeded = self.mode == Mode::Stored && endpoint.peer == Some(Role::Dealer);
                    if role == Role::Server && unneeded {
                        continue;
                    }
                    (endpoint.peer, (endpoint.open)()?)
                }
            };
            let result = match peer {
                Some(peer) => greeter.open(&mut *link, peer),
                None => {
                    let expected: Vec<Role> =
                        Role::ALL.into_iter().filter(|r| *r < role && met[r.index()].is_none()).collect();
                    greeter.answer(&mut *link, &expected)
                }
            };
            let new = match result {
                Ok(new) => new,
                Err(e) => {
                    let mut rest: Vec<_> = opened.map(|(_, link)| link).collect();
                    leave(rest.iter_mut(), &frame::abort(&e.to_string()));
                    // The other side has our greeting and may still be reading it.
                    let _ = link.finish(Duration::from_millis(500));
                    return Err(e.into());
                }
            };
            if role != Role::Client && new.hello.role == Role::Client {
                self.mode = new.hello.mode().unwrap_or(self.mode);
                self.count = new.hello.count;
                self.batch = new.hello.batch.into();
            }
            let peer = new.hello.role.index();
            links[peer] = Some(link);
            met[peer] = Some(new);
        }
        Ok(met)
    }

    fn run(&mut self, met: [Option<Met>; 3], channels: &mut Channels) -> Result<PartyOutput, SessionError> {
        let role = self.party.role;
        let mut outputs = Vec::new();
        let mut chains: [Option<Chain>; 2] = [None, None];
        if self.mode != Mode::Stored {
            for pair in [Pair::ClientDealer, Pair::ServerDealer] {
                let peer = if role == Role::Dealer { other(pair) } else { Role::Dealer };
                if pair.holds(role) {
                    chains[pair_index(pair)] = met[peer.index()].as_ref().map(|m| m.secret.chain());
                }
            }
            self.setup(&met, channels)?;
        }
        for batch in 0..self.count.div_ceil(self.batch) {
            let first = batch * self.batch;
            let inferences = first..self.count.min(first + self.batch);
            if self.mode == Mode::Stored {
                let lanes = inferences.clone().map(|i| self.stored(i, channels)).collect::<Result<_, _>>()?;
                self.machine.begin(lanes);
                ready(role, channels, self.party.options.timeout)?;
            } else {
                if role == Role::Dealer && batch >= self.party.options.run_ahead.max(1) {
                    self.wait_for_ends(batch + 1 - self.party.options.run_ahead.max(1), channels)?;
                }
                let mut keys = || chains.each_mut().map(|chain| chain.as_mut().map(Chain::advance));
                let lanes = inferences.clone().map(|i| self.machine.lane(i, keys())).collect();
                self.machine.begin(lanes);
                self.offline(first, channels)?;
            }
            if self.mode == Mode::Prepare {
                self.store(&met)?;
            } else {
                outputs.extend(self.online(first, channels)?);
            }
            if self.mode != Mode::Stored && role != Role::Dealer {
                channels.send_control(Role::Dealer, Control::Done, &[])?;
            }
            self.progress(inferences.end);
        }
        if role == Role::Dealer {
            self.wait_for_ends(self.count.div_ceil(self.batch), channels)?;
        }
        let farewell = self.farewell(channels);
        let meter = self.machine.meter().clone();
        match farewell {
            Ok(stats) => Ok(PartyOutput { outputs, stats, meter, unfinished: None }),
            Err(e) if !outputs.is_empty() => {
                let stats = Stats::merge(self.count, self.batch, &self.own_share(channels));
                Ok(PartyOutput { outputs, stats, meter, unfinished: Some(e) })
            }
            Err(e) => Err(e),
        }
    }

    fn progress(&self, done: u32) {
        if let Some(progress) = &self.party.options.progress {
            progress(done);
        }
    }

    /// Makes the setup, or takes it from the state if all three hold the same one.
    fn setup(&mut self, met: &[Option<Met>; 3], channels: &mut Channels) -> Result<(), SessionError> {
        let (role, options) = (self.party.role, self.party.options);
        let start = Instant::now();
        let stored = self.state.take().filter(|s| met.iter().flatten().all(|m| m.hello.setup == s.id));
        if let Some(stored) = stored {
            let keys = stored.keys.clone();
            let types = types(self.party, &self.machine.plan().received);
            let received = stored.received(&types, self.machine.width());
            self.machine.resume(received.map(|b| b.map_err(SessionError::from)), &keys)?;
            self.reserve();
            begin_together(channels, options.timeout)?;
            self.seconds[Phase::Setup.index()] = start.elapsed().as_secs_f64();
            return Ok(());
        }
        let mut keys = [None, None];
        for pair in [Pair::ClientDealer, Pair::ServerDealer] {
            let peer = if role == Role::Dealer { other(pair) } else { Role::Dealer };
            if pair.holds(role) {
                keys[pair_index(pair)] = met[peer.index()].as_ref().map(|m| m.secret.model_key());
            }
        }
        channels.begin(Phase::Setup, 0);
        self.machine.setup(&keys, channels)?;
        self.seconds[Phase::Setup.index()] = start.elapsed().as_secs_f64();
        if let Some(directory) = &options.state {
            let id = match &met[Role::Server.index()] {
                Some(server) => server.hello.fresh_setup,
                None => self.secrets.setup_id(),
            };
            state::save(directory, role, self.binding, id, &keys, &self.machine.received())?;
        }
        let start = Instant::now();
        self.machine.settle();
        self.reserve();
        begin_together(channels, options.timeout)?;
        self.seconds[Phase::Setup.index()] += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Takes the memory of a batch.
    fn reserve(&self) {
        let phases = if self.mode == Mode::Prepare { &[Phase::Offline][..] } else { &[Phase::Offline, Phase::Online] };
        self.machine.reserve(phases, self.batch.min(self.count) as usize);
    }

    fn offline(&mut self, first: u32, channels: &mut Channels) -> Result<(), SessionError> {
        let start = Instant::now();
        channels.begin(Phase::Offline, first);
        self.machine.run(Phase::Offline, channels)?;
        ready(self.party.role, channels, self.party.options.timeout)?;
        self.seconds[Phase::Offline.index()] += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// The outputs of the inferences at work, at the client.
    fn online(&mut self, first: u32, channels: &mut Channels) -> Result<Vec<Output>, SessionError> {
        let start = Instant::now();
        channels.begin(Phase::Online, first);
        for lane in self.machine.lanes() {
            lane.input = self.inputs.get_mut(lane.inference as usize).map(std::mem::take);
        }
        self.machine.run(Phase::Online, channels)?;
        let program = self.party.program;
        let output = |values: Vec<u64>| {
            let integers = signed(&program.output, values);
            Output { value: decode(&program.output, &program.epilogue, &integers), integers }
        };
        let outputs = self.machine.lanes().iter_mut().filter_map(|lane| lane.output.take()).map(output).collect();
        self.seconds[Phase::Online.index()] += start.elapsed().as_secs_f64();
        Ok(outputs)
    }

    /// Stores the material of the inferences at work, each by itself.
    fn store(&mut self, met: &[Option<Met>; 3]) -> Result<(), SessionError> {
        let Some(store) = &self.store else { return Ok(()) };
        let other = met.iter().zip(Role::ALL).find(|(m, r)| *r != Role::Dealer && m.is_some());
        let Some((Some(other), _)) = other else { return Ok(()) };
        for number in 0..self.machine.lanes().len() {
            let material = self.machine.take_carried(number)?;
            let lane = &self.machine.lanes()[number];
            store.save(&other.secret.material_id(lane.inference), &lane.keys, &material)?;
        }
        Ok(())
    }

    /// A lane of stored material: the client names what it has, the server chooses. Each
    /// takes its piece out of its store before it goes on.
    fn stored(&mut self, i: u32, channels: &mut Channels) -> Result<Lane, SessionError> {
        let role = self.party.role;
        let store = self.store.as_ref().ok_or(SessionError::NoStore(role))?;
        let carried = types(self.party, &self.machine.plan().carried);
        let material = if role == Role::Client {
            let mut ids = store.list()?;
            ids.truncate(OFFERED);
            channels.send_control(Role::Server, Control::Material, &ids.concat())?;
            let answer = channels.receive_control(Role::Server, Control::Material, 16)?;
            let id = ids.iter().find(|id| id.as_slice() == answer.bytes());
            let id = id.ok_or(SessionError::NoMaterial { client: ids.len() })?;
            store.take(id, &carried, self.machine.width())?
        } else {
            let names = channels.receive_control(Role::Client, Control::Material, OFFERED * 16)?;
            let ids: &[MaterialId] = names.bytes().as_chunks().0;
            let Some(id) = ids.iter().find(|id| store.has(id)) else {
                channels.send_control(Role::Client, Control::Material, &[])?;
                return Err(SessionError::NoMaterial { client: ids.len() });
            };
            let material = store.take(id, &carried, self.machine.width())?;
            channels.send_control(Role::Client, Control::Material, id)?;
            material
        };
        Ok(self.machine.restore(material.carried, i, material.keys)?)
    }

    /// Dealer: waits until client and server have ended `count` batches. It listens to both, so
    /// that it hears from either when the other is gone.
    fn wait_for_ends(&mut self, count: u32, channels: &mut Channels) -> Result<(), SessionError> {
        let patience = self.party.options.timeout * DEALER_PATIENCE;
        let (mut deadline, mut glance) = (Instant::now() + patience, GLANCE);
        while let Some(late) = [Role::Client, Role::Server].into_iter().find(|r| self.ended[r.index()] < count) {
            let before = self.ended;
            // Not the other one, which may itself be waiting for the dealer.
            channels.show_waiting(Some(late));
            for peer in [Role::Client, Role::Server] {
                let through = self.ended[peer.index()] == self.count.div_ceil(self.batch);
                match channels.next_index(peer, glance)? {
                    None => {}
                    Some(index) if through && index == Control::Goodbye as u32 => {}
                    Some(_) => {
                        channels.receive_control(peer, Control::Done, 0)?;
                        self.ended[peer.index()] += 1;
                    }
                }
            }
            if self.ended != before {
                (deadline, glance) = (Instant::now() + patience, GLANCE);
            } else if Instant::now() < deadline {
                glance = (2 * glance).min(16 * GLANCE);
            } else {
                channels.receive_control(late, Control::Done, 0)?;
            }
        }
        channels.show_waiting(None);
        Ok(())
    }

    /// This party's counters, the others' empty.
    fn own_share(&self, channels: &Channels) -> [Share; 3] {
        let traffic = channels.traffic();
        let mut shares = [Share::default(); 3];
        shares[self.party.role.index()].phases = std::array::from_fn(|p| (self.seconds[p], traffic[p]));
        shares
    }

    /// Says goodbye, with this party's counters, and hears the others'.
    fn farewell(&mut self, channels: &mut Channels) -> Result<Stats, SessionError> {
        let role = self.party.role;
        let mut shares = self.own_share(channels);
        let peers = channels.peers();
        for peer in &peers {
            channels.send_control(*peer, Control::Goodbye, &shares[role.index()].bytes())?;
        }
        for peer in peers {
            let bytes = channels.receive_control(peer, Control::Goodbye, Share::BYTES)?;
            shares[peer.index()] = Share::parse(bytes.bytes()).ok_or(SessionError::Farewell(peer))?;
        }
        channels.finish()?;
        Ok(Stats::merge(self.count, self.batch, &shares))
    }
}

fn types(party: Party<'_>, buffers: &[u32]) -> Vec<Type> {
    let code = party.program.code(party.role);
    buffers.iter().map(|b| code.buffers[*b as usize]).collect()
}

/// The pair's party that is not the dealer.
fn other(pair: Pair) -> Role {
    match pair {
        Pair::ClientDealer => Role::Client,
        Pair::ServerDealer => Role::Server,
    }
}

/// All three wait for each other behind the setup, so that nobody's share of what follows is hidden in it, and whoever
/// loads for longest is not waited for there.
fn begin_together(channels: &mut Channels, timeout: Duration) -> Result<(), SessionError> {
    let peers = channels.peers();
    for peer in &peers {
        channels.send_control(*peer, Control::Ready, &[])?;
    }
    peers.into_iter().try_for_each(|peer| hear_ready(peer, channels, timeout))
}

/// Client and server wait for each other between phases, so that the time of a phase is its own.
/// The dealer does not wait. The peer may itself wait for somebody: it gets time to say so.
fn ready(role: Role, channels: &mut Channels, timeout: Duration) -> Result<(), SessionError> {
    let peer = match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
        Role::Dealer => return Ok(()),
    };
    channels.send_control(peer, Control::Ready, &[])?;
    hear_ready(peer, channels, timeout)
}

fn hear_ready(peer: Role, channels: &mut Channels, timeout: Duration) -> Result<(), SessionError> {
    channels.set_timeout(2 * timeout);
    channels.receive_control(peer, Control::Ready, 0)?;
    channels.set_timeout(timeout);
    Ok(())
}
