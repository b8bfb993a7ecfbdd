// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Numbers for people to read.

/// Bytes of a page, in which the kernel counts.
pub(crate) const PAGE: u64 = 4096;

/// Bytes in units of 1024, with one digit after the point unless it is 0.
pub(crate) fn human(bytes: u64) -> String {
    let mut tenths = u128::from(bytes) * 10;
    let mut units = "BKMGTPE".chars();
    let mut unit = units.next();
    while tenths >= 10240 {
        tenths /= 1024;
        unit = units.next();
    }
    let unit = unit.unwrap_or('?');
    match tenths % 10 {
        0 => format!("{}{unit}", tenths / 10),
        digit => format!("{}.{digit}{unit}", tenths / 10),
    }
}

/// The share of hits, if there is anything to share.
pub(crate) fn percentage(hits: u64, misses: u64) -> Option<String> {
    let all = u128::from(hits) + u128::from(misses);
    let tenths = (u128::from(hits) * 1000).checked_div(all)?;
    Some(format!("{}.{}%", tenths / 10, tenths % 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_down_to_a_digit() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1K"),
            (1536, "1.5K"),
            (64 << 20, "64M"),
            ((1 << 30) - 1, "1023.9M"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn a_share_of_nothing_is_none() {
        assert_eq!(percentage(0, 0), None);
        assert_eq!(percentage(2, 1).as_deref(), Some("66.6%"));
        assert_eq!(percentage(u64::MAX, 0).as_deref(), Some("100.0%"));
    }
}
