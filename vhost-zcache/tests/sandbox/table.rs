// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The documentation has the rules that there are.

use std::fmt::Write;
use std::fs;

use vhost_zcache::sandbox::rule::{Kind, Rule, Seen, Verdict};
use vhost_zcache::sandbox::rules;
use vhost_zcache::sandbox::rules::runtime::EVERYBODY;

/// The table, as the documentation has it.
fn table() -> String {
    let mut table = "| call | if | threads | what for | made with |\n|---|---|---|---|---|\n".to_owned();
    for rule in rules::all().filter(|rule| rule.seen != Seen::With("builds for tests")) {
        let call = match rule.verdict {
            Verdict::Allow => format!("`{}`", rule.name()),
            Verdict::Refuse(error) => format!("`{}` fails: {}", rule.name(), name(error)),
        };
        let with = match rule.seen {
            Seen::InTests => "",
            Seen::With(what) => what,
        };
        writeln!(table, "| {call} | {} | {} | {} | {with} |", rule.only, who(rule), rule.why).expect("text");
    }
    table
}

fn who(rule: &Rule) -> String {
    if rule.who == EVERYBODY {
        return "all".into();
    }
    rule.who.iter().copied().map(Kind::name).collect::<Vec<_>>().join(", ")
}

fn name(error: i32) -> &'static str {
    match error {
        libc::EACCES => "EACCES",
        libc::ENOSYS => "ENOSYS",
        libc::ENOTTY => "ENOTTY",
        _ => panic!("the table has no name for error {error}"),
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_documentation_has_these_rules() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sandbox.md")).expect("the document");
    assert!(text.contains(&table()), "docs/sandbox.md should have this table:\n{}", table());
}

#[test]
fn rules_are_given_once() {
    for kind in Kind::ALL {
        let of_kind = rules::of(kind);
        for (at, rule) in of_kind.iter().enumerate() {
            let same = |other: &&&Rule| other.number == rule.number && other.conditions == rule.conditions;
            assert!(
                !of_kind[at + 1..].iter().any(|other| same(&other)),
                "{}: {} is there twice",
                kind.name(),
                rule.name()
            );
        }
    }
}
