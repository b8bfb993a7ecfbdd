// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which kernel a guest gets: `--kernel` and `--vmm` together.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use zcache_tests::{Kernel, Vmm};

/// What runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runner {
    /// A machine of QEMU's
    Qemu,
    /// User-mode Linux, the kernel as a process
    Uml,
}

impl Runner {
    fn vmm(self) -> Vmm {
        match self {
            Self::Qemu => Vmm::Qemu,
            Self::Uml => Vmm::Uml,
        }
    }
}

/// The kernel that was asked for, or the one that is usual for this VMM.
pub(crate) fn kernel(runner: Option<Runner>, kernel: Option<Kernel>, usual: Kernel) -> Result<Kernel> {
    let Some(runner) = runner else { return Ok(kernel.unwrap_or(usual)) };
    let usual = if runner == Runner::Uml { Kernel::Uml } else { usual };
    let kernel = kernel.unwrap_or(usual);
    ensure!(kernel.vmm() == runner.vmm(), "The kernel {kernel} does not run on this VMM");
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vmm_decides_which_kernel_is_usual() {
        let chosen = |runner, asked| kernel(runner, asked, Kernel::Classic).ok();
        assert_eq!(chosen(None, None), Some(Kernel::Classic));
        assert_eq!(chosen(None, Some(Kernel::Uml)), Some(Kernel::Uml));
        assert_eq!(chosen(Some(Runner::Uml), None), Some(Kernel::Uml));
        assert_eq!(chosen(Some(Runner::Qemu), None), Some(Kernel::Classic));
        assert_eq!(chosen(Some(Runner::Uml), Some(Kernel::Debian12)), None);
    }
}
