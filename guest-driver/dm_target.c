// SPDX-License-Identifier: GPL-2.0
/*
 * The device-mapper target: what a bio means for the pool and the frames.
 *
 * The origin always has everything: the pool only has copies. So any bio may be
 * passed to the origin, and whatever changes a block invalidates it, here as it
 * is submitted and again as it completes (docs/ordering.md says why both).
 *
 * map() runs in the submitter's context and may sleep: bios that must not wait
 * do not get here, for the target does not offer REQ_NOWAIT. What it waits for
 * is the zcache device, which waits for no block I/O.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/module.h>
#include "dm_zcache.h"

static unsigned int min_hits = 1;
module_param(min_hits, uint, 0644);
MODULE_PARM_DESC(min_hits, "Pages in a row that must be in the pool for a larger read to be split (default: 1)");

static const char * const dmz_counter_names[DMZ_NR_COUNTERS] = {
	[DMZ_HITS] = "hits",
	[DMZ_MISSES] = "misses",
	[DMZ_MAYBE_WRONG] = "maybe_wrong",
	[DMZ_PUTS] = "puts",
	[DMZ_PUT_DROPPED] = "put_dropped",
	[DMZ_PUT_REFUSED_CONTENT] = "put_refused_content",
	[DMZ_INVALIDATES] = "invalidates",
	[DMZ_FORGOTTEN] = "forgotten",
};

/* Entries under dmz_mutex; a probe finds its target by an entry of a frame. */
struct dmz_target *dmz_targets[DMZ_MAX_TARGETS];
static DEFINE_MUTEX(dmz_mutex);
static unsigned int dmz_nr_targets;

/* What the completion of a bio has to do. */
enum dmz_kind {
	DMZ_NOTHING,
	DMZ_READ,		/* recorded pages now have content */
	DMZ_WRITE,		/* these blocks have changed, to recorded pages */
	DMZ_RANGE,		/* these blocks have changed */
};

/**
 * struct dmz_io - for each bio
 * @kind:	what its completion has to do
 * @iter:	what it was when it was sent to the origin
 */
struct dmz_io {
	enum dmz_kind kind;
	struct bvec_iter iter;
};

static u64 dmz_block(struct dmz_target *t, sector_t sector)
{
	return dm_target_offset(t->ti, sector) / DMZ_BLOCK_SECTORS;
}

static bool dmz_aligned(sector_t sector)
{
	return !(sector & (DMZ_BLOCK_SECTORS - 1));
}

static int dmz_to_origin(struct dmz_target *t, struct bio *bio)
{
	bio_set_dev(bio, t->origin->bdev);
	bio->bi_iter.bi_sector = t->start +
				 dm_target_offset(t->ti, bio->bi_iter.bi_sector);
	return DM_MAPIO_REMAPPED;
}

static void dmz_invalidate(struct dmz_target *t, sector_t sector,
			   unsigned int sectors, unsigned long keep)
{
	u64 first = dmz_block(t, sector);
	u64 last = dmz_block(t, sector + sectors - 1);

#ifdef ZCACHE_SABOTAGE_INVALIDATE
	/* A control for the tests that look for stale pages. */
	return;
#endif
	dmz_frames_invalidate(t, first, last - first + 1, keep);
	dmz_flush(t, first, last - first + 1);
}

/* Records the pages of a bio, and in a write their content too. */
static void dmz_record(struct dmz_target *t, struct bio *bio, bool write)
{
	struct bvec_iter iter;
	struct bio_vec bv;
	unsigned long pfn;
	u64 block;

	bio_for_each_segment(bv, bio, iter) {
		if (!dmz_aligned(iter.bi_sector) ||
		    !dmz_page_is_cache(t, &bv, iter.bi_sector, write))
			continue;
		pfn = page_to_pfn(bv.bv_page);
		block = dmz_block(t, iter.bi_sector);
		if (dmz_frame_record(t, pfn, block) && write)
			dmz_frame_know(t, pfn, block,
				       dmz_content_hash(bv.bv_page), NULL);
	}
}

/* Whether a bio is of whole pages, which is what the pool has. */
static bool dmz_whole_pages(struct bio *bio)
{
	struct bvec_iter iter;
	struct bio_vec bv;

	if (!dmz_aligned(bio->bi_iter.bi_sector))
		return false;
	bio_for_each_segment(bv, bio, iter)
		if (bv.bv_offset || bv.bv_len != ZCACHE_PAGE_SIZE)
			return false;
	return true;
}

