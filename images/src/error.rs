// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can go wrong while fetching and building.

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::Kernel;

/// Why an artefact could not be provided.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither `ZCACHE_CACHE_DIR` nor `XDG_CACHE_HOME` nor `HOME` says where to build.
    #[error("there is no cache folder: set ZCACHE_CACHE_DIR, XDG_CACHE_HOME or HOME")]
    NoCacheDir,
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb phrase: `read`, `create`, ...
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program's name.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("{program} failed ({status}):\n{output}")]
    Command {
        /// The program's name.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// Programs or libraries of the host are missing, and this user may not install them.
    #[error("this machine lacks {missing}; run: sudo apt-get install -y {packages}")]
    Prerequisites {
        /// What was looked for.
        missing: String,
        /// The Debian packages that have it.
        packages: String,
    },
    /// The machine's apt configuration names no Debian mirror.
    #[error(
        "apt on this machine is not configured with a Debian mirror; set ZCACHE_DEBIAN_MIRROR to the address of one"
    )]
    NoMirror,
    /// A driver that is changed for a test's control, for a kernel that no control boots.
    #[error("the driver is not built for {kernel} with sabotage={sabotage}")]
    NoControl {
        /// What is changed.
        sabotage: &'static str,
        /// The kernel.
        kernel: Kernel,
    },
    /// None of the places a suite may be in has it.
    #[error(
        "no mirror has {package} from {suite} any more; when Debian has moved the release to its archive, set ZCACHE_DEBIAN_ARCHIVE to the archive's address ({cause})"
    )]
    SuiteGone {
        /// The package that is needed.
        package: &'static str,
        /// The suite it is in.
        suite: &'static str,
        /// What the last attempt said.
        cause: String,
    },
    /// Kconfig did not accept lines of a configuration fragment.
    #[error("the kernel configuration lacks {0}")]
    KernelConfig(String),
    /// The driver uses what a kernel keeps to itself.
    #[error("the kernel does not export {0}")]
    NotExported(String),
    /// A file of the cache does not read as what it should be.
    #[error("{} is damaged ({reason}); remove its folder", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name given by the caller cannot be used inside the guest.
    #[error("{0:?} is not a relative path without '..'")]
    BadPayloadPath(String),
    /// Debian is installed into a folder with its own users.
    #[error("a Debian system is installed by root; run this as root once, its result is kept")]
    NeedsRoot,
    /// A step of a Debian system's making that runs in a guest did not come to its end.
    #[error("{step} failed in the guest; its console ends with:\n{console}")]
    Step {
        /// What was to be done.
        step: &'static str,
        /// The end of what the console printed.
        console: String,
    },
    /// QEMU was built or found, but lacks the device the tests need.
    #[error("{0} has no vhost-user-test-device-pci")]
    QemuLacksDevice(String),
}

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Says what was being done when an [`io::Error`] came up.
pub(crate) trait IoContext<T> {
    fn while_doing(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn while_doing(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source })
    }
}
