// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of a swap disk: between the kernel, the device and the backing device.
 *
 * A bio is taken apart into pages, each of which goes its own way. A page that
 * the device takes is copied before zcs_submit_bio() returns; one for the
 * backing device gets a bio of its own, and the last of these ends the parent.
 *
 * Who calls: reclaim (PF_MEMALLOC), page faults, swapoff, and whoever opens the
 * disk. All may sleep, and none may wait for memory: the states of all slots
 * exist since the disk has a size, and bios come from a pool of the disk. That
 * pool has a rescuer, because bios submitted from here wait in
 * current->bio_list until we return.
 *
 * A slot is written, and brought back, in ZC_PAGE_BUSY, which its owner alone
 * ends. docs/ordering.md says why that is enough.
 */
#include <linux/highmem.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include "swapdisk.h"

/* Bios that can always be had. */
#define BIOS		64

/* How often a blocked read says so. */
#define WAIT_SECONDS	10

#define SECTORS_SHIFT	(PAGE_SHIFT - SECTOR_SHIFT)

/**
 * struct zcs_child - a page's transfer to or from the backing device
 * @disk:	the disk
 * @parent:	the bio that the page is of
 * @slot:	its slot
 * @end:	state of the slot when it is written
 * @bio:	the transfer; last, for its vector follows
 */
struct zcs_child {
	struct zcs_disk *disk;
	struct bio *parent;
	unsigned long slot;
	enum zcache_page_state end;
	struct bio bio;
};

int zcs_io_init(struct zcs_disk *disk)
{
	init_waitqueue_head(&disk->settled);
	return bioset_init(&disk->bios, BIOS, offsetof(struct zcs_child, bio),
			   BIOSET_NEED_BVECS | BIOSET_NEED_RESCUER);
}

void zcs_io_exit(struct zcs_disk *disk)
{
	bioset_exit(&disk->bios);
}

static bool zcs_busy(struct zcs_disk *disk, unsigned long slot)
{
	return zcache_swapmap_get(disk->pool->map, slot) == ZC_PAGE_BUSY;
}

/* Makes the slot ours. Return: the state it was in. */
static enum zcache_page_state zcs_claim(struct zcs_disk *disk,
					unsigned long slot)
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

static void zcs_settle(struct zcs_disk *disk, unsigned long slot,
		       enum zcache_page_state to)
{
	zcache_swapmap_change(disk->pool->map, slot, ZC_PAGE_BUSY, to);
	if (wq_has_sleeper(&disk->settled))
		wake_up_all(&disk->settled);
}

static void zcs_child_end(struct bio *bio)
{
	struct zcs_child *child = container_of(bio, struct zcs_child, bio);
	struct bio *parent = child->parent;

	if (op_is_write(bio_op(bio)))
		zcs_settle(child->disk, child->slot,
			   bio->bi_status ? ZC_PAGE_BAD : child->end);
	if (bio->bi_status)
		parent->bi_status = bio->bi_status;
	bio_put(bio);
	bio_endio(parent);
}

/*
 * Moves a page between the parent and the backing device, without waiting. A
 * slot that is written is ours, and @end is its state then.
 */
static void zcs_child_submit(struct zcs_disk *disk, struct bio *parent,
			     struct page *page, unsigned long slot,
			     enum zcache_page_state end)
{
	struct zcs_child *child;
	struct bio *bio;

	bio = bio_alloc_bioset(disk->backing.bdev, 1,
			       bio_op(parent) | (parent->bi_opf & REQ_SYNC),
			       GFP_NOIO, &disk->bios);
	child = container_of(bio, struct zcs_child, bio);
	child->disk = disk;
	child->parent = parent;
	child->slot = slot;
	child->end = end;
	bio->bi_iter.bi_sector = (sector_t)slot << SECTORS_SHIFT;
	bio->bi_end_io = zcs_child_end;
	__bio_add_page(bio, page, PAGE_SIZE, 0);
	bio_inc_remaining(parent);
	atomic_long_inc(op_is_write(bio_op(bio)) ? &disk->backing_writes :
			&disk->backing_reads);
	submit_bio_noacct(bio);
}

/*
 * Offers a page to the device. Within zcache_srcu; the slot is ours.
 *
 * Return: 0: accepted; -ENOSPC: the device has nothing in the slot; -EIO: it
 * may have this page; -ENODEV: it was not asked.
 */
static int zcs_store(struct zcs_disk *disk, unsigned long slot,
		     struct page *page)
{
	struct zcache_pool *pool = disk->pool;
	struct zcache_transport *t;
	struct zcache_key key;
	int err;

