// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The command line.

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};
use log::LevelFilter;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;
use zcache_store::{NoWeight, Weight};

use crate::access::{Group, Owner, Peers, SocketAccess, SocketMode};
use crate::config::common::Common;
use crate::sandbox::SeccompMode;

/// Most queues of a device. QEMU's and Cloud Hypervisor's generic devices take no more.
pub const MAX_QUEUES: u16 = 64;

/// Most seconds that the daemon's end may be let take.
pub const LONGEST_END: u16 = 3600;

/// Most guests of one daemon.
pub const MAX_GUESTS: u16 = 4096;

/// Keeps evicted guest pages compressed in host memory (vhost-user back-end)
///
/// One daemon serves many guests: give one socket for each, here or in a file (--config). What is
/// given here goes before what the file says. A guest's socket may be followed by options,
/// separated by commas:
///
///   memory-limit=SIZE   physical bytes this guest may use
///   reservation=SIZE    of these, what it can count on for its swap [default: a fair part of half
///                       the --memory-limit]
///   weight=N            its part of the memory for file pages beside other guests', from 1 to
///                        10000
///                       [default: 100]
///   frozen=true|false   store nothing new for it [default: false]
///   allow-shared=UUID   a shared pool this guest may join (repeatable)
///   trust-domain=NAME   the guests with which it shares these pools, if they may join them, too:
///                       those of the same domain [default: default]
///   peer=USER           user whose processes may be at the other end, by name or number, whatever
///                       the mode says (repeatable)
///   mode=MODE           who may connect to the socket, as an octal number [default: 0600, or
///                       0660 if there is a group]
///   owner=USER          user the socket belongs to, by name or number
///   group=GROUP         group the socket belongs to, by name or number
#[derive(Debug, Parser)]
#[command(version, verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Something else than to be the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Read guests and settings from a file as well, and again at SIGHUP or by
    /// `vhost-zcache reload`; docs/configuration.md has its keys
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Listen for a guest's VMM at PATH (repeatable)
    #[arg(long, value_name = "PATH[,OPTION]...")]
    pub socket_path: Vec<PathGuest>,

    /// Listen at N paths in place of each PATH: PATH0, PATH1 and so on, each for a guest with the
    /// options that follow PATH
    #[arg(long, value_name = "N", requires = "socket_path")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_GUESTS)))]
    pub socket_count: Option<u16>,

    /// Serve a guest on an inherited socket, listening or connected, by its number, or by the name
    /// that a service manager gives with it (repeatable)
    #[arg(long, alias = "socket-fd", value_name = "N|NAME[,OPTION]...")]
    pub fd: Vec<FdGuest>,

    /// Print what this back-end is and can do as JSON, and exit
    #[arg(long)]
    pub print_capabilities: bool,

    /// Physical bytes that all guests together may use [default: a quarter of the host's memory]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<Size>,

    /// Physical bytes that each guest without a limit of its own may use [default: no limit but
    /// --memory-limit]
    #[arg(long, value_name = "SIZE")]
    pub guest_memory_limit: Option<Size>,

    /// Guests there can be without a restart [default: 16 more than there are at the start]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_GUESTS)))]
    pub max_guests: Option<u16>,

    /// Request queues of each guest's device [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_QUEUES)))]
    pub queues: Option<u16>,

    /// Threads that serve queues [default: one for each processor, at most 16]
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZero<u8>>,

    /// Mode of the guests' sockets that are not given one
    #[arg(long, value_name = "MODE")]
    pub socket_mode: Option<SocketMode>,

    /// User to whom guests' sockets belong that are not given one [default: the daemon's]
    #[arg(long, value_name = "USER")]
    pub socket_owner: Option<Owner>,

    /// Group to which guests' sockets belong that are not given one, so that VMMs of another user
    /// can connect [default: the daemon's]
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<Group>,

    /// Answer each connection at PATH with one JSON document of statistics; peer, mode, owner and
    /// group may follow as for a guest's socket
    #[arg(long, value_name = "PATH[,OPTION]...")]
    pub stats_socket: Option<AdminPath>,

    /// Do what `vhost-zcache upgrade` and `vhost-zcache reload` ask for at PATH; peer, mode, owner
    /// and group may follow
    #[arg(long, value_name = "PATH[,OPTION]...")]
    pub control_socket: Option<AdminPath>,

    /// How much to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LevelFilter>,

    /// Write a report to a file in DIRECTORY when a worker process has died; the newest 16 are
    /// kept [default: systemd's $STATE_DIRECTORY or $LOGS_DIRECTORY, else there is only the log]
    #[arg(long, value_name = "DIRECTORY")]
    pub crash_directory: Option<PathBuf>,

    /// Write what guests have swapped out to files in DIRECTORY at SIGTERM and SIGINT, and take it
    /// back at the next start; takes --save-key [default: it is lost]
    #[arg(long, value_name = "DIRECTORY")]
    pub save_directory: Option<PathBuf>,

    /// File with the key of these files: 32 random bytes, or 64 hexadecimal digits, that nobody
    /// else may read
    #[arg(long, value_name = "FILE")]
    pub save_key: Option<PathBuf>,

    /// How long the end may take for it; what is not written then is lost [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=i64::from(LONGEST_END)))]
    pub save_timeout: Option<u16>,

    /// Program of which the worker process is made anew at SIGUSR2 or by
    /// `vhost-zcache upgrade` [default: the daemon's own path]
    #[arg(long, value_name = "PATH")]
    pub upgrade_binary: Option<PathBuf>,

    /// What happens when the daemon makes a system call that it has no rule for [default: kill]
    #[arg(long, value_name = "ACTION", value_enum)]
    pub seccomp: Option<SeccompMode>,

    /// What happens when the host is short of memory: give-back, in steps, file pages of guests
    /// beyond their reservations; or ignore [default: give-back]
    #[arg(long, value_name = "ACTION", value_enum)]
    pub host_pressure: Option<HostPressure>,

    /// What the keeper tells the processes that it is made of, before they hear anything
    #[arg(long, value_name = "JSON", hide = true)]
    pub common: Option<Common>,

    /// Be the worker of the keeper at the other end of this inherited socket, and hold the files
    /// that follow
    #[arg(long, value_name = "N", hide = true, value_delimiter = ',')]
    pub worker_link: Vec<i32>,

    /// Start processes for the keeper at the other end of this inherited socket
    #[arg(long, value_name = "N", hide = true)]
    pub spawner_link: Option<i32>,

    /// Read the configuration for the keeper at the other end of this inherited socket
    #[arg(long, value_name = "N", hide = true)]
    pub reader_link: Option<i32>,

    /// Save states, and read them, for the keeper at the other end of this inherited socket
    #[arg(long, value_name = "N", hide = true)]
    pub saver_link: Option<i32>,

    /// Write the report that is on standard input to a file in this directory
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub write_crash_report: Option<PathBuf>,
}

