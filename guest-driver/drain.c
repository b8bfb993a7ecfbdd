// SPDX-License-Identifier: GPL-2.0
/*
 * Brings accepted swap pages back before their device leaves.
 *
 * First the kernel takes them back: frontswap_shrink() faults them into their
 * owners and frees the slots, as swapoff does. In 5.10 it has to be watched:
 *  - it ends when enough pages were brought back, or a signal is pending, or
 *    no slot at all is in use, on disk included; so on its own it can go round
 *    for ever. It runs in a kthread, which gets a signal when it has done
 *    enough or does nothing any more.
 *  - slots that are free already can wait for a while in the swap slot cache
 *    (64 for each CPU) and count as in use.
 *  - with several swap areas it looks at the first one only.
 * What is left then is copied into guest memory and served from there.
 */
#include <linux/delay.h>
#include <linux/frontswap.h>
#include <linux/kthread.h>
#include <linux/sched/signal.h>
#include "core.h"

/* How often progress is looked at, and how long there may be none. */
#define POLL_MS		20
#define STALL_MS	1000
/* Passes without progress before giving up on the kernel. */
#define IDLE_PASSES	2
/* Slots of each CPU that can wait in the kernel's swap slot cache. */
#define SLOT_CACHE	64
/* Rounds of rescuing, and the pause before the next for memory to get free. */
#define RESCUE_ROUNDS	50
#define RESCUE_PAUSE_MS	100

/*
 * The shrinking thread. It may be blocked in a load from a device that was
 * lost while draining; then it outlives the drain, and ends when the page is
 * there.
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

static bool zcache_shrink_start(void)
{
	unsigned long total = frontswap_curr_pages();
	unsigned long live = zcache_swap_total(ZC_PAGE_LIVE);
	struct task_struct *task;
	unsigned long target;

	/* One more than ours stays: to ask for all of an area means forever. */
	target = total > live ? total - live + 1 : 1;
	reinit_completion(&zcache_shrinker_done);
	task = kthread_create(zcache_shrink_thread, (void *)target,
			      "zcache-drain");
	if (IS_ERR(task))
		return false;
	get_task_struct(task);
	zcache_shrinker = task;
	wake_up_process(task);
	return true;
}

/* Return: false if it does not end: it waits for a page of a lost device. */
static bool zcache_shrink_stop(struct zcache_transport *t)
{
	while (!completion_done(&zcache_shrinker_done)) {
		if (READ_ONCE(t->lost))
			return false;
		send_sig(SIGTERM, zcache_shrinker, 1);
		msleep(POLL_MS);
	}
	put_task_struct(zcache_shrinker);
	zcache_shrinker = NULL;
	return true;
}

/* What is left when the kernel has done what it can do quickly. */
static bool zcache_drained(void)
{
	return zcache_swap_total(ZC_PAGE_LIVE) <=
	       SLOT_CACHE * num_online_cpus();
}

static void zcache_shrink(struct zcache_transport *t)
{
	unsigned long live, before, since;
	int idle = 0;

	while (!zcache_drained() && idle < IDLE_PASSES && !READ_ONCE(t->lost)) {
		before = zcache_swap_total(ZC_PAGE_LIVE);
		if (!zcache_shrink_start())
			return;
		live = before;
		since = jiffies;
		while (!completion_done(&zcache_shrinker_done) &&
		       !zcache_drained() && !READ_ONCE(t->lost)) {
			msleep(POLL_MS);
			if (zcache_swap_total(ZC_PAGE_LIVE) < live) {
				live = zcache_swap_total(ZC_PAGE_LIVE);
				since = jiffies;
			} else if (time_after(jiffies, since +
					      msecs_to_jiffies(STALL_MS))) {
				break;
			}
		}
		if (!zcache_shrink_stop(t))
			return;
		if (zcache_swap_total(ZC_PAGE_LIVE) < before)
			idle = 0;
		else
			idle++;
	}
}

static int zcache_rescue_one(struct zcache_transport *t,
			     struct zcache_pool *pool, unsigned long offset)
{
	struct zcache_key key;
	struct page *page;
	int err;

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
	int round;

	for (round = 0; round < RESCUE_ROUNDS; round++) {
		if (round)
			msleep(RESCUE_PAUSE_MS);
		mutex_lock(&zcache_mutex);
		xa_for_each(&zcache_pools, id, pool)
			if (pool->map && pool->active)
				zcache_rescue_pool(t, pool);
		mutex_unlock(&zcache_mutex);
		if (!zcache_swap_total(ZC_PAGE_LIVE) || READ_ONCE(t->lost))
			return;
	}
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
	if (!before || zcache_swap_loss == ZCACHE_LOSS_WRITETHROUGH)
		return;
	if (zcache_shrinker && completion_done(&zcache_shrinker_done))
		zcache_shrink_stop(t);
	if (!zcache_shrinker)
		zcache_shrink(t);

	zcache_rescue(t);
	zcache_flush_drained(t);

	left = zcache_swap_total(ZC_PAGE_LIVE);
	pr_info("drained %lu swap pages (%lu kept in memory), %lu left\n",
		before - left, zcache_swap_total(ZC_PAGE_RESCUED), left);
}
