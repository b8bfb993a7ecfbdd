// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VMM sends, through the keeper's channel and dispatcher into its mirror: cut anywhere,
//! with any files. Nothing of it may panic or grow, each answer is one message, and what was set up
//! can be told to another worker.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use vhost::vhost_user::message::{FrontendReq, MAX_MSG_SIZE};
use vhost_zcache::frontend::budget::{MAX_MESSAGE_FILES, MemoryBudget};
use vhost_zcache::frontend::message::{Channel, End, Message};
use vhost_zcache::keeper::dispatch::{Answer, Dispatcher, Facts, Step, is_question};
use vhost_zcache::keeper::log::Log;
use vhost_zcache::keeper::mirror::Mirror;
use vhost_zcache::keeper::state;
use vhost_zcache::link::message::{Change, ToWorker};

const QUEUES: u16 = 4;
const BUDGET: MemoryBudget = MemoryBudget { regions: 8, bytes: 1 << 40 };
const HEADER: usize = 12;
const REPLY_FLAGS: u32 = 1 | 4;

/// One message, or what pretends to be one.
#[derive(Arbitrary, Debug)]
struct Packet<'a> {
    request: u8,
    /// Mostly the one version there is.
    flags: u8,
    body: Body<'a>,
    /// Kinds of the files that come along.
    files: u8,
    /// Whether the size of the body is another one than the header says.
    size: Option<u32>,
    /// After so many bytes the receiver looks.
    pause: u8,
}

#[derive(Arbitrary, Debug)]
enum Body<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    Ring { index: u8, value: u32 },
    Addresses { index: u8, offsets: [u16; 3] },
    Event { index: u8, none: bool },
    Table(u8, Vec<Region>),
    OneRegion(Region),
    Config { offset: u16, size: u16, room: u16 },
}

#[derive(Arbitrary, Debug, Clone, Copy)]
struct Region {
    start: u8,
    pages: u8,
    huge: bool,
    offset: u16,
}

impl Region {
    fn words(self) -> [u64; 4] {
        let start = u64::from(self.start) << 16;
        let size = if self.huge { u64::from(self.pages) << 56 } else { u64::from(self.pages) << 12 };
        [start, size, VMM + start, self.offset.into()]
    }
}

/// Where the VMM has mapped address 0 of its guest.
const VMM: u64 = 0x7000_0000_0000;

impl Body<'_> {
    fn bytes(&self) -> Vec<u8> {
        let words = |head: [u32; 2], words: &[u64]| {
            let head = head.into_iter().flat_map(u32::to_ne_bytes);
            head.chain(words.iter().flat_map(|word| word.to_ne_bytes())).collect()
        };
        match self {
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Number(number) => number.to_ne_bytes().into(),
            Self::Ring { index, value } => words([(*index).into(), *value], &[]),
            Self::Addresses { index, offsets } => {
                let [descriptors, used, available] = offsets.map(|offset| VMM + u64::from(offset) * 16);
                words([(*index).into(), 0], &[descriptors, used, available, 0])
            }
            Self::Event { index, none } => words([u32::from(*index) | u32::from(*none) << 8, 0], &[]),
            Self::Table(more, regions) => {
                let count = u32::try_from(regions.len()).unwrap_or(0) + u32::from(*more % 4);
                let regions: Vec<u64> = regions.iter().flat_map(|region| region.words()).collect();
                words([count.saturating_sub(1), 0], &regions)
            }
            Self::OneRegion(region) => words([0, 0], &region.words()),
            Self::Config { offset, size, room } => {
                let mut bytes: Vec<u8> = words([u32::from(*offset), u32::from(*size)], &[]);
                bytes.extend([0; 4]);
                bytes.resize(12 + usize::from(*room % 600), 0);
                bytes
            }
        }
    }
}

/// One file of each kind that is of interest.
fn files() -> &'static [OwnedFd; 4] {
    static FILES: OnceLock<[OwnedFd; 4]> = OnceLock::new();
    FILES.get_or_init(|| {
        let memory = memfd_create("guest", MemfdFlags::CLOEXEC).expect("a file is made");
        let event = eventfd(0, EventfdFlags::NONBLOCK).expect("an event is made");
        let (socket, _) = UnixStream::pair().expect("a socket is made");
        let directory = File::open("/").expect("it can be opened");
        [memory, event, socket.into(), directory.into()]
    })
}

/// Sends what the bytes say, and does with it what the keeper does.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let (ours, vmm) = UnixStream::pair().expect("a socket is made");
    let mut keeper = Keeper {
        channel: Channel::new(ours),
        dispatcher: Dispatcher::new(Facts { num_queues: QUEUES, memory_budget: BUDGET }),
        mirror: Mirror::new(QUEUES),
        log: Log::new("fuzz".into()),
        refuses: bytes.arbitrary::<u8>().unwrap_or_default(),
        messages: 0,
    };
    while !bytes.is_empty() {
        let Ok(packet) = bytes.arbitrary::<Packet<'_>>() else { break };
        if keeper.heed(&packet, &vmm).is_err() {
            break;
        }
    }
    keeper.check_mirror();
    // Whatever was said half is the end now, and the rest goes.
    drop(vmm);
    while let Ok(Some(_)) = keeper.channel.receive() {}
}

struct Keeper {
    channel: Channel,
    dispatcher: Dispatcher,
    mirror: Mirror,
    log: Log,
    /// A worker refuses the changes for whose number a bit is set.
    refuses: u8,
    messages: u32,
}

