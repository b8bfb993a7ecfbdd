// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Makes filters for the kernel of rules, and puts them in force.

use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::ARCH;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::SeccompMode;
use super::rule::{Rule, Verdict};
use super::rules::spawner::Denial;

/// Why there is no filter.
pub type FilterError = seccompiler::Error;

/// Filters of one kind of thread. Of several that are in force the kernel takes the most severe
/// answer.
#[derive(Debug)]
pub struct Filter(Vec<BpfProgram>);

impl Filter {
    /// Makes filters of rules, for the process `pid`.
    ///
    /// # Errors
    ///
    /// On a machine for which there are no filters.
    pub fn new(rules: &[&Rule], mode: SeccompMode, pid: u32) -> Result<Self, FilterError> {
        let otherwise = match mode {
            SeccompMode::Kill => SeccompAction::KillProcess,
            SeccompMode::Log => SeccompAction::Log,
            SeccompMode::None => return Ok(Self(Vec::new())),
        };
        let errors: BTreeSet<u32> = rules.iter().filter_map(|rule| refusal(rule)).collect();
        let mut programs = Vec::new();
        for error in errors {
            let refused = rules.iter().filter(|rule| refusal(rule) == Some(error));
            programs.push(program(refused, SeccompAction::Allow, SeccompAction::Errno(error), pid)?);
        }
        // The last one, as it would not allow the others.
        programs.push(program(rules.iter(), otherwise, SeccompAction::Allow, pid)?);
        Ok(Self(programs))
    }

    /// Makes a filter that lets all calls pass but these.
    ///
    /// # Errors
    ///
    /// On a machine for which there are no filters.
    pub fn denying(never: &[Denial], mode: SeccompMode) -> Result<Self, FilterError> {
        let action = match mode {
            SeccompMode::Kill => SeccompAction::KillProcess,
            SeccompMode::Log => SeccompAction::Log,
            SeccompMode::None => return Ok(Self(Vec::new())),
        };
        let calls = never.iter().map(|denial| (denial.number, Vec::new())).collect();
        let machine = TargetArch::try_from(ARCH)?;
        Ok(Self(vec![SeccompFilter::new(calls, SeccompAction::Allow, action, machine)?.try_into()?]))
    }

    /// Puts the filters in force for this thread, and those it starts.
    ///
    /// # Errors
    ///
    /// When the kernel does not take them.
    pub fn apply(&self) -> Result<(), FilterError> {
        self.0.iter().try_for_each(|program| apply_filter(program))
    }
}

fn refusal(rule: &Rule) -> Option<u32> {
    match rule.verdict {
        Verdict::Allow => None,
        Verdict::Refuse(error) => Some(error.unsigned_abs()),
    }
}

fn program<'a>(
    rules: impl Iterator<Item = &'a &'a Rule>,
    otherwise: SeccompAction,
    action: SeccompAction,
    pid: u32,
) -> Result<BpfProgram, FilterError> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut always = BTreeSet::new();
    for rule in rules {
        let ways = calls.entry(rule.number).or_default();
        if rule.conditions.is_empty() {
            always.insert(rule.number);
        } else {
            let conditions = rule.conditions.iter().map(|condition| {
                let (mask, value) = (u64::from(condition.mask), u64::from(condition.value.number(pid)));
                SeccompCondition::new(condition.argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
            });
            ways.push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
        }
    }
    // A call without conditions is one whatever the other rules say.
    always.iter().for_each(|number| drop(calls.insert(*number, Vec::new())));
    let machine = TargetArch::try_from(ARCH)?;
    Ok(SeccompFilter::new(calls, otherwise, action, machine)?.try_into()?)
}
