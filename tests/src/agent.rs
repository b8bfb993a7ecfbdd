// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host's end of the agent protocol; `images/guest/README.md` defines it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::window::Window;

/// Longest that the agent may take to read what was sent to it.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// Most payload bytes of one frame.
const MAX_PAYLOAD: usize = 65536;

mod to_guest {
    pub(super) const RUN: u8 = 1;
    pub(super) const KILL: u8 = 2;
    pub(super) const PUT: u8 = 3;
    pub(super) const DATA: u8 = 4;
    pub(super) const POWEROFF: u8 = 5;
}

mod from_guest {
    pub(super) const HELLO: u8 = 129;
    pub(super) const OUT: u8 = 130;
    pub(super) const ERR: u8 = 131;
    pub(super) const EXIT: u8 = 132;
    pub(super) const READ: u8 = 133;
}

/// Something the agent said about one command or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The agent is there; its version and the kernel's release.
    Hello(String),
    /// Standard output of the command.
    Out(Vec<u8>),
    /// Standard error of the command.
    Err(Vec<u8>),
    /// The command ended or the file is in place.
    Exited(i32),
    /// The command was killed by this signal.
    Killed(i32),
    /// The agent could not do what was asked.
    Failed(String),
}

/// What one frame of the guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Frame {
    /// Something about the command or file of this id.
    Reply(u32, Reply),
    /// The agent has read so many bytes.
    Read(usize),
}

/// A connection to the guest's agent.
#[derive(Debug)]
pub(crate) struct Agent {
    writer: Mutex<UnixStream>,
    next_id: AtomicU32,
    waiting: Arc<Waiting>,
    window: Arc<Window>,
}

/// Replies on their way to one asker.
#[derive(Debug)]
pub(crate) struct Conversation {
    id: u32,
    replies: mpsc::Receiver<Reply>,
}

/// Who waits for which id; `None` once the connection has ended.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u32, mpsc::Sender<Reply>>>>);

impl Agent {
    /// Takes over a fresh connection to the agent's port.
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        let window = Arc::new(Window::new());
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let reader = stream.try_clone()?;
        let (shared, opened) = (Arc::clone(&waiting), Arc::clone(&window));
        thread::spawn(move || shared.fill_from(reader, &opened));
        Ok(Self { writer: Mutex::new(stream), next_id: AtomicU32::new(1), waiting, window })
    }

    /// Listens for the greeting the agent sends when it starts.
    pub(crate) fn greeting(&self) -> Result<Conversation> {
        self.waiting.register(0)
    }

    /// Starts a command.
    pub(crate) fn run(&self, argv: &[&str]) -> Result<Conversation> {
        let mut payload = Vec::new();
        for word in argv {
            payload.extend_from_slice(word.as_bytes());
            payload.push(0);
        }
        if payload.len() > MAX_PAYLOAD {
            bail!("A command of {} bytes is too long for the agent", payload.len());
        }
        self.begin(to_guest::RUN, &payload)
    }

    /// Sends a signal to the command's process group.
    pub(crate) fn kill(&self, conversation: &Conversation, signal: u8) -> Result<()> {
        self.send(conversation.id, to_guest::KILL, &[signal])
    }

    /// Writes a whole file; the conversation ends when it is in place.
    pub(crate) fn put(&self, path: &str, mode: u32, contents: &[u8]) -> Result<Conversation> {
        let mut payload = mode.to_le_bytes().to_vec();
        payload.extend_from_slice(path.as_bytes());
        let conversation = self.begin(to_guest::PUT, &payload)?;
        for piece in contents.chunks(MAX_PAYLOAD) {
            self.send(conversation.id, to_guest::DATA, piece)?;
        }
        self.send(conversation.id, to_guest::DATA, &[])?;
        Ok(conversation)
    }

    /// Ends the guest; QEMU ends with it.
    pub(crate) fn power_off(&self) -> Result<()> {
        self.send(0, to_guest::POWEROFF, &[])
    }

    fn begin(&self, kind: u8, payload: &[u8]) -> Result<Conversation> {
        let conversation = self.waiting.register(self.next_id.fetch_add(1, Ordering::Relaxed))?;
        self.send(conversation.id, kind, payload)?;
        Ok(conversation)
    }

    fn send(&self, id: u32, kind: u8, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(9 + payload.len());
        frame.extend_from_slice(&u32::try_from(payload.len() + 5)?.to_le_bytes());
        frame.extend_from_slice(&id.to_le_bytes());
        frame.push(kind);
        frame.extend_from_slice(payload);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.window.take(rest.len(), WRITE_LIMIT)?);
            writer.write_all(now).context("Cannot write to the guest's agent")?;
            rest = later;
        }
        Ok(())
    }
}