/// What the program can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Have a running daemon take the program that is at its path now, and wait until it has
    ///
    /// Says in one line which release serves guests from now on, or why it is not the newer one;
    /// then nothing has changed, and the exit status is not zero.
    Upgrade {
        /// The daemon's --control-socket
        #[arg(long, value_name = "PATH")]
        control_socket: PathBuf,
    },

    /// Have a running daemon read its --config again, and wait until it goes by it
    ///
    /// All of it is taken, or nothing. Says what has changed; or, one line for each fault, why
    /// nothing has, and then the exit status is not zero.
    Reload {
        /// The daemon's --control-socket
        #[arg(long, value_name = "PATH")]
        control_socket: PathBuf,

        /// End the connections of guests that the file does not have any more, whose pages go
        #[arg(long)]
        disconnect: bool,
    },

    /// Look whether a daemon would take a file as its --config
    ///
    /// One line for each fault: file, line, column, what is wrong. The exit status is 0 for a file
    /// without a fault, 1 for others, and 2 if it cannot be read.
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Why an argument is not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArgError {
    /// No number, an unknown suffix, or more than 2^64 bytes.
    #[error("a size is a number of bytes, or a number followed by K, M, G or T")]
    Size,
    /// A size of zero.
    #[error("a limit of zero would keep nothing")]
    Zero,
    /// No path or number before the options.
    #[error("the socket is missing")]
    NoSocket,
    /// No descriptor's number or name.
    #[error("a file descriptor is a number from 3 on, or a name of one that begins with a letter")]
    Descriptor,
    /// An unknown option of a guest.
    #[error(
        "{0:?} is not an option here; for guests there are memory-limit=SIZE, reservation=SIZE, weight=N, frozen=BOOL, \
         allow-shared=UUID and trust-domain=NAME, for sockets peer=USER, and with a path mode=MODE, owner=USER and \
         group=GROUP"
    )]
    Option(String),
    /// An option of a guest with a wrong value.
    #[error("{option}: {error}")]
    Value {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with it.
        error: String,
    },
}

