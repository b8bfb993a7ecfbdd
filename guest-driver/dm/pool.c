// SPDX-License-Identifier: GPL-2.0
/*
 * A target's pool: blocks to keys, and the operations on them.
 *
 * Order is kept, and queues are chosen, by object. An object is 256 KiB of the
 * device: reclaim evicts what was read together, and a burst of puts finds more
 * slots in all queues than in one.
 */
#include <linux/srcu.h>
#include "dm_zcache.h"

#define OBJECT_SHIFT	6
#define OBJECT_BLOCKS	BIT_ULL(OBJECT_SHIFT)

static struct zcache_key dmz_key(u64 block)
{
	struct zcache_key key = { .index = block & (OBJECT_BLOCKS - 1) };
	__le64 object = cpu_to_le64(block >> OBJECT_SHIFT);

	memcpy(key.object, &object, sizeof(object));
	return key;
}

/**
 * dmz_put - hands a copy of a page to the pool
 * @t:		the target
 * @block:	the block with this content
 * @page:	the page, whose content does not change meanwhile
 * @until:	when ktime_get_ns() is that, it waits for a slot no more
 *
 * The bit is set when the put is in the ring, so that who sees it asks behind
 * the put. An invalidation that does not see it has not had the bucket's lock
 * yet, and looks again when it had.
 *
 * Context: The lock of the block's bucket held, interrupts off.
 */
void dmz_put(struct dmz_target *t, u64 block, struct page *page, u64 until)
{
	struct zcache_key key = dmz_key(block);
	struct zcache_transport *transport;
	int srcu = srcu_read_lock(&zcache_srcu);
	bool done;

	transport = zcache_transport_of(t->pool, ZC_PUT_UNATTACHED,
					ZC_PUT_INACTIVE);
	done = transport && transport->ops->put(transport, t->pool, &key, page,
						dmz_present_test(t, block),
						until);
	if (done) {
		dmz_present_set(t, block);
		dmz_put_counts(t, block);
	} else {
		/* An older page is invalidated, if its bit was set. */
		dmz_present_clear(t, block);
	}
	dmz_count(t, done ? DMZ_PUTS : DMZ_PUT_DROPPED, 1);
	srcu_read_unlock(&zcache_srcu, srcu);
}

/**
 * dmz_get - fills pages from the pool
 * @t:		the target
 * @block:	the block of the first page, all blocks of one object
 * @gets:	the pages
 * @nr:		how many
 *
 * The bit of a page that the pool lets go of, or does not have, is cleared; see
 * present.c.
 *
 * Context: Process context; sleeps.
 */
void dmz_get(struct dmz_target *t, u64 block, struct zcache_get *gets,
	     unsigned int nr)
{
	struct zcache_key key = dmz_key(block);
	struct zcache_transport *transport;
	unsigned int i;
	int srcu;

	if (!nr)
		return;
	srcu = srcu_read_lock(&zcache_srcu);
	transport = zcache_transport_of(t->pool, ZC_GET_UNATTACHED,
					ZC_GET_INACTIVE);
	for (i = 0; i < nr; i++) {
		gets[i].err = -ENODEV;
		if (transport && gets[i].flags & ZCACHE_GET_EXCLUSIVE)
			dmz_present_clear(t, block + i);
	}
	if (transport)
		transport->ops->get_many(transport, t->pool, &key, gets, nr);
	for (i = 0; i < nr; i++)
		if (gets[i].err == -ENOENT)
			dmz_present_clear(t, block + i);
	srcu_read_unlock(&zcache_srcu, srcu);
}

/**
 * dmz_object_end - the block after the last one of a block's object
 * @block:	the block
 */
u64 dmz_object_end(u64 block)
{
	return (block | (OBJECT_BLOCKS - 1)) + 1;
}

/**
 * dmz_flush - the pool holds none of these blocks any more
 * @t:		the target
 * @block:	the first
 * @count:	how many
 *
 * Context: Any. Does not wait.
 */
void dmz_flush(struct dmz_target *t, u64 block, u64 count)
{
	struct zcache_transport *transport;
	u64 end = block + count, stop, i;
	struct zcache_key key;
	int srcu;

	srcu = srcu_read_lock(&zcache_srcu);
	transport = zcache_transport_of(t->pool, ZC_INVALIDATE_UNATTACHED,
					ZC_INVALIDATE_UNATTACHED);
	while ((block = dmz_present_next(t, block, end)) < end) {
		/* All of this object that is in the range, in one request. */
		stop = min(end, dmz_object_end(block));
		for (i = block; i < stop; i++)
			dmz_present_clear(t, i);
		key = dmz_key(block);
		if (transport)
			transport->ops->flush(transport, t->pool,
					      ZCACHE_OP_FLUSH_RANGE, &key,
					      stop - block);
		block = stop;
	}
	srcu_read_unlock(&zcache_srcu, srcu);
}

/**
 * dmz_flush_all - the pool is empty
 * @t:	the target
 *
 * Without a device it is, and a device that is lost counts as none.
 *
 * Context: Process context; sleeps.
 */
void dmz_flush_all(struct dmz_target *t)
{
	struct zcache_transport *transport;
	int srcu;

	srcu = srcu_read_lock(&zcache_srcu);
	dmz_present_clear_all(t);
	transport = zcache_transport_of(t->pool, ZC_INVALIDATE_UNATTACHED,
					ZC_INVALIDATE_UNATTACHED);
	if (transport)
		transport->ops->flush_wait(transport, t->pool,
					   ZCACHE_OP_FLUSH_POOL, NULL, 0);
	srcu_read_unlock(&zcache_srcu, srcu);
}
