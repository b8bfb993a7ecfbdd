// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a device is named: by a path, or by a tag such as `UUID=`.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::block::Number;
use crate::program;

/// What somebody wrote for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spec {
    Path(String),
    Tag(Tag, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    Uuid,
    Label,
    PartUuid,
    PartLabel,
}

impl Tag {
    const ALL: [Self; 4] = [Self::Uuid, Self::Label, Self::PartUuid, Self::PartLabel];

    fn word(self) -> &'static str {
        match self {
            Self::Uuid => "UUID",
            Self::Label => "LABEL",
            Self::PartUuid => "PARTUUID",
            Self::PartLabel => "PARTLABEL",
        }
    }

    /// As in `/dev/disk/by-uuid`.
    pub(crate) fn folder(self) -> String {
        self.word().to_lowercase()
    }
}

/// A device that is there.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) number: Number,
}

impl Spec {
    /// Of what somebody wrote, which has to be something: a variable may have been empty.
    pub(crate) fn given(text: &str) -> Result<Self, String> {
        let Ok(spec) = text.parse();
        let has_no_value =
            Tag::ALL.into_iter().any(|tag| text.split_once('=').is_some_and(|(word, _)| word == tag.word()));
        match spec {
            Self::Path(path) if path.is_empty() || has_no_value => Err(Self::is_none(text)),
            spec => Ok(spec),
        }
    }

    /// What is said of a text that is none.
    pub(crate) fn is_none(text: &str) -> String {
        format!("'{text}' is neither a path nor UUID=, LABEL=, PARTUUID=, PARTLABEL=")
    }

    /// The device, if it is there. While one of ours is open, its origin's tags are its own too,
    /// and it is the origin that is wanted here.
    pub(crate) fn resolve(&self) -> Option<Found> {
        let (tag, value) = match self {
            Self::Path(path) => return found(path.into()),
            Self::Tag(tag, value) => (*tag, value),
        };
        let folder = tag.folder();
        let link = link_name(value);
        let origin = |path: String| found(path.into()).filter(|found| !found.number.is_ours());
        [format!("/dev/disk/zcache/{folder}/{link}"), format!("/dev/disk/by-{folder}/{link}")]
            .into_iter()
            .find_map(origin)
            .or_else(|| {
                let asked = program::run("blkid", &["-t", &self.to_string(), "-o", "device"]).ok()?;
                asked.output.lines().map(str::to_owned).find_map(origin)
            })
    }
}

fn found(path: PathBuf) -> Option<Found> {
    let number = Number::of_file(&path)?;
    Some(Found { path, number })
}

/// A tag's value as udev has it in the name of a link. What is written that way already stays.
pub(crate) fn link_name(value: &str) -> String {
    let mut name = String::new();
    for c in value.chars() {
        match c {
            '\\' => name.push(c),
            _ if c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c) || !c.is_ascii() => name.push(c),
            _ => name.push_str(&format!("\\x{:02x}", u32::from(c))),
        }
    }
    name
}

impl FromStr for Spec {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let tagged = || {
            let (word, value) = text.split_once('=')?;
            let tag = Tag::ALL.into_iter().find(|tag| tag.word() == word)?;
            let value = unquoted(value);
            (!value.is_empty()).then(|| Self::Tag(tag, value.to_owned()))
        };
        Ok(tagged().unwrap_or_else(|| Self::Path(text.to_owned())))
    }
}

/// `blkid` prints values in quotes, and fstab may have them.
fn unquoted(value: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value)
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Tag(tag, value) => write!(f, "{}={value}", tag.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_from_paths() {
        let Ok(tag) = "PARTUUID=3a-02".parse::<Spec>();
        assert_eq!(tag, Spec::Tag(Tag::PartUuid, "3a-02".to_owned()));
        for quoted in ["PARTUUID=\"3a-02\"", "PARTUUID='3a-02'"] {
            assert_eq!(quoted.parse(), Ok(tag.clone()));
        }
        for path in ["/dev/vdb", "UUID=", "UUID=\"\"", "UUIDS=1", "uuid=1", "=", ""] {
            let Ok(spec) = path.parse::<Spec>();
            assert_eq!(spec, Spec::Path(path.to_owned()));
        }
    }

    #[test]
    fn links_stay_in_their_folder() {
        assert_eq!(link_name("../../vdb"), "..\\x2f..\\x2fvdb");
        assert_eq!(link_name("my disk"), "my\\x20disk");
        assert_eq!(link_name("my\\x20disk"), "my\\x20disk");
        assert_eq!(link_name("a_b-c.1\u{e4}"), "a_b-c.1\u{e4}");
    }
}
