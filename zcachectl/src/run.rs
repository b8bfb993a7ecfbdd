// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What each command does.

use std::io::{self, Write};
use std::path::Path;

use hyper::Method;
use serde::Serialize;
use vhost_zcache::config::{self, fault::Faults};
use zcache_admin::api::{Done, GiveBack, GuestPatch, GuestSettings, Guests, SettingsPatch};
use zcache_report::{GuestReport, Report};
use zcache_top::TopError;

use crate::args::{Args, Command, OrDefault, Rights};
use crate::client::{Client, Document, guest};
use crate::error::Error;
use crate::show;

/// Does what the command line says.
///
/// # Errors
///
/// [`Error`], for people; it knows the exit status.
pub fn run(args: &Args) -> Result<(), Error> {
    if let Command::Check { file } = &args.command {
        return check(file);
    }
    if let Command::Top(arguments) = &args.command {
        return top(args, arguments);
    }
    let session = Session { client: Client::new(args.socket.clone())?, json: args.json };
    let done = Ok(None);
    let answer = match &args.command {
        Command::Guests { guest: None } => {
            return session.look("/v1/guests", |Guests { guests }| show::guests(&guests));
        }
        Command::Guests { guest: Some(name) } => {
            return session.look(&guest(name, ""), |found: GuestReport| show::guest(&found));
        }
        Command::Pools { guest: None } => {
            return session.look("/v1/guests", |Guests { guests }| show::pools(&guests));
        }
        Command::Pools { guest: Some(name) } => {
            return session.look(&guest(name, ""), |found: GuestReport| show::pools(&[found]));
        }
        Command::Stats => return session.look("/v1/stats", |report: Report| show::stats(&report)),
        Command::Set { guest: Some(name), memory_limit, reservation, rights, .. } => {
            let Rights { weight, peer, allow_shared, trust_domain } = rights;
            let patch = GuestPatch {
                memory_limit: memory_limit.as_ref().map(|limit| limit.0.clone()),
                reservation: reservation.as_ref().map(|limit| limit.0.clone()),
                weight: *weight,
                frozen: None,
                peers: list("--peer", peer)?,
                allow_shared: list("--allow-shared", allow_shared)?,
                trust_domain: trust_domain.clone(),
            };
            if patch == GuestPatch::default() {
                return Err(nothing(
                    "--memory-limit, --reservation, --weight, --peer, --allow-shared or --trust-domain",
                ));
            }
            session.send(Method::PATCH, &guest(name, ""), &patch)
        }
        Command::Set { guest: None, memory_limit, guest_memory_limit, log_level, rights, .. } => {
            let Rights { weight, peer, allow_shared, trust_domain } = rights;
            if weight.is_some() || trust_domain.is_some() || !peer.is_empty() || !allow_shared.is_empty() {
                let options = "--weight, --peer, --allow-shared and --trust-domain";
                return Err(Error::Usage(format!("{options} are about a guest: name it")));
            }
            let patch = SettingsPatch {
                memory_limit: memory_limit.as_ref().map(|limit| limit.0.clone()),
                guest_memory_limit: guest_memory_limit.as_ref().map(|limit| limit.0.clone()),
                log_level: *log_level,
            };
            if patch == SettingsPatch::default() {
                return Err(nothing("--memory-limit, --guest-memory-limit or --log-level, or a guest"));
            }
            session.send(Method::PATCH, "/v1/settings", &patch)
        }
        Command::Add { guest: name, path, memory_limit, reservation, mode, owner, group, rights } => {
            let settings = GuestSettings {
                socket: Some(path.clone()),
                mode: mode.clone(),
                owner: owner.clone(),
                group: group.clone(),
                memory_limit: memory_limit.clone().map(Some),
                reservation: reservation.clone().map(Some),
                weight: rights.weight,
                frozen: None,
                peers: list("--peer", &rights.peer)?,
                allow_shared: list("--allow-shared", &rights.allow_shared)?,
                trust_domain: rights.trust_domain.clone(),
            };
            session.client.make(&guest(name, ""), &settings).map(Some)
        }
        Command::Remove { guest: name, disconnect } => {
            session.have(Method::DELETE, &guest(name, disconnects(*disconnect)))
        }
        Command::Freeze { guest: name } => session.have(Method::POST, &guest(name, "/freeze")),
        Command::Thaw { guest: name } => session.have(Method::POST, &guest(name, "/thaw")),
        Command::Flush { guest: name, pool } => {
            let pool = pool.map_or_else(String::new, |pool| format!("?pool={pool}"));
            session.have(Method::POST, &guest(name, &format!("/flush{pool}")))
        }
        Command::GiveBack { size } => {
            let answer = session.client.ask(Method::POST, "/v1/give-back", Some(&GiveBack { bytes: size.clone() }))?;
            let value: serde_json::Value = session.client.parse(&answer)?;
            return session.print(&answer, &show::given_back(&value));
        }
        Command::Reload { disconnect } => {
            session.have(Method::POST, &format!("/v1/reload{}", disconnects(*disconnect)))
        }
        Command::Upgrade => session.have(Method::POST, "/v1/upgrade"),
        Command::Check { .. } | Command::Top(_) => done,
    };
    match answer? {
        None => Ok(()),
        Some(answer) => {
            let Done { message } = session.client.parse(&answer)?;
            session.print(&answer, &message)
        }
    }
}

