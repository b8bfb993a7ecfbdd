// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unpatched kernels: the device-mapper target for clean pages and the swap disk, on each of
//! Debian's kernels.
//!
//! | module | what |
//! |---|---|
//! | `volume` | a filesystem on a target, and what can be said of it |
//! | `coherence` | no wrong byte on any filesystem, whatever is done; the controls that show it would be seen |
//! | `hits` | what was evicted is served again |
//! | `changes` | blocks that change without being written are not served |
//! | `pause` | the machine stands still and goes on |
//! | `presence` | the device comes, goes and is lost under files |
//! | `users` | an unprivileged user cannot change what others read |
//! | `images` | filesystems that are only read |
//! | `encrypted` | files that the filesystem encrypts are not cached |
//! | `distrust` | what a filesystem does not believe is read from the disk |
//! | `swap` | the same under swap |
//! | `suspend` | the guest suspends, its device is reset, it is powered off |
//! | `swap_away` | the device is away with swapped pages, and comes back |
//! | `swap_discard` | kernels that do not tell of freed slots |
//! | `swap_memory` | what a drain keeps in the guest's memory |
//! | `swap_room` | no device, or a full one, and no backing device |
//! | `swap_saved` | the daemon ends in good order, and the next one has the pages |
//! | `swap_states` | what counts as lost; looks at the disk from outside |
//! | `swap_take_back` | the host would like to be rid of swapped pages |
//! | `worker` | the daemon's worker dies, and nobody notices |
//! | `worth` | what does not pay is not done |
//! | `setup` | `zcachesetup` |

mod changes;
mod coherence;
mod distrust;
mod encrypted;
mod hits;
mod images;
mod pause;
mod presence;
mod setup;
mod suspend;
mod swap;
mod swap_away;
mod swap_discard;
mod swap_memory;
mod swap_room;
mod swap_saved;
mod swap_states;
mod swap_take_back;
mod swapping;
mod users;
mod volume;
mod worker;
mod worth;

use std::time::Duration;

use zcache_tests::{Kernel, Scenario, VmOptions, scenario};

/// A guest with one of Debian's kernels, of 256 MiB and what the kernel's checks need.
fn guest(kernel: Kernel) -> VmOptions {
    let mut options = VmOptions::new(kernel.name());
    options.kernel = kernel;
    options.always = true;
    if kernel.is_debug() {
        options.memory_mib += 160;
    }
    options
}

/// A scenario with a guest of this kernel: `limit` is for an ordinary one.
fn with_kernel(name: &str, kernel: Kernel, limit: Duration, body: impl FnOnce(&Scenario) -> anyhow::Result<()>) {
    scenario(&format!("stock_{name}_{kernel}"), limit * guest(kernel).patience(), body);
}

/// One test of a name for each of these kernels, all with the same body.
macro_rules! on_kernels {
    ($($(#[$doc:meta])* fn $body:ident: $($name:ident = $kernel:ident),*;)*) => {$(
        $(#[$doc])*
        mod $body {
            $(
                #[test]
                fn $name() { super::$body(zcache_tests::Kernel::$kernel) }
            )*
        }
    )*};
}

/// On Debian's newest kernel, the others with the extra tests.
macro_rules! on_newest_kernel {
    ($($(#[$doc:meta])* fn $body:ident;)*) => {
        crate::on_kernels! {$(
            $(#[$doc])*
            fn $body: extra_on_debian_12 = Debian12, extra_on_debian_13 = Debian13,
                on_debian_13_backports = Debian13Backports;
        )*}
    };
}

/// On the newest as a process of the host, the others with the extra tests.
macro_rules! on_each_release {
    ($($(#[$doc:meta])* fn $body:ident;)*) => {
        crate::on_kernels! {$(
            $(#[$doc])*
            fn $body: extra_on_debian_12 = Debian12, extra_on_debian_13 = Debian13, on_uml = Uml;
        )*}
    };
}
use {on_each_release, on_kernels, on_newest_kernel};
