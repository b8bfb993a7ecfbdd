// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of a swap disk that are brought back from the device to the backing
 * device: by a drain, or some of them because the host wants that.
 *
 * While a drain reads a batch from the device the one before is written. All
 * memory for that exists since the disk has a size. The device's copies are left
 * to the flush that ends a drain, or to the collector.
 */
#include <linux/slab.h>
#include "swapdisk.h"

/* Pages under way. */
#define CARRIERS	(2 * ZCACHE_TAKE_BATCH)

/**
 * struct zcs_carrier - carries a page to the backing device
 * @disk:	the disk
 * @node:	link in the list of those that are free
 * @slot:	where the page belongs; ours
 * @page:	filled from the device, written from there. Its private field
 *		points back here
 * @vec:	@bio's
 * @bio:	the transfer; last, as the kernel wants it
 */
struct zcs_carrier {
	struct zcs_disk *disk;
	struct list_head node;
	unsigned long slot;
	struct page *page;
	struct bio_vec vec;
	struct bio bio;
};

/**
 * struct zcs_return - what bringing pages back needs
 * @lock:	@free and @nr_free. Taken with interrupts off, for writes end in
 *		interrupts
 * @free:	carriers that are not under way
 * @nr_free:	how many
 * @freed:	that was one more
 */
struct zcs_return {
	spinlock_t lock;		/* see above */
	struct list_head free;
	unsigned int nr_free;
	wait_queue_head_t freed;
};

static void zcs_carrier_free(struct zcs_carrier *c)
{
	if (c->page) {
		set_page_private(c->page, 0);
		__free_page(c->page);
	}
	kfree(c);
}

static struct zcs_carrier *zcs_carrier_alloc(struct zcs_disk *disk)
{
	struct zcs_carrier *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		return NULL;
	c->disk = disk;
	c->page = alloc_page(GFP_KERNEL);
	if (!c->page) {
		zcs_carrier_free(c);
		return NULL;
	}
	set_page_private(c->page, (unsigned long)c);
	return c;
}

/**
 * zcs_return_free - frees what zcs_return_alloc() made
 * @r:	may be NULL
 *
 * Context: Process context; nothing is under way.
 */
void zcs_return_free(struct zcs_return *r)
{
	struct zcs_carrier *c, *next;

	if (!r)
		return;
	list_for_each_entry_safe(c, next, &r->free, node)
		zcs_carrier_free(c);
	kfree(r);
}

/**
 * zcs_return_alloc - makes what bringing pages back needs
 * @disk:	the disk
 *
 * Context: Process context; sleeps.
 * Return: That or NULL.
 */
struct zcs_return *zcs_return_alloc(struct zcs_disk *disk)
{
	struct zcs_return *r = kzalloc(sizeof(*r), GFP_KERNEL);
	struct zcs_carrier *c;

	if (!r)
		return NULL;
	spin_lock_init(&r->lock);
	INIT_LIST_HEAD(&r->free);
	init_waitqueue_head(&r->freed);
	for (; r->nr_free < CARRIERS; r->nr_free++) {
		c = zcs_carrier_alloc(disk);
		if (!c) {
			zcs_return_free(r);
			return NULL;
		}
		list_add(&c->node, &r->free);
	}
	return r;
}

static struct zcs_carrier *zcs_carrier_get(struct zcs_return *r)
{
	struct zcs_carrier *c;
	unsigned long flags;

	spin_lock_irqsave(&r->lock, flags);
	c = list_first_entry_or_null(&r->free, struct zcs_carrier, node);
	if (c) {
		list_del(&c->node);
		r->nr_free--;
	}
	spin_unlock_irqrestore(&r->lock, flags);
	return c;
}

static void zcs_carrier_put(struct zcs_return *r, struct zcs_carrier *c)
{
	unsigned long flags;

	spin_lock_irqsave(&r->lock, flags);
	list_add(&c->node, &r->free);
	r->nr_free++;
	/* Within the lock, for zcs_finish(). */
	wake_up(&r->freed);
	spin_unlock_irqrestore(&r->lock, flags);
}

