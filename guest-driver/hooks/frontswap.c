// SPDX-License-Identifier: GPL-2.0
/*
 * frontswap front-end: swap pages, one persistent pool for each swap area.
 *
 * Who calls, in Linux 5.10:
 *
 * init		swapon, under swapon_mutex; or frontswap_register_ops() for
 *		the areas in use, which can call a second time for an area whose
 *		swapon runs at the same moment. May sleep.
 * invalidate_area
 *		the end of swapoff, under swapon_mutex, when no slot is in use
 *		any more. May sleep.
 * store	swap_writepage(): reclaim, or shmem. Page locked and in the swap
 *		cache. May sleep, must not wait for memory. If the page is in
 *		frontswap already, the kernel calls invalidate_page first.
 * load		swap_readpage(): a page fault, swapin readahead, swapoff, shmem.
 *		Page locked and in the swap cache. May sleep; mmap_lock may be
 *		held. Called for every slot that any frontswap backend has.
 * invalidate_page
 *		swap_range_free() when a slot is freed: under the lock of the
 *		swap area and possibly with interrupts off (swap slot cache). No
 *		sleeping, no allocation, no waiting for the host. Called for
 *		every slot that any backend has.
 *
 * An accepted page must come back. A load that fails makes the kernel read
 * the slot on disk, which was never written. So a load of a page we accepted
 * fails only where swap_loss=writethrough has put a copy on the disk.
 */
#include <linux/frontswap.h>
#include <linux/module.h>
#include <linux/swap.h>
#include "../core/internal.h"

static bool frontswap = true;
module_param(frontswap, bool, 0444);
MODULE_PARM_DESC(frontswap, "Take pages that are swapped out (default: Y)");

/* How often a blocked load says so. */
#define WAIT_SECONDS	10

/*
 * Pool of each swap type; changed under zcache_swap_mutex, because the calls
 * from frontswap_register_ops() are not under swapon_mutex. Nests outside
 * zcache_mutex.
 */
static DEFINE_MUTEX(zcache_swap_mutex);
static struct zcache_pool __rcu *zcache_swap_pools[MAX_SWAPFILES];

static struct zcache_pool *zcache_swap_pool(unsigned int type)
{
	return srcu_dereference(zcache_swap_pools[type], &zcache_srcu);
}

static void zcache_frontswap_init_area(unsigned int type)
{
	struct zcache_pool *pool;

	mutex_lock(&zcache_swap_mutex);
	/* The second of two calls for one swapon has nothing to add. */
	if (rcu_access_pointer(zcache_swap_pools[type]))
		goto unlock;
	pool = zcache_pool_add(ZCACHE_POOL_PERSISTENT, NULL, type);
	if (IS_ERR(pool))
		pr_warn("no memory: swap area %u is not cached\n", type);
	else
		rcu_assign_pointer(zcache_swap_pools[type], pool);
unlock:
	mutex_unlock(&zcache_swap_mutex);
}

static void zcache_frontswap_invalidate_area(unsigned int type)
{
	struct zcache_pool *pool;

	mutex_lock(&zcache_swap_mutex);
	pool = rcu_dereference_protected(zcache_swap_pools[type],
					 lockdep_is_held(&zcache_swap_mutex));
	if (pool) {
		RCU_INIT_POINTER(zcache_swap_pools[type], NULL);
		zcache_pool_remove(pool->id);
	}
	mutex_unlock(&zcache_swap_mutex);
}

static int zcache_store_pool(struct zcache_pool *pool, unsigned long offset,
			     struct page *page)
{
	struct zcache_transport *t;
	struct zcache_io io = { .page = page };
	enum zcache_page_state state;

