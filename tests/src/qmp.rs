// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A QMP client: commands with deadlines, and events that can be waited for.
//!
//! The `qapi` crate was considered; its blocking client has neither deadlines nor a way to
//! wait for an event, and it rejects messages that its fixed schema does not know.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    writer: Mutex<UnixStream>,
    next_id: AtomicU64,
    inbox: Arc<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    replies: Vec<Value>,
    events: Vec<Value>,
    closed: bool,
}

/// A point in the stream of events, taken before the action whose event is awaited.
#[derive(Debug, Clone, Copy)]
pub struct EventMark(usize);

impl Qmp {
    /// Negotiates capabilities on a fresh monitor connection.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let inbox = Arc::new(Inbox::default());
        let reader = stream.try_clone()?;
        let shared = Arc::clone(&inbox);
        thread::spawn(move || shared.fill_from(reader));
        let qmp = Self { writer: Mutex::new(stream), next_id: AtomicU64::new(0), inbox };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returned.
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(line.as_bytes())
            .with_context(|| format!("Cannot send {command} to QEMU"))?;
        let reply = self
            .wait(Duration::from_secs(60), |state| {
                let at = state.replies.iter().position(|reply| reply["id"] == id)?;
                Some(state.replies.swap_remove(at))
            })
            .with_context(|| format!("QEMU did not answer {command}"))?;
        if let Some(error) = reply.get("error") {
            let text = error["desc"].as_str().unwrap_or("no description");
            bail!("QEMU refused {command}: {text}");
        }
        Ok(reply["return"].clone())
    }

    /// Marks the present, for [`Qmp::wait_event`].
    pub fn mark(&self) -> EventMark {
        EventMark(self.inbox.lock().events.len())
    }

    /// Waits for the first event after `mark` for which `wanted` gives an answer.
    pub fn wait_event<T>(
        &self,
        mark: EventMark,
        limit: Duration,
        wanted: impl Fn(&str, &Value) -> Option<T>,
    ) -> Result<T> {
        self.wait(limit, |state| {
            state.events[mark.0..].iter().find_map(|event| wanted(event["event"].as_str()?, &event["data"]))
        })
    }

    fn wait<T>(&self, limit: Duration, mut ready: impl FnMut(&mut State) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.inbox.lock();
        loop {
            if let Some(found) = ready(&mut state) {
                return Ok(found);
            }
            if state.closed {
                return Err(anyhow!("The monitor connection was closed: QEMU has ended"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("Nothing came within {limit:?}");
            }
            state = self.inbox.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sorts incoming messages until the connection ends.
    fn fill_from(&self, stream: UnixStream) {
        for line in BufReader::new(stream).lines() {
            let Ok(message) =
                line.map_err(|_| ()).and_then(|line| serde_json::from_str::<Value>(&line).map_err(|_| ()))
            else {
                break;
            };
            let mut state = self.lock();
            if message.get("event").is_some() {
                state.events.push(message);
            } else if message.get("id").is_some() {
                state.replies.push(message);
            }
            self.changed.notify_all();
        }
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays QEMU: greets, then answers each line with what `answers` says.
    fn fake(answers: Vec<Vec<Value>>) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        thread::spawn(move || {
            let mut out = theirs.try_clone().expect("a second handle");
            writeln!(out, "{}", json!({"QMP": {}})).expect("greeting");
            let mut lines = BufReader::new(theirs).lines();
            for messages in answers {
                if lines.next().is_none() {
                    return;
                }
                for message in messages {
                    writeln!(out, "{message}").expect("answer");
                }
            }
        });
        ours
    }

    #[test]
    fn an_event_before_the_reply_is_kept() {
        let qmp = Qmp::new(fake(vec![
            vec![json!({"return": {}, "id": 0})],
            vec![
                json!({"event": "DEVICE_DELETED", "data": {"path": "/x/virtio-backend"}}),
                json!({"event": "DEVICE_DELETED", "data": {"device": "z0", "path": "/x"}}),
                json!({"return": {}, "id": 1}),
            ],
        ]))
        .expect("negotiation");
        let mark = qmp.mark();
        qmp.execute("device_del", json!({"id": "z0"})).expect("device_del");
        let device = qmp
            .wait_event(mark, Duration::from_secs(1), |name, data| {
                (name == "DEVICE_DELETED").then_some(())?;
                data["device"].as_str().map(str::to_owned)
            })
            .expect("the event");
        assert_eq!(device, "z0");
    }

    #[test]
    fn an_error_names_the_command() {
        let qmp = Qmp::new(fake(vec![
            vec![json!({"return": {}, "id": 0})],
            vec![json!({"error": {"class": "GenericError", "desc": "is busy"}, "id": 1})],
        ]))
        .expect("negotiation");
        let error = qmp.execute("chardev-remove", json!({})).expect_err("must fail");
        assert_eq!(error.to_string(), "QEMU refused chardev-remove: is busy");
    }

    #[test]
    fn the_end_of_qemu_ends_a_wait_at_once() {
        let qmp = Qmp::new(fake(vec![vec![json!({"return": {}, "id": 0})]])).expect("negotiation");
        let started = Instant::now();
        let answer: Result<()> = qmp.wait_event(qmp.mark(), Duration::from_secs(60), |_, _| None);
        assert!(answer.is_err(), "waited for an event of a dead QEMU");
        assert!(started.elapsed() < Duration::from_secs(30), "the wait ran into its limit");
    }
}
