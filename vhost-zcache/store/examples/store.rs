// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest of the store: `cargo run -p zcache-store --example store`.

use zcache_store::{GetMode, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Scratch, Store, StoreConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::new(StoreConfig::new(64 << 20))?;
    let guest = store.register_guest(GuestConfig::new("example"));
    guest.create_pool(PoolId(0), PoolKind::Persistent)?;

    // One for each thread: buffers of the codecs.
    let mut scratch = Scratch::new();
    for index in 0..1000 {
        let key = Key { pool: PoolId(0), object: ObjectId([7; 24]), index };
        let mut page = [0; PAGE_SIZE];
        page[..4].copy_from_slice(b"page");
        page[4..12].copy_from_slice(&index.to_le_bytes());
        guest.put(&mut scratch, &key, &page)?;
    }

    let mut page = [0; PAGE_SIZE];
    let key = Key { pool: PoolId(0), object: ObjectId([7; 24]), index: 42 };
    guest.get(&mut scratch, &key, GetMode::Plain, &mut page)?;
    println!("page 42 begins with {:?} and has number {}", std::str::from_utf8(&page[..4])?, page[4]);

    let stats = store.stats();
    println!("{} pages take {} bytes", stats.contents.pages, stats.physical_bytes);
    println!("{} pages were flushed", guest.flush_pool(PoolId(0))?);
    Ok(())
}
