//! Real processes over TCP when things go wrong: everybody ends soon, with an error that says who
//! or what it was.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bcc_ir::program::{BlockMap, Role, file};
use common::{integers, relu_program, small_network};
use ndarray::{Array2, ArrayD};
use ndarray_npy::{read_npy, write_npy};

/// Nothing here may take longer.
const LIMIT: Duration = Duration::from_secs(10);

fn inputs(path: &Path, count: usize) {
    let len = small_network().0.input.shape[1];
    let x: Vec<f32> = integers(3, count * len, 500).iter().map(|v| *v as f32).collect();
    write_npy(path, &Array2::from_shape_vec((count, len), x).unwrap()).unwrap();
}

/// A directory with the model and `x.npy` of `count` inputs.
fn model(count: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (program, weights) = small_network();
    file::save(dir.path(), &program, &weights).unwrap();
    inputs(&dir.path().join("x.npy"), count);
    dir
}

/// A process, killed when dropped.
struct Process {
    child: Child,
    output: Option<[JoinHandle<String>; 2]>,
    address: String,
    started: Instant,
}

struct Ended {
    code: Option<i32>,
    out: String,
    /// Without the line breaks and bars of the error's layout.
    err: String,
}

fn drain(pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    let mut pipe = pipe;
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Process {
    fn start(dir: &Path, args: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bcr"));
        command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let err = drain(child.stderr.take().unwrap());
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut address = String::new();
        if args.contains(&"--announce") {
            out.read_line(&mut address).unwrap();
        }
        let output = Some([drain(out), err]);
        Process { child, output, address: address.trim().into(), started: Instant::now() }
    }

    /// Starts a party that listens. It waits 3 s for peers and as long for the first connection.
    fn serve(dir: &Path, role: &str, more: &[&str]) -> Process {
        let mut args = vec![role, ".", "--listen", "127.0.0.1:0", "--announce"];
        for (option, default) in [("--timeout", "3"), ("--wait", "3")] {
            if !more.contains(&option) {
                args.extend([option, default]);
            }
        }
        args.extend(more);
        let process = Process::start(dir, &args);
        assert!(!process.address.is_empty(), "{}", process.end().err);
        process
    }

    fn client(dir: &Path, server: &str, dealer: &str, more: &[&str]) -> Process {
        let mut args = vec!["client", ".", "--server", server, "--dealer", dealer, "--input", "x.npy"];
        if !more.contains(&"--timeout") {
            args.extend(["--timeout", "3"]);
        }
        args.extend(more);
        Process::start(dir, &args)
    }

    fn end(mut self) -> Ended {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it hangs, {:?} after its start", self.started.elapsed());
            thread::sleep(Duration::from_millis(5));
        };
        let [out, err] = self.output.take().unwrap().map(|t| t.join().unwrap());
        let err = err.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!err.contains("panicked"), "{err}");
        Ended { code: status.code(), out, err }
    }

    /// Ends with an error that has all of these words.
    fn fails(self, words: &[&str], context: &str) {
        let ended = self.end();
        assert_eq!(ended.code, Some(1), "{context}: {}", ended.err);
        for word in words {
            assert!(ended.err.contains(word), "{context}: no '{word}' in: {}", ended.err);
        }
    }

    fn succeeds(self) -> String {
        let ended = self.end();
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        ended.out
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[cfg(unix)]
    fn freeze(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Dealer, server, client, by role; the session would take many seconds.
fn session(dir: &Path, more: &[&str]) -> [Process; 3] {
    let dealer = Process::serve(dir, "dealer", more);
    let server = Process::serve(dir, "server", &[&["--dealer", &dealer.address], more].concat());
    // A client waits for nobody to connect.
    let wait = more.iter().position(|m| *m == "--wait").unwrap_or(more.len());
    let client = Process::client(dir, &server.address, &dealer.address, &more[..wait]);
    [client, server, dealer]
}

fn end_all(processes: impl IntoIterator<Item = (Role, Process)>, victim: Role, context: &str) {
    for (role, process) in processes {
        process.fails(&[&victim.to_string()], &format!("the {role}, {context}"));
    }
}

/// Kills each party early (before it has connected, while it greets) and in the midst.
#[test]
fn a_killed_party_ends_the_others() {
    let dir = model(20_000);
    let kill = |victim: Role, after: u64| {
        let mut parties = session(dir.path(), &["--timeout", "6", "--wait", "6"]);
        thread::sleep(Duration::from_millis(after));
        parties[victim.index()].kill();
        let others = Role::ALL.into_iter().zip(parties).filter(|(r, _)| *r != victim);
        end_all(others, victim, &format!("{victim} killed after {after} ms"));
    };
    let kill = &kill;
    thread::scope(|scope| {
        for victim in Role::ALL {
            scope.spawn(move || {
                let random = integers(17 + victim as u64, 3, 500).into_iter().map(|v| v.unsigned_abs());
                [0, 3, 12, 30, 60].into_iter().chain(random).for_each(|after| kill(victim, after));
            });
        }
    });
}

#[test]
fn a_party_that_never_comes_is_named() {
    let dir = model(1);
    let timeouts = ["--timeout", "1", "--wait", "1"];
    // No client.
    let dealer = Process::serve(dir.path(), "dealer", &timeouts);
    let server = Process::serve(dir.path(), "server", &[&["--dealer", &dealer.address], &timeouts[..]].concat());
    end_all([(Role::Server, server), (Role::Dealer, dealer)], Role::Client, "no client");
    // No dealer.
    let mut dealer = Process::serve(dir.path(), "dealer", &timeouts);
    dealer.kill();
    let server = Process::serve(dir.path(), "server", &[&["--dealer", &dealer.address], &timeouts[..]].concat());
    let client = Process::client(dir.path(), &server.address, &dealer.address, &["--timeout", "1"]);
    client.fails(&["cannot connect to the dealer"], "no dealer");
    server.fails(&["the client"], "no dealer, so no client");
    // No server.
    let dealer = Process::serve(dir.path(), "dealer", &timeouts);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let client = Process::client(dir.path(), &nobody, &dealer.address, &["--timeout", "1"]);
    client.fails(&["cannot connect to the server"], "no server");
    dealer.fails(&["client or server"], "no server");
}

/// A process that hangs (here: is stopped) is given up by the others, on a slow network too.
#[cfg(unix)]
#[test]
fn a_frozen_party_ends_the_others() {
    let dir = model(20_000);
    let freeze = |victim: Role, network: &str| {
        let parties = session(dir.path(), &["--timeout", "1", "--network", network]);
        // Time enough to greet on a busy machine.
        thread::sleep(Duration::from_millis(800));
        parties[victim.index()].freeze();
        let mut others = Vec::new();
        let mut frozen = None;
        for (role, party) in Role::ALL.into_iter().zip(parties) {
            if role == victim { frozen = Some(party) } else { others.push((role, party)) }
        }
        end_all(others, victim, &format!("{victim} frozen, {network}"));
        drop(frozen);
    };
    let freeze = &freeze;
    thread::scope(|scope| {
        for network in ["loopback", "wan"] {
            scope.spawn(move || Role::ALL.into_iter().for_each(|victim| freeze(victim, network)));
        }
    });
}

#[cfg(target_os = "linux")]
mod children {
    use super::*;

    fn of(parent: u32) -> Vec<(u32, String)> {
        let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let pids = list.split_whitespace().map(|p| p.parse().unwrap());
        pids.map(|p| (p, fs::read_to_string(format!("/proc/{p}/cmdline")).unwrap_or_default())).collect()
    }

    /// Waits until both children are there.
    fn both(parent: u32) -> Vec<(u32, String)> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let children = of(parent);
            if children.len() == 2 && children.iter().all(|(_, c)| c.contains("--listen")) {
                return children;
            }
            assert!(Instant::now() < deadline, "{children:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn alive(pid: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !matches!(rest.trim_start().chars().next(), None | Some('Z')))
    }

    fn run(dir: &Path) -> Process {
        Process::start(dir, &["run", ".", "--input", "x.npy", "--timeout", "3"])
    }

    #[test]
    fn run_names_a_killed_child() {
        let dir = model(20_000);
        for role in ["dealer", "server"] {
            for after in [0, 40, 250] {
                let parent = run(dir.path());
                let children = both(parent.child.id());
                thread::sleep(Duration::from_millis(after));
                let (victim, _) = children.iter().find(|(_, c)| c.contains(role)).unwrap();
                assert!(Command::new("kill").args(["-KILL", &victim.to_string()]).status().unwrap().success());
                parent.fails(&[role], &format!("{role} killed after {after} ms"));
                assert!(children.iter().all(|(pid, _)| !alive(*pid)), "a child outlives its parent");
            }
        }
    }

    #[test]
    fn children_do_not_outlive_a_killed_run() {
        let dir = model(20_000);
        for after in [0, 200] {
            let mut parent = run(dir.path());
            let children = both(parent.child.id());
            thread::sleep(Duration::from_millis(after));
            parent.kill();
            let deadline = Instant::now() + LIMIT;
            while children.iter().any(|(pid, _)| alive(*pid)) {
                assert!(Instant::now() < deadline, "children of a killed run go on");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Another program of the same kind, with its weights.
fn other_model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let map = BlockMap { map: [4, 15], blocks: vec![[1, 1]] };
    file::save(dir.path(), &relu_program(20, 32, &map, [0, 20]), &[]).unwrap();
    inputs(&dir.path().join("x.npy"), 1);
    dir
}

#[test]
fn other_programs_and_weights_are_refused() {
    let (dir, other) = (model(1), other_model());
    for odd in Role::ALL {
        let at = |role| if role == odd { other.path() } else { dir.path() };
        let dealer = Process::serve(at(Role::Dealer), "dealer", &[]);
        let server = Process::serve(at(Role::Server), "server", &["--dealer", &dealer.address]);
        let client = Process::client(at(Role::Client), &server.address, &dealer.address, &[]);
        for (role, process) in [(Role::Client, client), (Role::Server, server), (Role::Dealer, dealer)] {
            // Whoever meets the odd one later may only see that it has gone.
            let late = role != odd && role != Role::Client;
            let word = if late { odd.to_string() } else { "program".into() };
            process.fails(&[&word], &format!("the {role}; the {odd} has another program"));
        }
    }
    fs::copy(other.path().join("weights.bcc"), dir.path().join("weights.bcc")).unwrap();
    let server = ["server", ".", "--listen", "127.0.0.1:0", "--dealer", "127.0.0.1:1"];
    Process::start(dir.path(), &server).fails(&["weights.bcc belongs to another program"], "weights of another model");
    Process::start(dir.path(), &["run", ".", "--input", "x.npy", "--in-memory"])
        .fails(&["weights.bcc belongs to another program"], "weights of another model");
    Process::start(dir.path(), &["run", ".", "--input", "x.npy"])
        .fails(&["the server", "weights.bcc belongs to another program"], "weights of another model");
}

#[test]
fn damaged_and_missing_files_are_refused() {
    let dir = model(1);
    let server = ["server", ".", "--listen", "127.0.0.1:0", "--dealer", "127.0.0.1:1", "--wait", "1"];
    let commands: [(&str, &[&str]); 5] = [
        ("program.bcc", &["dealer", ".", "--listen", "127.0.0.1:0", "--wait", "1"]),
        ("program.bcc", &["client", ".", "--server", "127.0.0.1:1", "--dealer", "127.0.0.1:1", "--input", "x.npy"]),
        ("program.bcc", &["run", ".", "--input", "x.npy"]),
        ("program.bcc", &server),
        ("weights.bcc", &server),
    ];
    for (name, command) in commands {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        let mut damaged: Vec<Vec<u8>> =
            [0, 7, 40, 64, whole.len() / 2, whole.len() - 1].map(|n| whole[..n].into()).into();
        for at in
            integers(9, 8, whole.len() as i64).into_iter().map(|v| v.unsigned_abs() as usize).chain([3, 9, 18, 30])
        {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            damaged.push(flipped);
        }
        damaged.push([&whole[..], &[0]].concat());
        for (n, bytes) in damaged.into_iter().enumerate() {
            fs::write(&path, bytes).unwrap();
            Process::start(dir.path(), command).fails(&[name], &format!("{name}, damage {n}, {}", command[0]));
        }
        fs::remove_file(&path).unwrap();
        Process::start(dir.path(), command).fails(&["cannot read", name], &format!("{name} is missing"));
        fs::write(&path, whole).unwrap();
    }
    Process::start(dir.path(), &["run", ".", "--input", "x.npy"]).succeeds();
}

#[test]
fn inputs_that_cannot_be_used_are_refused() {
    let dir = model(1);
    let len = small_network().0.input.shape[1];
    let path = dir.path().join("bad.npy");
    let refused = |words: &[&str]| {
        let addresses = ["--server", "127.0.0.1:1", "--dealer", "127.0.0.1:1", "--timeout", "1"];
        for command in [&["run", "."][..], &["run", ".", "--in-memory"], &[&["client", "."][..], &addresses].concat()] {
            let what = format!("{command:?}");
            Process::start(dir.path(), &[command, &["--input", "bad.npy"]].concat()).fails(words, &what);
        }
    };
    let array = |values: &[f32]| write_npy(&path, &Array2::from_shape_vec((1, values.len()), values.to_vec()).unwrap());
    refused(&["cannot open bad.npy"]);
    for (value, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (-3e9, "beyond the bound")] {
        let mut x = vec![1.0; len];
        x[7] = value;
        array(&x).unwrap();
        refused(&["input 0: element [0, 7]", word]);
    }
    array(&vec![1.0; len + 1]).unwrap();
    refused(&[&format!("has shape [1, {}]", len + 1)]);
    write_npy(&path, &ArrayD::<f32>::zeros(vec![0, len])).unwrap();
    refused(&["has shape [0,"]);
    write_npy(&path, &ArrayD::<f32>::zeros(Vec::new())).unwrap();
    refused(&["has shape []"]);
    write_npy(&path, &Array2::<i32>::zeros((1, len))).unwrap();
    refused(&["cannot read bad.npy", "floats"]);
    fs::write(&path, b"").unwrap();
    refused(&["cannot read bad.npy"]);
    fs::write(&path, b"\x93NUMPY\x01\x00\xff\xff{'descr'").unwrap();
    refused(&["cannot read bad.npy"]);
    array(&vec![1.0; len]).unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    refused(&["cannot read bad.npy"]);
    // A header that announces more than any memory can hold.
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000000, 60), }";
    let header = format!("{text:<117}\n");
    fs::write(&path, [b"\x93NUMPY\x01\x00".as_slice(), &[header.len() as u8, 0], header.as_bytes()].concat()).unwrap();
    refused(&["cannot read bad.npy"]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused(&["bad.npy"]);
    let run = |more: &[&str], words: &[&str]| {
        Process::start(dir.path(), &[&["run", ".", "--input", "x.npy"], more].concat())
            .fails(words, &format!("{more:?}"));
    };
    run(&["--count", "2"], &["--count 2 of 1 inputs"]);
    run(&["--count", "0"], &["--count 0"]);
    for wrong in ["0", "-1", "nan", "1e18", "1e300"] {
        run(&[&format!("--timeout={wrong}")], &["no time to wait"]);
    }
}

#[test]
fn outputs_that_cannot_be_written_are_named() {
    let dir = model(1);
    for (option, file) in [("--output", "no/y.npy"), ("--stats", "no/s.json"), ("--output", ".")] {
        for memory in [&[][..], &["--in-memory"]] {
            let args = [&["run", ".", "--input", "x.npy", option, file], memory].concat();
            Process::start(dir.path(), &args).fails(&["cannot write", file], option);
        }
    }
}

#[test]
fn addresses_that_cannot_be_used_are_named() {
    let dir = model(1);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    Process::start(dir.path(), &["dealer", ".", "--listen", &address]).fails(&["cannot listen on", &address], "taken");
    Process::client(dir.path(), "127.0.0.1", "127.0.0.1:1", &["--timeout", "1"])
        .fails(&["cannot connect to the server at 127.0.0.1"], "no port");
    // Something else answers.
    let other = thread::spawn(move || {
        for stream in taken.incoming().take(2) {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.read(&mut [0; 16]);
        }
    });
    Process::client(dir.path(), &address, &address, &["--timeout", "2"])
        .fails(&["the server is no bcc party"], "a web server");
    other.join().unwrap();
}

/// Strangers on the port cost the session that they disturb, in bounded time, and no later one.
#[test]
fn strangers_on_the_port_are_turned_away() {
    let dir = model(2);
    let hello = [&0xffff_ff00u32.to_le_bytes()[..], &[0; 4], &120u64.to_le_bytes(), b"BCCRUN\r\n"].concat();
    let huge = [&0xffff_ff00u32.to_le_bytes()[..], &[0; 4], &u64::MAX.to_le_bytes()].concat();
    let says: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\n\r\n", "no bcc party"),
        (&[0xff; 4096], "no bcc party"),
        (&huge, "no bcc party"),
        (&hello, "in time"),
        (b"", "in time"),
        (b"BCC", "in time"),
    ];
    let timeouts = ["--timeout", "1", "--wait", "2"];
    let mut visited = Vec::new();
    for (bytes, word) in says {
        for role in ["dealer", "server"] {
            let more = if role == "server" { &["--dealer", "127.0.0.1:1"][..] } else { &[] };
            let party = Process::serve(dir.path(), role, &[&timeouts, more].concat());
            let mut stranger = TcpStream::connect(&party.address).unwrap();
            stranger.write_all(bytes).unwrap();
            visited.push((party, stranger, word, format!("{} bytes to the {role}", bytes.len())));
        }
    }
    for (party, _stranger, word, what) in visited {
        party.fails(&[word, "client"], &what);
    }
    // Leaves at once; and a session that it disturbed is followed by a good one.
    let dealer = Process::serve(dir.path(), "dealer", &["--sessions", "3"]);
    let server = Process::serve(dir.path(), "server", &["--dealer", &dealer.address, "--sessions", "3"]);
    for _ in 0..2 {
        for address in [&dealer.address, &server.address] {
            drop(TcpStream::connect(address).unwrap());
        }
    }
    let client = Process::client(dir.path(), &server.address, &dealer.address, &["--output", "y.npy"]);
    client.succeeds();
    server.succeeds();
    dealer.succeeds();
    let y: ArrayD<f32> = read_npy(dir.path().join("y.npy")).unwrap();
    assert_eq!(y.shape(), [2, 90]);
}

/// A byte now and then does not keep a party waiting beyond its time-out.
#[test]
fn a_dripping_stranger_times_out() {
    let dir = model(1);
    let dealer = Process::serve(dir.path(), "dealer", &["--timeout", "1"]);
    let mut stranger = TcpStream::connect(&dealer.address).unwrap();
    let hello = [&0xffff_ff00u32.to_le_bytes()[..], &[0; 4], &120u64.to_le_bytes(), &[0; 120]].concat();
    let drip = thread::spawn(move || {
        for byte in hello {
            if stranger.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(300));
        }
    });
    dealer.fails(&["in time"], "one byte every 0.3 s");
    drip.join().unwrap();
}

#[test]
fn json_has_the_documented_names() {
    let dir = model(3);
    let check = |text: &str, count: usize| {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(json["shape"], serde_json::json!([count, 90]));
        let outputs = json["outputs"].as_array().unwrap();
        assert!(outputs.len() == count && outputs.iter().all(|o| o.as_array().unwrap().len() == 90));
        stats(&json["stats"], count);
    };
    for memory in [&[][..], &["--in-memory"]] {
        let args = [&["run", ".", "--input", "x.npy", "--json", "--stats", "s.json", "--count", "2"], memory].concat();
        check(&Process::start(dir.path(), &args).succeeds(), 2);
        stats(&serde_json::from_slice(&fs::read(dir.path().join("s.json")).unwrap()).unwrap(), 2);
    }
    let [client, server, dealer] = session(dir.path(), &[]);
    client.succeeds();
    server.succeeds();
    dealer.succeeds();
    let dealer = Process::serve(dir.path(), "dealer", &[]);
    let server = Process::serve(dir.path(), "server", &["--dealer", &dealer.address]);
    check(&Process::client(dir.path(), &server.address, &dealer.address, &["--json"]).succeeds(), 3);
}

fn stats(stats: &serde_json::Value, count: usize) {
    let names = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(stats), ["batch", "inferences", "phases"]);
    assert_eq!(stats["batch"], 1);
    assert_eq!(stats["inferences"], count);
    let mut phases = names(&stats["phases"]);
    phases.sort();
    assert_eq!(phases, ["offline", "online", "setup"]);
    let t = bcc_ir::program::traffic::traffic(&small_network().0).unwrap().total;
    for (i, (phase, times)) in [("setup", 1), ("offline", count as u64), ("online", count as u64)].iter().enumerate() {
        let p = &stats["phases"][phase];
        assert!(p["seconds"].as_f64().unwrap() >= 0.0);
        assert_eq!(p["rounds"], t.rounds[i]);
        for (role, bytes) in ["client", "server", "dealer"].into_iter().zip(t.bytes[i]) {
            assert_eq!(p["bytes"][role], bytes * times, "{phase}, {role}");
        }
    }
}
