// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The vhost-zcache daemon.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use log::{LevelFilter, info};
use serde_json::json;
use vhost_zcache::admin::ask::{AskError, ask};
use vhost_zcache::admin::wish::Wish;
use vhost_zcache::args::{Args, Command};
use vhost_zcache::config::common::Common;
use vhost_zcache::config::fault::Faults;
use vhost_zcache::error::Error;
use vhost_zcache::{config, crash_report, keeper, saving, spawner, worker};

fn main() -> ExitCode {
    // Whatever else is on the command line is ignored then, as with all of QEMU's back-ends.
    if env::args_os().any(|argument| argument == "--print-capabilities") {
        return print(&capabilities().to_string());
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => {
            // Help or version. Nothing can be done when they cannot be printed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&first_paragraph(&error.to_string())),
    };
    match &args.command {
        Some(Command::Upgrade { control_socket }) => {
            return match ask(control_socket, &Wish::Upgrade) {
                Ok(release) => print(&format!("Release {release} serves")),
                Err(AskError::Refused(why)) => fail(&format!("No upgrade: {why}")),
                Err(error) => fail(&error.to_string()),
            };
        }
        Some(Command::Reload { control_socket, disconnect }) => {
            return match ask(control_socket, &Wish::Reload { disconnect: *disconnect }) {
                Ok(summary) => print(&summary),
                Err(error) => fail(&error.to_string()),
            };
        }
        Some(Command::Check { file }) => return check(file),
        None => {}
    }
    if args.is_part() {
        return match args.common.clone().map_or_else(|| Common::of_arguments(&args), Ok) {
            Ok(common) => be_part(&args, &common),
            Err(error) => fail(&format!("The own program cannot be found: {error}")),
        };
    }
    log_from(LevelFilter::Info);
    let read = config::load(&args).map(|(config, overridden)| {
        log::set_max_level(config.log_level);
        for key in overridden {
            info!("The command line goes before {key} of the file");
        }
        config
    });
    end(keeper::run(read, args.config.is_some(), &env::args_os().skip(1).collect::<Vec<_>>()))
}

/// Is one of the processes that the keeper starts.
fn be_part(args: &Args, common: &Common) -> ExitCode {
    log_from(common.log_level);
    if let Some(directory) = &args.write_crash_report {
        return match crash_report::run(directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("A crash report cannot be written to {}: {error}", directory.display())),
        };
    }
    if let Some((link, sentinels)) = args.worker_link.split_first() {
        return end(worker::control::run(common, *link, sentinels));
    }
    match (args.reader_link, args.saver_link, args.spawner_link) {
        (Some(link), ..) => end(config::reader::run(args, common, link)),
        (None, Some(link), _) => end(saving::process::run(common, link)),
        (None, None, Some(link)) => end(spawner::process::run(common, link)),
        (None, None, None) => fail("It is not said what to be"),
    }
}

fn end(done: Result<(), Error>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The worker has said it.
        Err(Error::NoStart) => ExitCode::FAILURE,
        Err(error) => fail(&error.to_string()),
    }
}

/// Logs from a level on, which can be another later.
fn log_from(level: LevelFilter) {
    env_logger::Builder::new()
        .filter_level(LevelFilter::Trace)
        // What a guest does to its rings is reported by us, once in a while.
        .filter_module("virtio_queue", LevelFilter::Off)
        .init();
    log::set_max_level(level);
}

/// Looks for faults in a file.
fn check(file: &Path) -> ExitCode {
    match config::check(file) {
        Ok(guests) => {
            let guests = if guests == 1 { "1 guest".to_owned() } else { format!("{guests} guests") };
            print(&format!("{}: no faults, {guests}", file.display()))
        }
        Err(faults) => {
            for line in faults.lines() {
                eprintln!("{line}");
            }
            ExitCode::from(if matches!(faults, Faults::Unreadable(..)) { 2 } else { 1 })
        }
    }
}

fn print(line: &str) -> ExitCode {
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("Cannot print: {error}")),
    }
}

fn fail(message: &str) -> ExitCode {
    for line in message.lines() {
        eprintln!("vhost-zcache: {line}");
    }
    ExitCode::FAILURE
}

/// The message of a command line error as one line, without usage and hints.
fn first_paragraph(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.trim().is_empty());
    let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    line.trim_start_matches("error: ").to_owned()
}

/// What `--print-capabilities` prints. The type is not (yet) in the list of QEMU's
/// `vhost-user.json`.
fn capabilities() -> serde_json::Value {
    json!({
        "type": "zcache",
        "features": ["socket-path", "fd", "socket-count", "multiple-guests", "stats-socket", "config"],
    })
}
