// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The configuration file: TOML, whose keys are those of the command line.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZero;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use log::LevelFilter;
use toml::de::DeTable;
use zcache_store::Weight;

use super::draft::{Draft, DraftGuest};
use super::fault::{Fault, Faults, Given};
use super::section::{Page, Section};
use super::{AdminSocket, Place};
use crate::access::{Owner, Peers, SocketAccess};
use crate::args::{GuestWeight, HostPressure, LONGEST_END, MAX_GUESTS, MAX_QUEUES};
use crate::sandbox::SeccompMode;

/// Bytes of a file. 4096 guests with all keys are less.
const MOST_BYTES: u64 = 4 << 20;

/// Most characters of a guest's name.
const LONGEST_NAME: usize = 64;

const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

const ACTIONS: [(&str, SeccompMode); 3] =
    [("kill", SeccompMode::Kill), ("log", SeccompMode::Log), ("none", SeccompMode::None)];

const PRESSURE: [(&str, HostPressure); 2] = [("give-back", HostPressure::GiveBack), ("ignore", HostPressure::Ignore)];

/// An absolute path: one that is relative would depend on where the daemon was started.
struct Absolute(PathBuf);

impl FromStr for Absolute {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let path = Path::new(text);
        if text.contains('\0') {
            Err("a path has no zeros")
        } else if path.is_absolute() {
            Ok(Self(path.into()))
        } else {
            Err("a path in a file begins with /")
        }
    }
}

/// The text of a file.
///
/// # Errors
///
/// When it cannot be read, is too long or is no text.
pub fn read(path: &Path) -> Result<String, Faults> {
    let read = || {
        let mut text = String::new();
        if File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)? as u64 > MOST_BYTES {
            return Err(io::Error::other(format!("it is longer than {MOST_BYTES} bytes")));
        }
        Ok(text)
    };
    read().map_err(|error| Faults::Unreadable(path.into(), error))
}

/// What a file's text says, as far as it makes sense; and where it does not.
#[must_use]
pub fn parse(text: &str) -> (Draft, Vec<Fault>) {
    let mut page = Page::of_file(text);
    let nothing = || Draft { may_be_without_guests: true, ..Draft::default() };
    let Some(table) = page.table() else { return (nothing(), page.faults) };
    let mut top = Section::new(&mut page, table, 0..0);
    let mut draft = Draft {
        memory_limit: top.text_or_number("memory-limit"),
        guest_memory_limit: top.text_or_number("guest-memory-limit"),
        ..settings(&mut top)
    };
    let tables = Tables::of(&mut top);
    top.finish();
    for (name, table, at) in tables.read(&mut page, &mut draft) {
        draft.guests.extend(guest(&mut page, name, table, at));
    }
    draft.may_be_without_guests = true;
    (draft, page.faults)
}

/// Settings that are no limits, and are not in a table.
pub(super) fn settings(top: &mut Section<'_, '_>) -> Draft {
    Draft {
        max_guests: top.number("max-guests", 1, MAX_GUESTS.into()),
        queues: top.number("queues", 1, MAX_QUEUES.into()),
        workers: top.number::<u8>("workers", 1, u8::MAX.into()).and_then(|given| {
            let Given { value, at } = given;
            NonZero::new(value).map(|value| Given { value, at })
        }),
        log_level: top.choice("log-level", &LEVELS),
        seccomp: top.choice("seccomp", &ACTIONS),
        host_pressure: top.choice("host-pressure", &PRESSURE),
        crash_directory: path(top, "crash-directory"),
        save_directory: path(top, "save-directory"),
        save_key: path(top, "save-key"),
        save_timeout: top.number("save-timeout", 1, LONGEST_END.into()),
        upgrade_binary: path(top, "upgrade-binary"),
        ..Draft::default()
    }
}

/// A table, with its place.
type Placed<'a> = (DeTable<'a>, Range<usize>);

/// The tables of a text.
pub(super) struct Tables<'a> {
    socket: Option<Placed<'a>>,
    stats: Option<Placed<'a>>,
    control: Option<Placed<'a>>,
    guests: Vec<(String, DeTable<'a>, Range<usize>)>,
}

