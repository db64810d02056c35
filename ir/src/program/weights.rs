//! The weights file: written from memory, read where it is needed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
#[cfg(not(unix))]
use std::sync::Mutex;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::file::{Digest, FileError, HEADER, compare, frame, hasher, header};
use super::{Program, WeightEntry, WeightWidth};

const MAGIC: [u8; 8] = *b"BCCWGTS\0";
const ALIGN: usize = 64;
/// Bytes that are read at a time, for the digest and for an entry.
const CHECKED: usize = 1 << 20;
const FILLED: usize = 1 << 16;

fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

fn width_bytes(entry: &WeightEntry) -> usize {
    match entry.width {
        WeightWidth::I16 => 2,
        WeightWidth::I32 => 4,
        WeightWidth::I64 => 8,
    }
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
    Ok(frame(MAGIC, body).0)
}

/// The server's weights, left in the file until they are asked for: then an entry's bytes pass through a small buffer.
/// The file is not mapped into memory, as that takes unsafe code and turns an error of reading into a crash.
pub struct Weights {
    path: PathBuf,
    source: Source,
    /// Offset and form of every entry.
    entries: Vec<(u64, WeightEntry)>,
}

impl Weights {
    /// Opens a weights file and checks all of it, and that it belongs to the program with that digest.
    pub fn load(path: &Path, program: &Program, digest: Digest) -> Result<Weights, FileError> {
        let opened = File::open(path).and_then(Source::file);
        let source = opened.map_err(|source| FileError::Io { verb: "read", path: path.into(), source })?;
        Self::checked(path, source, program, digest)
    }

    /// Weights from a file's bytes; `path` is for messages.
    pub fn decode(path: &Path, file: Vec<u8>, program: &Program, digest: Digest) -> Result<Weights, FileError> {
        Self::checked(path, Source::Memory(file), program, digest)
    }

    fn checked(path: &Path, source: Source, program: &Program, digest: Digest) -> Result<Weights, FileError> {
        let mut weights = Weights { path: path.into(), source, entries: Vec::with_capacity(program.weights.len()) };
        let len = weights.source.len();
        let start = weights.read(0, (HEADER + ALIGN).min(len as usize))?;
        let header = header(path, "bcc weights file", MAGIC, &start, len)?;
        let mut hash = hasher(header);
        let mut at = HEADER as u64;
        while at < len {
            let part = weights.read(at, (len - at).min(CHECKED as u64) as usize)?;
            hash.update(&part);
            at += part.len() as u64;
        }
        compare(path, header, &hash)?;
        if start.get(HEADER..HEADER + 32) != Some(&digest) {
            return Err(FileError::OtherProgram { path: path.into() });
        }
        let mut offset = HEADER + ALIGN;
        for entry in &program.weights {
            weights.entries.push((offset as u64, entry.clone()));
            offset = offset.saturating_add(padded(entry.len.saturating_mul(width_bytes(entry))));
        }
        if offset as u64 != len {
            let reason = format!("it holds {len} bytes, the program's weights take {offset}");
            return Err(FileError::Damaged { path: path.into(), reason });
        }
        weights.unchanged()?;
        Ok(weights)
    }

    fn failed(&self, source: io::Error) -> FileError {
        FileError::Io { verb: "read", path: self.path.clone(), source }
    }

    fn read(&self, offset: u64, len: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let mut bytes = Zeroizing::new(vec![0; len]);
        self.source.read(offset, &mut bytes).map_err(|e| self.failed(e))?;
        Ok(bytes)
    }

    /// What was read is what was checked, as far as the system's time of the last change tells.
    fn unchanged(&self) -> Result<(), FileError> {
        match self.source.unchanged().map_err(|e| self.failed(e))? {
            true => Ok(()),
            false => Err(FileError::Changed { path: self.path.clone() }),
        }
    }

