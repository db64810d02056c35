//! `bcc inspect`.

use bcc_compiler::predicted::Predicted;
use bcc_compiler::report::Report;
use bcc_ir::program::file::{PROGRAM_FILE, load_program};
use miette::{IntoDiagnostic, Result};

use super::args::InspectArgs;
use super::{say, say_json};

pub(super) fn inspect(args: &InspectArgs) -> Result<()> {
    let loaded = load_program(&args.directory.join(PROGRAM_FILE)).into_diagnostic()?;
    if args.listing {
        return say(&loaded.program.to_string());
    }
    let stuck = |e| miette::miette!("the program does not run: {e:?}");
    let mut report = Report::new(&loaded.program).map_err(stuck)?;
    if args.time.network.is_some() {
        let (rates, network) = args.time.read("loopback")?;
        report.predicted = Some(Predicted::new(&loaded.program, &rates, network).map_err(stuck)?);
    }
    if args.json {
        return say_json(&report);
    }
    say(&report.table())
}
