// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Command lines, as a shell takes them apart.

use clap::builder::Command;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::{requests, unit_file, with_known_users};

/// What separates commands of a line, or ends their arguments.
const ENDS: [&str; 6] = [";;", ";", "|", "||", "&&", "&"];

/// What is wrong with the commands of a block.
pub(super) fn faults(text: &str) -> Vec<String> {
    let has_prompts = text.lines().any(|line| line.starts_with("$ "));
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| match (has_prompts, line.strip_prefix("$ ")) {
        (true, command) => command,
        (false, _) => Some(line),
    });
    // What is no shell's, such as a drawing, has no command of ours either.
    lines.filter_map(|line| shlex::split(&with_known_users(line))).flat_map(|words| faults_of_words(&words)).collect()
}

/// What is wrong with the commands of a unit.
pub(super) fn faults_of_unit(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let commands = joined.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
    commands.flat_map(|(_, command)| faults(command)).collect()
}

fn faults_of_words(words: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for command in words.split(|word| ENDS.contains(&word.as_str())) {
        // A pattern of `case`, or a variable, may come before.
        let command: Vec<&str> =
            command.iter().map(String::as_str).skip_while(|word| word.ends_with(')') || word.contains('=')).collect();
        let Some((program, arguments)) = command.split_first() else { continue };
        faults.extend(match program.rsplit('/').next().unwrap_or(program) {
            "systemctl" => faults_of_units(arguments),
            "apt" => fault_of_package(arguments).into_iter().collect(),
            "curl" => requests::fault_of_curl(arguments).into_iter().collect(),
            _ => fault_of_ours(&command).into_iter().collect(),
        });
    }
    faults
}

/// Reads words as a program does.
type Reader = fn(Vec<String>) -> Result<(), clap::Error>;

/// Reads a command line of a program of ours, if it is one.
fn fault_of_ours(command: &[&str]) -> Option<String> {
    if command.iter().any(|word| word.starts_with("[--")) {
        // It says what there is, with letters for values.
        return fault_of_mention(&command.join(" "));
    }
    let (reader, command): (Reader, &[&str]) = match command {
        ["cargo", "xtask", ..] => (read::<crate::Arguments>, &command[1..]),
        [program, ..] if program.ends_with("vhost-zcache") => (read::<vhost_zcache::args::Args>, command),
        [program, ..] if program.ends_with("zcache-admin") => (read::<zcache_admin::args::Args>, command),
        [program, ..] if program.ends_with("zcachectl") => (read::<zcachectl::args::Args>, command),
        _ => return None,
    };
    variants(command).into_iter().find_map(|words| {
        let line = words.join(" ");
        match reader(words) {
            Err(error) if ![ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind()) => {
                let text = error.to_string();
                Some(format!("{line}: {}", text.lines().next().unwrap_or_default()))
            }
            _ => None,
        }
    })
}

fn read<T: Parser>(words: Vec<String>) -> Result<(), clap::Error> {
    T::try_parse_from(words).map(drop)
}

/// A line without dots for what is left out, once for each of the words that it gives a choice of.
fn variants(command: &[&str]) -> Vec<Vec<String>> {
    let mut variants = vec![Vec::new()];
    for word in command.iter().filter(|word| **word != "...") {
        let choices: Vec<&str> = word.split('|').collect();
        variants = variants
            .iter()
            .flat_map(|line: &Vec<String>| choices.iter().map(|choice| [&line[..], &[(*choice).to_owned()]].concat()))
            .collect();
    }
    variants
}

/// A command that is mentioned within a line may have anything in place of values, or end in the
/// middle; but what it is made of has to be known.
pub(super) fn fault_of_mention(span: &str) -> Option<String> {
    let words: Vec<&str> = span.split_whitespace().collect();
    let (mut command, words) = match words.split_first()? {
        (&"cargo", rest) if rest.first() == Some(&"xtask") => (crate::Arguments::command(), &rest[1..]),
        (&"vhost-zcache", rest) => (vhost_zcache::args::Args::command(), rest),
        (&"zcache-admin", rest) => (zcache_admin::args::Args::command(), rest),
        (&"zcachectl", rest) => (zcachectl::args::Args::command(), rest),
        _ => return None,
    };
    command.build();
    let mut known = &command;
    for word in words {
        let word = word.trim_matches(['[', ']', '.', '(', ')']);
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split_once('=').map_or(option, |(name, _)| name);
            if !has_option(known, name) {
                return Some(format!("{span}: there is no --{name}"));
            }
        } else if known.has_subcommands() && known.get_name() != "help" {
            // Where options come before the command, their values do as well.
            match known.find_subcommand(word) {
                Some(found) => known = found,
                None if word == words[0] => return Some(format!("{span}: there is no {word}")),
                None => {}
            }
        }
    }
    None
}

fn has_option(command: &Command, name: &str) -> bool {
    let mut names = command.get_arguments().filter_map(|argument| argument.get_long_and_visible_aliases());
    names.any(|names| names.contains(&name))
}

/// Units of ours that have no file.
fn faults_of_units(arguments: &[&str]) -> Vec<String> {
    let units = arguments.iter().skip_while(|word| word.starts_with('-')).skip(1).filter(|word| !word.starts_with('-'));
    let ours = units.filter(|unit| unit.contains("zcache"));
    ours.filter(|unit| !unit_file(unit).exists()).map(|unit| format!("there is no unit {unit}")).collect()
}

/// A package of another release.
fn fault_of_package(arguments: &[&str]) -> Option<String> {
    let package = arguments.iter().find(|word| word.contains("vhost-zcache_"))?;
    let version = env!("CARGO_PKG_VERSION");
    (!package.contains(&format!("_{version}_"))).then(|| format!("{package} is not of release {version}"))
}