	t = zcache_transport_of(pool, ZC_STORE_UNATTACHED, ZC_STORE_INACTIVE);
	if (!t)
		return -ENODEV;
	if (!zcache_stores_wanted() || READ_ONCE(disk->draining)) {
		zcache_count(pool, ZC_STORE_DRAINING);
		return -ENODEV;
	}
	zcache_swap_key(&key, slot);
	err = t->ops->store(t, pool, &key, page);
	switch (err) {
	case 0:
		zcache_count(pool, ZC_STORES);
		return 0;
	case -ENOSPC:
		zcache_count(pool, ZC_STORE_REFUSED);
		return -ENOSPC;
	default:
		zcache_count(pool, ZC_STORE_FAILED);
		return -EIO;
	}
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

/*
 * With the older page of a slot on the device and this one not, the slot is
 * stale: it is read from the backing device, and the collector flushes it. A
 * stale slot is not stored to, for that flush may be under way.
 */
static void zcs_write_page(struct zcs_disk *disk, struct bio *bio,
			   struct page *page, unsigned long slot)
{
	enum zcache_page_state end, old = zcs_claim(disk, slot);
	int srcu, err = -ENODEV;

	if (old == ZC_PAGE_RESCUED)
		zcache_swapmap_drop_rescued(disk->pool->map, slot);

	srcu = srcu_read_lock(&zcache_srcu);
	if (old == ZC_PAGE_STALE || old == ZC_PAGE_BAD)
		zcache_count(disk->pool, ZC_STORE_STALE);
	else
		err = zcs_store(disk, slot, page);

	if (!err)
		end = ZC_PAGE_LIVE;
	else if (err == -EIO || (err == -ENODEV && (old == ZC_PAGE_LIVE ||
						    old == ZC_PAGE_STALE ||
						    old == ZC_PAGE_BAD)))
		end = ZC_PAGE_STALE;
	else
		end = ZC_PAGE_NONE;