	if (PageTransHuge(page)) {
		zcache_count(pool, ZC_STORE_HUGE);
		return -EINVAL;
	}
	t = zcache_transport_of(pool, ZC_STORE_UNATTACHED, ZC_STORE_INACTIVE);
	if (!t)
		return -ENODEV;
	if (zcache_get_state() != ZCACHE_ATTACHED) {
		zcache_count(pool, ZC_STORE_DRAINING);
		return -ENODEV;
	}
	if (!zcache_swapmap_reserve(pool->map, offset)) {
		zcache_count(pool, ZC_STORE_NOMEM);
		return -ENOMEM;
	}
	state = zcache_swapmap_get(pool->map, offset);
	if (state != ZC_PAGE_NONE) {
		/* Anything else would be a store without invalidation. */
		WARN_ON_ONCE(state != ZC_PAGE_STALE &&
			     state != ZC_PAGE_FLUSHING);
		zcache_count(pool, ZC_STORE_STALE);
		return -EBUSY;
	}

	zcache_swap_key(&io.key, offset);
	t->ops->swap_many(t, pool, ZCACHE_OP_PUT, &io, 1);
	switch (io.err) {
	case 0:
		zcache_swapmap_change(pool->map, offset, ZC_PAGE_NONE,
				      ZC_PAGE_LIVE);
		zcache_count(pool, ZC_STORES);
		break;
	case -ENOSPC:
		zcache_count(pool, ZC_STORE_REFUSED);
		break;
	default:
		/* The device may have it, and may come back. */
		zcache_swapmap_change(pool->map, offset, ZC_PAGE_NONE,
				      ZC_PAGE_STALE);
		zcache_count(pool, ZC_STORE_FAILED);
		break;
	}
	return io.err;
}

static int zcache_frontswap_store(unsigned int type, pgoff_t offset,
				  struct page *page)
{
	struct zcache_pool *pool;
	int srcu, err = -ENODEV;

	might_sleep();
	srcu = srcu_read_lock(&zcache_srcu);
	pool = zcache_swap_pool(type);
	if (pool)
		err = zcache_store_pool(pool, offset, page);
	srcu_read_unlock(&zcache_srcu, srcu);
	return err ? -1 : 0;
}

/*
 * Makes the kernel write the page to the disk before it drops it again. It is
 * in the swap cache, and locked, so nobody loads the slot until then.
 */
static void zcache_hand_over(struct page *page)
{
	SetPageDirty(page);
}

/*
 * Return: 0; -ENOENT: the page is not with us; -ENODATA: it was, and no device
 * has it; -EAGAIN: its device is away.
 */
static int zcache_load_pool(struct zcache_pool *pool, unsigned long offset,
			    struct page *page)
{
	struct zcache_transport *t;
	struct zcache_key key;
	int err;

	switch (zcache_swapmap_get(pool->map, offset)) {
	case ZC_PAGE_LIVE:
		break;
	case ZC_PAGE_RESCUED:
		copy_highpage(page, zcache_swapmap_rescued(pool->map, offset));
		zcache_hand_over(page);
		zcache_swapmap_release(pool->map, offset);
		zcache_heal_schedule();
		zcache_count(pool, ZC_LOAD_RESCUED);
		return 0;
	case ZC_PAGE_LOST:
		return -ENODATA;
	default:
		return -ENOENT;
	}

	t = zcache_transport_of(pool, ZC_LOAD_UNATTACHED, ZC_LOAD_UNATTACHED);
	if (!t)
		return -EAGAIN;
	zcache_swap_key(&key, offset);
	err = t->ops->get(t, pool, 0, &key, page);
	if (!err) {
		if (zcache_get_state() == ZCACHE_DRAINING)
			zcache_hand_over(page);
		zcache_count(pool, ZC_LOADS);
		return 0;
	}
	if (err == -EIO)
		return -EAGAIN;

	pr_err("device has not kept the page in slot %lu of swap area %d\n",
	       offset, pool->swap_type);
	zcache_swapmap_change(pool->map, offset, ZC_PAGE_LIVE, ZC_PAGE_LOST);
	return -ENODATA;
}

