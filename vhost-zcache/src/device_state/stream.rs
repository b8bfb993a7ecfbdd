// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a state is written down. What comes is the word of a stranger: a [`Decoder`] is given bytes
//! and gives records, knows nothing else, and holds a chunk at most.
//!
//! ```text
//! head     "zcachest" | le32 version | le32 0
//! chunk    le32 length | records, 1 byte to 64 KiB | le64 XXH3 of length and records
//! ```
//!
//! The seed of each chunk's XXH3 is the sum before, that of the first is the XXH3 of the head. So
//! chunks cannot be left out or change places, and the last sum is one over all of the stream.
//! A record is a byte that says which, and little-endian fields:
//!
//! ```text
//! 1 session  flags (1 holds pools, 2 open) | instance, 16 bytes | le64 epoch     once, first
//! 2 ring     le16 queue | le16 size | le16 index | le64 descriptors, available, used
//! 3 pool     le32 id | kind (0 ephemeral, 1 persistent, 2 shared) | UUID, 16 bytes
//! 4 object   le32 pool | name, 24 bytes                       for the pages behind it in its chunk
//! 5 page     le64 index | codec | le16 length | le64 XXH3 of the bytes | bytes
//! 6 end      le64 pages | le64 bytes of pages                                      once, last
//! ```

use std::hash::Hasher;

use thiserror::Error;
use twox_hash::XxHash3_64;
use zcache_protocol::ID_SIZE;
use zcache_store::{Codec, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, StoredPage};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Moved;
use crate::device::ring::{RingPlace, RingPosition};

/// Version of all this.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"zcachest";

/// Most bytes of the records of a chunk.
pub const MAX_CHUNK: usize = 64 << 10;
const LENGTH_SIZE: usize = size_of::<U32>();
const SUM_SIZE: usize = size_of::<U64>();

const HOLDS: u8 = 1;
const OPEN: u8 = 2;

/// Which record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Tag {
    Session = 1,
    Ring = 2,
    Pool = 3,
    Object = 4,
    Page = 5,
    End = 6,
}

