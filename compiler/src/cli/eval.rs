//! `bcc eval`.

use bcc_compiler::data::Source;
use bcc_compiler::eval::{EvalOptions, evaluate};
use bcc_compiler::reference::{Owner, Reference};
use bcc_ir::program::file::{PROGRAM_FILE, WEIGHTS_FILE, Weights, load_program};
use miette::{IntoDiagnostic, Result, WrapErr, bail};

use super::args::EvalArgs;
use super::progress::Bar;
use super::{say, say_json};

pub(super) fn eval(args: &EvalArgs) -> Result<()> {
    if args.count == Some(0) {
        bail!("--count 0: at least one image is needed");
    }
    if let Some(n) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(n).build_global().into_diagnostic().wrap_err("--threads")?;
    }
    let loaded = load_program(&args.directory.join(PROGRAM_FILE)).into_diagnostic()?;
    let weights =
        Weights::load(&args.directory.join(WEIGHTS_FILE), &loaded.program, loaded.digest).into_diagnostic()?;
    let owner = Owner::of(&loaded.program, loaded.digest, &weights).into_diagnostic()?;
    let reference = Reference::load(&args.directory, owner).into_diagnostic()?;
    let source = Source {
        path: args.data.clone(),
        labels: args.labels.clone(),
        preprocess: args.preprocess.clone(),
        count: args.count,
    };
    let data = source.load(&loaded.program.input.shape).into_diagnostic()?;
    let options = EvalOptions {
        secure: args.secure,
        layers: args.layers,
        ignore: args.ignore_label.clone(),
        offset: args.label_offset,
    };
    let bar = Bar::new();
    let evaluation = evaluate(&loaded.program, &weights, &reference, &data, &options, &bar);
    bar.clear();
    let evaluation = evaluation.into_diagnostic()?;
    if args.json { say_json(&evaluation) } else { say(&evaluation.table()) }
}
