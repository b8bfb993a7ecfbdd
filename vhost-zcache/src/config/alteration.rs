// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the operator wants to be another while the daemon runs: a text like that of a file, with
//! the keys that are to be others. A limit may be `"default"`, as if nothing had been said.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::Place;
use super::draft::{Draft, DraftGuest};
use super::fault::{Fault, Given};
use super::file::{Tables, access, path, peers, settings, weight};
use super::section::{Page, Section};
use crate::access::{Peers, SocketAccess};
use crate::args::{GuestWeight, PoolUuid, Size, TrustDomain};

/// A limit, or the default in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// As if nothing had been said.
    Default,
    /// So many bytes.
    Is(Size),
}

impl FromStr for Wanted {
    type Err = <Size as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "default" { Ok(Self::Default) } else { text.parse().map(Self::Is) }
    }
}

impl Wanted {
    /// What is to be given.
    fn given(wanted: Given<Self>) -> Option<Given<Size>> {
        let Given { value, at } = wanted;
        match value {
            Self::Default => None,
            Self::Is(value) => Some(Given { value, at }),
        }
    }
}

/// A limit of the daemon's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Limit {
    /// Of the store.
    Memory,
    /// Of each guest without one of its own.
    GuestMemory,
}

impl Limit {
    /// It in a draft.
    pub fn of(self, draft: &mut Draft) -> &mut Option<Given<Size>> {
        match self {
            Self::Memory => &mut draft.memory_limit,
            Self::GuestMemory => &mut draft.guest_memory_limit,
        }
    }
}

/// What a text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Settings with other values, without guests.
    pub settings: Draft,
    /// Limits that have their defaults.
    pub cleared: BTreeSet<Limit>,
    /// Guests.
    pub guests: Vec<GuestPatch>,
}

/// What is said of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestPatch {
    /// Its name.
    pub name: Given<String>,
    socket: Option<Given<PathBuf>>,
    access: SocketAccess,
    peers: Option<Peers>,
    memory_limit: Option<Given<Wanted>>,
    reservation: Option<Given<Wanted>>,
    weight: Option<Given<GuestWeight>>,
    frozen: Option<Given<bool>>,
    allow_shared: Option<Vec<PoolUuid>>,
    trust_domain: Option<Given<TrustDomain>>,
}

/// What a text says, as far as it makes sense; and where it does not.
#[must_use]
pub fn parse(text: &str) -> (Patch, Vec<Fault>) {
    let mut page = Page::of_alteration(text);
    let nothing = || Patch { settings: Draft::default(), cleared: BTreeSet::new(), guests: Vec::new() };
    let Some(table) = page.table() else { return (nothing(), page.faults) };
    let mut patch = nothing();
    let mut top = Section::new(&mut page, table, 0..0);
    let limits = [(Limit::Memory, "memory-limit"), (Limit::GuestMemory, "guest-memory-limit")];
    let limits = limits.map(|(limit, key)| (limit, top.text_or_number::<Wanted>(key)));
    patch.settings = settings(&mut top);
    for (limit, wanted) in limits {
        let Some(wanted) = wanted else { continue };
        let given = Wanted::given(wanted);
        if given.is_none() {
            patch.cleared.insert(limit);
        }
        *limit.of(&mut patch.settings) = given;
    }
    let tables = Tables::of(&mut top);
    top.finish();
    for (name, table, at) in tables.read(&mut page, &mut patch.settings) {
        patch.guests.push(guest(&mut page, name, table, at));
    }
    (patch, page.faults)
}

fn guest<'a>(page: &mut Page<'a>, name: String, table: DeTable<'a>, at: Range<usize>) -> GuestPatch {
    let before = page.faults.len();
    let mut section = Section::new(page, table, at);
    let has_peers = section.is_given("peers");
    let has_pools = section.is_given("allow-shared");
    let patch = GuestPatch {
        name: Given { value: name, at: section.origin() },
        socket: path(&mut section, "socket"),
        access: access(&mut section),
        peers: Some(peers(&mut section)).filter(|_| has_peers),
        memory_limit: section.text_or_number("memory-limit"),
        reservation: section.text_or_number("reservation"),
        weight: weight(&mut section),
        frozen: section.flag("frozen"),
        allow_shared: Some(section.list("allow-shared").into_iter().map(|given| given.value).collect())
            .filter(|_| has_pools),
        trust_domain: section.text("trust-domain"),
    };
    section.finish();
    // There is no line that would say whose it is.
    for fault in &mut page.faults[before..] {
        *fault = Fault::new(fault.at, in_guest(&patch.name.value, &fault.text));
    }
    patch
}

/// A fault of a guest.
pub(super) fn in_guest(name: &str, text: impl Display) -> String {
    format!("guest.{name}: {text}")
}

impl GuestPatch {
    /// A guest that has these keys and no others; the socket, if it is not said, is that of the one
    /// that is there.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn whole(self, known: Option<&DraftGuest>) -> Result<DraftGuest, Fault> {
        let place = match (&self.socket, known.map(|known| &known.place)) {
            (Some(Given { value: path, at }), known) => {
                // One that is there has the mode that it has, if nothing is said of it.
                let before = known.and_then(|known| match &known.value {
                    Place::Path { access, .. } => Some(*access),
                    Place::Inherited(_) => None,
                });
                let access = self.access.or(before.unwrap_or_default());
                Given { value: Place::Path { path: path.clone(), access }, at: *at }
            }
            (None, Some(place)) => place.clone(),
            (None, None) => {
                let text = "it has no socket: say where its VMM connects (socket)";
                return Err(Fault::new(self.name.at, in_guest(&self.name.value, text)));
            }
        };
        let empty = DraftGuest {
            name: self.name.clone(),
            place,
            peers: Peers::default(),
            memory_limit: None,
            reservation: None,
            weight: None,
            frozen: None,
            allow_shared: Vec::new(),
            trust_domain: None,
        };
        self.laid_over(empty)
    }

    /// A guest with these keys in place of its own.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn laid_over(self, mut guest: DraftGuest) -> Result<DraftGuest, Fault> {
        let at = self.name.at;
        let has_access = self.access != SocketAccess::default();
        match (&mut guest.place.value, self.socket) {
            (Place::Inherited(_), socket) if socket.is_some() || has_access => {
                let text = "its socket was inherited, and stays as it is";
                return Err(Fault::new(at, in_guest(&self.name.value, text)));
            }
            (Place::Inherited(_), _) => {}
            (Place::Path { path, access }, socket) => {
                *access = self.access.or(*access);
                if let Some(socket) = socket {
                    *path = socket.value;
                    guest.place.at = socket.at;
                }
            }
        }
        if let Some(peers) = self.peers {
            guest.peers = peers;
        }
        if let Some(pools) = self.allow_shared {
            guest.allow_shared = pools;
        }
        if let Some(limit) = self.memory_limit {
            guest.memory_limit = Wanted::given(limit);
        }
        if let Some(reservation) = self.reservation {
            guest.reservation = Wanted::given(reservation);
        }
        guest.weight = self.weight.or(guest.weight);
        guest.frozen = self.frozen.or(guest.frozen);
        guest.trust_domain = self.trust_domain.or(guest.trust_domain);
        Ok(guest)
    }
}
