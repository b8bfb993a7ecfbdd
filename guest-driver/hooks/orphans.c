// SPDX-License-Identifier: GPL-2.0
/*
 * Ends pools that the kernel forgot.
 *
 * ext4 calls cleancache_init_fs() each time a mount becomes writable: at mount
 * and again at "remount,rw". The second call overwrites the pool id in the
 * superblock, and nobody ever ends the first pool. Its pages can't be reached
 * any more, so nothing stale comes from it, but it would take up room.
 *
 * init_fs() does not say for which superblock it is. So after each call a
 * worker notes which pools the mounted ext4 filesystems have; one that such a
 * filesystem had, and that none has now, is forgotten.
 */
#include <linux/fs.h>
#include <linux/module.h>
#include "../core/internal.h"

static void zcache_orphans_work(struct work_struct *work);
static DECLARE_WORK(zcache_orphans_job, zcache_orphans_work);

/* Number of the search. Only the worker uses it. */
static unsigned int zcache_round;

void zcache_orphans_schedule(void)
{
	/* Not on zcache_wq: it can wait long for a filesystem's s_umount. */
	queue_work(system_long_wq, &zcache_orphans_job);
}

/* Under s_umount, so no mount or remount of this superblock is under way. */
static void zcache_orphans_note(struct super_block *sb, void *unused)
{
	struct zcache_pool *pool;
	int srcu;

	if (sb->cleancache_poolid < 0)
		return;
	srcu = srcu_read_lock(&zcache_srcu);
	pool = zcache_pool_find(sb->cleancache_poolid);
	if (pool)
		pool->seen = zcache_round;
	srcu_read_unlock(&zcache_srcu, srcu);
}

static u32 zcache_orphans_find(void)
{
	struct zcache_pool *pool;
	unsigned long id;
	u32 orphan = 0;

	mutex_lock(&zcache_mutex);
	xa_for_each(&zcache_pools, id, pool) {
		if (pool->seen && pool->seen != zcache_round) {
			orphan = id;
			break;
		}
	}
	mutex_unlock(&zcache_mutex);
	return orphan;
}

static void zcache_orphans_work(struct work_struct *work)
{
	struct file_system_type *type;
	u32 id;

	/* get_fs_type() would load the module. */
	if (!zcache_ext4_present())
		return;
	type = get_fs_type("ext4");
	if (!type)
		return;
	zcache_round++;
	iterate_supers_type(type, zcache_orphans_note, NULL);
	module_put(type->owner);

	while ((id = zcache_orphans_find())) {
		pr_info("pool %u was forgotten at a remount\n", id);
		zcache_pool_remove(id);
	}
}
