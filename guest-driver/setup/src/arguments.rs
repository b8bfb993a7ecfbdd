// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line, and what is said of one that is wrong.

mod mistakes;

use std::ffi::OsString;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};

use crate::completion;
use crate::error::Error;
use crate::spec::Spec;
use crate::values::{Name, Priority, Put, Size, number};

/// All of it at a glance. What each command is for, `zcachesetup COMMAND --help` says.
const USAGE: &str = "\
zcachesetup open [--put evict|read] DEVICE NAME
zcachesetup close NAME
zcachesetup flush NAME
zcachesetup resize NAME
zcachesetup reload [--put evict|read] NAME
zcachesetup status [--json] [NAME]
zcachesetup swap on [--backing DEVICE] [--size SIZE] [--writethrough]
                    [--priority N]
zcachesetup swap off DEVICE
zcachesetup swap status [--json]
zcachesetup start [--wait SECONDS] [--all | --initramfs | NAME...]
                  [--root DEVICE]
zcachesetup stop [--all | NAME...]
zcachesetup table
zcachesetup removable
zcachesetup --help | --version
zcachesetup COMMAND --help
";

/// Filesystems and swap whose pages the host keeps
#[derive(Debug, Parser)]
#[command(
    name = "zcachesetup",
    version,
    disable_help_subcommand = true,
    args_override_self = true,
    override_help = USAGE
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make /dev/mapper/NAME over DEVICE
    Open {
        /// When pages go to the host: as they are evicted, or as they are read
        #[arg(long, value_name = "evict|read", default_value = "evict", allow_hyphen_values = true,
            hide_default_value = true, add = ArgValueCandidates::new(completion::puts))]
        put: Put,
        /// A path, UUID=, LABEL=, PARTUUID= or PARTLABEL=
        #[arg(value_parser = Spec::given, add = ArgValueCompleter::new(completion::paths()))]
        device: Spec,
        /// Letters, digits and ._+-
        #[arg(allow_hyphen_values = true)]
        name: Name,
    },
    /// Remove it; nothing is lost
    Close {
        #[arg(add = ArgValueCandidates::new(completion::devices))]
        name: Name,
    },
    /// Drop all its pages on the host
    Flush {
        #[arg(add = ArgValueCandidates::new(completion::devices))]
        name: Name,
    },
    /// Make it as large as the device below is now; it may be mounted
    Resize {
        #[arg(add = ArgValueCandidates::new(completion::devices))]
        name: Name,
    },
    /// Have pages kept of a device that is uncached, or in another way; it may be mounted
    Reload {
        /// When pages go to the host: as they are evicted, or as they are read
        #[arg(long, value_name = "evict|read", default_value = "evict", allow_hyphen_values = true,
            hide_default_value = true, add = ArgValueCandidates::new(completion::puts))]
        put: Put,
        #[arg(add = ArgValueCandidates::new(completion::devices))]
        name: Name,
    },
    /// What is cached, what that saves and what is wrong
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
        /// All there is to know of this one
        #[arg(value_parser = some, add = ArgValueCandidates::new(completion::devices_and_disks))]
        name: Option<String>,
    },
    /// Swap to the host
    #[command(subcommand)]
    Swap(Swap),
    /// Open the lines of /etc/zcachetab
    Start {
        /// For devices that are not there, all in all
        #[arg(long, value_name = "SECONDS", default_value = "0", hide_default_value = true,
            allow_hyphen_values = true, value_parser = seconds)]
        wait: Duration,
        /// All lines, which is the default
        #[arg(long, conflicts_with_all = ["initramfs", "names"])]
        all: bool,
        /// Those that are marked for it
        #[arg(long, conflicts_with = "names")]
        initramfs: bool,
        /// Print the path of what lies over this device now
        #[arg(long, value_name = "DEVICE", allow_hyphen_values = true, value_parser = root,
            add = ArgValueCompleter::new(completion::paths()))]
        root: Option<Spec>,
        #[arg(value_name = "NAME", value_parser = some, add = ArgValueCandidates::new(completion::lines))]
        names: Vec<String>,
    },
    /// Close the lines of /etc/zcachetab, but those of the initramfs by name only
    Stop {
        /// All lines, which is the default
        #[arg(long, conflicts_with = "names")]
        all: bool,
        #[arg(value_name = "NAME", value_parser = some, add = ArgValueCandidates::new(completion::lines))]
        names: Vec<String>,
    },
    /// Print the lines of /etc/zcachetab as they are understood
    Table,
    /// Fail while anything is in use or wanted at boot
    Removable,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Swap {
    /// Make a swap disk, turn swap on and print its path
    On {
        /// Where pages go that the host does not take; its content is destroyed
        #[arg(long, value_name = "DEVICE", allow_hyphen_values = true, value_parser = Spec::given,
            add = ArgValueCompleter::new(completion::paths()))]
        backing: Option<Spec>,
        /// Bytes, or with K, M or G; as the backing device otherwise
        #[arg(long, allow_hyphen_values = true)]
        size: Option<Size>,
        /// Write each page to the backing device, too
        #[arg(long, action = ArgAction::SetTrue)]
        writethrough: bool,
        /// The swap disk with the highest is used first
        #[arg(long, value_name = "N", allow_hyphen_values = true)]
        priority: Option<Priority>,
    },
    /// Turn swap off and remove the disk
    Off {
        #[arg(value_parser = some, add = ArgValueCandidates::new(completion::disks))]
        device: String,
    },
    /// What the kernel counts of swap disks
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

