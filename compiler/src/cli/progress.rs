//! Progress of planning on a terminal: the stage, how far it is, and the time that is left.

use std::io::IsTerminal;
use std::time::Duration;

use bcc_compiler::planner::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error, if that is a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Bar {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.enable_steady_tick(Duration::from_millis(120));
        Bar(bar)
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
    }
}

impl Progress for Bar {
    fn stage(&self, what: &str, steps: u64) {
        self.style(if steps == 0 {
            "{spinner} {msg} {elapsed}"
        } else {
            "{spinner} {msg} {bar:30} {pos}/{len}, {eta} left"
        });
        self.0.reset();
        self.0.set_length(steps);
        self.0.set_message(what.to_string());
    }

    fn done(&self, steps: u64) {
        self.0.inc(steps);
    }
}