/*
 * Fills the first pages of a bio from the pool.
 *
 * A page of the page cache is recorded before it is asked for, so that a write
 * meanwhile removes the entry; and the pool lets go of it, for it comes back
 * when it is evicted. Other pages leave the pool as it is.
 *
 * Return: how many were filled.
 */
static unsigned int dmz_fill(struct dmz_target *t, struct bio *bio,
			     unsigned int pages)
{
	unsigned int filled = 0;
	struct bvec_iter iter;
	struct bio_vec bv;
	unsigned long pfn;
	bool recorded;
	u64 block;

	bio_for_each_segment(bv, bio, iter) {
		if (filled == pages)
			break;
		pfn = page_to_pfn(bv.bv_page);
		block = dmz_block(t, iter.bi_sector);
		recorded = t->on_evict &&
			   dmz_page_is_cache(t, &bv, iter.bi_sector, false) &&
			   dmz_frame_record(t, pfn, block);
		if (dmz_get(t, block, bv.bv_page, recorded)) {
			if (recorded)
				dmz_frame_forget(pfn);
			dmz_count(t, DMZ_MAYBE_WRONG, 1);
			break;
		}
		if (recorded)
			dmz_frame_know(t, pfn, block,
				       dmz_content_hash(bv.bv_page), NULL);
		filled++;
	}
	dmz_count(t, DMZ_HITS, filled);
	return filled;
}

/*
 * How many pages at the start of a read are alike: maybe in the pool, or surely
 * not. A run of hits that is too short to be worth a bio of its own counts as
 * not there.
 */
static unsigned int dmz_run(struct dmz_target *t, u64 block, u64 end,
			    bool *hit)
{
	u64 at = block, next, stop;

	for (stop = block; stop < end && dmz_present_test(t, stop); stop++)
		;
	*hit = stop > block && (stop == end || stop - block >= min_hits);
	if (*hit)
		return stop - block;
	for (at = stop; at < end; at = stop) {
		next = dmz_present_next(t, at, end);
		for (stop = next; stop < end && dmz_present_test(t, stop);
		     stop++)
			;
		if (next < end && stop - next >= min_hits)
			return next - block;
	}
	return end - block;
}

static int dmz_map_read(struct dmz_target *t, struct bio *bio,
			struct dmz_io *io)
{
	unsigned int pages, run, filled;
	bool hit;
	u64 block;

	if (bio->bi_opf & REQ_PREFLUSH || !dmz_whole_pages(bio)) {
		dmz_count(t, DMZ_MISSES,
			  DIV_ROUND_UP(bio->bi_iter.bi_size, ZCACHE_PAGE_SIZE));
		return dmz_to_origin(t, bio);
	}
	block = dmz_block(t, bio->bi_iter.bi_sector);
	pages = bio->bi_iter.bi_size / ZCACHE_PAGE_SIZE;
	run = dmz_run(t, block, block + pages, &hit);
	if (hit) {
		filled = dmz_fill(t, bio, run);
		if (filled) {
			/* What follows comes again, as a bio of its own. */
			if (filled < pages)
				dm_accept_partial_bio(bio, filled *
						      DMZ_BLOCK_SECTORS);
			bio_endio(bio);
			return DM_MAPIO_SUBMITTED;
		}
		/*
		 * Not there after all, and known now, so the run may end
		 * sooner; or still maybe, and then it is sent as a whole.
		 */
		run = dmz_run(t, block, block + pages, &hit);
	}
	if (!hit && run < pages)
		dm_accept_partial_bio(bio, run * DMZ_BLOCK_SECTORS);
	dmz_count(t, DMZ_MISSES, bio->bi_iter.bi_size / ZCACHE_PAGE_SIZE);
	dmz_record(t, bio, false);
	io->kind = DMZ_READ;
	io->iter = bio->bi_iter;
	return dmz_to_origin(t, bio);
}

