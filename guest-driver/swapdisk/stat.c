// SPDX-License-Identifier: GPL-2.0
/*
 * What is to be seen of a swap disk: /sys/block/zcswapN/zc_stat, "key value"
 * lines.
 */
#include <linux/sysfs.h>
#include "swapdisk.h"

static ssize_t zc_stat_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	static const struct {
		const char *name;
		enum zcache_page_state state;
	} states[] = {
		{ "pages_live", ZC_PAGE_LIVE },
		{ "pages_stale", ZC_PAGE_STALE },
		{ "pages_lost", ZC_PAGE_LOST },
		{ "pages_kept", ZC_PAGE_KEPT },
		{ "pages_rescued", ZC_PAGE_RESCUED },
		{ "pages_bad", ZC_PAGE_BAD },
		{ "pages_busy", ZC_PAGE_BUSY },
	};
	static const struct {
		const char *name;
		enum zcache_counter counter;
	} counters[] = {
		{ "stores", ZC_STORES },
		{ "store_refused", ZC_STORE_REFUSED },
		{ "store_full", ZC_STORE_FULL },
		{ "store_unattached", ZC_STORE_UNATTACHED },
		{ "store_draining", ZC_STORE_DRAINING },
		{ "store_wanted", ZC_STORE_WANTED },
		{ "store_failed", ZC_STORE_FAILED },
		{ "loads", ZC_LOADS },
		{ "load_rescued", ZC_LOAD_RESCUED },
		{ "load_waited", ZC_LOAD_WAITED },
		{ "load_lost", ZC_LOAD_LOST },
		{ "taken_back", ZC_TAKEN_BACK },
	};
	struct zcs_disk *disk = zcs_of(dev);
	unsigned int i;
	ssize_t len = 0;

	mutex_lock(&disk->lock);
	if (!disk->pool)
		goto unlock;
	len += sysfs_emit_at(buf, len, "pool %u\n", disk->pool->id);
	len += sysfs_emit_at(buf, len, "pages %lu\n", disk->slots);
	for (i = 0; i < ARRAY_SIZE(states); i++)
		len += sysfs_emit_at(buf, len, "%s %lu\n", states[i].name,
				     zcache_swapmap_count(disk->pool->map,
							  states[i].state));
	len += sysfs_emit_at(buf, len, "pages_away %lu\n", zcache_attached() ?
			     0 : zcache_swapmap_count(disk->pool->map,
						      ZC_PAGE_LIVE));
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		len += sysfs_emit_at(buf, len, "%s %llu\n", counters[i].name,
				     zcache_counter_sum(disk->pool,
							counters[i].counter));
	len += sysfs_emit_at(buf, len, "reads_waiting %d\n",
			     atomic_read(&disk->nr_away));
	len += sysfs_emit_at(buf, len, "slots_hidden %ld\n",
			     READ_ONCE(disk->room.hidden));
	len += sysfs_emit_at(buf, len, "backing_reads %ld\n",
			     atomic_long_read(&disk->backing_reads));
	len += sysfs_emit_at(buf, len, "backing_writes %ld\n",
			     atomic_long_read(&disk->backing_writes));
	len += sysfs_emit_at(buf, len, "backing_errors %ld\n",
			     atomic_long_read(&disk->backing_errors));
	len += sysfs_emit_at(buf, len, "slot_frees %ld\n",
			     atomic_long_read(&disk->slot_frees));
unlock:
	mutex_unlock(&disk->lock);
	return len;
}
DEVICE_ATTR_RO(zc_stat);
