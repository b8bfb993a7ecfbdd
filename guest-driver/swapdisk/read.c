// SPDX-License-Identifier: GPL-2.0
/*
 * Reads of a swap disk, from wherever the pages are.
 *
 * A read owns no slot while it asks the device: the kernel does not read what it
 * writes at that time. Who reads the disk from outside (a look for a header, a
 * copy of it) is not so careful, so whatever a read concludes from an answer it
 * makes sure of. And nobody waits for such a reader's pages, so it is told of an
 * error where a task that needs the page waits.
 */
#include <linux/delay.h>
#include <linux/highmem.h>
#include "swapdisk.h"

/* Reads a page that is in guest memory. */
static int zcs_read_rescued(struct zcs_disk *disk, struct page *page,
			    unsigned long slot)
{
	struct zcache_swapmap *map = disk->pool->map;

	/* Ours, for a write would free the copy. */
	if (!zcache_swapmap_change(map, slot, ZC_PAGE_RESCUED, ZC_PAGE_BUSY))
		return -ESTALE;
	copy_highpage(page, zcache_swapmap_rescued(map, slot));
	zcs_settle(disk, slot, ZC_PAGE_RESCUED);
	zcache_count(disk->pool, ZC_LOAD_RESCUED);
	return 0;
}

/*
 * The kernel has the page again, so a copy is not needed. The folio is dirty
 * from now on, for it has to be written before it is dropped.
 */
static void zcs_drop_rescued(struct zcs_disk *disk, struct page *page,
			     unsigned long slot)
{
	struct zcache_swapmap *map = disk->pool->map;

	if (!zcache_swapmap_change(map, slot, ZC_PAGE_RESCUED, ZC_PAGE_BUSY))
		return;
	folio_mark_dirty(page_folio(page));
	zcache_swapmap_drop_rescued(map, slot);
	zcs_settle(disk, slot, ZC_PAGE_BAD);
}

/*
 * Reads a page that is not on the device.
 *
 * Return: 0; -EINPROGRESS: it is on the device; -ENOENT: on the backing device;
 * -ESTALE: it is moved just now; -ENODATA: no device has it any more; -EIO:
 * nobody has it, and nobody said so.
 */
static int zcs_read_here(struct zcs_disk *disk, struct page *page,
			 unsigned long slot)
{
	const bool backed = disk->backing.bdev;

	switch (zcache_swapmap_get(disk->pool->map, slot)) {
	case ZC_PAGE_LIVE:
		return -EINPROGRESS;
	case ZC_PAGE_NONE:
		if (backed)
			return -ENOENT;
		clear_highpage(page);
		return 0;
	case ZC_PAGE_STALE:
	case ZC_PAGE_FLUSHING:
		return backed ? -ENOENT : -EIO;
	case ZC_PAGE_RESCUED:
		return zcs_read_rescued(disk, page, slot);
	case ZC_PAGE_LOST:
		return disk->writethrough ? -ENOENT : -ENODATA;
	case ZC_PAGE_BUSY:
	case ZC_PAGE_FREED:
		return -ESTALE;
	default:
		return -EIO;
	}
}

/*
 * Widens, for a test, the moments in which a slot can be freed and stored again
 * while somebody looks at the disk.
 */
static void zcs_dawdle(struct page *page)
{
#ifdef ZCACHE_SABOTAGE_DAWDLE
	if (!zcs_swapin(page))
		msleep(20);
#endif
}

/*
 * The device does not have a page that is live. It may have been freed, stored
 * again, or brought back since it was asked; not any more when the slot is ours,
 * and then the answer counts.
 */
static int zcs_ask_again(struct zcs_disk *disk, struct zcache_transport *t,
			 struct zcache_io *io)
{
	const unsigned long slot = io->key.index;

	if (!zcache_swapmap_change(disk->pool->map, slot, ZC_PAGE_LIVE,
				   ZC_PAGE_BUSY))
		return -ESTALE;
	t->ops->swap_many(t, disk->pool, ZCACHE_OP_GET, io, 1);
	if (io->err && io->err != -EIO) {
		zcs_lose(disk, slot);
		zcs_settle(disk, slot, ZC_PAGE_LOST);
		return -ENODATA;
	}
	zcs_settle(disk, slot, ZC_PAGE_LIVE);
	return io->err;
}

/*
 * Judges the device's answer to a get.
 *
 * Return: as zcs_read_here(), or -EAGAIN: the device is away.
 */
