// SPDX-License-Identifier: GPL-2.0
/*
 * Brings accepted swap pages back before their device leaves.
 *
 * At first the kernel takes them back where it can: see hooks/swapin.c. What it has
 * not brought back after some time, or all where it can't, is copied into guest
 * memory, and served from there once. Loads while draining help, too: the page
 * counts as changed then, and is written to the disk when it is evicted.
 */
#include <linux/blkdev.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include "internal.h"

/* How often progress is looked at. */
#define POLL_MS		20
/* The kernel has so long, as long as it gets on within the second time. */
#define PATIENCE_MS	5000
#define STALL_MS	1000
/* Without any progress for so long the rest is given up. */
#define GIVE_UP_MS	30000
/* That is, if the kernel is no help, and only memory that gets free could be. */
#define NO_ROOM_MS	2000
/* Slots of each CPU that can wait in the kernel's swap slot cache. */
#define SLOT_CACHE	64
/* The part of memory that rescued pages may take, and what they leave. */
#define RESCUE_PART	2
#define SPARE_PART	8

/* The pages that the device is asked for at a time; under zcache_mutex. */
static unsigned long zcache_taken_offset[ZCACHE_TAKE_BATCH];
static struct zcache_io zcache_taken_io[ZCACHE_TAKE_BATCH];

/*
 * Nothing can be swapped out meanwhile, so what is taken from the guest is taken
 * for good: only what it can do without.
 */
