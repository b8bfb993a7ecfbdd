// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A host for packages: a clean Debian in a container, with systemd as its first process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use zcache_images::{Debian, Images};

use crate::process::Process;

/// What it has besides what every Debian has.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,procps";

/// How long it may take to start, and how long between two looks whether it has.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOKS: Duration = Duration::from_millis(200);

/// A running container. It ends with this value.
#[derive(Debug)]
pub struct Container {
    _systemd: Process,
    /// Its first process, as the host numbers it.
    init: i32,
    root: TempDir,
    /// What the container has at `/run/zcache`.
    sockets: TempDir,
}

impl Container {
    /// What is missing on this machine to have one.
    #[must_use]
    pub fn missing() -> Option<&'static str> {
        let is_there =
            |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
        if !rustix::process::geteuid().is_root() {
            return Some("to be root");
        }
        if !is_there("systemd-nspawn") {
            return Some("systemd-nspawn (package systemd-container)");
        }
        (!is_there("mmdebstrap")).then_some("mmdebstrap")
    }

    /// Installs a release and starts it.
    pub fn boot(debian: Debian, dir: &Path) -> Result<Self> {
        let archive = archive(debian)?;
        let root = tempfile::Builder::new().prefix("zcache-root-").tempdir()?;
        done(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(root.path()))?;
        let sockets = tempfile::Builder::new().prefix("zcache-run-").tempdir()?;
        let mut command = Command::new("systemd-nspawn");
        command
            .args(["--quiet", "--register=no", "--keep-unit", "--boot", "--directory"])
            .arg(root.path())
            .arg(format!("--bind={}:/run/zcache", sockets.path().display()))
            // The host may have control groups of the old kind only.
            .arg("--setenv=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
            .env("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE", "1");
        let systemd = Process::spawn("container", command, &dir.join("container.log"))?;
        let init = first_child(systemd.pid())?;
        let container = Self { _systemd: systemd, init, root, sockets };
        container.await_boot()?;
        Ok(container)
    }

    /// Waits until all units have started or failed.
    fn await_boot(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            // Its exit status says as well whether a unit has failed, which is none of ours.
            let state = String::from_utf8_lossy(&self.run("systemctl is-system-running")?.stdout).trim().to_owned();
            if state == "running" || state == "degraded" {
                return Ok(());
            }
            ensure!(Instant::now() < until, "The container is still '{state}' after {PATIENCE:?}");
            thread::sleep(LOOKS);
        }
    }

    /// Where it finds a file of the host, which is copied.
    pub fn take(&self, path: &Path) -> Result<String> {
        let name = path.file_name().context("A file has a name")?.to_string_lossy().into_owned();
        fs::copy(path, self.root.path().join("root").join(&name))?;
        Ok(format!("/root/{name}"))
    }

    /// A socket in its `/run/zcache`, as the host has it.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.sockets.path().join(name)
    }

    /// What a script says, whether it succeeds or not.
    pub fn run(&self, script: &str) -> Result<Output> {
        let output = Command::new("nsenter")
            .args(["--all", "--target", &self.init.to_string(), "/bin/sh", "-ec", script])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .context("Cannot start nsenter")?;
        Ok(output)
    }

    /// What a script says that has to succeed.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        ensure!(
            output.status.success(),
            "In the container, '{script}' failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// The release as an archive, installed once.
fn archive(debian: Debian) -> Result<PathBuf> {
    let path = Images::open()?.dir().join(format!("{debian}-root-{}.tar", PACKAGES.replace(',', "-")));
    if path.exists() {
        return Ok(path);
    }
    let suite = match debian {
        Debian::Bookworm => "bookworm",
        Debian::Trixie => "trixie",
    };
    let half = path.with_extension("half.tar");
    done(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}"), suite])
            .arg(&half)
            .arg(format!("deb http://deb.debian.org/debian {suite} main")),
    )?;
    fs::rename(half, &path)?;
    Ok(path)
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("Cannot start {}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {said}", command.get_program().display());
    Ok(())
}

/// The container's first process is the only child that stays.
fn first_child(parent: i32) -> Result<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let children = fs::read_to_string(&path).unwrap_or_default();
        let systemd = children
            .split_whitespace()
            .find(|child| fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == "systemd"));
        if let Some(child) = systemd {
            return Ok(child.parse()?);
        }
        thread::sleep(LOOKS);
    }
    bail!("systemd has not started in the container")
}
