// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What becomes of a daemon that runs when its configuration is another.

use std::collections::BTreeMap;
use std::fmt;

use super::{Config, GuestConfig, Place};

/// Guests whose names are told of those that come or go.
const MOST_NAMES: usize = 8;

/// What is to be done. All that is not about guests coming and going is taken as it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Guests that come.
    pub added: Vec<GuestConfig>,
    /// Names of guests that go.
    pub removed: Vec<String>,
    /// What is another for guests that stay, and of the daemon, in words.
    changed: Vec<String>,
}

impl Plan {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How the daemon becomes another one.
///
/// # Errors
///
/// What of it cannot change while the daemon runs, a line for each key.
pub fn between(old: &Config, new: &Config) -> Result<Plan, Vec<String>> {
    let mut refused = Vec::new();
    macro_rules! stays {
        ($($field:ident $key:literal),*) => {
            $(if old.$field != new.$field {
                refused.push(format!("{} cannot change while the daemon runs", $key));
            })*
        };
    }
    stays!(
        queues "queues", workers "workers", max_guests "max-guests", seccomp "seccomp",
        host_pressure "host-pressure",
        crash_directory "crash-directory", saving "save-directory, save-key or save-timeout",
        upgrade_binary "upgrade-binary", stats_socket "stats-socket",
        control_socket "control-socket"
    );
    let mut plan = Plan::default();
    if old.memory_limit != new.memory_limit {
        plan.changed.push(format!("memory-limit is {} bytes", new.memory_limit));
    }
    if old.log_level != new.log_level {
        plan.changed.push(format!("log-level is {}", new.log_level.as_str().to_lowercase()));
    }
    let before: BTreeMap<&str, &GuestConfig> = old.guests.iter().map(|guest| (&*guest.name, guest)).collect();
    let mut others = 0;
    for guest in &new.guests {
        match before.get(&*guest.name) {
            None => plan.added.push(guest.clone()),
            Some(known) if known.place != guest.place => refused.push(moved(known, guest)),
            Some(known) if *known != guest => others += 1,
            Some(_) => {}
        }
    }
    if others > 0 {
        let guests = if others == 1 { "guest" } else { "guests" };
        plan.changed.push(format!("limits or rights of {others} {guests}"));
    }
    let stays = |name: &str| new.guests.iter().any(|guest| guest.name == name);
    plan.removed = old.guests.iter().map(|guest| guest.name.clone()).filter(|name| !stays(name)).collect();
    for guest in plan.added.iter().filter(|guest| guest.path().is_none()) {
        refused.push(format!("guest.{}.fd: a socket can be inherited only as the daemon starts", guest.name));
    }
    // A path is free when nobody has it any more, and that is known when all is done.
    for guest in &plan.added {
        if let Some(path) = guest.path()
            && old.sockets().any(|known| known == path)
        {
            let text =
                format!("guest.{}.socket: {} is another guest's until it is removed", guest.name, path.display());
            refused.push(text);
        }
    }
    if refused.is_empty() { Ok(plan) } else { Err(refused) }
}

/// What of a guest's socket is another.
fn moved(known: &GuestConfig, guest: &GuestConfig) -> String {
    let what = match (&known.place, &guest.place) {
        (Place::Path { path, .. }, Place::Path { path: other, .. }) if path == other => "mode, owner or group",
        _ => "path",
    };
    format!("guest.{}: the {what} of its socket cannot change while the daemon runs", guest.name)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.changed.clone();
        let added: Vec<&str> = self.added.iter().map(|guest| &*guest.name).collect();
        let removed: Vec<&str> = self.removed.iter().map(|name| &**name).collect();
        for (what, names) in [("added", added), ("removed", removed)] {
            match names.len() {
                0 => {}
                1..=MOST_NAMES => parts.push(format!("{what} {}", names.join(", "))),
                more => parts.push(format!("{what} {more} guests")),
            }
        }
        f.write_str(if parts.is_empty() { "nothing has changed" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;

    fn config(text: &str) -> Config {
        let (draft, faults) = file::parse(text);
        assert_eq!(faults, [], "{text}");
        draft.settle().unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
    }

    const BEFORE: &str = "memory-limit = '1G'\n[guest.a]\nsocket = '/run/a'\n[guest.b]\nsocket = '/run/b'\n";

    #[test]
    fn the_same_is_no_change() {
        let plan = between(&config(BEFORE), &config(BEFORE)).unwrap();
        assert_eq!((plan.to_string(), plan), ("nothing has changed".to_owned(), Plan::default()));
    }

    #[test]
    fn what_can_change_does() {
        let after = "memory-limit = '2G'\nlog-level = 'debug'\n[guest.a]\nsocket = '/run/a'\nmemory-limit = '1M'\n\
                     [guest.c]\nsocket = '/run/c'\npeers = [0]\n";
        let plan = between(&config(BEFORE), &config(after)).unwrap();
        assert_eq!(plan.added.iter().map(|guest| &*guest.name).collect::<Vec<_>>(), ["c"]);
        assert_eq!(plan.removed, ["b"]);
        let text = "memory-limit is 2147483648 bytes; log-level is debug; limits or rights of 1 guest; added c; \
                    removed b";
        assert_eq!(plan.to_string(), text);
    }

    #[test]
    fn what_cannot_change_is_named() {
        for (after, named) in [
            ("queues = 4", "queues"),
            ("workers = 2", "workers"),
            ("max-guests = 9", "max-guests"),
            ("seccomp = 'log'", "seccomp"),
            ("host-pressure = 'ignore'", "host-pressure"),
            ("crash-directory = '/var/crash'", "crash-directory"),
            ("save-directory = '/var/saved'\nsave-key = '/etc/key'", "save-directory, save-key or save-timeout"),
            ("upgrade-binary = '/usr/bin/new'", "upgrade-binary"),
            ("stats-socket.path = '/run/stats'", "stats-socket"),
            ("control-socket.path = '/run/control'", "control-socket"),
            ("socket.mode = '0666'", "guest.a: the mode, owner or group"),
        ] {
            let refused = between(&config(BEFORE), &config(&format!("{after}\n{BEFORE}"))).unwrap_err();
            assert!(refused.iter().any(|line| line.starts_with(named)), "{after}: {refused:?}");
        }
        let taken = BEFORE.replace("guest.b", "guest.c");
        let refused = between(&config(BEFORE), &config(&taken)).unwrap_err();
        assert_eq!(refused, ["guest.c.socket: /run/b is another guest's until it is removed"]);
        let inherited = BEFORE.to_owned() + "[guest.c]\nfd = 'c'\n";
        let refused = between(&config(BEFORE), &config(&inherited)).unwrap_err();
        assert_eq!(refused, ["guest.c.fd: a socket can be inherited only as the daemon starts"]);
        let elsewhere = BEFORE.replace("/run/b", "/run/x");
        let refused = between(&config(BEFORE), &config(&elsewhere)).unwrap_err();
        assert_eq!(refused, ["guest.b: the path of its socket cannot change while the daemon runs"]);
    }
}
