// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Figures in five columns, and names in as many as there are.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
use zcache_report::Quantile;

/// Columns of a figure at most.
pub const FIGURE: usize = 5;

/// What stands for a figure that is not known.
pub const NOTHING: &str = "-";

/// A number with its thousands' letter: `9.5`, `123`, `1.2k`, `45M`.
#[must_use]
pub fn number(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// A size: `512`, `1.2K`, `45M`, in powers of 1024.
#[must_use]
pub fn bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &["", "K", "M", "G", "T", "P", "E"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What would be rounded up to a thousand is one of the next.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let is_whole = value >= 9.95 || value == value.trunc() && unit == 0;
    format!("{value:.*}{}", usize::from(!is_whole), units[unit])
}

/// A part of a whole in percent; nothing of nothing is not known.
#[must_use]
pub fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:.0}%", 100.0 * (part / whole).clamp(0.0, 1.0)) } else { NOTHING.into() }
}

/// A time by the bucket it is in: `768ns`, `1.5us`, `134ms`, `>1.1s`.
#[must_use]
pub fn time(quantile: Option<Quantile>) -> String {
    let (mark, ns) = match quantile {
        None => return NOTHING.into(),
        Some(Quantile::UpTo(ns)) => ("", ns),
        Some(Quantile::Over(ns)) => (">", ns),
    };
    format!("{mark}{}", scaled(ns as f64, 1000.0, &["ns", "us", "ms", "s"]))
}

/// How long something has been there: `12:34:56`, `3d 04:05`.
#[must_use]
pub fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days}d {hours:02}:{minutes:02}")
    } else {
        format!("{hours:02}:{minutes:02}:{:02}", seconds % 60)
    }
}

/// A letter as it may be shown.
#[must_use]
pub fn printable(letter: char) -> char {
    if letter.is_control() { '?' } else { letter }
}

/// A name in so many columns at most. Of one that is longer the end is left, where names differ.
#[must_use]
pub fn name(name: &str, columns: usize) -> String {
    let shown: String = name.chars().map(printable).collect();
    if shown.width() <= columns {
        return shown;
    }
    let mut left = columns.saturating_sub(2);
    let fits = |letter: &char| {
        let rest = left.checked_sub(letter.width().unwrap_or(0));
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    let mut end: Vec<char> = shown.chars().rev().take_while(fits).collect();
    end.reverse();
    "..".chars().take(columns).chain(end).collect()
}

/// Letters of which bars of histories are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bars {
    /// Blocks of eighths.
    Blocks,
    /// Whatever every terminal has.
    Ascii,
}

impl Bars {
    /// Those that the locale's encoding has.
    #[must_use]
    pub fn of_locale() -> Self {
        let values = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(std::env::var_os);
        Self::of(values.map(|value| value.to_string_lossy().into_owned()))
    }

    /// Those of a locale; the first value that is not empty counts.
    fn of(values: impl IntoIterator<Item = String>) -> Self {
        let locale = values.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") { Self::Blocks } else { Self::Ascii }
    }

    fn letters(self) -> &'static [char] {
        match self {
            Self::Blocks => &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
            Self::Ascii => &[' ', '.', ':', '-', '=', '+', '*', '#', '@'],
        }
    }

    /// The last of some values as so many bars, the highest of them full.
    #[must_use]
    pub fn history(self, values: impl DoubleEndedIterator<Item = f64> + Clone, columns: usize) -> String {
        let letters = self.letters();
        let shown: Vec<f64> = values.rev().take(columns).collect();
        let most = shown.iter().copied().fold(0.0, f64::max);
        let bar = |value: &f64| {
            let most_bars = (letters.len() - 1) as f64;
            // Anything is more than nothing.
            let level = if most > 0.0 { (value / most * most_bars).ceil() } else { 0.0 };
            (0..letters.len()).find(|at| *at as f64 >= level).map_or(' ', |at| letters[at])
        };
        let bars: String = shown.iter().rev().map(bar).collect();
        format!("{bars:>columns$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let cases =
            [(0.0, "0"), (0.4, "0.4"), (7.0, "7"), (9.96, "10"), (999.4, "999"), (999.6, "1.0k"), (1.25e4, "12k")];
        for (value, expected) in cases {
            assert_eq!(number(value), expected, "{value}");
        }
        assert_eq!((bytes(0), bytes(1000), bytes(3 << 29)), ("0".into(), "1.0K".into(), "1.5G".into()));
        for power in 0..64 {
            for value in [(1_u64 << power) - 1, 1 << power] {
                let widths = [
                    number(value as f64).len(),
                    bytes(value).len(),
                    time(Some(Quantile::UpTo(value.min(1 << 30)))).len(),
                ];
                assert!(widths.iter().all(|width| *width <= FIGURE), "{value}: {widths:?}");
            }
        }
    }

    #[test]
    fn times_have_units() {
        let up_to = |ns| time(Some(Quantile::UpTo(ns)));
        assert_eq!([up_to(512), up_to(1536), up_to(134_217_728)], ["512ns", "1.5us", "134ms"]);
        assert_eq!((time(Some(Quantile::Over(1 << 30))), time(None)), (">1.1s".into(), "-".into()));
    }

    #[test]
    fn of_a_long_name_the_end_is_left() {
        assert_eq!(name("/run/zcache/a.sock", 10), "..e/a.sock");
        assert_eq!(name("short", 10), "short");
        assert_eq!(name("a\nb\u{1b}[m", 10), "a?b?[m");
        assert_eq!(name("日本語日本語", 7), "..本語");
        assert_eq!((name("long", 2), name("long", 0)), ("..".into(), String::new()));
    }

    #[test]
    fn the_highest_bar_is_full() {
        assert_eq!(Bars::Ascii.history([0.0, 1.0, 4.0, 8.0].into_iter(), 6), "   .=@");
        assert_eq!(Bars::Blocks.history([1.0, 2.0, 0.001].into_iter(), 2), "█▁");
        assert_eq!(Bars::Ascii.history([0.0; 3].into_iter(), 3), "   ");
    }

    #[test]
    fn blocks_are_for_locales_that_have_them() {
        let of = |values: &[&str]| Bars::of(values.iter().map(|value| (*value).to_owned()));
        assert_eq!(of(&["", "de_DE.UTF-8"]), Bars::Blocks);
        assert_eq!((of(&["C", "C.utf8"]), of(&[])), (Bars::Ascii, Bars::Ascii));
    }

    #[test]
    fn ages_are_of_days() {
        assert_eq!((age(3_725), age(277_500)), ("01:02:05".into(), "3d 05:05".into()));
    }
}
