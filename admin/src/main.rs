// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process that answers operators and orchestrators beside a vhost-zcache daemon.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::process::{self, ExitCode};
use std::rc::Rc;
use std::sync::Arc;

use clap::Parser;
use log::{LevelFilter, info};
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use vhost_zcache::access::Peers;
use vhost_zcache::args::AdminPath;
use vhost_zcache::config::common::folder;
use vhost_zcache::frontend::listener::{BoundSocket, Endpoint, SocketError};
use vhost_zcache::sandbox::SandboxError;
use vhost_zcache::sandbox::files::Reach;
use zcache_admin::args::Args;
use zcache_admin::confine::confine;
use zcache_admin::daemon::Daemon;
use zcache_admin::{routes, server};

/// The number of the first socket that a service manager gives.
const FIRST_GIVEN: i32 = 3;

#[derive(Debug, Error)]
enum Error {
    #[error("{0}")]
    Socket(#[from] SocketError),
    #[error("No --socket was given, and no service manager has given one (LISTEN_FDS): say where to listen")]
    NoSocket,
    #[error("The socket that was given does not listen")]
    NotListening,
    #[error("Cannot listen on {address} for metrics: {why}")]
    Address { address: SocketAddr, why: io::Error },
    #[error("Rights cannot be given up: {0}")]
    Confine(#[from] SandboxError),
    #[error("Cannot begin: {0}")]
    Begin(#[from] io::Error),
}

fn main() -> ExitCode {
    let args = Args::parse();
    env_logger::Builder::new().filter_level(LevelFilter::Info).parse_default_env().init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zcache-admin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Error> {
    // Before anything is opened.
    let given = if args.socket.is_none() { Some(given()?) } else { None };
    let (mut bound, mut reach) = (None, Reach::Nothing);
    let (listener, peers) = match (args.socket, given) {
        (Some(AdminPath { path, access, peers }), _) => {
            // Removed when this function returns.
            let socket = bound.insert(BoundSocket::bind(&path, access)?);
            reach = Reach::Remove(vec![folder(&path)]);
            (socket.listener(), peers)
        }
        (None, Some(given)) => (Rc::new(given), Peers::default()),
        (None, None) => return Err(Error::NoSocket),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let daemon = Arc::new(Daemon::new(args.stats_socket, args.control_socket));
    runtime.block_on(async {
        let (mut end, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listener = server::listener(&listener)?;
        if let Some(address) = args.metrics_address {
            let listener = TcpListener::bind(address).await.map_err(|why| Error::Address { address, why })?;
            tokio::spawn(server::serve_machine(listener, routes::metrics::only(Arc::clone(&daemon))));
        }
        // All that it listens at is open, and nobody has been heard yet.
        confine(args.seccomp, &reach)?;
        info!("ready");
        // Who has it started may ask from now on.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        tokio::select! {
            () = server::serve(listener, peers, routes::all(daemon)) => {}
            _ = end.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// The socket that a service manager has given (`sd_listen_fds(3)`).
fn given() -> Result<UnixListener, Error> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(process::id()) || number("LISTEN_FDS").unwrap_or(0) == 0 {
        return Err(Error::NoSocket);
    }
    // SAFETY: it is taken once, and nothing was opened before.
    match unsafe { Endpoint::inherit(FIRST_GIVEN) }? {
        Endpoint::Listening(listener) => Ok(listener),
        Endpoint::Connected(_) => Err(Error::NotListening),
    }
}
