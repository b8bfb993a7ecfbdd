// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! zcachesetup: filesystems and swap whose pages the host keeps.
//!
//! A static program, which needs `dmsetup`, `modprobe`, `blkid` and, for swap, `mkswap`, `swapon`
//! and `swapoff`; udev if it is there. Each file calls only those below it:
//!
//! | file | what is in it |
//! |---|---|
//! | `arguments` | the command line; `completion` for shells |
//! | `generator` | units for systemd, by the names of `unit_name` |
//! | `boot`, `removal`, `status` | the lines of the table; whether all can go; what there is |
//! | `table` | `/etc/zcachetab` |
//! | `swapnotes` | which swap disk a line has got |
//! | `mapped`, `swapdisk` | devices below `/dev/mapper`; swap disks |
//! | `hiding`, `origin` | the device below: who finds it, whether it is free |
//! | `privilege`, `lock` | who may do something, and when |
//! | `kernel`, `program` | modules; other programs |
//! | `spec`, `block` | how devices are named, and what the kernel says of them |
//! | `values`, `units` | values that are read, and numbers that are written |
//! | `error` | what is said of a failure |

mod arguments;
mod block;
mod boot;
mod completion;
mod error;
mod generator;
mod hiding;
mod kernel;
mod lock;
mod mapped;
mod origin;
mod privilege;
mod program;
mod removal;
mod spec;
mod status;
mod swapdisk;
mod swapnotes;
mod table;
mod unit_name;
mod units;
mod values;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;

use arguments::{Command, Parsed, Swap};
use boot::Selection;
use error::{Error, Result, Voice, failed, print};
use privilege::as_root;
use swapdisk::SwapDisk;

fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().collect();
    let result = if words.first().is_some_and(|name| Path::new(name).ends_with(generator::NAME)) {
        generator::run(words.get(1).map(Path::new))
    } else {
        completion::answer(arguments::Arguments::command);
        match arguments::parse(&words) {
            Ok(Parsed::Command(command)) => execute(command, &Voice::default()),
            Ok(Parsed::Text(text)) => print(&text),
            Err(error) => Err(error),
        }
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error != Error::Said {
        Voice::default().say(&error);
    }
    match error {
        Error::Usage(_) => ExitCode::from(2),
        Error::Failed(_) | Error::Said => ExitCode::FAILURE,
    }
}

fn execute(command: Command, voice: &Voice) -> Result<()> {
    match command {
        Command::Open { put, device, name } => as_root().and_then(|()| mapped::open(&device, &name, put, voice)),
        Command::Close { name } => as_root().and_then(|()| mapped::close(&name)),
        Command::Flush { name } => as_root().and_then(|()| mapped::flush(&name)),
        Command::Resize { name } => as_root().and_then(|()| mapped::resize(&name)),
        Command::Reload { put, name } => as_root().and_then(|()| mapped::reload(&name, put, voice)),
        Command::Status { json, name: Some(name) } => as_root().and_then(|()| status::one(&name, json)),
        Command::Status { json, name: None } => as_root().and_then(|()| status::all(json)),
        Command::Swap(swap) => execute_swap(swap),
        Command::Start { wait, initramfs, root, names, .. } => {
            boot::start(&selection(initramfs, names), wait, root.as_ref())
        }
        Command::Stop { names, .. } => boot::stop(&selection(false, names)),
        Command::Table => boot::list(),
        Command::Removable => as_root().and_then(|()| removal::check()),
    }
}

fn execute_swap(swap: Swap) -> Result<()> {
    match swap {
        Swap::On { backing, size, writethrough, priority } => {
            let options = swapdisk::Options::new(backing, size, writethrough, priority).map_err(Error::Usage)?;
            as_root()?;
            print(&format!("{}\n", SwapDisk::on(&options)?.path()))
        }
        Swap::Off { device } => {
            as_root()?;
            let no_disk =
                || failed(format!("{device}: no such swap disk; those that are there: zcachesetup swap status"));
            swapnotes::turn_off(&SwapDisk::find(&device).ok_or_else(no_disk)?)
        }
        Swap::Status { json } => as_root().and_then(|()| status::swap(json)),
    }
}

fn selection(initramfs: bool, names: Vec<String>) -> Selection {
    match (initramfs, names.is_empty()) {
        (true, _) => Selection::Initramfs,
        (false, true) => Selection::All,
        (false, false) => Selection::Named(names),
    }
}
