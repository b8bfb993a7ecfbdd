// SPDX-License-Identifier: GPL-2.0
/*
 * Bios of a swap disk that wait: for somebody who owns a slot to be done, or for
 * a device that is away with a page to come back.
 *
 * They hold nothing but the folios they are of: no slot, no memory of ours, no
 * reference to the queue. A worker tries them again when something has happened,
 * and that decides: with the device back, their pages are read; with another one
 * attached they are lost, and the bio ends in an error. Nothing else ends them.
 * As only the kernel's own reads are kept for a device that is away, the disk is
 * swapped to as long as there are any.
 */
#include "swapdisk.h"

/* How often a disk says that reads wait. */
#define WAIT_SECONDS	10

/* Takes all there are. */
static void zcs_parked_take(struct zcs_parked *parked, struct bio_list *bios)
{
	spin_lock_irq(&parked->lock);
	*bios = parked->bios;
	bio_list_init(&parked->bios);
	spin_unlock_irq(&parked->lock);
}

static void zcs_settling_work(struct work_struct *work)
{
	struct zcs_disk *disk = container_of(work, struct zcs_disk,
					     settling.retry);
	struct bio_list bios;
	struct bio *bio;

	zcs_parked_take(&disk->settling, &bios);
	while ((bio = bio_list_pop(&bios)))
		disk->transfer(disk, bio);
}

static void zcs_away_work(struct work_struct *work)
{
	struct zcs_disk *disk = container_of(work, struct zcs_disk, away.retry);
	unsigned long seq = zcache_attach_seq();
	struct bio_list bios;
	struct bio *bio;

	zcs_parked_take(&disk->away, &bios);
	while ((bio = bio_list_pop(&bios))) {
		atomic_dec(&disk->nr_away);
		disk->transfer(disk, bio);
	}
	if (!atomic_read(&disk->nr_away))
		return;
	if (!zcache_wait_attach(seq, WAIT_SECONDS))
		pr_err_ratelimited("%d reads of %s wait: the device with their pages is away\n",
				   atomic_read(&disk->nr_away),
				   disk->gendisk->disk_name);
	queue_work(zcs_wq, work);
}

static void zcs_parked_add(struct zcs_parked *parked, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&parked->lock, flags);
	bio_list_add(&parked->bios, bio);
	spin_unlock_irqrestore(&parked->lock, flags);
}

/* Whether there is a slot that the next chunk of a bio can't do anything about. */
static bool zcs_chunk_busy(struct zcs_disk *disk, unsigned long slot,
			   unsigned long count)
{
	for (; count; count--, slot++)
		if (zcs_owned(zcache_swapmap_get(disk->pool->map, slot)))
			return true;
	return false;
}

/**
 * zcs_park - has a bio wait
 * @disk:	the disk
 * @bio:	the bio, which is not the caller's any more
 * @why:	what for
 *
 * Context: Process context.
 */
void zcs_park(struct zcs_disk *disk, struct bio *bio, enum zcs_outcome why)
{
	const unsigned long slot = bio->bi_iter.bi_sector / ZCS_PAGE_SECTORS;
	const unsigned long count = min_t(unsigned long, ZCS_CHUNK,
					  bio->bi_iter.bi_size >> PAGE_SHIFT);

	if (why == ZCS_AWAY) {
		atomic_inc(&disk->nr_away);
		zcache_count(disk->pool, ZC_LOAD_WAITED);
		zcs_parked_add(&disk->away, bio);
		/* There may have been an attach since the bio was tried. */
		queue_work(zcs_wq, &disk->away.retry);
		return;
	}
	zcs_parked_add(&disk->settling, bio);
	/* Pairs with zcs_unpark_settled(): one of us sees the other. */
	smp_mb();
	if (!zcs_chunk_busy(disk, slot, count))
		queue_work(zcs_wq, &disk->settling.retry);
}

/**
 * zcs_unpark_settled - tries bios again that wait for slots
 * @disk:	the disk, of which somebody has just given up a slot
 *
 * Context: Any.
 */
void zcs_unpark_settled(struct zcs_disk *disk)
{
	/* The slot's state before the list; see zcs_park(). */
	smp_mb();
	if (!bio_list_empty(&disk->settling.bios))
		queue_work(zcs_wq, &disk->settling.retry);
}

static void zcs_parked_init(struct zcs_parked *parked, work_func_t retry)
{
	spin_lock_init(&parked->lock);
	bio_list_init(&parked->bios);
	INIT_WORK(&parked->retry, retry);
}

/**
 * zcs_park_init - there may be bios that wait from now on
 * @disk:	the disk
 * @transfer:	tries one again
 *
 * Context: Process context.
 */
void zcs_park_init(struct zcs_disk *disk,
		   void (*transfer)(struct zcs_disk *disk, struct bio *bio))
{
	disk->transfer = transfer;
	zcs_parked_init(&disk->settling, zcs_settling_work);
	zcs_parked_init(&disk->away, zcs_away_work);
}

/* There are no bios any more. */
void zcs_park_exit(struct zcs_disk *disk)
{
	cancel_work_sync(&disk->settling.retry);
	cancel_work_sync(&disk->away.retry);
}