    /// Elements of entry `index`; 0 for an unknown one.
    pub fn len(&self, index: usize) -> usize {
        self.entries.get(index).map_or(0, |(_, entry)| entry.len)
    }

    /// Entry `index` modulo `2^bits`; empty for an unknown entry.
    pub fn ring(&self, index: usize, bits: u8) -> Result<Vec<u64>, FileError> {
        let mut out = Vec::with_capacity(self.len(index));
        self.parts(index, bits, &mut |part| out.extend_from_slice(part))?;
        Ok(out)
    }

    /// Gives the elements of entry `index` modulo `2^bits`, some at a time; none of an unknown entry.
    pub fn parts(&self, index: usize, bits: u8, take: &mut dyn FnMut(&[u64])) -> Result<(), FileError> {
        fn each<const N: usize>(bytes: &[u8], out: &mut [u64], of: impl Fn([u8; N]) -> i64, mask: u64) {
            out.iter_mut().zip(bytes.as_chunks::<N>().0).for_each(|(y, b)| *y = of(*b) as u64 & mask);
        }
        let Some((offset, entry)) = self.entries.get(index) else { return Ok(()) };
        let mask = u64::MAX >> (64 - u32::from(bits.clamp(1, 64)));
        let width = width_bytes(entry);
        let mut bytes = Zeroizing::new(vec![0; FILLED.min(entry.len * width)]);
        let mut elements = Zeroizing::new(vec![0; bytes.len() / width]);
        let mut at = *offset;
        for first in (0..entry.len).step_by(FILLED / width) {
            let part = &mut elements[..(FILLED / width).min(entry.len - first)];
            let bytes = &mut bytes[..part.len() * width];
            self.source.read(at, bytes).map_err(|e| self.failed(e))?;
            at += bytes.len() as u64;
            match entry.width {
                WeightWidth::I16 => each(bytes, part, |b| i16::from_le_bytes(b).into(), mask),
                WeightWidth::I32 => each(bytes, part, |b| i32::from_le_bytes(b).into(), mask),
                WeightWidth::I64 => each(bytes, part, i64::from_le_bytes, mask),
            }
            take(part);
        }
        self.unchanged()
    }
}

/// Where the bytes are.
enum Source {
    /// Several threads may read at a time.
    File {
        #[cfg(unix)]
        file: File,
        #[cfg(not(unix))]
        file: Mutex<File>,
        /// When it was opened.
        stamp: Stamp,
    },
    Memory(Vec<u8>),
}

/// Length, and time of the last change where the system keeps one.
type Stamp = (u64, Option<SystemTime>);

fn stamp(file: &File) -> io::Result<Stamp> {
    let meta = file.metadata()?;
    Ok((meta.len(), meta.modified().ok()))
}

impl Source {
    fn file(file: File) -> io::Result<Source> {
        let stamp = stamp(&file)?;
        #[cfg(not(unix))]
        let file = Mutex::new(file);
        Ok(Source::File { file, stamp })
    }

    fn len(&self) -> u64 {
        match self {
            Source::File { stamp, .. } => stamp.0,
            Source::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self {
            #[cfg(unix)]
            Source::File { file, .. } => std::os::unix::fs::FileExt::read_exact_at(file, out, offset),
            #[cfg(not(unix))]
            Source::File { file, .. } => {
                use std::io::{Read, Seek, SeekFrom};
                // A thread that panicked has left a position, and that is set here.
                let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(out)
            }
            Source::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = bytes.get(start..).and_then(|rest| rest.get(..out.len()));
                out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    fn unchanged(&self) -> io::Result<bool> {
        match self {
            #[cfg(unix)]
            Source::File { file, stamp: then } => Ok(stamp(file)? == *then),
            #[cfg(not(unix))]
            Source::File { file, stamp: then } => {
                let file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                Ok(stamp(&file)? == *then)
            }
            Source::Memory(_) => Ok(true),
        }
    }
}
