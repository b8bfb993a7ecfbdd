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
	DMZ_ORIGIN,	/* not in the pool */
	DMZ_POOL,	/* maybe in the pool */
	DMZ_HERE,	/* got for an earlier part of this bio */
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

static enum dmz_where dmz_where(struct dmz_target *t, struct page *page,
				u64 block)
{
	if (dmz_frame_has(t, page_to_pfn(page), block, page))
		return DMZ_HERE;
	return dmz_present_test(t, block) ? DMZ_POOL : DMZ_ORIGIN;
}

/* Where the first page of a bio is, and how many after it are there too. */
static unsigned int dmz_run(struct dmz_target *t, struct bio *bio,
			    enum dmz_where *where)
{
	u64 block = dmz_block(t, bio->bi_iter.bi_sector);
	unsigned int run = 0;
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter) {
		enum dmz_where is = dmz_where(t, bv.bv_page, block + run);

		if (run && is != *where)
			break;
		*where = is;
		run++;
	}
	return run;
}

/*
 * Records the first pages of a bio, those that are of the page cache: so a write
 * meanwhile removes the entries. The pool lets go of these pages, for they come
 * back when they are evicted. It keeps what others read.
 */
static void dmz_record_gets(struct dmz_target *t, struct bio *bio,
			    struct zcache_get *gets, unsigned int nr)
{
	u64 block = dmz_block(t, bio->bi_iter.bi_sector);
	struct bvec_iter iter;
	unsigned int i = 0;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter) {
		if (i == nr)
			break;
		gets[i].page = bv.bv_page;
		gets[i].flags = 0;
		if (t->on_evict &&
		    dmz_page_is_cache(t, &bv, iter.bi_sector, false) &&
		    dmz_frame_record(t, page_to_pfn(bv.bv_page), block + i))
			gets[i].flags = ZCACHE_GET_EXCLUSIVE;
		i++;
	}
}

/*
 * Whether the pool still may have the pages, how many of the first. A write
 * that came and went before the entries were made has cleared the bits.
 */
static unsigned int dmz_still_present(struct dmz_target *t, u64 block,
				      unsigned int nr)
{
	unsigned int i;

	/* The entries first: a write sees them, or we see what it cleared. */
	smp_mb();
	for (i = 0; i < nr && dmz_present_test(t, block + i); i++)
		;
	return i;
}

static void dmz_know_gets(struct dmz_target *t, u64 block,
			  const struct zcache_get *gets, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!gets[i].flags)
			continue;
		if (gets[i].err)
			dmz_frame_forget(page_to_pfn(gets[i].page));
		else
			dmz_frame_know(t, page_to_pfn(gets[i].page), block + i,
				       dmz_content_hash(gets[i].page), NULL);
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
			     unsigned int run, unsigned int *missed)
{
	u64 block = dmz_block(t, bio->bi_iter.bi_sector);
	unsigned int nr = min_t(u64, min_t(unsigned int, run, MAX_GETS),
				dmz_object_end(block) - block);
	unsigned int asked, i, hits = 0, filled = 0;
	struct zcache_get gets[MAX_GETS];

	dmz_record_gets(t, bio, gets, nr);
	asked = dmz_still_present(t, block, nr);
	for (i = asked; i < nr; i++)
		gets[i].err = -ENOENT;
	dmz_get(t, block, gets, asked);
	dmz_know_gets(t, block, gets, nr);
	for (i = 0; i < asked; i++)
		hits += !gets[i].err;
	dmz_count(t, DMZ_HITS, hits);
	dmz_count(t, DMZ_MAYBE_WRONG, asked - hits);

	while (filled < nr && !gets[filled].err)
		filled++;
	for (*missed = filled; *missed < nr && gets[*missed].err; ++*missed)
		;
	return filled;
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
 *
 * Context: Process context; sleeps. The bio is being mapped.
 * Return: true: all pages of the bio are filled; false: none is, and it is to
 *	   be sent to the origin.
 */
bool dmz_read_from_pool(struct dmz_target *t, struct bio *bio)
{
	unsigned int run, filled;
	enum dmz_where where;

	if (bio->bi_opf & REQ_PREFLUSH || !dmz_whole_pages(bio))
		return false;
	run = dmz_run(t, bio, &where);
	if (where == DMZ_POOL) {
		filled = dmz_fill(t, bio, run, &run);
		if (filled)
			run = filled;
		else
			where = DMZ_ORIGIN;
	}
	dmz_accept(bio, run);
	return where != DMZ_ORIGIN;
}
