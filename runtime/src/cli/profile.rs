//! What a party's process did, for the process that started it. The other parties do not learn it.

use std::path::{Path, PathBuf};

use bcc_ir::program::{Phase, Role};
use bcc_runtime::exec::Meter;
use miette::{IntoDiagnostic, Result, WrapErr};
use serde::{Deserialize, Serialize};

/// One session of a process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Seconds of computing, by phase and layer.
    pub busy: [Vec<f64>; 3],
    /// Most memory that the process had so far, in bytes, where the system says so.
    pub peak_bytes: Option<u64>,
}

impl Profile {
    /// Of this process.
    pub fn new(meter: &Meter) -> Profile {
        Profile { busy: Phase::ALL.map(|p| meter.layers(p).to_vec()), peak_bytes: peak_bytes() }
    }

    /// Where a role's profile is.
    pub fn path(directory: &Path, role: Role) -> PathBuf {
        directory.join(format!("{role}.json"))
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Profile> {
        let failed = || format!("cannot read the profile {}", path.display());
        let bytes = std::fs::read(path).into_diagnostic().wrap_err_with(failed)?;
        serde_json::from_slice(&bytes).into_diagnostic().wrap_err_with(failed)
    }

    /// Writes a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).into_diagnostic()?;
        let failed = || format!("cannot write the profile {}", path.display());
        std::fs::write(path, text).into_diagnostic().wrap_err_with(failed)
    }
}

/// The high-water mark of this process's resident memory: Linux keeps one.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| 1024 * kb)
}
