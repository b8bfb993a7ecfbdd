// SPDX-License-Identifier: GPL-2.0
/*
 * What was counted, for pools that there are and for those that are gone.
 */
#include <linux/module.h>
#include "internal.h"

/* What pools that are gone had counted. Under zcache_mutex. */
static u64 zcache_retired[ZC_NR_COUNTERS];

/* Calls for pools that are gone: racing with an unmount, they do nothing. */
static atomic_long_t zcache_unknown_pool = ATOMIC_LONG_INIT(0);

/**
 * zcache_count_unknown_pool - a call was for a pool that is gone
 *
 * Context: Any.
 */
void zcache_count_unknown_pool(void)
{
	atomic_long_inc(&zcache_unknown_pool);
}

/**
 * zcache_unknown_pools - how often that was so
 *
 * Context: Any.
 */
unsigned long zcache_unknown_pools(void)
{
	return atomic_long_read(&zcache_unknown_pool);
}

/**
 * zcache_counter_sum - what a pool has counted, on all CPUs
 * @pool:	the pool
 * @counter:	of what
 *
 * Context: Any.
 */
u64 zcache_counter_sum(const struct zcache_pool *pool, int counter)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(pool->counters, cpu)->n[counter]);
	return sum;
}
EXPORT_SYMBOL_GPL(zcache_counter_sum);

/**
 * zcache_counters_retire - keeps the counts of a pool that goes away
 * @pool:	the pool, which nothing counts for any more
 *
 * Context: zcache_mutex held.
 */
void zcache_counters_retire(struct zcache_pool *pool)
{
	int i;

	lockdep_assert_held(&zcache_mutex);
	for (i = 0; i < ZC_NR_COUNTERS; i++)
		zcache_retired[i] += zcache_counter_sum(pool, i);
}

/**
 * zcache_counter_retired - what pools that are gone had counted
 * @counter:	of what
 *
 * Context: zcache_mutex held.
 */
u64 zcache_counter_retired(int counter)
{
	lockdep_assert_held(&zcache_mutex);
	return zcache_retired[counter];
}
