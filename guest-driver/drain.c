// SPDX-License-Identifier: GPL-2.0
/*
 * Brings accepted swap pages back before their device leaves.
 *
 * At first the kernel takes them back: frontswap_shrink() faults them into
 * their owners and frees the slots, as swapoff does. In 5.10 it has to be
 * watched:
 *  - it ends when enough pages were brought back, or a signal is pending, or
 *    no slot at all is in use, on disk included; so on its own it can go round
 *    for ever. It runs in a kthread, which gets a signal when it has done
 *    enough or does nothing any more, and looks for it between two processes.
 *  - slots that are free already can wait for a while in the swap slot cache
 *    (64 for each CPU) and count as in use.
 *  - with several swap areas it looks at the first one only.
 *  - where memory is short it is slow: each page it brings back is preceded by
 *    its neighbours, and pushes others out.
 * So what it has not brought back after some time is copied into guest memory,
 * beside it, and served from there once. Loads while draining help, too: the
 * page counts as changed then, and is written to the disk when it is evicted.
 */
#include <linux/delay.h>
#include <linux/frontswap.h>
#include <linux/kthread.h>
#include <linux/sched/signal.h>
#include "internal.h"

/* How often progress is looked at. */
#define POLL_MS		20
/* The kernel has so long, as long as it gets on within the second time. */
#define PATIENCE_MS	5000
#define STALL_MS	1000
/* Without any progress for so long the rest is given up. */
#define GIVE_UP_MS	30000
/* Slots of each CPU that can wait in the kernel's swap slot cache. */
#define SLOT_CACHE	64
/* The part of memory that rescued pages may take. */
#define RESCUE_PART	4

/*
 * The shrinking thread. It may outlive a drain: when it is told to end it first
 * finishes the process it is at, and in it can wait for a page of a device that
 * was lost. Only one drain runs at a time, and it alone uses these.
 */
static struct task_struct *zcache_shrinker;
static DECLARE_COMPLETION(zcache_shrinker_done);

static int zcache_shrink_thread(void *target)
{
	allow_signal(SIGTERM);
	frontswap_shrink((unsigned long)target);
	complete(&zcache_shrinker_done);
	return 0;
}

static bool zcache_shrinker_ended(void)
{
	if (zcache_shrinker && completion_done(&zcache_shrinker_done)) {
		put_task_struct(zcache_shrinker);
		zcache_shrinker = NULL;
	}
	return !zcache_shrinker;
}

static void zcache_shrinker_start(unsigned long live)
{
	unsigned long total = frontswap_curr_pages();
	struct task_struct *task;
	unsigned long target;

	/* One more than ours stays: to ask for all of an area means forever. */
	target = total > live ? total - live + 1 : 1;
	reinit_completion(&zcache_shrinker_done);
	task = kthread_create(zcache_shrink_thread, (void *)target,
			      "zcache-drain");
	if (IS_ERR(task))
		return;
	get_task_struct(task);
	zcache_shrinker = task;
	wake_up_process(task);
}

static void zcache_shrinker_stop(void)
{
	if (!zcache_shrinker_ended())
		send_sig(SIGTERM, zcache_shrinker, 1);
}

static int zcache_rescue_one(struct zcache_transport *t,
			     struct zcache_pool *pool, unsigned long offset)
{
	struct zcache_key key;
	struct page *page;
	int err;

	if (zcache_swap_total(ZC_PAGE_RESCUED) >=
	    totalram_pages() / RESCUE_PART)
		return -ENOMEM;
	page = alloc_page(GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!page)
		return -ENOMEM;
	zcache_swap_key(&key, offset);
	err = t->ops->get(t, pool, 0, &key, page);
	if (!err)
		err = zcache_swapmap_rescue(pool->map, offset, page);
	if (err)
		__free_page(page);
	return err;
}

/*
 * A page that the device does not give back stays live: the kernel may have let
 * go of it meanwhile, and if not the next load finds out and deals with it.
 */
static void zcache_rescue_pool(struct zcache_transport *t,
			       struct zcache_pool *pool)
{
	unsigned long offset = 0;
	int err;

	while (zcache_swapmap_find(pool->map, ZC_PAGE_LIVE, &offset)) {
		err = zcache_rescue_one(t, pool, offset);
		if (err == -ENOMEM || err == -EIO)
			return;
		offset++;
	}
}

static void zcache_rescue(struct zcache_transport *t)
{
	struct zcache_pool *pool;
	unsigned long id;

	mutex_lock(&zcache_mutex);
	xa_for_each(&zcache_pools, id, pool)
		if (pool->map && pool->active)
			zcache_rescue_pool(t, pool);
	mutex_unlock(&zcache_mutex);
}

static bool zcache_passed(unsigned long since, unsigned int ms)
{
	return time_after(jiffies, since + msecs_to_jiffies(ms));
}

static void zcache_bring_back(struct zcache_transport *t)
{
	const unsigned long few = SLOT_CACHE * num_online_cpus();
	unsigned long start = jiffies, progress = jiffies;
	unsigned long live, least = ULONG_MAX;

	while ((live = zcache_swap_total(ZC_PAGE_LIVE)) &&
	       !READ_ONCE(t->lost)) {
		if (live < least) {
			least = live;
			progress = jiffies;
		} else if (zcache_passed(progress, GIVE_UP_MS)) {
			break;
		}

		if (live > few && zcache_shrinker_ended())
			zcache_shrinker_start(live);
		if (zcache_passed(progress, STALL_MS))
			zcache_shrinker_stop();
		if (live <= few || zcache_passed(progress, STALL_MS) ||
		    zcache_passed(start, PATIENCE_MS))
			zcache_rescue(t);
		msleep(POLL_MS);
	}
	zcache_shrinker_stop();
}

/* What was rescued is still on the device, which may not keep it. */
static void zcache_flush_drained(struct zcache_transport *t)
{
	struct zcache_pool *pool;
	unsigned long id;

	mutex_lock(&zcache_mutex);
	xa_for_each(&zcache_pools, id, pool) {
		if (!pool->map || !pool->active ||
		    zcache_swapmap_count(pool->map, ZC_PAGE_LIVE))
			continue;
		if (t->ops->flush_wait(t, pool, ZCACHE_OP_FLUSH_POOL, NULL, 0))
			break;
		zcache_swapmap_replace_all(pool->map, ZC_PAGE_STALE,
					   ZC_PAGE_NONE);
	}
	mutex_unlock(&zcache_mutex);
}

/**
 * zcache_drain - brings all swap pages back
 * @t:	the device that has them
 *
 * Stops early if the device is lost. What is left counts as lost with it.
 *
 * Context: Process context, DRAINING: no page is stored any more.
 */
void zcache_drain(struct zcache_transport *t)
{
	unsigned long before = zcache_swap_total(ZC_PAGE_LIVE);
	unsigned long left;

	/* The disk has them all. */
	if (zcache_swap_loss == ZCACHE_LOSS_WRITETHROUGH)
		return;
	if (before)
		zcache_bring_back(t);
	zcache_flush_drained(t);

	left = zcache_swap_total(ZC_PAGE_LIVE);
	if (before)
		pr_info("drained %lu swap pages, %lu left, %lu kept in memory\n",
			before - left, left,
			zcache_swap_total(ZC_PAGE_RESCUED));
}
