// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Values. What is looked at here is whether one can be meant; what it means is the daemon's.

use std::borrow::Cow;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Most bytes of a path of a socket.
const LONGEST_PATH: usize = 107;

/// Digits of a size at most.
const MOST_DIGITS: usize = 16;

/// Weights of guests.
const LEAST_WEIGHT: u16 = 1;
const MOST_WEIGHT: u16 = 10_000;

/// Most characters of a user's or group's name.
const LONGEST_USER: usize = 64;

/// A key that has to be named. (Whoever does without this is told what is wrong with a value.)
///
/// # Errors
///
/// When the value is something else.
pub fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}

/// A key that is named, and is not `null`.
///
/// # Errors
///
/// When it is.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A key that is named, and may be `null` for its default.
///
/// # Errors
///
/// When it is something else.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// A number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Either<'a> {
    Number(u64),
    Fraction(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

/// A number of JSON as text; 7.0 is a whole one, too.
fn whole(number: f64) -> String {
    // What is beyond is not exact.
    const MOST: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= MOST { format!("{number:.0}") } else { number.to_string() }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $is_it:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// One, if it can be meant.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Option<Self> {
                let text = text.into();
                let is_it: fn(&str) -> bool = $is_it;
                is_it(&text).then_some(Self(text))
            }

            /// As a file has it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} is not {1}")]
pub struct ValueError(String, &'static str);

macro_rules! read {
    ($name:ident, $but:literal) => {
        impl FromStr for $name {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                Self::new(text).ok_or_else(|| ValueError(format!("{text:?}"), $but))
            }
        }
    };
    ($name:ident, $but:literal, text) => {
        read!($name, $but);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
    ($name:ident, $but:literal, either) => {
        read!($name, $but);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let read = match Either::deserialize(deserializer) {
                    Ok(Either::Number(number)) => number.to_string().parse(),
                    Ok(Either::Fraction(number)) => whole(number).parse(),
                    Ok(Either::Text(text)) => text.parse(),
                    Err(_) => Err(ValueError("what is given".into(), $but)),
                };
                read.map_err(de::Error::custom)
            }
        }
    };
}

text!(
    /// Bytes: a whole number greater than zero, or a text of one that K, M, G or T may follow,
    /// powers of 1024.
    Size,
    |text| {
        let digits = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        is_number && digits.len() <= MOST_DIGITS && !digits.starts_with('0')
    }
);
impl Size {
    /// How many, if these can be counted.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.0.parse().ok().map(|vhost_zcache::args::Size(bytes)| bytes)
    }
}

read!(Size, "a size: a number of bytes greater than zero, or text such as \"512M\" with K, M, G or T", either);

text!(
    /// A user or group, by name or number.
    User,
    |text| !text.is_empty() && text.chars().count() <= LONGEST_USER && !text.contains('\0')
);
read!(User, "a user or group: a name or a number", either);

text!(
    /// A path that begins with `/`.
    AbsolutePath,
    |text| text.starts_with('/') && (2..=LONGEST_PATH).contains(&text.chars().count()) && !text.contains('\0')
);
read!(AbsolutePath, "a path of a socket: it begins with / and has at most 107 bytes", text);

text!(
    /// Permission bits as octal digits.
    Mode,
    |text| (1..=4).contains(&text.len()) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
        && (text.len() < 4 || text.starts_with('0'))
);
read!(Mode, "a mode: octal digits such as \"0660\"", text);

text!(
    /// UUID of a shared pool.
    PoolUuid,
    |text| {
        let groups: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let is_hex = groups.iter().all(|group| group.bytes().all(|digit| digit.is_ascii_hexdigit()));
        is_hex && lengths == [8, 4, 4, 4, 12]
    }
);
read!(PoolUuid, "a UUID such as \"6d1e7c3a-0000-4000-8000-000000000000\"", text);

text!(
    /// Name of guests that may share pools with each other.
    TrustDomain,
    |text| text.parse::<vhost_zcache::args::TrustDomain>().is_ok()
);
read!(TrustDomain, "a trust domain: 1 to 64 letters, digits, '-', '_' and '.'", text);

/// A guest's part of the memory for file pages, beside other guests'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Weight(u16);

