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

use super::{Faults, Program, VERSION, WeightEntry, WeightWidth, verify};

/// Name of the program's file in an output directory.
pub const PROGRAM_FILE: &str = "program.bcc";
/// Name of the weights' file in an output directory.
pub const WEIGHTS_FILE: &str = "weights.bcc";

const PROGRAM_MAGIC: [u8; 8] = *b"BCCPROG\0";
const WEIGHTS_MAGIC: [u8; 8] = *b"BCCWGTS\0";
/// Bytes of a file's header.
pub const HEADER: usize = 64;
const ALIGN: usize = 64;

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

fn digest_of(header: &[u8], body: &[u8]) -> Digest {
    let mut h = blake3::Hasher::new();
    h.update(&header[..24]);
    h.update(body);
    *h.finalize().as_bytes()
}

/// A file of `body` behind a header with `magic`, and its digest.
pub fn frame(magic: [u8; 8], body: Vec<u8>) -> (Vec<u8>, Digest) {
    let mut file = Vec::with_capacity(HEADER + body.len());
    file.extend_from_slice(&magic);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let digest = digest_of(&file, &body);
    file.extend_from_slice(&digest);
    file.extend_from_slice(&[0; 8]);
    file.extend_from_slice(&body);
    (file, digest)
}

/// Checks the header of a file that [`frame`] made; its body are the bytes from [`HEADER`] on. `path` and `what`, the
/// kind of file, are for messages.
pub fn unframe(path: &Path, what: &'static str, magic: [u8; 8], file: &[u8]) -> Result<Digest, FileError> {
    let foreign = |reason: &str| FileError::Foreign { path: path.into(), what, reason: reason.into() };
    let damaged = |reason: String| FileError::Damaged { path: path.into(), reason };
    if file.len() < HEADER || file[..8] != magic {
        return Err(foreign("it does not start with the right magic bytes"));
    }
    let word = |at: usize| -> u32 { u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]) };
    let version = word(8);
    if version != VERSION {
        return Err(FileError::Version { path: path.into(), found: version });
    }
    let body_len = u64::from(word(16)) | u64::from(word(20)) << 32;
    let body = &file[HEADER..];
    if body_len != body.len() as u64 {
        return Err(damaged(format!("it holds {} bytes and says {body_len}", body.len())));
    }
    let digest = digest_of(&file[..HEADER], body);
    if word(12) != 0 || file[24..56] != digest || file[56..64] != [0; 8] {
        return Err(damaged("its digest does not fit its content".into()));
    }
    Ok(digest)
}

/// The program file's bytes and digest. The same program gives the same bytes.
pub fn encode_program(program: &Program) -> Result<(Vec<u8>, Digest), FileError> {
    Ok(frame(PROGRAM_MAGIC, postcard::to_stdvec(program)?))
}

