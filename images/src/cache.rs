// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finished artefacts by the hash of what they are made from.
//!
//! An artefact is a folder `NAME-KEY`, and it is complete exactly when it holds a
//! `manifest.json`, which is renamed into place last. Folders are not built elsewhere
//! and renamed, because a kernel's build tree names itself by absolute path. The key
//! covers recipes and sources, never package versions, so it is known without a network.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, IoContext as _, Result};
use crate::progress::Progress;

/// Part of every key: raise it when a change in this crate's code alters what is built.
const RECIPES: &str = "1";

const MANIFEST: &str = "manifest.json";

/// Identifies the inputs of an artefact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// The key of an artefact made from these inputs, in this order.
    pub(crate) fn of<T: AsRef<[u8]>>(parts: &[T]) -> Self {
        let mut hash = Sha256::new();
        hash.update(RECIPES);
        for part in parts {
            let part = part.as_ref();
            // The length keeps "ab","c" apart from "a","bc".
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut text = String::new();
        for byte in hash.finalize().iter().take(8) {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A distribution package that went into an artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What an artefact was made from; stored next to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The artefact's name.
    pub(crate) name: String,
    /// How long it took, in seconds.
    pub(crate) seconds: f32,
    /// The distribution packages in it.
    pub(crate) packages: Vec<Package>,
}

/// A complete artefact.
#[derive(Debug, Clone)]
pub(crate) struct Artefact {
    pub(crate) dir: PathBuf,
    pub(crate) key: Key,
    pub(crate) manifest: Manifest,
}

/// Whether a build may go on from what an interrupted one left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// The build notices by itself what is there already.
    Keep,
    Remove,
}

/// The cache folder.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this user.
    pub(crate) fn open() -> Result<Self> {
        let root = if let Some(dir) = non_empty("ZCACHE_CACHE_DIR") {
            dir
        } else if let Some(dir) = non_empty("XDG_CACHE_HOME") {
            dir.join("vhost-zcache")
        } else if let Some(home) = non_empty("HOME") {
            home.join(".cache/vhost-zcache")
        } else {
            return Err(Error::NoCacheDir);
        };
        Self::at(&root)
    }

    pub(crate) fn at(root: &Path) -> Result<Self> {
        let locks = root.join("locks");
        fs::create_dir_all(&locks).while_doing("create", &locks)?;
        // Paths end up in commands that run in other folders.
        let root = fs::canonicalize(root).while_doing("open", root)?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A folder that is kept from build to build, for downloads.
    pub(crate) fn downloads(&self, name: &str) -> PathBuf {
        self.root.join("downloads").join(name)
    }

    /// Returns the artefact, building it first when it is absent.
    ///
    /// `build` fills the folder it is given and returns the packages it used. Only one
    /// process builds an artefact; others wait for it.
    pub(crate) fn artefact(
        &self,
        name: &str,
        key: &Key,
        leftovers: Leftovers,
        build: impl FnOnce(&Path, &Progress) -> Result<Vec<Package>>,
    ) -> Result<Artefact> {
        let full_name = format!("{name}-{}", key.as_str());
        let dir = self.root.join(&full_name);
        if let Some(found) = self.find(&dir, key)? {
            return Ok(found);
        }
        let progress = Progress::new(name);
        let _lock = self.lock(&full_name, &progress)?;
        if let Some(found) = self.find(&dir, key)? {
            return Ok(found);
        }
        if leftovers == Leftovers::Remove && dir.exists() {
            fs::remove_dir_all(&dir).while_doing("remove", &dir)?;
        }
        fs::create_dir_all(&dir).while_doing("create", &dir)?;
        let packages = build(&dir, &progress)?;
        let manifest = Manifest { name: name.to_owned(), seconds: progress.seconds(), packages };
        write_manifest(&dir, &manifest)?;
        progress.step("ready");
        Ok(Artefact { dir, key: key.clone(), manifest })
    }

    fn find(&self, dir: &Path, key: &Key) -> Result<Option<Artefact>> {
        let path = dir.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { action: "read", path, source }),
        };
        let manifest =
            serde_json::from_slice(&text).map_err(|error| Error::Damaged { path, reason: error.to_string() })?;
        Ok(Some(Artefact { dir: dir.to_owned(), key: key.clone(), manifest }))
    }

    /// Held until the file is dropped; the system releases it if this process dies.
    pub(crate) fn lock(&self, name: &str, progress: &Progress) -> Result<File> {
        let path = self.root.join("locks").join(name);
        let file = File::create(&path).while_doing("create", &path)?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                progress.step("waiting for another process that is building it");
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io { action: "lock", path, source });
            }
        }
        file.lock().while_doing("lock", &path)?;
        Ok(file)
    }
}

fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<()> {
    let path = dir.join(MANIFEST);
    let temporary = dir.join("manifest.json.part");
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|error| Error::Damaged { path: path.clone(), reason: error.to_string() })?;
    fs::write(&temporary, text).while_doing("write", &temporary)?;
    fs::rename(&temporary, &path).while_doing("write", &path)
}

fn non_empty(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::at(dir.path()).expect("a cache");
        (dir, cache)
    }

    #[test]
    fn keys_depend_on_where_parts_end() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
        assert_eq!(Key::of(&["ab", "c"]), Key::of(&["ab", "c"]));
    }

    #[test]
    fn an_artefact_is_built_once() {
        let (_dir, cache) = cache();
        let key = Key::of(&["x"]);
        let built = cache.artefact("thing", &key, Leftovers::Remove, |dir, _| {
            fs::write(dir.join("file"), "1").while_doing("write", dir)?;
            Ok(vec![Package { name: "p".into(), version: "1".into() }])
        });
        let built = built.expect("the first build succeeds");
        let again = cache
            .artefact("thing", &key, Leftovers::Remove, |_, _| panic!("built a second time"))
            .expect("the second request finds it");
        assert_eq!(built.dir, again.dir);
        assert_eq!(again.manifest.packages.len(), 1);
    }

    #[test]
    fn a_failed_build_leaves_nothing_that_counts() {
        let (_dir, cache) = cache();
        let key = Key::of(&["x"]);
        let failed = cache.artefact("thing", &key, Leftovers::Keep, |dir, _| {
            fs::write(dir.join("half"), "1").while_doing("write", dir)?;
            Err(Error::NoMirror)
        });
        assert!(matches!(failed, Err(Error::NoMirror)), "{failed:?}");
        let mut seen = false;
        let resumed = cache.artefact("thing", &key, Leftovers::Keep, |dir, _| {
            seen = dir.join("half").exists();
            Ok(Vec::new())
        });
        resumed.expect("the next build succeeds");
        assert!(seen, "Leftovers::Keep did not keep the first attempt's files");
    }

    #[test]
    fn leftovers_are_removed_on_request() {
        let (_dir, cache) = cache();
        let key = Key::of(&["x"]);
        let _ = cache.artefact("thing", &key, Leftovers::Remove, |dir, _| {
            fs::write(dir.join("half"), "1").while_doing("write", dir)?;
            Err(Error::NoMirror)
        });
        let resumed = cache.artefact("thing", &key, Leftovers::Remove, |dir, _| {
            assert!(!dir.join("half").exists(), "the first attempt's files are still there");
            Ok(Vec::new())
        });
        resumed.expect("the next build succeeds");
    }

    #[test]
    fn a_damaged_manifest_is_reported() {
        let (_dir, cache) = cache();
        let key = Key::of(&["x"]);
        let built =
            cache.artefact("thing", &key, Leftovers::Remove, |_, _| Ok(Vec::new())).expect("the build succeeds");
        fs::write(built.dir.join(MANIFEST), "{").expect("the manifest can be overwritten");
        let again = cache.artefact("thing", &key, Leftovers::Remove, |_, _| Ok(Vec::new()));
        assert!(matches!(again, Err(Error::Damaged { .. })), "{again:?}");
    }
}
