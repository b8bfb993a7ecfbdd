// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the terminal can show.

use ratatui::style::{Color, Modifier, Style};

use crate::format::Bars;

/// What the terminal can show. Nothing is said by a colour alone.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Colours may be used.
    pub colour: bool,
    /// Letters of bars.
    pub bars: Bars,
}

impl Look {
    /// Heads and names.
    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The head of the column that decides the order.
    pub(super) fn order(self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    /// The line that is looked at.
    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// What a person has to see to.
    pub(super) fn alarm(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Histories.
    pub(super) fn bars(self) -> Style {
        self.coloured(Color::Green)
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }
}
