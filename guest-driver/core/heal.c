// SPDX-License-Identifier: GPL-2.0
/*
 * Makes up, in a worker, for invalidations that found no room in a queue:
 * flushes poisoned pools as a whole, and swap slots that were left stale. And
 * for a device that was away: gives it the pages that a drain left in memory.
 */
#include "internal.h"

/* Ranges of stale slots to flush before others get a turn at zcache_mutex. */
#define COLLECT_BATCH	512

static void zcache_heal_work(struct work_struct *work);
static DECLARE_WORK(zcache_heal_job, zcache_heal_work);

void zcache_heal_schedule(void)
{
	queue_work(zcache_wq, &zcache_heal_job);
}
EXPORT_SYMBOL_GPL(zcache_heal_schedule);

/**
 * zcache_pool_poison - gives up on single invalidations for an ephemeral pool
 * @pool:	the pool
 *
 * From now on nothing is put into or got from it, until it was flushed as a
 * whole.
 *
 * Context: Any, interrupts may be off. Within zcache_srcu, and under the lock
 *	    of the queue whose invalidation is given up; see docs/ordering.md.
 */
void zcache_pool_poison(struct zcache_pool *pool)
{
	atomic_long_inc(&pool->poison);
	zcache_count(pool, ZC_POOL_POISONED);
	zcache_heal_schedule();
}
EXPORT_SYMBOL_GPL(zcache_pool_poison);

/*
 * The pool is clean again only if no invalidation was given up after this read
 * the count: such a one may concern a page on a queue whose FLUSH_POOL was
 * through already.
 */
static int zcache_heal(struct zcache_transport *t, struct zcache_pool *pool)
{
	long seen = atomic_long_read(&pool->poison);
	int err;

	while (seen) {
		err = t->ops->flush_wait(t, pool, ZCACHE_OP_FLUSH_POOL, NULL, 0);
		if (err)
			return err;
		if (atomic_long_try_cmpxchg(&pool->poison, &seen, 0)) {
			zcache_count(pool, ZC_POOL_HEALED);
			break;
		}
	}
	return 0;
}

/*
 * Stale slots that are flushed are ours until that was answered, and refuse
 * stores until then: so no flush of ours can meet a page stored after it was
 * decided upon.
 */
static int zcache_collect(struct zcache_transport *t, struct zcache_pool *pool)
{
	unsigned long offset = 0, end, last;
	struct zcache_key key;
	int err, i;

	for (i = 0; i < COLLECT_BATCH; i++) {
		if (!zcache_swapmap_find(pool->map, ZC_PAGE_STALE, &offset))
			return 0;
		last = zcache_swap_object_end(offset);
		for (end = offset; end < last; end++)
			if (!zcache_swapmap_change(pool->map, end,
						   ZC_PAGE_STALE,
						   ZC_PAGE_FLUSHING))
				break;
		/* Somebody stores to it. */
		if (end == offset) {
			offset++;
			continue;
		}
		zcache_swap_key(&key, offset);
		err = t->ops->flush_wait(t, pool, ZCACHE_OP_FLUSH_RANGE, &key,
					 end - offset);
		for (; offset < end; offset++)
			zcache_swapmap_change(pool->map, offset,
					      ZC_PAGE_FLUSHING,
					      err ? ZC_PAGE_STALE :
					      ZC_PAGE_NONE);
		if (pool->front && pool->front->settled)
			pool->front->settled(pool);
		if (err)
			return err;
	}
	zcache_heal_schedule();
	return 0;
}

/* Pages that a drain left in guest memory, to a device that takes stores. */
static void zcache_put_back(struct zcache_transport *t,
			    struct zcache_pool *pool)
{
	int srcu;

	if (!pool->front || !pool->front->put_back)
		return;
	/* A drain waits for this section, and finds what was stored in it. */
	srcu = srcu_read_lock(&zcache_srcu);
	if (zcache_stores_wanted() && pool->front->put_back(t, pool))
		zcache_heal_schedule();
	srcu_read_unlock(&zcache_srcu, srcu);
}

static void zcache_heal_work(struct work_struct *work)
{
	struct zcache_transport *t;
	struct zcache_pool *pool;
	unsigned long id;

	mutex_lock(&zcache_mutex);
	t = zcache_current_locked();
	if (t) {
		xa_for_each(&zcache_pools, id, pool) {
			if (!pool->active)
				continue;
			if (zcache_heal(t, pool))
				break;
			/* The flush that ends a drain has them all. */
			if (!pool->map || !zcache_stores_wanted())
				continue;
			if (zcache_collect(t, pool))
				break;
			zcache_put_back(t, pool);
		}
	}
	mutex_unlock(&zcache_mutex);
}
