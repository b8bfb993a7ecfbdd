// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The system calls that are allowed: those of Rust's and C's [`runtime`], those of the [`keeper`],
//! and those of the [`worker`]. What the spawner never does is in [`spawner`].

pub mod keeper;
pub mod runtime;
pub mod spawner;
pub mod worker;

use super::rule::{Kind, Rule};

/// Makes a rule of the name of a call's number.
macro_rules! rule {
    ($who:expr, $call:ident, $why:expr) => {
        $crate::sandbox::rule::Rule::new($who, stringify!($call), libc::$call, $why)
    };
}
use rule;

/// All rules.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    runtime::RULES.iter().chain(keeper::RULES).chain(worker::RULES)
}

/// Rules for one kind of thread.
#[must_use]
pub fn of(kind: Kind) -> Vec<&'static Rule> {
    all().filter(|rule| rule.who.contains(&kind)).collect()
}

/// Rules for the worker's process, so for all kinds of its threads.
#[must_use]
pub fn of_worker() -> Vec<&'static Rule> {
    all().filter(|rule| rule.who.iter().any(|kind| *kind != Kind::Keeper)).collect()
}
