// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The vhost-zcache daemon.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use log::LevelFilter;
use serde_json::json;
use vhost_zcache::args::{Args, Command};
use vhost_zcache::error::Error;
use vhost_zcache::{admin, crash_report, keeper, spawner, worker};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => {
            // Help or version. Nothing can be done when they cannot be printed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&first_paragraph(&error.to_string())),
    };
    if let Some(Command::Upgrade { control_socket }) = &args.command {
        return match admin::upgrade::run(control_socket) {
            Ok(release) => print(&format!("Release {release} serves")),
            Err(error) => fail(&error.to_string()),
        };
    }
    if args.print_capabilities {
        return print(&capabilities().to_string());
    }
    env_logger::Builder::new()
        .filter_level(args.log_level)
        // What a guest does to its rings is reported by us, once in a while.
        .filter_module("virtio_queue", LevelFilter::Off)
        .init();
    if let Some(directory) = &args.write_crash_report {
        return match crash_report::run(directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("A crash report cannot be written to {}: {error}", directory.display())),
        };
    }
    let done = match (args.worker_link.split_first(), args.spawner_link) {
        (Some((link, sentinels)), _) => worker::control::run(&args, *link, sentinels),
        (None, Some(link)) => spawner::process::run(&args, link),
        (None, None) => keeper::run(&args, &env::args_os().skip(1).collect::<Vec<_>>()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The worker has said it.
        Err(Error::NoStart) => ExitCode::FAILURE,
        Err(error) => fail(&error.to_string()),
    }
}

fn print(line: &str) -> ExitCode {
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("Cannot print: {error}")),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("vhost-zcache: {message}");
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
        "features": ["socket-path", "fd", "multiple-guests", "stats-socket"],
    })
}
