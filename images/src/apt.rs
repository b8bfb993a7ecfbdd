// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packages of another release without touching the machine's package database.
//!
//! apt is pointed at a state folder of its own with an empty list of installed
//! packages, so it downloads the full dependency closure and verifies signatures as
//! usual; `dpkg-deb -x` unpacks the files. None of it needs root.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Package;
use crate::command;
use crate::error::{Error, IoContext as _, Result};
use crate::progress::Progress;

/// Debian's keys, as installed by its keyring package.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Which of Debian's repositories a suite is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repository {
    Main,
    Security,
    /// Where releases go when their support ends; known only from
    /// `ZCACHE_DEBIAN_ARCHIVE`.
    Archive,
}

/// One line of a `sources.list`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suite {
    pub(crate) repository: Repository,
    pub(crate) name: &'static str,
}

/// A downloaded package.
#[derive(Debug, Clone)]
pub(crate) struct Deb {
    pub(crate) package: Package,
    pub(crate) path: PathBuf,
}

/// A private apt state folder for one set of suites.
#[derive(Debug)]
pub(crate) struct AptRoot {
    dir: PathBuf,
    log: PathBuf,
}

impl AptRoot {
    /// Prepares `dir` and fetches the package lists. The first suite is the preferred one.
    pub(crate) fn open(dir: &Path, suites: &[Suite], log: &Path) -> Result<Self> {
        for sub in ["etc", "state/lists/partial", "cache/archives/partial"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).while_doing("create", &sub)?;
        }
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).while_doing("write", &path)?;
            // The machine's proxy setting may hold a password.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).while_doing("protect", &path)
        };
        write("state/status", "")?;
        write("etc/sources.list", &sources_list(suites)?)?;
        write("etc/apt.conf", &configuration(dir, suites)?)?;
        let root = Self { dir: dir.to_owned(), log: log.to_owned() };
        command::run(root.apt_get().arg("update"), &root.log)?;
        Ok(root)
    }

    /// Downloads packages and everything they depend on. Files that are there already
    /// are not fetched again.
    pub(crate) fn download(&self, packages: &[&str]) -> Result<Vec<Deb>> {
        let plan = command::output(self.apt_get().args(["--simulate", "install"]).args(packages))?;
        command::run(self.apt_get().args(["--yes", "--download-only", "install"]).args(packages), &self.log)?;
        let archives = self.archives();
        Ok(plan.lines().filter_map(|line| planned(line, &archives)).collect())
    }

    /// Downloads those of the packages, and of what they depend on, whose name is `needed`.
    pub(crate) fn download_some(&self, packages: &[&str], needed: impl Fn(&str) -> bool) -> Result<Vec<Deb>> {
        let plan = command::output(self.apt_get().args(["--simulate", "install"]).args(packages))?;
        let archives = self.archives();
        let mut debs: Vec<Deb> = plan.lines().filter_map(|line| planned(line, &archives)).collect();
        debs.retain(|deb| needed(&deb.package.name));
        let exact = debs.iter().map(|deb| format!("{}={}", deb.package.name, deb.package.version));
        command::run(self.apt_get().current_dir(&archives).arg("download").args(exact), &self.log)?;
        Ok(debs)
    }

    fn archives(&self) -> PathBuf {
        self.dir.join("cache/archives")
    }

    fn apt_get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", self.dir.join("etc/apt.conf")).env("LC_ALL", "C").arg("-q");
        command
    }
}

/// Unpacks packages over each other into `root`.
pub(crate) fn extract<'a>(debs: impl IntoIterator<Item = &'a Deb>, root: &Path, log: &Path) -> Result<()> {
    fs::create_dir_all(root).while_doing("create", root)?;
    for deb in debs {
        command::run(Command::new("dpkg-deb").arg("-x").arg(&deb.path).arg(root), log)?;
    }
    Ok(())
}

/// The packages of some downloads, for the manifest.
pub(crate) fn packages(debs: &[Deb]) -> Vec<Package> {
    debs.iter().map(|deb| deb.package.clone()).collect()
}

/// Downloads from the first of several places that has the suite.
pub(crate) fn download_from_first(
    dir: &Path,
    places: &[&[Suite]],
    package: &'static str,
    log: &Path,
    progress: &Progress,
) -> Result<Vec<Deb>> {
    let mut cause = String::new();
    let mut suite = "";
    for suites in places {
        suite = suites.first().map_or("", |first| first.name);
        let attempt = AptRoot::open(dir, suites, log).and_then(|apt| apt.download(&[package]));
        match attempt {
            Ok(debs) => return Ok(debs),
            Err(error @ (Error::NoMirror | Error::Command { .. })) => cause = error.to_string(),
            Err(error) => return Err(error),
        }
        progress.step(format_args!("{package} is not in this place, trying the next"));
    }
    Err(Error::SuiteGone { package, suite, cause })
}

