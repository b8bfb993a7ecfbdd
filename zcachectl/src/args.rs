// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as Group, Parser, Subcommand};
use zcache_admin::api::LogLevel;
use zcache_admin::api::values::{AbsolutePath, Mode, PoolUuid, Size, TrustDomain, User, ValueError, Weight};

/// Where zcache-admin listens, if nobody says.
pub const SOCKET: &str = "/run/vhost-zcache/admin.sock";

/// Shows and changes what a vhost-zcache daemon does
///
/// Sizes are given and shown in bytes, or with K, M, G or T for powers of 1024.
///
/// The exit status is 0 when it was done, 1 when it was refused or a file has faults, 2 for a
/// mistake on the command line or a file that cannot be read, and 3 when there is no daemon to do
/// it.
#[derive(Debug, Parser)]
#[command(name = "zcachectl", version)]
pub struct Args {
    /// Socket of zcache-admin
    #[arg(long, global = true, value_name = "PATH", env = "ZCACHE_ADMIN_SOCKET", default_value = SOCKET)]
    pub socket: PathBuf,

    /// Print the document that was answered, for scripts
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the guests, or one of them
    Guests {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: Option<String>,
    },

    /// Show the pools of a guest, or of all
    Pools {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: Option<String>,
    },

    /// Show totals of the store
    Stats,

    /// Watch what guests do: rates, latencies, refusals, history
    ///
    /// In the view, h says what keys do. Where the output is no terminal it is one table of what
    /// was done within one delay.
    Top(zcache_top::Arguments),

    /// Change limits of the daemon, or limits and rights of a guest
    ///
    /// They hold at once, until the daemon reads its file again; for good they belong there.
    Set {
        /// The guest; without one it is about the daemon
        #[arg(value_name = "GUEST")]
        guest: Option<String>,

        /// What it may use of the host's memory, or `default`
        #[arg(long, value_name = "SIZE")]
        memory_limit: Option<Limit>,

        /// What each guest without a limit of its own may use, or `default`
        #[arg(long, value_name = "SIZE", conflicts_with = "guest")]
        guest_memory_limit: Option<Limit>,

        /// How much the daemon logs
        #[arg(long, value_name = "LEVEL", value_enum, conflicts_with = "guest")]
        log_level: Option<LogLevel>,

        /// What the guest can count on for its swap, or `default`
        #[arg(long, value_name = "SIZE", requires = "guest")]
        reservation: Option<Limit>,

        /// Its part, and what it may do
        #[command(flatten)]
        rights: Rights,
    },

    /// Make a guest, with its socket
    ///
    /// It is there until the daemon reads its file again and does not find it; for good it belongs
    /// there.
    Add {
        /// Its name
        #[arg(value_name = "GUEST")]
        guest: String,

        /// Where its VMM is to connect, in a folder that had a socket of the daemon at its start
        #[arg(value_name = "SOCKET")]
        path: AbsolutePath,

        /// What it may use of the host's memory
        #[arg(long, value_name = "SIZE")]
        memory_limit: Option<Size>,

        /// Of that, what it can count on for its swap
        #[arg(long, value_name = "SIZE")]
        reservation: Option<Size>,

        /// Mode of the socket, as an octal number
        #[arg(long, value_name = "MODE")]
        mode: Option<Mode>,

        /// User to whom the socket belongs
        #[arg(long, value_name = "USER")]
        owner: Option<User>,

        /// Group to which it belongs
        #[arg(long, value_name = "GROUP")]
        group: Option<User>,

        /// Its part, and what it may do
        #[command(flatten)]
        rights: Rights,
    },

    /// Remove a guest, with its socket and all it has stored
    Remove {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,

        /// End its VMM's connection if there is one
        #[arg(long)]
        disconnect: bool,
    },

    /// Have a guest's puts refused; what it has stored stays
    Freeze {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,
    },

    /// End what freeze has begun
    Thaw {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,
    },

    /// Drop a guest's file pages; swapped ones stay
    Flush {
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,

        /// Only those of this pool, by its number
        #[arg(long, value_name = "NUMBER")]
        pool: Option<u32>,
    },

    /// Give memory back to the host
    GiveBack {
        /// How much
        #[arg(value_name = "SIZE")]
        size: Size,
    },

    /// Have the daemon read its file again
    Reload {
        /// End the connections of guests that the file does not have any more, whose pages go
        #[arg(long)]
        disconnect: bool,
    },

    /// Have the daemon take the program that is at its path now
    Upgrade,

    /// Look whether a daemon would take a file as its --config
    ///
    /// One line for each fault: file, line, column, what is wrong. No daemon is asked.
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Who may do what with a guest's device.
#[derive(Debug, Group)]
pub struct Rights {
    /// The guest's part of the memory for file pages, beside other guests' [default: 100]
    #[arg(long, value_name = "N")]
    pub weight: Option<Weight>,

    /// User whose processes may be at the other end of the guest's socket, by name or number
    /// (repeatable); or `default`, for all who can connect
    #[arg(long, value_name = "USER")]
    pub peer: Vec<OrDefault<User>>,

    /// UUID of a shared pool that the guest may join (repeatable); or `default`, for none
    #[arg(long, value_name = "UUID")]
    pub allow_shared: Vec<OrDefault<PoolUuid>>,

    /// The guests with which it shares these: those of the same domain [default: default]
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Option<TrustDomain>,
}

/// A value, or the default in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrDefault<T>(pub Option<T>);

/// A size, or the default in its place.
pub type Limit = OrDefault<Size>;

impl<T: FromStr<Err = ValueError>> FromStr for OrDefault<T> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "default" { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
