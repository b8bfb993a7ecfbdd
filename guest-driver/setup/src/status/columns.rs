// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tables for people: a column is as wide as its widest word.

/// A column: its head, how wide it is at least, and on which side its words begin.
pub(super) struct Column(pub(super) &'static str, pub(super) usize, pub(super) Side);

pub(super) enum Side {
    Left,
    Right,
}

pub(super) fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let width = |index: usize| {
        let Column(head, least, _) = &columns[index];
        let words = rows.iter().map(|row| row[index].chars().count());
        words.chain([head.len(), *least]).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |words: Vec<&str>| {
        let cells = words.iter().zip(columns).zip(&widths).map(|((word, column), width)| match column.2 {
            Side::Left => format!("{word:<width$}"),
            Side::Right => format!("{word:>width$}"),
        });
        cells.collect::<Vec<_>>().join(" ").trim_end().to_owned() + "\n"
    };
    let heads = line(columns.iter().map(|column| column.0).collect());
    heads + &rows.iter().map(|row| line(row.iter().map(String::as_str).collect())).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must() {
        let columns = [Column("NAME", 6, Side::Left), Column("N", 3, Side::Right)];
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long-name".to_owned(), "12345".to_owned()]];
        assert_eq!(table(&columns, &rows), "NAME          N\na             1\nlong-name 12345\n");
        assert_eq!(table(&columns, &[]), "NAME     N\n");
    }
}
