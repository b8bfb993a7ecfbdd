// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A file that nobody can read or write without the key.
//!
//! ```text
//! head     "zcachesv" | le32 version | le32 0 | nonce, 19 bytes, random | 5 bytes of 0
//! check    tag, 16 bytes, over the head alone
//! chunk    64 KiB, the last one 0 to 64 KiB | tag, 16 bytes
//! ```
//!
//! Chunks are sealed with XChaCha20-Poly1305 by the STREAM construction: the number of a chunk, and
//! whether it is the last, are in its nonce, so that none can be left out, come twice, change
//! places or be the last where it was not. The head and the guest's name are authenticated with
//! each, so that a file is of no use as that of another guest. The tag over the head says that the
//! key is another one before anything else is looked at; its number is one that no chunk has.

use std::io::{self, Read, Write};

use aead_stream::{DecryptorBE32, EncryptorBE32, NewStream, Nonce, StreamBE32, StreamPrimitive};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use thiserror::Error;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::key::Key;

/// Version of all this.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"zcachesv";

/// Bytes of a chunk, and of a tag.
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// Number of what is no chunk: the one that the construction does not use.
const OF_HEAD: u32 = u32::MAX;

type Stream = StreamBE32<XChaCha20Poly1305>;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: U32,
    reserved: U32,
    nonce: [u8; 19],
    padding: [u8; 5],
}

/// Why a file does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It begins in another way.
    #[error("this is no saved state of a zcache device")]
    Stranger,
    /// It is of another release.
    #[error("the saved state has version {0}, and this daemon knows {VERSION}")]
    Version(u32),
    /// The key does not fit, or the head is damaged.
    #[error("the saved state was sealed with another key (--save-key)")]
    Key,
    /// A chunk is not what was written there.
    #[error("the saved state is damaged, cut off or another guest's")]
    Damaged,
}

fn stream(head: &Head, key: &Key) -> Stream {
    let cipher = XChaCha20Poly1305::new(key.bytes().into());
    Stream::from_aead(cipher, &Nonce::<XChaCha20Poly1305, Stream>::from(head.nonce))
}

/// What is authenticated with each chunk.
fn associated(head: &Head, guest: &str) -> Vec<u8> {
    [head.as_bytes(), guest.as_bytes()].concat()
}

/// The kernel's randomness failed, or the file would be of 256 TiB.
fn unsealed() -> io::Error {
    io::Error::other("it cannot be sealed")
}

/// Writes a file.
pub struct Sealer<W: Write> {
    encryptor: EncryptorBE32<XChaCha20Poly1305>,
    associated: Vec<u8>,
    chunk: Vec<u8>,
    file: W,
}

impl<W: Write> Sealer<W> {
    /// Begins a guest's.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or there are no random numbers.
    pub fn new(mut file: W, key: &Key, guest: &str) -> io::Result<Self> {
        let mut nonce = [0; 19];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let head = Head { magic: MAGIC, version: VERSION.into(), reserved: 0.into(), nonce, padding: [0; 5] };
        let stream = stream(&head, key);
        let mut check = Vec::new();
        stream.encrypt_in_place(OF_HEAD, false, head.as_bytes(), &mut check).map_err(|_| unsealed())?;
        file.write_all(head.as_bytes())?;
        file.write_all(&check)?;
        let associated = associated(&head, guest);
        Ok(Self { encryptor: stream.encryptor(), associated, chunk: Vec::with_capacity(CHUNK + TAG), file })
    }

    /// Adds bytes.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // One that is full may be the last.
            if self.chunk.len() == CHUNK {
                let sealed = self.encryptor.encrypt_next_in_place(&self.associated, &mut self.chunk);
                sealed.map_err(|_| unsealed())?;
                self.file.write_all(&self.chunk)?;
                self.chunk.clear();
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend(now);
            bytes = later;
        }
        Ok(())
    }

    /// That was all; the file.
    ///
    /// # Errors
    ///
    /// When the rest cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let sealed = self.encryptor.encrypt_last_in_place(&self.associated, &mut self.chunk);
        sealed.map_err(|_| unsealed())?;
        self.file.write_all(&self.chunk)?;
        Ok(self.file)
    }
}

/// Reads a file. What it gives is what was written; that it is all of it is known at its end.
pub struct Opener<R: Read> {
    /// `None` behind the last chunk.
    decryptor: Option<DecryptorBE32<XChaCha20Poly1305>>,
    associated: Vec<u8>,
    chunk: Vec<u8>,
    /// The first byte of the next chunk, which says that there is one.
    ahead: Option<u8>,
    file: R,
}

