// SPDX-License-Identifier: GPL-2.0
/*
 * What a bio means for the pool and the frames.
 *
 * The origin always has everything: the pool only has copies. So any bio may be
 * passed to the origin, and whatever changes a block invalidates it, here as it
 * is submitted and again as it completes (docs/ordering.md says why both).
 *
 * dmz_map() runs in the submitter's context and may sleep: bios that must not
 * wait do not get here, for the target does not offer REQ_NOWAIT. dmz_end_io()
 * may run in an interrupt.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/workqueue.h>
#include "dm_zcache.h"

/* A change of more blocks than this is not followed up in an interrupt. */
#define MAX_INLINE	256

/* For these. They can be what a writeback waits for. */
static struct workqueue_struct *dmz_wq;

/* What the completion of a bio has to do. */
enum dmz_kind {
	DMZ_NOTHING,
	DMZ_READ,		/* recorded pages now have content */
	DMZ_WRITE,		/* these blocks have changed, to recorded pages */
	DMZ_RANGE,		/* these blocks have changed */
};

/**
 * struct dmz_io - for each bio
 * @target:	its target
 * @kind:	what its completion has to do
 * @iter:	what it was when it was sent to the origin
 * @work:	completes it, if that takes long
 */
struct dmz_io {
	struct dmz_target *target;
	enum dmz_kind kind;
	struct bvec_iter iter;
	struct work_struct work;
};

static int dmz_to_origin(struct dmz_target *t, struct bio *bio)
{
	bio_set_dev(bio, t->origin->bdev);
	bio->bi_iter.bi_sector = t->start +
				 dm_target_offset(t->ti, bio->bi_iter.bi_sector);
	return DM_MAPIO_REMAPPED;
}

static bool dmz_invalidate_sabotaged(void)
{
#ifdef ZCACHE_SABOTAGE_INVALIDATE
	/* A control for the tests that look for stale pages. */
	return true;
#endif
	return false;
}

/* Context: Any. */
static void dmz_invalidate(struct dmz_target *t, sector_t sector,
			   unsigned int sectors, unsigned long keep)
{
	u64 first = dmz_block(t, sector);
	u64 last = dmz_block(t, sector + sectors - 1);

	if (dmz_invalidate_sabotaged())
		return;
	dmz_frames_invalidate(t, first, last - first + 1, keep);
	dmz_flush(t, first, last - first + 1);
}

/* Context: Process context; sleeps. */
static void dmz_invalidate_range(struct dmz_target *t,
				 const struct bvec_iter *iter)
{
	u64 first = dmz_block(t, iter->bi_sector);
	u64 last = dmz_block(t, iter->bi_sector +
			     (iter->bi_size >> SECTOR_SHIFT) - 1);
	u64 end;

	if (dmz_invalidate_sabotaged())
		return;
	dmz_frames_invalidate_range(t, first, last - first + 1);
	for (; first <= last; first = end) {
		end = min(last + 1, dmz_object_end(first));
		dmz_flush(t, first, end - first);
		cond_resched();
	}
}

/*
 * Records the pages of a bio, and in a write their content too. Without a
 * device as well: what is in memory when one is attached can be put then.
 */
static void dmz_record(struct dmz_target *t, struct bio *bio, bool write)
{
	struct bvec_iter iter;
	struct bio_vec bv;
	unsigned long pfn;
	u64 block;

	if (!t->on_evict && !READ_ONCE(t->pool->active))
		return;
	bio_for_each_segment(bv, bio, iter) {
		if (!dmz_aligned(iter.bi_sector) ||
		    !dmz_page_is_cache(t, &bv, iter.bi_sector, write))
			continue;
		pfn = page_to_pfn(bv.bv_page);
		block = dmz_block(t, iter.bi_sector);
		if (dmz_frame_record(t, pfn, block) && write)
			dmz_frame_know(t, pfn, block,
				       dmz_content_hash(bv.bv_page), NULL);
		cond_resched();
	}
}