impl Keeper {
    fn heed(&mut self, packet: &Packet<'_>, vmm: &UnixStream) -> Result<(), End> {
        let body = packet.body.bytes();
        let size = packet.size.unwrap_or(u32::try_from(body.len()).unwrap_or(u32::MAX));
        let flags = if packet.flags < 0x80 { 1 | u32::from(packet.flags & 8) } else { packet.flags.into() };
        let mut whole: Vec<u8> =
            [u32::from(packet.request), flags, size].iter().flat_map(|w| w.to_ne_bytes()).collect();
        whole.extend(&body[..body.len().min(2 * MAX_MSG_SIZE)]);
        let (first, second) = whole.split_at(usize::from(packet.pause).min(whole.len() - 1).max(1));
        send(vmm, first, packet.files);
        self.answer_all(vmm)?;
        if !second.is_empty() {
            send(vmm, second, 0);
        }
        self.answer_all(vmm)
    }

    fn answer_all(&mut self, vmm: &UnixStream) -> Result<(), End> {
        while let Some(message) = self.channel.receive()? {
            assert!(message.body.len() <= MAX_MSG_SIZE && message.files.len() <= MAX_MESSAGE_FILES);
            let (request, need_reply) = (message.request, message.need_reply);
            let reply = self.answer(message);
            if let Some(body) = &reply {
                self.channel.reply(request, body)?;
                assert!(self.channel.flush()?, "the VMM reads everything");
            }
            check_answer(vmm, request, need_reply, reply.as_deref());
        }
        Ok(())
    }

    fn answer(&mut self, message: Message) -> Option<Vec<u8>> {
        self.messages += 1;
        let (request, files) = (message.request, message.files.len());
        match self.dispatcher.step(message, &self.mirror, &self.log) {
            Step::Answer(reply, _) => reply,
            Step::Change(change, carried, answer) => {
                assert!(!is_question(request), "a question takes the worker");
                assert!(carried.len() <= files, "files came out of nowhere");
                let said = ToWorker::Change { guest: 0, change: change.clone(), ticket: Some(1) };
                let text = serde_json::to_vec(&said).expect("it can be said");
                assert_eq!(serde_json::from_slice::<ToWorker>(&text).expect("it can be read"), said);
                let alone = self.mirror.without_worker(&change);
                let refused = alone.is_err() || self.refuses & 1 << (self.messages % 8) != 0;
                let base = alone.unwrap_or(0);
                if !refused {
                    self.mirror.commit((change, carried), base);
                }
                match answer {
                    Answer::None => None,
                    Answer::Acknowledgement => Some(u64::from(refused).to_ne_bytes().into()),
                    Answer::Base(ring) => {
                        assert!(ring < QUEUES.into(), "ring {ring} does not exist");
                        Some([ring, base.into()].iter().flat_map(|word| word.to_ne_bytes()).collect())
                    }
                    Answer::Transfer => Some(state::started(!refused)),
                    Answer::Verdict => Some(state::verdict(!refused)),
                    Answer::Log(area) => Some(state::log_taken((!refused).then_some(area))),
                }
            }
        }
    }

    /// Another worker that is told everything has the same, and it is no more than there may be.
    fn check_mirror(&self) {
        let changes = self.mirror.changes();
        let regions = changes.iter().filter_map(|(change, files)| match change {
            Change::AddRegion(region) => {
                assert_eq!(files.len(), 1, "a region without its file");
                Some(region.size)
            }
            _ => None,
        });
        let (count, total) = regions.fold((0, 0u64), |(count, total), size| (count + 1, total.saturating_add(size)));
        assert!(count <= BUDGET.regions && total <= BUDGET.bytes, "{count} regions of {total:#x} bytes");
        let told: Vec<Change> = changes.iter().map(|(change, _)| change.clone()).collect();
        let mut next = Mirror::new(QUEUES);
        changes.into_iter().for_each(|carried| next.commit(carried, 0));
        let told_next: Vec<Change> = next.changes().into_iter().map(|(change, _)| change).collect();
        assert_eq!(told_next, told, "the next worker is told something else");
    }
}

/// Sends bytes, with as many files as `kinds` has bits, of kinds that depend on it.
fn send(vmm: &UnixStream, bytes: &[u8], kinds: u8) {
    let count = usize::from(kinds % 16).min(MAX_MESSAGE_FILES);
    let chosen: Vec<BorrowedFd<'_>> = (0..count).map(|n| files()[(n + usize::from(kinds / 16)) % 4].as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !chosen.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&chosen)), "there is room for the files");
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    // Everything that was sent before was read, so that there is room.
    let sent = sendmsg(vmm, &[IoSlice::new(bytes)], &mut control, flags).expect("there is room");
    assert_eq!(sent, bytes.len());
}

/// What the VMM finds on its socket is the answer and nothing else.
fn check_answer(vmm: &UnixStream, request: u32, need_reply: bool, expected: Option<&[u8]>) {
    let mut bytes = [0; HEADER + MAX_MSG_SIZE + 1];
    let read = recv(vmm, &mut bytes[..], RecvFlags::DONTWAIT).map_or(0, |(read, _)| read);
    let Some(expected) = expected else {
        assert_eq!(read, 0, "an answer that nobody expects");
        return;
    };
    let known = FrontendReq::try_from(request).is_ok();
    let changes = [
        FrontendReq::GET_VRING_BASE,
        FrontendReq::SET_DEVICE_STATE_FD,
        FrontendReq::CHECK_DEVICE_STATE,
        FrontendReq::SET_LOG_BASE,
    ];
    let asks = known && (is_question(request) || changes.iter().any(|change| *change as u32 == request));
    assert!(asks || need_reply, "request {request} is answered, which asks for nothing");
    assert!(expected.len() <= MAX_MSG_SIZE, "an answer that no message holds");
    let header = [request, REPLY_FLAGS, u32::try_from(expected.len()).expect("it is small")];
    let header: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
    assert_eq!((&bytes[..HEADER], &bytes[HEADER..read]), (&header[..], expected));
}
