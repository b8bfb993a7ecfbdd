// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A reader of the format that believes nothing.

use std::collections::{BTreeMap, BTreeSet};

use zcache_metrics::metric::Kind;

pub(crate) type Labels = BTreeMap<String, String>;

/// What was written.
#[derive(Default)]
pub(crate) struct Exposition {
    /// Types by the names of families.
    pub(crate) families: BTreeMap<String, String>,
    /// Names, labels and values.
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    /// Reads it, and panics where it is not as it should be.
    pub(crate) fn of(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("it ends with the mark of its end");
        let mut exposition = Self::default();
        let mut seen = BTreeSet::new();
        let mut family = String::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                assert!(help.ends_with('.') && !help.ends_with(".."), "{line}");
                family = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert_eq!(name, family, "what is said of one family stands together");
                let before = exposition.families.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "{name} is there twice");
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').expect("a name and a unit");
                assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
            } else {
                let (name, labels, value) = sample(line);
                let suffixes = exposition.kind(&family).suffixes();
                let is_of_family = suffixes.iter().any(|suffix| name == format!("{family}{suffix}"));
                assert!(is_of_family, "{name} is none of {family}");
                assert!(seen.insert((name.clone(), labels.clone())), "{line} is there twice");
                exposition.samples.push((name, labels, value));
            }
        }
        exposition
    }

    fn kind(&self, family: &str) -> Kind {
        let kinds = [Kind::Counter, Kind::Gauge, Kind::Histogram, Kind::Info];
        let name = self.families.get(family).expect("a sample after its type");
        kinds.into_iter().find(|kind| kind.name() == name).expect("a type that is one")
    }

    /// Whether a sample is of a family of that type.
    pub(crate) fn is_of(&self, sample: &str, kind: Kind) -> bool {
        let is_family = |suffix: &&str| {
            let family = sample.strip_suffix(*suffix).and_then(|family| self.families.get(family));
            family.is_some_and(|name| name == kind.name())
        };
        kind.suffixes().iter().any(is_family)
    }

    /// Samples of a family.
    pub(crate) fn samples_of(&self, family: &str) -> impl Iterator<Item = (&String, &Labels)> {
        let suffixes = self.kind(family).suffixes();
        let is_of = move |name: &str| suffixes.iter().any(|suffix| name == format!("{family}{suffix}"));
        self.samples.iter().filter(move |(name, _, _)| is_of(name)).map(|(name, labels, _)| (name, labels))
    }

    /// The value of a sample.
    pub(crate) fn value(&self, name: &str, labels: &Labels) -> Option<f64> {
        let found = self.samples.iter().find(|(sample, its, _)| sample == name && its == labels);
        found.map(|(_, _, value)| *value)
    }
}

/// A line's name, labels and value.
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).expect("a value");
    let (name, mut rest) = line.split_at(end);
    assert!(name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            let (value, after) = unquoted(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{label} is there twice: {line}");
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => break rest = after.strip_prefix('}').unwrap_or_else(|| panic!("no end: {line}")),
            }
        }
    }
    let value = rest.strip_prefix(' ').and_then(|value| value.parse().ok());
    (name.to_owned(), labels, value.unwrap_or_else(|| panic!("no value: {line}")))
}

/// A value up to its closing quotation mark, and what comes after.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => match letters.next().map(|(_, letter)| letter) {
                Some('n') => value.push('\n'),
                Some(letter @ ('"' | '\\')) => value.push(letter),
                other => panic!("\\{other:?} means nothing"),
            },
            letter => value.push(letter),
        }
    }
    panic!("a value without an end: {text}");
}
