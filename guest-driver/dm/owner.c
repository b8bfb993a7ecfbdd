// SPDX-License-Identifier: GPL-2.0
/*
 * Which pages of a bio are page cache of this device, and out of users' reach?
 *
 * Only those leave by way of the page cache's eviction. Others are buffers of
 * direct I/O, of other filesystems stacked above, or of the filesystem itself.
 *
 * A user can hand any page that he can write to a direct read of any block that
 * he can read: one of the page cache too, by a shared mapping of his own file,
 * and have others lock it or write it meanwhile. What such a page holds when
 * the read is done is his choice, so it must not be taken for the block's. A
 * page that is read into the page cache is told from it by this: nobody can
 * have mapped a page that is not up to date.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <uapi/linux/magic.h>
#include "dm_zcache.h"

/* Flags in the low bits: anonymous, ksm, movable. */
#define MAPPING_FLAGS	3UL

/*
 * btrfs spans devices, so its superblock names none. Its holder is the
 * superblock, or the filesystem's type in older kernels.
 */
static bool dmz_sb_is_ours(struct dmz_target *t, struct super_block *sb)
{
	void *holder;

	if (sb->s_bdev)
		return sb->s_bdev == t->bdev;
	if (sb->s_magic != BTRFS_SUPER_MAGIC)
		return false;
	holder = READ_ONCE(t->bdev->bd_holder);
	return holder == sb || holder == sb->s_type;
}

/*
 * A page that is being read into is not up to date. A filesystem that failed to
 * write a page may say so of one that was, and is mapped, pinned or dirty.
 */
static bool dmz_is_read_into(struct folio *folio)
{
	return !folio_test_uptodate(folio) && !folio_test_dirty(folio) &&
	       !folio_mapped(folio) && !folio_maybe_dma_pinned(folio);
}

/*
 * A page under writeback was clean, and its mappings read-only, when that
 * began. If it is dirty again, it changes.
 */
static bool dmz_is_written(struct folio *folio)
{
	return folio_test_writeback(folio) && !folio_test_dirty(folio);
}

/**
 * dmz_page_is_cache - is this segment a page of this device's page cache?
 * @t:		the target
 * @bv:		the segment
 * @sector:	where it goes to, on the mapped device
 * @write:	the direction
 *
 * The page of a file is locked while it is read, and under writeback while it
 * is written. The device's own page cache uses neither lock for each buffer,
 * and leaves a page dirty whose buffers are written one by one. But its pages
 * are those of the block that they carry, and no user's to write.
 *
 * Context: Any. The page may be anybody's, and not be locked by the submitter
 *	    either; RCU keeps the inode that it is found in.
 */
bool dmz_page_is_cache(struct dmz_target *t, const struct bio_vec *bv,
		       sector_t sector, bool write)
{
	struct folio *folio = page_folio(bv->bv_page);
	struct address_space *mapping;
	struct inode *host;
	bool ours = false;
	pgoff_t index;

	if (!dmz_aligned(sector) || bv->bv_offset ||
	    bv->bv_len != ZCACHE_PAGE_SIZE)
		return false;
	if (folio_test_slab(folio))
		return false;

	rcu_read_lock();
	mapping = READ_ONCE(folio->mapping);
	if (!mapping || (unsigned long)mapping & MAPPING_FLAGS)
		goto unlock;
	if (mapping == t->mapping) {
		index = folio->index + folio_page_idx(folio, bv->bv_page);
		ours = index == sector / DMZ_BLOCK_SECTORS &&
		       (write || dmz_is_read_into(folio));
		goto unlock;
	}
	if (write ? !dmz_is_written(folio) :
	    !folio_test_locked(folio) || !dmz_is_read_into(folio))
		goto unlock;
	host = READ_ONCE(mapping->host);
	ours = host && dmz_sb_is_ours(t, host->i_sb) && !IS_ENCRYPTED(host);
unlock:
	rcu_read_unlock();
	return ours;
}
