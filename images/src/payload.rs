// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The disk with what a guest is to test: modules, scripts, programs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use crate::cache::{Cache, Key, Leftovers};
use crate::error::{Error, IoContext as _, Result};
use crate::squashfs;
use crate::tools::Tools;

/// A file for the payload disk, mounted on `/payload` in the guest.
#[derive(Debug, Clone)]
pub struct PayloadFile {
    /// The file on the host. Its permission bits are kept.
    pub source: PathBuf,
    /// Where it goes, relative to `/payload`. What is in `bin` is in the guest's `PATH`.
    pub path: String,
}

/// Packs files into an image, or returns the one packed before.
pub(crate) fn get(cache: &Cache, files: &[PayloadFile]) -> Result<PathBuf> {
    let mut inputs = Vec::new();
    for file in files {
        check(&file.path)?;
        let mode = fs::metadata(&file.source).while_doing("read", &file.source)?.permissions().mode();
        inputs.push(file.path.clone().into_bytes());
        inputs.push(mode.to_le_bytes().to_vec());
        inputs.push(fs::read(&file.source).while_doing("read", &file.source)?);
    }
    let artefact = cache.artefact("payload", &Key::of(&inputs), Leftovers::Remove, |dir, _| {
        let root = dir.join("root");
        fs::create_dir_all(&root).while_doing("create", &root)?;
        for file in files {
            let target = root.join(&file.path);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).while_doing("create", parent)?;
            }
            fs::copy(&file.source, &target).while_doing("copy", &file.source)?;
        }
        let tools = Tools::get(cache)?;
        squashfs::pack(&tools, &root, &dir.join("payload.squashfs"), &dir.join("build.log"))?;
        fs::remove_dir_all(&root).while_doing("remove", &root)?;
        Ok(Vec::new())
    })?;
    Ok(artefact.dir.join("payload.squashfs"))
}

fn check(path: &str) -> Result<()> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if plain && !path.is_empty() { Ok(()) } else { Err(Error::BadPayloadPath(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_mount_point() {
        for good in ["a", "bin/tool", "modules/x.ko"] {
            check(good).unwrap_or_else(|error| panic!("{good:?} was refused: {error}"));
        }
        for bad in ["", "/a", "../a", "a/../b", "./a/.."] {
            assert!(check(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
