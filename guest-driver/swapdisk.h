/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of zcache_swap.ko share among themselves.
 */
#ifndef _ZCACHE_SWAPDISK_H
#define _ZCACHE_SWAPDISK_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mutex.h>
#include <linux/wait.h>
#include "zcache_swap.h"
#include "compat.h"

/**
 * struct zcs_disk - a swap disk
 * @gendisk:	how the kernel sees it; its capacity is 0 until it has a size
 * @id:		number in its name
 * @lock:	everything that is set up before the disk has a size
 * @removed:	hot_remove has begun
 * @writethrough: every page is written to the backing device, too
 * @backing:	where pages go that the device does not take; may be closed
 * @backing_path: as it was given
 * @pool:	its pool; NULL while it has no size
 * @slots:	pages of it
 * @draining:	no page is stored on the device
 * @bios:	for the backing device
 * @drain_page:	for a page on its way back; under zcache_mutex
 * @settled:	slots that are in ZC_PAGE_BUSY no more
 * @backing_reads: pages read from the backing device
 * @backing_writes: pages written to it
 * @slot_frees:	slots that the kernel let go of
 */
struct zcs_disk {
	struct gendisk *gendisk;
	int id;
	struct mutex lock;		/* see above */
	bool removed;
	bool writethrough;
	struct zcache_backing backing;
	char *backing_path;
	struct zcache_pool *pool;
	unsigned long slots;
	bool draining;
	struct bio_set bios;
	struct page *drain_page;
	wait_queue_head_t settled;
	atomic_long_t backing_reads;
	atomic_long_t backing_writes;
	atomic_long_t slot_frees;
};

/* swapdisk_io.c */
extern const struct zcache_swap_front zcs_front;
int zcs_io_init(struct zcs_disk *disk);
void zcs_io_exit(struct zcs_disk *disk);
void zcs_submit_bio(struct bio *bio);
void zcs_slot_free_notify(struct block_device *bdev, unsigned long slot);

#endif /* _ZCACHE_SWAPDISK_H */
