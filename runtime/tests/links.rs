//! Who is waited for on a link, and for how long.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use bcc_ir::program::Role;
use bcc_runtime::channel::{Channels, Control, Hooks, accept, connect};

/// Nothing here may take longer.
const LIMIT: Duration = Duration::from_secs(10);

/// A party that computes for longer than the others' patience is not given up; one that is silent is.
#[test]
fn a_busy_party_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let patience = Duration::from_millis(700);
    let busy = thread::spawn(move || {
        let link = accept(&listener, None, LIMIT).unwrap();
        let mut server = Channels::new(Role::Server, [Some(Box::new(link)), None, None], LIMIT, Hooks::default());
        thread::sleep(3 * patience);
        server.send_control(Role::Client, Control::Ready, &[]).unwrap();
        // From here it is silent: a bare link shows no life.
        let bare = accept(&listener, None, LIMIT).unwrap();
        thread::sleep(3 * patience);
        drop(bare);
    });
    let client = |address: &str| {
        let link = connect(address, LIMIT).unwrap();
        Channels::new(Role::Client, [None, Some(Box::new(link)), None], patience, Hooks::default())
    };
    client(&address).receive_control(Role::Server, Control::Ready, 0).unwrap();
    let error = client(&address).receive_control(Role::Server, Control::Ready, 0).err().unwrap().to_string();
    assert!(error.contains("no message from the server for 0.7 s"), "{error}");
    busy.join().unwrap();
}

/// Whoever waits in vain for a party that itself waits learns whom that one waits for, whichever of the
/// two gives up first.
#[test]
fn a_chain_of_waiting_parties_names_its_end() {
    let pair = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = connect(&listener.local_addr().unwrap().to_string(), LIMIT).unwrap();
        (Box::new(accept(&listener, None, LIMIT).unwrap()), Box::new(there))
    };
    let ((to_server, server), (to_client, _hanging)) = (pair(), pair());
    let tenths = |s: u64| Duration::from_millis(s * 100);
    let mut dealer =
        Channels::new(Role::Dealer, [Some(to_client), Some(to_server), None], tenths(15), Hooks::default());
    let mut server = Channels::new(Role::Server, [None, None, Some(server)], tenths(10), Hooks::default());
    let dealer =
        thread::spawn(move || dealer.receive_control(Role::Client, Control::Done, 0).err().unwrap().to_string());
    let error = server.receive_control(Role::Dealer, Control::Ready, 0).err().unwrap().to_string();
    assert!(error.contains("no message from the dealer for 1 s"), "{error}");
    assert!(error.contains("the dealer itself waits for the client"), "{error}");
    let error = dealer.join().unwrap();
    assert!(error.contains("no message from the client for 1.5 s"), "{error}");
}
