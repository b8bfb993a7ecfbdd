/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of zcache_swap.ko share among themselves.
 */
#ifndef _ZCACHE_SWAPDISK_H
#define _ZCACHE_SWAPDISK_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mempool.h>
#include <linux/mutex.h>
#include <linux/wait.h>
#include "zcache_swap.h"
#include "compat.h"

/* Pages that go to or from the device at a time; a bit of a long for each. */
#define ZCS_CHUNK	32

#define ZCS_PAGE_SECTORS	(PAGE_SIZE >> SECTOR_SHIFT)

struct zcs_return;

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
 * @splits:	first parts of bios that are too long
 * @chunks:	room for the requests of a chunk
 * @bios:	for the backing device
 * @returning:	pages on their way back, if there is a backing device
 * @settled:	slots that are in ZC_PAGE_BUSY no more
 * @backing_reads: pages read from the backing device
 * @backing_writes: pages written to it
 * @backing_errors: of these, how many failed
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
	struct bio_set splits;
	mempool_t chunks;
	struct bio_set bios;
	struct zcs_return *returning;
	wait_queue_head_t settled;
	atomic_long_t backing_reads;
	atomic_long_t backing_writes;
	atomic_long_t backing_errors;
	atomic_long_t slot_frees;
};

/* slot.c */
bool zcs_busy(struct zcs_disk *disk, unsigned long slot);
enum zcache_page_state zcs_claim(struct zcs_disk *disk, unsigned long slot);
void zcs_settle(struct zcs_disk *disk, unsigned long slot,
		enum zcache_page_state to);
void zcs_lose(struct zcs_disk *disk, unsigned long slot);
void zcs_slot_free_notify(struct block_device *bdev, unsigned long slot);
void zcs_discard(struct zcs_disk *disk, unsigned long slot,
		 unsigned long count);

/* backing.c */
int zcs_backing_init(struct zcs_disk *disk);
void zcs_backing_exit(struct zcs_disk *disk);
void zcs_backing_submit(struct zcs_disk *disk, struct bio *parent,
			unsigned long slot, unsigned long mask,
			enum zcache_page_state end, unsigned long seq);

/* return.c */
const struct zcache_swap_front *zcs_front_of(struct zcs_disk *disk);
struct zcs_return *zcs_return_alloc(struct zcs_disk *disk);
void zcs_return_free(struct zcs_return *r);

/* io.c */
int zcs_io_init(struct zcs_disk *disk);
void zcs_io_exit(struct zcs_disk *disk);
void zcs_submit_bio(struct bio *bio);

#endif /* _ZCACHE_SWAPDISK_H */
