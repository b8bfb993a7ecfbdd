// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of a swap disk: between the kernel, the device and the backing device.
 *
 * A bio is handled in chunks of pages. All pages of a chunk that go to or from
 * the device do so together; when the device has answered, those for the
 * backing device follow (backing.c). A bio of more than a chunk is
 * split: what is left of it comes when the chunk's transfers are under way.
 *
 * Who calls: reclaim (PF_MEMALLOC), page faults, swapoff, and whoever opens the
 * disk. All may sleep, and none may wait for memory: the states of all slots
 * exist since the disk has a size, and all else comes from pools of the disk.
 * A chunk holds on to what it took from them as long as the device may take to
 * answer, but not while it waits for a device to come back.
 */
#include <linux/highmem.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include "swapdisk.h"

/* Chunks, and first parts of bios, that can always be had. */
#define CHUNKS		4
#define SPLITS		4

/* How often a blocked read says so. */
#define WAIT_SECONDS	10

/**
 * struct zcs_chunk - consecutive pages of a bio
 * @slot:	slot of the first one
 * @count:	how many
 * @page:	the pages
 * @old:	writes: what states their slots were in
 * @err:	what became of each
 * @nr_io:	how many go to or from the device
 * @io:		these
 * @number:	which pages of the chunk these are
 */
struct zcs_chunk {
	unsigned long slot;
	unsigned int count;
	struct page *page[ZCS_CHUNK];
	u8 old[ZCS_CHUNK];
	int err[ZCS_CHUNK];
	unsigned int nr_io;
	struct zcache_io io[ZCS_CHUNK];
	u8 number[ZCS_CHUNK];
};

int zcs_io_init(struct zcs_disk *disk)
{
	int err;

	init_waitqueue_head(&disk->settled);
	err = bioset_init(&disk->splits, SPLITS, 0, 0);
	if (err)
		return err;
	err = mempool_init_kmalloc_pool(&disk->chunks, CHUNKS,
					sizeof(struct zcs_chunk));
	if (err)
		goto exit_splits;
	err = zcs_backing_init(disk);
	if (err)
		goto exit_chunks;
	return 0;
exit_chunks:
	mempool_exit(&disk->chunks);
exit_splits:
	bioset_exit(&disk->splits);
	return err;
}

void zcs_io_exit(struct zcs_disk *disk)
{
	zcs_backing_exit(disk);
	mempool_exit(&disk->chunks);
	bioset_exit(&disk->splits);
}

static struct zcs_chunk *zcs_chunk_of(struct zcs_disk *disk, struct bio *bio,
				      unsigned long slot)
{
	struct zcs_chunk *chunk = mempool_alloc(&disk->chunks, GFP_NOIO);
	struct bvec_iter iter;
	struct bio_vec vec;

	chunk->slot = slot;
	chunk->count = 0;
	chunk->nr_io = 0;
	bio_for_each_segment(vec, bio, iter)
		chunk->page[chunk->count++] = vec.bv_page;
	return chunk;
}

/* Page @i of the chunk goes to or from the device. */
static void zcs_chunk_add_io(struct zcs_chunk *chunk, unsigned int i)
{
	struct zcache_io *io = &chunk->io[chunk->nr_io];

	chunk->number[chunk->nr_io++] = i;
	zcache_swap_key(&io->key, chunk->slot + i);
	io->page = chunk->page[i];
}

/* Return: the way to the device, if it may be offered a page; else NULL. */
static struct zcache_transport *zcs_store_transport(struct zcs_disk *disk)
{
	struct zcache_pool *pool = disk->pool;
	struct zcache_transport *t;

	t = zcache_transport_of(pool, ZC_STORE_UNATTACHED, ZC_STORE_INACTIVE);
	if (t && (!zcache_stores_wanted() || READ_ONCE(disk->draining))) {
		zcache_count(pool, ZC_STORE_DRAINING);
		return NULL;
	}
	return t;
}

static void zcs_count_store(struct zcache_pool *pool, int err)
{
	switch (err) {
	case 0:
		zcache_count(pool, ZC_STORES);
		break;
	case -ENOSPC:
		zcache_count(pool, ZC_STORE_REFUSED);
		break;
	default:
		zcache_count(pool, ZC_STORE_FAILED);
		break;
	}
}

