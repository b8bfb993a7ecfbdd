// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was given, by the command line or by a file, before it is known to make sense.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use serde::{Deserialize, Serialize};

use super::fault::{Fault, Given, Origin};
use super::source::Source;
use super::{AdminSocket, Config, GuestConfig, Place, common};
use crate::access::{Peers, SocketAccess};
use crate::args::{
    AdminPath, Args, FdGuest, GuestOptions, GuestWeight, HostPressure, PathGuest, PoolUuid, Size, TrustDomain,
};
use crate::sandbox::SeccompMode;
use crate::saving::Saving;

/// Part of the store that is reserved for its guests' persistent pages, the same for each that has
/// no reservation of its own. The other part is for whoever comes first, so that a guest that needs
/// much finds it, and none can take everything.
const RESERVED_SHARE: u64 = 2;

/// Part of the host's memory that the store may use if the operator does not say.
const DEFAULT_SHARE: u64 = 4;

/// Queues of a guest's device, if the operator does not say.
const DEFAULT_QUEUES: u16 = 8;

/// Seconds that the daemon's end may take, if the operator does not say. Service managers wait for
/// 90, by default.
const DEFAULT_END: u16 = 60;

/// Most bytes of a socket's path: what the kernel takes, less the zero behind it.
const LONGEST_PATH: usize = 107;

/// What was given. What was not takes no room where it is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Draft {
    /// Physical bytes of the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<Given<Size>>,
    /// Physical bytes of each guest without a limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_memory_limit: Option<Given<Size>>,
    /// Guests there can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_guests: Option<Given<u16>>,
    /// Queues of each guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<Given<u16>>,
    /// Threads that serve queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<Given<NonZero<u8>>>,
    /// How much is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<Given<LevelFilter>>,
    /// What becomes of a system call without a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Given<SeccompMode>>,
    /// What is done when the host is short of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_pressure: Option<Given<HostPressure>>,
    /// Where reports go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash_directory: Option<Given<PathBuf>>,
    /// Where what guests have is saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_directory: Option<Given<PathBuf>>,
    /// What has the key for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_key: Option<Given<PathBuf>>,
    /// Seconds that it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_timeout: Option<Given<u16>>,
    /// Where newer programs are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_binary: Option<Given<PathBuf>>,
    /// Who may connect to the sockets of guests for which nothing else is said.
    pub socket: SocketAccess,
    /// Where statistics are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats_socket: Option<Given<AdminSocket>>,
    /// Where the operator's commands are heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_socket: Option<Given<AdminSocket>>,
    /// The guests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<DraftGuest>,
    /// There need be none: they can be added later.
    pub may_be_without_guests: bool,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftGuest {
    /// By what it is known.
    pub name: Given<String>,
    /// Where its VMM is met, and where that was given.
    pub place: Given<Place>,
    /// Whose processes may be at the other end.
    pub peers: Peers,
    /// Physical bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<Given<Size>>,
    /// What it can count on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Given<Size>>,
    /// Its part of the memory for ephemeral pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Given<GuestWeight>>,
    /// Whether nothing new is stored for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Given<bool>>,
    /// Shared pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_shared: Vec<PoolUuid>,
    /// With whom it shares these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<Given<TrustDomain>>,
}

impl From<&Args> for Draft {
    fn from(args: &Args) -> Self {
        fn given<T: Clone>(value: &Option<T>) -> Option<Given<T>> {
            value.clone().map(Given::on_command_line)
        }
        let admin = |socket: &Option<AdminPath>| {
            let AdminPath { path, access, peers } = socket.clone()?;
            Some(Given::on_command_line(AdminSocket { path, access, peers }))
        };
        let sockets = args.socket_path.iter().flat_map(|guest| match args.socket_count {
            None => vec![guest.clone()],
            Some(count) => (0..count).map(|number| guest.numbered(number)).collect(),
        });
        let paths = sockets.map(|PathGuest { path, access, options }| {
            (path.display().to_string(), Place::Path { path, access }, options)
        });
        let inherited = args.fd.iter().map(|guest| {
            let FdGuest { socket, options } = guest.clone();
            (format!("fd:{socket}"), Place::Inherited(socket), options)
        });
        let guests = paths.chain(inherited).map(|(name, place, options)| {
            let GuestOptions { memory_limit, reservation, weight, frozen, allow_shared, trust_domain, peers } = options;
            DraftGuest {
                name: Given::on_command_line(name),
                place: Given::on_command_line(place),
                peers,
                memory_limit: given(&memory_limit),
                reservation: given(&reservation),
                weight: given(&weight),
                frozen: given(&frozen),
                allow_shared,
                trust_domain: given(&trust_domain),
            }
        });
        Self {
            memory_limit: given(&args.memory_limit),
            guest_memory_limit: given(&args.guest_memory_limit),
            max_guests: given(&args.max_guests),
            queues: given(&args.queues),
            workers: given(&args.workers),
            log_level: given(&args.log_level),
            seccomp: given(&args.seccomp),
            host_pressure: given(&args.host_pressure),
            crash_directory: given(&args.crash_directory),
            save_directory: given(&args.save_directory),
            save_key: given(&args.save_key),
            save_timeout: given(&args.save_timeout),
            upgrade_binary: given(&args.upgrade_binary),
            socket: SocketAccess { mode: args.socket_mode, owner: args.socket_owner, group: args.socket_group },
            stats_socket: admin(&args.stats_socket),
            control_socket: admin(&args.control_socket),
            guests: guests.collect(),
            may_be_without_guests: false,
        }
    }
}

