//! `bcr`: runs a compiled program among three parties.

mod cli;

use clap::Parser;

fn main() -> miette::Result<()> {
    cli::main(cli::args::Cli::parse())
}
