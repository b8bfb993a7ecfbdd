// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of a swap disk that are read from, or written to, the backing device.
 *
 * Neighbours share a bio. They are submitted last of all that is done for the
 * bio they are of, because bios submitted from a submit_bio() wait in
 * current->bio_list until that returns: who waited for anything meanwhile would
 * keep their slots, and bios of the reserve, from everybody else. For the same
 * reason the pool of bios has a rescuer.
 */
#include <linux/bitops.h>
#include <linux/workqueue.h>
#include "swapdisk.h"

/* Bios that can always be had. */
#define BIOS		16

/* What the backing device gets to know of the bio that pages are of. */
#define PASSED_ON	(REQ_SYNC | REQ_META | REQ_PRIO | REQ_RAHEAD | REQ_SWAP)

/**
 * struct zcs_child - a transfer to or from the backing device
 * @disk:	the disk
 * @parent:	the bio that the pages are of
 * @slot:	the first slot
 * @count:	how many
 * @end:	state of the slots when they are written
 * @seq:	zcs_device_seq() when the device took them, for ZC_PAGE_LIVE
 * @retry:	reads the pages one by one
 * @bio:	the transfer; last, for its vector follows
 */
struct zcs_child {
	struct zcs_disk *disk;
	struct bio *parent;
	unsigned long slot;
	unsigned int count;
	enum zcache_page_state end;
	unsigned long seq;
	struct work_struct retry;
	struct bio bio;
};

int zcs_backing_init(struct zcs_disk *disk)
{
	return bioset_init(&disk->bios, BIOS, offsetof(struct zcs_child, bio),
			   BIOSET_NEED_BVECS | BIOSET_NEED_RESCUER);
}

void zcs_backing_exit(struct zcs_disk *disk)
{
	bioset_exit(&disk->bios);
}

/**
 * zcs_device_seq - tells times apart within which the device keeps its pages
 * @disk:	the disk
 *
 * Context: Any.
 * Return: Another number after each attach, and each drain of the disk.
 */
unsigned long zcs_device_seq(struct zcs_disk *disk)
{
	return zcache_attach_seq() + READ_ONCE(disk->drains);
}

/*
 * A page that the device took, before it was written here too, is on record as
 * such only if it is certain to be there: not if the device was drained or has
 * changed meanwhile. Within zcache_srcu.
 */
static enum zcache_page_state zcs_written(struct zcs_child *child)
{
	if (child->end == ZC_PAGE_LIVE &&
	    (!zcache_stores_wanted() || READ_ONCE(child->disk->draining) ||
	     zcs_device_seq(child->disk) != child->seq))
		return ZC_PAGE_STALE;
	return child->end;
}

static void zcs_write_end(struct zcs_child *child, bool failed)
{
	struct zcs_disk *disk = child->disk;
	enum zcache_page_state end;
	unsigned int i;
	int srcu;

	srcu = srcu_read_lock(&zcache_srcu);
	end = failed ? ZC_PAGE_BAD : zcs_written(child);
	for (i = 0; i < child->count; i++)
		zcs_settle(disk, child->slot + i, end);
	srcu_read_unlock(&zcache_srcu, srcu);
	if (end == ZC_PAGE_STALE)
		zcache_heal_schedule();
}

static void zcs_child_failed(struct zcs_child *child, blk_status_t status,
			     unsigned int pages)
{
	atomic_long_add(pages, &child->disk->backing_errors);
	child->parent->bi_status = status;
}

static void zcs_child_put(struct zcs_child *child)
{
	struct bio *parent = child->parent;

	bio_put(&child->bio);
	bio_endio(parent);
}

static int zcs_read_one(struct zcs_child *child, unsigned int number,
			struct page *page)
{
	struct bio_vec vec;
	struct bio bio;
	int err;

	bio_init(&bio, child->disk->backing.bdev, &vec, 1, REQ_OP_READ |
		 (child->parent->bi_opf & PASSED_ON & ~REQ_RAHEAD));
	bio_clone_blkg_association(&bio, child->parent);
	bio.bi_iter.bi_sector = (sector_t)(child->slot + number) *
				ZCS_PAGE_SECTORS;
	__bio_add_page(&bio, page, PAGE_SIZE, 0);
	err = submit_bio_wait(&bio);
	if (err)
		zcs_child_failed(child, bio.bi_status, 1);
	bio_uninit(&bio);
	return err;
}