impl Weight {
    /// As a file has it.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl FromStr for Weight {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let weight = text.parse().ok().filter(|weight| (LEAST_WEIGHT..=MOST_WEIGHT).contains(weight));
        weight.map(Self).ok_or_else(|| ValueError(format!("{text:?}"), "a weight: a number from 1 to 10000"))
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(f64::deserialize(deserializer)?).parse().map_err(de::Error::custom)
    }
}

/// A schema of text.
fn text_schema(description: &str, pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .description(Some(description))
        .pattern(Some(pattern))
}

/// A schema of a number or text.
fn either_schema(description: &str, least: u64, most: u64, pattern: &str) -> RefOr<Schema> {
    let number =
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).minimum(Some(least)).maximum(Some(most));
    let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).pattern(Some(pattern));
    let either = OneOfBuilder::new().item(number).item(text).description(Some(description));
    RefOr::T(Schema::OneOf(either.build()))
}

impl PartialSchema for Size {
    fn schema() -> RefOr<Schema> {
        let description = "Bytes: a number, or text such as \"512M\" with K, M, G or T, powers of 1024.";
        either_schema(description, 1, 9_999_999_999_999_999, "^[1-9][0-9]{0,15}[KMGTkmgt]?$")
    }
}

impl PartialSchema for User {
    fn schema() -> RefOr<Schema> {
        either_schema("A user or group, by name or number.", 0, u32::MAX.into(), "^[^\\u0000]{1,64}$")
    }
}

impl PartialSchema for AbsolutePath {
    fn schema() -> RefOr<Schema> {
        text_schema("A path that begins with /.", "^/[^\\u0000]{1,106}$").into()
    }
}

impl PartialSchema for Mode {
    fn schema() -> RefOr<Schema> {
        text_schema("Permission bits as octal digits.", "^0?[0-7]{1,3}$").into()
    }
}

impl PartialSchema for PoolUuid {
    fn schema() -> RefOr<Schema> {
        let hex = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$";
        text_schema("UUID of a shared pool.", hex).into()
    }
}

impl PartialSchema for TrustDomain {
    fn schema() -> RefOr<Schema> {
        text_schema("Name of guests that may share pools with each other.", "^[0-9A-Za-z_.-]{1,64}$").into()
    }
}

impl ToSchema for Size {}
impl ToSchema for User {}
impl ToSchema for AbsolutePath {}
impl ToSchema for Mode {}
impl ToSchema for PoolUuid {}
impl ToSchema for TrustDomain {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_are_numbers_or_text() {
        for (json, text) in [("1", "1"), ("7.0", "7"), ("\"512M\"", "512M"), ("9999999999999999", "9999999999999999")] {
            assert_eq!(read::<Size>(json).unwrap().as_str(), text);
        }
        for json in
            ["0", "-1", "1.5", "\"\"", "\"M\"", "\"0\"", "\"1X\"", "\"1 G\"", "true", "null", "[]", "\"default\""]
        {
            let error = read::<Size>(json).unwrap_err();
            assert!(error.contains("is not a size"), "{json}: {error}");
        }
    }

    #[test]
    fn other_values() {
        assert_eq!(read::<User>("0").unwrap().as_str(), "0");
        assert_eq!((read::<Weight>("7.0").unwrap().number(), read::<Weight>("7").unwrap().number()), (7, 7));
        assert!(read::<Weight>("7.5").is_err() && read::<Weight>("0").is_err() && read::<Weight>("10001").is_err());
        assert_eq!(read::<AbsolutePath>("\"/run/a\"").unwrap().as_str(), "/run/a");
        assert!(read::<AbsolutePath>("\"run/a\"").is_err());
        assert!(read::<AbsolutePath>("\"/\\u0000\"").is_err());
        assert!(read::<Mode>("\"0660\"").is_ok() && read::<Mode>("\"660\"").is_ok());
        assert!(read::<Mode>("\"1777\"").is_err() && read::<Mode>("\"rw\"").is_err() && read::<Mode>("660").is_err());
        assert!(read::<PoolUuid>("\"6d1e7c3a-0000-4000-8000-000000000000\"").is_ok());
        assert!(read::<PoolUuid>("\"6d1e7c3a\"").is_err());
        assert_eq!(read::<TrustDomain>("\"tenant-1\"").unwrap().as_str(), "tenant-1");
        assert!(read::<TrustDomain>("\"a b\"").is_err() && read::<TrustDomain>("7").is_err());
    }
}
