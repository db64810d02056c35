//! All three parties as threads of this process.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use bcc_ir::program::{Program, Role};
use rayon::ThreadPoolBuilder;

use super::{Endpoint, Job, Options, Output, Party, PartyOutput, SessionError, run_party};
use crate::channel::{Link, Shape, accept, connect, memory_pair};
use crate::exec::Meter;
use crate::keys::Secrets;
use crate::port::{Tensor, encode};
use crate::stats::Stats;
use crate::weights::WeightSource;

/// What the three threads talk over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Queues in memory.
    #[default]
    Memory,
    /// TCP on the loopback interface.
    Tcp,
}

/// How [`run_local`] runs.
#[derive(Clone, Default)]
pub struct LocalOptions {
    /// For every party. Directories of state and material get one entry per role; given secrets
    /// are ignored.
    pub party: Options,
    /// Digest of the program's file.
    pub digest: [u8; 32],
    /// Transport.
    pub transport: Transport,
    /// Seeds of the parties' secrets by role, for transcript tests.
    pub seeds: Option<[[u8; 32]; 3]>,
    /// Make that many pieces of offline material, and no inference.
    pub prepare: Option<u32>,
    /// Use stored offline material.
    pub stored: bool,
    /// Threads of a pool that each party has to itself, as in a process of its own; by default all share the global one.
    pub threads: Option<usize>,
}

/// What a run yields.
pub struct RunOutput {
    /// Outputs in the order of the inputs.
    pub outputs: Vec<Output>,
    /// Traffic and times.
    pub stats: Stats,
}

type Opener = Box<dyn FnOnce() -> Result<Box<dyn Link>, SessionError> + Send>;

/// Ends of the links client-server, client-dealer, server-dealer, each from the side that opens it
/// and the side that answers.
fn openers(
    transport: Transport,
    timeout: Duration,
    shape: Option<Shape>,
) -> Result<[(Opener, Opener); 3], SessionError> {
    let pairs = [(Role::Client, Role::Server), (Role::Client, Role::Dealer), (Role::Server, Role::Dealer)];
    let mut out = Vec::new();
    for (from, to) in pairs {
        let ends: (Opener, Opener) = match transport {
            Transport::Memory => {
                let (a, b) = memory_pair();
                (Box::new(move || Ok(Box::new(a))), Box::new(move || Ok(Box::new(b))))
            }
            Transport::Tcp => {
                let failed = move |source| SessionError::Accept { me: to, what: format!("the {from}"), source };
                let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?.to_string();
                let dial = move || -> Result<Box<dyn Link>, SessionError> {
                    let link = connect(&address, timeout).and_then(|link| link.shaped(shape));
                    let what = format!("the {to} at {address}");
                    Ok(Box::new(link.map_err(|source| SessionError::Connect { what, source })?))
                };
                let answer = move || -> Result<Box<dyn Link>, SessionError> {
                    let link = accept(&listener, Some(timeout), timeout).and_then(|link| link.shaped(shape));
                    Ok(Box::new(link.map_err(failed)?))
                };
                (Box::new(dial), Box::new(answer))
            }
        };
        out.push(ends);
    }
    out.try_into().map_err(|_| SessionError::Usage("three links"))
}

/// Runs inferences on `inputs` with all three parties in this process; `program` must have been
/// verified. If parties fail, the likeliest cause is returned.
pub fn run_local(
    program: &Program,
    weights: &dyn WeightSource,
    inputs: &[Tensor],
    options: &LocalOptions,
) -> Result<RunOutput, SessionError> {
    let results = run_local_all(program, weights, inputs, options)?;
    let mut client = None;
    let mut worst: Option<SessionError> = None;
    for (role, result) in Role::ALL.into_iter().zip(results) {
        match result {
            Ok(PartyOutput { unfinished: Some(e), .. }) => worst = Some(e),
            Ok(output) if role == Role::Client => client = Some(output),
            Ok(_) => {}
            Err(e) if worst.as_ref().is_none_or(|w| e.rank() > w.rank()) => worst = Some(e),
            Err(_) => {}
        }
    }
    match (client, worst) {
        (_, Some(e)) => Err(e),
        (Some(PartyOutput { outputs, stats, .. }), None) => Ok(RunOutput { outputs, stats }),
        (None, None) => Err(SessionError::Crashed(Role::Client)),
    }
}

/// Longer than any computation.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// As [`run_local`], with each party's own result, by role.
pub fn run_local_all(
    program: &Program,
    weights: &dyn WeightSource,
    inputs: &[Tensor],
    options: &LocalOptions,
) -> Result<[Result<PartyOutput, SessionError>; 3], SessionError> {
    for (number, x) in inputs.iter().enumerate() {
        // Before anybody waits for a client that gives up.
        encode(&program.input, x).map_err(|source| SessionError::Input { number, source })?;
    }
    let [cs, cd, sd] = openers(options.transport, options.party.timeout, options.party.shape)?;
    let out = |peer, open| Endpoint { peer: Some(peer), open };
    let inn = |open| Endpoint { peer: None, open };
    let client = vec![out(Role::Server, cs.0), out(Role::Dealer, cd.0)];
    let server = vec![inn(cs.1), out(Role::Dealer, sd.0)];
    let dealer = vec![inn(cd.1), inn(sd.1)];
    let mut endpoints = [client, server, dealer];
    if options.stored {
        endpoints[0].pop();
        endpoints[1].pop();
    }
    // Threads of one process do not get lost; only a test that drops messages may have to wait in vain.
    let lossless = options.transport == Transport::Memory && options.party.hooks.tamper.is_none();
    let timeout = if lossless { NEVER } else { options.party.timeout };
    let party_options = Role::ALL.map(|role| {
        let sub = |d: &Option<PathBuf>| d.as_ref().map(|d| d.join(role.to_string()));
        Options {
            timeout,
            state: sub(&options.party.state),
            material: sub(&options.party.material),
            secrets: options.seeds.map(|s| Secrets::insecure_from_seed(s[role.index()])),
            ..options.party.clone()
        }
    });
    let job = |role| match (role, options.prepare) {
        (Role::Client, Some(count)) => Job::Prepare { count },
        (Role::Client, None) => Job::Infer { inputs: inputs.to_vec(), stored: options.stored },
        _ => Job::Serve,
    };
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = Role::ALL
            .into_iter()
            .zip(endpoints)
            .map(|(role, endpoints)| {
                let party = Party {
                    role,
                    program,
                    digest: options.digest,
                    weights: (role == Role::Server).then_some(weights),
                    options: &party_options[role.index()],
                };
                let job = job(role);
                scope.spawn(move || {
                    if role == Role::Dealer && options.stored {
                        return Ok(PartyOutput {
                            outputs: Vec::new(),
                            stats: Stats::default(),
                            meter: Meter::default(),
                            unfinished: None,
                        });
                    }
                    // Of which this thread is one.
                    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build();
                    let pool =
                        options.threads.map(pool).transpose().map_err(|_| SessionError::Usage("a thread pool"))?;
                    let done = run_party(party, job, endpoints);
                    drop(pool);
                    done
                })
            })
            .collect();
        let crashed = |role| move |_| Err(SessionError::Crashed(role));
        let join = |(role, t): (Role, std::thread::ScopedJoinHandle<'_, _>)| t.join().unwrap_or_else(crashed(role));
        Role::ALL.into_iter().zip(threads).map(join).collect::<Vec<_>>()
    });
    results.try_into().map_err(|_| SessionError::Usage("three parties"))
}