/// Reads and verifies a program from a file's bytes; `path` is for messages.
pub fn decode_program(path: &Path, file: &[u8]) -> Result<Loaded, FileError> {
    let digest = unframe(path, "bcc program", PROGRAM_MAGIC, file)?;
    let damaged = |reason: String| FileError::Damaged { path: path.into(), reason };
    let (program, rest) = postcard::take_from_bytes::<Program>(&file[HEADER..]).map_err(|e| damaged(e.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged(format!("{} bytes are left over", rest.len())));
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

fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

fn entry_bytes(entry: &WeightEntry) -> usize {
    let width = match entry.width {
        WeightWidth::I16 => 2,
        WeightWidth::I32 => 4,
        WeightWidth::I64 => 8,
    };
    entry.len.saturating_mul(width)
}

/// The weights file's bytes.
pub fn encode_weights(program: &Program, digest: Digest, weights: &[Vec<i64>]) -> Result<Vec<u8>, FileError> {
    let mut body = digest.to_vec();
    body.resize(padded(body.len()), 0);
    for (i, entry) in program.weights.iter().enumerate() {
        let bad = |reason: String| FileError::Weight { name: entry.name.clone(), reason };
        let values = weights.get(i).ok_or_else(|| bad("it is missing".into()))?;
        if values.len() != entry.len {
            return Err(bad(format!("{} values for {}", values.len(), entry.len)));
        }
        for v in values {
            match entry.width {
                WeightWidth::I16 => {
                    let v = i16::try_from(*v).map_err(|_| bad(format!("{v} does not fit 16 bits")))?;
                    body.extend_from_slice(&v.to_le_bytes());
                }
                WeightWidth::I32 => {
                    let v = i32::try_from(*v).map_err(|_| bad(format!("{v} does not fit 32 bits")))?;
                    body.extend_from_slice(&v.to_le_bytes());
                }
                WeightWidth::I64 => body.extend_from_slice(&v.to_le_bytes()),
            }
        }
        body.resize(padded(body.len()), 0);
    }
    Ok(frame(WEIGHTS_MAGIC, body).0)
}

/// The server's weights, as they are in the file.
pub struct Weights {
    file: Vec<u8>,
    /// Offset and width of every entry.
    entries: Vec<(usize, WeightEntry)>,
}

impl Weights {
    /// Reads a weights file and checks that it belongs to the program with that digest.
    pub fn load(path: &Path, program: &Program, digest: Digest) -> Result<Weights, FileError> {
        Self::decode(path, read(path)?, program, digest)
    }

    /// Reads weights from a file's bytes; `path` is for messages.
    pub fn decode(path: &Path, file: Vec<u8>, program: &Program, digest: Digest) -> Result<Weights, FileError> {
        unframe(path, "bcc weights file", WEIGHTS_MAGIC, &file)?;
        if file.len() < HEADER + ALIGN || file[HEADER..HEADER + 32] != digest {
            return Err(FileError::OtherProgram { path: path.into() });
        }
        let mut offset = HEADER + ALIGN;
        let mut entries = Vec::with_capacity(program.weights.len());
        for entry in &program.weights {
            entries.push((offset, entry.clone()));
            offset = offset.saturating_add(padded(entry_bytes(entry)));
        }
        if offset != file.len() {
            let reason = format!("it holds {} bytes, the program's weights take {offset}", file.len());
            return Err(FileError::Damaged { path: path.into(), reason });
        }
        Ok(Weights { file, entries })
    }

    /// Elements of entry `index`; 0 for an unknown one.
    pub fn len(&self, index: usize) -> usize {
        self.entries.get(index).map_or(0, |(_, entry)| entry.len)
    }

    /// Entry `index` modulo `2^bits`; empty for an unknown entry.
    pub fn ring(&self, index: usize, bits: u8) -> Vec<u64> {
        let mut out = vec![0; self.len(index)];
        self.fill(index, bits, &mut out);
        out
    }

    /// Entry `index` modulo `2^bits`, into as many elements; nothing for an unknown entry.
    pub fn fill(&self, index: usize, bits: u8, out: &mut [u64]) {
        fn each<const N: usize>(bytes: &[u8], out: &mut [u64], of: impl Fn([u8; N]) -> i64, mask: u64) {
            out.iter_mut().zip(bytes.as_chunks::<N>().0).for_each(|(y, b)| *y = of(*b) as u64 & mask);
        }
        let Some((offset, entry)) = self.entries.get(index) else { return };
        let mask = u64::MAX >> (64 - u32::from(bits.clamp(1, 64)));
        let bytes = &self.file[*offset..*offset + entry_bytes(entry)];
        match entry.width {
            WeightWidth::I16 => each(bytes, out, |b| i16::from_le_bytes(b).into(), mask),
            WeightWidth::I32 => each(bytes, out, |b| i32::from_le_bytes(b).into(), mask),
            WeightWidth::I64 => each(bytes, out, i64::from_le_bytes, mask),
        }
    }
}