static int zcs_loaded(struct zcs_disk *disk, struct zcache_transport *t,
		      struct zcache_io *io)
{
	int err = io->err;

	if (err && err != -EIO) {
		zcs_dawdle(io->page);
		err = zcs_ask_again(disk, t, io);
	}
	switch (err) {
	case 0:
		zcache_count(disk->pool, ZC_LOADS);
		return 0;
	case -EIO:
		return disk->writethrough ? -ENOENT : -EAGAIN;
	case -ENODATA:
		return disk->writethrough ? -ENOENT : -ENODATA;
	default:
		return err;
	}
}

/* Reads pages from where they are. Sets @chunk->err as above. */
static void zcs_read_chunk(struct zcs_disk *disk, struct zcs_chunk *chunk)
{
	struct zcache_transport *t = NULL, *now;
	unsigned int i;
	int srcu;

	srcu = srcu_read_lock(&zcache_srcu);
	for (i = 0; i < chunk->count; i++) {
		chunk->err[i] = zcs_read_here(disk, chunk->page[i],
					      chunk->slot + i);
		if (chunk->err[i] != -EINPROGRESS)
			continue;
		now = zcache_transport_of(disk->pool, ZC_LOAD_UNATTACHED,
					  ZC_LOAD_UNATTACHED);
		if (now) {
			t = now;
			zcs_chunk_add_io(chunk, i);
		} else {
			chunk->err[i] = disk->writethrough ? -ENOENT : -EAGAIN;
		}
	}
	if (t) {
		zcs_dawdle(chunk->io[0].page);
		t->ops->swap_many(t, disk->pool, ZCACHE_OP_GET, chunk->io,
				  chunk->nr_io);
	}
	for (i = 0; i < chunk->nr_io; i++)
		chunk->err[chunk->number[i]] = zcs_loaded(disk, t,
							  &chunk->io[i]);
	srcu_read_unlock(&zcache_srcu, srcu);
}

/*
 * Whether the chunk has to be read again, after something has happened. Who
 * only looks at the disk does not wait for a device.
 */
static enum zcs_outcome zcs_read_outcome(struct zcs_chunk *chunk)
{
	enum zcs_outcome outcome = ZCS_DONE;
	unsigned int i;

	for (i = 0; i < chunk->count; i++) {
		switch (chunk->err[i]) {
		case -ESTALE:
			return ZCS_SETTLING;
		case -EAGAIN:
			if (zcs_swapin(chunk->page[i]) &&
			    zcache_waits_for_lost())
				outcome = ZCS_AWAY;
			else
				chunk->err[i] = -EIO;
			break;
		}
	}
	return outcome;
}

/* Return: which pages of the chunk are on the backing device. */
static unsigned long zcs_read_end(struct zcs_disk *disk, struct bio *bio,
				  struct zcs_chunk *chunk)
{
	unsigned long backing = 0;
	unsigned int i;

	for (i = 0; i < chunk->count; i++) {
		switch (chunk->err[i]) {
		case 0:
			if (zcs_swapin_single(chunk->page[i]))
				zcs_drop_rescued(disk, chunk->page[i],
						 chunk->slot + i);
			zcs_page_read(chunk->page[i]);
			break;
		case -ENOENT:
			backing |= BIT(i);
			break;
		case -ENODATA:
			zcache_count(disk->pool, ZC_LOAD_LOST);
			/* It may be the policy to panic then. */
			if (zcs_swapin(chunk->page[i]))
				zcache_waits_for_lost();
			fallthrough;
		default:
			bio->bi_status = BLK_STS_IOERR;
			break;
		}
	}
	return backing;
}

/**
 * zcs_read - reads the next chunk of a bio
 * @disk:	the disk
 * @bio:	the bio
 *
 * Context: Process context; sleeps, does not wait for memory.
 * Return: What has become of it.
 */
enum zcs_outcome zcs_read(struct zcs_disk *disk, struct bio *bio)
{
	struct zcs_chunk *chunk = zcs_chunk_of(disk, bio);
	const unsigned long slot = chunk->slot;
	unsigned long backing = 0;
	enum zcs_outcome outcome;

	zcs_read_chunk(disk, chunk);
	outcome = zcs_read_outcome(chunk);
	if (outcome == ZCS_DONE)
		backing = zcs_read_end(disk, bio, chunk);
	mempool_free(chunk, &disk->chunks);
	zcs_backing_submit(disk, bio, slot, backing, ZC_PAGE_NONE, 0);
	return outcome;
}
