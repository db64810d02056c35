//! `bcc check`.

use std::process::ExitCode;

use bcc_compiler::check;
use miette::Result;

use super::args::{CheckArgs, import_options};
use super::{say, say_json};

pub(super) fn check(args: &CheckArgs) -> Result<ExitCode> {
    let options = import_options(args.output_name.as_ref(), args.input_shape.as_ref())?;
    let result = check::check(&args.model, &options);
    if args.json {
        say_json(&result)?;
    } else {
        say(&result.text(&args.model.display().to_string()))?;
    }
    Ok(if result.covered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