impl<R: Read> Opener<R> {
    /// Looks whether a file is one, and the key its.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn new(mut file: R, key: &Key, guest: &str) -> Result<Self, OpenError> {
        let mut bytes = [0; size_of::<Head>() + TAG];
        file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => OpenError::Stranger,
            _ => error.into(),
        })?;
        let (head, check) = Head::read_from_prefix(&bytes).map_err(|_| OpenError::Stranger)?;
        if head.magic != MAGIC {
            return Err(OpenError::Stranger);
        }
        if head.version.get() != VERSION {
            return Err(OpenError::Version(head.version.get()));
        }
        let stream = stream(&head, key);
        let opened = stream.decrypt_in_place(OF_HEAD, false, head.as_bytes(), &mut check.to_vec());
        opened.map_err(|_| OpenError::Key)?;
        let (decryptor, associated) = (Some(stream.decryptor()), associated(&head, guest));
        Ok(Self { decryptor, associated, chunk: Vec::with_capacity(CHUNK + TAG + 1), ahead: None, file })
    }

    /// The next bytes; `None` behind the last.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn next_chunk(&mut self) -> Result<Option<&[u8]>, OpenError> {
        let Some(mut decryptor) = self.decryptor.take() else { return Ok(None) };
        self.chunk.clear();
        self.chunk.extend(self.ahead.take());
        let most = CHUNK + TAG + 1;
        (&mut self.file).take((most - self.chunk.len()) as u64).read_to_end(&mut self.chunk)?;
        let opened = if self.chunk.len() == most {
            self.ahead = self.chunk.pop();
            let opened = decryptor.decrypt_next_in_place(&self.associated, &mut self.chunk);
            self.decryptor = Some(decryptor);
            opened
        } else {
            decryptor.decrypt_last_in_place(&self.associated, &mut self.chunk)
        };
        opened.map_err(|_| OpenError::Damaged)?;
        Ok(Some(&self.chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "guest";
    const HEAD: usize = size_of::<Head>() + TAG;

    fn key(number: u8) -> Key {
        Key::of(&[number; 32]).unwrap()
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect()
    }

    fn sealed(text: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(Vec::new(), &key(1), GUEST).unwrap();
        // In pieces that have nothing to do with chunks.
        text.chunks(10_007).for_each(|piece| sealer.push(piece).unwrap());
        sealer.finish().unwrap()
    }

    fn open(file: &[u8], key: &Key, guest: &str) -> Result<Vec<u8>, OpenError> {
        let mut opener = Opener::new(file, key, guest)?;
        let mut text = Vec::new();
        while let Some(chunk) = opener.next_chunk()? {
            text.extend(chunk);
        }
        Ok(text)
    }

    #[test]
    fn what_was_sealed_opens() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 200_000] {
            let text = text(length);
            assert!(open(&sealed(&text), &key(1), GUEST).unwrap() == text, "{length} bytes");
        }
        assert_ne!(sealed(b"one"), sealed(b"one"), "two files have the same nonce");
    }

    #[test]
    fn another_key_or_guest_does_not_open_it() {
        let file = sealed(&text(100_000));
        assert!(matches!(open(&file, &key(2), GUEST), Err(OpenError::Key)));
        assert!(matches!(open(&file, &key(1), "other"), Err(OpenError::Damaged)));
    }

    #[test]
    fn one_bit_anywhere_is_seen() {
        let file = sealed(&text(CHUNK + 100));
        for at in (0..HEAD + 40).chain((HEAD + 40..file.len()).step_by(997)).chain(file.len() - 20..file.len()) {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert!(open(&damaged, &key(1), GUEST).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_is_cut_off_doubled_or_out_of_order_is_seen() {
        let file = sealed(&text(3 * CHUNK));
        let (head, chunks) = file.split_at(HEAD);
        let chunks: Vec<&[u8]> = chunks.chunks(CHUNK + TAG).collect();
        let made = |order: &[usize]| order.iter().fold(head.to_vec(), |file, chunk| [&file, chunks[*chunk]].concat());
        assert!(open(&made(&[0, 1, 2]), &key(1), GUEST).is_ok());
        for order in [&[][..], &[0], &[0, 1], &[0, 2], &[1, 0, 2], &[0, 1, 1, 2], &[0, 1, 2, 2], &[2]] {
            assert!(matches!(open(&made(order), &key(1), GUEST), Err(OpenError::Damaged)), "chunks {order:?}");
        }
        for length in (0..file.len()).step_by(9973) {
            assert!(open(&file[..length], &key(1), GUEST).is_err(), "{length} bytes");
        }
        assert!(open(&[&file[..], b"x"].concat(), &key(1), GUEST).is_err(), "something follows");
    }

    #[test]
    fn strangers_and_other_versions_are_named() {
        assert!(matches!(open(b"", &key(1), GUEST), Err(OpenError::Stranger)));
        assert!(matches!(open(&[b'x'; 100], &key(1), GUEST), Err(OpenError::Stranger)));
        let mut file = sealed(b"");
        file[8] = 9;
        assert!(matches!(open(&file, &key(1), GUEST), Err(OpenError::Version(9))));
    }
}
