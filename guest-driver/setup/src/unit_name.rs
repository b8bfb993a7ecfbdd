// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Names of systemd's units, as `systemd-escape` makes them.

/// Any text as a part of a unit's name.
pub(crate) fn escape(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'/' => name.push('-'),
            b'.' if name.is_empty() => name.push_str("\\x2e"),
            b':' | b'_' | b'.' => name.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => name.push(char::from(byte)),
            _ => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    name
}

/// A path, which is `-` for the root folder. Slashes too many mean nothing.
pub(crate) fn escape_path(path: &str) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() { "-".to_owned() } else { escape(&parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_systemds() {
        for (path, name) in [
            ("/", "-"),
            ("/dev/vdb", "dev-vdb"),
            ("/dev//disk/./by-id/a-b/", "dev-disk-by\\x2did-a\\x2db"),
            ("/.hidden", "\\x2ehidden"),
            ("/srv/a.b", "srv-a.b"),
            ("/srv/\u{e4}", "srv-\\xc3\\xa4"),
            ("/dev/disk/by-label/my\\x20disk", "dev-disk-by\\x2dlabel-my\\x5cx20disk"),
        ] {
            assert_eq!(escape_path(path), name);
        }
        assert_eq!(escape("luks-x"), "luks\\x2dx");
    }
}
