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
#include <linux/workqueue.h>
#include "zcache_swap.h"
#include "compat.h"

/* Pages that go to or from the device at a time; a bit of a long for each. */
#define ZCS_CHUNK	32

#define ZCS_PAGE_SECTORS	(PAGE_SIZE >> SECTOR_SHIFT)

struct zcs_return;

/**
 * struct zcs_parked - bios that wait for something
 * @lock:	@bios. Taken with interrupts off, for slots are settled in interrupts
 * @bios:	as far as they are done, that is off their iterators
 * @retry:	tries them again
 */
struct zcs_parked {
	spinlock_t lock;		/* see above */
	struct bio_list bios;
	struct work_struct retry;
};

/**
 * struct zcs_room - what is known of the room on the device
 * @lock:	@hidden. Taken with interrupts as they are: process context only
 * @full_until:	jiffies64 until which it is not asked, if nothing is freed
 * @freed:	pages that it was told to drop since it had no room
 * @hidden:	free slots that the kernel is not to count on
 * @away:	the last page was not taken because there was no device
 * @logged:	for the line about it in the log
 * @reveal:	has it count on them again
 */
struct zcs_room {
	spinlock_t lock;		/* see above */
	u64 full_until;
	atomic_t freed;
	long hidden;
	bool away;
	unsigned long logged;
	struct delayed_work reveal;
};

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
 * @header:	the first page, which the kernel does not swap to, if there is no
 *		backing device
 * @draining:	no page is stored on the device
 * @drains:	how often that was so
 * @chunks:	room for the requests of a chunk
 * @bios:	for the backing device
 * @returning:	pages on their way back, if there is a backing device
 * @transfer:	tries a bio again that has waited
 * @settling:	bios for slots that somebody owns
 * @away:	bios for pages whose device is away
 * @nr_away:	how many
 * @room:	whether the device takes pages
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
	struct page *header;
	bool draining;
	unsigned long drains;
	mempool_t chunks;
	struct bio_set bios;
	struct zcs_return *returning;
	void (*transfer)(struct zcs_disk *disk, struct bio *bio);
	struct zcs_parked settling;
	struct zcs_parked away;
	atomic_t nr_away;
	struct zcs_room room;
	atomic_long_t backing_reads;
	atomic_long_t backing_writes;
	atomic_long_t backing_errors;
	atomic_long_t slot_frees;
};

/**
 * struct zcs_chunk - consecutive pages of a bio, or of the disk
 * @slot:	slot of the first one
 * @count:	how many
 * @page:	the pages
 * @old:	writes: what states their slots were in
 * @err:	what became of each
 * @nr_io:	how many go to or from the device
 * @io:		these
 * @number:	which pages of the chunk these are
 */
struct zcs_chunk {
	unsigned long slot;
	unsigned int count;
	struct page *page[ZCS_CHUNK];
	u8 old[ZCS_CHUNK];
	int err[ZCS_CHUNK];
	unsigned int nr_io;
	struct zcache_io io[ZCS_CHUNK];
	u8 number[ZCS_CHUNK];
};

/**
 * enum zcs_outcome - what has become of a chunk
 * @ZCS_DONE:	all that is left to do is the backing device's
 * @ZCS_SETTLING: nothing was done: somebody owns a slot of it
 * @ZCS_AWAY:	nothing was done: the device with its pages is away
 */
enum zcs_outcome {
	ZCS_DONE,
	ZCS_SETTLING,
	ZCS_AWAY,
};

/* A slot in such a state is somebody's, who alone changes it. */
static inline bool zcs_owned(enum zcache_page_state state)
{
	return state == ZC_PAGE_BUSY || state == ZC_PAGE_FREED ||
	       state == ZC_PAGE_FLUSHING;
}

/* disk.c */
extern const struct attribute_group *zcs_disk_groups[];

struct zcs_disk *zcs_of(struct device *dev);
int zcs_reset(struct zcs_disk *disk);

/* stat.c */
extern struct device_attribute dev_attr_zc_stat;

/* chunk.c */
struct zcs_chunk *zcs_chunk_of(struct zcs_disk *disk, struct bio *bio);
void zcs_chunk_add_io(struct zcs_chunk *chunk, unsigned int i);
bool zcs_swapin(struct page *page);
bool zcs_swapin_single(struct page *page);
void zcs_page_read(struct page *page);

/* slot.c */
bool zcs_claim(struct zcs_disk *disk, unsigned long slot,
	       enum zcache_page_state *old);
void zcs_settle(struct zcs_disk *disk, unsigned long slot,
		enum zcache_page_state to);
void zcs_lose(struct zcs_disk *disk, unsigned long slot);
void zcs_slot_free_notify(struct block_device *bdev, unsigned long slot);
void zcs_discard(struct zcs_disk *disk, unsigned long slot,
		 unsigned long count);

/* backing.c */
int zcs_backing_init(struct zcs_disk *disk);
void zcs_backing_exit(struct zcs_disk *disk);
unsigned long zcs_device_seq(struct zcs_disk *disk);
void zcs_backing_submit(struct zcs_disk *disk, struct bio *parent,
			unsigned long slot, unsigned long mask,
			enum zcache_page_state end, unsigned long seq);

/* return.c */
struct zcs_return *zcs_return_alloc(struct zcs_disk *disk);
void zcs_return_free(struct zcs_return *r);
const struct zcache_swap_front *zcs_front_of(struct zcs_disk *disk);

/* restore.c */
bool zcs_put_back(struct zcache_transport *t, struct zcache_pool *pool);

/* park.c */
void zcs_park_init(struct zcs_disk *disk,
		   void (*transfer)(struct zcs_disk *disk, struct bio *bio));
void zcs_park_exit(struct zcs_disk *disk);
void zcs_park(struct zcs_disk *disk, struct bio *bio, enum zcs_outcome why);
void zcs_unpark_settled(struct zcs_disk *disk);

/* room.c */
void zcs_room_init(struct zcs_disk *disk);
void zcs_room_exit(struct zcs_disk *disk);
bool zcs_room_maybe(struct zcs_disk *disk);
void zcs_room_refused(struct zcs_disk *disk);
void zcs_room_freed(struct zcs_disk *disk);
void zcs_room_hide(struct zcs_disk *disk);
void zcs_room_attached(struct zcs_disk *disk);
void zcs_room_retry(struct zcs_disk *disk);
void zcs_room_reveal(struct zcs_disk *disk);

/* read.c, write.c */
enum zcs_outcome zcs_read(struct zcs_disk *disk, struct bio *bio);
enum zcs_outcome zcs_write(struct zcs_disk *disk, struct bio *bio);

/* submit.c */
int zcs_io_init(struct zcs_disk *disk);
void zcs_io_exit(struct zcs_disk *disk);
void zcs_submit_bio(struct bio *bio);

/* control.c */
extern struct workqueue_struct *zcs_wq;

#endif /* _ZCACHE_SWAPDISK_H */