static int zcache_load_once(unsigned int type, unsigned long offset,
			    struct page *page, bool *counted)
{
	struct zcache_pool *pool;
	int srcu, err = -ENOENT;

	srcu = srcu_read_lock(&zcache_srcu);
	pool = zcache_swap_pool(type);
	if (pool) {
		err = zcache_load_pool(pool, offset, page);
		if ((err == -EAGAIN || err == -ENODATA) && !*counted) {
			zcache_count(pool, err == -EAGAIN ? ZC_LOAD_WAITED :
				     ZC_LOAD_LOST);
			*counted = true;
		}
	}
	srcu_read_unlock(&zcache_srcu, srcu);
	return err;
}

static int zcache_frontswap_load(unsigned int type, pgoff_t offset,
				 struct page *page)
{
	bool counted = false;
	unsigned long seq;
	int err;

	might_sleep();
	for (;;) {
		seq = zcache_attach_seq();
		err = zcache_load_once(type, offset, page, &counted);
		if (!err)
			return 0;
		if (err == -ENOENT)
			return -1;

		switch (zcache_swap_loss) {
		case ZCACHE_LOSS_WRITETHROUGH:
			/* The kernel reads the copy on disk. */
			return -1;
		case ZCACHE_LOSS_PANIC:
			if (zcache_comes_back())
				break;
			panic("zcache: swap page lost (area %u, slot %lu)",
			      type, offset);
		case ZCACHE_LOSS_WAIT:
			break;
		}
		if (!zcache_wait_attach(seq, WAIT_SECONDS))
			pr_err_ratelimited("%s[%d] waits for slot %lu of swap area %u: %s\n",
					   current->comm, task_pid_nr(current),
					   offset, type, err == -EAGAIN ?
					   "its device is away" :
					   "no device has the page any more");
	}
}

static void zcache_frontswap_invalidate_page(unsigned int type, pgoff_t offset)
{
	struct zcache_transport *t;
	struct zcache_pool *pool;
	struct zcache_key key;
	int srcu;

	srcu = srcu_read_lock(&zcache_srcu);
	pool = zcache_swap_pool(type);
	if (!pool)
		goto out;
	/*
	 * The kernel gives the slot to nobody else before we return. Until
	 * then nobody stores to it, so it can become stale after the fact.
	 */
	switch (zcache_swapmap_release(pool->map, offset)) {
	case ZC_PAGE_LIVE:
		break;
	case ZC_PAGE_RESCUED:
		zcache_heal_schedule();
		goto out;
	default:
		goto out;
	}
	t = zcache_transport_of(pool, ZC_INVALIDATE_DEFERRED,
				ZC_INVALIDATE_DEFERRED);
	zcache_swap_key(&key, offset);
	if (t && t->ops->flush(t, pool, ZCACHE_OP_FLUSH_PAGE, &key, 0))
		goto out;
	zcache_swapmap_change(pool->map, offset, ZC_PAGE_NONE, ZC_PAGE_STALE);
	if (t) {
		zcache_count(pool, ZC_INVALIDATE_DEFERRED);
		zcache_heal_schedule();
	}
out:
	srcu_read_unlock(&zcache_srcu, srcu);
}

static struct frontswap_ops zcache_frontswap_ops = {
	.init = zcache_frontswap_init_area,
	.store = zcache_frontswap_store,
	.load = zcache_frontswap_load,
	.invalidate_page = zcache_frontswap_invalidate_page,
	.invalidate_area = zcache_frontswap_invalidate_area,
};

void __init zcache_frontswap_init(void)
{
	if (!IS_ENABLED(CONFIG_FRONTSWAP) || !frontswap)
		return;
	if (zcache_swap_loss == ZCACHE_LOSS_WRITETHROUGH)
		frontswap_writethrough(true);
	frontswap_register_ops(&zcache_frontswap_ops);
}
