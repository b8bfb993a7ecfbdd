// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which guest has which number. Ledger, manifest and worker know guests by number; there is room
//! for so many, and numbers of guests that have left are given to others.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Names by numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Numbers(Vec<Option<String>>);

impl Numbers {
    /// Room for so many guests, or for those that there are, who get the first numbers.
    #[must_use]
    pub fn new<'a>(room: usize, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut numbers: Vec<_> = names.into_iter().map(|name| Some(name.to_owned())).collect();
        numbers.resize(room.max(numbers.len()), None);
        Self(numbers)
    }

    /// Guests there can be.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.len()
    }

    /// Guests that can be added.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.iter().filter(|name| name.is_none()).count()
    }

    /// A guest's number.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| known.as_deref() == Some(name))
    }

    /// The guest of a number.
    #[must_use]
    pub fn name(&self, number: usize) -> Option<&str> {
        self.0.get(number)?.as_deref()
    }

    /// All names, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.iter().enumerate().filter_map(|(number, name)| Some((number, name.as_deref()?)))
    }

    /// Whether these are the guests, and this is the room.
    #[must_use]
    pub fn are_of<'a>(&self, room: usize, names: impl IntoIterator<Item = &'a str>) -> bool {
        let own: BTreeSet<&str> = self.iter().map(|(_, name)| name).collect();
        self.room() == room && own == names.into_iter().collect()
    }

    /// Gives a guest a number, if there is one.
    pub fn give(&mut self, name: &str) -> Option<usize> {
        let number = self.0.iter().position(Option::is_none)?;
        self.0[number] = Some(name.to_owned());
        Some(number)
    }

    /// A number is nobody's any more.
    pub fn take_back(&mut self, number: usize) {
        if let Some(name) = self.0.get_mut(number) {
            *name = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_and_taken_back() {
        let mut numbers = Numbers::new(3, ["a", "b"]);
        assert_eq!((numbers.of("b"), numbers.name(0), numbers.free()), (Some(1), Some("a"), 1));
        assert_eq!((numbers.give("c"), numbers.give("d")), (Some(2), None), "there is room for three");
        numbers.take_back(0);
        assert_eq!(numbers.give("d"), Some(0));
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [(0, "d"), (1, "b"), (2, "c")]);
        assert!(numbers.are_of(3, ["b", "c", "d"]), "the order does not matter");
        assert!(!numbers.are_of(4, ["b", "c", "d"]) && !numbers.are_of(3, ["b", "c"]));
        assert_eq!(Numbers::new(1, ["a", "b"]).room(), 2);
    }
}
