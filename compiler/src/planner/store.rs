//! Finished work on disk, so that an interrupted planning goes on where it stopped.
//!
//! A file goes by the digest of all that its content depends on; one that is cut off or was written
//! for something else is not used. Files are written beside their place and moved there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Version of the files' content: what it means changes with the code that makes it.
const VERSION: &str = "bcc planning work 1";

/// A directory of finished work.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// A directory that cannot be used.
#[derive(Debug, Error)]
#[error("cannot keep finished work in {path}: {source}; give --resume another directory")]
pub struct StoreError {
    path: PathBuf,
    source: std::io::Error,
}

/// Digest of what some work depends on.
#[derive(Clone)]
pub struct Key(blake3::Hasher);

impl Key {
    /// A key of a kind of work.
    pub fn new(kind: &str) -> Key {
        let mut hasher = blake3::Hasher::new();
        hasher.update(VERSION.as_bytes());
        Key(hasher).with(kind.as_bytes())
    }

    /// Adds bytes that it depends on.
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> Key {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds floats that it depends on.
    #[must_use]
    pub fn with_floats(mut self, values: &[f32]) -> Key {
        self.0.update(&(values.len() as u64).to_le_bytes());
        for chunk in values.chunks(4096) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
            self.0.update(&bytes);
        }
        self
    }

    fn name(&self) -> String {
        self.0.finalize().to_hex()[..32].to_string()
    }
}

impl Store {
    /// Opens a directory, making it if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        fs::create_dir_all(directory).map_err(|source| StoreError { path: directory.into(), source })?;
        Ok(Store { directory: directory.into() })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}.work", key.name()))
    }

    /// What was kept under a key; `None` where there is nothing, or nothing whole.
    pub fn load<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        let bytes = fs::read(self.path(key)).ok()?;
        let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        (blake3::hash(content).as_bytes() == digest).then(|| postcard::from_bytes(content).ok())?
    }

    /// Keeps something under a key, in place of what was there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save<T: Serialize>(&self, key: &Key, value: &T) -> Result<(), StoreError> {
        let path = self.path(key);
        let failed = |source| StoreError { path: path.clone(), source };
        let mut bytes = postcard::to_allocvec(value).map_err(|e| failed(std::io::Error::other(e)))?;
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        let beside = path.with_extension("part");
        fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &path)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_work_of_the_same_key_is_taken_up() {
        let dir = std::env::temp_dir().join(format!("bcc-store-{}", std::process::id()));
        let store = Store::open(&dir).expect("a temporary directory");
        let key = Key::new("test").with(b"one").with_floats(&[1.0]);
        assert_eq!(store.load::<Vec<u32>>(&key), None);
        store.save(&key, &vec![1u32, 2, 3]).expect("written");
        assert_eq!(store.load::<Vec<u32>>(&key), Some(vec![1, 2, 3]));
        assert_eq!(store.load::<Vec<u32>>(&Key::new("test").with(b"two").with_floats(&[1.0])), None);
        let path = store.path(&key);
        let bytes = fs::read(&path).expect("written above");
        fs::write(&path, &bytes[..bytes.len() - 1]).expect("cut");
        assert_eq!(store.load::<Vec<u32>>(&key), None);
        fs::remove_dir_all(&dir).expect("removed");
    }
}
