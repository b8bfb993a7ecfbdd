// SPDX-License-Identifier: GPL-2.0
/*
 * Slots of a swap disk: who owns one, and what happens when the kernel lets go
 * of it.
 *
 * A slot is written, and brought back, in ZC_PAGE_BUSY, which its owner alone
 * ends. docs/ordering.md says why that is enough.
 */
#include <linux/sched.h>
#include "swapdisk.h"

bool zcs_busy(struct zcs_disk *disk, unsigned long slot)
{
	return zcache_swapmap_get(disk->pool->map, slot) == ZC_PAGE_BUSY;
}

/**
 * zcs_claim - makes a slot ours
 * @disk:	the disk
 * @slot:	the slot
 *
 * Waits for its owner, if there is one. Who has claimed slots may wait for
 * higher ones only.
 *
 * Context: Process context; sleeps, does not wait for memory.
 * Return: the state it was in.
 */
enum zcache_page_state zcs_claim(struct zcs_disk *disk, unsigned long slot)
{
	enum zcache_page_state old;

	for (;;) {
		wait_event(disk->settled, !zcs_busy(disk, slot));
		old = zcache_swapmap_get(disk->pool->map, slot);
		if (old != ZC_PAGE_BUSY &&
		    zcache_swapmap_change(disk->pool->map, slot, old,
					  ZC_PAGE_BUSY))
			return old;
	}
}

/**
 * zcs_settle - gives a slot up
 * @disk:	the disk
 * @slot:	the slot, which is ours
 * @to:		its state from now on
 *
 * Context: Any.
 */
void zcs_settle(struct zcs_disk *disk, unsigned long slot,
		enum zcache_page_state to)
{
	zcache_swapmap_change(disk->pool->map, slot, ZC_PAGE_BUSY, to);
	if (wq_has_sleeper(&disk->settled))
		wake_up_all(&disk->settled);
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
	zcache_count(disk->pool, ZC_LOAD_LOST);
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

	srcu = srcu_read_lock(&zcache_srcu);
	/*
	 * The kernel gives the slot to nobody else before we return, so it can
	 * become stale after the fact. One that is being brought back stays
	 * with whoever does that.
	 */
	if (zcache_swapmap_release(pool->map, slot) == ZC_PAGE_LIVE &&
	    !zcs_flush(disk, slot)) {
		zcache_swapmap_change(pool->map, slot, ZC_PAGE_NONE,
				      ZC_PAGE_STALE);
		zcache_heal_schedule();
	}
	srcu_read_unlock(&zcache_srcu, srcu);
}

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

	if (!disk->pool || slot >= disk->slots)
		return;
	atomic_long_inc(&disk->slot_frees);
	zcs_free_slot(disk, slot);
}

/**
 * zcs_discard - as zcs_slot_free_notify(), for consecutive slots
 * @disk:	the disk
 * @slot:	the first one
 * @count:	how many
 *
 * Context: Process context; may reschedule.
 */
void zcs_discard(struct zcs_disk *disk, unsigned long slot, unsigned long count)
{
	for (; count; count--, slot++) {
		if (zcache_swapmap_get(disk->pool->map, slot) != ZC_PAGE_NONE)
			zcs_free_slot(disk, slot);
		cond_resched();
	}
}
