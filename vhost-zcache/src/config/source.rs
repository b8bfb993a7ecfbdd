// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Of what a configuration was made: what was read, and what is another since, as the operator has
//! asked for. These are kept apart, so that the keys that are others are known by a keeper that is
//! started again, which reads the file; and so that they are gone when the file is read again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Config;
use super::alteration::{self, GuestPatch, Limit, in_guest};
use super::draft::{Draft, DraftGuest};
use super::fault::{Fault, Origin};
use super::file::fault_of_name;
use crate::admin::wish::Alteration;

/// What was read, and what is another since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    read: Draft,
    changes: Changes,
}

/// What is another than what was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Changes {
    /// Settings with other values.
    settings: Draft,
    /// Limits that have their defaults.
    cleared: BTreeSet<Limit>,
    /// Guests that are others, or gone.
    guests: BTreeMap<String, Option<DraftGuest>>,
}

impl Source {
    /// What was read, and nothing else.
    #[must_use]
    pub fn unaltered(read: Draft) -> Self {
        Self { read, changes: Changes::default() }
    }

    /// Whether it is what was read.
    #[must_use]
    pub fn is_unaltered(&self) -> bool {
        self.changes == Changes::default()
    }

    /// What was read by another one, with the changes of this one.
    #[must_use]
    pub fn read_by(self, other: &Self) -> Self {
        Self { read: other.read.clone(), ..self }
    }

    /// What it means.
    ///
    /// # Errors
    ///
    /// All that does not go together.
    pub fn settle(self) -> Result<Config, Vec<Fault>> {
        let draft = self.changes.laid_over(self.read.clone());
        Ok(Config { source: self, ..draft.settle()? })
    }

    /// Makes it another.
    ///
    /// # Errors
    ///
    /// All that is wrong with what is asked for.
    pub fn alter(&mut self, wanted: &Alteration) -> Result<(), Vec<Fault>> {
        let now = self.changes.laid_over(self.read.clone());
        let known = |name: &str| now.guests.iter().find(|guest| guest.name.value == name);
        let text = match wanted {
            Alteration::Remove { guest, .. } => {
                if known(guest).is_none() {
                    return Err(vec![Fault::new(Origin::Alteration, no_guest(guest))]);
                }
                self.changes.guests.insert(guest.clone(), None);
                if !self.read.guests.iter().any(|read| read.name.value == *guest) {
                    // Nothing of it is left.
                    self.changes.guests.remove(guest);
                }
                return Ok(());
            }
            Alteration::Set(text) | Alteration::Add(text) | Alteration::Put(text) => text,
        };
        let (patch, mut faults) = alteration::parse(text);
        let mut guests = Vec::new();
        for guest in patch.guests {
            let name = guest.name.value.clone();
            match guest_as_wanted(wanted, guest, known(&name)) {
                Ok(guest) => guests.push((name, Some(guest))),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        self.changes.guests.extend(guests);
        for limit in [Limit::Memory, Limit::GuestMemory] {
            if patch.cleared.contains(&limit) {
                self.changes.cleared.insert(limit);
                *limit.of(&mut self.changes.settings) = None;
            }
        }
        (self.changes.settings, _) = patch.settings.or(std::mem::take(&mut self.changes.settings));
        Ok(())
    }
}

fn no_guest(name: &str) -> String {
    format!("there is no guest {name}")
}

/// What becomes of a guest of which something is said.
fn guest_as_wanted(wanted: &Alteration, guest: GuestPatch, known: Option<&DraftGuest>) -> Result<DraftGuest, Fault> {
    let (name, at) = (guest.name.value.clone(), guest.name.at);
    match (wanted, known) {
        (Alteration::Set(_), Some(known)) => guest.laid_over(known.clone()),
        (Alteration::Set(_), None) => Err(Fault::new(at, format!("{}: add it first", no_guest(&name)))),
        (Alteration::Add(_), Some(_)) => {
            Err(Fault::new(at, in_guest(&name, "it is there already: set what is to be another, or remove it first")))
        }
        (_, known) => match fault_of_name(&name).filter(|_| known.is_none()) {
            Some(text) => Err(Fault::new(at, text)),
            None => guest.whole(known),
        },
    }
}

impl Changes {
    /// A draft with all this in place of its own.
    fn laid_over(&self, mut draft: Draft) -> Draft {
        for limit in &self.cleared {
            *limit.of(&mut draft) = None;
        }
        let may_be_without_guests = draft.may_be_without_guests || *self != Self::default();
        (draft, _) = self.settings.clone().or(draft);
        draft.may_be_without_guests = may_be_without_guests;
        let mut changed = self.guests.clone();
        let guests = draft.guests.into_iter();
        draft.guests = guests.filter_map(|guest| changed.remove(&guest.name.value).unwrap_or(Some(guest))).collect();
        draft.guests.extend(changed.into_values().flatten());
        draft
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GuestConfig, file};

    const READ: &str =
        "memory-limit = '1G'\n[guest.a]\nsocket = '/run/a'\nmemory-limit = '8M'\n[guest.b]\nsocket = '/run/b'\n";

    fn source() -> Source {
        let (draft, faults) = file::parse(READ);
        assert_eq!(faults, []);
        Source::unaltered(draft)
    }

    fn altered(wanted: &[Alteration]) -> Config {
        let mut source = source();
        for wanted in wanted {
            source.alter(wanted).unwrap_or_else(|faults| panic!("{wanted:?}: {faults:?}"));
        }
        source.settle().unwrap()
    }

    fn refused(wanted: &Alteration) -> Vec<String> {
        let mut source = source();
        let faults = source.alter(wanted).and_then(|()| source.settle().map(|_| ())).expect_err("it is taken");
        faults.into_iter().map(|fault| fault.text).collect()
    }

    fn set(text: &str) -> Alteration {
        Alteration::Set(text.into())
    }

    fn guest<'a>(config: &'a Config, name: &str) -> &'a GuestConfig {
        config.guests.iter().find(|guest| guest.name == name).unwrap()
    }