impl Draft {
    /// This, and what is missing from another one; guests are those of both. Besides, the keys of
    /// the other one that do not count.
    #[must_use]
    pub fn or(self, other: Self) -> (Self, Vec<&'static str>) {
        let mut overridden = Vec::new();
        macro_rules! first {
            ($($field:ident $key:literal),*) => {
                Self {
                    $($field: {
                        if self.$field.is_some() && other.$field.is_some() {
                            overridden.push($key);
                        }
                        self.$field.or(other.$field)
                    },)*
                    socket: self.socket.or(other.socket),
                    guests: self.guests.into_iter().chain(other.guests).collect(),
                    may_be_without_guests: self.may_be_without_guests || other.may_be_without_guests,
                }
            };
        }
        let (mine, theirs) = (&self.socket, &other.socket);
        for (key, is_mine, is_theirs) in [
            ("socket.mode", mine.mode.is_some(), theirs.mode.is_some()),
            ("socket.owner", mine.owner.is_some(), theirs.owner.is_some()),
            ("socket.group", mine.group.is_some(), theirs.group.is_some()),
        ] {
            if is_mine && is_theirs {
                overridden.push(key);
            }
        }
        let draft = first!(
            memory_limit "memory-limit", guest_memory_limit "guest-memory-limit", max_guests "max-guests",
            queues "queues", workers "workers", log_level "log-level", seccomp "seccomp",
            host_pressure "host-pressure",
            crash_directory "crash-directory", upgrade_binary "upgrade-binary",
            save_directory "save-directory", save_key "save-key", save_timeout "save-timeout",
            stats_socket "stats-socket", control_socket "control-socket"
        );
        (draft, overridden)
    }

