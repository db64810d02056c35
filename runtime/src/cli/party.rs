//! One party over TCP.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;

use bcc_ir::program::Role;
use bcc_runtime::channel::{Link, accept, connect};
use bcc_runtime::session::{Endpoint, Job, Options, Party, PartyOutput, SessionError, run_party};
use bcc_runtime::weights::WeightSource;
use miette::{IntoDiagnostic, Result, WrapErr};

use super::args::{Client, Common, Dealer, Prepare, Serve, Server};
use super::profile::Profile;
use super::{data, options, program, progress, report, seconds, warn, weights};

/// An endpoint that connects.
pub fn dial(peer: Role, address: &str, options: &Options) -> Endpoint<'static> {
    let (address, timeout, shape) = (address.to_string(), options.timeout, options.shape);
    let open = move || -> Result<Box<dyn Link>, SessionError> {
        let what = format!("the {peer} at {address}");
        let link = connect(&address, timeout).and_then(|link| link.shaped(shape));
        Ok(Box::new(link.map_err(|source| SessionError::Connect { what, source })?))
    };
    Endpoint { peer: Some(peer), open: Box::new(open) }
}

/// `bcr client`.
pub fn client(a: Client) -> Result<()> {
    let loaded = program(&a.common.dir)?;
    let mut options = Options { material: a.material.clone(), batch: a.data.batch, ..options(&a.common, true)? };
    let inputs = data::inputs(&a.data, &loaded.program.input)?;
    warn();
    let bar = progress(inputs.len(), &mut options);
    let mut endpoints = vec![dial(Role::Server, &a.server, &options)];
    endpoints.extend(a.dealer.as_ref().map(|d| dial(Role::Dealer, d, &options)));
    let party =
        Party { role: Role::Client, program: &loaded.program, digest: loaded.digest, weights: None, options: &options };
    let job = Job::Infer { inputs, stored: a.material.is_some() };
    let result = run_party(party, job, endpoints);
    bar.finish_and_clear();
    let PartyOutput { outputs, stats, unfinished, .. } = result.map_err(report)?;
    data::report(&a.data, &outputs, &stats, unfinished.map(report))
}

/// `bcr prepare` with a server and a dealer elsewhere.
pub fn prepare(a: &Prepare, server: &str, dealer: &str) -> Result<()> {
    let loaded = program(&a.common.dir)?;
    let mut options = Options { material: Some(a.material.clone()), batch: a.batch, ..options(&a.common, true)? };
    warn();
    let bar = progress(a.count as usize, &mut options);
    let endpoints = vec![dial(Role::Server, server, &options), dial(Role::Dealer, dealer, &options)];
    let party =
        Party { role: Role::Client, program: &loaded.program, digest: loaded.digest, weights: None, options: &options };
    let result = run_party(party, Job::Prepare { count: a.count }, endpoints);
    bar.finish_and_clear();
    data::say(&data::describe(&result.map_err(report)?.stats))?;
    Ok(())
}

/// `bcr server`.
pub fn server(a: Server) -> Result<()> {
    let loaded = program(&a.common.dir)?;
    let weights = weights(&a.common.dir, &loaded)?;
    let options = serving(&a.common, a.material.clone(), &a.serve)?;
    let party = Party {
        role: Role::Server,
        program: &loaded.program,
        digest: loaded.digest,
        weights: Some(&weights as &dyn WeightSource),
        options: &options,
    };
    serve(party, &a.serve, a.dealer.as_deref())
}

/// `bcr dealer`.
pub fn dealer(a: Dealer) -> Result<()> {
    let loaded = program(&a.common.dir)?;
    let options = serving(&a.common, None, &a.serve)?;
    let party =
        Party { role: Role::Dealer, program: &loaded.program, digest: loaded.digest, weights: None, options: &options };
    serve(party, &a.serve, None)
}

fn serving(common: &Common, material: Option<PathBuf>, serve: &Serve) -> Result<Options> {
    let options = Options { material, ..options(common, true)? };
    if !serve.announce {
        warn();
    }
    Ok(options)
}

fn serve(party: Party<'_>, serve: &Serve, dealer: Option<&str>) -> Result<()> {
    let failed = || format!("cannot listen on {}", serve.listen);
    let listener = TcpListener::bind(serve.listen).into_diagnostic().wrap_err_with(failed)?;
    let address = listener.local_addr().into_diagnostic()?;
    if serve.announce {
        println!("{address}");
        std::io::stdout().flush().into_diagnostic()?;
    } else {
        eprintln!("bcr: {} listens on {address}", party.role);
    }
    let mut done = 0;
    loop {
        let result = session(party, &listener, serve, dealer);
        done += 1;
        match result {
            Err(e) if serve.sessions == 1 => return Err(e),
            Err(e) => eprintln!("bcr: session failed: {e:?}"),
            Ok(()) => {}
        }
        if done == serve.sessions {
            return Ok(());
        }
    }
}

fn session(party: Party<'_>, listener: &TcpListener, serve: &Serve, dealer: Option<&str>) -> Result<()> {
    let (me, timeout, shape) = (party.role, party.options.timeout, party.options.shape);
    let first = serve.wait.map(seconds).transpose()?;
    let answer = |what: &'static str, wait| Endpoint {
        peer: None,
        open: Box::new(move || {
            let link = accept(listener, wait, timeout).and_then(|link| link.shaped(shape));
            let link = link.map_err(|source| SessionError::Accept { me, what: what.into(), source })?;
            Ok(Box::new(link) as Box<dyn Link>)
        }),
    };
    let mut endpoints = Vec::new();
    if me == Role::Server {
        endpoints.push(answer("the client", first));
        endpoints.extend(dealer.map(|d| dial(Role::Dealer, d, party.options)));
    } else {
        endpoints.push(answer("client or server", first));
        endpoints.push(answer("both client and server", Some(timeout)));
    }
    let done = run_party(party, Job::Serve, endpoints).map_err(report)?;
    serve.profile.as_ref().map_or(Ok(()), |path| Profile::new(&done.meter).save(path))
}
