// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Serves the guest's `zhost` command; `images/guest/README.md` defines the wire format.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

/// First bytes of every frame.
const MAGIC: [u8; 4] = *b"ZHST";
/// Most bytes after a frame's head.
const MAX_BODY: usize = 65536;

/// What the host answers: an exit status for `zhost`, and text for it to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u8,
    pub(crate) text: String,
}

/// Answers requests with `act` until the connection ends.
pub(crate) fn serve(mut stream: UnixStream, act: impl Fn(&[String]) -> Answer + Send + 'static) {
    thread::spawn(move || {
        while let Ok((id, words)) = read_request(&mut stream) {
            if stream.write_all(&encode(id, act(&words))).is_err() {
                break;
            }
        }
    });
}

fn read_request(stream: &mut impl Read) -> io::Result<([u8; 4], Vec<String>)> {
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

fn encode(id: [u8; 4], answer: Answer) -> Vec<u8> {
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
    fn garbage_ends_the_service() {
        let (mut guest, host) = UnixStream::pair().expect("a socket pair");
        serve(host, |_| Answer { status: 0, text: String::new() });
        guest.write_all(&[0xff; 12]).expect("garbage");
        assert_eq!(guest.read(&mut [0; 16]).expect("end of stream"), 0);
    }
}
