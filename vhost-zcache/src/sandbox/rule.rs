// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a rule of the system call filter says.

use std::ffi::{c_int, c_long};

/// What is confined: the keeper's one thread, or a kind of thread of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The keeper.
    Keeper,
    /// The worker's first thread, which does what the keeper says, and those that help it to make
    /// the index again. Its rules hold for the process, so it has those of the other kinds as well.
    Control,
    /// A thread that serves rings.
    Queue,
    /// The store's background thread.
    Store,
    /// The thread that answers at the statistics socket.
    Statistics,
    /// A thread that does nothing, by whose end the worker's is seen.
    Sentinel,
    /// A thread that moves a guest's state to or from its VMM.
    State,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Keeper, Self::Control, Self::Queue, Self::Store, Self::Statistics, Self::Sentinel, Self::State];

    /// Its name, as in the documentation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::Control => "control",
            Self::Queue => "queue",
            Self::Store => "store",
            Self::Statistics => "statistics",
            Self::Sentinel => "sentinel",
            Self::State => "state",
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is carried out.
    Allow,
    /// It fails with this error. For calls that libraries make and can do without; anything else
    /// ends the process.
    Refuse(c_int),
}

/// What has to hold for an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Number of the argument, from 0.
    pub argument: u8,
    /// The bits that matter. Arguments of the rules here are 32 bits wide.
    pub mask: u32,
    /// What these are.
    pub value: Value,
}

/// A value to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// This number.
    Number(u32),
    /// The number of the process itself.
    OwnProcess,
}

impl Value {
    /// The number, in the process `pid`.
    #[must_use]
    pub fn number(self, pid: u32) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::OwnProcess => pid,
        }
    }
}

impl Condition {
    /// The argument is this number.
    #[must_use]
    pub const fn is(argument: u8, number: u32) -> Self {
        Self { argument, mask: u32::MAX, value: Value::Number(number) }
    }

    /// The argument has all of these bits.
    #[must_use]
    pub const fn has(argument: u8, bits: u32) -> Self {
        Self { argument, mask: bits, value: Value::Number(bits) }
    }

    /// The argument has none of these bits.
    #[must_use]
    pub const fn lacks(argument: u8, bits: u32) -> Self {
        Self { argument, mask: bits, value: Value::Number(0) }
    }

    /// The argument is the process itself.
    #[must_use]
    pub const fn is_self(argument: u8) -> Self {
        Self { argument, mask: u32::MAX, value: Value::OwnProcess }
    }

    /// Whether it holds for a call of the process `pid`.
    #[must_use]
    pub fn holds(&self, arguments: &[u64; 6], pid: u32) -> bool {
        let argument = arguments.get(usize::from(self.argument)).copied().unwrap_or(0);
        argument & u64::from(self.mask) == u64::from(self.value.number(pid))
    }
}

/// Under which circumstances a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Tests see it made.
    InTests,
    /// Not by tests; with what it is.
    With(&'static str),
}

/// A rule: for whom a call is allowed, or refused, and why.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The call, as `libc` names its number.
    symbol: &'static str,
    /// Its number.
    pub number: c_long,
    /// For whom.
    pub who: &'static [Kind],
    /// What becomes of it.
    pub verdict: Verdict,
    /// What has to hold, all of it.
    pub conditions: &'static [Condition],
    /// That in words; nothing if there are no conditions.
    pub only: &'static str,
    /// Who makes it.
    pub seen: Seen,
    /// What for.
    pub why: &'static str,
}

impl Rule {
    /// A call is allowed. `symbol` is what `libc` calls its number.
    #[must_use]
    pub const fn new(who: &'static [Kind], symbol: &'static str, number: c_long, why: &'static str) -> Self {
        Self { symbol, number, who, verdict: Verdict::Allow, conditions: &[], only: "", seen: Seen::InTests, why }
    }

    /// The rule is for calls of which these conditions hold.
    #[must_use]
    pub const fn only(self, only: &'static str, conditions: &'static [Condition]) -> Self {
        Self { only, conditions, ..self }
    }

    /// The call fails instead.
    pub(super) const fn refused(self, errno: c_int) -> Self {
        Self { verdict: Verdict::Refuse(errno), ..self }
    }

    /// The call is not made by tests.
    pub(super) const fn with(self, what: &'static str) -> Self {
        Self { seen: Seen::With(what), ..self }
    }

    /// Name of the call.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.symbol.trim_start_matches("SYS_")
    }

    /// Whether the rule is about this call.
    #[must_use]
    pub fn is_about(&self, number: c_long, arguments: &[u64; 6], pid: u32) -> bool {
        self.number == number && self.conditions.iter().all(|condition| condition.holds(arguments, pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_look_at_the_bits_that_matter() {
        let holds = |condition: Condition, argument| condition.holds(&[0, argument, 0, 0, 0, 0], 7);
        assert!(holds(Condition::is(1, 3), 3) && !holds(Condition::is(1, 3), 4));
        assert!(holds(Condition::is(1, 3), 3 | 1 << 32), "32 bits matter");
        assert!(holds(Condition::has(1, 6), 7) && !holds(Condition::has(1, 6), 5));
        assert!(holds(Condition::lacks(1, 4), 3) && !holds(Condition::lacks(1, 4), 4));
        assert!(holds(Condition::is_self(1), 7) && !holds(Condition::is_self(1), 8));
    }
}
