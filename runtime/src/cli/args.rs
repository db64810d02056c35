//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs a compiled program among three parties: a client with the input, a server with the
/// weights, a dealer of correlated randomness.
#[derive(Parser)]
#[command(name = "bcr", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run all three parties on this machine.
    Run(Run),
    /// Measure a compiled program: seconds, rounds, bytes, memory, and which layers take the time.
    Bench(Bench),
    /// Make offline material ahead.
    Prepare(Prepare),
    /// Be the client: send an input, get the output.
    Client(Client),
    /// Be the server: serve the model.
    Server(Server),
    /// Be the dealer: needs program.bcc only.
    Dealer(Dealer),
    /// Measure this machine, so that bcc inspect can predict times.
    Rates(Rates),
}

/// Options of every command.
#[derive(Args, Clone)]
pub struct Common {
    /// Directory with program.bcc (and, for the server, weights.bcc).
    pub dir: PathBuf,
    /// Seconds of silence after which a peer is given up; one that computes is not silent.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    pub timeout: f64,
    /// Directory that keeps the model's setup between sessions.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Threads for computing; all cores by default.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Impose a network on what this party, or each of all three, sends: loopback (nothing imposed), lan, wan, or a
    /// file.
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
}

/// Input and output.
#[derive(Args, Clone)]
pub struct Data {
    /// Input: .npy, or .npz with an array "x"; shape of the network's input, or N of them stacked. Or a .png or .jpg
    /// file, or a folder of them, with --preprocess.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// How pixels of image files become the network's input, in RON.
    #[arg(long, value_name = "FILE")]
    pub preprocess: Option<PathBuf>,
    /// Take only the first N inputs.
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
    /// Inferences that go on in lockstep: they share messages and cores, and take as much memory each.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Output: .npy, outputs stacked.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Traffic and times as JSON.
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
    /// Print outputs, traffic and times as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `bcr run`.
#[derive(Args)]
pub struct Run {
    /// Common options.
    #[command(flatten)]
    pub common: Common,
    /// Input and output.
    #[command(flatten)]
    pub data: Data,
    /// Three threads in this process instead of three processes on loopback TCP.
    #[arg(long, conflicts_with = "network")]
    pub in_memory: bool,
    /// Use offline material made by bcr prepare.
    #[arg(long, value_name = "DIR")]
    pub material: Option<PathBuf>,
    /// Directory for the profile of each process, for the process that started this one.
    #[arg(long, hide = true, conflicts_with = "in_memory")]
    pub profile: Option<PathBuf>,
}

/// `bcr bench`.
#[derive(Args)]
pub struct Bench {
    /// Common options.
    #[command(flatten)]
    pub common: Common,
    /// Input, as for bcr run; the first one is used, or as many as --batch says. Without it, pseudo-random numbers,
    /// always the same ones, over the range that the network was compiled for.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// How pixels of image files become the network's input, in RON.
    #[arg(long, value_name = "FILE", requires = "input")]
    pub preprocess: Option<PathBuf>,
    /// Inferences of a session, in lockstep.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Sessions, behind a first one that makes the setup.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Print the N layers that take most time.
    #[arg(long, default_value_t = 15, value_name = "N")]
    pub layers: usize,
    /// Rates that bcr rates measured, for predictions; those of one machine that this version knows if not given.
    #[arg(long, value_name = "FILE")]
    pub rates: Option<PathBuf>,
    /// Print all as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `bcr prepare`.
#[derive(Args)]
pub struct Prepare {
    /// Common options.
    #[command(flatten)]
    pub common: Common,
    /// Where the material goes.
    #[arg(long, value_name = "DIR")]
    pub material: PathBuf,
    /// For how many inferences.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub count: u32,
    /// Material that is made in lockstep: it shares messages and cores, and takes as much memory each. Inferences
    /// can use it in any batch.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// The server; without it all three parties run on this machine.
    #[arg(long, value_name = "HOST:PORT", requires = "dealer")]
    pub server: Option<String>,
    /// The dealer.
    #[arg(long, value_name = "HOST:PORT", requires = "server")]
    pub dealer: Option<String>,
}

/// `bcr client`.
#[derive(Args)]
pub struct Client {
    /// Common options.
    #[command(flatten)]
    pub common: Common,
    /// Input and output.
    #[command(flatten)]
    pub data: Data,
    /// The server.
    #[arg(long, value_name = "HOST:PORT")]
    pub server: String,
    /// The dealer.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "material")]
    pub dealer: Option<String>,
    /// Use offline material made by bcr prepare; the dealer is not needed then.
    #[arg(long, value_name = "DIR", conflicts_with = "dealer")]
    pub material: Option<PathBuf>,
}

/// How a party serves.
#[derive(Args, Clone)]
pub struct Serve {
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Sessions to serve before leaving; 0 for ever. A failed session ends the only one.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub sessions: u32,
    /// Seconds to wait for somebody to connect; without it, for ever.
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<f64>,
    /// Print the address on standard output, for the process that started this one.
    #[arg(long, hide = true)]
    pub announce: bool,
    /// File for the profile of each session, for the process that started this one.
    #[arg(long, hide = true)]
    pub profile: Option<PathBuf>,
}

/// `bcr server`.
#[derive(Args)]
pub struct Server {
    /// Common options.
    #[command(flatten)]
    pub common: Common,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
    /// The dealer.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "material")]
    pub dealer: Option<String>,
    /// Directory for offline material made ahead.
    #[arg(long, value_name = "DIR")]
    pub material: Option<PathBuf>,
}

/// `bcr dealer`.
#[derive(Args)]
pub struct Dealer {
    /// Common options.
    #[command(flatten)]
    pub common: Common,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// `bcr rates`.
#[derive(Args)]
pub struct Rates {
    /// Where the rates go, as RON.
    #[arg(short, long, default_value = "rates.ron", value_name = "FILE")]
    pub output: PathBuf,
    /// Print the rates as JSON.
    #[arg(long)]
    pub json: bool,
}
