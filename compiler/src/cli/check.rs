//! `bcc check`.

use std::process::ExitCode;

use bcc_compiler::check;
use miette::Result;

use super::args::CheckArgs;
use super::{say, say_json};

pub(super) fn check(args: &CheckArgs) -> Result<ExitCode> {
    let options = args.file.options()?;
    let result = check::check(&args.file.model, &options);
    if args.json {
        say_json(&result)?;
    } else {
        say(&result.text(&args.file.model.display().to_string()))?;
    }
    Ok(if result.covered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
