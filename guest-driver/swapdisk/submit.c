// SPDX-License-Identifier: GPL-2.0
/*
 * Bios of a swap disk.
 *
 * A bio is handled in chunks of pages. All pages of a chunk that go to or from
 * the device do so together; when the device has answered, those for the
 * backing device follow (backing.c).
 *
 * A bio does not belong to the task that submits it: readahead is done for
 * others, a killed task's pages may be needed by its children, and who waits for
 * a page waits on its folio, killably or not as the kernel sees fit. So nothing
 * here waits for other bios, or for a device that is away: a bio that has to is
 * put on a list (park.c), and tried again by a worker. What is waited for is the
 * device's answer, up to the transport's time-out.
 *
 * Who calls: reclaim (PF_MEMALLOC), page faults, swapoff, and whoever opens the
 * disk. All may sleep, and none may wait for memory: the states of all slots
 * exist since the disk has a size, and all else comes from pools of the disk,
 * which parked bios take nothing from.
 */
#include <linux/highmem.h>
#include <linux/slab.h>
#include "swapdisk.h"

/* Chunks that can always be had. */
#define CHUNKS		4

/*
 * The first page is the header of the swap space. Without a backing device it is
 * kept here, so that the disk can be set up before the device is there.
 */
static bool zcs_header(struct zcs_disk *disk, struct bio *bio)
{
	struct page *page = bio_page(bio);

	if (!disk->header || bio->bi_iter.bi_sector)
		return false;
	if (op_is_write(bio_op(bio)))
		copy_highpage(disk->header, page);
	else
		copy_highpage(page, disk->header);
	flush_dcache_page(page);
	bio_advance(bio, PAGE_SIZE);
	return true;
}

/*
 * Reads or writes what is left to do of a bio, which has ended, or is somebody
 * else's, when this returns. Process context; sleeps, does not wait for memory.
 */
static void zcs_transfer(struct zcs_disk *disk, struct bio *bio)
{
	const unsigned int todo = bio_sectors(bio);
	const unsigned long start = jiffies;
	enum zcs_outcome outcome = ZCS_DONE;
	unsigned int bytes;

	while (bio->bi_iter.bi_size && outcome == ZCS_DONE) {
		if (zcs_header(disk, bio))
			continue;
		bytes = min_t(unsigned int, bio->bi_iter.bi_size,
			      ZCS_CHUNK * PAGE_SIZE);
		outcome = op_is_write(bio_op(bio)) ? zcs_write(disk, bio) :
			  zcs_read(disk, bio);
		if (outcome == ZCS_DONE)
			bio_advance(bio, bytes);
	}
	if (todo != bio_sectors(bio))
		zcache_account_io(bio->bi_bdev, bio_op(bio),
				  todo - bio_sectors(bio), start);
	if (outcome == ZCS_DONE)
		bio_endio(bio);
	else
		zcs_park(disk, bio, outcome);
}

/* The limits of the disk see to it that this is always so. */
static bool zcs_whole_pages(struct bio *bio)
{
	struct bvec_iter iter;
	struct bio_vec vec;

	bio_for_each_segment(vec, bio, iter)
		if (WARN_ON_ONCE(vec.bv_len != PAGE_SIZE))
			return false;
	return true;
}

static bool zcs_within(struct zcs_disk *disk, struct bio *bio)
{
	sector_t all = (sector_t)disk->slots * ZCS_PAGE_SECTORS;
	sector_t first = bio->bi_iter.bi_sector;
	sector_t count = bio_sectors(bio);

	return IS_ALIGNED(first, ZCS_PAGE_SECTORS) &&
	       IS_ALIGNED(bio->bi_iter.bi_size, PAGE_SIZE) &&
	       first <= all && count <= all - first;
}

static void zcs_discard_bio(struct zcs_disk *disk, struct bio *bio)
{
	const unsigned long start = jiffies;

	zcs_discard(disk, bio->bi_iter.bi_sector / ZCS_PAGE_SECTORS,
		    bio->bi_iter.bi_size >> PAGE_SHIFT);
	zcache_account_io(bio->bi_bdev, bio_op(bio), bio_sectors(bio), start);
	bio_endio(bio);
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

	if (!zcs_within(disk, bio)) {
		bio_io_error(bio);
		return;
	}
	switch (bio_op(bio)) {
	case REQ_OP_READ:
	case REQ_OP_WRITE:
		if (zcs_whole_pages(bio))
			zcs_transfer(disk, bio);
		else
			bio_io_error(bio);
		return;
	case REQ_OP_DISCARD:
		zcs_discard_bio(disk, bio);
		return;
	default:
		bio->bi_status = BLK_STS_NOTSUPP;
		bio_endio(bio);
		return;
	}
}

int zcs_io_init(struct zcs_disk *disk)
{
	int err = mempool_init_kmalloc_pool(&disk->chunks, CHUNKS,
					    sizeof(struct zcs_chunk));

	if (err)
		return err;
	err = zcs_backing_init(disk);
	if (err) {
		mempool_exit(&disk->chunks);
		return err;
	}
	zcs_park_init(disk, zcs_transfer);
	zcs_room_init(disk);
	return 0;
}

void zcs_io_exit(struct zcs_disk *disk)
{
	zcs_park_exit(disk);
	zcs_room_exit(disk);
	zcs_backing_exit(disk);
	mempool_exit(&disk->chunks);
}
