// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The management console of user-mode Linux: datagrams to a socket of its kernel.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// First word of every request and notice.
const MAGIC: u32 = 0xcafe_babe;
/// Second word of them.
const VERSION: u32 = 2;
/// Most bytes of a command.
const MAX_COMMAND: usize = 511;
/// Words before the text of an answer: an error number, whether more follows, the length.
const HEAD: usize = 12;
/// Longest that one command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection to one kernel.
#[derive(Debug)]
pub(crate) struct Mconsole(UnixDatagram);

impl Mconsole {
    /// Connects to the console's socket. `name` is for our own, which has no file: it must be
    /// unique on this machine.
    pub(crate) fn connect(socket: &Path, name: &str) -> Result<Self> {
        let connect = || -> io::Result<_> {
            let ours = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            ours.connect(socket)?;
            ours.set_read_timeout(Some(LIMIT))?;
            Ok(Self(ours))
        };
        connect().with_context(|| format!("Cannot connect to the management console {}", socket.display()))
    }

    /// Has a command done and returns what it prints.
    pub(crate) fn execute(&self, command: &str) -> Result<String> {
        self.exchange(command).with_context(|| format!("The management console does not do '{command}'"))
    }

    fn exchange(&self, command: &str) -> Result<String> {
        self.0.send(&encode(command)?)?;
        let mut text = String::new();
        loop {
            let mut answer = [0; 4096];
            let size = self.0.recv(&mut answer)?;
            let (failed, more, part) = decode(&answer[..size]).context("It answers in another language")?;
            text.push_str(&part);
            match (failed, more) {
                (true, _) => bail!("{}", text.trim()),
                (false, true) => {}
                (false, false) => return Ok(text),
            }
        }
    }
}

fn encode(command: &str) -> Result<Vec<u8>> {
    ensure!(command.len() <= MAX_COMMAND, "{} bytes are too many", command.len());
    let mut request = Vec::new();
    for word in [MAGIC, VERSION, u32::try_from(command.len())?] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    request.extend_from_slice(command.as_bytes());
    request.push(0);
    Ok(request)
}

/// Whether the command failed, whether more follows, and text.
fn decode(answer: &[u8]) -> Option<(bool, bool, String)> {
    let (head, text) = answer.split_at_checked(HEAD)?;
    let word = |number: usize| head[number * 4..].first_chunk().copied().map(u32::from_ne_bytes);
    let text = text.get(..word(2)? as usize)?;
    let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
    Some((word(0)? != 0, word(1)? != 0, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(failed: u32, more: u32, text: &str) -> Vec<u8> {
        let words = [failed, more, u32::try_from(text.len()).expect("a short text")];
        [words.map(u32::to_ne_bytes).concat(), text.as_bytes().to_vec()].concat()
    }

    #[test]
    fn an_answer_may_come_in_parts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mconsole");
        let kernel = UnixDatagram::bind(&path).expect("a socket");
        let name = path.to_str().expect("plain text");
        let console = Mconsole::connect(&path, name).expect("connected");
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| (console.execute("version").ok(), console.execute("config x=1")));
            let mut request = [0; 600];
            for answers in [vec![answer(0, 1, "one "), answer(0, 0, "two\0")], vec![answer(1, 0, "no")]] {
                let (size, from) = kernel.recv_from(&mut request).expect("a request");
                assert!([20, 23].contains(&size), "a request of {size} bytes");
                for answer in answers {
                    kernel.send_to_addr(&answer, &from).expect("sent");
                }
            }
            let (version, config) = asked.join().expect("asked");
            assert_eq!(version.as_deref(), Some("one two"));
            assert!(format!("{:#}", config.expect_err("refused")).ends_with("'config x=1': no"));
        });
        assert_eq!(decode(&answer(0, 0, "text")[..14]), None, "took an answer that was cut off");
    }
}
