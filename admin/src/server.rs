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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
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

/// The connections there are.
#[derive(Default)]
struct Connections(VecDeque<JoinHandle<()>>);

impl Connections {
    /// Serves one more; the oldest ends if there are too many.
    fn add<S>(&mut self, stream: S, router: &Router)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.0.retain(|connection| !connection.is_finished());
        if self.0.len() == MOST_CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(tokio::spawn(converse(stream, router.clone())));
    }
}

/// Serves those who connect on this machine, for ever.
pub async fn serve_machine(listener: TcpListener, router: Router) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.add(stream, &router),
            Err(error) => {
                warn!("A connection for metrics cannot be accepted: {error}");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Serves those who connect to the socket, for ever.
pub async fn serve(listener: UnixListener, peers: Peers, router: Router) {
    let mut connections = Connections::default();
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
        connections.add(stream, &router);
    }
}

async fn converse<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
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