impl Conversation {
    /// The next reply; `None` when none came within `limit`.
    pub(crate) fn next(&self, limit: Duration) -> Result<Option<Reply>> {
        match self.replies.recv_timeout(limit) {
            Ok(reply) => Ok(Some(reply)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(anyhow!("The connection to the guest's agent was lost")),
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u32, mpsc::Sender<Reply>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, id: u32) -> Result<Conversation> {
        let (sender, replies) = mpsc::channel();
        self.lock().as_mut().context("The connection to the guest's agent was lost")?.insert(id, sender);
        Ok(Conversation { id, replies })
    }

    /// Hands replies to whoever waits for them until the connection ends.
    fn fill_from(&self, mut stream: UnixStream, window: &Window) {
        while let Ok(frame) = read_frame(&mut stream) {
            let (id, reply) = match frame {
                Frame::Reply(id, reply) => (id, reply),
                Frame::Read(bytes) => {
                    window.arrived(bytes);
                    continue;
                }
            };
            if id == 0 && matches!(reply, Reply::Hello(_)) {
                window.restart();
            }
            let last = matches!(reply, Reply::Exited(_) | Reply::Killed(_) | Reply::Failed(_));
            let mut waiting = self.lock();
            let Some(table) = waiting.as_mut() else { break };
            if let Some(sender) = table.get(&id) {
                // An asker that no longer waits is no reason to stop reading.
                let _ = sender.send(reply);
            }
            if last {
                table.remove(&id);
            }
        }
        // Dropping the senders wakes everyone who still waits.
        *self.lock() = None;
        window.close();
    }
}

fn read_frame(stream: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let len = word(0) as usize;
    if !(5..=MAX_PAYLOAD + 5).contains(&len) {
        return Err(malformed("frame length"));
    }
    let mut payload = vec![0; len - 5];
    stream.read_exact(&mut payload)?;
    let reply = match head[8] {
        from_guest::READ => return parse_read(&payload).map(Frame::Read).ok_or_else(|| malformed("READ frame")),
        from_guest::HELLO => Reply::Hello(String::from_utf8_lossy(&payload).into_owned()),
        from_guest::OUT => Reply::Out(payload),
        from_guest::ERR => Reply::Err(payload),
        from_guest::EXIT => parse_exit(&payload).ok_or_else(|| malformed("EXIT frame"))?,
        _ => return Err(malformed("frame type")),
    };
    Ok(Frame::Reply(word(4), reply))
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn parse_read(payload: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(payload.try_into().ok()?)).ok()
}

fn parse_exit(payload: &[u8]) -> Option<Reply> {
    let (kind, rest) = payload.split_first()?;
    let (value, text) = rest.split_first_chunk::<4>()?;
    let value = i32::from_le_bytes(*value);
    match kind {
        0 => Some(Reply::Exited(value)),
        1 => Some(Reply::Killed(value)),
        2 => Some(Reply::Failed(format!("{}: {}", String::from_utf8_lossy(text), io::Error::from_raw_os_error(value)))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len() + 5).expect("a short payload");
        [&len.to_le_bytes()[..], &id.to_le_bytes(), &[kind], payload].concat()
    }

    #[test]
    fn frames_are_parsed_in_order() {
        let mut bytes = frame(7, 130, b"hello");
        bytes.extend(frame(7, 132, &[0, 3, 0, 0, 0]));
        bytes.extend(frame(0, 133, &[1, 4, 0, 0]));
        bytes.extend(frame(8, 132, &[1, 9, 0, 0, 0]));
        let mut input = &bytes[..];
        let mut next = || read_frame(&mut input).expect("a frame");
        assert_eq!(next(), Frame::Reply(7, Reply::Out(b"hello".to_vec())));
        assert_eq!(next(), Frame::Reply(7, Reply::Exited(3)));
        assert_eq!(next(), Frame::Read(1025));
        assert_eq!(next(), Frame::Reply(8, Reply::Killed(9)));
    }

    #[test]
    fn a_broken_frame_is_refused() {
        for bytes in [frame(1, 77, b""), frame(1, 132, &[0, 3]), frame(0, 133, &[0]), vec![0; 9]] {
            assert!(read_frame(&mut &bytes[..]).is_err(), "accepted {bytes:?}");
        }
    }

    #[test]
    fn a_lost_connection_ends_every_wait() {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let agent = Agent::new(ours).expect("an agent");
        let waiting = agent.run(&["true"]).expect("sent");
        drop(theirs);
        waiting.next(Duration::from_secs(30)).expect_err("the connection is gone");
        assert!(agent.waiting.register(5).is_err(), "a new wait began on a dead connection");
    }
}