/// What is done when the host is short of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum HostPressure {
    /// It gets some of what can be dropped.
    #[default]
    GiveBack,
    /// Nothing.
    Ignore,
}

/// Number of bytes, greater than zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let (digits, shift) = match text.char_indices().last() {
            Some((end, 'K' | 'k')) => (&text[..end], 10),
            Some((end, 'M' | 'm')) => (&text[..end], 20),
            Some((end, 'G' | 'g')) => (&text[..end], 30),
            Some((end, 'T' | 't')) => (&text[..end], 40),
            _ => (text, 0),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ArgError::Size);
        }
        let number: u64 = digits.parse().map_err(|_| ArgError::Size)?;
        match number.checked_mul(1 << shift) {
            Some(0) => Err(ArgError::Zero),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(ArgError::Size),
        }
    }
}

impl Args {
    /// Whether this is to be one of the processes that the keeper starts.
    #[must_use]
    pub fn is_part(&self) -> bool {
        let links = [self.spawner_link, self.reader_link, self.saver_link];
        !self.worker_link.is_empty() || links.iter().any(Option::is_some) || self.write_crash_report.is_some()
    }
}

/// What follows a guest's socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestOptions {
    /// Physical bytes the guest may use.
    pub memory_limit: Option<Size>,
    /// What it can count on for persistent pages.
    pub reservation: Option<Size>,
    /// Its part of the memory for ephemeral pages.
    pub weight: Option<GuestWeight>,
    /// Nothing new is stored for it.
    pub frozen: Option<bool>,
    /// UUIDs of shared pools it may join.
    pub allow_shared: Vec<PoolUuid>,
    /// With whom it shares these.
    pub trust_domain: Option<TrustDomain>,
    /// Whose processes may be at the other end.
    pub peers: Peers,
}

