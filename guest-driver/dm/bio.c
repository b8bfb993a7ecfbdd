// SPDX-License-Identifier: GPL-2.0
/*
 * What a bio means for the pool and the frames.
 *
 * The origin always has everything: the pool only has copies. So any bio may be
 * passed to the origin, and whatever changes a block invalidates it, here as it
 * is submitted and again as it completes (docs/ordering.md says why both).
 *
 * dmz_map() runs in the submitter's context and may sleep. A bio that must not
 * wait (REQ_NOWAIT) is told to come again if it would have to: for the zcache
 * device, or while many blocks are followed up. dmz_end_io() may run in an
 * interrupt.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/workqueue.h>
#include "dm_zcache.h"

/* A change of more blocks than this is not followed up in an interrupt, */
#define MAX_INLINE	256
/* nor a read of more pages, for each has a hash. */
#define MAX_HASHES	64

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
 * @start:	when that was, if it is to be known; or 0
 * @work:	completes it, if that takes long
 */
struct dmz_io {
	struct dmz_target *target;
	enum dmz_kind kind;
	struct bvec_iter iter;
	u64 start;
	struct work_struct work;
};

static int dmz_to_origin(struct dmz_target *t, struct bio *bio)
{
	bio_set_dev(bio, t->origin->bdev);
	bio->bi_iter.bi_sector = t->start +
				 dm_target_offset(t->ti, bio->bi_iter.bi_sector);
	return DM_MAPIO_REMAPPED;
}

static u64 dmz_first(struct dmz_target *t, const struct bvec_iter *iter)
{
	return dmz_block(t, iter->bi_sector);
}

/* How many blocks are touched. */
static u64 dmz_blocks(struct dmz_target *t, const struct bvec_iter *iter)
{
	return dmz_block(t, iter->bi_sector +
			 (iter->bi_size >> SECTOR_SHIFT) - 1) -
	       dmz_first(t, iter) + 1;
}

static void dmz_changed(struct dmz_target *t, const struct bvec_iter *iter)
{
	dmz_change_range(t, dmz_first(t, iter), dmz_blocks(t, iter));
}

/* Nothing is known of the frames that a bio carries. */
static void dmz_forget_bio(struct bio *bio)
{
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter)
		dmz_frame_forget(page_to_pfn(bv.bv_page));
}

/* Records what a write makes of a page, or forgets its frame. */
static void dmz_record_written(struct dmz_target *t, const struct bio_vec *bv,
			       sector_t sector)
{
	if (dmz_record_page(t, bv, sector, true))
		dmz_frame_know(t, page_to_pfn(bv->bv_page),
			       dmz_block(t, sector), DMZ_HOLDS,
			       dmz_content_hash(bv->bv_page));
}

/*
 * Records a page that is read from the origin, or forgets its frame; that too if
 * the pool may have it and is not @asked: what it has stays.
 */
static void dmz_record_read(struct dmz_target *t, const struct bio_vec *bv,
			    sector_t sector, bool asked)
{
	if (asked || !dmz_present_test(t, dmz_block(t, sector))) {
		dmz_record_page(t, bv, sector, false);
		return;
	}
	dmz_frame_forget(page_to_pfn(bv->bv_page));
	dmz_count(t, DMZ_BYPASSED, 1);
}

/*
 * Records the pages of a bio, or forgets them. Without a device as well: what is
 * in memory when one is attached can be put then.
 */
static void dmz_record(struct dmz_target *t, struct bio *bio, bool asked)
{
	struct bvec_iter iter;
	struct bio_vec bv;

	if (!t->on_evict && !READ_ONCE(t->pool->active))
		return;
	if (!dmz_put_pays(t, dmz_first(t, &bio->bi_iter))) {
		dmz_forget_bio(bio);
		dmz_count(t, DMZ_PUT_NOT_WORTH, dmz_pages(bio));
		return;
	}
	bio_for_each_segment(bv, bio, iter) {
		if (bio_op(bio) == REQ_OP_WRITE)
			dmz_record_written(t, &bv, iter.bi_sector);
		else
			dmz_record_read(t, &bv, iter.bi_sector, asked);
		cond_resched();
	}
}

/* The submitter sends it once more, from where it may wait. */
static int dmz_would_wait(struct bio *bio)
{
	bio_wouldblock_error(bio);
	return DM_MAPIO_SUBMITTED;
}

static int dmz_map_read(struct dmz_target *t, struct bio *bio,
			struct dmz_io *io, struct dmz_stream *stream)
{
	enum dmz_reading reading = dmz_reading(stream);
	bool pays = dmz_get_pays(t, dmz_first(t, &bio->bi_iter), reading);

	switch (dmz_read_from_pool(t, bio, stream, pays)) {
	case DMZ_SERVED:
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	case DMZ_WOULD_WAIT:
		return dmz_would_wait(bio);
	case DMZ_NOT_SERVED:
		break;
	}
	dmz_count(t, DMZ_MISSES, dmz_pages(bio));
	dmz_record(t, bio, pays);
	io->kind = DMZ_READ;
	io->iter = bio->bi_iter;
	/* What the pool leaves of a read is none of its kind. */
	if (!pays && reading == DMZ_SHORT)
		io->start = ktime_get_ns();
	return dmz_to_origin(t, bio);
}

