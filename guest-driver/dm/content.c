// SPDX-License-Identifier: GPL-2.0
/*
 * Is a page still what its block holds?
 *
 * A page that is clean and up to date need not be: truncation and hole punching
 * zero a part of a clean page, and the filesystem makes it dirty only later.
 * If reclaim comes between, the page differs from its block, and that block may
 * be shared with another file. So a hash of the content is kept from the time
 * of the transfer, and a page is put only if it still has that hash.
 */
#include <linux/highmem.h>
#include <linux/xxhash.h>
#include "dm_zcache.h"

/**
 * dmz_content_hash - the hash of a page's content
 * @page:	the page
 *
 * Context: Any.
 */
u32 dmz_content_hash(struct page *page)
{
	void *data = kmap_local_page(page);
	u32 hash = xxh64(data, ZCACHE_PAGE_SIZE, 0);

	kunmap_local(data);
	return hash;
}

bool dmz_content_same(u32 recorded, u32 now)
{
#ifdef ZCACHE_SABOTAGE_CONTENT
	/* A control for the tests that look for wrong content. */
	return true;
#endif
	return recorded == now;
}
