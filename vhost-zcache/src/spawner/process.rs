// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the spawner does: what the keeper wishes, until that ends.

use std::env;
use std::ffi::{CStr, CString, NulError, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::set_name;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};

use super::exiting::is_exiting;
use super::programs::Programs;
use super::sibling::{Execution, Failure, Sibling, start};
use super::{Answer, Outcome, Program, Request, Wish};
use crate::config::common::Common;
use crate::error::Error;
use crate::link::socket::Socket;
use crate::sandbox;

/// Does what the keeper wishes until it ends.
///
/// # Errors
///
/// [`Error`] when it cannot do what it is for.
pub fn run(common: &Common, link: i32) -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| Error::Signals(error.into()))?;
    // A signal for all of the daemon's processes means the keeper.
    for signal in [SIGHUP, SIGINT, SIGTERM, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(Error::Signals)?;
    }
    // Names are for whoever looks at the host's processes.
    let _ = set_name(c"zcache-spawner");
    let link = Socket::inherit(link).map_err(Error::Link)?;
    let programs = Programs::new(common.upgrade_path.clone()).map_err(Error::Spawner)?;
    let reports = common.crash_directory.clone();
    let mut process = Process { arguments: arguments_of_workers(env::args_os().collect()), programs, reports };
    sandbox::confine_spawner(common)?;

    while let Some((Request { number, wish }, files)) = link.receive(RecvFlags::empty()).map_err(Error::Link)? {
        let started = match wish {
            Wish::Worker(program) => process.start_worker(program, &files),
            Wish::Report => process.start_report(&files),
            Wish::Reader => process.start_with_link(c"--reader-link", &files),
            Wish::Saver => process.start_with_link(c"--saver-link", &files),
            Wish::Keep => {
                process.programs.keep();
                link.send(&Answer { number, outcome: Outcome::Kept }, &[], SendFlags::empty()).map_err(Error::Link)?;
                continue;
            }
            Wish::Look { process } => {
                let outcome = Outcome::Exiting(is_exiting(process));
                link.send(&Answer { number, outcome }, &[], SendFlags::empty()).map_err(Error::Link)?;
                continue;
            }
        };
        drop(files);
        let (outcome, file) = match started {
            Ok(Sibling { number, file }) => (Outcome::Started { process: number }, Some(file)),
            Err(Failure { error, ended }) => (Outcome::Failed(error.raw_os_error()), ended),
        };
        let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        link.send(&Answer { number, outcome }, &files, SendFlags::empty()).map_err(Error::Link)?;
    }
    Ok(())
}

struct Process {
    arguments: Vec<CString>,
    programs: Programs,
    reports: Option<PathBuf>,
}

impl Process {
    /// What every process of the daemon is told, and what makes one of it. (No value has zeros.)
    fn arguments_and(&self, name: &CStr, value: Result<CString, NulError>) -> Vec<CString> {
        self.arguments.iter().cloned().chain([name.into()]).chain(value).collect()
    }

    fn start_worker(&mut self, program: Program, files: &[File]) -> Result<Sibling, Failure> {
        let numbers: Vec<String> = files.iter().map(|file| file.as_raw_fd().to_string()).collect();
        let arguments = self.arguments_and(c"--worker-link", CString::new(numbers.join(",")));
        let given = files.iter().map(AsFd::as_fd).collect();
        start(&Execution { program: self.programs.get(program)?, arguments, input: None, given })
    }

    fn start_report(&self, files: &[File]) -> Result<Sibling, Failure> {
        let [report] = files else { return Err(io::Error::from_raw_os_error(libc::EINVAL).into()) };
        let Some(directory) = self.reports.clone() else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT).into());
        };
        let directory = CString::new(directory.into_os_string().into_vec());
        let arguments = self.arguments_and(c"--write-crash-report", directory);
        let input = Some(report.as_fd());
        start(&Execution { program: self.programs.own(), arguments, input, given: Vec::new() })
    }

    fn start_with_link(&self, name: &CStr, files: &[File]) -> Result<Sibling, Failure> {
        let [link] = files else { return Err(io::Error::from_raw_os_error(libc::EINVAL).into()) };
        let arguments = self.arguments_and(name, CString::new(link.as_raw_fd().to_string()));
        start(&Execution { program: self.programs.own(), arguments, input: None, given: vec![link.as_fd()] })
    }
}

/// The spawner's arguments, less the last two, which make it one.
fn arguments_of_workers(mut own: Vec<OsString>) -> Vec<CString> {
    own.truncate(own.len().saturating_sub(2));
    // Arguments of a process have no zeros.
    own.into_iter().filter_map(|argument| CString::new(argument.into_vec()).ok()).collect()
}