	if (disk->backing.bdev && (err || disk->writethrough)) {
		srcu_read_unlock(&zcache_srcu, srcu);
		zcs_child_submit(disk, bio, page, slot, end);
		return;
	}
	if (err) {
		bio->bi_status = BLK_STS_IOERR;
		if (end == ZC_PAGE_NONE)
			end = ZC_PAGE_LOST;
		else
			zcache_heal_schedule();
	}
	/* In the read section: a drain that waited for it sees the page. */
	zcs_settle(disk, slot, end);
	srcu_read_unlock(&zcache_srcu, srcu);
}

/*
 * One try to read a page from where it is.
 *
 * Return: 0; -ENOENT: it is on the backing device; -EAGAIN: its device is away;
 * -ESTALE: it was moved meanwhile; -EIO: nobody has it.
 */
static int zcs_read_once(struct zcs_disk *disk, struct page *page,
			 unsigned long slot)
{
	const int elsewhere = disk->writethrough ? -ENOENT : -EIO;
	struct zcache_pool *pool = disk->pool;
	struct zcache_transport *t;
	struct zcache_key key;
	int err;

	switch (zcache_swapmap_get(pool->map, slot)) {
	case ZC_PAGE_NONE:
		if (disk->backing.bdev)
			return -ENOENT;
		clear_highpage(page);
		return 0;
	case ZC_PAGE_STALE:
		return disk->backing.bdev ? -ENOENT : -EIO;
	case ZC_PAGE_RESCUED:
		/* Ours, for a write would free the copy. */
		if (!zcache_swapmap_change(pool->map, slot, ZC_PAGE_RESCUED,
					   ZC_PAGE_BUSY))
			return -ESTALE;
		err = zcache_swapmap_copy_rescued(pool->map, slot, page) ?
			0 : -EIO;
		zcs_settle(disk, slot, ZC_PAGE_RESCUED);
		zcache_count(pool, ZC_LOAD_RESCUED);
		return err;
	case ZC_PAGE_LOST:
		zcache_count(pool, ZC_LOAD_LOST);
		return elsewhere;
	case ZC_PAGE_BUSY:
		return -ESTALE;
	case ZC_PAGE_LIVE:
		break;
	default:
		return -EIO;
	}

	t = zcache_transport_of(pool, ZC_LOAD_UNATTACHED, ZC_LOAD_UNATTACHED);
	if (!t)
		return disk->writethrough ? -ENOENT : -EAGAIN;
	zcache_swap_key(&key, slot);
	err = t->ops->get(t, pool, 0, &key, page);
	if (!err) {
		zcache_count(pool, ZC_LOADS);
		return 0;
	}
	if (err == -EIO)
		return disk->writethrough ? -ENOENT : -EAGAIN;
	if (!zcache_swapmap_change(pool->map, slot, ZC_PAGE_LIVE, ZC_PAGE_LOST))
		return -ESTALE;
	pr_err("device has not kept the page in slot %lu of %s\n", slot,
	       disk->gendisk->disk_name);
	zcache_count(pool, ZC_LOAD_LOST);
	return elsewhere;
}

/*
 * A page whose device is away is waited for, as long as that may come back with
 * it: an attach that resumes the session has it, another makes the page lost.
 */
static int zcs_read_somewhere(struct zcs_disk *disk, struct page *page,
			      unsigned long slot)
{
	bool counted = false;
	unsigned long seq;
	int srcu, err;

	for (;;) {
		wait_event(disk->settled, !zcs_busy(disk, slot));
		seq = zcache_attach_seq();
		srcu = srcu_read_lock(&zcache_srcu);
		err = zcs_read_once(disk, page, slot);
		srcu_read_unlock(&zcache_srcu, srcu);
		if (err == -ESTALE)
			continue;
		if (err != -EAGAIN)
			return err;
		if (!zcache_waits_for_lost())
			return -EIO;
		if (!counted)
			zcache_count(disk->pool, ZC_LOAD_WAITED);
		counted = true;
		if (!zcache_wait_attach(seq, WAIT_SECONDS))
			pr_err_ratelimited("%s[%d] waits for slot %lu of %s: its device is away\n",
					   current->comm, task_pid_nr(current),
					   slot, disk->gendisk->disk_name);
	}
}

static void zcs_read_page(struct zcs_disk *disk, struct bio *bio,
			  struct page *page, unsigned long slot)
{
	switch (zcs_read_somewhere(disk, page, slot)) {
	case 0:
		flush_dcache_page(page);
		break;
	case -ENOENT:
		zcs_child_submit(disk, bio, page, slot, ZC_PAGE_NONE);
		break;
	default:
		bio->bi_status = BLK_STS_IOERR;
		break;
	}
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

static void zcs_discard(struct zcs_disk *disk, unsigned long slot,
			unsigned long count)
{
	for (; count; count--, slot++) {
		if (zcache_swapmap_get(disk->pool->map, slot) != ZC_PAGE_NONE)
			zcs_free_slot(disk, slot);
		cond_resched();
	}
}

static void zcs_transfer(struct zcs_disk *disk, struct bio *bio,
			 unsigned long slot)
{
	struct bvec_iter iter;
	struct bio_vec vec;

	bio_for_each_segment(vec, bio, iter) {
		/* The limits of the disk see to it that this does not happen. */
		if (WARN_ON_ONCE(vec.bv_len != PAGE_SIZE)) {
			bio->bi_status = BLK_STS_IOERR;
			return;
		}
		if (op_is_write(bio_op(bio)))
			zcs_write_page(disk, bio, vec.bv_page, slot);
		else
			zcs_read_page(disk, bio, vec.bv_page, slot);
		slot++;
	}
}

/**
 * zcs_submit_bio - reads, writes or discards pages
 * @bio:	what to do
 *
 * Context: Process context; sleeps, does not wait for memory.
 */
void zcs_submit_bio(struct bio *bio)
{
	struct zcs_disk *disk = bio->bi_bdev->bd_disk->private_data;
	sector_t sector = bio->bi_iter.bi_sector;
	unsigned long slot = sector >> SECTORS_SHIFT;
	unsigned long count = bio->bi_iter.bi_size >> PAGE_SHIFT;

	if (sector & ((1 << SECTORS_SHIFT) - 1) ||
	    bio->bi_iter.bi_size & ~PAGE_MASK ||
	    slot > disk->slots || count > disk->slots - slot) {
		bio_io_error(bio);
		return;
	}
	switch (bio_op(bio)) {
	case REQ_OP_READ:
	case REQ_OP_WRITE:
		zcs_transfer(disk, bio, slot);
		break;
	case REQ_OP_DISCARD:
		zcs_discard(disk, slot, count);
		break;
	default:
		bio->bi_status = BLK_STS_NOTSUPP;
		break;
	}
	bio_endio(bio);
}

static int zcs_write_back(struct zcs_disk *disk, unsigned long slot)
{
	struct bio *bio;
	int err;

	bio = bio_alloc_bioset(disk->backing.bdev, 1, REQ_OP_WRITE | REQ_SYNC,
			       GFP_NOIO, &disk->bios);
	bio->bi_iter.bi_sector = (sector_t)slot << SECTORS_SHIFT;
	__bio_add_page(bio, disk->drain_page, PAGE_SIZE, 0);
	atomic_long_inc(&disk->backing_writes);
	err = submit_bio_wait(bio);
	bio_put(bio);
	return err;
}

/*
 * Brings a page back from the device. What is written to the slot meanwhile
 * waits until it is there, and so do reads. The device's copy is left to the
 * flush that ends a drain.
 */
static int zcs_take_back(struct zcache_pool *pool, struct zcache_transport *t,
			 unsigned long slot)
{
	struct zcs_disk *disk = pool->owner;
	struct zcache_key key;
	int err = 0;

	if (!zcache_swapmap_change(pool->map, slot, ZC_PAGE_LIVE, ZC_PAGE_BUSY))
		return -ENOENT;
	if (disk->writethrough)
		goto settle;
	zcache_swap_key(&key, slot);
	err = t->ops->get(t, pool, 0, &key, disk->drain_page);
	if (!err)
		err = zcs_write_back(disk, slot) ? -EIO : 0;
	/* Still live: the next read finds out, and deals with it. */
	if (err) {
		zcs_settle(disk, slot, ZC_PAGE_LIVE);
		return err;
	}
settle:
	zcs_settle(disk, slot, ZC_PAGE_STALE);
	return 0;
}

const struct zcache_swap_front zcs_front = {
	.take_back = zcs_take_back,
};