    #[test]
    fn keys_that_are_said_are_others_and_no_others_are() {
        let config = altered(&[set("memory-limit = '2G'\n[guest.a]\nreservation = '4M'\n")]);
        assert_eq!(config.memory_limit, 2 << 30);
        assert_eq!((guest(&config, "a").memory_limit, guest(&config, "a").reservation), (Some(8 << 20), 4 << 20));
        assert_eq!(guest(&config, "a").path(), Some("/run/a".as_ref()));
        assert!(!config.source.is_unaltered());
    }

    #[test]
    fn a_limit_may_be_the_default_and_a_value_again() {
        let none = "[guest.a]\nmemory-limit = 'default'\n";
        assert_eq!(guest(&altered(&[set(none)]), "a").memory_limit, None);
        let all = "guest-memory-limit = '3M'\n";
        assert_eq!(guest(&altered(&[set(none), set(all)]), "a").memory_limit, Some(3 << 20));
        let config = altered(&[set(none), set(all), set("guest-memory-limit = 'default'\nmemory-limit = 'default'")]);
        assert_eq!(guest(&config, "a").memory_limit, None);
        assert_ne!(config.memory_limit, 1 << 30, "that of the file");
        assert_eq!(altered(&[set("memory-limit = 'default'"), set("memory-limit = '5G'")]).memory_limit, 5 << 30);
    }

    #[test]
    fn guests_come_go_and_become_others() {
        let add = Alteration::Add("[guest.c]\nsocket = '/run/c'\nmemory-limit = '1M'\n".into());
        let config = altered(std::slice::from_ref(&add));
        let names: Vec<&str> = config.guests.iter().map(|guest| &*guest.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let put = Alteration::Put("[guest.c]\nreservation = '2M'\n[guest.d]\nsocket = '/run/d'\n".into());
        let config = altered(&[add.clone(), put]);
        let c = guest(&config, "c");
        assert_eq!((c.memory_limit, c.reservation, c.path()), (None, 2 << 20, Some("/run/c".as_ref())));
        let remove = |name: &str| Alteration::Remove { guest: name.into(), disconnect: false };
        let config = altered(&[add, remove("c"), remove("a"), remove("b")]);
        assert_eq!(config.guests, []);
        assert!(altered(&[remove("a"), Alteration::Put("[guest.a]\nsocket = '/run/a'\n".into())]).guests.len() == 2);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (wanted, text) in [
            (set("[guest.c]\nmemory-limit = 1\n"), "there is no guest c: add it first"),
            (set("[guest.a]\nmemory-limit = '1X'\n"), "guest.a: memory-limit: a size is a number of bytes"),
            (set("limit = 1\n"), "\"limit\" is no key here"),
            (set("[guest.a\n"), ""),
            (set("[guest.a]\nreservation = '9M'\n"), "a reservation of 9437184 bytes is more than"),
            (Alteration::Add("[guest.a]\nsocket = '/run/x'\n".into()), "guest.a: it is there already"),
            (Alteration::Add("[guest.c]\nmemory-limit = 1\n".into()), "guest.c: it has no socket"),
            (Alteration::Add("[guest.'c d']\nsocket = '/run/c'\n".into()), "\"c d\" is no name of a guest"),
            (Alteration::Add("[guest.c]\nsocket = '/run/a'\n".into()), "/run/a is given twice"),
            (Alteration::Remove { guest: "c".into(), disconnect: true }, "there is no guest c"),
        ] {
            let lines = refused(&wanted);
            assert!(lines.len() == 1 && lines[0].starts_with(text), "{wanted:?}: {lines:?}");
        }
    }

    #[test]
    fn changes_outlast_what_was_read_by_somebody_else() {
        let mut source = source();
        source.alter(&Alteration::Add("[guest.c]\nsocket = '/run/c'\n".into())).unwrap();
        let (read, _) = file::parse("memory-limit = '3G'\n[guest.a]\nsocket = '/run/a'\n");
        let config = source.read_by(&Source::unaltered(read)).settle().unwrap();
        assert_eq!(config.memory_limit, 3 << 30);
        assert_eq!(config.guests.len(), 2);
    }
}
