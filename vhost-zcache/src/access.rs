// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who may connect to a socket.

use std::os::fd::AsFd;
use std::str::FromStr;

use nix::unistd;
use rustix::fs::{Gid, Mode, Uid};
use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Mode of a socket for which neither a mode nor a group was given.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Mode of a socket for which a group was given, but no mode.
const FOR_GROUP: Mode = PRIVATE.union(Mode::RGRP).union(Mode::WGRP);

/// Owner and mode of a socket, as far as they were given. To connect takes the permission to
/// write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketAccess {
    /// Permission bits.
    pub mode: Option<SocketMode>,
    /// User it belongs to; the daemon's if `None`.
    pub owner: Option<Owner>,
    /// Group it belongs to; the daemon's if `None`.
    pub group: Option<Group>,
}

impl SocketAccess {
    /// These, and what is missing from others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self { mode: self.mode.or(others.mode), owner: self.owner.or(others.owner), group: self.group.or(others.group) }
    }

    /// The permission bits: those given, or else for the owner, and for the group if there is
    /// one. They do not depend on the umask.
    #[must_use]
    pub fn permissions(self) -> Mode {
        let default = if self.group.is_some() { FOR_GROUP } else { PRIVATE };
        self.mode.map_or(default, |mode| mode.0)
    }
}

/// Whose processes may be at the other end of a socket, besides those who may connect: anybody's if
/// nobody was named. A mode can be changed, and a connection handed on, by whoever has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Peers(Vec<Owner>);

impl Peers {
    /// Names one more user.
    pub fn add(&mut self, user: Owner) {
        self.0.push(user);
    }

    /// Whether the process that has connected may be there.
    ///
    /// # Errors
    ///
    /// The user it is of.
    pub fn admit(&self, socket: impl AsFd) -> Result<(), Stranger> {
        if self.0.is_empty() {
            return Ok(());
        }
        let user = socket_peercred(socket).map(|process| process.uid).ok();
        let known = user.is_some_and(|user| self.0.contains(&Owner(user)));
        if known { Ok(()) } else { Err(Stranger(user)) }
    }
}

/// A user who may not be at the other end of a socket, or nobody knows who.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a process of user {} may not be there", self.0.map_or("unknown".into(), |user| user.as_raw().to_string()))]
pub struct Stranger(Option<Uid>);

/// Why an owner, a group or a mode is not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccessError {
    /// No octal number up to 777.
    #[error("{0:?} is not a mode, which is an octal number such as 0660")]
    Mode(String),
    /// Neither the name of a user nor the number of one.
    #[error("there is no user {0:?}")]
    User(String),
    /// Neither the name of a group nor the number of one.
    #[error("there is no group {0:?}")]
    Group(String),
    /// The system's database of users and groups does not answer.
    #[error("{0:?} cannot be looked up: {1}")]
    Lookup(String, nix::Error),
}

/// Permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub struct SocketMode(Mode);

impl From<u32> for SocketMode {
    fn from(bits: u32) -> Self {
        Self(Mode::from_raw_mode(bits & 0o777))
    }
}

impl From<SocketMode> for u32 {
    fn from(mode: SocketMode) -> Self {
        mode.0.as_raw_mode()
    }
}

impl FromStr for SocketMode {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        let octal = text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o777);
        bits.map(|bits| Self(Mode::from_raw_mode(bits))).ok_or_else(|| AccessError::Mode(text.into()))
    }
}

/// A user, by name or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub struct Owner(pub Uid);

impl From<u32> for Owner {
    fn from(number: u32) -> Self {
        Self(Uid::from_raw(number))
    }
}

impl From<Owner> for u32 {
    fn from(owner: Owner) -> Self {
        owner.0.as_raw()
    }
}

impl FromStr for Owner {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        if let Some(number) = id(text) {
            return Ok(Self(Uid::from_raw(number)));
        }
        match unistd::User::from_name(text) {
            Ok(Some(user)) => Ok(Self(Uid::from_raw(user.uid.as_raw()))),
            Ok(None) => Err(AccessError::User(text.into())),
            Err(error) => Err(AccessError::Lookup(text.into(), error)),
        }
    }
}

/// A group, by name or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub struct Group(pub Gid);

impl From<u32> for Group {
    fn from(number: u32) -> Self {
        Self(Gid::from_raw(number))
    }
}

impl From<Group> for u32 {
    fn from(group: Group) -> Self {
        group.0.as_raw()
    }
}

impl FromStr for Group {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        if let Some(number) = id(text) {
            return Ok(Self(Gid::from_raw(number)));
        }
        match unistd::Group::from_name(text) {
            Ok(Some(group)) => Ok(Self(Gid::from_raw(group.gid.as_raw()))),
            Ok(None) => Err(AccessError::Group(text.into())),
            Err(error) => Err(AccessError::Lookup(text.into(), error)),
        }
    }
}

/// The number of a user or group. The greatest means "unchanged" to the system.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX && !text.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, bits) in [("0660", 0o660), ("600", 0o600), ("0", 0), ("777", 0o777)] {
            assert_eq!(text.parse(), Ok(SocketMode(Mode::from_raw_mode(bits))), "{text}");
        }
        for text in ["", "rw", "0o660", "888", "+660", "1777", "u+rw"] {
            assert!(text.parse::<SocketMode>().is_err(), "{text:?} is a mode");
        }
    }

    #[test]
    fn users_and_groups() {
        assert_eq!("root".parse(), Ok(Owner(Uid::ROOT)));
        assert_eq!("0".parse(), Ok(Group(Gid::ROOT)));
        assert_eq!("no such user".parse::<Owner>(), Err(AccessError::User("no such user".into())));
        assert_eq!("4294967295".parse::<Group>(), Err(AccessError::Group("4294967295".into())));
    }

    #[test]
    fn strangers_are_known_by_the_kernel() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let me = rustix::process::geteuid();
        let mut peers = Peers::default();
        assert_eq!(peers.admit(&one), Ok(()), "nobody was named");
        peers.add(Owner(Uid::from_raw(me.as_raw() + 1)));
        assert_eq!(peers.admit(&one), Err(Stranger(Some(me))));
        peers.add(Owner(me));
        assert_eq!(peers.admit(&one), Ok(()));
    }

    #[test]
    fn sockets_are_private_unless_there_is_a_group() {
        let given = SocketAccess::default();
        assert_eq!(given.permissions(), Mode::from_raw_mode(0o600));
        let group = SocketAccess { group: Some(Group(Gid::ROOT)), ..given };
        assert_eq!(given.or(group).permissions(), Mode::from_raw_mode(0o660));
        let mode = SocketAccess { mode: Some(SocketMode(Mode::from_raw_mode(0o666))), ..given };
        assert_eq!(mode.or(group).permissions(), Mode::from_raw_mode(0o666));
    }
}
