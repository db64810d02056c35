//! A model's setup, kept between sessions.
//!
//! Server and dealer keep the model's key, the client what it received; all three the name of the
//! setup. It is good for one program and, at the server, for one set of weights.

use std::path::{Path, PathBuf};

use bcc_ir::program::{Role, Type, Width};
use zeroize::Zeroizing;

use crate::buffer::Buffer;
use crate::prg::Key;
use crate::vault::{Reader, VaultError, Writer, make_directory};

const MAGIC: &[u8; 8] = b"BCCSETP2";

/// What a stored setup belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The program.
    pub digest: [u8; 32],
    /// The server's weights; zero at the others.
    pub weights: [u8; 32],
}

/// A stored setup.
pub struct SetupState {
    /// Its name, the same at all three parties.
    pub id: [u8; 16],
    /// Keys of the model's streams.
    pub keys: [Option<Key>; 2],
    /// What the role received in the setup.
    file: Reader,
}

impl SetupState {
    /// The buffers that the role received, of given types, one after the other.
    pub fn received(mut self, types: &[Type], width: Width) -> impl Iterator<Item = Result<Buffer, VaultError>> {
        let last = types.len().saturating_sub(1);
        types.iter().enumerate().map(move |(i, ty)| {
            let buffer = self.file.buffer(*ty, width)?;
            if i == last && !self.file.ended() { Err(self.file.damaged()) } else { Ok(buffer) }
        })
    }
}

fn path(directory: &Path, role: Role) -> PathBuf {
    directory.join(format!("{role}.setup"))
}

/// The setup in a directory, of `buffers` received buffers; `None` if there is none, or one of another program or
/// other weights.
pub fn load(directory: &Path, role: Role, binding: Binding, buffers: usize) -> Result<Option<SetupState>, VaultError> {
    let path = path(directory, role);
    if !path.exists() {
        return Ok(None);
    }
    let mut file = Reader::load(&path, MAGIC)?;
    let found = Binding { digest: file.array()?, weights: file.array()? };
    if found != binding {
        return Ok(None);
    }
    let id = file.array()?;
    let keys = file.keys()?;
    file.expect_buffers(buffers)?;
    Ok(Some(SetupState { id, keys, file }))
}

/// Stores a setup, in place of any other of that role.
pub fn save(
    directory: &Path,
    role: Role,
    binding: Binding,
    id: [u8; 16],
    keys: &[Option<Key>; 2],
    received: &[(Type, Zeroizing<Vec<u8>>)],
) -> Result<(), VaultError> {
    make_directory(directory)?;
    let mut file = Writer::new(MAGIC);
    file.put(&binding.digest);
    file.put(&binding.weights);
    file.put(&id);
    file.put_keys(keys);
    file.put_buffers(received);
    file.save(&path(directory, role))
}