static int dmz_map_read(struct dmz_target *t, struct bio *bio,
			struct dmz_io *io)
{
	if (dmz_read_from_pool(t, bio)) {
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	dmz_count(t, DMZ_MISSES, dmz_pages(bio));
	dmz_record(t, bio, false);
	io->kind = DMZ_READ;
	io->iter = bio->bi_iter;
	return dmz_to_origin(t, bio);
}

int dmz_map(struct dm_target *ti, struct bio *bio)
{
	struct dmz_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct dmz_target *t = ti->private;

	io->target = t;
	io->kind = DMZ_NOTHING;
	io->iter = bio->bi_iter;
	if (!bio_sectors(bio))
		return dmz_to_origin(t, bio);
	if (bio_op(bio) == REQ_OP_READ)
		return dmz_map_read(t, bio, io);

	dmz_count(t, DMZ_INVALIDATES, 1);
	dmz_invalidate_range(t, &io->iter);
	io->kind = DMZ_RANGE;
	if (bio_op(bio) == REQ_OP_WRITE) {
		io->kind = DMZ_WRITE;
		if (t->on_evict)
			dmz_record(t, bio, true);
	}
	return dmz_to_origin(t, bio);
}

static void dmz_read_done(struct dmz_target *t, struct bio *bio,
			  const struct bvec_iter *start, bool failed)
{
	struct bvec_iter iter;
	struct bio_vec bv;
	unsigned long pfn;
	struct page *page;

	__bio_for_each_segment(bv, bio, iter, *start) {
		page = bv.bv_page;
		pfn = page_to_pfn(page);
		if (!dmz_frame_recorded(pfn))
			continue;
		if (failed)
			dmz_frame_forget(pfn);
		else
			dmz_frame_know(t, pfn, dmz_block(t, iter.bi_sector),
				       dmz_content_hash(page),
				       t->on_evict ? NULL : page);
	}
}

static void dmz_write_done(struct dmz_target *t, struct bio *bio,
			   const struct bvec_iter *start, bool failed)
{
	struct bvec_iter iter;
	struct bio_vec bv;

	__bio_for_each_segment(bv, bio, iter, *start) {
		bool whole = dmz_aligned(iter.bi_sector) && !failed &&
			     bv.bv_len == ZCACHE_PAGE_SIZE;

		dmz_invalidate(t, iter.bi_sector, bv.bv_len >> SECTOR_SHIFT,
			       whole ? page_to_pfn(bv.bv_page) : DMZ_NO_FRAME);
	}
}

/* Completes a bio that dmz_end_io() held up, whose status is still in it. */
static void dmz_range_done(struct work_struct *work)
{
	struct dmz_io *io = container_of(work, struct dmz_io, work);

	dmz_invalidate_range(io->target, &io->iter);
	io->kind = DMZ_NOTHING;
	bio_endio(dm_bio_from_per_bio_data(io, sizeof(*io)));
}

int dmz_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct dmz_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct dmz_target *t = ti->private;
	unsigned int sectors = io->iter.bi_size >> SECTOR_SHIFT;

	switch (io->kind) {
	case DMZ_NOTHING:
		break;
	case DMZ_READ:
		dmz_read_done(t, bio, &io->iter, *error);
		break;
	case DMZ_WRITE:
		dmz_write_done(t, bio, &io->iter, *error);
		break;
	case DMZ_RANGE:
		if (sectors > MAX_INLINE * DMZ_BLOCK_SECTORS) {
			INIT_WORK(&io->work, dmz_range_done);
			queue_work(dmz_wq, &io->work);
			return DM_ENDIO_INCOMPLETE;
		}
		dmz_invalidate(t, io->iter.bi_sector, sectors, DMZ_NO_FRAME);
		break;
	}
	return DM_ENDIO_DONE;
}

unsigned int dmz_io_size(void)
{
	return sizeof(struct dmz_io);
}

int __init dmz_bio_init(void)
{
	dmz_wq = alloc_workqueue("dm_zcache", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return dmz_wq ? 0 : -ENOMEM;
}

void dmz_bio_exit(void)
{
	destroy_workqueue(dmz_wq);
}