    /// What it means.
    ///
    /// # Errors
    ///
    /// All that does not go together.
    pub fn settle(self) -> Result<Config, Vec<Fault>> {
        let mut faults = Vec::new();
        self.check_names(&mut faults);
        self.check_sockets(&mut faults);
        self.check_limits(&mut faults);
        self.check_saving(&mut faults);
        if self.guests.is_empty() && !self.may_be_without_guests {
            faults.push(Fault::new(Origin::CommandLine, "There is no guest: give --socket-path, --fd or --config"));
        }
        if let Some(Given { value, at }) = &self.max_guests
            && self.guests.len() > usize::from(*value)
        {
            let text = format!("max-guests is {value}, and there are {} guests", self.guests.len());
            faults.push(Fault::new(*at, text));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let source = Source::unaltered(self.clone());
        let (memory_limit, saving) = (self.store_limit(), self.saving());
        let share = self.share();
        let defaults = self.socket;
        let default_limit = self.guest_memory_limit.as_ref().map(|limit| limit.value.0);
        let guests = self.guests.into_iter().map(|guest| {
            let place = match guest.place.value {
                Place::Path { path, access } => Place::Path { path, access: access.or(defaults) },
                inherited @ Place::Inherited(_) => inherited,
            };
            let memory_limit = guest.memory_limit.map(|limit| limit.value.0).or(default_limit);
            let share = memory_limit.unwrap_or(u64::MAX).min(share);
            GuestConfig {
                name: guest.name.value,
                place,
                peers: guest.peers,
                memory_limit,
                reservation: guest.reservation.map_or(share, |reservation| reservation.value.0),
                weight: guest.weight.map(|weight| weight.value).unwrap_or_default(),
                frozen: guest.frozen.is_some_and(|frozen| frozen.value),
                allow_shared: guest.allow_shared,
                trust_domain: guest.trust_domain.map(|domain| domain.value).unwrap_or_default(),
            }
        });
        Ok(Config {
            memory_limit,
            guests: guests.collect(),
            queues: self.queues.map_or(DEFAULT_QUEUES, |given| given.value),
            workers: self.workers.map(|given| given.value),
            max_guests: self.max_guests.map(|given| given.value),
            log_level: self.log_level.map_or(LevelFilter::Info, |given| given.value),
            seccomp: self.seccomp.map(|given| given.value).unwrap_or_default(),
            host_pressure: self.host_pressure.map(|given| given.value).unwrap_or_default(),
            crash_directory: self.crash_directory.map(|given| given.value).or_else(common::directory_of_systemd),
            saving,
            upgrade_binary: self.upgrade_binary.map(|given| given.value),
            stats_socket: self.stats_socket.map(|given| given.value),
            control_socket: self.control_socket.map(|given| given.value),
            source,
        })
    }

    fn store_limit(&self) -> u64 {
        self.memory_limit.as_ref().map_or_else(default_memory_limit, |limit| limit.value.0)
    }

    /// What is set aside for each guest that has no reservation of its own.
    fn share(&self) -> u64 {
        let own: u64 = self.reservations().map(|given| given.value.0).fold(0, u64::saturating_add);
        let others = self.guests.iter().filter(|guest| guest.reservation.is_none()).count() as u64;
        (self.store_limit() / RESERVED_SHARE).saturating_sub(own) / others.max(1)
    }

    fn reservations(&self) -> impl Iterator<Item = &Given<Size>> {
        self.guests.iter().filter_map(|guest| guest.reservation.as_ref())
    }

    fn check_names(&self, faults: &mut Vec<Fault>) {
        let mut seen = BTreeSet::new();
        for guest in &self.guests {
            if !seen.insert(&guest.name.value) {
                let name = match &guest.place.value {
                    Place::Inherited(socket) => format!("File descriptor {socket}"),
                    Place::Path { .. } => guest.name.value.clone(),
                };
                faults.push(Fault::new(guest.name.at, format!("{name} is given twice")));
            }
        }
    }

    fn check_sockets(&self, faults: &mut Vec<Fault>) {
        let guests = self.guests.iter().filter_map(|guest| match &guest.place.value {
            Place::Path { path, .. } => Some((path, guest.place.at)),
            Place::Inherited(_) => None,
        });
        let admin = [&self.stats_socket, &self.control_socket].into_iter().flatten();
        let mut seen = BTreeSet::new();
        for (path, at) in guests.chain(admin.map(|given| (&given.value.path, given.at))) {
            if !seen.insert(path) {
                faults.push(Fault::new(at, format!("{} is given twice", path.display())));
            }
            let length = path.as_os_str().len();
            if length > LONGEST_PATH {
                let text = format!("{}: {length} bytes are too long for a socket's path", path.display());
                faults.push(Fault::new(at, text));
            }
        }
        let mut seen = BTreeSet::new();
        for guest in &self.guests {
            if let Place::Inherited(socket) = &guest.place.value
                && !seen.insert(socket)
                && guest.place.at != Origin::CommandLine
            {
                faults.push(Fault::new(guest.place.at, format!("the socket {socket} is given twice")));
            }
        }
        let paths = [&self.crash_directory, &self.upgrade_binary, &self.save_directory, &self.save_key];
        for given in paths.into_iter().flatten() {
            if given.value.to_str().is_none() {
                faults.push(Fault::new(given.at, format!("{} is not valid UTF-8", given.value.display())));
            }
        }
    }

    /// Pages of guests go to no disk as they are.
    fn check_saving(&self, faults: &mut Vec<Fault>) {
        match (&self.save_directory, &self.save_key, &self.save_timeout) {
            (Some(directory), None, _) => {
                let text = "save-directory takes save-key: what guests have is not written to a disk without a key";
                faults.push(Fault::new(directory.at, text));
            }
            (None, Some(Given { at, .. }), _) | (None, None, Some(Given { at, .. })) => {
                faults.push(Fault::new(*at, "save-key and save-timeout mean nothing without save-directory"));
            }
            _ => {}
        }
    }

    fn saving(&self) -> Option<Saving> {
        let (directory, key) = self.save_directory.as_ref().zip(self.save_key.as_ref())?;
        let seconds = self.save_timeout.as_ref().map_or(DEFAULT_END, |given| given.value);
        let timeout = Duration::from_secs(seconds.into());
        Some(Saving { directory: directory.value.clone(), key: key.value.clone(), timeout })
    }

    fn check_limits(&self, faults: &mut Vec<Fault>) {
        let store = self.store_limit();
        let mut sum = 0u64;
        for guest in &self.guests {
            let Some(Given { value: Size(bytes), at }) = guest.reservation else { continue };
            let limit = guest.memory_limit.as_ref().or(self.guest_memory_limit.as_ref()).map(|limit| limit.value.0);
            if let Some(limit) = limit.filter(|limit| bytes > *limit) {
                let text = format!("a reservation of {bytes} bytes is more than the guest's limit of {limit}");
                faults.push(Fault::new(at, text));
            }
            let before = sum;
            sum = sum.saturating_add(bytes);
            if before <= store && sum > store {
                let text = format!("reservations up to this one are {sum} bytes, and the store's limit is {store}");
                faults.push(Fault::new(at, text));
            }
        }
    }
}

fn default_memory_limit() -> u64 {
    let info = rustix::system::sysinfo();
    // The kernel's types differ between architectures.
    #[allow(clippy::useless_conversion)]
    let total = u64::from(info.totalram).saturating_mul(info.mem_unit.into());
    total / DEFAULT_SHARE
}