impl<'a> Tables<'a> {
    /// Those of a text.
    pub(super) fn of(top: &mut Section<'a, '_>) -> Self {
        Self {
            socket: top.table("socket"),
            stats: top.table("stats-socket"),
            control: top.table("control-socket"),
            guests: top.named_tables("guest"),
        }
    }

    /// Reads those of sockets; guests are left.
    pub(super) fn read(self, page: &mut Page<'a>, draft: &mut Draft) -> Vec<(String, DeTable<'a>, Range<usize>)> {
        if let Some((table, at)) = self.socket {
            let mut section = Section::new(page, table, at);
            draft.socket = access(&mut section);
            section.finish();
        }
        draft.stats_socket = self.stats.and_then(|(table, at)| admin(page, table, at, "stats-socket"));
        draft.control_socket = self.control.and_then(|(table, at)| admin(page, table, at, "control-socket"));
        self.guests
    }
}

pub(super) fn path(section: &mut Section<'_, '_>, key: &'static str) -> Option<Given<PathBuf>> {
    section.text::<Absolute>(key).map(|Given { value, at }| Given { value: value.0, at })
}

pub(super) fn access(section: &mut Section<'_, '_>) -> SocketAccess {
    SocketAccess {
        mode: section.text("mode").map(|given| given.value),
        owner: section.text_or_number("owner").map(|given| given.value),
        group: section.text_or_number("group").map(|given| given.value),
    }
}

pub(super) fn weight(section: &mut Section<'_, '_>) -> Option<Given<GuestWeight>> {
    let Given { value, at } = section.number::<u16>("weight", Weight::LEAST.into(), Weight::MOST.into())?;
    GuestWeight::try_from(value).ok().map(|value| Given { value, at })
}

pub(super) fn peers(section: &mut Section<'_, '_>) -> Peers {
    let mut peers = Peers::default();
    section.list::<Owner>("peers").into_iter().for_each(|user| peers.add(user.value));
    peers
}

fn admin<'a>(
    page: &mut Page<'a>,
    table: DeTable<'a>,
    at: Range<usize>,
    key: &'static str,
) -> Option<Given<AdminSocket>> {
    let mut section = Section::new(page, table, at);
    let path = section.required("path", key, path);
    let (access, peers) = (access(&mut section), peers(&mut section));
    section.finish();
    path.map(|Given { value: path, at }| Given { value: AdminSocket { path, access, peers }, at })
}

/// What is wrong with a guest's name, if anything is.
pub(super) fn fault_of_name(name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain);
    (!is_name || name.len() > LONGEST_NAME).then(|| {
        format!(
            "{name:?} is no name of a guest, which is of at most {LONGEST_NAME} letters, digits, '-', '_' and '.', and \
             begins with a letter or a digit"
        )
    })
}

/// Where a guest's VMM is met.
fn place(section: &mut Section<'_, '_>, name: &str) -> Option<Given<Place>> {
    let is_inherited = section.is_given("fd");
    let fd = section.text_or_number("fd");
    if is_inherited {
        // It has the path, mode and owner that it has: no keys for these.
        return fd.map(|Given { value, at }| Given { value: Place::Inherited(value), at });
    }
    let socket = section.required("socket", &format!("guest.{name}"), path);
    let access = access(section);
    socket.map(|Given { value: path, at }| Given { value: Place::Path { path, access }, at })
}

fn guest<'a>(page: &mut Page<'a>, name: String, table: DeTable<'a>, at: Range<usize>) -> Option<DraftGuest> {
    if let Some(text) = fault_of_name(&name) {
        page.fault(&at, text);
    }
    let mut section = Section::new(page, table, at);
    let place = place(&mut section, &name);
    let peers = peers(&mut section);
    let memory_limit = section.text_or_number("memory-limit");
    let reservation = section.text_or_number("reservation");
    let (weight, frozen) = (weight(&mut section), section.flag("frozen"));
    let allow_shared = section.list("allow-shared").into_iter().map(|given| given.value).collect();
    let trust_domain = section.text("trust-domain");
    let name = Given { value: name, at: section.origin() };
    section.finish();
    place.map(|place| DraftGuest {
        name,
        place,
        peers,
        memory_limit,
        reservation,
        weight,
        frozen,
        allow_shared,
        trust_domain,
    })
}
