// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a worker does for the operator, who waits for it: one errand at a time, and none for ever.

use super::process::BEAT;

/// Beats that an errand may take.
const PATIENCE: u32 = 120;

/// The errand under way, if there is one.
#[derive(Debug, Default)]
pub struct Errands {
    /// Those there were.
    count: u64,
    /// Ticket of the one that is waited for, and beats since it was begun.
    waits: Option<(u64, u32)>,
}

impl Errands {
    /// Begins one; its ticket.
    pub fn begin(&mut self) -> u64 {
        self.count += 1;
        self.waits = Some((self.count, 0));
        self.count
    }

    /// One has come to its end. Whether it is the one that is waited for.
    pub fn end(&mut self, ticket: u64) -> bool {
        self.waits.take_if(|(waits, _)| *waits == ticket).is_some()
    }

    /// There is nobody any more who would do it. Whether one is waited for, which is not any more.
    pub fn lose(&mut self) -> bool {
        self.waits.take().is_some()
    }

    /// A beat has passed. If the errand takes too long, so that it is not waited for any more: how
    /// many seconds it has taken.
    pub fn beat(&mut self) -> Option<u64> {
        let (_, beats) = self.waits.as_mut()?;
        *beats += 1;
        self.waits.take_if(|(_, beats)| *beats > PATIENCE).map(|(_, beats)| (BEAT * beats).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_ever_or_gets_the_answer_to_something_else() {
        let mut errands = Errands::default();
        let first = errands.begin();
        assert_eq!((0..PATIENCE).find_map(|_| errands.beat()), None);
        assert_eq!(errands.beat(), Some(60));
        let second = errands.begin();
        assert!(!errands.end(first), "an answer that came late is another's");
        assert!(errands.end(second));
        assert!(!errands.end(second), "it has come to its end twice");
        errands.begin();
        assert!(errands.lose());
        assert!(!errands.lose());
    }
}
