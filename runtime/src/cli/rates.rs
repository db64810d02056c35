//! Rates of this machine.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};

use bcc_ir::time::Kind;
use bcc_runtime::kernels;
use bcc_runtime::rates::measure;
use indicatif::ProgressBar;
use miette::{Context, IntoDiagnostic, Result};

use super::args::Rates;
use super::data::say;

/// What kernels take more in a session, above which other programs were at work: three times what quiet minutes gave.
const BUSY: f64 = 0.9;

/// `bcr rates`.
pub fn rates(a: &Rates) -> Result<()> {
    let failed = || format!("cannot write {}", a.output.display());
    // Opened first: a file that cannot be written must not cost the measurement.
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(&a.output);
    let mut file = file.into_diagnostic().wrap_err_with(failed)?;
    // Measured on the pool's only thread, as a party's own is one of its pool. The other end of a link has another.
    let pool = || rayon::ThreadPoolBuilder::new().num_threads(1);
    pool().build_global().into_diagnostic()?;
    let pool = pool().build().into_diagnostic()?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let shown = bar.clone();
    let measured = pool.install(|| {
        measure(kernels::best(), &mut |done, steps| {
            shown.set_length(steps as u64);
            shown.set_position(done as u64);
        })
    });
    bar.finish_and_clear();
    let rates = measured.into_diagnostic()?;
    let text = rates.to_ron().into_diagnostic()?;
    file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).into_diagnostic().wrap_err_with(failed)?;
    if rates.measured.session_part > BUSY {
        let part = 100.0 * rates.measured.session_part;
        eprintln!(
            "bcr: in a session kernels took {part:.0} % more, so other programs were at work; what these rates predict is too \
             long: measure again in a quiet minute"
        );
    }
    if a.json {
        return say(&(serde_json::to_string_pretty(&rates).into_diagnostic()? + "\n"));
    }
    let m = &rates.measured;
    let mut text = format!("{}, {} kernels, worth {} cores -> {}\n", m.machine, m.kernels, m.cores, a.output.display());
    text += &format!("in a session kernels take {:.0} % more\n", 100.0 * m.session_part);
    for (kind, r) in Kind::ALL.into_iter().filter_map(|k| rates.rates.get(&k).map(|r| (k, r))) {
        text += &format!("{:16} {:9.0} ns a call {:9.4} ns a unit\n", kind.name(), r.call_ns, r.unit_ns);
    }
    let l = rates.loopback;
    text += &format!("loopback         {:9.1} us rtt    {:9.0} MB/s\n", 1e6 * l.rtt_seconds, l.bytes_per_second / 1e6);
    say(&text)
}
