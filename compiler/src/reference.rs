//! `reference.bcc`: what a compiled network is compared with. It holds the network as imported, the float network with
//! its plan and correction, and the quantized one, so it holds the weights: it is for the server alone, as
//! `weights.bcc` is. No party needs it to run.

use std::fs;
use std::path::{Path, PathBuf};

use bcc_ir::graph::{Graph, Stage, Violations, verify};
use bcc_ir::program::Program;
use bcc_ir::program::file::{Digest, FileError, HEADER, frame, unframe};
use bcc_runtime::weights::{WeightSource, fingerprint};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Name of the file in an output directory.
pub const REFERENCE_FILE: &str = "reference.bcc";

const MAGIC: [u8; 8] = *b"BCCREFE\0";

/// Why there is nothing to compare with.
#[derive(Debug, Error)]
pub enum ReferenceError {
    /// It cannot be read or written.
    #[error("cannot {verb} {path}: {source}; `bcc compile` writes it beside the server's weights")]
    Io {
        /// "read" or "write".
        verb: &'static str,
        /// File.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// It is no such file, of another version or damaged.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content is no networks.
    #[error("{path} cannot be used: {reason}; compile the model again")]
    Content {
        /// File.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
    /// It belongs to another program, or to other weights.
    #[error("{path} belongs to other files than those beside it; compile the model again")]
    OtherFiles {
        /// File.
        path: PathBuf,
    },
}

/// What a compiled network is compared with.
pub struct Reference {
    /// The network as imported, with every ReLU.
    pub plain: Graph,
    /// In floats, with its plan and correction, pruned: what the secure result approximates.
    pub planned: Graph,
    /// Quantized.
    pub fixed: Graph,
}

/// What a reference belongs to: the digest of the program's file, and the fingerprint of the weights.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner([Digest; 2]);

impl Owner {
    /// The owner that consists of a program, of the given digest, and weights.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn of(program: &Program, digest: Digest, weights: &dyn WeightSource) -> Result<Owner, FileError> {
        Ok(Owner([digest, fingerprint(program, weights)?]))
    }
}

#[derive(Serialize)]
struct Written<'a> {
    owner: Owner,
    networks: [&'a Graph; 3],
}

#[derive(Deserialize)]
struct Read {
    owner: Owner,
    networks: [Graph; 3],
}

/// Writes the file; networks as in [`Reference`].
///
/// # Errors
/// What cannot be written.
pub fn save(
    directory: &Path,
    owner: Owner,
    plain: &Graph,
    planned: &Graph,
    fixed: &Graph,
) -> Result<(), ReferenceError> {
    let path = directory.join(REFERENCE_FILE);
    let body = postcard::to_stdvec(&Written { owner, networks: [plain, planned, fixed] });
    let body = body.map_err(|e| ReferenceError::Content { path: path.clone(), reason: e.to_string() })?;
    fs::write(&path, frame(MAGIC, body).0).map_err(|source| ReferenceError::Io { verb: "write", path, source })
}

impl Reference {
    /// Reads the file, which must belong to `owner`.
    ///
    /// # Errors
    /// What cannot be read, is damaged, or belongs to others.
    pub fn load(directory: &Path, owner: Owner) -> Result<Reference, ReferenceError> {
        let path = directory.join(REFERENCE_FILE);
        let file = fs::read(&path).map_err(|source| ReferenceError::Io { verb: "read", path: path.clone(), source })?;
        unframe(&path, "bcc reference file", MAGIC, &file)?;
        let content = |reason: String| ReferenceError::Content { path: path.clone(), reason };
        let read: Read = postcard::from_bytes(&file[HEADER..]).map_err(|e| content(e.to_string()))?;
        if read.owner != owner {
            return Err(ReferenceError::OtherFiles { path });
        }
        let [plain, planned, fixed] = read.networks;
        let broken = |e: Violations| content(e.to_string());
        verify(&plain, Stage::Imported).map_err(broken)?;
        verify(&planned, Stage::Canonical).map_err(broken)?;
        verify(&fixed, Stage::Quantized).map_err(broken)?;
        Ok(Reference { plain, planned, fixed })
    }
}
