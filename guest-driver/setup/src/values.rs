// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Values that are the same on the command line and in the table, and what is said of wrong ones.

use std::fmt;
use std::str::FromStr;

/// A device's name, or that of a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(String);

impl Name {
    /// With `ZCACHE-` before it, this is what device-mapper takes.
    const LONGEST: usize = 121;

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        if text.is_empty() {
            return Err("a name is needed, not ''".to_owned());
        }
        if text.starts_with(['-', '.']) || !text.chars().all(plain) {
            return Err(format!("{text}: a name has letters, digits and ._+- only"));
        }
        if text.len() > Self::LONGEST {
            return Err(format!("{text}: a name has {} characters at most", Self::LONGEST));
        }
        if text == "control" {
            return Err("control: device-mapper has that name for itself; choose another one".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When pages go to the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Put {
    /// As they are evicted.
    #[default]
    Evict,
    /// As they are read from the disk.
    Read,
}

impl FromStr for Put {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "evict" => Ok(Self::Evict),
            "read" => Ok(Self::Read),
            _ => Err(format!("put is evict or read, not '{text}'")),
        }
    }
}

impl fmt::Display for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evict => "evict",
            Self::Read => "read",
        })
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, shift) = match text.chars().last() {
            Some('K' | 'k') => (&text[..text.len() - 1], 10),
            Some('M' | 'm') => (&text[..text.len() - 1], 20),
            Some('G' | 'g') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        number(digits)
            .and_then(|number| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| format!("size is a number, with K, M or G, not '{text}'"))
    }
}

/// Which swap disk is used first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Priority(u64);

impl Priority {
    /// The kernel's limit.
    const HIGHEST: u64 = 32767;
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match number(text) {
            Some(number) if number <= Self::HIGHEST => Ok(Self(number)),
            Some(_) => Err(format!("priority is {} at most, not '{text}'", Self::HIGHEST)),
            None => Err(format!("priority is a number, not '{text}'")),
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Digits and nothing else; zeros before them mean nothing.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// How long a device is waited for, in systemd's words without blanks: `90`, `1min30s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timeout(String);

impl Timeout {
    const UNITS: &[&str] = &[
        "us", "usec", "ms", "msec", "s", "sec", "second", "seconds", "m", "min", "minute", "minutes", "h", "hr",
        "hour", "hours", "d", "day", "days",
    ];

    fn is_time(text: &str) -> bool {
        let mut rest = text;
        while !rest.is_empty() {
            let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let after = unit.trim_start_matches(|c: char| !c.is_ascii_digit());
            let unit_only = &unit[..unit.len() - after.len()];
            // The last number can be without a unit.
            let known = Self::UNITS.contains(&unit_only) || (unit_only.is_empty() && after.is_empty());
            if unit.len() == rest.len() || !known {
                return false;
            }
            rest = after;
        }
        !text.is_empty()
    }
}

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "infinity" || Self::is_time(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("a timeout is a time such as 30s or 5min, not '{text}'"))
        }
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_device_mapper_and_units_take() {
        for good in ["a", "007", "a.b", "A_b+c-d", &"x".repeat(121)] {
            assert!(good.parse::<Name>().is_ok(), "'{good}' was refused");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "a%b", "\u{e4}", "control", &"x".repeat(122)] {
            assert!(bad.parse::<Name>().is_err(), "'{bad}' was accepted");
        }
    }

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("08", 8), ("3k", 3 << 10), ("256M", 256 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "M", "1X", "-1", "1.5G", "1MM", "99999999999999999999", "99999999999G", "1\u{e4}"] {
            assert!(bad.parse::<Size>().is_err(), "'{bad}' was accepted");
        }
    }

    #[test]
    fn priorities_are_the_kernels() {
        assert_eq!("0100".parse(), Ok(Priority(100)));
        for bad in ["", "-1", "x", "32768", "99999999999999999999"] {
            assert!(bad.parse::<Priority>().is_err(), "'{bad}' was accepted");
        }
    }

    #[test]
    fn timeouts_are_systemds() {
        for good in ["0", "90", "90s", "1min30s", "infinity", "2h", "100ms", "1min30"] {
            assert!(good.parse::<Timeout>().is_ok(), "'{good}' was refused");
        }
        for bad in ["", "soon", "5parsecs", "s", "5 s", "-1", "5s-"] {
            assert!(bad.parse::<Timeout>().is_err(), "'{bad}' was accepted");
        }
    }
}
