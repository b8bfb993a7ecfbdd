// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Running commands inside a guest.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::agent::{Agent, Conversation, Reply};

/// The inside of one guest.
#[derive(Debug)]
pub struct Guest {
    name: String,
    agent: Agent,
    limit: Duration,
}

/// How a guest command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this status.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
}

/// What a guest command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Which stream of a guest command some bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A command that still runs in the guest.
#[derive(Debug)]
pub struct Running<'a> {
    guest: &'a Guest,
    script: String,
    conversation: Conversation,
}

impl Guest {
    /// Takes over the agent's connection; `limit` bounds commands that name no limit.
    pub(crate) fn new(name: &str, agent: Agent, limit: Duration) -> Self {
        Self { name: name.to_owned(), agent, limit }
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Runs a bash script that has to succeed and returns its standard output.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.sh_within(script, self.limit)
    }

    /// [`Guest::sh`] with a limit of its own.
    pub fn sh_within(&self, script: &str, limit: Duration) -> Result<String> {
        self.spawn(script)?.success(limit)
    }

    /// Runs a bash script and returns what it did, success or not.
    pub fn try_sh(&self, script: &str) -> Result<Output> {
        self.spawn(script)?.wait(self.limit)
    }

    /// Starts a bash script; it stops at the first failing command.
    pub fn spawn(&self, script: &str) -> Result<Running<'_>> {
        let conversation = self.agent.run(&["/bin/bash", "-euo", "pipefail", "-c", script])?;
        Ok(Running { guest: self, script: script.to_owned(), conversation })
    }

    /// Starts a program with arguments.
    pub fn spawn_program(&self, argv: &[&str]) -> Result<Running<'_>> {
        let conversation = self.agent.run(argv)?;
        Ok(Running { guest: self, script: argv.join(" "), conversation })
    }

    /// Puts a file into the guest. `mode` holds the permission bits.
    pub fn push(&self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        let put = self.agent.put(path, mode, contents)?;
        match put.next(self.limit)? {
            Some(Reply::Exited(0)) => Ok(()),
            Some(Reply::Failed(why)) => bail!("Cannot write {path} in {}: {why}", self.name),
            other => bail!("Cannot write {path} in {}: {other:?}", self.name),
        }
    }

    /// Puts a host file into the guest, executable when it is on the host.
    pub fn push_file(&self, host: &Path, guest: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let read = || -> std::io::Result<_> {
            Ok((std::fs::read(host)?, std::fs::metadata(host)?.permissions().mode() & 0o777))
        };
        let (contents, mode) = read().with_context(|| format!("Cannot read {}", host.display()))?;
        self.push(guest, mode, &contents)
    }
}

impl Running<'_> {
    /// Waits for the end and returns what happened.
    pub fn wait(self, limit: Duration) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let exit = self
            .stream(limit, |stream, bytes| match stream {
                Stream::Out => stdout.extend_from_slice(bytes),
                Stream::Err => stderr.extend_from_slice(bytes),
            })
            .with_context(|| {
                format!("It had printed:\n{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
            })?;
        Ok(Output {
            exit,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    /// Waits for a successful end and returns standard output.
    pub fn success(self, limit: Duration) -> Result<String> {
        let (name, script) = (self.guest.name.clone(), self.script.clone());
        let output = self.wait(limit)?;
        if output.exit != Exit::Status(0) {
            bail!(
                "In {name}, this ended with {}:\n{script}\nstdout:\n{}\nstderr:\n{}",
                output.exit,
                output.stdout,
                output.stderr
            );
        }
        Ok(output.stdout)
    }

    /// Waits for the end, passing on what the command prints as it comes. A command
    /// that runs into `limit` is killed, which is an error.
    pub fn stream(&self, limit: Duration, mut sink: impl FnMut(Stream, &[u8])) -> Result<Exit> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.conversation.next(left)? {
                Some(Reply::Out(bytes)) => sink(Stream::Out, &bytes),
                Some(Reply::Err(bytes)) => sink(Stream::Err, &bytes),
                Some(Reply::Exited(status)) => return Ok(Exit::Status(status)),
                Some(Reply::Killed(signal)) => return Ok(Exit::Signal(signal)),
                Some(Reply::Failed(why)) => bail!("{} cannot run a command: {why}", self.guest.name),
                Some(Reply::Hello(_)) => bail!("The agent of {} has started anew", self.guest.name),
                None => {
                    self.kill(9)?;
                    bail!("In {}, this still ran after {limit:?}:\n{}", self.guest.name, self.script);
                }
            }
        }
    }

    /// Sends a signal to the command and all it started.
    pub fn kill(&self, signal: u8) -> Result<()> {
        self.guest.agent.kill(&self.conversation, signal)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}
