//! Offline material made ahead: one file per inference, used once.
//!
//! A correlation used twice reveals data. So a file is claimed before anything in it is used:
//! renamed, which only one process can do, then its name is entered in `used/`, which fails if it
//! is there, then it is removed, each step made durable. A crash in between loses the material and
//! nothing else; a file that is copied back is refused.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bcc_ir::program::{Role, Type, Width};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::buffer::Buffer;
use crate::prg::Key;
use crate::state::Binding;
use crate::vault::{Reader, VaultError, Writer, create_private, failed, make_directory, sync_directory};

const MAGIC: &[u8; 8] = b"BCCMATL2";

/// Name of one inference's material, the same at client and server. Public.
pub type MaterialId = [u8; 16];

/// Why material cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// It has been used.
    #[error(
        "the offline material {path} has been used before; used twice it would reveal the input, so it is refused. \
         Delete it and make new material with bcr prepare"
    )]
    Used {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to something else.
    #[error("the offline material {path} belongs to another {what}; make new material with bcr prepare")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// "program" or "set of weights".
        what: &'static str,
    },
}

/// Material of one inference.
pub struct Material {
    /// Keys of the inference.
    pub keys: [Option<Key>; 2],
    /// Buffers, in the order of [`crate::plan::Plan::carried`].
    pub carried: Vec<Buffer>,
}

/// A party's directory of material.
pub struct Store {
    directory: PathBuf,
    role: Role,
    binding: Binding,
}

fn hex(id: &MaterialId) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

impl Store {
    /// Opens a directory, made if it is not there.
    pub fn open(directory: &Path, role: Role, binding: Binding) -> Result<Store, StoreError> {
        make_directory(&directory.join("used"))?;
        Ok(Store { directory: directory.into(), role, binding })
    }

    fn path(&self, id: &MaterialId) -> PathBuf {
        self.directory.join(format!("{}{}.material", self.prefix(), hex(id)))
    }

    /// Material of several programs can lie in one directory.
    fn prefix(&self) -> String {
        let binding = blake3::hash(&[self.binding.digest, self.binding.weights].concat());
        format!("{}-{}-", self.role, &binding.to_hex()[..8])
    }

    fn mark(&self, id: &MaterialId) -> PathBuf {
        self.directory.join("used").join(format!("{}-{}", self.role, hex(id)))
    }

    /// Names of the material there is, in order.
    pub fn list(&self) -> Result<Vec<MaterialId>, StoreError> {
        let entries = fs::read_dir(&self.directory).map_err(failed("list", &self.directory))?;
        let prefix = self.prefix();
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("list", &self.directory))?.file_name();
            let id = name.to_str().and_then(|n| n.strip_prefix(&prefix)?.strip_suffix(".material"));
            ids.extend(id.and_then(parse));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Whether there is material of that name.
    pub fn has(&self, id: &MaterialId) -> bool {
        self.path(id).exists()
    }

    /// Stores material.
    pub fn save(
        &self,
        id: &MaterialId,
        keys: &[Option<Key>; 2],
        carried: &[(Type, Zeroizing<Vec<u8>>)],
    ) -> Result<(), StoreError> {
        let mut file = Writer::new(MAGIC);
        file.put(&self.binding.digest);
        file.put(&self.binding.weights);
        file.put(id);
        file.put_keys(keys);
        file.put_buffers(carried);
        Ok(file.save(&self.path(id))?)
    }

    /// Takes material out, for good: whatever happens from here on, it is not given out again.
    pub fn take(&self, id: &MaterialId, types: &[Type], width: Width) -> Result<Material, StoreError> {
        let path = self.path(id);
        let claimed = path.with_extension("claimed");
        fs::rename(&path, &claimed).map_err(failed("claim", &path))?;
        sync_directory(&self.directory)?;
        let mark = self.mark(id);
        match create_private(&mark) {
            Ok(file) => file.sync_all().map_err(failed("write", &mark))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&claimed).map_err(failed("remove", &claimed))?;
                return Err(StoreError::Used { path });
            }
            Err(e) => return Err(failed("create", &mark)(e).into()),
        }
        sync_directory(&self.directory.join("used"))?;
        let file = Reader::load(&claimed, MAGIC);
        fs::remove_file(&claimed).map_err(failed("remove", &claimed))?;
        sync_directory(&self.directory)?;
        let mut file = file?;
        let found = Binding { digest: file.array()?, weights: file.array()? };
        if found != self.binding {
            let what = if found.digest == self.binding.digest { "set of weights" } else { "program" };
            return Err(StoreError::Foreign { path, what });
        }
        if file.array::<16>()? != *id {
            return Err(file.damaged().into());
        }
        Ok(Material { keys: file.keys()?, carried: file.buffers(types, width)? })
    }
}

fn parse(hex: &str) -> Option<MaterialId> {
    let mut id = [0; 16];
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    for (i, b) in id.iter_mut().enumerate() {
        *b = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(directory: &Path) -> Store {
        let binding = Binding { digest: [1; 32], weights: [2; 32] };
        Store::open(directory, Role::Client, binding).unwrap()
    }

    #[test]
    fn material_is_given_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let ty = Type::Ring { bits: 20, len: 3 };
        let carried = [(ty, Zeroizing::new(vec![1, 0, 0x20, 0, 0, 3, 0, 0]))];
        let id = [7; 16];
        store.save(&id, &[Some(Key::new([9; 16])), None], &carried).unwrap();
        assert_eq!(store.list().unwrap(), [id]);
        let copy = fs::read(store.path(&id)).unwrap();
        let material = store.take(&id, &[ty], Width::Narrow).unwrap();
        assert_eq!(material.carried[0].words(), [1, 2, 3]);
        assert!(material.keys[0].as_ref().unwrap().0 == [9; 16] && material.keys[1].is_none());
        assert!(store.list().unwrap().is_empty());
        assert!(matches!(store.take(&id, &[ty], Width::Narrow), Err(StoreError::Vault(VaultError::Io { .. }))));
        fs::write(store.path(&id), copy).unwrap();
        assert!(matches!(store.take(&id, &[ty], Width::Narrow), Err(StoreError::Used { .. })));
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn refuses_damaged_and_foreign_material() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.save(&[1; 16], &[None, None], &[]).unwrap();
        let path = store.path(&[1; 16]);
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(store.take(&[1; 16], &[], Width::Narrow), Err(StoreError::Vault(VaultError::Damaged { .. }))));
        store.save(&[2; 16], &[None, None], &[]).unwrap();
        let binding = Binding { digest: [1; 32], weights: [3; 32] };
        let other = Store::open(dir.path(), Role::Client, binding).unwrap();
        assert!(other.list().unwrap().is_empty());
        fs::rename(store.path(&[2; 16]), other.path(&[2; 16])).unwrap();
        assert!(matches!(
            other.take(&[2; 16], &[], Width::Narrow),
            Err(StoreError::Foreign { what: "set of weights", .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.save(&[1; 16], &[None, None], &[]).unwrap();
        assert_eq!(fs::metadata(store.path(&[1; 16])).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
