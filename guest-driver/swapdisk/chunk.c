// SPDX-License-Identifier: GPL-2.0
/*
 * Chunks of bios, and the pages in them.
 */
#include <linux/highmem.h>
#include "swapdisk.h"

/**
 * zcs_chunk_of - the next pages of a bio
 * @disk:	the disk
 * @bio:	the bio
 *
 * Context: Process context; sleeps, does not wait for memory.
 * Return: The chunk, from @disk->chunks.
 */
struct zcs_chunk *zcs_chunk_of(struct zcs_disk *disk, struct bio *bio)
{
	struct zcs_chunk *chunk = mempool_alloc(&disk->chunks, GFP_NOIO);
	struct bvec_iter iter;
	struct bio_vec vec;

	chunk->slot = bio->bi_iter.bi_sector / ZCS_PAGE_SECTORS;
	chunk->count = 0;
	chunk->nr_io = 0;
	bio_for_each_segment(vec, bio, iter) {
		chunk->page[chunk->count++] = vec.bv_page;
		if (chunk->count == ZCS_CHUNK)
			break;
	}
	return chunk;
}

/**
 * zcs_chunk_add_io - a page goes to or from the device
 * @chunk:	the chunk
 * @i:		the page's number in it
 *
 * Context: Any.
 */
void zcs_chunk_add_io(struct zcs_chunk *chunk, unsigned int i)
{
	struct zcache_io *io = &chunk->io[chunk->nr_io];

	chunk->number[chunk->nr_io++] = i;
	zcache_swap_key(&io->key, chunk->slot + i);
	io->page = chunk->page[i];
}

/**
 * zcs_swapin - whether the kernel reads a page because somebody needs it
 * @page:	the page, which is read into
 *
 * Then it is of a folio of the swap cache, locked, that is filled for the first
 * time. One that is read into from outside while it is in the swap cache, too, is
 * mapped, hence up to date.
 *
 * Context: Any.
 */
bool zcs_swapin(struct page *page)
{
	struct folio *folio = page_folio(page);

	return folio_test_swapcache(folio) && !folio_test_uptodate(folio);
}

/**
 * zcs_swapin_single - as zcs_swapin(), and nothing else is read into the folio
 * @page:	the page
 *
 * Context: Any.
 */
bool zcs_swapin_single(struct page *page)
{
	return zcs_swapin(page) && !folio_test_large(page_folio(page));
}

/**
 * zcs_page_read - a page was filled
 * @page:	the page
 *
 * The kernel reads several folios with one bio, which fails as a whole. That
 * may be for one that was read ahead, which is none of the others' concern.
 *
 * Context: Any.
 */
void zcs_page_read(struct page *page)
{
	flush_dcache_page(page);
	if (zcs_swapin_single(page))
		folio_mark_uptodate(page_folio(page));
}