/// Somebody who is asked, and how answers are printed.
struct Session {
    client: Client,
    json: bool,
}

impl Session {
    /// Asks for a document, and prints it, or what `table` makes of it.
    fn look<T: serde::de::DeserializeOwned>(&self, path: &str, table: impl FnOnce(T) -> String) -> Result<(), Error> {
        let document = self.client.get(path)?;
        let text = if self.json { String::new() } else { table(self.client.parse(&document)?) };
        self.print(&document, &text)
    }

    fn send(&self, method: Method, path: &str, said: &impl Serialize) -> Result<Option<Document>, Error> {
        self.client.ask(method, path, Some(said)).map(Some)
    }

    fn have(&self, method: Method, path: &str) -> Result<Option<Document>, Error> {
        self.client.ask(method, path, None::<&()>).map(Some)
    }

    fn print(&self, document: &Document, text: &str) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        let bytes = if self.json { document.bytes() } else { text.as_bytes() };
        let printed = out.write_all(bytes).and_then(|()| if bytes.is_empty() { Ok(()) } else { out.write_all(b"\n") });
        match printed.and_then(|()| out.flush()) {
            // Who has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            printed => printed.map_err(Error::Print),
        }
    }
}

/// What a list becomes, if anything is said of it. The default is an empty one.
fn list<T: Clone>(option: &str, values: &[OrDefault<T>]) -> Result<Option<Vec<T>>, Error> {
    let given: Vec<T> = values.iter().filter_map(|value| value.0.clone()).collect();
    match (values.len(), given.len()) {
        (0, _) => Ok(None),
        (1, 0) => Ok(Some(given)),
        (all, with_value) if all == with_value => Ok(Some(given)),
        _ => Err(Error::Usage(format!("{option} default stands alone: it is in place of all others"))),
    }
}

fn nothing(options: &str) -> Error {
    Error::Usage(format!("Nothing is to be set: give {options}"))
}

const fn disconnects(disconnect: bool) -> &'static str {
    if disconnect { "?disconnect=true" } else { "" }
}

/// Shows what guests do, as long as somebody wants to see it.
fn top(args: &Args, arguments: &zcache_top::Arguments) -> Result<(), Error> {
    if args.json {
        return Err(Error::Usage("--json is not for top: stats has the figures of which it makes rates".into()));
    }
    let client = Client::new(args.socket.clone())?;
    zcache_top::run(arguments, move || client.read::<Report>("/v1/stats")).map_err(|error| match error {
        TopError::NoReport(error) => error,
        TopError::Terminal(_) => Error::Usage(error.to_string()),
        TopError::Io(error) => Error::Print(error),
    })
}

/// Looks for faults in a file.
fn check(file: &Path) -> Result<(), Error> {
    match config::check(file) {
        Ok(guests) => {
            let guests = if guests == 1 { "1 guest".to_owned() } else { format!("{guests} guests") };
            writeln!(io::stdout(), "{}: no faults, {guests}", file.display()).map_err(Error::Print)
        }
        Err(faults) => {
            let unreadable = matches!(faults, Faults::Unreadable(..));
            Err(Error::Faults { lines: faults.lines().join("\n"), unreadable })
        }
    }
}