/*
 * Offers pages to the device. Within zcache_srcu; the slots are ours.
 *
 * A stale or bad slot is not stored to, for the collector's flush for it may be
 * under way.
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
		if (chunk->old[i] == ZC_PAGE_STALE ||
		    chunk->old[i] == ZC_PAGE_BAD) {
			zcache_count(disk->pool, ZC_STORE_STALE);
			continue;
		}
		now = zcs_store_transport(disk);
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
		zcs_count_store(disk->pool, chunk->io[i].err);
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
		    old == ZC_PAGE_BAD)
			return ZC_PAGE_STALE;
		return ZC_PAGE_NONE;
	default:
		return ZC_PAGE_STALE;
	}
}

/* The page is with nobody, if it was not accepted. */
static void zcs_settle_unbacked(struct zcs_disk *disk, unsigned long slot,
				enum zcache_page_state end)
{
	zcs_settle(disk, slot, end == ZC_PAGE_NONE ? ZC_PAGE_LOST : end);
	if (end == ZC_PAGE_STALE)
		zcache_heal_schedule();
}

static void zcs_write(struct zcs_disk *disk, struct bio *bio,
		      unsigned long slot)
{
	unsigned long live = 0, stale = 0, none = 0, seq, bit;
	struct zcs_chunk *chunk = zcs_chunk_of(disk, bio, slot);
	const bool backed = disk->backing.bdev;
	enum zcache_page_state end;
	unsigned int i;
	int srcu;

	for (i = 0; i < chunk->count; i++) {
		chunk->old[i] = zcs_claim(disk, slot + i);
		if (chunk->old[i] == ZC_PAGE_RESCUED)
			zcache_swapmap_drop_rescued(disk->pool->map, slot + i);
	}

	srcu = srcu_read_lock(&zcache_srcu);
	seq = zcache_attach_seq();
	zcs_store(disk, chunk);
	for (i = 0; i < chunk->count; i++) {
		bit = BIT(i);
		end = zcs_stored(chunk->old[i], chunk->err[i]);
		if (backed && (chunk->err[i] || disk->writethrough)) {
			if (end == ZC_PAGE_LIVE)
				live |= bit;
			else if (end == ZC_PAGE_STALE)
				stale |= bit;
			else
				none |= bit;
			continue;
		}
		if (chunk->err[i])
			bio->bi_status = BLK_STS_IOERR;
		/* In the section: a drain that waited for it sees the page. */
		zcs_settle_unbacked(disk, slot + i, end);
	}
	srcu_read_unlock(&zcache_srcu, srcu);
	mempool_free(chunk, &disk->chunks);

	zcs_backing_submit(disk, bio, slot, live, ZC_PAGE_LIVE, seq);
	zcs_backing_submit(disk, bio, slot, stale, ZC_PAGE_STALE, seq);
	zcs_backing_submit(disk, bio, slot, none, ZC_PAGE_NONE, seq);
}

/*
 * Reads a page that is not on the device.
 *
 * Return: 0; -EINPROGRESS: it is on the device; -ENOENT: on the backing device;
 * -ESTALE: it is moved just now; -ENODATA: no device has it any more; -EIO: it
 * was never written.
 */
static int zcs_read_here(struct zcs_disk *disk, struct page *page,
			 unsigned long slot)
{
	struct zcache_pool *pool = disk->pool;
	bool copied;

	switch (zcache_swapmap_get(pool->map, slot)) {
	case ZC_PAGE_LIVE:
		return -EINPROGRESS;
	case ZC_PAGE_NONE:
		if (disk->backing.bdev)
			return -ENOENT;
		clear_highpage(page);
		return 0;
	case ZC_PAGE_STALE:
		return disk->backing.bdev ? -ENOENT : -EIO;
	case ZC_PAGE_RESCUED:
		/* Ours, for a write would free the copy. */
		if (!zcache_swapmap_change(pool->map, slot, ZC_PAGE_RESCUED,
					   ZC_PAGE_BUSY))
			return -ESTALE;
		copied = zcache_swapmap_copy_rescued(pool->map, slot, page);
		zcs_settle(disk, slot, ZC_PAGE_RESCUED);
		zcache_count(pool, ZC_LOAD_RESCUED);
		return copied ? 0 : -EIO;
	case ZC_PAGE_LOST:
		zcache_count(pool, ZC_LOAD_LOST);
		return disk->writethrough ? -ENOENT : -ENODATA;
	case ZC_PAGE_BUSY:
		return -ESTALE;
	default:
		return -EIO;
	}
}

