// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A table of a configuration file, of which each key is taken once. What is left at the end nobody
//! knows.
//!
//! Deriving this would end at the first fault of a file; here each key has its own.

use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::fault::{Fault, Given, Origin};

/// A text, and what was found to be wrong with it so far.
pub struct Page<'a> {
    text: &'a str,
    /// It is that of the file.
    is_file: bool,
    /// The faults.
    pub faults: Vec<Fault>,
}

impl<'a> Page<'a> {
    /// A file's text without a fault.
    #[must_use]
    pub fn of_file(text: &'a str) -> Self {
        Self { text, is_file: true, faults: Vec::new() }
    }

    /// What somebody asks for, without a fault.
    #[must_use]
    pub fn of_alteration(text: &'a str) -> Self {
        Self { text, is_file: false, faults: Vec::new() }
    }

    /// The text as a table, if it is one.
    pub fn table(&mut self) -> Option<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            self.fault(&error.span().unwrap_or(0..0), error.message());
        }
        // What was made of a text that is no TOML would have faults that nobody has written.
        errors.is_empty().then(|| table.into_inner())
    }

    /// Notes a fault.
    pub fn fault(&mut self, at: &Range<usize>, text: impl Display) {
        self.faults.push(Fault::new(self.origin(at), text));
    }

    fn origin(&self, at: &Range<usize>) -> Origin {
        if self.is_file { Origin::of(self.text, at.start) } else { Origin::Alteration }
    }
}

/// A table.
pub struct Section<'a, 'p> {
    page: &'p mut Page<'a>,
    table: DeTable<'a>,
    /// Where its name is.
    at: Range<usize>,
    /// Keys that were asked for.
    known: Vec<&'static str>,
}

impl<'a, 'p> Section<'a, 'p> {
    /// A table, whose name is at this place.
    pub fn new(page: &'p mut Page<'a>, table: DeTable<'a>, at: Range<usize>) -> Self {
        Self { page, table, at, known: Vec::new() }
    }

    /// Where its name is.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.page.origin(&self.at)
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A table within, with the place of its name.
    pub fn table(&mut self, key: &'static str) -> Option<(DeTable<'a>, Range<usize>)> {
        self.known.push(key);
        let (name, value) = self.table.remove_entry(key)?;
        match value.into_inner() {
            DeValue::Table(table) => Some((table, name.span())),
            other => {
                self.page.fault(&name.span(), format_args!("{key} is a table, [{key}], and not {}", kind(&other)));
                None
            }
        }
    }

    /// Tables within a table: `[key.NAME]`, each with its name and the place of that.
    pub fn named_tables(&mut self, key: &'static str) -> Vec<(String, DeTable<'a>, Range<usize>)> {
        let Some((tables, _)) = self.table(key) else { return Vec::new() };
        let mut named = Vec::new();
        for (name, value) in tables {
            let (at, name) = (name.span(), name.into_inner().into_owned());
            match value.into_inner() {
                DeValue::Table(table) => named.push((name, table, at)),
                other => {
                    let text = format_args!("{key}.{name} is a table, [{key}.{name}], and not {}", kind(&other));
                    self.page.fault(&at, text);
                }
            }
        }
        // As they are in the file.
        named.sort_by_key(|(_, _, at)| at.start);
        named
    }

    /// Text.
    pub fn text<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Option<Given<T>> {
        let value = self.take(key)?;
        self.parse(key, value, false)
    }

    /// Text, or a whole number that means the same as its digits.
    pub fn text_or_number<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Option<Given<T>> {
        let value = self.take(key)?;
        self.parse(key, value, true)
    }

    /// Several of these.
    pub fn list<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Vec<Given<T>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let at = value.span();
        match value.into_inner() {
            DeValue::Array(values) => values.into_iter().filter_map(|value| self.parse(key, value, true)).collect(),
            other => {
                self.page.fault(&at, format_args!("{key} is a list, [\"...\"], and not {}", kind(&other)));
                Vec::new()
            }
        }
    }

    /// What `read` makes of a key that this table, which has this name, cannot do without.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        name: &str,
        read: impl FnOnce(&mut Self, &'static str) -> Option<T>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            let at = self.at.clone();
            self.page.fault(&at, format_args!("{name} has no {key}"));
            return None;
        }
        read(self, key)
    }

    /// One of some words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> Option<Given<T>> {
        let Given { value, at } = self.text::<String>(key)?;
        let chosen = words.iter().find(|(word, _)| *word == value);
        if chosen.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let text = format!("{key} is one of {}, and not {value:?}", words.join(", "));
            self.page.faults.push(Fault::new(at, text));
        }
        chosen.map(|(_, value)| Given { value: *value, at })
    }

    /// Whether something is so.
    pub fn flag(&mut self, key: &'static str) -> Option<Given<bool>> {
        let value = self.take(key)?;
        let at = value.span();
        match value.get_ref() {
            DeValue::Boolean(value) => Some(Given { value: *value, at: self.page.origin(&at) }),
            other => {
                self.page.fault(&at, format_args!("{key} is true or false, and not {}", kind(other)));
                None
            }
        }
    }

    /// A number within bounds.
    pub fn number<T: TryFrom<i64>>(&mut self, key: &'static str, least: i64, most: i64) -> Option<Given<T>> {
        let value = self.take(key)?;
        let (at, what) = (value.span(), kind(value.get_ref()));
        let read = i64::deserialize(ValueDeserializer::from(value));
        let within = read.as_ref().ok().filter(|number| (least..=most).contains(*number));
        match within.and_then(|number| T::try_from(*number).ok()) {
            Some(value) => Some(Given { value, at: self.page.origin(&at) }),
            None => {
                let but = read.map_or_else(|_| what.to_owned(), |number| number.to_string());
                self.page.fault(&at, format_args!("{key} is a number from {least} to {most}, and not {but}"));
                None
            }
        }
    }

    fn parse<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        value: Spanned<DeValue<'a>>,
        numbers_too: bool,
    ) -> Option<Given<T>> {
        let at = value.span();
        let text = match value.get_ref() {
            DeValue::String(text) => text.clone().into_owned(),
            DeValue::Integer(_) if numbers_too => match i64::deserialize(ValueDeserializer::from(value)) {
                Ok(number) => number.to_string(),
                Err(error) => {
                    self.page.fault(&at, format_args!("{key}: {}", error.message()));
                    return None;
                }
            },
            other => {
                let or = if numbers_too { "text in quotes or a whole number" } else { "text in quotes" };
                let what = kind(other);
                self.page.fault(&at, format_args!("{key} is {or}, and not {what}"));
                return None;
            }
        };
        match text.parse() {
            Ok(value) => Some(Given { value, at: self.page.origin(&at) }),
            Err(error) => {
                self.page.fault(&at, format_args!("{key}: {error}"));
                None
            }
        }
    }

    /// That was all: what is left is nothing that anybody knows.
    pub fn finish(self) {
        let Self { page, table, known, .. } = self;
        for (key, _) in table {
            let name = key.get_ref();
            let known = known.join(", ");
            page.fault(&key.span(), format_args!("{name:?} is no key here; there are {known}"));
        }
    }
}

/// What a value is, for people.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
