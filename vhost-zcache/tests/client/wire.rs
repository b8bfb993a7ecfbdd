// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests and answers as bytes, written from the specification's tables and not with the
//! daemon's own types.

use super::Done;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// A page.
pub type Page = [u8; PAGE];

/// Statuses by the names of the specification.
pub mod status {
    pub const OK: u16 = 0;
    pub const MISS: u16 = 1;
    pub const REFUSED: u16 = 2;
    pub const NO_POOL: u16 = 3;
    pub const EXISTS: u16 = 4;
    pub const DENIED: u16 = 5;
    pub const LIMIT: u16 = 6;
    pub const INVALID: u16 = 7;
    pub const UNSUPPORTED: u16 = 8;
    pub const NO_SESSION: u16 = 9;
    pub const MALFORMED: u16 = 10;
    pub const CORRUPT: u16 = 11;
}

/// Opcodes by the names of the specification.
pub mod opcode {
    pub const HELLO: u16 = 1;
    pub const POOL_CREATE: u16 = 2;
    pub const POOL_DESTROY: u16 = 3;
    pub const PUT: u16 = 4;
    pub const GET: u16 = 5;
    pub const FLUSH_PAGE: u16 = 6;
    pub const FLUSH_RANGE: u16 = 7;
    pub const FLUSH_OBJECT: u16 = 8;
    pub const FLUSH_POOL: u16 = 9;
    pub const WANTED: u16 = 10;
}

/// Feature.
pub const TAKE_BACK: u32 = 1;
/// POOL_CREATE flag.
pub const PERSISTENT: u16 = 1;
/// POOL_CREATE flag.
pub const SHARED: u16 = 2;
/// GET flag.
pub const EXCLUSIVE: u16 = 1;

/// A request. All 48 bytes may be changed before it is sent; its page is sent if its opcode is
/// PUT.
#[derive(Debug, Clone)]
pub struct Req {
    /// The request's bytes.
    pub bytes: [u8; 48],
    /// The page of a PUT.
    pub page: Option<Box<Page>>,
}

impl Req {
    /// A request of an opcode, flags and a pool, all else zero.
    pub fn new(opcode: u16, flags: u16, pool: u32) -> Self {
        let mut bytes = [0; 48];
        bytes[0..2].copy_from_slice(&opcode.to_le_bytes());
        bytes[2..4].copy_from_slice(&flags.to_le_bytes());
        bytes[4..8].copy_from_slice(&pool.to_le_bytes());
        Self { bytes, page: None }
    }

    /// The same request with other bytes at an offset.
    pub fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// HELLO of version 1 from an instance whose id repeats a byte.
    pub fn hello(instance: u8) -> Self {
        Self::new(opcode::HELLO, 0, 0).with(8, &[instance; 16]).with(24, &1u32.to_le_bytes())
    }

    /// The same HELLO with features acknowledged.
    pub fn with_features(self, features: u32) -> Self {
        self.with(28, &features.to_le_bytes())
    }

    /// POOL_CREATE.
    pub fn create(pool: u32, flags: u16, uuid: [u8; 16]) -> Self {
        Self::new(opcode::POOL_CREATE, flags, pool).with(8, &uuid)
    }

    /// POOL_DESTROY.
    pub fn destroy(pool: u32) -> Self {
        Self::new(opcode::POOL_DESTROY, 0, pool)
    }

    /// PUT. Objects are numbered; the number is spread over the 24 bytes.
    pub fn put(pool: u32, object: u8, index: u64, page: &Page) -> Self {
        let mut request = Self::keyed(opcode::PUT, 0, pool, object, index, 0);
        request.page = Some(Box::new(*page));
        request
    }

    /// GET.
    pub fn get(pool: u32, object: u8, index: u64, flags: u16) -> Self {
        Self::keyed(opcode::GET, flags, pool, object, index, 0)
    }

    /// FLUSH_PAGE.
    pub fn flush_page(pool: u32, object: u8, index: u64) -> Self {
        Self::keyed(opcode::FLUSH_PAGE, 0, pool, object, index, 0)
    }

    /// FLUSH_RANGE.
    pub fn flush_range(pool: u32, object: u8, index: u64, count: u64) -> Self {
        Self::keyed(opcode::FLUSH_RANGE, 0, pool, object, index, count)
    }

    /// FLUSH_OBJECT.
    pub fn flush_object(pool: u32, object: u8) -> Self {
        Self::keyed(opcode::FLUSH_OBJECT, 0, pool, object, 0, 0)
    }

    /// FLUSH_POOL.
    pub fn flush_pool(pool: u32) -> Self {
        Self::new(opcode::FLUSH_POOL, 0, pool)
    }

    fn keyed(opcode: u16, flags: u16, pool: u32, object: u8, index: u64, count: u64) -> Self {
        Self::new(opcode, flags, pool)
            .with(8, &object_id(object))
            .with(32, &index.to_le_bytes())
            .with(40, &count.to_le_bytes())
    }

    /// The opcode as it is in the bytes.
    pub fn opcode(&self) -> u16 {
        u16::from_le_bytes([self.bytes[0], self.bytes[1]])
    }
}

/// The id of a numbered object; two of them differ in the first and the last byte.
pub fn object_id(object: u8) -> [u8; 24] {
    let mut id = [0xa5; 24];
    id[0] = object;
    id[23] = !object;
    id
}

/// Answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Flags.
    pub flags: u16,
    /// The reserved word, which has to be zero.
    pub reserved: u32,
    /// Value.
    pub value: u64,
    /// The page of a GET that hit.
    pub page: Option<Page>,
}

/// The readable stream of a batch.
pub fn encode(requests: &[Req]) -> Vec<u8> {
    let mut stream = header(requests.len() as u16);
    for request in requests {
        stream.extend(request.bytes);
    }
    for request in requests.iter().filter(|request| request.opcode() == opcode::PUT) {
        stream.extend(request.page.as_deref().unwrap_or(&[0; PAGE]));
    }
    stream
}

/// A batch header.
pub fn header(count: u16) -> Vec<u8> {
    let mut header = count.to_le_bytes().to_vec();
    header.resize(8, 0);
    header
}

/// Bytes the writable stream of a batch needs.
pub fn writable_size(requests: &[Req]) -> usize {
    let gets = requests.iter().filter(|request| request.opcode() == opcode::GET).count();
    16 * requests.len() + PAGE * gets
}

/// The answers to a batch.
pub fn decode(requests: &[Req], done: &Done) -> Vec<Answer> {
    let written = done.written as usize;
    assert!(
        written >= 16 * requests.len(),
        "{written} bytes were written in answer to {} requests; the first 16 are {:02x?}",
        requests.len(),
        done.bytes.get(..16)
    );
    let mut page_at = 16 * requests.len();
    let mut answers = Vec::new();
    for (request, result) in requests.iter().zip(done.bytes.chunks(16)) {
        let mut answer = result_of(result);
        if request.opcode() == opcode::GET {
            if answer.status == status::OK {
                assert!(page_at + PAGE <= written, "a GET hit, but its page is beyond the used length {written}");
                answer.page = Some(done.bytes[page_at..page_at + PAGE].try_into().expect("a page"));
            }
            page_at += PAGE;
        }
        answers.push(answer);
    }
    answers
}

/// One result.
pub fn result_of(bytes: &[u8]) -> Answer {
    Answer {
        status: u16::from_le_bytes(bytes[0..2].try_into().expect("two bytes")),
        flags: u16::from_le_bytes(bytes[2..4].try_into().expect("two bytes")),
        reserved: u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")),
        value: u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")),
        page: None,
    }
}
