// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is wrong with a command line, in one line.

use std::error::Error as _;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What clap found, in our words.
pub(super) fn message(error: &clap::Error, words: &[OsString]) -> String {
    let command = command(words);
    let argument = context(error, ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        // A value says itself what it has to be.
        ErrorKind::ValueValidation => error.source().map(ToString::to_string).unwrap_or_default(),
        ErrorKind::InvalidSubcommand if command != "swap" => {
            format!("unknown command {}", context(error, ContextKind::InvalidSubcommand).unwrap_or_default())
        }
        // Empty values are told by themselves, so that there is none.
        ErrorKind::InvalidValue => match option(&argument) {
            "--wait" => "--wait needs seconds".to_owned(),
            "--root" => "--root needs a device".to_owned(),
            option => format!("{option} needs a value"),
        },
        ErrorKind::TooManyValues => format!("{} takes no value", option(&argument)),
        ErrorKind::ArgumentConflict => "either lines or their names".to_owned(),
        ErrorKind::UnknownArgument if argument.starts_with('-') || takes(&command).is_empty() => {
            format!("unknown option {argument}")
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument => {
            format!("{command} takes {}", takes(&command))
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        _ if command == "swap" => "swap takes on, off or status".to_owned(),
        _ => "a command is needed".to_owned(),
    }
}

/// The command with its own command, if it has one.
fn command(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().skip(1).filter_map(|word| word.to_str()).collect();
    match words.as_slice() {
        ["swap", what @ ("on" | "off" | "status"), ..] => format!("swap {what}"),
        [command, ..] => (*command).to_owned(),
        [] => String::new(),
    }
}

/// What a command takes beside options; nothing for those that take options only.
fn takes(command: &str) -> &'static str {
    match command {
        "open" => "DEVICE and NAME",
        "close" | "flush" | "resize" | "reload" | "status" => "one NAME",
        "swap off" => "one DEVICE",
        "swap status" => "--json only",
        "table" | "removable" => "nothing",
        _ => "",
    }
}

/// `--size` of `--size <SIZE>`.
fn option(argument: &str) -> &str {
    argument.split([' ', '=']).next().unwrap_or_default()
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}
