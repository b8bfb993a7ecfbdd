// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Carries out requests: from a typed request through the store to a result.

use std::sync::Arc;

use zcache_protocol as wire;
use zcache_protocol::{HELLO_RESUMED, RequestResult, Status};
use zcache_store::{Creation, GetError, Guest, NoPool, Page, PoolError, PoolId, PoolKind, PutError, Scratch, Wanted};

use super::counters::QueueCounters;
use super::request::{self, Operation, Request};
use super::session::{Access, NoSession, Session};
use super::ticket::Ticket;
use crate::crash::{self, Place};
use crate::ledger::service::QueueLedger;

/// Executes the requests of one queue.
pub struct Executor {
    session: Arc<Session>,
    queue: &'static QueueLedger,
}

impl Executor {
    /// An executor of requests in `session`.
    #[must_use]
    pub fn new(session: Arc<Session>, queue: &'static QueueLedger) -> Self {
        Self { session, queue }
    }

    /// What is known of the queue.
    #[must_use]
    pub fn queue(&self) -> &'static QueueLedger {
        self.queue
    }

    /// Executes the request of that number of the chain in service. `page` holds the page of a PUT,
    /// and receives the page of a GET that is answered OK.
    pub fn execute(
        &self,
        number: usize,
        request: &wire::Request,
        page: &mut Page,
        scratch: &mut Scratch,
    ) -> RequestResult {
        let ticket = Ticket::new(self.queue, number);
        let done = request::decode(request).and_then(|request| self.carry_out(request, page, scratch, ticket));
        crash::point(Place::Executed);
        let status = done.err().unwrap_or(Status::Ok);
        self.queue.counters.count_request(request.header.opcode.get(), status);
        let done = done.unwrap_or_default();
        RequestResult {
            status: (status as u16).into(),
            flags: done.flags.into(),
            reserved: 0.into(),
            value: done.value.into(),
        }
    }

    fn carry_out(
        &self,
        request: Request,
        page: &mut Page,
        scratch: &mut Scratch,
        ticket: Ticket<'_>,
    ) -> Result<Done, Status> {
        match request {
            Request::Hello { instance, features } => {
                let welcome = self.session.hello(instance, features, ticket);
                Ok(Done { flags: if welcome.resumed { HELLO_RESUMED } else { 0 }, value: welcome.epoch })
            }
            Request::Operation(operation) => {
                let access = self.session.access().map_err(|NoSession| Status::NoSession)?;
                operate(&access, scratch, operation, page, ticket, &self.queue.counters)
            }
        }
    }
}

fn operate(
    access: &Access<'_>,
    scratch: &mut Scratch,
    operation: Operation,
    page: &mut Page,
    ticket: Ticket<'_>,
    counters: &QueueCounters,
) -> Result<Done, Status> {
    let guest = access.guest();
    match operation {
        Operation::PoolCreate(pool, kind) => create_pool(access, pool, kind),
        Operation::PoolDestroy(pool) => removed(access.destroy_pool(pool, ticket)),
        Operation::Put(key) => match guest.put(scratch, &key, page) {
            Ok(()) => Ok(Done::default()),
            Err(PutError::NoPool(NoPool)) => Err(Status::NoPool),
            Err(PutError::Refused(reason)) => {
                counters.count_refusal(reason);
                Err(Status::Refused)
            }
        },
        Operation::Get(key, mode) => match guest.get(scratch, &key, mode, page) {
            Ok(()) => Ok(Done::default()),
            Err(GetError::NoPool(NoPool)) => Err(Status::NoPool),
            Err(GetError::Miss) => Err(Status::Miss),
            Err(GetError::Corrupt) => Err(Status::Corrupt),
            Err(GetError::ExclusivePersistent) => Err(Status::Invalid),
        },
        Operation::FlushPage(key) => removed(guest.flush_page(&key)),
        Operation::FlushRange(key, count) => removed(guest.flush_range(key.pool, &key.object, key.index, count)),
        Operation::FlushObject(pool, object) => removed(guest.flush_object(pool, &object)),
        Operation::FlushPool(pool) => removed(guest.flush_pool(pool)),
        Operation::Wanted => wanted(access),
    }
}

/// Flags and value of an OK result.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    flags: u16,
    value: u64,
}

fn removed(pages: Result<u64, NoPool>) -> Result<Done, Status> {
    match pages {
        Ok(value) => Ok(Done { flags: 0, value }),
        Err(NoPool) => Err(Status::NoPool),
    }
}

fn wanted(access: &Access<'_>) -> Result<Done, Status> {
    if !access.has_acknowledged(wire::F_TAKE_BACK) {
        return Err(Status::Unsupported);
    }
    let Wanted { pages, again } = access.guest().wanted();
    let again = u32::try_from(again.as_millis()).unwrap_or(u32::MAX);
    Ok(Done { flags: 0, value: u64::from(again) << wire::WANTED_MS_SHIFT | u64::from(pages) })
}

fn create_pool(access: &Access<'_>, pool: PoolId, kind: PoolKind) -> Result<Done, Status> {
    let guest: &Guest = access.guest();
    if let PoolKind::SharedEphemeral(uuid) = kind
        && !access.may_share(&uuid)
    {
        // What the guest already has under this id is no secret to it, and comes first.
        return Err(if guest.has_pool(pool) { Status::Exists } else { Status::Denied });
    }
    match access.create_pool(pool, kind) {
        Ok(Creation::Created | Creation::AlreadySame) => Ok(Done::default()),
        Err(PoolError::Exists) => Err(Status::Exists),
        Err(PoolError::TooMany | PoolError::NoMemory) => Err(Status::Limit),
    }
}
