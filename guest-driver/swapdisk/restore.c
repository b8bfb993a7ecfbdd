// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of a swap disk that a drain left in guest memory, and that go to the
 * device again when there is one.
 */
#include "swapdisk.h"

/* Makes slots with such pages ours. Return: how many there are. */
static unsigned int zcs_rescued_claim(struct zcs_disk *disk,
				      struct zcache_io *io)
{
	struct zcache_swapmap *map = disk->pool->map;
	unsigned long slot = 0;
	unsigned int n = 0;

	while (n < ZCS_CHUNK &&
	       zcache_swapmap_find(map, ZC_PAGE_RESCUED, &slot)) {
		if (zcache_swapmap_change(map, slot, ZC_PAGE_RESCUED,
					  ZC_PAGE_BUSY)) {
			zcache_swap_key(&io[n].key, slot);
			io[n++].page = zcache_swapmap_rescued(map, slot);
		}
		slot++;
	}
	return n;
}

/**
 * zcs_put_back - stores some pages on the device, and frees their copies
 * @t:		the device
 * @pool:	the disk's pool
 *
 * Context: Process context; see &struct zcache_swap_front.
 * Return: true: there may be more, and the device takes them.
 */
bool zcs_put_back(struct zcache_transport *t, struct zcache_pool *pool)
{
	struct zcs_disk *disk = pool->owner;
	struct zcs_chunk *chunk;
	unsigned int i, n;
	bool takes = true;

	zcs_room_attached(disk);
	if (!zcache_swapmap_count(pool->map, ZC_PAGE_RESCUED) ||
	    READ_ONCE(disk->draining))
		return false;
	chunk = mempool_alloc(&disk->chunks, GFP_NOIO);
	n = zcs_rescued_claim(disk, chunk->io);
	t->ops->swap_many(t, pool, ZCACHE_OP_PUT, chunk->io, n);
	for (i = 0; i < n; i++) {
		const unsigned long slot = chunk->io[i].key.index;

		if (chunk->io[i].err) {
			takes = false;
			zcs_settle(disk, slot, ZC_PAGE_RESCUED);
			continue;
		}
		zcache_count(pool, ZC_STORES);
		zcache_swapmap_drop_rescued(pool->map, slot);
		zcs_settle(disk, slot, ZC_PAGE_LIVE);
	}
	mempool_free(chunk, &disk->chunks);
	if (!takes)
		zcs_room_retry(disk);
	return takes && n;
}
