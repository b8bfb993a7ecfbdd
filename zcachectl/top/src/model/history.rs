// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rates of late.

use std::collections::VecDeque;

use super::figures::Figures;

/// More than the columns of wide terminals.
const LONGEST: usize = 240;

/// Rates of late, older ones first.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<(f64, f64)>);

impl History {
    /// Adds what is known.
    pub(super) fn push(&mut self, figures: &Figures) {
        let (Some(puts), Some(gets)) = (figures.puts, figures.gets) else { return };
        if self.0.len() == LONGEST {
            self.0.pop_front();
        }
        self.0.push_back((puts, gets));
    }

    /// Puts.
    pub fn puts(&self) -> impl DoubleEndedIterator<Item = f64> + Clone {
        self.0.iter().map(|(puts, _)| *puts)
    }

    /// Gets.
    pub fn gets(&self) -> impl DoubleEndedIterator<Item = f64> + Clone {
        self.0.iter().map(|(_, gets)| *gets)
    }

    /// Both.
    pub fn requests(&self) -> impl DoubleEndedIterator<Item = f64> + Clone {
        self.0.iter().map(|(puts, gets)| puts + gets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded() {
        let mut history = History::default();
        for number in 0..1000 {
            history.push(&Figures { puts: Some(f64::from(number)), gets: Some(1.0), ..Figures::default() });
        }
        assert_eq!((history.puts().count(), history.puts().next_back()), (LONGEST, Some(999.0)));
        assert_eq!(history.requests().next_back(), Some(1000.0));
    }
}
