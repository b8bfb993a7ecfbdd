// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A compressed store of guest pages with the rules of transcendent memory.
//!
//! A [`Store`] serves many [`Guest`]s. A guest is a capability: every operation is a method of
//! it, keys mean something within it only, and dropping it removes all it had. Pages live in
//! pools. An *ephemeral* pool may lose any page at any time; a *persistent* pool keeps what it
//! accepted. In both, a get returns what the last put of that key stored, or an error, never
//! anything older:
//!
//! ```
//! use zcache_store::*;
//!
//! let store = Store::new(StoreConfig::new(64 << 20))?;
//! let guest = store.register_guest(GuestConfig::new("vm1"));
//! guest.create_pool(PoolId(0), PoolKind::Persistent)?;
//!
//! let mut scratch = Scratch::new(); // one a thread
//! let key = Key { pool: PoolId(0), object: ObjectId([7; 24]), index: 42 };
//! guest.put(&mut scratch, &key, &[1; PAGE_SIZE])?;
//!
//! let mut page = [0; PAGE_SIZE];
//! guest.get(&mut scratch, &key, GetMode::Plain, &mut page)?;
//! assert_eq!(page, [1; PAGE_SIZE]);
//! assert_eq!(guest.flush_page(&key)?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All methods may be called from any number of threads at once, for the same key too: they
//! take effect one after the other.

mod accounting;
mod arena;
mod background;
mod codec;
mod engine;
mod fault;
mod guest;
mod key;
mod op;
mod pool;
mod shard;
mod stats;
mod store;

pub use accounting::Reservation;
pub use arena::header::LAYOUT;
pub use background::cold::ColdConfig;
pub use codec::{Codec, Scratch, StoredPage};
pub use engine::export::{Export, ExportError};
pub use engine::give_back::GivenBack;
pub use engine::import::ImportError;
pub use engine::recover::{Care, Recovery, Unwatched, Watch};
pub use engine::take_back::Wanted;
pub use engine::victim::{NoWeight, Weight};
pub use fault::Faults;
pub use guest::{Guest, GuestConfig};
pub use key::{Key, ObjectId, PAGE_SIZE, Page, PoolId};
pub use op::{GetError, GetMode, PutError, Refusal};
pub use pool::{Creation, MAX_POOLS_PER_GUEST, NoPool, PoolError, PoolKind};
pub use shard::evict::Policy as EvictionPolicy;
pub use stats::{BackgroundStats, Contents, Counters, EndedPools, GuestStats, PoolStats, Refusals, StoreStats};
pub use store::{Background, Rebuilt, Reopened, Store, StoreConfig, StoreError};
