// SPDX-License-Identifier: GPL-2.0
/*
 * cleancache front-end: clean pages of mounted filesystems.
 *
 * Who calls, in Linux 5.10:
 *
 * init_fs, init_shared_fs
 *	mount (ext4_setup_super, btrfs_fill_super, ocfs2_initialize_super) under
 *	s_umount, or cleancache_register_ops() for what is mounted already.
 *	May sleep. ext4 calls it again when a mount becomes writable and
 *	forgets the first id: see orphans.c.
 * get_page
 *	->readpage and readahead (do_mpage_readpage, ext4_mpage_readpages,
 *	btrfs_do_readpage). Page locked. May sleep, must not enter reclaim of
 *	the filesystem: nothing is allocated.
 * put_page, invalidate_page
 *	unaccount_page_cache_page(), under the lock of the page tree with
 *	interrupts off: no sleeping, no allocation, no waiting for the host
 *	(but for the short spin of a put that finds no slot, see transport/wait.c).
 *	Page locked, and about to leave the page cache. Also invalidate_page
 *	from truncate_inode_pages_range() for a page that is zeroed in part.
 * invalidate_inode
 *	the end of truncate_inode_pages_range() and of
 *	invalidate_inode_pages2_range(), invalidate_bdev(). Inode eviction calls
 *	it too, from reclaim; so it does not wait either.
 * invalidate_fs
 *	deactivate_locked_super(), under s_umount, before ->kill_sb. May sleep.
 *	sb->cleancache_poolid is cleared before, but a put that read it earlier
 *	may still come.
 *
 * For one page the page lock orders these calls, or the tree lock does; for a
 * whole inode the callers hold off new pages. That is the order docs/ordering.md
 * builds on.
 */
#include <linux/cleancache.h>
#include <linux/module.h>
#include "../core/internal.h"

static bool cleancache = true;
module_param(cleancache, bool, 0444);
MODULE_PARM_DESC(cleancache, "Cache clean file pages (default: Y)");

static struct zcache_key zcache_file_key(struct cleancache_filekey file,
					 pgoff_t index)
{
	struct zcache_key key = { .index = index };

	BUILD_BUG_ON(sizeof(file.u.key) != sizeof(key.object));
	memcpy(key.object, file.u.key, sizeof(key.object));
	return key;
}

/*
 * Some filesystems ask for pages but never put one (btrfs, because it does not
 * mark them as mapped to disk). A put that happened before this call, for the
 * same key, has set the flag.
 */
static bool zcache_surely_empty(struct zcache_pool *pool)
{
	return !(pool->flags & ZCACHE_POOL_SHARED) && !READ_ONCE(pool->filled);
}

static int zcache_init_pool(u16 flags, const u8 *uuid, size_t page_size)
{
	struct zcache_pool *pool;

	/* Nothing says whose pool this will be. */
	if (page_size != ZCACHE_PAGE_SIZE || !zcache_ext4_watched())
		return -1;
	pool = zcache_pool_add(flags, uuid, -1);
	if (IS_ERR(pool))
		return -1;
	zcache_orphans_schedule();
	return pool->id;
}

static int zcache_init_fs(size_t page_size)
{
	return zcache_init_pool(0, NULL, page_size);
}

static int zcache_init_shared_fs(uuid_t *uuid, size_t page_size)
{
	return zcache_init_pool(ZCACHE_POOL_SHARED, uuid->b, page_size);
}

static void zcache_invalidate_fs(int pool_id)
{
	zcache_pool_remove(pool_id);
}

