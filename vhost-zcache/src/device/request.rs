// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From the wire to a typed request. Every check of a request's format is here.

use zcache_protocol as wire;
use zcache_protocol::{Opcode, Status};
use zcache_store::{GetMode, Key, ObjectId, PoolId, PoolKind};
use zerocopy::FromBytes;

/// What a well-formed request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Opens a session.
    Hello {
        /// Tells one load of the driver from another.
        instance: [u8; wire::ID_SIZE],
        /// Features that the driver acknowledges, all of them [`OFFERED`].
        features: u32,
    },
    /// Anything else, which needs a session.
    Operation(Operation),
}

/// What is done within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Creates a pool, or joins a shared one.
    PoolCreate(PoolId, PoolKind),
    /// Destroys a pool, or leaves a shared one.
    PoolDestroy(PoolId),
    /// Stores the page that follows the requests.
    Put(Key),
    /// Reads a page.
    Get(Key, GetMode),
    /// Removes one page.
    FlushPage(Key),
    /// Removes this many pages of the object from the key's index on. Not zero, and index plus
    /// count is 2^64 at most.
    FlushRange(Key, u64),
    /// Removes an object's pages.
    FlushObject(PoolId, ObjectId),
    /// Removes a pool's pages.
    FlushPool(PoolId),
    /// Asks what the guest is to take back.
    Wanted,
}

/// Features that the device offers.
pub const OFFERED: u32 = wire::F_TAKE_BACK;

/// Decodes a request and checks its format: opcode, flags, unused fields, ranges.
///
/// # Errors
///
/// [`Status::Unsupported`] or [`Status::Invalid`], as ZC-DEV-13 to 16, 20 and 36 say.
pub fn decode(request: &wire::Request) -> Result<Request, Status> {
    let opcode = Opcode::from_wire(request.header.opcode.get()).ok_or(Status::Unsupported)?;
    let flags = request.header.flags.get();
    let pool = PoolId(request.header.pool.get());

    match opcode {
        Opcode::Hello => {
            let body = body::<wire::HelloBody>(request)?;
            valid(flags == 0 && pool.0 == 0 && body.reserved == [0; 16])?;
            let (instance, features) = (body.instance, body.features.get());
            if body.version.get() != wire::VERSION || features & !OFFERED != 0 {
                return Err(Status::Unsupported);
            }
            Ok(Request::Hello { instance, features })
        }
        Opcode::PoolCreate => {
            let body = body::<wire::PoolBody>(request)?;
            valid(body.reserved == [0; 24])?;
            Ok(Request::Operation(Operation::PoolCreate(pool, pool_kind(flags, body.uuid)?)))
        }
        Opcode::PoolDestroy => {
            valid(flags == 0 && request.body == [0; 40])?;
            Ok(Request::Operation(Operation::PoolDestroy(pool)))
        }
        Opcode::Put => {
            valid(flags == 0)?;
            Ok(Request::Operation(Operation::Put(one_page(request, pool)?)))
        }
        Opcode::Get => {
            let mode = match flags {
                0 => GetMode::Plain,
                wire::GET_EXCLUSIVE => GetMode::Exclusive,
                _ => return Err(Status::Invalid),
            };
            Ok(Request::Operation(Operation::Get(one_page(request, pool)?, mode)))
        }
        Opcode::FlushPage => {
            valid(flags == 0)?;
            Ok(Request::Operation(Operation::FlushPage(one_page(request, pool)?)))
        }
        Opcode::FlushRange => {
            let body = body::<wire::KeyBody>(request)?;
            let (index, count) = (body.index.get(), body.count.get());
            // index + count may be 2^64, so it is the last index that has to exist.
            let last = count.checked_sub(1).and_then(|more| index.checked_add(more));
            valid(flags == 0 && last.is_some())?;
            Ok(Request::Operation(Operation::FlushRange(key(body, pool), count)))
        }
        Opcode::FlushObject => {
            let body = body::<wire::KeyBody>(request)?;
            valid(flags == 0 && body.index.get() == 0 && body.count.get() == 0)?;
            Ok(Request::Operation(Operation::FlushObject(pool, ObjectId(body.object))))
        }
        Opcode::FlushPool => {
            valid(flags == 0 && request.body == [0; 40])?;
            Ok(Request::Operation(Operation::FlushPool(pool)))
        }
        Opcode::Wanted => {
            valid(flags == 0 && pool.0 == 0 && request.body == [0; 40])?;
            Ok(Request::Operation(Operation::Wanted))
        }
    }
}

