// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Measurements of several contenders, as a table.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::bench::median::median;

/// One figure of each contender; one row of a table.
#[derive(Debug, Serialize)]
struct Row {
    figure: &'static str,
    /// For each contender, its value in each turn.
    values: Vec<Vec<f64>>,
}

/// Figures by contender. It is printed as Markdown, a column for each contender.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    title: String,
    contenders: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Table {
    pub(super) fn new(title: String, contenders: &[&'static str]) -> Self {
        Self { title, contenders: contenders.to_vec(), rows: Vec::new() }
    }

    /// Adds what one contender had in one turn.
    pub(super) fn add(&mut self, contender: &'static str, figures: &[(&'static str, f64)]) {
        let column = self.contenders.iter().position(|&name| name == contender);
        let column = column.unwrap_or_else(|| panic!("{contender} is not in this table"));
        for &(figure, value) in figures {
            let row = match self.rows.iter().position(|row| row.figure == figure) {
                Some(row) => &mut self.rows[row],
                None => {
                    self.rows.push(Row { figure, values: vec![Vec::new(); self.contenders.len()] });
                    self.rows.last_mut().expect("a row was added")
                }
            };
            row.values[column].push(value);
        }
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n| | {} |", self.title, self.contenders.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(self.contenders.len()))?;
        for row in &self.rows {
            write!(f, "| {} |", row.figure)?;
            for values in &row.values {
                if values.is_empty() {
                    write!(f, " |")?;
                } else {
                    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
                    let highest = values.iter().copied().fold(0.0, f64::max);
                    let middle = median(values.iter().copied());
                    write!(f, " {} ({} to {}) |", short(middle), short(lowest), short(highest))?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        3
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_and_extremes() {
        let mut table = Table::new("Title".to_owned(), &["a", "b"]);
        for value in [30.0, 10.0, 20.0] {
            table.add("a", &[("speed", value)]);
        }
        table.add("b", &[("speed", 0.5), ("memory", 1000.0)]);
        assert_eq!(
            table.to_string(),
            "Title\n\n| | a | b |\n|---|---|---|\n| speed | 20.0 (10.0 to 30.0) | 0.500 (0.500 to 0.500) |\n\
             | memory | | 1000 (1000 to 1000) |\n"
        );
    }
}