static int zcache_get_page(int pool_id, struct cleancache_filekey file,
			   pgoff_t index, struct page *page)
{
	struct zcache_key key = zcache_file_key(file, index);
	struct zcache_transport *t;
	struct zcache_pool *pool;
	int srcu, err = -ENODEV;
	u16 flags;

	might_sleep();
	srcu = srcu_read_lock(&zcache_srcu);
	pool = zcache_pool_find(pool_id);
	if (!pool) {
		zcache_count_unknown_pool();
		goto out;
	}
	t = zcache_transport_of(pool, ZC_GET_UNATTACHED, ZC_GET_INACTIVE);
	if (!t)
		goto out;
	if (zcache_surely_empty(pool)) {
		zcache_count(pool, ZC_GET_EMPTY);
		goto out;
	}

	/* The page is ours now, unless other guests want it too. */
	flags = pool->flags & ZCACHE_POOL_SHARED ? 0 : ZCACHE_GET_EXCLUSIVE;
	err = t->ops->get(t, pool, flags, &key, page);
out:
	srcu_read_unlock(&zcache_srcu, srcu);
	return err ? -1 : 0;
}

static void zcache_put_page(int pool_id, struct cleancache_filekey file,
			    pgoff_t index, struct page *page)
{
	struct zcache_key key = zcache_file_key(file, index);
	struct zcache_transport *t;
	struct zcache_pool *pool;
	int srcu;

	srcu = srcu_read_lock(&zcache_srcu);
	pool = zcache_pool_find(pool_id);
	if (!pool) {
		zcache_count_unknown_pool();
		goto out;
	}
	t = zcache_transport_of(pool, ZC_PUT_UNATTACHED, ZC_PUT_INACTIVE);
	if (!t)
		goto out;

	if (PageTransHuge(page)) {
		/*
		 * The kernel calls once for all of it. Older copies of any
		 * part must not stay.
		 */
		zcache_count(pool, ZC_PUT_HUGE);
		t->ops->flush(t, pool, ZCACHE_OP_FLUSH_RANGE, &key,
			      thp_nr_pages(page));
		goto out;
	}
	if (!READ_ONCE(pool->filled))
		WRITE_ONCE(pool->filled, true);
	t->ops->put(t, pool, &key, page, true,
		    ktime_get_ns() + ZCACHE_PUT_WAIT);
out:
	srcu_read_unlock(&zcache_srcu, srcu);
}

static void zcache_invalidate(int pool_id, struct cleancache_filekey file,
			      u16 opcode, pgoff_t index)
{
	struct zcache_key key = zcache_file_key(file, index);
	struct zcache_transport *t;
	struct zcache_pool *pool;
	int srcu;

	srcu = srcu_read_lock(&zcache_srcu);
	pool = zcache_pool_find(pool_id);
	if (!pool) {
		zcache_count_unknown_pool();
		goto out;
	}
	t = zcache_transport_of(pool, ZC_INVALIDATE_UNATTACHED,
				ZC_INVALIDATE_UNATTACHED);
	if (t && !zcache_surely_empty(pool))
		t->ops->flush(t, pool, opcode, &key, 0);
out:
	srcu_read_unlock(&zcache_srcu, srcu);
}

static void zcache_invalidate_page(int pool_id, struct cleancache_filekey file,
				   pgoff_t index)
{
	zcache_invalidate(pool_id, file, ZCACHE_OP_FLUSH_PAGE, index);
}

static void zcache_invalidate_inode(int pool_id, struct cleancache_filekey file)
{
	zcache_invalidate(pool_id, file, ZCACHE_OP_FLUSH_OBJECT, 0);
}

static const struct cleancache_ops zcache_cleancache_ops = {
	.init_fs = zcache_init_fs,
	.init_shared_fs = zcache_init_shared_fs,
	.get_page = zcache_get_page,
	.put_page = zcache_put_page,
	.invalidate_page = zcache_invalidate_page,
	.invalidate_inode = zcache_invalidate_inode,
	.invalidate_fs = zcache_invalidate_fs,
};

int __init zcache_cleancache_init(void)
{
	int err;

	if (!IS_ENABLED(CONFIG_CLEANCACHE) || !cleancache)
		return 0;
	err = zcache_ext4_init();
	if (err) {
		pr_warn("file pages are not cached: can't watch ext4 (%d); kernels need CONFIG_TRACEPOINTS for it\n",
			err);
		return 0;
	}
	err = cleancache_register_ops(&zcache_cleancache_ops);
	if (err) {
		pr_err("cleancache has a backend already\n");
		zcache_ext4_exit();
	}
	return err;
}
