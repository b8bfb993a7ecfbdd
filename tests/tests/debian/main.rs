// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Debian with systemd, GRUB and its own kernel, on a disk that it boots from: the package is
//! installed in it as a user does it, and it is rebooted.
//!
//! | module | what |
//! |---|---|
//! | `system` | what the others share: booting, and what can be said of a device |
//! | `moving` | /srv, swap and then the root filesystem move; the kernel is upgraded; the package is removed; dracut |
//! | `stacked` | LUKS and LVM under and over a device |
//! | `boot` | a passphrase that comes late, disks that are absent, a long table |

mod boot;
mod moving;
mod stacked;
mod system;

/// One test of a name for each release, all with the same body.
macro_rules! on_each_debian {
    ($($(#[$doc:meta])* fn $body:ident;)*) => {$(
        $(#[$doc])*
        mod $body {
            #[test]
            fn extra_on_debian_12() { super::$body(zcache_tests::Debian::Bookworm) }
            #[test]
            fn extra_on_debian_13() { super::$body(zcache_tests::Debian::Trixie) }
        }
    )*};
}
use on_each_debian;