static int dmz_map(struct dm_target *ti, struct bio *bio)
{
	struct dmz_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct dmz_target *t = ti->private;

	io->kind = DMZ_NOTHING;
	io->iter = bio->bi_iter;
	if (!bio_sectors(bio))
		return dmz_to_origin(t, bio);
	if (bio_op(bio) == REQ_OP_READ)
		return dmz_map_read(t, bio, io);

	dmz_count(t, DMZ_INVALIDATES, 1);
	dmz_invalidate(t, bio->bi_iter.bi_sector, bio_sectors(bio),
		       DMZ_NO_FRAME);
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

static int dmz_end_io(struct dm_target *ti, struct bio *bio,
		      blk_status_t *error)
{
	struct dmz_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct dmz_target *t = ti->private;

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
		dmz_invalidate(t, io->iter.bi_sector,
			       io->iter.bi_size >> SECTOR_SHIFT, DMZ_NO_FRAME);
		break;
	}
	return DM_ENDIO_DONE;
}

/* The first target makes the table of frames, and begins to watch. */
static int dmz_target_add(struct dmz_target *t)
{
	unsigned int id;
	int err;

	for (id = 1; id < DMZ_MAX_TARGETS && dmz_targets[id]; id++)
		;
	if (id == DMZ_MAX_TARGETS)
		return -ENOSPC;
	if (!dmz_nr_targets) {
		err = dmz_frames_get();
		if (err)
			return err;
		err = dmz_evict_start();
		if (err) {
			dmz_frames_put();
			return err;
		}
	}
	t->id = id;
	dmz_targets[id] = t;
	dmz_nr_targets++;
	return 0;
}

static void dmz_target_remove(struct dmz_target *t)
{
	dmz_frames_forget_target(t);
	dmz_targets[t->id] = NULL;
	if (--dmz_nr_targets)
		return;
	dmz_evict_stop();
	dmz_frames_put();
}

static void dmz_free(struct dmz_target *t)
{
	if (t->id) {
		mutex_lock(&dmz_mutex);
		dmz_target_remove(t);
		mutex_unlock(&dmz_mutex);
	}
	if (t->pool)
		zcache_pool_remove(t->pool->id);
	dmz_present_exit(t);
	if (t->origin)
		dm_put_device(t->ti, t->origin);
	free_percpu(t->counters);
	kfree(t);
}

static int dmz_parse_options(struct dmz_target *t, struct dm_arg_set *args)
{
	static const struct dm_arg count_arg = { 0, 1, "Bad number of options" };
	unsigned int count;
	const char *option;

	t->on_evict = true;
	if (!args->argc)
		return 0;
	if (dm_read_arg_group(&count_arg, args, &count, &t->ti->error))
		return -EINVAL;
	while (count--) {
		option = dm_shift_arg(args);
		if (!strcmp(option, "put=read")) {
			t->on_evict = false;
		} else if (strcmp(option, "put=evict")) {
			t->ti->error = "Unknown option";
			return -EINVAL;
		}
	}
	return 0;
}

static int dmz_parse(struct dmz_target *t, unsigned int argc, char **argv)
{
	struct dm_arg_set args = { .argc = argc, .argv = argv };
	struct dm_target *ti = t->ti;
	unsigned long long start;
	const char *device;
	int err;
	char dummy;

	if (argc < 2) {
		ti->error = "Device and offset are needed";
		return -EINVAL;
	}
	device = dm_shift_arg(&args);
	if (sscanf(dm_shift_arg(&args), "%llu%c", &start, &dummy) != 1 ||
	    start != (sector_t)start) {
		ti->error = "Bad offset";
		return -EINVAL;
	}
	t->start = start;
	err = dmz_parse_options(t, &args);
	if (err)
		return err;
	err = dm_get_device(ti, device, dm_table_get_mode(ti->table),
			    &t->origin);
	if (err)
		ti->error = "Origin not found";
	return err;
}

