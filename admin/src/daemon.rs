// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The daemon, by its two sockets for operators. What it says is bounded, and so is the time that
//! it has.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use vhost_zcache::admin::ask::{AskError, LONGEST_ANSWER, understood};
use vhost_zcache::admin::wish::{LONGEST_WISH, Wish};

/// Bytes of statistics at most. Those of 4096 guests with a hundred pools each are less.
const LONGEST_STATS: u64 = 256 << 20;

/// How long a document of statistics may take, a worker that begins meanwhile included.
const STATS_PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait after a worker has ended while it answered.
const RETRY: Duration = Duration::from_millis(50);

/// How long the daemon may take to do what it is asked for. It gives reading a configuration a
/// minute, and says then that this is too long.
const WISH_PATIENCE: Duration = Duration::from_secs(100);

/// What it says when somebody else has asked for something.
const BUSY: &str = "one is under way";

/// How often to ask again then, each after [`RETRY`].
const BUSY_TRIES: usize = 40;

/// A daemon.
#[derive(Debug)]
pub struct Daemon {
    stats: PathBuf,
    control: PathBuf,
    /// It does one thing at a time.
    turn: Mutex<()>,
}

/// Why it has not done something.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// It is not there.
    #[error("there is no daemon at {0} ({1}): start vhost-zcache with this socket, or name the right one")]
    Absent(PathBuf, io::Error),
    /// It has ended, or its worker.
    #[error("the daemon at {0} ended before it had answered: ask again")]
    Ended(PathBuf),
    /// It takes too long.
    #[error("the daemon at {0} has not answered in time; its log says what it does")]
    Late(PathBuf),
    /// It says what nobody understands.
    #[error("what the daemon at {0} says makes no sense: is it of the same release?")]
    Nonsense(PathBuf),
    /// More than can be said to it.
    #[error("this is more than the {LONGEST_WISH} bytes that can be said to the daemon at once: say it in parts")]
    TooLong,
    /// It goes on as it did.
    #[error("{0}")]
    Refused(String),
}

impl Daemon {
    /// One with these sockets, for statistics and commands.
    #[must_use]
    pub fn new(stats: PathBuf, control: PathBuf) -> Self {
        Self { stats, control, turn: Mutex::new(()) }
    }

    /// Its statistics.
    ///
    /// # Errors
    ///
    /// [`DaemonError`].
    pub async fn stats(&self) -> Result<Value, DaemonError> {
        let ask = async {
            loop {
                let document = read_all(&self.stats, b"", LONGEST_STATS).await;
                let document = document.map_err(|error| DaemonError::Absent(self.stats.clone(), error))?;
                match serde_json::from_slice(&document) {
                    Ok(document) => return Ok(document),
                    // A worker that ends while it answers says half of it, or nothing.
                    Err(error) if error.is_eof() => sleep(RETRY).await,
                    Err(_) => return Err(DaemonError::Nonsense(self.stats.clone())),
                }
            }
        };
        timeout(STATS_PATIENCE, ask).await.unwrap_or_else(|_| Err(DaemonError::Late(self.stats.clone())))
    }

    /// Asks for something; what has come of it.
    ///
    /// # Errors
    ///
    /// [`DaemonError`].
    pub async fn ask(&self, wish: &Wish) -> Result<String, DaemonError> {
        let line = wish.line();
        if line.len() > LONGEST_WISH {
            return Err(DaemonError::TooLong);
        }
        let ask = async {
            let _turn = self.turn.lock().await;
            for _ in 0..BUSY_TRIES {
                match self.say(&line).await {
                    // `vhost-zcache reload`, or a signal.
                    Err(DaemonError::Refused(why)) if why == BUSY => sleep(RETRY).await,
                    answer => return answer,
                }
            }
            Err(DaemonError::Refused("the daemon is busy with another change: ask again".into()))
        };
        timeout(WISH_PATIENCE, ask).await.unwrap_or_else(|_| Err(DaemonError::Late(self.control.clone())))
    }

    async fn say(&self, line: &str) -> Result<String, DaemonError> {
        let answer = read_all(&self.control, line.as_bytes(), LONGEST_ANSWER).await;
        let answer = answer.map_err(|error| DaemonError::Absent(self.control.clone(), error))?;
        if answer.is_empty() {
            return Err(DaemonError::Ended(self.control.clone()));
        }
        match understood(&answer) {
            Some(Ok(what)) => Ok(what),
            Some(Err(AskError::Refused(why))) => Err(DaemonError::Refused(why)),
            Some(Err(_)) | None => Err(DaemonError::Nonsense(self.control.clone())),
        }
    }
}

/// Says something at a socket, and reads what is said until there is no more.
async fn read_all(socket: &PathBuf, said: &[u8], most: u64) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(said).await?;
    let mut answer = Vec::new();
    stream.take(most).read_to_end(&mut answer).await?;
    Ok(answer)
}