/*
 * Judges the device's answer to a get.
 *
 * Return: as zcs_read_here(), or -EAGAIN: the device is away.
 */
static int zcs_loaded(struct zcs_disk *disk, unsigned long slot, int err)
{
	switch (err) {
	case 0:
		zcache_count(disk->pool, ZC_LOADS);
		return 0;
	case -EIO:
		return disk->writethrough ? -ENOENT : -EAGAIN;
	default:
		if (!zcache_swapmap_change(disk->pool->map, slot, ZC_PAGE_LIVE,
					   ZC_PAGE_LOST))
			return -ESTALE;
		zcs_lose(disk, slot);
		return disk->writethrough ? -ENOENT : -ENODATA;
	}
}

/* One try to read pages from where they are. Sets @chunk->err as above. */
static void zcs_read_once(struct zcs_disk *disk, struct zcs_chunk *chunk)
{
	struct zcache_transport *t = NULL, *now;
	unsigned int i, number;
	int srcu;

	chunk->nr_io = 0;
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
	if (t)
		t->ops->swap_many(t, disk->pool, ZCACHE_OP_GET, chunk->io,
				  chunk->nr_io);
	for (i = 0; i < chunk->nr_io; i++) {
		number = chunk->number[i];
		chunk->err[number] = zcs_loaded(disk, chunk->slot + number,
						chunk->io[i].err);
	}
	srcu_read_unlock(&zcache_srcu, srcu);
}

/* As zcs_read_once(), for one page. */
static int zcs_read_one(struct zcs_disk *disk, struct page *page,
			unsigned long slot)
{
	struct zcs_chunk *chunk = mempool_alloc(&disk->chunks, GFP_NOIO);
	int err;

	chunk->slot = slot;
	chunk->count = 1;
	chunk->page[0] = page;
	zcs_read_once(disk, chunk);
	err = chunk->err[0];
	mempool_free(chunk, &disk->chunks);
	return err;
}

/*
 * Goes on with a page whose first try did not say where it is. While its device
 * is away it is waited for, as long as that may come back with it: an attach
 * that resumes the session has it, another makes the page lost.
 *
 * A task that is killed, or about to end, waits no more: where memory is short it
 * is what the OOM killer has chosen. Its page is in error then for who shares it.
 */
static int zcs_read_patiently(struct zcs_disk *disk, struct page *page,
			      unsigned long slot)
{
	bool counted = false;
	unsigned long seq;
	int err;

	for (;;) {
		wait_event(disk->settled, !zcs_busy(disk, slot));
		seq = zcache_attach_seq();
		err = zcs_read_one(disk, page, slot);
		if (err == -ESTALE)
			continue;
		if (err != -EAGAIN)
			return err;
		if (!zcache_waits_for_lost())
			return -EIO;
		if (!counted)
			zcache_count(disk->pool, ZC_LOAD_WAITED);
		counted = true;
		/* It has taken note of its signal, and looks at its memory. */
		if (current->flags & PF_EXITING)
			return -EIO;
		err = zcache_wait_attach_killable(seq, WAIT_SECONDS);
		if (err == -EINTR)
			return -EIO;
		if (err == -ETIME)
			pr_err_ratelimited("%s[%d] waits for slot %lu of %s: its device is away\n",
					   current->comm, task_pid_nr(current),
					   slot, disk->gendisk->disk_name);
	}
}

/* A page that was read, or can't be. It may be the policy to panic then. */
static void zcs_read_end(struct bio *bio, struct page *page, int err)
{
	if (err == -ENODATA)
		zcache_waits_for_lost();
	if (err)
		bio->bi_status = BLK_STS_IOERR;
	else
		flush_dcache_page(page);
}

