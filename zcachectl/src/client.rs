// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Asks at the socket, one request on a connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, IF_NONE_MATCH};
use hyper::http::request;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use zcache_admin::api::problem::Problem;

use crate::error::Error;

/// Bytes of an answer at most, as the daemon's statistics have.
const LONGEST_ANSWER: usize = 256 << 20;

/// How long an answer may take. It is a little more than the other end takes at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// Somebody who can be asked.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

/// A document as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(Vec<u8>);

impl Client {
    /// Whoever is at this socket. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub fn new(socket: PathBuf) -> Result<Self, Error> {
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => Ok(Self { socket, runtime }),
            Err(why) => Err(Error::NoAdmin { path: socket, why }),
        }
    }

    /// Asks for a document.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn get(&self, path: &str) -> Result<Document, Error> {
        self.ask(Method::GET, path, None::<&()>)
    }

    /// Asks for a document, and reads it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.parse(&self.get(path)?)
    }

    /// What a document says.
    ///
    /// # Errors
    ///
    /// When it is another one.
    pub fn parse<T: DeserializeOwned>(&self, document: &Document) -> Result<T, Error> {
        serde_json::from_slice(&document.0).map_err(|error| self.nonsense(&error.to_string()))
    }

    /// Asks for something to be done, with what is to be said about it; what has come of it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn ask(&self, method: Method, path: &str, said: Option<&impl Serialize>) -> Result<Document, Error> {
        self.request(Request::builder().method(method).uri(path), said)
    }

    /// Asks for something to be made that is not there yet.
    ///
    /// # Errors
    ///
    /// [`Error`], also if it is.
    pub fn make(&self, path: &str, said: &impl Serialize) -> Result<Document, Error> {
        let request = Request::builder().method(Method::PUT).uri(path).header(IF_NONE_MATCH, "*");
        self.request(request, Some(said))
    }

    fn request(&self, request: request::Builder, said: Option<&impl Serialize>) -> Result<Document, Error> {
        let body = match said.map(serde_json::to_vec) {
            None => Vec::new(),
            Some(Ok(body)) => body,
            Some(Err(error)) => return Err(Error::Usage(error.to_string())),
        };
        let mut request = request.header(HOST, "localhost");
        if said.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| Error::Usage(error.to_string()))?;
        let answer = self.runtime.block_on(async { timeout(PATIENCE, self.send(request)).await });
        let late = |_| Error::NoDaemon(format!("There was no answer at {} in time", self.socket.display()));
        let (status, body) = answer.map_err(late)??;
        if status.is_success() {
            return Ok(Document(body.into()));
        }
        let problem: Problem = serde_json::from_slice(&body)
            .map_err(|_| self.nonsense(&format!("it answers {status}, and does not say why")))?;
        Err(match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Error::NoDaemon(problem.detail)
            }
            _ => Error::Refused(problem.detail),
        })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|why| self.absent(why))?;
        let broken = |error: hyper::Error| self.absent(io::Error::other(error));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| self.nonsense(&error.to_string()))?.to_bytes();
        connection.abort();
        Ok((status, body))
    }

    fn absent(&self, why: io::Error) -> Error {
        Error::NoAdmin { path: self.socket.clone(), why }
    }

    fn nonsense(&self, why: &str) -> Error {
        Error::Nonsense { path: self.socket.clone(), why: why.to_owned() }
    }
}

impl Document {
    /// It as it came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The path of a guest, or of something of it.
#[must_use]
pub fn guest(name: &str, of_it: &str) -> String {
    format!("/v1/guests/{}{of_it}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_part_of_a_path() {
        assert_eq!(guest("web1", "/pools"), "/v1/guests/web1/pools");
        assert_eq!(guest("/run/a?b#é", ""), "/v1/guests/%2Frun%2Fa%3Fb%23%C3%A9");
    }
}