impl Tag {
    fn of(byte: u8) -> Option<Self> {
        [Self::Session, Self::Ring, Self::Pool, Self::Object, Self::Page, Self::End]
            .into_iter()
            .find(|tag| *tag as u8 == byte)
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HeadFields {
    magic: [u8; 8],
    version: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SessionFields {
    flags: u8,
    instance: [u8; ID_SIZE],
    epoch: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RingFields {
    queue: U16,
    size: U16,
    index: U16,
    descriptors: U64,
    available: U64,
    used: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PoolFields {
    id: U32,
    kind: u8,
    uuid: [u8; ID_SIZE],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ObjectFields {
    pool: U32,
    name: [u8; 24],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PageFields {
    index: U64,
    codec: u8,
    length: U16,
    sum: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EndFields {
    pages: U64,
    bytes: U64,
}

const CODECS: [Codec; 4] = [Codec::Same, Codec::Raw, Codec::Lz4, Codec::Zstd];

/// What a state consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// The session. It comes first.
    Session {
        /// Instance and epoch of the last HELLO, if there was one.
        holds: Option<([u8; ID_SIZE], u64)>,
        /// Whether a session is open.
        open: bool,
    },
    /// Where a queue's ring has stopped.
    Ring(usize, RingPosition),
    /// A pool.
    Pool(PoolId, PoolKind),
    /// A page of a persistent pool.
    Page(Key, StoredPage<'a>),
}

/// Why something is no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Damage {
    /// It begins in another way.
    #[error("this is not the state of a zcache device")]
    Stranger,
    /// It is of another release.
    #[error("the state has version {0}, and this daemon knows {VERSION}")]
    Version(u32),
    /// It is not what was saved.
    #[error("the state is damaged: a checksum does not match")]
    Checksum,
    /// No daemon writes that.
    #[error("the state makes no sense: {0}")]
    Nonsense(&'static str),
    /// There is no end.
    #[error("the state ends too early")]
    Truncated,
}

fn sum(seed: u64, parts: &[&[u8]]) -> u64 {
    let mut hasher = XxHash3_64::with_seed(seed);
    parts.iter().for_each(|part| hasher.write(part));
    hasher.finish()
}

/// Writes a state down.
pub struct Encoder {
    /// What is finished.
    ready: Vec<u8>,
    /// Records of the chunk that is not.
    records: Vec<u8>,
    seed: u64,
    /// What the next page of the chunk belongs to.
    object: Option<(PoolId, ObjectId)>,
    moved: Moved,
}

impl Default for Encoder {
    fn default() -> Self {
        let head = HeadFields { magic: MAGIC, version: VERSION.into(), reserved: 0.into() };
        let ready = head.as_bytes().to_vec();
        Self { seed: sum(0, &[&ready]), ready, records: Vec::new(), object: None, moved: Moved::default() }
    }
}

impl Encoder {
    /// Adds a record.
    pub fn add(&mut self, record: Record<'_>) {
        match record {
            Record::Session { holds, open } => {
                let (instance, epoch) = holds.unwrap_or_default();
                let flags = if holds.is_some() { HOLDS } else { 0 } | if open { OPEN } else { 0 };
                self.write(Tag::Session, &SessionFields { flags, instance, epoch: epoch.into() }, &[]);
            }
            Record::Ring(queue, RingPosition { place, index }) => {
                let RingPlace { size, descriptors, available, used } = place;
                // There are 64 at most.
                let queue = u16::try_from(queue).unwrap_or(u16::MAX).into();
                let (descriptors, available, used) = (descriptors.into(), available.into(), used.into());
                let (size, index) = (size.into(), index.into());
                self.write(Tag::Ring, &RingFields { queue, size, index, descriptors, available, used }, &[]);
            }
            Record::Pool(id, kind) => {
                let (kind, uuid) = match kind {
                    PoolKind::Ephemeral => (0, [0; ID_SIZE]),
                    PoolKind::Persistent => (1, [0; ID_SIZE]),
                    PoolKind::SharedEphemeral(uuid) => (2, uuid),
                };
                self.write(Tag::Pool, &PoolFields { id: id.0.into(), kind, uuid }, &[]);
            }
            Record::Page(key, page) => self.page(&key, page),
        }
    }

    fn page(&mut self, key: &Key, page: StoredPage<'_>) {
        let StoredPage { codec, bytes, sum } = page;
        self.make_room(2 + size_of::<ObjectFields>() + size_of::<PageFields>() + bytes.len());
        if self.object != Some((key.pool, key.object)) {
            self.object = Some((key.pool, key.object));
            self.write(Tag::Object, &ObjectFields { pool: key.pool.0.into(), name: key.object.0 }, &[]);
        }
        let codec = CODECS.iter().position(|known| *known == codec).and_then(|at| u8::try_from(at).ok());
        let fields = PageFields {
            index: key.index.into(),
            codec: codec.unwrap_or(u8::MAX),
            length: u16::try_from(bytes.len()).unwrap_or(u16::MAX).into(),
            sum: sum.into(),
        };
        self.write(Tag::Page, &fields, bytes);
        self.moved.pages += 1;
        self.moved.bytes += bytes.len() as u64;
    }

    fn write(&mut self, tag: Tag, fields: &(impl IntoBytes + Immutable), bytes: &[u8]) {
        let fields = fields.as_bytes();
        self.make_room(1 + fields.len() + bytes.len());
        self.records.push(tag as u8);
        self.records.extend(fields);
        self.records.extend(bytes);
    }

    /// Ends the chunk if so many bytes do not fit in it.
    fn make_room(&mut self, bytes: usize) {
        if self.records.len() + bytes > MAX_CHUNK {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let length = U32::new(u32::try_from(self.records.len()).unwrap_or(u32::MAX));
        self.seed = sum(self.seed, &[length.as_bytes(), &self.records]);
        self.ready.extend(length.as_bytes());
        self.ready.append(&mut self.records);
        self.ready.extend(self.seed.to_le_bytes());
        self.object = None;
    }

    /// What can be sent, which may be nothing.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// The rest of it, and what it contains.
    #[must_use]
    pub fn finish(mut self) -> (Vec<u8>, Moved) {
        let Moved { pages, bytes } = self.moved;
        self.write(Tag::End, &EndFields { pages: pages.into(), bytes: bytes.into() }, &[]);
        self.seal();
        (self.ready, self.moved)
    }
}

/// Reads a state.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What was given and not read.
    buffer: Vec<u8>,
    /// The part of it that was verified and is read next.
    at: usize,
    end: usize,
    /// The sum before; `None` before the head.
    seed: Option<u64>,
    /// The last record.
    last: Option<Tag>,
    object: Option<(PoolId, ObjectId)>,
    moved: Moved,
}

impl Decoder {
    /// Adds bytes. All records that there were are to be taken before.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// The next record, if all of its chunk has come.
    ///
    /// # Errors
    ///
    /// [`Damage`]. There is nothing to be had after it.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, Damage> {
        loop {
            if self.at == self.end && !self.next_chunk()? {
                return Ok(None);
            }
            let tag = self.buffer.get(self.at).copied().and_then(Tag::of);
            let tag = tag.ok_or(Damage::Nonsense("an unknown record"))?;
            self.at += 1;
            match (self.last, tag) {
                (None, Tag::Session) => {}
                (None, _) | (_, Tag::Session) => return Err(Damage::Nonsense("the session is not what comes first")),
                (Some(Tag::End), _) => return Err(Damage::Nonsense("something follows its end")),
                // Objects and pages take turns.
                (Some(last), _) if tag < last.min(Tag::Object) => return Err(Damage::Nonsense("records out of order")),
                _ => {}
            }
            self.last = Some(tag);
            match tag {
                Tag::Session => return self.session().map(Some),
                Tag::Ring => return self.ring().map(Some),
                Tag::Pool => return self.pool().map(Some),
                Tag::Object => {
                    let ObjectFields { pool, name } = self.read()?;
                    self.object = Some((PoolId(pool.get()), ObjectId(name)));
                }
                Tag::Page => return self.page().map(Some),
                Tag::End => {
                    let EndFields { pages, bytes } = self.read()?;
                    if (Moved { pages: pages.get(), bytes: bytes.get() }) != self.moved {
                        return Err(Damage::Nonsense("it has not as many pages as it says"));
                    }
                }
            }
        }
    }

    /// Nothing comes any more; what was read.
    ///
    /// # Errors
    ///
    /// [`Damage`] when that was not all, or more than that.
    pub fn finish(self) -> Result<Moved, Damage> {
        if self.last != Some(Tag::End) || self.at != self.end {
            return Err(Damage::Truncated);
        }
        if self.buffer.len() > self.read_bytes() {
            return Err(Damage::Nonsense("something follows its end"));
        }
        Ok(self.moved)
    }

    /// Bytes of the buffer up to the end of the chunk that is read.
    fn read_bytes(&self) -> usize {
        if self.end > 0 { self.end + SUM_SIZE } else { 0 }
    }

    /// Verifies the next chunk, if all of it has come; whether it has.
    fn next_chunk(&mut self) -> Result<bool, Damage> {
        let Some(seed) = self.seed.map_or_else(|| self.head(), |seed| Ok(Some(seed)))? else { return Ok(false) };
        // What was read goes, with the sum behind it.
        self.buffer.drain(..self.read_bytes());
        (self.at, self.end) = (0, 0);
        self.object = None;
        let Ok((length, rest)) = U32::ref_from_prefix(&self.buffer) else { return Ok(false) };
        let size = usize::try_from(length.get()).ok().filter(|size| (1..=MAX_CHUNK).contains(size));
        let size = size.ok_or(Damage::Nonsense("a chunk of an impossible length"))?;
        let Some((records, rest)) = rest.split_at_checked(size) else { return Ok(false) };
        let Ok((expected, _)) = U64::ref_from_prefix(rest) else { return Ok(false) };
        let sum = sum(seed, &[length.as_bytes(), records]);
        if sum != expected.get() {
            return Err(Damage::Checksum);
        }
        self.seed = Some(sum);
        (self.at, self.end) = (LENGTH_SIZE, LENGTH_SIZE + size);
        Ok(true)
    }

    /// Reads the head, if all of it has come; the seed of the first chunk.
    fn head(&mut self) -> Result<Option<u64>, Damage> {
        let known = self.buffer.len().min(MAGIC.len());
        if self.buffer[..known] != MAGIC[..known] {
            return Err(Damage::Stranger);
        }
        let Ok((head, _)) = HeadFields::ref_from_prefix(&self.buffer) else { return Ok(None) };
        if head.version.get() != VERSION {
            return Err(Damage::Version(head.version.get()));
        }
        if head.reserved.get() != 0 {
            return Err(Damage::Nonsense("a reserved field is not zero"));
        }
        let seed = sum(0, &[head.as_bytes()]);
        self.buffer.drain(..size_of::<HeadFields>());
        self.seed = Some(seed);
        Ok(Some(seed))
    }

    fn read<T: FromBytes>(&mut self) -> Result<T, Damage> {
        let rest = self.buffer.get(self.at..self.end).unwrap_or_default();
        let (fields, _) = T::read_from_prefix(rest).map_err(|_| Damage::Nonsense("half a record"))?;
        self.at += size_of::<T>();
        Ok(fields)
    }

    fn session(&mut self) -> Result<Record<'_>, Damage> {
        let SessionFields { flags, instance, epoch } = self.read()?;
        let holds = (flags & HOLDS != 0).then_some((instance, epoch.get()));
        let open = flags & OPEN != 0;
        if flags & !(HOLDS | OPEN) != 0 || open && holds.is_none() {
            return Err(Damage::Nonsense("a session that cannot be"));
        }
        Ok(Record::Session { holds, open })
    }

    fn ring(&mut self) -> Result<Record<'_>, Damage> {
        let RingFields { queue, size, index, descriptors, available, used } = self.read()?;
        let (descriptors, available, used) = (descriptors.get(), available.get(), used.get());
        let place = RingPlace { size: size.get(), descriptors, available, used };
        Ok(Record::Ring(queue.get().into(), RingPosition { place, index: index.get() }))
    }

    fn pool(&mut self) -> Result<Record<'_>, Damage> {
        let PoolFields { id, kind, uuid } = self.read()?;
        let kind = match (kind, uuid == [0; ID_SIZE]) {
            (0, true) => PoolKind::Ephemeral,
            (1, true) => PoolKind::Persistent,
            (2, false) => PoolKind::SharedEphemeral(uuid),
            _ => return Err(Damage::Nonsense("a pool of an unknown kind")),
        };
        Ok(Record::Pool(PoolId(id.get()), kind))
    }

    fn page(&mut self) -> Result<Record<'_>, Damage> {
        let PageFields { index, codec, length, sum } = self.read()?;
        let (pool, object) = self.object.ok_or(Damage::Nonsense("a page of no object"))?;
        let codec = CODECS.get(usize::from(codec)).copied();
        let codec = codec.ok_or(Damage::Nonsense("a page of an unknown codec"))?;
        let from = self.at;
        let to = from + usize::from(length.get());
        if usize::from(length.get()) > PAGE_SIZE || to > self.end {
            return Err(Damage::Nonsense("a page of an impossible length"));
        }
        self.at = to;
        self.moved.pages += 1;
        self.moved.bytes += u64::from(length.get());
        let page = StoredPage { codec, bytes: &self.buffer[from..to], sum: sum.get() };
        Ok(Record::Page(Key { pool, object, index: index.get() }, page))
    }
}