static struct page *zcache_rescue_take(struct zcache_pool *pool,
				       unsigned long offset)
{
	struct page *page;

	if (zcache_swap_total(ZC_PAGE_RESCUED) >=
	    totalram_pages() / RESCUE_PART ||
	    si_mem_available() < (long)(totalram_pages() / SPARE_PART))
		return ERR_PTR(-ENOMEM);
	page = alloc_page(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	return page ?: ERR_PTR(-ENOMEM);
}

/*
 * A page that the device does not give back stays live: the kernel may have let
 * go of it meanwhile, and if not the next load finds out and deals with it.
 */
static void zcache_rescue_taken(struct zcache_pool *pool, unsigned long offset,
				struct page *page, int err)
{
	if (!err)
		err = zcache_swapmap_rescue(pool->map, offset, page);
	if (err)
		__free_page(page);
}

/* For pools whose front-end has no other place: guest memory. */
static const struct zcache_swap_front zcache_rescue_front = {
	.take = zcache_rescue_take,
	.taken = zcache_rescue_taken,
};

/*
 * Takes a batch of pages back, and of @most live slots.
 *
 * Sets *@slots to how many live slots it has found, and *@nr to how many pages
 * of these the device was asked for.
 *
 * Return: 0: there may be more, from *@offset on; -ENOENT: that was all;
 * another error: no more can be taken now.
 */
static int zcache_take_batch(struct zcache_transport *t,
			     struct zcache_pool *pool,
			     const struct zcache_swap_front *front,
			     unsigned long *offset, unsigned int most,
			     unsigned int *slots, unsigned int *nr)
{
	struct zcache_io *io = zcache_taken_io;
	unsigned int i, n = 0;
	struct blk_plug plug;
	int err = 0;

	lockdep_assert_held(&zcache_mutex);
	for (*slots = 0; n < ZCACHE_TAKE_BATCH && *slots < most; ++*slots) {
		if (!zcache_swapmap_find(pool->map, ZC_PAGE_LIVE, offset)) {
			err = -ENOENT;
			break;
		}
		io[n].page = front->take(pool, *offset);
		if (!IS_ERR(io[n].page)) {
			zcache_swap_key(&io[n].key, *offset);
			zcache_taken_offset[n++] = *offset;
		} else if (io[n].page != ERR_PTR(-ENOENT)) {
			err = PTR_ERR(io[n].page);
			break;
		}
		++*offset;
	}
	*nr = n;

	t->ops->swap_many(t, pool, ZCACHE_OP_GET, io, n);
	blk_start_plug(&plug);
	for (i = 0; i < n; i++) {
		front->taken(pool, zcache_taken_offset[i], io[i].page,
			     io[i].err);
		if (io[i].err == -EIO)
			err = -EIO;
	}
	blk_finish_plug(&plug);
	return err;
}

static void zcache_rescue_pool(struct zcache_transport *t,
			       struct zcache_pool *pool)
{
	const struct zcache_swap_front *front = pool->front;
	unsigned long offset = 0;
	unsigned int slots, nr;

	if (!front || !front->take)
		front = &zcache_rescue_front;
	while (!zcache_take_batch(t, pool, front, &offset, UINT_MAX, &slots,
				  &nr))
		cond_resched();
	if (front->finish)
		front->finish(pool);
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
	const unsigned int give_up = zcache_swapin_offered() ? GIVE_UP_MS :
				     NO_ROOM_MS;
	const unsigned long few = SLOT_CACHE * num_online_cpus();
	unsigned long start = jiffies, progress = jiffies;
	unsigned long live, least = ULONG_MAX;

	while ((live = zcache_swap_total(ZC_PAGE_LIVE)) &&
	       !READ_ONCE(t->lost)) {
		if (live < least) {
			least = live;
			progress = jiffies;
		} else if (zcache_passed(progress, give_up)) {
			break;
		}

		if (zcache_swapin_offered() && live > few &&
		    zcache_swapin_ended())
			zcache_swapin_start(live);
		if (zcache_passed(progress, STALL_MS))
			zcache_swapin_stop();
		if (!zcache_swapin_offered() || live <= few ||
		    zcache_passed(progress, STALL_MS) ||
		    zcache_passed(start, PATIENCE_MS))
			zcache_rescue(t);
		msleep(POLL_MS);
	}
	zcache_swapin_stop();
}

/* What was rescued is still on the device, which may not keep it. */
static int zcache_flush_drained_pool(struct zcache_transport *t,
				     struct zcache_pool *pool)
{
	int err;

	lockdep_assert_held(&zcache_mutex);
	if (zcache_swapmap_count(pool->map, ZC_PAGE_LIVE))
		return 0;
	err = t->ops->flush_wait(t, pool, ZCACHE_OP_FLUSH_POOL, NULL, 0);
	if (!err)
		zcache_swapmap_replace_all(pool->map, ZC_PAGE_STALE,
					   ZC_PAGE_NONE);
	return err;
}

static void zcache_flush_drained(struct zcache_transport *t)
{
	struct zcache_pool *pool;
	unsigned long id;

	mutex_lock(&zcache_mutex);
	xa_for_each(&zcache_pools, id, pool)
		if (pool->map && pool->active &&
		    zcache_flush_drained_pool(t, pool))
			break;
	mutex_unlock(&zcache_mutex);
}

/**
 * zcache_drain - brings all swap pages back
 * @t:	the device that has them
 *
 * Stops early if the device is lost, or no more pages find room. What is left
 * stays with the device, and swap_loss says what becomes of who needs it.
 *
 * Context: Process context, DRAINING: no page is stored any more.
 */
void zcache_drain(struct zcache_transport *t)
{
	unsigned long before = zcache_swap_total(ZC_PAGE_LIVE);
	unsigned long left;

	/* The disk that frontswap is in front of has them all. */
	if (zcache_swapin_offered() &&
	    zcache_swap_loss == ZCACHE_LOSS_WRITETHROUGH)
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

/**
 * zcache_take_some - brings some pages of a pool to where its front-end puts them
 * @t:		the device
 * @pool:	the pool, whose front-end has such a place
 * @most:	how many, ZCACHE_TAKE_BATCH at most
 *
 * When it returns nothing is under way any more.
 *
 * Context: Process context, zcache_mutex held. Waits for the front-end's device.
 * Return: How many are there now; the device may have them as well.
 */
unsigned int zcache_take_some(struct zcache_transport *t,
			      struct zcache_pool *pool, unsigned int most)
{
	const struct zcache_swap_front *front = pool->front;
	unsigned int i, slots, nr, taken = 0;

	/* Round and round, so that a page that can't be written is in nobody's way. */
	if (!zcache_swapmap_find(pool->map, ZC_PAGE_LIVE, &pool->take_next))
		pool->take_next = 0;
	zcache_take_batch(t, pool, front, &pool->take_next, most, &slots, &nr);
	if (front->finish)
		front->finish(pool);
	if (front->copied)
		taken = slots;
	for (i = 0; i < nr; i++)
		if (!zcache_taken_io[i].err &&
		    zcache_swapmap_get(pool->map, zcache_taken_offset[i]) !=
		    ZC_PAGE_LIVE)
			taken++;
	this_cpu_add(pool->counters->n[ZC_TAKEN_BACK], taken);
	return taken;
}

/**
 * zcache_swap_pool_drain - brings all pages of one pool back
 * @pool:	the pool, whose front-end stores nothing more
 *
 * Context: Process context. Takes zcache_mutex.
 * Return: 0; -ENODEV: their device is away; -EIO: some are left.
 */
int zcache_swap_pool_drain(struct zcache_pool *pool)
{
	struct zcache_transport *t;
	int err = 0;

	mutex_lock(&zcache_mutex);
	if (!zcache_swapmap_count(pool->map, ZC_PAGE_LIVE))
		goto unlock;
	t = zcache_current_locked();
	if (!t || !pool->active) {
		err = -ENODEV;
		goto unlock;
	}
	zcache_rescue_pool(t, pool);
	err = zcache_flush_drained_pool(t, pool);
	if (zcache_swapmap_count(pool->map, ZC_PAGE_LIVE))
		err = -EIO;
unlock:
	mutex_unlock(&zcache_mutex);
	return err;
}
EXPORT_SYMBOL_GPL(zcache_swap_pool_drain);
