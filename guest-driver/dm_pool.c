// SPDX-License-Identifier: GPL-2.0
/*
 * A target's pool: blocks to keys, and the operations on them.
 *
 * Order is kept, and queues are chosen, by object. An object is 4 MiB of the
 * device, so that a busy device uses all queues and a large discard takes few
 * requests.
 */
#include <linux/srcu.h>
#include "dm_zcache.h"

#define OBJECT_SHIFT	10
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
 *
 * Context: The lock of the block's bucket held, interrupts off.
 */
void dmz_put(struct dmz_target *t, u64 block, struct page *page)
{
	struct zcache_key key = dmz_key(block);
	struct zcache_transport *transport;
	int srcu = srcu_read_lock(&zcache_srcu);

	transport = zcache_transport_of(t->pool, ZC_PUT_UNATTACHED,
					ZC_PUT_INACTIVE);
	if (transport) {
		dmz_present_set(t, block);
		transport->ops->put(transport, t->pool, &key, page);
	}
	dmz_count(t, transport ? DMZ_PUTS : DMZ_PUT_DROPPED, 1);
	srcu_read_unlock(&zcache_srcu, srcu);
}

/**
 * dmz_get - fills a page from the pool
 * @t:		the target
 * @block:	the block
 * @page:	the page
 * @exclusive:	the pool lets go of it
 *
 * The bit is cleared first: a put meanwhile sets it again.
 *
 * Context: Process context; sleeps.
 * Return: 0 or an error, with the page's content undefined.
 */
int dmz_get(struct dmz_target *t, u64 block, struct page *page,
	    bool exclusive)
{
	struct zcache_key key = dmz_key(block);
	struct zcache_transport *transport;
	int srcu, err = -ENODEV;

	srcu = srcu_read_lock(&zcache_srcu);
	transport = zcache_transport_of(t->pool, ZC_GET_UNATTACHED,
					ZC_GET_INACTIVE);
	if (transport) {
		if (exclusive)
			dmz_present_clear(t, block);
		err = transport->ops->get(transport, t->pool,
					  exclusive ? ZCACHE_GET_EXCLUSIVE : 0,
					  &key, page);
	}
	srcu_read_unlock(&zcache_srcu, srcu);
	return err;
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
		stop = min(end, (block | (OBJECT_BLOCKS - 1)) + 1);
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
