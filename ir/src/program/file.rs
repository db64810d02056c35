//! The two files of a compiled network: the public program and the server's weights.
//!
//! Both start with a header of 64 bytes, little-endian: 8 bytes of magic, the version (u32), 4
//! bytes of zero, the length of the body (u64), the BLAKE3 digest of everything but the digest
//! itself (32 bytes), 8 bytes of zero. The program's body is a [`Program`] in postcard. The
//! weights' body is the digest of the program they belong to, padded to 64 bytes, and then every
//! entry of [`Program::weights`] in order, as little-endian signed integers of its width, padded to
//! a multiple of 64 bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use super::weights::{Weights, encode_weights};
use super::{Faults, Program, VERSION, verify};

/// Name of the program's file in an output directory.
pub const PROGRAM_FILE: &str = "program.bcc";
/// Name of the weights' file in an output directory.
pub const WEIGHTS_FILE: &str = "weights.bcc";

const PROGRAM_MAGIC: [u8; 8] = *b"BCCPROG\0";
/// Bytes of a file's header.
pub const HEADER: usize = 64;

/// BLAKE3 digest of a file: what the parties compare in their handshake.
pub type Digest = [u8; 32];

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// "read" or "write".
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} is no {what}: {reason}; compile the model again with bcc")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// How it shows.
        reason: String,
    },
    /// It was written by another version.
    #[error("{path} has format version {found}, this program reads version {VERSION}; compile the model again")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It was cut off or changed.
    #[error("{path} is damaged ({reason}); copy it again or compile the model again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The program breaks the rules.
    #[error("{path} holds a program that does not verify, so it is not run:\n{faults}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What it breaks.
        faults: Faults,
    },
    /// It was written to since it was checked.
    #[error("{path} was changed while it was in use; start again to use what it holds now")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The weights belong to another program.
    #[error("{path} belongs to another program; use the weights that were written together with the program")]
    OtherProgram {
        /// The weights file.
        path: PathBuf,
    },
    /// The program cannot be written.
    #[error("cannot encode the program: {0}")]
    Encode(#[from] postcard::Error),
    /// The weights do not fit the program.
    #[error("weight \"{name}\" does not fit its entry: {reason}")]
    Weight {
        /// The entry.
        name: String,
        /// What does not fit.
        reason: String,
    },
}

/// A verified program from a file.
#[derive(Debug)]
pub struct Loaded {
    /// The program.
    pub program: Program,
    /// Digest of its file.
    pub digest: Digest,
}

/// The digest of a file with that header, before its body is added.
pub(super) fn hasher(header: &[u8]) -> blake3::Hasher {
    let mut h = blake3::Hasher::new();
    h.update(&header[..24]);
    h
}

/// A file of `body` behind a header with `magic`, and its digest.
pub fn frame(magic: [u8; 8], body: Vec<u8>) -> (Vec<u8>, Digest) {
    let mut file = Vec::with_capacity(HEADER + body.len());
    file.extend_from_slice(&magic);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let digest: Digest = *hasher(&file).update(&body).finalize().as_bytes();
    file.extend_from_slice(&digest);
    file.extend_from_slice(&[0; 8]);
    file.extend_from_slice(&body);
    (file, digest)
}

fn word(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

fn damaged(path: &Path, reason: impl Into<String>) -> FileError {
    FileError::Damaged { path: path.into(), reason: reason.into() }
}

/// The header of a file of `len` bytes that starts with `start`; its digest is still to be [compared](compare).
pub(super) fn header<'a>(
    path: &Path,
    what: &'static str,
    magic: [u8; 8],
    start: &'a [u8],
    len: u64,
) -> Result<&'a [u8], FileError> {
    let Some(header) = start.get(..HEADER).filter(|h| h[..8] == magic) else {
        let reason = "it does not start with the right magic bytes".into();
        return Err(FileError::Foreign { path: path.into(), what, reason });
    };
    let version = word(header, 8);
    if version != VERSION {
        return Err(FileError::Version { path: path.into(), found: version });
    }
    let said = u64::from(word(header, 16)) | u64::from(word(header, 20)) << 32;
    let held = len - HEADER as u64;
    if said != held {
        return Err(damaged(path, format!("it holds {held} bytes and says {said}")));
    }
    Ok(header)
}

/// Compares a header with the digest of its file.
pub(super) fn compare(path: &Path, header: &[u8], hasher: &blake3::Hasher) -> Result<Digest, FileError> {
    let digest = *hasher.finalize().as_bytes();
    if word(header, 12) != 0 || header[24..56] != digest || header[56..64] != [0; 8] {
        return Err(damaged(path, "its digest does not fit its content"));
    }
    Ok(digest)
}

/// Checks the header of a file that [`frame`] made; its body are the bytes from [`HEADER`] on. `path` and `what`, the
/// kind of file, are for messages.
pub fn unframe(path: &Path, what: &'static str, magic: [u8; 8], file: &[u8]) -> Result<Digest, FileError> {
    let header = header(path, what, magic, file, file.len() as u64)?;
    compare(path, header, hasher(header).update(&file[HEADER..]))
}

/// The program file's bytes and digest. The same program gives the same bytes.
pub fn encode_program(program: &Program) -> Result<(Vec<u8>, Digest), FileError> {
    Ok(frame(PROGRAM_MAGIC, postcard::to_stdvec(program)?))
}

/// Reads and verifies a program from a file's bytes; `path` is for messages.
pub fn decode_program(path: &Path, file: &[u8]) -> Result<Loaded, FileError> {
    let digest = unframe(path, "bcc program", PROGRAM_MAGIC, file)?;
    let (program, rest) =
        postcard::take_from_bytes::<Program>(&file[HEADER..]).map_err(|e| damaged(path, e.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged(path, format!("{} bytes are left over", rest.len())));
    }
    verify(&program).map_err(|faults| FileError::Invalid { path: path.into(), faults })?;
    Ok(Loaded { program, digest })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|source| FileError::Io { verb: "read", path: path.into(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    fs::write(path, bytes).map_err(|source| FileError::Io { verb: "write", path: path.into(), source })
}

/// Reads and verifies a program file.
pub fn load_program(path: &Path) -> Result<Loaded, FileError> {
    decode_program(path, &read(path)?)
}

/// Writes `program.bcc` and `weights.bcc` into a directory; `weights` holds one vector per entry of
/// [`Program::weights`].
pub fn save(directory: &Path, program: &Program, weights: &[Vec<i64>]) -> Result<Digest, FileError> {
    let (bytes, digest) = encode_program(program)?;
    write(&directory.join(PROGRAM_FILE), &bytes)?;
    write(&directory.join(WEIGHTS_FILE), &encode_weights(program, digest, weights)?)?;
    Ok(digest)
}
