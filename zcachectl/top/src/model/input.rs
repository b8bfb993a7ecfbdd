// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What keys do.

use super::{Mode, Model};

/// Letters of a filter at most.
const LONGEST_FILTER: usize = 64;
/// Lines that a page's key goes on by.
const PAGE: usize = 10;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// One that writes.
    Letter(char),
    /// Ends a line.
    Enter,
    /// Leaves something.
    Escape,
    /// Removes a letter.
    Backspace,
    /// A line up.
    Up,
    /// A line down.
    Down,
    /// Some lines up.
    PageUp,
    /// Some lines down.
    PageDown,
    /// To the first line.
    Home,
    /// To the last line.
    End,
    /// Ctrl-C.
    Interrupt,
}

/// What the operator wants after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// To see more.
    More,
    /// The end.
    End,
}

impl Model {
    /// Does what a key is for.
    pub fn press(&mut self, input: Input) -> Wants {
        if input == Input::Interrupt {
            return Wants::End;
        }
        match self.mode {
            Mode::Filter => self.write(input),
            Mode::Help => self.mode = Mode::Table,
            Mode::Table => return self.command(input),
        }
        Wants::More
    }

    fn command(&mut self, input: Input) -> Wants {
        match input {
            Input::Letter('q' | 'Q') => return Wants::End,
            Input::Letter('p' | 'P' | ' ') => self.paused = !self.paused,
            Input::Letter('s' | '>') => self.sort = self.sort.next(1),
            Input::Letter('S' | '<') => self.sort = self.sort.previous(),
            Input::Letter('r' | 'R') => self.reversed = !self.reversed,
            Input::Letter('/') => self.mode = Mode::Filter,
            Input::Letter('h' | 'H' | '?') => self.mode = Mode::Help,
            Input::Escape => self.filter.clear(),
            Input::Up | Input::Letter('k') => self.select(|at, _| at.saturating_sub(1)),
            Input::Down | Input::Letter('j') => self.select(|at, _| at + 1),
            Input::PageUp => self.select(|at, _| at.saturating_sub(PAGE)),
            Input::PageDown => self.select(|at, _| at + PAGE),
            Input::Home => self.select(|_, _| 0),
            Input::End => self.select(|_, rows| rows),
            _ => {}
        }
        Wants::More
    }

    /// Writes the filter.
    fn write(&mut self, input: Input) {
        match input {
            Input::Letter(letter) if !letter.is_control() && self.filter.chars().count() < LONGEST_FILTER => {
                self.filter.push(letter);
            }
            Input::Backspace => drop(self.filter.pop()),
            Input::Enter => self.mode = Mode::Table,
            Input::Escape => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            _ => {}
        }
    }

    /// Looks at another guest, of which the number is made of the present one and of how many there
    /// are.
    fn select(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let rows = self.rows();
        let Some(at) = self.selected() else { return };
        let to = to(at, rows.len()).min(rows.len() - 1);
        self.selected = Some(rows[to].name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::model;
    use super::*;

    fn names(model: &Model) -> Vec<&str> {
        model.rows().iter().map(|row| row.name.as_str()).collect()
    }

    fn keys(model: &mut Model, text: &str) {
        text.chars().for_each(|letter| assert_eq!(model.press(Input::Letter(letter)), Wants::More, "{letter:?}"));
    }

    #[test]
    fn a_filter_leaves_guests_out_while_it_is_written() {
        let mut model = model(30, &[10, 11]);
        keys(&mut model, "/VM-01q");
        assert_eq!(names(&model), Vec::<&str>::new(), "q is a letter here");
        model.press(Input::Backspace);
        assert_eq!((names(&model).len(), model.guests()), (10, 30));
        model.press(Input::Enter);
        assert_eq!((model.mode(), model.filter()), (Mode::Table, "VM-01"));
        model.press(Input::Escape);
        assert_eq!(names(&model).len(), 30);
        keys(&mut model, "/");
        keys(&mut model, &"x".repeat(1000));
        assert_eq!(model.filter().len(), LONGEST_FILTER);
        model.press(Input::Escape);
        assert_eq!((model.mode(), model.filter()), (Mode::Table, ""));
    }

    #[test]
    fn what_is_looked_at_stays_when_the_order_changes() {
        let mut model = model(30, &[10, 11]);
        assert_eq!(model.selected(), Some(0), "the first, if nobody has chosen");
        for _ in 0..3 {
            model.press(Input::Down);
        }
        let chosen = names(&model)[3].to_owned();
        keys(&mut model, "r");
        assert_eq!(model.selected().map(|at| names(&model)[at]), Some(chosen.as_str()));
        model.press(Input::End);
        model.press(Input::PageDown);
        assert_eq!(model.selected(), Some(29));
        model.press(Input::Home);
        model.press(Input::PageUp);
        assert_eq!(model.selected(), Some(0));
        keys(&mut model, "/nothing of that name");
        model.press(Input::Enter);
        model.press(Input::Down);
        assert_eq!(model.selected(), None);
    }

    #[test]
    fn it_ends_when_it_is_to() {
        let mut model = model(1, &[10]);
        assert_eq!(model.press(Input::Letter('q')), Wants::End);
        keys(&mut model, "h");
        assert_eq!(model.mode(), Mode::Help);
        keys(&mut model, "q");
        assert_eq!(model.mode(), Mode::Table, "any key leaves the help");
        keys(&mut model, "/");
        assert_eq!(model.press(Input::Interrupt), Wants::End);
    }
}
