// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a running daemon can be asked for at its control socket, each in a line.

use serde::{Deserialize, Serialize};

use super::words;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// To take the newer program.
    Upgrade,
    /// To read the configuration again.
    Reload {
        /// Connections of guests that it does not have any more are ended.
        disconnect: bool,
    },
    /// To go by a configuration that is another in some of its keys.
    Alter(Alteration),
    /// To give memory back to the host.
    GiveBack {
        /// How much.
        bytes: u64,
    },
    /// To drop a guest's file pages.
    Flush {
        /// Its name.
        guest: String,
        /// Its pool of this number, and no others.
        pool: Option<u32>,
    },
    /// To store nothing more for a guest.
    Freeze {
        /// Its name.
        guest: String,
    },
    /// To store for it again.
    Thaw {
        /// Its name.
        guest: String,
    },
}

/// What is another in a configuration. The text is that of a file with nothing but these keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Alteration {
    /// Keys of the daemon, and of guests that there are, have other values.
    Set(String),
    /// Guests come.
    Add(String),
    /// Guests come, or have these keys and no others from now on.
    Put(String),
    /// A guest goes.
    Remove {
        /// Its name.
        guest: String,
        /// Its VMM is sent away if it is connected.
        disconnect: bool,
    },
}

impl Alteration {
    /// Nothing new is stored for a guest from now on, or something is again.
    #[must_use]
    pub fn frozen(guest: &str, frozen: bool) -> Self {
        // A string of JSON is one of TOML.
        Self::Set(format!("guest.{}.frozen = {frozen}\n", serde_json::Value::from(guest)))
    }
}

/// Bytes of what is asked for at most.
pub const LONGEST_WISH: usize = 64 << 10;

const DISCONNECT: &str = "--disconnect";

impl Wish {
    /// What somebody wants who says this line.
    #[must_use]
    pub fn of(said: &[u8]) -> Option<Self> {
        let line = str::from_utf8(said.strip_suffix(b"\n")?).ok()?;
        let words = words::split(line)?;
        let (word, rest) = words.split_first()?;
        let rest: Vec<&str> = rest.iter().map(|word| &**word).collect();
        match (&**word, &*rest) {
            ("upgrade", []) => Some(Self::Upgrade),
            ("reload", []) => Some(Self::Reload { disconnect: false }),
            ("reload", [DISCONNECT]) => Some(Self::Reload { disconnect: true }),
            ("set", [text]) => Some(Self::Alter(Alteration::Set((*text).into()))),
            ("add", [text]) => Some(Self::Alter(Alteration::Add((*text).into()))),
            ("put", [text]) => Some(Self::Alter(Alteration::Put((*text).into()))),
            ("remove", [guest]) => Some(Self::remove(guest, false)),
            ("remove", [guest, DISCONNECT]) => Some(Self::remove(guest, true)),
            ("give-back", [bytes]) => Some(Self::GiveBack { bytes: bytes.parse().ok()? }),
            ("flush", [guest]) => Some(Self::Flush { guest: (*guest).into(), pool: None }),
            ("flush", [guest, pool]) => Some(Self::Flush { guest: (*guest).into(), pool: Some(pool.parse().ok()?) }),
            ("freeze", [guest]) => Some(Self::Freeze { guest: (*guest).into() }),
            ("thaw", [guest]) => Some(Self::Thaw { guest: (*guest).into() }),
            _ => None,
        }
    }

    fn remove(guest: &str, disconnect: bool) -> Self {
        Self::Alter(Alteration::Remove { guest: guest.into(), disconnect })
    }

    /// The line.
    #[must_use]
    pub fn line(&self) -> String {
        let option = |disconnect| if disconnect { " --disconnect" } else { "" };
        let line = match self {
            Self::Upgrade => "upgrade".into(),
            Self::Reload { disconnect } => format!("reload{}", option(*disconnect)),
            Self::Alter(Alteration::Set(text)) => format!("set {}", words::quoted(text)),
            Self::Alter(Alteration::Add(text)) => format!("add {}", words::quoted(text)),
            Self::Alter(Alteration::Put(text)) => format!("put {}", words::quoted(text)),
            Self::Alter(Alteration::Remove { guest, disconnect }) => {
                format!("remove {}{}", words::quoted(guest), option(*disconnect))
            }
            Self::GiveBack { bytes } => format!("give-back {bytes}"),
            Self::Flush { guest, pool: None } => format!("flush {}", words::quoted(guest)),
            Self::Flush { guest, pool: Some(pool) } => format!("flush {} {pool}", words::quoted(guest)),
            Self::Freeze { guest } => format!("freeze {}", words::quoted(guest)),
            Self::Thaw { guest } => format!("thaw {}", words::quoted(guest)),
        };
        line + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_understood() {
        let text = || "memory-limit = '1G'\n[guest.a]\nsocket = \"/run/a\"\n".to_owned();
        for wish in [
            Wish::Upgrade,
            Wish::Reload { disconnect: false },
            Wish::Reload { disconnect: true },
            Wish::Alter(Alteration::Set(text())),
            Wish::Alter(Alteration::Add(text())),
            Wish::Alter(Alteration::Put(String::new())),
            Wish::remove("a", false),
            Wish::remove("/run/a guest's", true),
            Wish::remove("--disconnect", true),
            Wish::GiveBack { bytes: u64::MAX },
            Wish::Flush { guest: "/run/a guest's".into(), pool: None },
            Wish::Flush { guest: "a".into(), pool: Some(3) },
            Wish::Freeze { guest: "a".into() },
            Wish::Thaw { guest: String::new() },
        ] {
            let line = wish.line();
            assert_eq!(line.matches('\n').count(), 1, "{line:?} is not a line");
            assert_eq!(Wish::of(line.as_bytes()).as_ref(), Some(&wish), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_wish_is_none() {
        for line in [
            "reload",
            "\n",
            "relaod\n",
            "reload --now\n",
            "upgrade a\n",
            "set\n",
            "remove a b\n",
            "set \"a\n",
            "flush a b\n",
            "give-back 1G\n",
        ] {
            assert_eq!(Wish::of(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(Wish::of(b"remove \xff\n"), None, "no text");
    }
}