int dmz_map(struct dm_target *ti, struct bio *bio)
{
	struct dmz_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct dmz_target *t = ti->private;
	struct dmz_stream *stream = NULL;

	io->target = t;
	io->kind = DMZ_NOTHING;
	io->iter = bio->bi_iter;
	io->start = 0;
	if (!bio_sectors(bio))
		return dmz_to_origin(t, bio);
	if (bio_op(bio) == REQ_OP_READ || bio_op(bio) == REQ_OP_WRITE)
		stream = dmz_follow(t, dmz_first(t, &io->iter), dmz_pages(bio),
				    bio_op(bio) == REQ_OP_WRITE);
	if (bio_op(bio) == REQ_OP_READ)
		return dmz_map_read(t, bio, io, stream);

	if (bio->bi_opf & REQ_NOWAIT && dmz_blocks(t, &io->iter) > MAX_INLINE)
		return dmz_would_wait(bio);

	dmz_count(t, DMZ_INVALIDATES, 1);
	dmz_changed(t, &io->iter);
	dmz_dawdle();
	io->kind = DMZ_RANGE;
	if (bio_op(bio) == REQ_OP_WRITE) {
		io->kind = DMZ_WRITE;
		if (t->on_evict)
			dmz_record(t, bio, false);
	}
	return dmz_to_origin(t, bio);
}

static void dmz_read_done(struct dmz_target *t, struct bio *bio,
			  const struct bvec_iter *start, bool failed)
{
	struct bvec_iter iter;
	struct bio_vec bv;
	unsigned long pfn;
	u64 block;

	__bio_for_each_segment(bv, bio, iter, *start) {
		pfn = page_to_pfn(bv.bv_page);
		block = dmz_block(t, iter.bi_sector);
		if (!dmz_frame_recorded(pfn))
			continue;
		if (failed || !dmz_page_is_cache(t, &bv, iter.bi_sector, false))
			dmz_frame_forget(pfn);
		else if (t->on_evict)
			dmz_frame_know(t, pfn, block, DMZ_HOLDS,
				       dmz_content_hash(bv.bv_page));
		else
			dmz_frame_put(t, pfn, block, bv.bv_page);
	}
}

static void dmz_write_done(struct dmz_target *t, struct bio *bio,
			   const struct bvec_iter *start, bool failed)
{
	struct bvec_iter iter;
	struct bio_vec bv;

	__bio_for_each_segment(bv, bio, iter, *start) {
		struct bvec_iter one = {
			.bi_sector = iter.bi_sector,
			.bi_size = bv.bv_len,
		};
		bool whole = dmz_aligned(iter.bi_sector) && !failed &&
			     bv.bv_len == ZCACHE_PAGE_SIZE;

		dmz_change(t, dmz_first(t, &one), dmz_blocks(t, &one),
			   whole ? page_to_pfn(bv.bv_page) : DMZ_NO_FRAME);
	}
}

/* Context: Any. */
static void dmz_follow_up(struct dmz_io *io, struct bio *bio, bool failed)
{
	struct dmz_target *t = io->target;

	switch (io->kind) {
	case DMZ_NOTHING:
		break;
	case DMZ_READ:
		dmz_read_done(t, bio, &io->iter, failed);
		break;
	case DMZ_WRITE:
		dmz_write_done(t, bio, &io->iter, failed);
		break;
	case DMZ_RANGE:
		dmz_change(t, dmz_first(t, &io->iter),
			   dmz_blocks(t, &io->iter), DMZ_NO_FRAME);
		break;
	}
}

static bool dmz_takes_long(const struct dmz_io *io)
{
	const unsigned int sectors = io->iter.bi_size >> SECTOR_SHIFT;

	switch (io->kind) {
	case DMZ_NOTHING:
		return false;
	case DMZ_READ:
		return sectors > MAX_HASHES * DMZ_BLOCK_SECTORS;
	default:
		return sectors > MAX_INLINE * DMZ_BLOCK_SECTORS;
	}
}

/* Completes a bio that dmz_end_io() held up, whose status is still in it. */
static void dmz_long_done(struct work_struct *work)
{
	struct dmz_io *io = container_of(work, struct dmz_io, work);
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));

	if (io->kind == DMZ_RANGE)
		dmz_changed(io->target, &io->iter);
	else
		dmz_follow_up(io, bio, bio->bi_status);
	io->kind = DMZ_NOTHING;
	bio_endio(bio);
}

int dmz_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct dmz_io *io = dm_per_bio_data(bio, sizeof(*io));

	if (io->start)
		dmz_origin_took(io->target,
				DIV_ROUND_UP(io->iter.bi_size, ZCACHE_PAGE_SIZE),
				ktime_get_ns() - io->start);
	if (dmz_takes_long(io)) {
		INIT_WORK(&io->work, dmz_long_done);
		queue_work(dmz_wq, &io->work);
		return DM_ENDIO_INCOMPLETE;
	}
	dmz_follow_up(io, bio, *error);
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
