// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `zcachectl top`: what guests do with a daemon, as it happens.
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | what is shown: rates out of two documents, history, order, what keys do; knows no terminal |
//! | [`view`] | how it is shown, in whatever size there is |
//! | `terminal` | keys and documents, as they come, and a terminal that is as before afterwards |
//! | [`plain`] | the same as one table of text, where there is no terminal |
//! | [`format`] | figures in five columns |

pub mod format;
pub mod model;
pub mod plain;
mod terminal;
pub mod view;

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use zcache_report::Report;

use model::Model;
use view::Look;

/// Shortest and longest time between two looks, in seconds.
const DELAYS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// What the operator wants to see, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Seconds from one look at the daemon to the next
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = delay)]
    pub delay: Duration,
    /// Print one table and end, as it is done where the output is no terminal
    #[arg(long)]
    pub once: bool,
    /// Use no colours; neither are there any if NO_COLOR is set
    #[arg(long)]
    pub no_colour: bool,
}

fn delay(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !DELAYS.contains(&seconds) {
        return Err(format!("not from {} to {} seconds", DELAYS.start(), DELAYS.end()));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Why it has ended.
#[derive(Debug, Error)]
pub enum TopError<E> {
    /// There was nothing to show.
    #[error("{0}")]
    NoReport(E),
    /// The terminal does not do what it takes.
    #[error("The terminal (TERM={0}) cannot show it; --once prints one table")]
    Terminal(String),
    /// Input or output has failed.
    #[error("Cannot use the terminal: {0}")]
    Io(#[from] io::Error),
}

/// Shows what a daemon says, which `source` asks for, until the operator has seen enough. Once it
/// has answered it may fail for a while: what was seen last stays, with the reason.
///
/// # Errors
///
/// [`TopError`], a line for the operator each.
pub fn run<S, E>(arguments: &Arguments, mut source: S) -> Result<(), TopError<E>>
where
    S: FnMut() -> Result<Report, E> + Send + 'static,
    E: Display,
{
    let mut model = Model::default();
    model.update(&source().map_err(TopError::NoReport)?, Instant::now());
    if arguments.once || !io::stdout().is_terminal() {
        thread::sleep(arguments.delay);
        model.update(&source().map_err(TopError::NoReport)?, Instant::now());
        return match io::stdout().lock().write_all(plain::table(&model).as_bytes()) {
            // Who reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done?),
        };
    }
    let term = std::env::var_os("TERM");
    if term.as_deref().is_none_or(|term| term.is_empty() || term == "dumb") || !io::stdin().is_terminal() {
        let term = term.as_deref().map(OsStr::to_string_lossy).unwrap_or_default();
        return Err(TopError::Terminal(term.chars().map(format::printable).collect()));
    }
    let has_no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let look = Look { colour: !arguments.no_colour && !has_no_color, bars: format::Bars::of_locale() };
    let source = move || source().map_err(|error| error.to_string());
    Ok(terminal::show(model, look, arguments.delay, source)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_seconds_within_reason() {
        assert_eq!(delay("1"), Ok(Duration::from_secs(1)));
        assert_eq!(delay("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["", "x", "0", "-1", "NaN", "inf", "1e9"] {
            assert!(delay(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
