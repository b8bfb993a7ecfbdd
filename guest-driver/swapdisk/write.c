// SPDX-License-Identifier: GPL-2.0
/*
 * Writes of a swap disk: to the device, and what it does not take to the backing
 * device. Without one the kernel is told to keep the page.
 */
#include "swapdisk.h"

/* Return: the way to the device, if it may be offered a page; else NULL. */
static struct zcache_transport *
zcs_store_transport(struct zcs_disk *disk, enum zcache_page_state old)
{
	struct zcache_pool *pool = disk->pool;
	struct zcache_transport *t;

	t = zcache_transport_of(pool, ZC_STORE_UNATTACHED, ZC_STORE_INACTIVE);
	if (!t)
		return NULL;
	if (!zcache_stores_wanted() || READ_ONCE(disk->draining)) {
		zcache_count(pool, ZC_STORE_DRAINING);
		return NULL;
	}
	/* It would have to be taken back as well, if the disk will have it. */
	if (disk->backing.bdev && old != ZC_PAGE_BAD &&
	    zcache_pages_wanted()) {
		zcache_count(pool, ZC_STORE_WANTED);
		return NULL;
	}
	if (!zcs_room_maybe(disk)) {
		zcache_count(pool, ZC_STORE_FULL);
		return NULL;
	}
	return t;
}

static void zcs_judge_store(struct zcs_disk *disk, int err)
{
	switch (err) {
	case 0:
		zcache_count(disk->pool, ZC_STORES);
		if (disk->backing.bdev)
			zcache_take_back_arm();
		break;
	case -ENOSPC:
		zcache_count(disk->pool, ZC_STORE_REFUSED);
		zcs_room_refused(disk);
		break;
	default:
		zcache_count(disk->pool, ZC_STORE_FAILED);
		break;
	}
}

/*
 * Offers pages to the device. Within zcache_srcu; the slots are ours.
 *
 * Sets @chunk->err: 0: accepted; -ENOSPC: the device has nothing in the slot;
 * -EIO: it may have this page; -ENODEV: it was not asked.
 */
static void zcs_store(struct zcs_disk *disk, struct zcs_chunk *chunk)
{
	struct zcache_transport *t = NULL, *now;
	unsigned int i;

	for (i = 0; i < chunk->count; i++) {
		chunk->err[i] = -ENODEV;
		now = zcs_store_transport(disk, chunk->old[i]);
		if (now) {
			t = now;
			zcs_chunk_add_io(chunk, i);
		}
	}
	if (!t)
		return;
	t->ops->swap_many(t, disk->pool, ZCACHE_OP_PUT, chunk->io,
			  chunk->nr_io);
	for (i = 0; i < chunk->nr_io; i++) {
		chunk->err[chunk->number[i]] = chunk->io[i].err;
		zcs_judge_store(disk, chunk->io[i].err);
	}
}

/*
 * State of a slot that was offered to the device with result @err. With an
 * older page on the device, and this one not, it is stale: it is read from the
 * backing device, and the collector flushes it.
 */
static enum zcache_page_state zcs_stored(enum zcache_page_state old, int err)
{
	switch (err) {
	case 0:
		return ZC_PAGE_LIVE;
	case -ENOSPC:
		return ZC_PAGE_NONE;
	case -ENODEV:
		if (old == ZC_PAGE_LIVE || old == ZC_PAGE_STALE ||
		    old == ZC_PAGE_BAD || old == ZC_PAGE_RESCUED)
			return ZC_PAGE_STALE;
		return ZC_PAGE_NONE;
	default:
		return ZC_PAGE_STALE;
	}
}

/* Settles a slot whose page goes to no backing device. */
static void zcs_settle_unbacked(struct zcs_disk *disk, unsigned long slot,
				enum zcache_page_state end)
{
	zcs_settle(disk, slot, end == ZC_PAGE_NONE ? ZC_PAGE_KEPT : end);
	if (end == ZC_PAGE_STALE)
		zcache_heal_schedule();
}

/* Makes all slots of the chunk ours, or none. */
static bool zcs_claim_all(struct zcs_disk *disk, struct zcs_chunk *chunk)
{
	enum zcache_page_state old;
	unsigned int i;

	for (i = 0; i < chunk->count; i++) {
		if (!zcs_claim(disk, chunk->slot + i, &old))
			goto undo;
		chunk->old[i] = old;
	}
	for (i = 0; i < chunk->count; i++)
		if (chunk->old[i] == ZC_PAGE_RESCUED)
			zcache_swapmap_drop_rescued(disk->pool->map,
						    chunk->slot + i);
	return true;
undo:
	while (i--)
		zcs_settle(disk, chunk->slot + i, chunk->old[i]);
	return false;
}

/* Pages that go to the backing device, by the state of their slots then. */
struct zcs_masks {
	unsigned long live;
	unsigned long stale;
	unsigned long none;
};

/* Settles what needs no backing device. Return: false if a page was not taken. */
static bool zcs_settle_chunk(struct zcs_disk *disk, struct zcs_chunk *chunk,
			     struct zcs_masks *to_backing)
{
	const bool backed = disk->backing.bdev;
	enum zcache_page_state end;
	bool taken = true;
	unsigned int i;

	for (i = 0; i < chunk->count; i++) {
		end = zcs_stored(chunk->old[i], chunk->err[i]);
		if (!backed || (!chunk->err[i] && !disk->writethrough)) {
			taken = taken && !chunk->err[i];
			zcs_settle_unbacked(disk, chunk->slot + i, end);
		} else if (end == ZC_PAGE_LIVE) {
			to_backing->live |= BIT(i);
		} else if (end == ZC_PAGE_STALE) {
			to_backing->stale |= BIT(i);
		} else {
			to_backing->none |= BIT(i);
		}
	}
	return taken;
}

/**
 * zcs_write - writes the next chunk of a bio
 * @disk:	the disk
 * @bio:	the bio
 *
 * Context: Process context; sleeps, does not wait for memory.
 * Return: What has become of it.
 */
enum zcs_outcome zcs_write(struct zcs_disk *disk, struct bio *bio)
{
	struct zcs_chunk *chunk = zcs_chunk_of(disk, bio);
	const unsigned long slot = chunk->slot;
	struct zcs_masks to_backing = {};
	unsigned long seq;
	bool taken;
	int srcu;

	if (!zcs_claim_all(disk, chunk)) {
		mempool_free(chunk, &disk->chunks);
		return ZCS_SETTLING;
	}

	srcu = srcu_read_lock(&zcache_srcu);
	seq = zcs_device_seq(disk);
	zcs_store(disk, chunk);
	/* In the section: a drain that waited for it sees the pages. */
	taken = zcs_settle_chunk(disk, chunk, &to_backing);
	srcu_read_unlock(&zcache_srcu, srcu);
	mempool_free(chunk, &disk->chunks);

	if (!taken) {
		bio->bi_status = BLK_STS_IOERR;
		if (bio->bi_opf & REQ_SWAP)
			zcs_room_hide(disk);
	}
	zcs_backing_submit(disk, bio, slot, to_backing.live, ZC_PAGE_LIVE, seq);
	zcs_backing_submit(disk, bio, slot, to_backing.stale, ZC_PAGE_STALE,
			   seq);
	zcs_backing_submit(disk, bio, slot, to_backing.none, ZC_PAGE_NONE, seq);
	return ZCS_DONE;
}