/* The pages in @again. Return: which of them are on the backing device. */
static unsigned long zcs_read_rest(struct zcs_disk *disk, struct bio *bio,
				   unsigned long slot, unsigned long again)
{
	unsigned long backing = 0;
	struct bvec_iter iter;
	struct bio_vec vec;
	unsigned int i = 0;
	int err;

	bio_for_each_segment(vec, bio, iter) {
		if (test_bit(i, &again)) {
			err = zcs_read_patiently(disk, vec.bv_page, slot + i);
			if (err == -ENOENT)
				backing |= BIT(i);
			else
				zcs_read_end(bio, vec.bv_page, err);
		}
		i++;
	}
	return backing;
}

static void zcs_read(struct zcs_disk *disk, struct bio *bio, unsigned long slot)
{
	struct zcs_chunk *chunk = zcs_chunk_of(disk, bio, slot);
	unsigned long backing = 0, again = 0;
	unsigned int i;

	zcs_read_once(disk, chunk);
	for (i = 0; i < chunk->count; i++) {
		switch (chunk->err[i]) {
		case -ENOENT:
			backing |= BIT(i);
			break;
		case -ESTALE:
		case -EAGAIN:
			again |= BIT(i);
			break;
		default:
			zcs_read_end(bio, chunk->page[i], chunk->err[i]);
			break;
		}
	}
	mempool_free(chunk, &disk->chunks);

	if (again)
		backing |= zcs_read_rest(disk, bio, slot, again);
	zcs_backing_submit(disk, bio, slot, backing, ZC_PAGE_NONE, 0);
}

/*
 * Splits a chunk off. What is left waits in current->bio_list, behind what the
 * chunk submits to the backing device.
 */
static struct bio *zcs_first_chunk(struct zcs_disk *disk, struct bio *bio)
{
	struct bio *first;

	if (bio_sectors(bio) <= ZCS_CHUNK * ZCS_PAGE_SECTORS)
		return bio;
	first = bio_split(bio, ZCS_CHUNK * ZCS_PAGE_SECTORS, GFP_NOIO,
			  &disk->splits);
	if (IS_ERR_OR_NULL(first))
		return NULL;
	bio_chain(first, bio);
	submit_bio_noacct(bio);
	return first;
}

/* The limits of the disk see to it that this is always so. */
static bool zcs_whole_pages(struct bio *bio)
{
	struct bvec_iter iter;
	struct bio_vec vec;

	bio_for_each_segment(vec, bio, iter)
		if (WARN_ON_ONCE(vec.bv_len != PAGE_SIZE))
			return false;
	return true;
}

static void zcs_transfer(struct zcs_disk *disk, struct bio *bio,
			 unsigned long slot)
{
	struct bio *chunk = zcs_whole_pages(bio) ? zcs_first_chunk(disk, bio) :
			    NULL;

	if (!chunk) {
		bio_io_error(bio);
		return;
	}
	if (op_is_write(bio_op(chunk)))
		zcs_write(disk, chunk, slot);
	else
		zcs_read(disk, chunk, slot);
	bio_endio(chunk);
}

static bool zcs_within(struct zcs_disk *disk, struct bio *bio)
{
	sector_t all = (sector_t)disk->slots * ZCS_PAGE_SECTORS;
	sector_t first = bio->bi_iter.bi_sector;
	sector_t count = bio_sectors(bio);

	return IS_ALIGNED(first, ZCS_PAGE_SECTORS) &&
	       IS_ALIGNED(bio->bi_iter.bi_size, PAGE_SIZE) &&
	       first <= all && count <= all - first;
}

/**
 * zcs_submit_bio - reads, writes or discards pages
 * @bio:	what to do
 *
 * Context: Process context; sleeps, does not wait for memory.
 */
void zcs_submit_bio(struct bio *bio)
{
	struct zcs_disk *disk = bio->bi_bdev->bd_disk->private_data;
	unsigned long slot = bio->bi_iter.bi_sector / ZCS_PAGE_SECTORS;

	if (!zcs_within(disk, bio)) {
		bio_io_error(bio);
		return;
	}
	switch (bio_op(bio)) {
	case REQ_OP_READ:
	case REQ_OP_WRITE:
		zcs_transfer(disk, bio, slot);
		return;
	case REQ_OP_DISCARD:
		zcs_discard(disk, slot, bio->bi_iter.bi_size >> PAGE_SHIFT);
		break;
	default:
		bio->bi_status = BLK_STS_NOTSUPP;
		break;
	}
	bio_endio(bio);
}
