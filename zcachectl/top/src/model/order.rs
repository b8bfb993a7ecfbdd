// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The columns of the table, by each of which its lines can be in order.

use std::cmp::Ordering;

use zcache_report::{Histogram, Quantile};

use super::Row;

/// A column that lines can be in order by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Column {
    /// The guest's name.
    Guest,
    /// Puts a second.
    Puts,
    /// Gets a second.
    #[default]
    Gets,
    /// Part of the gets that found a page.
    Hits,
    /// Memory charged.
    Memory,
    /// Bytes of pages per byte of memory.
    Ratio,
    /// What half of the gets took at most.
    GetHalf,
    /// What 99 of 100 gets took at most.
    GetMost,
    /// What 99 of 100 puts took at most.
    PutMost,
    /// Refused puts a second.
    Refused,
}

impl Column {
    /// From left to right.
    pub const ALL: [Self; 10] = [
        Self::Guest,
        Self::Puts,
        Self::Gets,
        Self::Hits,
        Self::Memory,
        Self::Ratio,
        Self::GetHalf,
        Self::GetMost,
        Self::PutMost,
        Self::Refused,
    ];

    /// Its head.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Guest => "GUEST",
            Self::Puts => "PUT/s",
            Self::Gets => "GET/s",
            Self::Hits => "HIT",
            Self::Memory => "MEM",
            Self::Ratio => "RATIO",
            Self::GetHalf => "GET50",
            Self::GetMost => "GET99",
            Self::PutMost => "PUT99",
            Self::Refused => "REF/s",
        }
    }

    /// The column so many to the right, around the edge.
    pub(super) fn next(self, steps: usize) -> Self {
        let at = Self::ALL.iter().position(|column| *column == self).unwrap_or(0);
        Self::ALL[(at + steps) % Self::ALL.len()]
    }

    /// The one to the left.
    pub(super) fn previous(self) -> Self {
        self.next(Self::ALL.len() - 1)
    }

    /// Which of two lines comes first: the one with more, or the name that begins earlier.
    pub(super) fn compare(self, one: &Row, other: &Row) -> Ordering {
        let by = |figure: fn(&Row) -> Option<f64>| {
            // What is not known is less than nothing.
            let of = |row| figure(row).unwrap_or(-1.0);
            of(other).total_cmp(&of(one))
        };
        match self {
            Self::Guest => one.name.cmp(&other.name),
            Self::Puts => by(|row| row.figures.puts),
            Self::Gets => by(|row| row.figures.gets),
            Self::Hits => by(|row| Some(row.figures.hits? / row.figures.gets.filter(|gets| *gets > 0.0)?)),
            Self::Memory => other.figures.physical_bytes.cmp(&one.figures.physical_bytes),
            Self::Ratio => by(|row| row.figures.ratio()),
            Self::GetHalf => by_time(&one.figures.get_times, &other.figures.get_times, 0.5),
            Self::GetMost => by_time(&one.figures.get_times, &other.figures.get_times, 0.99),
            Self::PutMost => by_time(&one.figures.put_times, &other.figures.put_times, 0.99),
            Self::Refused => by(|row| row.figures.refused.total()),
        }
    }
}

fn by_time(one: &Histogram, other: &Histogram, part: f64) -> Ordering {
    let of = |times: &Histogram| -> Option<Quantile> { times.quantile(part) };
    of(other).cmp(&of(one))
}

#[cfg(test)]
mod tests {
    use super::super::Input;
    use super::super::tests::model;
    use super::*;

    #[test]
    fn each_column_can_be_the_order_and_both_ways() {
        let mut model = model(20, &[10, 11]);
        model.press(Input::Letter('<'));
        for _ in 0..Column::ALL.len() {
            let (column, _) = model.sort();
            let rows = model.rows();
            let is_in_order = rows.is_sorted_by(|a, b| column.compare(a, b).is_le());
            assert!(is_in_order, "by {column:?}");
            let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
            assert_eq!(names.len(), 20);
            model.press(Input::Letter('r'));
            let rows = model.rows();
            assert!(rows.is_sorted_by(|a, b| column.compare(a, b).is_ge()), "the other way by {column:?}");
            model.press(Input::Letter('r'));
            model.press(Input::Letter('>'));
        }
        assert_eq!(model.sort().0, Column::Puts, "once around");
    }
}