impl GuestOptions {
    /// Takes `NAME=VALUE` if it is an option of a guest's; whether it is.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, ArgError> {
        match name {
            "memory-limit" => self.memory_limit = Some(parse("memory-limit", value)?),
            "reservation" => self.reservation = Some(parse("reservation", value)?),
            "weight" => self.weight = Some(parse("weight", value)?),
            "frozen" => self.frozen = Some(parse("frozen", value)?),
            "allow-shared" => self.allow_shared.push(parse("allow-shared", value)?),
            "trust-domain" => self.trust_domain = Some(parse("trust-domain", value)?),
            "peer" => self.peers.add(parse("peer", value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A guest's part of the memory for ephemeral pages, beside others'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct GuestWeight(pub Weight);

impl TryFrom<u16> for GuestWeight {
    type Error = NoWeight;

    fn try_from(number: u16) -> Result<Self, NoWeight> {
        Weight::try_from(number).map(Self)
    }
}

impl From<GuestWeight> for u16 {
    fn from(weight: GuestWeight) -> Self {
        weight.0.into()
    }
}

impl FromStr for GuestWeight {
    type Err = NoWeight;

    fn from_str(text: &str) -> Result<Self, NoWeight> {
        Self::try_from(text.parse::<u16>().map_err(|_| NoWeight)?)
    }
}

/// Names a shared pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolUuid(pub [u8; 16]);

impl FromStr for PoolUuid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<Uuid>() {
            Ok(uuid) if uuid.is_nil() => Err("the zero UUID names no pool".into()),
            Ok(uuid) => Ok(Self(uuid.into_bytes())),
            Err(_) => Err(format!("{text:?} is not a UUID")),
        }
    }
}

/// Most characters of a trust domain's name.
pub(crate) const LONGEST_DOMAIN: usize = 64;

/// Name of guests that may share pools with each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustDomain(pub String);

impl Default for TrustDomain {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for TrustDomain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if (1..=LONGEST_DOMAIN).contains(&text.len()) && text.chars().all(is_plain) {
            Ok(Self(text.into()))
        } else {
            Err(format!("{text:?} is not of 1 to {LONGEST_DOMAIN} letters, digits, '-', '_' and '.'"))
        }
    }
}

impl SocketAccess {
    /// Takes `NAME=VALUE` if it is an option of a socket's; whether it is.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, ArgError> {
        match name {
            "mode" => self.mode = Some(parse("mode", value)?),
            "owner" => self.owner = Some(parse("owner", value)?),
            "group" => self.group = Some(parse("group", value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn parse<T: FromStr<Err: ToString>>(option: &'static str, value: &str) -> Result<T, ArgError> {
    value.parse().map_err(|error: T::Err| ArgError::Value { option, error: error.to_string() })
}

/// Parses `SOCKET[,OPTION]...`: gives each option to `take`, which says whether it is one, and
/// returns the socket.
fn split(text: &str, mut take: impl FnMut(&str, &str) -> Result<bool, ArgError>) -> Result<&str, ArgError> {
    let mut parts = text.split(',');
    let socket = parts.next().filter(|s| !s.is_empty()).ok_or(ArgError::NoSocket)?;
    for part in parts {
        let unknown = || ArgError::Option(part.into());
        let (name, value) = part.split_once('=').ok_or_else(unknown)?;
        if !take(name, value)? {
            return Err(unknown());
        }
    }
    Ok(socket)
}

/// A guest that connects to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGuest {
    /// Path of the socket.
    pub path: PathBuf,
    /// Who may connect.
    pub access: SocketAccess,
    /// Options of the guest.
    pub options: GuestOptions,
}

impl PathGuest {
    /// One of several guests: its number follows the path.
    #[must_use]
    pub fn numbered(&self, number: u16) -> Self {
        let mut path = self.path.clone().into_os_string();
        path.push(number.to_string());
        Self { path: path.into(), ..self.clone() }
    }
}

impl FromStr for PathGuest {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let (mut options, mut access) = (GuestOptions::default(), SocketAccess::default());
        let path = split(text, |name, value| Ok(options.take(name, value)? || access.take(name, value)?))?.into();
        Ok(Self { path, access, options })
    }
}

/// A socket for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminPath {
    /// Path of the socket.
    pub path: PathBuf,
    /// Who may connect.
    pub access: SocketAccess,
    /// Whose processes may be at the other end.
    pub peers: Peers,
}

impl FromStr for AdminPath {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let (mut access, mut peers) = (SocketAccess::default(), Peers::default());
        let path = split(text, |name, value| match name {
            "peer" => parse("peer", value).map(|user| peers.add(user)).map(|()| true),
            _ => access.take(name, value),
        })?;
        Ok(Self { path: path.into(), access, peers })
    }
}

/// A socket that the process has inherited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Handed {
    /// By its number, 3 or more.
    Number(i32),
    /// By the name that a service manager has given with it.
    Name(String),
}

