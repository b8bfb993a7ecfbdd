// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Words of a line that somebody says at the control socket. They have blanks between them; one
//! that has blanks itself, or anything else that is not plain, is said as a string of JSON.

/// The words of a line, if it makes sense.
#[must_use]
pub fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start_matches(' ');
    while !rest.is_empty() {
        let end = if rest.starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            words.push(strings.next()?.ok()?);
            strings.byte_offset()
        } else {
            let end = rest.find(' ').unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            end
        };
        let behind = &rest[end..];
        if !behind.is_empty() && !behind.starts_with(' ') {
            return None;
        }
        rest = behind.trim_start_matches(' ');
    }
    Some(words)
}

/// A word as it is said.
#[must_use]
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '"';
    // What begins with a dash is an option.
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        serde_json::Value::from(word).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_have_blanks_between_them() {
        let words = |line: &str| split(line).map(|words| words.join("|"));
        assert_eq!(words("reload --disconnect").as_deref(), Some("reload|--disconnect"));
        assert_eq!(words("  flush   a 3 ").as_deref(), Some("flush|a|3"));
        assert_eq!(words(r#"set "a = 1\nb = \"c\"" x"#).as_deref(), Some("set|a = 1\nb = \"c\"|x"));
        assert_eq!(words("").as_deref(), Some(""));
        for wrong in [r#"set "a"#, r#"set "a"b"#, r#"set "\x""#] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_a_word(words in prop::collection::vec(any::<String>(), 0..5)) {
            let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
            prop_assert!(!line.contains('\n'), "{line:?} is more than a line");
            prop_assert_eq!(split(&line), Some(words));
        }
    }
}
