// SPDX-License-Identifier: GPL-2.0
/*
 * Reads that the pool may serve.
 *
 * A bio is served from its start as far as its pages are alike, and the rest of
 * it comes again as a bio of its own. So the bio waits in map(), in the context
 * of its submitter, for the zcache device, which waits for no block I/O; a read
 * of pages that are surely not in the pool does not wait at all.
 */
#include <linux/bio.h>
#include "dm_zcache.h"

/* Pages that are asked for at once. */
#define MAX_GETS	32

/* Where a page is. */
enum dmz_where {
	DMZ_ORIGIN,	/* not in the pool, or not for this page */
	DMZ_POOL,	/* maybe in the pool */
	DMZ_HERE,	/* got for an earlier part of this bio */
	DMZ_AGAIN,	/* in the page, but whoever reads does not take it */
};

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
 * Only what is recorded is taken from the pool: so what is wrong there can be
 * told from the disk by reading again, and direct reads see the disk.
 */
static enum dmz_where dmz_where(struct dmz_target *t, const struct bio_vec *bv,
				sector_t sector, bool pays)
{
	u64 block = dmz_block(t, sector), hash;
	bool ask = pays && dmz_present_test(t, block);

	if (!ask && !dmz_frame_recorded(page_to_pfn(bv->bv_page)))
		return DMZ_ORIGIN;
	if (!dmz_page_is_cache(t, bv, sector, false))
		return DMZ_ORIGIN;
	switch (dmz_frame_look(t, page_to_pfn(bv->bv_page), block, &hash)) {
	case DMZ_AHEAD:
		if (hash == dmz_content_hash(bv->bv_page))
			return DMZ_HERE;
		break;
	case DMZ_TRANSFER:
	case DMZ_HOLDS:
	case DMZ_KEPT:
		return DMZ_AGAIN;
	case DMZ_UNKNOWN:
		break;
	}
	return ask ? DMZ_POOL : DMZ_ORIGIN;
}

/* Where the first page of a bio is, and how many after it are there too. */
static unsigned int dmz_run(struct dmz_target *t, struct bio *bio, bool pays,
			    enum dmz_where *where)
{
	unsigned int run = 0;
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter) {
		enum dmz_where is = dmz_where(t, &bv, iter.bi_sector,
					      pays);

		if (run && is != *where)
			break;
		*where = is;
		run++;
	}
	return run;
}

/*
 * Records the first pages of a bio, so that a write meanwhile removes the
 * entries. If the pool lets go of these pages they come back when they are
 * evicted.
 *
 * Return: how many could be recorded.
 */
static unsigned int dmz_record_gets(struct dmz_target *t, struct bio *bio,
				    struct zcache_get *gets, unsigned int nr,
				    bool take)
{
	struct bvec_iter iter;
	unsigned int i = 0;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter) {
		if (i == nr)
			break;
		if (!dmz_record_page(t, &bv, iter.bi_sector, false))
			break;
		gets[i].page = bv.bv_page;
		gets[i].flags = take ? ZCACHE_GET_EXCLUSIVE : 0;
		i++;
	}
	return i;
}

/*
 * Whether the pool still may have the pages, how many of the first. A write
 * that came and went before the entries were made has cleared the bits;
 * dmz_frame_record() orders the two.
 */
static unsigned int dmz_still_present(struct dmz_target *t, u64 block,
				      unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr && dmz_present_test(t, block + i); i++)
		;
	return i;
}

/*
 * The first @filled pages are served; what is got after these comes again. No
 * hash is needed of what need not be put.
 */
static void dmz_know_gets(struct dmz_target *t, u64 block,
			  const struct zcache_get *gets, unsigned int nr,
			  unsigned int filled, bool take)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		unsigned long pfn = page_to_pfn(gets[i].page);

		if (gets[i].err)
			dmz_frame_forget(pfn);
		else if (i < filled && !take)
			dmz_frame_know(t, pfn, block + i, DMZ_KEPT, 0);
		else
			dmz_frame_know(t, pfn, block + i,
				       i < filled ? DMZ_HOLDS : DMZ_AHEAD,
				       dmz_content_hash(gets[i].page));
	}
}

/*
 * Fills the first @run pages of a bio, or less.
 *
 * The pages after one that the pool does not have are not lost: they are here
 * when they come again.
 *
 * Return: how many are filled; if none, *@missed is how many of the first are
 *	   not in the pool.
 */
