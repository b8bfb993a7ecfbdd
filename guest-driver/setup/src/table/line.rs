// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A line of the table.

use std::fmt;

use crate::spec::Spec;
use crate::swapdisk;
use crate::values::{Name, Priority, Put, Size, Timeout};

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: Name,
    pub(crate) what: What,
    pub(crate) boot: Boot,
}

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Mapped { device: Spec, put: Put, initramfs: bool },
    Swap(swapdisk::Options),
}

/// How the boot goes about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Boot {
    pub(crate) nofail: bool,
    pub(crate) noauto: bool,
    pub(crate) netdev: bool,
    pub(crate) timeout: Option<Timeout>,
}

/// The words of options, which zcachetab(5) has as well.
#[cfg(test)]
pub(crate) const OPTIONS: &[&str] = &[
    "_netdev",
    "initramfs",
    "noauto",
    "nofail",
    "priority=",
    "put=",
    "size=",
    "swap",
    "writethrough",
    "x-systemd.device-timeout=",
];

/// What options have said until now.
#[derive(Default)]
struct Options {
    put: Put,
    initramfs: bool,
    size: Option<Size>,
    priority: Option<Priority>,
    writethrough: bool,
    boot: Boot,
}

impl Line {
    /// Of the first field and those after it.
    pub(crate) fn parse(name: &str, fields: &[&str]) -> Result<Self, String> {
        let name: Name = name.parse()?;
        let device = fields.first().copied().unwrap_or_default();
        let words = || fields.get(1).copied().unwrap_or_default().split(',').filter(|word| !word.is_empty());
        let is_swap = words().any(|word| word == "swap");
        let mut options = Options::default();
        for word in words() {
            options.take(&name, is_swap, word)?;
        }
        let device = match device {
            "none" if is_swap => None,
            "none" => return Err(format!("{name}: needs a device")),
            _ => Some(device_of_line(&name, device)?),
        };
        if fields.len() > 2 {
            return Err(format!("{name}: more than three fields"));
        }
        let Options { put, initramfs, size, priority, writethrough, boot } = options;
        let what = match device {
            Some(device) if !is_swap => What::Mapped { device, put, initramfs },
            device => What::Swap(swapdisk::Options::new(device, size, writethrough, priority)?),
        };
        Ok(Self { name, what, boot })
    }

    /// The device below, if there is one.
    pub(crate) fn device(&self) -> Option<&Spec> {
        match &self.what {
            What::Mapped { device, .. } => Some(device),
            What::Swap(options) => options.backing(),
        }
    }

    pub(crate) fn is_for_initramfs(&self) -> bool {
        matches!(self.what, What::Mapped { initramfs: true, .. })
    }
}

impl Options {
    fn take(&mut self, name: &Name, is_swap: bool, word: &str) -> Result<(), String> {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word, None),
        };
        match (is_swap, key, value) {
            (true, "swap", None) => {}
            (true, "size", Some(size)) => self.size = Some(size.parse()?),
            (true, "priority", Some(priority)) => self.priority = Some(priority.parse()?),
            (true, "writethrough", None) => self.writethrough = true,
            (false, "put", Some(put)) => self.put = put.parse()?,
            (false, "initramfs", None) => self.initramfs = true,
            (_, "nofail", None) => self.boot.nofail = true,
            (_, "noauto", None) => self.boot.noauto = true,
            (_, "_netdev", None) => self.boot.netdev = true,
            (_, "x-systemd.device-timeout", Some(time)) => self.boot.timeout = Some(time.parse()?),
            _ => return Err(format!("{name}: option '{word}' is not known, or not here")),
        }
        Ok(())
    }
}

fn device_of_line(name: &Name, text: &str) -> Result<Spec, String> {
    let Ok(spec) = text.parse();
    match &spec {
        Spec::Path(path) if !(path.starts_with('/') && path.len() > 1) => {
            Err(format!("{name}: {}", Spec::is_none(text)))
        }
        _ => Ok(spec),
    }
}

/// As `zcachesetup table` prints it: name, device, kind, and what concerns the boot.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, what, boot } = self;
        let kind = if matches!(what, What::Swap(_)) { "swap" } else { "dm" };
        match self.device() {
            Some(device) => write!(f, "{name} {device} {kind}")?,
            None => write!(f, "{name} none {kind}")?,
        }
        let mut words = Vec::new();
        for (word, is_set) in [
            ("initramfs", self.is_for_initramfs()),
            ("nofail", boot.nofail),
            ("noauto", boot.noauto),
            ("_netdev", boot.netdev),
        ] {
            if is_set {
                words.push(word.to_owned());
            }
        }
        words.extend(boot.timeout.iter().map(|time| format!("x-systemd.device-timeout={time}")));
        if words.is_empty() { Ok(()) } else { write!(f, " {}", words.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Line, String> {
        let fields: Vec<_> = text.split_whitespace().collect();
        Line::parse(fields[0], &fields[1..])
    }

    #[test]
    fn lines_are_understood() {
        for (line, understood) in [
            ("a /dev/vdb", "a /dev/vdb dm"),
            ("a /dev/vdb put=read,,", "a /dev/vdb dm"),
            (
                "a UUID=1-2 x-systemd.device-timeout=5s,nofail,initramfs",
                "a UUID=1-2 dm initramfs,nofail,x-systemd.device-timeout=5s",
            ),
            ("a none size=1G,swap,noauto", "a none swap noauto"),
            ("a /dev/vdc swap,writethrough,_netdev,priority=3", "a /dev/vdc swap _netdev"),
        ] {
            assert_eq!(parse(line).map(|line| line.to_string()), Ok(understood.to_owned()));
        }
    }

    #[test]
    fn every_option_is_taken_somewhere() {
        for option in OPTIONS {
            let value = match *option {
                "put=" => "put=read",
                "size=" => "size=1G",
                "priority=" => "priority=1",
                "x-systemd.device-timeout=" => "x-systemd.device-timeout=5s",
                flag => flag,
            };
            let lines = [format!("a /dev/x {value}"), format!("a /dev/x swap,{value}")];
            assert!(lines.iter().any(|line| parse(line).is_ok()), "'{option}' is not known");
        }
    }

    /// Options of a line are those of zcachetab(5), both ways.
    #[test]
    fn the_page_has_the_same_options() {
        let page = include_str!("../../zcachetab.5");
        let mut described: Vec<String> = page
            .lines()
            .filter_map(|line| line.strip_prefix(".It Cm "))
            .map(|line| line.chars().take_while(|c| c.is_ascii_lowercase() || "_-.=".contains(*c)).collect())
            .collect();
        described.sort();
        assert_eq!(described, OPTIONS);
    }

    #[test]
    fn flags_have_no_values_and_others_need_one() {
        for option in ["nofail=1", "put", "initramfs=", "swap=1", "x-systemd.device-timeout", "x", "size=1G"] {
            let message = parse(&format!("a /dev/x {option}")).expect_err(option);
            assert_eq!(message, format!("a: option '{option}' is not known, or not here"));
        }
    }
}
