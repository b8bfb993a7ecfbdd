// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Modules of the kernel.

use std::path::Path;

use crate::error::{Result, failed};
use crate::program;

/// Loads a module, unless it is there; inserted by hand is as good.
pub(crate) fn load(module: &str) -> Result<()> {
    if is_loaded(module) {
        return Ok(());
    }
    let cannot = |why: &str| {
        let why = why.trim_start_matches("modprobe: ");
        failed(format!("cannot load module {module}: {why}; is it built for this kernel? see dkms status"))
    };
    match program::run("modprobe", &[module]) {
        Ok(loaded) if loaded.succeeded() => Ok(()),
        Ok(loaded) => Err(cannot(&loaded.complaint())),
        Err(error) => Err(cannot(&error.to_string())),
    }
}

/// The driver of the host's device. udev usually loads it as the device appears, but not a module
/// that was installed after that. Everything works without it, uncached.
pub(crate) fn load_transport() {
    if !is_loaded("zcache_virtio") {
        let _ = program::run("modprobe", &["-q", "zcache_virtio"]);
    }
}

pub(crate) fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module").join(module).exists()
}