fn seconds(text: &str) -> Result<Duration, String> {
    number(text).map(Duration::from_secs).ok_or_else(|| "--wait needs seconds".to_owned())
}

fn root(text: &str) -> Result<Spec, String> {
    let Ok(spec) = text.parse();
    if text.is_empty() { Err("--root needs a device".to_owned()) } else { Ok(spec) }
}

/// The name of what is there, whoever gave it.
fn some(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a name is needed, not ''".to_owned()) } else { Ok(text.to_owned()) }
}

/// What came of the words on the command line.
#[derive(Debug)]
pub(crate) enum Parsed {
    Command(Command),
    /// Help or version, to be printed.
    Text(String),
}

pub(crate) fn parse(words: &[OsString]) -> Result<Parsed, Error> {
    match Arguments::try_parse_from(words) {
        Ok(arguments) => Ok(Parsed::Command(arguments.command)),
        Err(error) if !error.use_stderr() => Ok(Parsed::Text(error.render().to_string())),
        Err(error) => Err(Error::Usage(mistakes::message(&error, words))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory as _, Parser as _};

    use super::{Arguments, USAGE};

    #[test]
    fn clap_takes_the_definition() {
        Arguments::command().debug_assert();
    }

    /// What is shown at a glance is what is understood, both ways.
    #[test]
    fn the_usage_has_all_commands_and_options() {
        let mut known = BTreeSet::from(["--help".to_owned(), "--version".to_owned()]);
        let mut pending: Vec<_> =
            Arguments::command().get_subcommands().cloned().map(|sub| ("".to_owned(), sub)).collect();
        while let Some((before, command)) = pending.pop() {
            let name = format!("{before}{}", command.get_name());
            let usage = format!("zcachesetup {name}");
            if command.get_subcommands().next().is_none() {
                assert!(USAGE.lines().any(|line| line.starts_with(&usage)), "'{usage}' is not shown");
            }
            known.extend(command.get_opts().filter_map(|option| Some(format!("--{}", option.get_long()?))));
            pending.extend(command.get_subcommands().cloned().map(|sub| (format!("{name} "), sub)));
        }
        let shown: BTreeSet<_> = USAGE
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .filter(|word| word.starts_with("--"))
            .map(str::to_owned)
            .collect();
        assert_eq!(shown, known);
    }

    /// In a block a command has a line, with a comment behind it; in a sentence, backquotes.
    #[test]
    fn what_documents_tell_to_type_is_understood() {
        let mut seen = 0;
        for (name, text) in [
            ("README.md", include_str!("../../../README.md")),
            ("guest-driver/README.md", include_str!("../../README.md")),
        ] {
            let lines = text.lines().filter(|line| !line.contains('`'));
            let commands = lines.chain(text.split('`').skip(1).step_by(2));
            for command in commands.filter(|command| command.starts_with("zcachesetup ")) {
                let command = command.split(" #").next().unwrap_or_default();
                if let Err(error) = Arguments::try_parse_from(command.split_whitespace()) {
                    panic!("{name} has '{command}', which is not understood: {error}");
                }
                seen += 1;
            }
        }
        assert!(seen >= 10, "of the commands in the documents only {seen} were found");
    }
}
