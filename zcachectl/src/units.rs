// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sizes for people, in the units in which sizes are given: K, M, G and T, powers of 1024.

/// A size in at most four digits.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = ["", "K", "M", "G", "T", "P", "E"];
    let mut unit = 0;
    // Less than a thousandth is lost by what is cut off here.
    let (mut whole, mut part) = (bytes, 0);
    while whole >= 1024 && unit + 1 < units.len() {
        part = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    let tenths = part * 10 / 1024;
    if unit > 0 && whole < 100 && tenths > 0 {
        format!("{whole}.{tenths}{}", units[unit])
    } else {
        format!("{whole}{}", units[unit])
    }
}

/// A part of something, as per cent; nothing of nothing is a dash.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{}%", u128::from(part) * 100 / u128::from(whole)) }
}

/// How long something is.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1K"),
            (1536, "1.5K"),
            (8 << 30, "8G"),
            ((8 << 30) - 1, "7.9G"),
            (300 << 20, "300M"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn parts_and_durations() {
        assert_eq!(
            (percent(1, 3), percent(0, 0), percent(u64::MAX, u64::MAX)),
            ("33%".into(), "-".into(), "100%".into())
        );
        assert_eq!(
            (duration(59), duration(61), duration(7_260), duration(90_000)),
            ("59s".into(), "1m 1s".into(), "2h 1m".into(), "1d 1h".into())
        );
    }
}
