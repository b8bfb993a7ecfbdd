// SPDX-License-Identifier: GPL-2.0
/*
 * Invalidations of ephemeral pages that found no free slot.
 *
 * Truncating a file invalidates each of its cached pages and then the whole
 * of it, all faster than a device answers. Entries that say the same as their
 * neighbour are merged, so even a large truncation waits in a few entries.
 *
 * Merging may change the order among entries, and puts overtake them. Both only
 * make pages go that could have stayed: see docs/ordering.md.
 */
#include <linux/slab.h>
#include "zcache_virtio.h"

int zcv_backlog_init(struct zcv_backlog *b)
{
	b->ring = kvmalloc_array(ZCV_BACKLOG, sizeof(*b->ring), GFP_KERNEL);
	return b->ring ? 0 : -ENOMEM;
}

void zcv_backlog_free(struct zcv_backlog *b)
{
	kvfree(b->ring);
	b->ring = NULL;
}

static struct zcv_flush *zcv_backlog_at(struct zcv_backlog *b, u32 number)
{
	return &b->ring[number % ZCV_BACKLOG];
}

static bool zcv_same_object(const struct zcv_flush *a,
			    const struct zcv_flush *b)
{
	return a->pool == b->pool &&
	       !memcmp(a->key.object, b->key.object, sizeof(a->key.object));
}

/* Makes @last cover @next too, if one entry can; both of one object. */
static bool zcv_merge(struct zcv_flush *last, const struct zcv_flush *next)
{
	u64 first = min(last->key.index, next->key.index);
	u64 end = max(last->key.index + last->count,
		      next->key.index + next->count);

	if (last->opcode == ZCACHE_OP_FLUSH_OBJECT)
		return true;
	if (end - first > last->count + next->count)
		return false;
	last->key.index = first;
	last->count = end - first;
	return true;
}

/**
 * zcv_backlog_push - adds an invalidation
 * @b:		the backlog
 * @flush:	the invalidation
 *
 * Context: The queue's lock held.
 * Return: false if it is full.
 */
bool zcv_backlog_push(struct zcv_backlog *b, const struct zcv_flush *flush)
{
	struct zcv_flush *last;

	while (!zcv_backlog_empty(b)) {
		last = zcv_backlog_at(b, b->tail - 1);
		if (!zcv_same_object(last, flush))
			break;
		if (flush->opcode == ZCACHE_OP_FLUSH_OBJECT) {
			b->tail--;
			continue;
		}
		if (zcv_merge(last, flush))
			return true;
		break;
	}
	if (b->tail - b->head == ZCV_BACKLOG)
		return false;
	*zcv_backlog_at(b, b->tail++) = *flush;
	return true;
}

/**
 * zcv_backlog_first - the oldest entry
 * @b:	the backlog
 *
 * Context: The queue's lock held.
 * Return: The entry or NULL.
 */
struct zcv_flush *zcv_backlog_first(struct zcv_backlog *b)
{
	return zcv_backlog_empty(b) ? NULL : zcv_backlog_at(b, b->head);
}