fn valid(condition: bool) -> Result<(), Status> {
    condition.then_some(()).ok_or(Status::Invalid)
}

/// The body as the opcode's type. Cannot fail: bodies are all 40 bytes without alignment.
fn body<T>(request: &wire::Request) -> Result<T, Status>
where
    T: FromBytes,
{
    T::read_from_bytes(&request.body).map_err(|_| Status::Invalid)
}

fn pool_kind(flags: u16, uuid: [u8; wire::ID_SIZE]) -> Result<PoolKind, Status> {
    match (flags, uuid == [0; wire::ID_SIZE]) {
        (0, true) => Ok(PoolKind::Ephemeral),
        (wire::POOL_PERSISTENT, true) => Ok(PoolKind::Persistent),
        (wire::POOL_SHARED, false) => Ok(PoolKind::SharedEphemeral(uuid)),
        _ => Err(Status::Invalid),
    }
}

fn key(body: wire::KeyBody, pool: PoolId) -> Key {
    Key { pool, object: ObjectId(body.object), index: body.index.get() }
}

fn one_page(request: &wire::Request, pool: PoolId) -> Result<Key, Status> {
    let body = body::<wire::KeyBody>(request)?;
    valid(body.count.get() == 0)?;
    Ok(key(body, pool))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    const POOL: u32 = 0x0102_0304;

    fn request(opcode: u16, flags: u16, pool: u32, body: &[u8]) -> wire::Request {
        let mut whole = [0; 40];
        whole[..body.len()].copy_from_slice(body);
        wire::Request {
            header: wire::RequestHeader { opcode: opcode.into(), flags: flags.into(), pool: pool.into() },
            body: whole,
        }
    }

    fn keyed(opcode: Opcode, flags: u16, index: u64, count: u64) -> wire::Request {
        let body = wire::KeyBody { object: [7; 24], index: index.into(), count: count.into() };
        request(opcode as u16, flags, POOL, body.as_bytes())
    }

    fn hello(version: u32, features: u32) -> wire::Request {
        let body = wire::HelloBody {
            instance: [9; 16],
            version: version.into(),
            features: features.into(),
            reserved: [0; 16],
        };
        request(Opcode::Hello as u16, 0, 0, body.as_bytes())
    }

    fn create(flags: u16, uuid: [u8; 16]) -> wire::Request {
        request(Opcode::PoolCreate as u16, flags, POOL, &uuid)
    }

    fn key(index: u64) -> Key {
        Key { pool: PoolId(POOL), object: ObjectId([7; 24]), index }
    }

    /// Every well-formed request, with what it means.
    fn well_formed() -> Vec<(wire::Request, Request)> {
        let pool = PoolId(POOL);
        let object = ObjectId([7; 24]);
        let pool_only = |opcode: Opcode| request(opcode as u16, 0, POOL, &[]);
        let operations = [
            (create(0, [0; 16]), Operation::PoolCreate(pool, PoolKind::Ephemeral)),
            (create(1, [0; 16]), Operation::PoolCreate(pool, PoolKind::Persistent)),
            (create(2, [5; 16]), Operation::PoolCreate(pool, PoolKind::SharedEphemeral([5; 16]))),
            (pool_only(Opcode::PoolDestroy), Operation::PoolDestroy(pool)),
            (keyed(Opcode::Put, 0, u64::MAX, 0), Operation::Put(key(u64::MAX))),
            (keyed(Opcode::Get, 0, 3, 0), Operation::Get(key(3), GetMode::Plain)),
            (keyed(Opcode::Get, 1, 3, 0), Operation::Get(key(3), GetMode::Exclusive)),
            (keyed(Opcode::FlushPage, 0, 3, 0), Operation::FlushPage(key(3))),
            (keyed(Opcode::FlushRange, 0, 3, 1), Operation::FlushRange(key(3), 1)),
            (keyed(Opcode::FlushRange, 0, 1, u64::MAX), Operation::FlushRange(key(1), u64::MAX)),
            (keyed(Opcode::FlushObject, 0, 0, 0), Operation::FlushObject(pool, object)),
            (pool_only(Opcode::FlushPool), Operation::FlushPool(pool)),
            (request(Opcode::Wanted as u16, 0, 0, &[]), Operation::Wanted),
        ];
        let hellos =
            [0, wire::F_TAKE_BACK].map(|features| (hello(1, features), Request::Hello { instance: [9; 16], features }));
        let mut all = Vec::from(hellos);
        all.extend(operations.map(|(wire, operation)| (wire, Request::Operation(operation))));
        all
    }

    #[test]
    fn well_formed_requests_are_understood() {
        for (wire, meaning) in well_formed() {
            assert_eq!(decode(&wire), Ok(meaning), "{wire:?}");
        }
    }

    #[test]
    fn unknown_opcodes_are_unsupported_whatever_else_is_wrong() {
        for opcode in [0, 11, 0x0100, u16::MAX] {
            assert_eq!(decode(&request(opcode, 0xffff, POOL, &[0xff; 40])), Err(Status::Unsupported), "{opcode}");
        }
    }

    #[test]
    fn undefined_flags_are_invalid() {
        for (wire, meaning) in well_formed() {
            let defined = match meaning {
                Request::Operation(Operation::PoolCreate(..)) => 2,
                Request::Operation(Operation::Get(..)) => 1,
                _ => 0,
            };
            for bit in defined..16 {
                let mut wire = wire;
                wire.header.flags |= 1 << bit;
                assert_eq!(decode(&wire), Err(Status::Invalid), "flag {bit} of {wire:?}");
            }
        }
    }

    /// Sets each byte of the body to another value. Where that gives another request that is
    /// well formed, the byte belongs to a field that the request uses.
    #[test]
    fn unused_fields_must_be_zero() {
        for (wire, _) in well_formed() {
            let used: std::ops::Range<usize> = match decode(&wire) {
                Ok(Request::Hello { .. }) => 0..24,
                Ok(Request::Operation(Operation::PoolCreate(..))) => 0..16,
                Ok(Request::Operation(Operation::PoolDestroy(_) | Operation::FlushPool(_) | Operation::Wanted)) => 0..0,
                Ok(Request::Operation(Operation::FlushObject(..))) => 0..24,
                Ok(Request::Operation(Operation::FlushRange(..))) => 0..40,
                _ => 0..32,
            };
            for byte in (0..40).filter(|byte| !used.contains(byte)) {
                let mut wire = wire;
                wire.body[byte] = 1;
                assert_eq!(decode(&wire), Err(Status::Invalid), "byte {byte} of the body of {wire:?}");
            }
        }
        for mut wire in [hello(1, 0), request(Opcode::Wanted as u16, 0, 0, &[])] {
            wire.header.pool = 1.into();
            assert_eq!(decode(&wire), Err(Status::Invalid), "a pool is named in {wire:?}");
        }
    }

    #[test]
    fn other_versions_and_features_are_unsupported() {
        for (version, features) in [(0, 0), (2, 0), (1, 2), (1, 3), (1, 0x8000_0000)] {
            assert_eq!(decode(&hello(version, features)), Err(Status::Unsupported), "{version} {features:#x}");
        }
        let mut wire = hello(2, 0);
        wire.body[39] = 1;
        assert_eq!(decode(&wire), Err(Status::Invalid), "the format is checked first");
    }

    #[test]
    fn contradictory_pools_are_invalid() {
        for (flags, uuid) in [(0, [5; 16]), (1, [5; 16]), (2, [0; 16]), (3, [0; 16]), (3, [5; 16])] {
            assert_eq!(decode(&create(flags, uuid)), Err(Status::Invalid), "flags {flags}, UUID {uuid:?}");
        }
    }

    #[test]
    fn ranges_end_within_the_index_space() {
        for (index, count) in [(0, 0), (7, 0), (2, u64::MAX), (u64::MAX, 2), (u64::MAX, u64::MAX)] {
            assert_eq!(
                decode(&keyed(Opcode::FlushRange, 0, index, count)),
                Err(Status::Invalid),
                "{count} pages from {index}"
            );
        }
        assert_eq!(
            decode(&keyed(Opcode::FlushRange, 0, u64::MAX, 1)),
            Ok(Request::Operation(Operation::FlushRange(key(u64::MAX), 1))),
            "the last page"
        );
    }
}