/* One page of several could not be read: that is no concern of the others. */
static void zcs_read_again(struct work_struct *work)
{
	struct zcs_child *child = container_of(work, struct zcs_child, retry);
	unsigned int i;

	for (i = 0; i < child->count; i++) {
		struct page *page = child->bio.bi_io_vec[i].bv_page;

		if (!zcs_read_one(child, i, page))
			zcs_page_read(page);
	}
	zcs_child_put(child);
}

static void zcs_read_end(struct zcs_child *child)
{
	unsigned int i;

	for (i = 0; i < child->count; i++)
		zcs_page_read(child->bio.bi_io_vec[i].bv_page);
}

static void zcs_child_end(struct bio *bio)
{
	struct zcs_child *child = container_of(bio, struct zcs_child, bio);
	const bool write = op_is_write(bio_op(bio));

	if (bio->bi_status && !write && child->count > 1) {
		INIT_WORK(&child->retry, zcs_read_again);
		queue_work(zcs_wq, &child->retry);
		return;
	}
	if (bio->bi_status)
		zcs_child_failed(child, bio->bi_status, child->count);
	if (write)
		zcs_write_end(child, bio->bi_status);
	else if (!bio->bi_status)
		zcs_read_end(child);
	zcs_child_put(child);
}

static struct zcs_child *zcs_child_alloc(struct zcs_disk *disk,
					 struct bio *parent, unsigned long slot,
					 unsigned int count)
{
	struct zcs_child *child;
	struct bio *bio;

	bio = bio_alloc_bioset(disk->backing.bdev, count, bio_op(parent) |
			       (parent->bi_opf & PASSED_ON), GFP_NOIO,
			       &disk->bios);
	/* On the account of the page's owner, not of who reclaims it. */
	bio_clone_blkg_association(bio, parent);
	bio->bi_iter.bi_sector = (sector_t)slot * ZCS_PAGE_SECTORS;
	bio->bi_end_io = zcs_child_end;
	child = container_of(bio, struct zcs_child, bio);
	child->disk = disk;
	child->parent = parent;
	child->slot = slot;
	child->count = count;
	return child;
}

/**
 * zcs_backing_submit - moves pages to or from the backing device
 * @disk:	the disk
 * @parent:	the bio that they are of, which does not end before they are moved
 * @slot:	slot of the first page that is left to do of it
 * @mask:	which pages from there. If they are written, their slots are ours
 * @end:	state of these slots then
 * @seq:	zcs_device_seq() when the device took them, for ZC_PAGE_LIVE
 *
 * Context: Process context; the end of submit_bio(). Does not wait for memory.
 */
void zcs_backing_submit(struct zcs_disk *disk, struct bio *parent,
			unsigned long slot, unsigned long mask,
			enum zcache_page_state end, unsigned long seq)
{
	struct zcs_child *child = NULL;
	struct bvec_iter iter;
	struct bio_vec vec;
	unsigned int i = 0, next;

	if (!mask)
		return;
	atomic_long_add(hweight_long(mask), op_is_write(bio_op(parent)) ?
			&disk->backing_writes : &disk->backing_reads);
	bio_for_each_segment(vec, parent, iter) {
		if (child && !test_bit(i, &mask)) {
			submit_bio_noacct(&child->bio);
			child = NULL;
		}
		if (!child && test_bit(i, &mask)) {
			next = find_next_zero_bit(&mask, ZCS_CHUNK, i);
			child = zcs_child_alloc(disk, parent, slot + i,
						next - i);
			child->end = end;
			child->seq = seq;
			bio_inc_remaining(parent);
		}
		if (child)
			__bio_add_page(&child->bio, vec.bv_page, PAGE_SIZE, 0);
		if (++i == ZCS_CHUNK)
			break;
	}
	if (child)
		submit_bio_noacct(&child->bio);
}