static int dmz_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dmz_target *t;
	int err;

	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t) {
		ti->error = "Out of memory";
		return -ENOMEM;
	}
	t->ti = ti;
	err = dmz_parse(t, argc, argv);
	if (err)
		goto fail;

	err = -EINVAL;
	t->blocks = DIV_ROUND_UP_ULL(ti->len, DMZ_BLOCK_SECTORS);
	if (!dmz_aligned(ti->begin) || t->blocks > DMZ_MAX_BLOCKS) {
		ti->error = "Not on a page's boundary, or too large";
		goto fail;
	}
	t->bdev = dm_disk(dm_table_get_md(ti->table))->part0;
	t->mapping = zcache_bdev_mapping(t->bdev);
	if (t->on_evict && !dmz_evict_possible()) {
		pr_info("no tracepoints in the page cache: put=read\n");
		t->on_evict = false;
	}

	ti->error = "Out of memory";
	err = -ENOMEM;
	t->counters = alloc_percpu(struct dmz_counters);
	if (!t->counters)
		goto fail;
	err = dmz_present_init(t);
	if (err)
		goto fail;
	t->pool = zcache_pool_add(0, NULL, -1);
	if (IS_ERR(t->pool)) {
		err = PTR_ERR(t->pool);
		t->pool = NULL;
		goto fail;
	}
	mutex_lock(&dmz_mutex);
	err = dmz_target_add(t);
	mutex_unlock(&dmz_mutex);
	if (err)
		goto fail;

	ti->error = NULL;
	ti->private = t;
	ti->num_flush_bios = 1;
	ti->num_discard_bios = 1;
	ti->num_secure_erase_bios = 1;
	ti->num_write_zeroes_bios = 1;
	ti->per_io_data_size = sizeof(struct dmz_io);
	return 0;
fail:
	dmz_free(t);
	return err;
}

static void dmz_dtr(struct dm_target *ti)
{
	dmz_free(ti->private);
}

/* No I/O is under way. What is below may be changed until dmz_resume(). */
static void dmz_postsuspend(struct dm_target *ti)
{
	struct dmz_target *t = ti->private;

	WRITE_ONCE(t->frozen, true);
	dmz_frames_forget_target(t);
}

static void dmz_resume(struct dm_target *ti)
{
	struct dmz_target *t = ti->private;

	dmz_flush_all(t);
	WRITE_ONCE(t->frozen, false);
}

static u64 dmz_counter_sum(struct dmz_target *t, enum dmz_counter c)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(t->counters, cpu)->n[c]);
	return sum;
}

static void dmz_status(struct dm_target *ti, status_type_t type,
		       unsigned int flags, char *result, unsigned int maxlen)
{
	struct dmz_target *t = ti->private;
	const char *put = t->on_evict ? "evict" : "read";
	unsigned int sz = 0;
	int i;

	switch (type) {
	case STATUSTYPE_INFO:
		DMEMIT("state=%s put=%s", READ_ONCE(t->pool->active) ?
		       "attached" : "unattached", put);
		for (i = 0; i < DMZ_NR_COUNTERS; i++)
			DMEMIT(" %s=%llu", dmz_counter_names[i],
			       dmz_counter_sum(t, i));
		DMEMIT(" memory=%zu", dmz_frames_bytes() +
		       dmz_present_bytes(t));
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %llu 1 put=%s", t->origin->name,
		       (unsigned long long)t->start, put);
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",origin=%s,offset=%llu,put=%s;", t->origin->name,
		       (unsigned long long)t->start, put);
		break;
	}
}

static int dmz_message(struct dm_target *ti, unsigned int argc, char **argv,
		       char *result, unsigned int maxlen)
{
	struct dmz_target *t = ti->private;

	if (argc != 1 || strcmp(argv[0], "flush"))
		return -EINVAL;
	dmz_frames_forget_target(t);
	dmz_flush_all(t);
	return 0;
}

static int dmz_iterate_devices(struct dm_target *ti,
			       iterate_devices_callout_fn fn, void *data)
{
	struct dmz_target *t = ti->private;

	return fn(ti, t->origin, t->start, ti->len, data);
}

static struct target_type dmz_type = {
	.name = "zcache",
	.version = { 1, 0, 0 },
	.module = THIS_MODULE,
	.ctr = dmz_ctr,
	.dtr = dmz_dtr,
	.map = dmz_map,
	.end_io = dmz_end_io,
	.postsuspend = dmz_postsuspend,
	.resume = dmz_resume,
	.status = dmz_status,
	.message = dmz_message,
	.iterate_devices = dmz_iterate_devices,
};

static int __init dmz_init(void)
{
	return dm_register_target(&dmz_type);
}
module_init(dmz_init);

static void __exit dmz_exit(void)
{
	dm_unregister_target(&dmz_type);
}
module_exit(dmz_exit);

MODULE_DESCRIPTION("Transcendent memory kept by the host: device-mapper target for clean pages");
MODULE_LICENSE("GPL");
