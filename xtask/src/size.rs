// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sizes on the command line: `256M`, `2G`, `4096`.

/// Parses a number of bytes with an optional unit K, M, G or T (powers of 1024).
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        unit => return Err(format!("unknown unit '{unit}': use K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| "a number such as 256M is needed".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too much".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("256M"), Ok(256 << 20));
        assert_eq!(parse("2GiB"), Ok(2 << 30));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "M", "1X", "-1M", "99999999999T"] {
            assert!(parse(text).is_err(), "accepted '{text}'");
        }
    }
}
