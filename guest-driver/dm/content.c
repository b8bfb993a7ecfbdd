// SPDX-License-Identifier: GPL-2.0
/*
 * Is a page still what its block holds?
 *
 * A page that is clean and up to date need not be: truncation and hole punching
 * zero a part of a clean page, and the filesystem makes it dirty only later.
 * If reclaim comes between, the page differs from its block, and that block may
 * be shared with another file. So a hash of the content is kept from the time
 * of the transfer, and a page is put only if it still has that hash.
 *
 * Users of this machine choose contents, so the hash has a key that they don't
 * know: NH (Black and others, UMAC, 1999) in words of 64 bits. Two contents
 * have the same sum with a probability of 2^-64 over all keys, whatever they
 * are. SipHash, which takes nine times as long for a whole page, makes 64 bits
 * of the sum.
 */
#include <linux/highmem.h>
#include <linux/random.h>
#include <linux/siphash.h>
#include "dm_zcache.h"

#define WORDS	(ZCACHE_PAGE_SIZE / sizeof(u64))

static u64 dmz_key[WORDS] __read_mostly;
static siphash_key_t dmz_sum_key __read_mostly;

/**
 * dmz_content_hash - the hash of a page's content
 * @page:	the page
 *
 * Context: Any.
 */
u64 dmz_content_hash(struct page *page)
{
	const u64 *data = kmap_local_page(page);
	__uint128_t sum = 0;
	unsigned int i;

	for (i = 0; i < WORDS; i += 2)
		sum += (__uint128_t)(data[i] + dmz_key[i]) *
		       (data[i + 1] + dmz_key[i + 1]);
	kunmap_local(data);
	return siphash_2u64(sum, sum >> 64, &dmz_sum_key);
}

bool dmz_content_same(u64 recorded, u64 now)
{
#ifdef ZCACHE_SABOTAGE_CONTENT
	/* A control for the tests that look for wrong content. */
	return true;
#endif
	return recorded == now;
}

/**
 * dmz_content_init - chooses the keys
 *
 * Context: Process context; sleeps until there is chance to be had.
 * Return: 0 or an error.
 */
int __init dmz_content_init(void)
{
	int err = get_random_bytes_wait(dmz_key, sizeof(dmz_key));

	get_random_bytes(&dmz_sum_key, sizeof(dmz_sum_key));
	return err;
}
