// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fetches and builds what a test guest is made of: QEMU, kernels, a root disk, the
//! guest driver.
//!
//! Everything goes into one folder outside the checkout, `$ZCACHE_CACHE_DIR` or
//! `${XDG_CACHE_HOME:-$HOME/.cache}/vhost-zcache`, under names that end with a hash of
//! the inputs. What is there is returned at once and without a network; what is not is
//! built first, with progress on stderr. Packages come from the Debian mirror this
//! machine's apt uses (`ZCACHE_DEBIAN_MIRROR` overrides it), checked against Debian's
//! keys, into private folders: nothing is installed, and only whole Debian systems
//! need root. Only a C toolchain
//! has to be there; root gets it installed, others are told the command.
//!
//! ```no_run
//! use zcache_images::{Images, Kernel};
//!
//! let images = Images::open()?;
//! let kernel = images.kernel(Kernel::Classic)?;
//! let mut qemu = images.qemu()?.command();
//! qemu.args(images.accel()?.qemu_args()).arg("-kernel").arg(kernel.image());
//! # Ok::<(), zcache_images::Error>(())
//! ```
//!
//! What the guest expects of its host is in `images/guest/README.md`.

mod accel;
mod apt;
mod cache;
mod command;
mod debian;
mod error;
mod guest;
mod host;
mod kernel;
mod linked;
mod modules;
mod payload;
mod progress;
mod qemu;
mod rootfs;
mod squashfs;
mod tools;
mod trees;

use std::path::{Path, PathBuf};

pub use accel::Accel;
pub use cache::Package;
pub use debian::{Debian, UnknownDebian};
pub use error::{Error, Result};
pub use kernel::{BuiltKernel, Kernel, UnknownKernel, Vmm};
pub use modules::Sabotage;
pub use payload::PayloadFile;
pub use qemu::Qemu;
pub use trees::KernelTree;

/// The word of a kernel command line for a console that QEMU has.
pub(crate) const GUEST_CONSOLE: &str = "console=ttyS0";

/// The kernel command line every guest needs; words may be added.
///
/// Mitigations of processors' faults, and clearing pages that are allocated, take an emulated guest
/// half of its time. What a page had before it was allocated anew is seen better without.
pub const GUEST_CMDLINE: &str = "root=/dev/vda rootfstype=squashfs ro init=/init console=ttyS0 panic=-1 \
                                 mitigations=off init_on_alloc=0";

/// The same for a guest of user-mode Linux.
pub const UML_CMDLINE: &str = "root=/dev/ubda rootfstype=squashfs ro init=/init seccomp=on";

/// The `serial` of the disk with the payload image.
pub const PAYLOAD_SERIAL: &str = "zcache-payload";

/// The `serial` of the disk with the image of `/lib/modules`.
pub const MODULES_SERIAL: &str = "zcache-modules";

/// The name of the virtio-serial port on which the agent takes commands.
pub const AGENT_PORT: &str = "org.zcache.agent";

/// The name of the virtio-serial port on which `zhost` asks the host.
pub const HOST_PORT: &str = "org.zcache.host";

/// The cache of artefacts.
#[derive(Debug, Clone)]
pub struct Images {
    cache: cache::Cache,
}

impl Images {
    /// Opens the cache of this user, creating it when needed.
    pub fn open() -> Result<Self> {
        Ok(Self { cache: cache::Cache::open()? })
    }

    /// Where the artefacts are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.cache.root()
    }

    /// A QEMU with the generic vhost-user device: the machine's own if it has it.
    pub fn qemu(&self) -> Result<Qemu> {
        Qemu::get(&self.cache)
    }

    /// A guest kernel.
    pub fn kernel(&self, kernel: Kernel) -> Result<BuiltKernel> {
        BuiltKernel::get(&self.cache, kernel)
    }

    /// A kernel's image without what a distribution packs it in, which QEMU boots in half the time.
    pub fn unpacked(&self, kernel: &BuiltKernel) -> Result<PathBuf> {
        kernel.unpacked(&self.cache)
    }

    /// The guest's root disk, a squashfs image. Guests may share it.
    pub fn rootfs(&self) -> Result<PathBuf> {
        rootfs::get(&self.cache)
    }

    /// Builds the guest driver in `driver` (the `guest-driver` folder of a checkout, with
    /// `protocol/include` beside it) and returns the folder with its `.ko` files.
    pub fn guest_modules(&self, kernel: &BuiltKernel, driver: &Path, sabotage: Option<Sabotage>) -> Result<PathBuf> {
        modules::get(&self.cache, kernel, driver, sabotage)
    }

    /// The kernels in the cache's folder `trees`, in which others put them.
    pub fn kernel_trees(&self) -> Result<Vec<KernelTree>> {
        KernelTree::all(&self.cache)
    }

    /// Compiles the guest driver in `driver` for a kernel that is not booted.
    pub fn compile_driver(&self, tree: &KernelTree, driver: &Path) -> Result<()> {
        tree.compile(&self.cache, driver)
    }

    /// Compiles a C file to a static program for the guest.
    pub fn guest_program(&self, source: &Path) -> Result<PathBuf> {
        guest::program(&self.cache, source)
    }

    /// Packs files into a disk image that the guest mounts on `/payload`.
    pub fn payload(&self, files: &[PayloadFile]) -> Result<PathBuf> {
        payload::get(&self.cache, files)
    }

    /// The disk of a Debian system that it boots from by itself, with this package installed: an
    /// image in QEMU's own format, to which nobody may write.
    pub fn debian_with(&self, debian: Debian, package: &Path) -> Result<PathBuf> {
        debian.with_package(&self.cache, package)
    }

    /// The packages of a newer kernel for a Debian system, and of its headers.
    pub fn newer_kernel(&self, debian: Debian) -> Result<Vec<PathBuf>> {
        debian.newer_kernel(&self.cache)
    }

    /// The packages of dracut for a Debian system.
    pub fn dracut(&self, debian: Debian) -> Result<Vec<PathBuf>> {
        debian.dracut(&self.cache)
    }

    /// How guests run fastest here. The first call after a boot of the machine tries it
    /// out, which takes up to 10 seconds.
    pub fn accel(&self) -> Result<Accel> {
        Accel::get(&self.cache)
    }
}
