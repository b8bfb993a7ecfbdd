// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program.

use std::process::ExitCode;

use clap::Parser;
use zcachectl::args::Args;
use zcachectl::error::Error;
use zcachectl::run::run;

fn main() -> ExitCode {
    // Mistakes on the command line end here, with status 2.
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Faults of a file name it themselves.
            let name = if matches!(error, Error::Faults { .. }) { "" } else { "zcachectl: " };
            error.to_string().lines().for_each(|line| eprintln!("{name}{line}"));
            ExitCode::from(error.status())
        }
    }
}
