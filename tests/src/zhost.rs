// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serves the guest's `zhost` command; `images/guest/README.md` defines the wire format.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

/// First bytes of every frame.
const MAGIC: [u8; 4] = *b"ZHST";
/// Most bytes after a frame's head.
const MAX_BODY: usize = 65536;
/// Bytes of an answer that are sent at a time; see `window.rs`.
const PIECE: usize = 1024;

/// What tells a request from those before it.
type Id = [u8; 4];

/// What the host answers: an exit status for `zhost`, and text for it to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u8,
    pub(crate) text: String,
}

/// Answers requests with `act` until the connection ends.
pub(crate) fn serve(mut stream: UnixStream, act: impl Fn(&[String]) -> Answer + Send + 'static) {
    // The end of the connection is not an error: the guest has ended.
    thread::spawn(move || -> io::Result<()> {
        let mut request = read_request(&mut stream)?;
        loop {
            request = match request {
                // Asks for more of an answer that was all sent.
                (_, words) if words.is_empty() => read_request(&mut stream)?,
                (id, words) => {
                    let frame = encode(id, act(&words));
                    send(&mut stream, id, &frame)?
                }
            };
        }
    });
}

/// Sends an answer piece by piece, as the guest asks for them. Returns the next request: it comes
/// before the end if the asker was killed.
fn send(stream: &mut (impl Read + Write), id: Id, frame: &[u8]) -> io::Result<(Id, Vec<String>)> {
    let mut pieces = frame.chunks(PIECE);
    loop {
        if let Some(piece) = pieces.next() {
            stream.write_all(piece)?;
        }
        let request = read_request(stream)?;
        if pieces.len() == 0 || request != (id, Vec::new()) {
            return Ok(request);
        }
    }
}

fn read_request(stream: &mut impl Read) -> io::Result<(Id, Vec<String>)> {
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    if head[..4] != MAGIC || len > MAX_BODY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a zhost request"));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    let words = body
        .split_inclusive(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word.strip_suffix(&[0]).unwrap_or(word)).into_owned())
        .collect();
    Ok(([head[4], head[5], head[6], head[7]], words))
}

fn encode(id: Id, answer: Answer) -> Vec<u8> {
    let mut text = answer.text.into_bytes();
    text.truncate(MAX_BODY - 1);
    let mut frame = MAGIC.to_vec();
    frame.extend_from_slice(&id);
    // The body is at most MAX_BODY bytes by the truncation above.
    frame.extend_from_slice(&u32::try_from(text.len() + 1).unwrap_or(0).to_le_bytes());
    frame.push(answer.status);
    frame.append(&mut text);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_under_its_id() {
        let (mut guest, host) = UnixStream::pair().expect("a socket pair");
        serve(host, |words| Answer { status: 3, text: words.join("+") });
        guest.write_all(b"ZHST\x07\0\0\0\x0a\0\0\0attach\0-v\0").expect("request");
        let mut answer = [0; 22];
        guest.read_exact(&mut answer).expect("answer");
        assert_eq!(&answer, b"ZHST\x07\0\0\0\x0a\0\0\0\x03attach+-v");
    }

    #[test]
    fn a_long_answer_waits_for_the_guest() {
        let (mut guest, host) = UnixStream::pair().expect("a socket pair");
        serve(host, |words| Answer { status: 0, text: words[0].repeat(1500) });
        guest.set_read_timeout(Some(std::time::Duration::from_millis(100))).expect("a limit");
        let mut piece = [0; PIECE];
        let mut more = |guest: &mut UnixStream, request: &[u8]| -> io::Result<usize> {
            guest.write_all(request)?;
            guest.read_exact(&mut piece)?;
            Ok(piece.iter().filter(|byte| **byte == b'x').count())
        };
        assert_eq!(more(&mut guest, b"ZHST\x07\0\0\0\x02\0\0\0x\0").expect("the first piece"), PIECE - 13);
        guest.read_exact(&mut [0]).expect_err("nobody has asked for more");
        let mut rest = [0; 1500 - (PIECE - 13)];
        guest.write_all(b"ZHST\x07\0\0\0\0\0\0\0").expect("asked");
        guest.read_exact(&mut rest).expect("the rest");
        assert!(rest.iter().all(|byte| *byte == b'x'), "{rest:?}");

        assert_eq!(more(&mut guest, b"ZHST\x08\0\0\0\x02\0\0\0x\0").expect("the first piece"), PIECE - 13);
        assert_eq!(more(&mut guest, b"ZHST\x09\0\0\0\x02\0\0\0x\0").expect("an answer to who came after"), PIECE - 13);
    }

    #[test]
    fn garbage_ends_the_service() {
        let (mut guest, host) = UnixStream::pair().expect("a socket pair");
        serve(host, |_| Answer { status: 0, text: String::new() });
        guest.write_all(&[0xff; 12]).expect("garbage");
        assert_eq!(guest.read(&mut [0; 16]).expect("end of stream"), 0);
    }
}