static struct page *zcs_take(struct zcache_pool *pool, unsigned long slot)
{
	struct zcs_disk *disk = pool->owner;
	struct zcs_return *r = disk->returning;
	struct zcs_carrier *c;

	/* Before the slot is ours: this can wait for the backing device. */
	wait_event(r->freed, (c = zcs_carrier_get(r)));
	if (!zcache_swapmap_change(pool->map, slot, ZC_PAGE_LIVE,
				   ZC_PAGE_BUSY)) {
		zcs_carrier_put(r, c);
		return ERR_PTR(-ENOENT);
	}
	c->slot = slot;
	return c->page;
}

/* A page that could not be written is still on the device. */
static void zcs_returned(struct bio *bio)
{
	struct zcs_carrier *c = container_of(bio, struct zcs_carrier, bio);
	struct zcs_disk *disk = c->disk;
	bool failed = bio->bi_status;

	bio_uninit(bio);
	if (failed)
		atomic_long_inc(&disk->backing_errors);
	zcs_settle(disk, c->slot, failed ? ZC_PAGE_LIVE : ZC_PAGE_STALE);
	zcs_carrier_put(disk->returning, c);
}

/*
 * The slot was ours when the device was asked: if the device says that it does
 * not have the page, then it has lost it.
 */
static void zcs_taken(struct zcache_pool *pool, unsigned long slot,
		      struct page *page, int err)
{
	struct zcs_carrier *c = (struct zcs_carrier *)page_private(page);
	struct zcs_disk *disk = c->disk;

	if (err) {
		if (err != -EIO)
			zcs_lose(disk, slot);
		zcs_settle(disk, slot,
			   err == -EIO ? ZC_PAGE_LIVE : ZC_PAGE_LOST);
		zcs_carrier_put(disk->returning, c);
		return;
	}
	bio_init(&c->bio, disk->backing.bdev, &c->vec, 1, REQ_OP_WRITE);
	c->bio.bi_iter.bi_sector = (sector_t)slot * ZCS_PAGE_SECTORS;
	c->bio.bi_end_io = zcs_returned;
	__bio_add_page(&c->bio, page, PAGE_SIZE, 0);
	atomic_long_inc(&disk->backing_writes);
	submit_bio(&c->bio);
}

static void zcs_finish(struct zcache_pool *pool)
{
	struct zcs_disk *disk = pool->owner;
	struct zcs_return *r = disk->returning;

	wait_event(r->freed, READ_ONCE(r->nr_free) == CARRIERS);
	/* The last carrier's end may still hold the lock. */
	spin_lock_irq(&r->lock);
	spin_unlock_irq(&r->lock);
}

/* With write-through the backing device has the page. */
static struct page *zcs_take_copied(struct zcache_pool *pool,
				    unsigned long slot)
{
	zcache_swapmap_change(pool->map, slot, ZC_PAGE_LIVE, ZC_PAGE_STALE);
	return ERR_PTR(-ENOENT);
}

static void zcs_settled(struct zcache_pool *pool)
{
	zcs_unpark_settled(pool->owner);
}

/* Context of all: see &struct zcache_swap_front. */
static const struct zcache_swap_front zcs_front = {
	.take = zcs_take,
	.taken = zcs_taken,
	.finish = zcs_finish,
	.settled = zcs_settled,
};

static const struct zcache_swap_front zcs_copied_front = {
	.copied = true,
	.take = zcs_take_copied,
	.settled = zcs_settled,
};

static const struct zcache_swap_front zcs_unbacked_front = {
	.settled = zcs_settled,
	.put_back = zcs_put_back,
};

/**
 * zcs_front_of - how pages of a disk come back
 * @disk:	the disk
 *
 * Context: Any.
 */
const struct zcache_swap_front *zcs_front_of(struct zcs_disk *disk)
{
	if (disk->writethrough)
		return &zcs_copied_front;
	return disk->backing.bdev ? &zcs_front : &zcs_unbacked_front;
}