impl FromStr for Handed {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        if let Ok(number) = text.parse() {
            return if number > 2 { Ok(Self::Number(number)) } else { Err(ArgError::Descriptor) };
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_plain);
        if is_name { Ok(Self::Name(text.into())) } else { Err(ArgError::Descriptor) }
    }
}

impl fmt::Display for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A guest on an inherited socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdGuest {
    /// The socket.
    pub socket: Handed,
    /// Options of the guest.
    pub options: GuestOptions,
}

impl FromStr for FdGuest {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let mut options = GuestOptions::default();
        let socket = split(text, |name, value| options.take(name, value))?.parse()?;
        Ok(Self { socket, options })
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

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1", 1),
            ("4096", 4096),
            ("3k", 3 << 10),
            ("512M", 512 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
            ("16777215T", 16_777_215 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "M", "-1", "+1", "1.5G", "1GB", "1 G", "16777216T", "0x10", "1é"] {
            assert_eq!(text.parse::<Size>(), Err(ArgError::Size), "{text:?}");
        }
        assert_eq!("0".parse::<Size>(), Err(ArgError::Zero));
        assert_eq!("0G".parse::<Size>(), Err(ArgError::Zero));
    }

    #[test]
    fn guests_with_options() {
        let guest: PathGuest = "/run/a.sock,memory-limit=1G,\
                                allow-shared=00112233-4455-6677-8899-aabbccddeeff,\
                                allow-shared=ffffffffffffffffffffffffffffffff"
            .parse()
            .unwrap();
        assert_eq!(guest.path, PathBuf::from("/run/a.sock"));
        assert_eq!(guest.options.memory_limit, Some(Size(1 << 30)));
        assert_eq!(
            guest.options.allow_shared,
            [[0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff], [0xff; 16]]
                .map(PoolUuid)
        );
        assert_eq!("7".parse::<FdGuest>().unwrap().socket, Handed::Number(7));
        assert_eq!("web1,memory-limit=1".parse::<FdGuest>().unwrap().socket, Handed::Name("web1".into()));
        let guest: PathGuest = "a,mode=0660,owner=root,memory-limit=1,group=0".parse().unwrap();
        assert_eq!(guest.access.mode, Some("660".parse().unwrap()));
        assert_eq!(
            (guest.access.owner, guest.access.group),
            (Some("0".parse().unwrap()), Some("root".parse().unwrap()))
        );
    }

    #[test]
    fn wrong_guests() {
        for text in ["", ",memory-limit=1G"] {
            assert_eq!(text.parse::<PathGuest>(), Err(ArgError::NoSocket), "{text:?}");
        }
        let error = "7,mode=0660".parse::<FdGuest>().unwrap_err();
        assert!(matches!(error, ArgError::Option(_)), "an inherited socket has the mode it has: {error}");
        for text in ["a,", "a,limit=1G", "a,memory-limit", "a, memory-limit=1G"] {
            let error = text.parse::<PathGuest>().unwrap_err();
            assert!(matches!(error, ArgError::Option(_)), "{text:?}: {error}");
        }
        for text in [
            "a,memory-limit=",
            "a,memory-limit=0",
            "a,allow-shared=1",
            "a,mode=rw",
            "a,owner=nobody that I know",
            "a,group=",
            "a,peer=nobody that I know",
            "a,allow-shared=\
                      00000000-0000-0000-0000-000000000000",
        ] {
            let error = text.parse::<PathGuest>().unwrap_err();
            assert!(matches!(error, ArgError::Value { .. }), "{text:?}: {error}");
        }
        for text in ["x y", "2", "-1", "4294967296", "-x"] {
            assert_eq!(text.parse::<FdGuest>(), Err(ArgError::Descriptor), "{text:?}");
        }
    }
}