/// Reads a line like `Inst zlib1g (1:1.2.13.dfsg-1 Debian:12.15/oldstable [amd64])`.
fn planned(line: &str, archives: &Path) -> Option<Deb> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    // After the parenthesis may follow what else this step of an upgrade breaks.
    let details = rest.split(')').next()?;
    let version = details.split(' ').next()?;
    let architecture = details.rsplit_once('[')?.1.split(']').next()?;
    // apt writes the epoch's colon like this in file names.
    let file = format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a"));
    Some(Deb { package: Package { name: name.to_owned(), version: version.to_owned() }, path: archives.join(file) })
}

/// What apt has to be told about where these suites are.
pub(crate) fn sources_list(suites: &[Suite]) -> Result<String> {
    let mut text = String::new();
    for suite in suites {
        let mirror = mirror(suite.repository)?;
        text += &format!("deb [signed-by={KEYRING}] {mirror} {} main\n", suite.name);
    }
    Ok(text)
}

/// The address of a repository: an environment variable, or what this machine uses.
fn mirror(repository: Repository) -> Result<String> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let main =
        || variable("ZCACHE_DEBIAN_MIRROR").or_else(|| configured_site("Debian", "/debian")).ok_or(Error::NoMirror);
    match repository {
        Repository::Main => main(),
        Repository::Security => match configured_site("Debian-Security", "/debian-security") {
            Some(site) if variable("ZCACHE_DEBIAN_MIRROR").is_none() => Ok(site),
            // Mirrors that carry both have them side by side.
            _ => main().map(|site| format!("{}-security", site.trim_end_matches('/'))),
        },
        Repository::Archive => variable("ZCACHE_DEBIAN_ARCHIVE").ok_or(Error::NoMirror),
    }
}

/// A site of the machine's own configuration, by the label in its Release file or,
/// when no list has been fetched yet, by how its address ends.
fn configured_site(label: &str, ending: &str) -> Option<String> {
    let targets =
        command::output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE) $(LABEL)"])).ok()?;
    let sites = || targets.lines().filter_map(|line| line.split_once(' '));
    let labelled = sites().find(|(_, its)| *its == label);
    let named = || sites().find(|(site, _)| site.trim_end_matches('/').ends_with(ending));
    labelled.or_else(named).map(|(site, _)| site.to_owned())
}

fn configuration(dir: &Path, suites: &[Suite]) -> Result<String> {
    let dir = dir.display();
    let preferred = suites.first().map_or("", |suite| suite.name);
    // `parts` and `main` are named first of all: hooks of the machine's own
    // configuration (some images empty the package cache after each update) must
    // not run here. That loses its proxy settings too, hence the copy.
    let mut text = format!(
        "Dir::Etc::parts \"/dev/null\";\n\
         Dir::Etc::main \"/dev/null\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::Etc::sourcelist \"{dir}/etc/sources.list\";\n\
         Dir::State \"{dir}/state\";\n\
         Dir::State::status \"{dir}/state/status\";\n\
         Dir::Cache \"{dir}/cache\";\n\
         Dir::Cache::pkgcache \"\";\n\
         Dir::Cache::srcpkgcache \"\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Install-Recommends \"false\";\n\
         APT::Default-Release \"{preferred}\";\n\
         APT::Sandbox::User \"\";\n\
         APT::Update::Error-Mode \"any\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::GzipIndexes \"true\";\n\
         Acquire::Retries \"3\";\n\
         Debug::NoLocking \"true\";\n"
    );
    // Lists of a release out of support are signed but no longer renewed.
    text += "Acquire::Check-Valid-Until \"false\";\n";
    for line in network_settings()? {
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// How the machine's own apt reaches the network.
pub(crate) fn network_settings() -> Result<Vec<String>> {
    let machine = command::output(Command::new("apt-config").arg("dump"))?;
    let network = ["Acquire::http::", "Acquire::https::", "Acquire::http ", "Acquire::https "];
    let is_network = |line: &&str| network.iter().any(|prefix| line.starts_with(prefix));
    Ok(machine.lines().filter(is_network).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_apts_plan() {
        let archives = Path::new("/a");
        let line = "Inst zlib1g (1:1.2.13.dfsg-1 Debian:12.15/oldstable [amd64]) []";
        let deb = planned(line, archives).expect("an Inst line names a package");
        assert_eq!(deb.package.name, "zlib1g");
        assert_eq!(deb.package.version, "1:1.2.13.dfsg-1");
        assert_eq!(deb.path, Path::new("/a/zlib1g_1%3a1.2.13.dfsg-1_amd64.deb"));
    }

    #[test]
    fn ignores_other_lines_of_the_plan() {
        for line in ["Conf zlib1g (1.2 x [amd64])", "Inst zlib1g", "", "0 upgraded, 1 newly"] {
            assert!(planned(line, Path::new("/a")).is_none(), "{line:?} was taken for a package");
        }
    }
}
