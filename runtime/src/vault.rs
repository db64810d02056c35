//! Files that hold secrets: written whole or not at all, readable by the owner alone, checked on
//! load.
//!
//! A file is 8 bytes of magic, a body, and the BLAKE3 digest of both.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bcc_ir::program::{Type, Width};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::buffer::Buffer;
use crate::prg::Key;
use crate::wire;

/// Why a file of secrets cannot be used.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The system failed.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The file is damaged or of another kind.
    #[error("{path} is damaged or no such file of bcr; delete it")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

pub(crate) fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VaultError {
    let path = path.to_path_buf();
    move |source| VaultError::Io { verb, path, source }
}

/// Makes a directory that only its owner can enter.
pub fn make_directory(path: &Path) -> Result<(), VaultError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(failed("make", path))
}

/// Makes the directory's entries durable.
pub fn sync_directory(path: &Path) -> Result<(), VaultError> {
    #[cfg(unix)]
    File::open(path).and_then(|d| d.sync_all()).map_err(failed("sync", path))?;
    Ok(())
}

/// Creates a file that only its owner can read; it must not exist.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Collects the body of a file.
pub struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// A file that starts with `magic`.
    pub fn new(magic: &[u8; 8]) -> Self {
        Writer(Zeroizing::new(magic.to_vec()))
    }

    /// Appends bytes. Their number must follow from what came before.
    pub fn put(&mut self, bytes: &[u8]) {
        // A vector that grows by itself would leave its old copy behind.
        if self.0.capacity() < self.0.len() + bytes.len() + 32 {
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * (self.0.len() + bytes.len()) + 64));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    /// Appends keys that may be missing.
    pub fn put_keys(&mut self, keys: &[Option<Key>; 2]) {
        for key in keys {
            self.put(&[u8::from(key.is_some())]);
            self.put(&key.as_ref().map_or([0; 16], |k| k.0));
        }
    }

    /// Appends buffers, given by type and bytes on the wire.
    pub fn put_buffers(&mut self, buffers: &[(Type, Zeroizing<Vec<u8>>)]) {
        self.put(&(buffers.len() as u64).to_le_bytes());
        buffers.iter().for_each(|(_, bytes)| self.put(bytes));
    }

    /// Writes the file: to a temporary name, made durable, then renamed.
    pub fn save(mut self, path: &Path) -> Result<(), VaultError> {
        let digest = blake3::hash(&self.0);
        self.put(digest.as_bytes());
        let temporary = path.with_extension("partial");
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &temporary)(e)),
            _ => {}
        }
        let mut file = create_private(&temporary).map_err(failed("create", &temporary))?;
        file.write_all(&self.0).and_then(|()| file.sync_all()).map_err(failed("write", &temporary))?;
        fs::rename(&temporary, path).map_err(failed("write", path))?;
        sync_directory(path.parent().unwrap_or(Path::new(".")))
    }
}

/// Reads a checked file.
pub struct Reader {
    path: PathBuf,
    bytes: Zeroizing<Vec<u8>>,
    at: usize,
    end: usize,
}

impl Reader {
    /// Reads a file whole and checks magic and digest.
    pub fn load(path: &Path, magic: &[u8; 8]) -> Result<Reader, VaultError> {
        let bytes = Zeroizing::new(fs::read(path).map_err(failed("read", path))?);
        let damaged = || VaultError::Damaged { path: path.into() };
        let (body, digest) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
        if !body.starts_with(magic) || blake3::hash(body) != *digest {
            return Err(damaged());
        }
        let end = body.len();
        Ok(Reader { path: path.into(), bytes, at: 8, end })
    }

    /// The file does not hold what it should.
    pub fn damaged(&self) -> VaultError {
        VaultError::Damaged { path: self.path.clone() }
    }

    /// The next bytes.
    pub fn take(&mut self, n: usize) -> Result<&[u8], VaultError> {
        if n > self.end - self.at {
            return Err(self.damaged());
        }
        self.at += n;
        Ok(&self.bytes[self.at - n..self.at])
    }

    /// The next bytes, as many as the array has.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], VaultError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// Keys as [`Writer::put_keys`] wrote them.
    pub fn keys(&mut self) -> Result<[Option<Key>; 2], VaultError> {
        let mut keys = [None, None];
        for key in &mut keys {
            let present = self.array::<1>()?[0];
            let bytes = self.array()?;
            *key = (present == 1).then(|| Key::new(bytes));
        }
        Ok(keys)
    }

    /// Buffers as [`Writer::put_buffers`] wrote them, and nothing behind.
    pub fn buffers(&mut self, types: &[Type], width: Width) -> Result<Vec<Buffer>, VaultError> {
        self.expect_buffers(types.len())?;
        let out = types.iter().map(|ty| self.buffer(*ty, width)).collect::<Result<_, _>>()?;
        if self.ended() { Ok(out) } else { Err(self.damaged()) }
    }

    /// Reads how many buffers follow; it must be `count`.
    pub fn expect_buffers(&mut self, count: usize) -> Result<(), VaultError> {
        if u64::from_le_bytes(self.array()?) == count as u64 { Ok(()) } else { Err(self.damaged()) }
    }

    /// The next of the buffers.
    pub fn buffer(&mut self, ty: Type, width: Width) -> Result<Buffer, VaultError> {
        let size = usize::try_from(ty.wire_bytes()).map_err(|_| self.damaged())?;
        let buffer = wire::unpack(ty, width, self.take(size)?);
        buffer.map_err(|_| self.damaged())
    }

    /// Whether all has been read.
    pub fn ended(&self) -> bool {
        self.at == self.end
    }
}
