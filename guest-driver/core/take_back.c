// SPDX-License-Identifier: GPL-2.0
/*
 * Takes swap pages back that the host would like to be rid of.
 *
 * A worker asks, as long as the device has pages and their front-end another
 * place for them, and takes some back at a time, as a drain does. It is a favour:
 * what the host says is bounded here, both in how often it is asked and in how
 * much is written to the guest's disk. As long as something is wanted stores go
 * to that place as well; the host could refuse them as it could any.
 *
 * The worker is freezable, so that nothing is moved once disks are suspended, and
 * nobody waits for it: reclaim gets on without.
 */
#include <linux/jiffies.h>
#include "internal.h"

/* A batch is taken back so often at most: 8 MiB/s, which disks have to spare. */
#define BATCH_MS	16
/* After the first store the device gets to know us so soon. */
#define FIRST_MS	1000
/* The host has no say in asking more often, or less. */
#define LEAST_MS	100
#define MOST_MS		60000

static void zcache_take_back_work(struct work_struct *work);
static DECLARE_DELAYED_WORK(zcache_take_back_job, zcache_take_back_work);

/* Whether the session has it; under zcache_mutex, read by anybody. */
static bool zcache_takes_back;
/* Pages that are wanted still; likewise. */
static u32 zcache_wanted;
/* jiffies64 from which on to ask; under zcache_mutex. */
static u64 zcache_ask_at;
/* The last pool that nothing could be taken from; under zcache_mutex. */
static u32 zcache_refused_by;

/**
 * zcache_take_back_begin - a device was attached
 * @takes_back:	its session has ZCACHE_F_TAKE_BACK
 *
 * Context: zcache_mutex held.
 */
void zcache_take_back_begin(bool takes_back)
{
	lockdep_assert_held(&zcache_mutex);
	WRITE_ONCE(zcache_takes_back, takes_back);
	WRITE_ONCE(zcache_wanted, 0);
	zcache_ask_at = get_jiffies_64();
	zcache_take_back_arm();
}

/**
 * zcache_take_back_arm - the device has a page that could be taken back
 *
 * Context: Any.
 */
void zcache_take_back_arm(void)
{
	if (READ_ONCE(zcache_takes_back) &&
	    !delayed_work_pending(&zcache_take_back_job))
		queue_delayed_work(system_freezable_wq, &zcache_take_back_job,
				   msecs_to_jiffies(FIRST_MS));
}
EXPORT_SYMBOL_GPL(zcache_take_back_arm);

/**
 * zcache_pages_wanted - whether the host wants to be rid of pages just now
 *
 * Context: Any.
 */
bool zcache_pages_wanted(void)
{
	return READ_ONCE(zcache_wanted);
}
EXPORT_SYMBOL_GPL(zcache_pages_wanted);

/*
 * Fewer pages than a batch are not worth asking for: a disk that nobody swaps to
 * has its header on the device.
 */
static bool zcache_takeable(const struct zcache_pool *pool)
{
	return pool->map && pool->active && pool->front && pool->front->take &&
	       zcache_swapmap_count(pool->map, ZC_PAGE_LIVE) >=
	       ZCACHE_TAKE_BATCH;
}

/*
 * The next after one that refused, so that a disk that can't be written is in
 * no other's way.
 *
 * Return: a pool with pages that can be taken back, or NULL.
 */
static struct zcache_pool *zcache_take_from(void)
{
	struct zcache_pool *pool, *first = NULL;
	unsigned long id;

	lockdep_assert_held(&zcache_mutex);
	xa_for_each(&zcache_pools, id, pool) {
		if (!zcache_takeable(pool))
			continue;
		if (id > zcache_refused_by)
			return pool;
		if (!first)
			first = pool;
	}
	return first;
}

static void zcache_ask(struct zcache_transport *t)
{
	const union zcache_req req = {
		.hdr.opcode = cpu_to_le16(ZCACHE_OP_WANTED),
	};
	struct zcache_result res;
	u32 ms = MOST_MS;
	u64 value;

	WRITE_ONCE(zcache_wanted, 0);
	/* If it is lost the next attach begins anew. */
	if (t->ops->control(t, &req, &res))
		return;
	if (res.status == cpu_to_le16(ZCACHE_S_OK)) {
		value = le64_to_cpu(res.value);
		ms = clamp_t(u32, value >> ZCACHE_WANTED_MS_SHIFT, LEAST_MS,
			     MOST_MS);
		WRITE_ONCE(zcache_wanted, lower_32_bits(value));
	} else if (res.status == cpu_to_le16(ZCACHE_S_UNSUPPORTED)) {
		WRITE_ONCE(zcache_takes_back, false);
	}
	zcache_ask_at = get_jiffies_64() + msecs_to_jiffies(ms);
}

/*
 * Takes a batch back. If none of it gets through, there is no point in more of
 * it before the host has been asked again.
 */
static void zcache_take_wanted(struct zcache_transport *t,
			       struct zcache_pool *pool)
{
	unsigned int most = min_t(u32, zcache_wanted, ZCACHE_TAKE_BATCH);
	unsigned int taken = zcache_take_some(t, pool, most);

	WRITE_ONCE(zcache_wanted, taken ? zcache_wanted - taken : 0);
	if (taken)
		/* They are elsewhere now: the device is told so. */
		zcache_heal_schedule();
	else
		zcache_refused_by = pool->id;
}

static void zcache_take_back_work(struct work_struct *work)
{
	struct zcache_transport *t;
	struct zcache_pool *pool;
	u64 now, delay = 0;

	mutex_lock(&zcache_mutex);
	t = zcache_current_locked();
	pool = zcache_take_from();
	if (!t || READ_ONCE(t->lost) || !zcache_stores_wanted() ||
	    !zcache_takes_back || !pool) {
		/* Whoever stores or attaches next arms it. */
		WRITE_ONCE(zcache_wanted, 0);
		mutex_unlock(&zcache_mutex);
		return;
	}
	if (time_after_eq64(get_jiffies_64(), zcache_ask_at))
		zcache_ask(t);
	if (zcache_wanted)
		zcache_take_wanted(t, pool);
	now = get_jiffies_64();
	if (zcache_wanted)
		delay = msecs_to_jiffies(BATCH_MS);
	else if (time_before64(now, zcache_ask_at))
		delay = zcache_ask_at - now;
	mutex_unlock(&zcache_mutex);
	mod_delayed_work(system_freezable_wq, &zcache_take_back_job, delay);
}

/* Nobody attaches or stores any more. */
void zcache_take_back_exit(void)
{
	cancel_delayed_work_sync(&zcache_take_back_job);
}
