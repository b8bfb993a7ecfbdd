// SPDX-License-Identifier: GPL-2.0
/*
 * Slots of a swap disk: who owns one, and what happens when the kernel lets go
 * of it.
 *
 * A slot is written, and moved from place to place, in ZC_PAGE_BUSY, which its
 * owner alone ends. docs/ordering.md says why that is enough.
 */
#include <linux/highmem.h>
#include <linux/sched.h>
#include "swapdisk.h"

/**
 * zcs_claim - makes a slot ours
 * @disk:	the disk
 * @slot:	the slot
 * @old:	set to the state it was in
 *
 * Context: Any.
 * Return: false if it is somebody else's.
 */
bool zcs_claim(struct zcs_disk *disk, unsigned long slot,
	       enum zcache_page_state *old)
{
	do {
		*old = zcache_swapmap_get(disk->pool->map, slot);
		if (zcs_owned(*old))
			return false;
	} while (!zcache_swapmap_change(disk->pool->map, slot, *old,
					ZC_PAGE_BUSY));
	return true;
}

/* Gives up a slot that the kernel let go of while it was ours. */
static void zcs_settle_freed(struct zcs_disk *disk, unsigned long slot,
			     enum zcache_page_state to)
{
	struct zcache_swapmap *map = disk->pool->map;

	switch (to) {
	case ZC_PAGE_RESCUED:
		zcache_swapmap_drop_rescued(map, slot);
		fallthrough;
	case ZC_PAGE_LIVE:
	case ZC_PAGE_STALE:
	case ZC_PAGE_BAD:
		zcache_swapmap_change(map, slot, ZC_PAGE_FREED, ZC_PAGE_STALE);
		zcache_heal_schedule();
		break;
	default:
		zcache_swapmap_change(map, slot, ZC_PAGE_FREED, ZC_PAGE_NONE);
		break;
	}
}

/**
 * zcs_settle - gives a slot up
 * @disk:	the disk
 * @slot:	the slot, which is ours
 * @to:		its state from now on, if the kernel has not let go of it
 *
 * Context: Any.
 */
void zcs_settle(struct zcs_disk *disk, unsigned long slot,
		enum zcache_page_state to)
{
	if (!zcache_swapmap_change(disk->pool->map, slot, ZC_PAGE_BUSY, to))
		zcs_settle_freed(disk, slot, to);
	zcs_unpark_settled(disk);
}

/**
 * zcs_lose - takes note of a page that the device has not kept
 * @disk:	the disk
 * @slot:	where it was
 *
 * Context: Any.
 */
void zcs_lose(struct zcs_disk *disk, unsigned long slot)
{
	pr_err_ratelimited("device has not kept the page in slot %lu of %s\n",
			   slot, disk->gendisk->disk_name);
}

/*
 * Tells the device, if it is there, that a slot's page is not needed. Within
 * zcache_srcu.
 */
static bool zcs_flush(struct zcs_disk *disk, unsigned long slot)
{
	struct zcache_transport *t;
	struct zcache_key key;

	t = zcache_transport_of(disk->pool, ZC_INVALIDATE_DEFERRED,
				ZC_INVALIDATE_DEFERRED);
	if (!t)
		return false;
	zcache_swap_key(&key, slot);
	return t->ops->flush(t, disk->pool, ZCACHE_OP_FLUSH_PAGE, &key, 0);
}

static void zcs_free_slot(struct zcs_disk *disk, unsigned long slot)
{
	struct zcache_pool *pool = disk->pool;
	int srcu;

	atomic_long_inc(&disk->slot_frees);
	srcu = srcu_read_lock(&zcache_srcu);
	/*
	 * The kernel gives the slot to nobody else before we return, so it can
	 * become stale after the fact. The owner of one that is moved just now
	 * learns of it.
	 */
	switch (zcache_swapmap_release(pool->map, slot)) {
	case ZC_PAGE_LIVE:
		if (zcs_flush(disk, slot)) {
			zcs_room_freed(disk);
			break;
		}
		zcache_swapmap_change(pool->map, slot, ZC_PAGE_NONE,
				      ZC_PAGE_STALE);
		zcache_heal_schedule();
		break;
	case ZC_PAGE_BAD:
	case ZC_PAGE_RESCUED:
		zcache_heal_schedule();
		break;
	default:
		break;
	}
	srcu_read_unlock(&zcache_srcu, srcu);
}

#ifdef ZCACHE_SWAP_NOTIFY
/**
 * zcs_slot_free_notify - the kernel let go of a slot
 * @bdev:	the disk
 * @slot:	the slot
 *
 * Context: Any; under the locks of the swap area, interrupts may be off.
 */
void zcs_slot_free_notify(struct block_device *bdev, unsigned long slot)
{
	struct zcs_disk *disk = bdev->bd_disk->private_data;

	if (disk->pool && slot < disk->slots)
		zcs_free_slot(disk, slot);
}
#endif

/**
 * zcs_discard - the kernel, or whoever has the disk open, let go of slots
 * @disk:	the disk
 * @slot:	the first one
 * @count:	how many
 *
 * Context: Process context; may reschedule.
 */
void zcs_discard(struct zcs_disk *disk, unsigned long slot, unsigned long count)
{
	for (; count; count--, slot++) {
		if (!slot && disk->header)
			clear_highpage(disk->header);
		if (zcache_swapmap_get(disk->pool->map, slot) != ZC_PAGE_NONE)
			zcs_free_slot(disk, slot);
		cond_resched();
	}
}
