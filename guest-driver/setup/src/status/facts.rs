// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What there is to know about a device: keys and values, in the kernel's order.

use serde::{Serialize, Serializer};

use crate::mapped::details::Details;
use crate::swapdisk::SwapDisk;
use crate::values::number;

/// Keys whose values are text even if they look like numbers.
const TEXTS: &[&str] = &["name", "origin", "backing_dev"];

#[derive(Debug, Clone)]
pub(super) struct Facts(Vec<(String, String)>);

impl Facts {
    pub(super) fn of_device(details: &Details) -> Self {
        let mut facts = Self(Vec::new());
        facts.add("name", &details.mapped.name);
        if let Some(origin) = details.origin() {
            facts.add("origin", &origin.path());
            facts.add("origin_size", &bytes(origin.sectors()));
        }
        facts.add("size", &bytes(details.sectors()));
        match details.counters() {
            Some(counters) => counters.into_iter().for_each(|(key, value)| facts.add(key, value)),
            None => facts.add("state", "uncached"),
        }
        facts
    }

    pub(super) fn of_swap(disk: &SwapDisk) -> Self {
        let mut facts = Self(Vec::new());
        facts.add("name", &disk.name);
        facts.add("state", if disk.is_swapped_to() { "on" } else { "off" });
        for key in ["disksize", "backing_dev", "writethrough"] {
            facts.add(key, &disk.attribute(key).unwrap_or_default());
        }
        let counters = disk.attribute("zc_stat").unwrap_or_default();
        for (key, value) in counters.lines().filter_map(|line| line.split_once(' ')) {
            facts.add(key, value);
        }
        facts
    }

    fn add(&mut self, key: &str, value: &str) {
        self.0.push((key.to_owned(), value.to_owned()));
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(its_key, _)| its_key == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn name(&self) -> &str {
        self.get("name").unwrap_or_default()
    }

    /// A number that is not there is none.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        number(self.get(key)?)
    }

    /// The same, where none is as good as 0.
    pub(super) fn count(&self, key: &str) -> u64 {
        self.number(key).unwrap_or(0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    #[cfg(test)]
    pub(super) fn for_test(words: &str) -> Self {
        let pairs = words.split_whitespace().filter_map(|word| word.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}

fn bytes(sectors: u64) -> String {
    (u128::from(sectors) * 512).to_string()
}

/// An object, with numbers as such.
impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(key, value)| {
            let number = if TEXTS.contains(&key) { None } else { number(value) };
            (key, number.map_or_else(|| Value::Text(value), Value::Number))
        }))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Number(u64),
    Text(&'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_numbers_but_for_names() {
        let facts = Facts::for_test("name=007 origin=/dev/v\"d\\b state=attached hits=08 x=99999999999999999999 y=-1");
        assert_eq!(
            serde_json::to_string(&facts).expect("JSON"),
            r#"{"name":"007","origin":"/dev/v\"d\\b","state":"attached","hits":8,"x":"99999999999999999999","y":"-1"}"#
        );
    }

    #[test]
    fn a_device_has_what_its_target_counts() {
        let number = "1:2".parse().expect("a number");
        let details = |table, status| Facts::of_device(&Details::for_test("data", number, table, status));
        let cached = details("0 8 zcache 254:16 0 1 put=evict", "0 8 zcache state=attached put=evict hits=3");
        assert_eq!((cached.get("state"), cached.count("hits")), (Some("attached"), 3));
        let passing = details("0 8 linear 254:16 0", "0 8 linear");
        assert_eq!((passing.get("state"), passing.number("hits")), (Some("uncached"), None));
    }
}
