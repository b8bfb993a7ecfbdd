// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The own socket. A peer may be slow, silent or many: it has a share of time, memory and
//! connections, and when there are too many of these the oldest ends.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use log::{debug, warn};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use vhost_zcache::access::Peers;

/// Connections at the same time.
pub const MOST_CONNECTIONS: usize = 64;

/// How long the head of a request may take, and how long a connection may have none.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may last. No answer takes that long.
const LIFE: Duration = Duration::from_secs(180);

/// Bytes that are held of a request's head.
const HEAD_BYTES: usize = 32 << 10;

/// How long to wait when a connection cannot be accepted, for want of descriptors mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves those who connect, for ever.
pub async fn serve(listener: UnixListener, peers: Peers, router: Router) {
    let mut connections: VecDeque<JoinHandle<()>> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("A connection cannot be accepted: {error}");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if let Err(stranger) = peers.admit(&stream) {
            warn!("Somebody was turned away: {stranger}");
            continue;
        }
        connections.retain(|connection| !connection.is_finished());
        if connections.len() == MOST_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        connections.push_back(tokio::spawn(converse(stream, router.clone())));
    }
}

async fn converse(stream: UnixStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(HEAD_BYTES);
    let conversation = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(LIFE, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("A connection has ended: {error}"),
        Err(_) => debug!("A connection has lasted too long"),
    }
}

/// Makes a listening socket one of this process's runtime.
///
/// # Errors
///
/// When the process has no file descriptors left.
pub fn listener(socket: &std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    let socket = socket.try_clone()?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket)
}