static unsigned int dmz_fill(struct dmz_target *t, struct bio *bio,
			     struct dmz_stream *stream, unsigned int run,
			     unsigned int *missed)
{
	u64 block = dmz_block(t, bio->bi_iter.bi_sector);
	unsigned int nr = min_t(u64, min_t(unsigned int, run, MAX_GETS),
				dmz_object_end(block) - block);
	unsigned int asked, i, hits = 0, filled = 0;
	struct zcache_get gets[MAX_GETS];
	bool take = dmz_gets_take(t);
	u64 start;

	start = ktime_get_ns();
	nr = dmz_record_gets(t, bio, gets, nr, take);
	if (!nr) {
		*missed = 1;
		return 0;
	}
	asked = dmz_still_present(t, block, nr);
	for (i = asked; i < nr; i++)
		gets[i].err = -ENOENT;
	dmz_get(t, block, gets, asked);
	for (i = 0; i < asked; i++)
		hits += !gets[i].err;
	dmz_count(t, DMZ_HITS, hits);
	dmz_count(t, DMZ_MAYBE_WRONG, asked - hits);

	while (filled < nr && !gets[filled].err)
		filled++;
	dmz_know_gets(t, block, gets, nr, filled, take);
	dmz_stream_hits(stream, hits);
	if (asked)
		dmz_gets_took(t, block, dmz_reading(stream), asked, hits,
			      ktime_get_ns() - start);
	for (*missed = filled; *missed < nr && gets[*missed].err; ++*missed)
		;
	return filled;
}

/* The first pages of a bio are served with what was got for them before. */
static void dmz_take(struct dmz_target *t, struct bio *bio, unsigned int nr)
{
	u64 block = dmz_block(t, bio->bi_iter.bi_sector), hash;
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter) {
		unsigned long pfn = page_to_pfn(bv.bv_page);

		if (!nr--)
			break;
		if (dmz_frame_look(t, pfn, block, &hash) == DMZ_AHEAD)
			dmz_frame_know(t, pfn, block, DMZ_HOLDS, hash);
		block++;
	}
}

/*
 * The reader of these pages had them, and they are not up to date: a checksum
 * of his was wrong. Now he gets what the disk has, and the copies go.
 */
static void dmz_distrust(struct dmz_target *t, struct bio *bio, unsigned int nr)
{
	dmz_change_range(t, dmz_block(t, bio->bi_iter.bi_sector), nr);
	dmz_count(t, DMZ_REREADS, nr);
}

/* The rest of the bio comes again, as a bio of its own. */
static void dmz_accept(struct bio *bio, unsigned int pages)
{
	if (pages < dmz_pages(bio))
		dm_accept_partial_bio(bio, pages * DMZ_BLOCK_SECTORS);
}

/**
 * dmz_read_from_pool - serves a read, or the first part of it
 * @t:		the target
 * @bio:	the read, which may be cut short
 * @stream:	what it belongs to
 * @pays:	whether the pool is asked for what it may have
 *
 * Context: Process context; sleeps, unless the bio must not. It is being mapped.
 * Return: What has become of it.
 */
enum dmz_served dmz_read_from_pool(struct dmz_target *t, struct bio *bio,
				   struct dmz_stream *stream, bool pays)
{
	unsigned int run, filled;
	enum dmz_where where;

	if (bio->bi_opf & REQ_PREFLUSH || !dmz_whole_pages(bio))
		return DMZ_NOT_SERVED;
	run = dmz_run(t, bio, pays, &where);
	switch (where) {
	case DMZ_POOL:
		if (bio->bi_opf & REQ_NOWAIT)
			return DMZ_WOULD_WAIT;
		filled = dmz_fill(t, bio, stream, run, &run);
		if (filled)
			run = filled;
		else
			where = DMZ_ORIGIN;
		break;
	case DMZ_HERE:
		dmz_take(t, bio, run);
		break;
	case DMZ_AGAIN:
		dmz_distrust(t, bio, run);
		where = DMZ_ORIGIN;
		break;
	case DMZ_ORIGIN:
		break;
	}
	dmz_accept(bio, run);
	return where == DMZ_ORIGIN ? DMZ_NOT_SERVED : DMZ_SERVED;
}
