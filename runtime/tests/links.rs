//! Who is waited for on a link, and for how long.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use bcc_ir::program::Role;
use bcc_ir::time::Network;
use bcc_runtime::channel::{Channels, Control, Header, Hooks, Link, Shape, TcpLink, accept, connect};

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

/// Two ends of a link, of which the first one shapes what it sends and has `patience` for a peer that reads nothing.
fn shaped(bytes_per_second: f64, rtt_seconds: f64, patience: Duration) -> (TcpLink, TcpLink) {
    let network = Network { name: "net".into(), bytes_per_second, rtt_seconds, shared_cores: None };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = connect(&listener.local_addr().unwrap().to_string(), LIMIT).unwrap();
    let here = accept(&listener, None, patience).unwrap();
    (here.shaped(Some(Shape::new(&network).unwrap())).unwrap(), there)
}

/// A frame that takes longer than anybody's patience arrives, and none of those who wait gives up: neither its
/// receiver, nor the sender that waits for the answer and then for its own goodbye to be gone.
#[test]
fn frames_on_a_slow_link_are_waited_for() {
    let patience = Duration::from_millis(500);
    let (here, there) = shaped(5e4, 0.2, patience);
    let mut sender = Channels::new(Role::Server, [Some(Box::new(here)), None, None], patience, Hooks::default());
    let mut receiver = Channels::new(Role::Client, [None, Some(Box::new(there)), None], patience, Hooks::default());
    let start = Instant::now();
    let receiver = thread::spawn(move || {
        let frame = receiver.receive_control(Role::Server, Control::Material, 1 << 20).unwrap();
        let taken = start.elapsed();
        assert!(frame.bytes().iter().all(|b| *b == 7));
        receiver.send_control(Role::Server, Control::Ready, &[]).unwrap();
        let last = receiver.receive_control(Role::Server, Control::Goodbye, 1 << 20).unwrap();
        (taken, start.elapsed(), last.bytes().len())
    });
    sender.send_control(Role::Client, Control::Material, &[7; 60_000]).unwrap();
    sender.receive_control(Role::Client, Control::Ready, 0).unwrap();
    sender.send_control(Role::Client, Control::Goodbye, &[8; 40_000]).unwrap();
    sender.finish().unwrap();
    let (first, second, len) = receiver.join().unwrap();
    assert_eq!(len, 40_000);
    // 1.2 s and 0.8 s on the link, each with 0.1 s on the way.
    assert!(first >= Duration::from_millis(1300) && second >= Duration::from_millis(2200), "{first:?}, {second:?}");
}

/// What is held back is let go when its sender stops: the peer hears the reason at once.
#[test]
fn a_party_that_stops_holds_nothing_back() {
    let (here, mut there) = shaped(1e4, 0.0, LIMIT);
    let start = Instant::now();
    let mut sender = Channels::new(Role::Server, [Some(Box::new(here)), None, None], LIMIT, Hooks::default());
    sender.send_control(Role::Client, Control::Material, &[7; 500_000]).unwrap();
    let reader = thread::spawn(move || {
        there.header(LIMIT).unwrap();
        there.payload(500_000, LIMIT).unwrap();
        let mut receiver = Channels::new(Role::Client, [None, Some(Box::new(there)), None], LIMIT, Hooks::default());
        receiver.receive_control(Role::Server, Control::Ready, 0).err().unwrap().to_string()
    });
    thread::sleep(Duration::from_millis(300));
    sender.abort("it was told to");
    let error = reader.join().unwrap();
    assert!(error.contains("the server stopped: it was told to"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(8));
}

/// A peer that reads nothing for a while, as a slow link to a third party keeps it waiting, gets all of it later.
#[test]
fn a_peer_that_is_kept_from_reading_is_waited_for() {
    let (mut here, mut there) = shaped(1e9, 0.0, Duration::from_millis(200));
    let len = 50_000_000;
    here.send(vec![7; len]).unwrap();
    thread::sleep(Duration::from_millis(700));
    let reader = thread::spawn(move || {
        there.header(LIMIT).unwrap();
        there.payload(len - Header::BYTES, LIMIT).map(|p| p.bytes().len())
    });
    here.finish(LIMIT).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), len - Header::BYTES);
}
