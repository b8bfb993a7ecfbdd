// SPDX-License-Identifier: GPL-2.0
/*
 * debugfs files in zcache/:
 *
 * stats	"key value" lines: state, swap pages by state, the sum of each
 *		counter over all pools there ever were, the transport's own
 * pools	one line for each pool: a header, then values in its columns
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include "internal.h"

static const char * const zcache_counter_names[ZC_NR_COUNTERS] = {
	[ZC_PUTS] = "puts",
	[ZC_PUT_DROPPED_RING_FULL] = "put_dropped_ring_full",
	[ZC_PUT_DROPPED_POISONED] = "put_dropped_poisoned",
	[ZC_PUT_UNATTACHED] = "put_unattached",
	[ZC_PUT_INACTIVE] = "put_inactive",
	[ZC_PUT_HUGE] = "put_huge",
	[ZC_GETS] = "gets",
	[ZC_GET_HITS] = "get_hits",
	[ZC_GET_MISSES] = "get_misses",
	[ZC_GET_FAILED] = "get_failed",
	[ZC_GET_POISONED] = "get_poisoned",
	[ZC_GET_EMPTY] = "get_empty",
	[ZC_GET_UNATTACHED] = "get_unattached",
	[ZC_GET_INACTIVE] = "get_inactive",
	[ZC_INVALIDATES] = "invalidates",
	[ZC_INVALIDATE_UNATTACHED] = "invalidate_unattached",
	[ZC_INVALIDATE_BACKLOGGED] = "invalidate_backlogged",
	[ZC_INVALIDATE_DEFERRED] = "invalidate_deferred",
	[ZC_POOL_POISONED] = "pool_poisoned",
	[ZC_POOL_HEALED] = "pool_healed",
	[ZC_STORES] = "stores",
	[ZC_STORE_REFUSED] = "store_refused",
	[ZC_STORE_FULL] = "store_full",
	[ZC_STORE_FAILED] = "store_failed",
	[ZC_STORE_UNATTACHED] = "store_unattached",
	[ZC_STORE_DRAINING] = "store_draining",
	[ZC_STORE_INACTIVE] = "store_inactive",
	[ZC_STORE_NOMEM] = "store_nomem",
	[ZC_STORE_STALE] = "store_stale",
	[ZC_STORE_WANTED] = "store_wanted",
	[ZC_STORE_HUGE] = "store_huge",
	[ZC_LOADS] = "loads",
	[ZC_LOAD_RESCUED] = "load_rescued",
	[ZC_LOAD_UNATTACHED] = "load_unattached",
	[ZC_LOAD_WAITED] = "load_waited",
	[ZC_LOAD_LOST] = "load_lost",
	[ZC_TAKEN_BACK] = "taken_back",
};

static struct dentry *zcache_dir;

static int stats_show(struct seq_file *m, void *unused)
{
	struct zcache_transport *t;
	struct zcache_pool *pool;
	unsigned int pools = 0, active = 0;
	unsigned long id;
	u64 sum;
	int i;

	mutex_lock(&zcache_mutex);
	zcache_session_show(m);
	xa_for_each(&zcache_pools, id, pool) {
		pools++;
		active += pool->active;
	}
	seq_printf(m, "pools %u\n", pools);
	seq_printf(m, "pools_active %u\n", active);
	seq_printf(m, "unknown_pool %lu\n", zcache_unknown_pools());
	seq_printf(m, "swap_pages_live %lu\n",
		   zcache_swap_total(ZC_PAGE_LIVE));
	seq_printf(m, "swap_pages_away %lu\n",
		   zcache_attached() ? 0 : zcache_swap_total(ZC_PAGE_LIVE));
	seq_printf(m, "swap_pages_stale %lu\n",
		   zcache_swap_total(ZC_PAGE_STALE));
	seq_printf(m, "swap_pages_lost %lu\n",
		   zcache_swap_total(ZC_PAGE_LOST));
	seq_printf(m, "swap_pages_rescued %lu\n",
		   zcache_swap_total(ZC_PAGE_RESCUED));
	seq_printf(m, "swap_pages_kept %lu\n",
		   zcache_swap_total(ZC_PAGE_KEPT));
	for (i = 0; i < ZC_NR_COUNTERS; i++) {
		sum = zcache_counter_retired(i);
		xa_for_each(&zcache_pools, id, pool)
			sum += zcache_counter_sum(pool, i);
		seq_printf(m, "%s %llu\n", zcache_counter_names[i], sum);
	}
	t = zcache_current_locked();
	if (t)
		t->ops->show(t, m);
	mutex_unlock(&zcache_mutex);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int pools_show(struct seq_file *m, void *unused)
{
	struct zcache_pool *pool;
	unsigned long id;
	int i;

	seq_puts(m, "id kind sharing active uuid swap_type poison");
	for (i = 0; i < ZC_NR_COUNTERS; i++)
		seq_printf(m, " %s", zcache_counter_names[i]);
	seq_putc(m, '\n');

	mutex_lock(&zcache_mutex);
	xa_for_each(&zcache_pools, id, pool) {
		seq_printf(m, "%u %s %s %d %pUb %d %ld", pool->id,
			   zcache_pool_persistent(pool) ? "persistent" :
			   "ephemeral",
			   pool->flags & ZCACHE_POOL_SHARED ? "shared" :
			   "private",
			   pool->active, pool->uuid, pool->swap_type,
			   atomic_long_read(&pool->poison));
		for (i = 0; i < ZC_NR_COUNTERS; i++)
			seq_printf(m, " %llu", zcache_counter_sum(pool, i));
		seq_putc(m, '\n');
	}
	mutex_unlock(&zcache_mutex);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(pools);

void __init zcache_stats_init(void)
{
	zcache_dir = debugfs_create_dir("zcache", NULL);
	debugfs_create_file("stats", 0444, zcache_dir, NULL, &stats_fops);
	debugfs_create_file("pools", 0444, zcache_dir, NULL, &pools_fops);
}

void zcache_stats_exit(void)
{
	debugfs_remove(zcache_dir);
}
