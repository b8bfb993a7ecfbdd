// SPDX-License-Identifier: GPL-2.0
/*
 * What to do about a device that takes no pages.
 *
 * It is not asked again for a moment, unless a page of ours was freed there.
 *
 * Without a backing device the kernel has to know, too. As long as it counts on
 * free slots it takes swapped memory for memory that reclaim could get, and
 * writes every page there is over and over, for minutes, where it should choose
 * a task and be done. So free slots that nothing can be stored to are taken from
 * its count of free slots, and given back when the device is there, and after a
 * while when it had no room. What it frees itself meanwhile it may use: there is
 * room for that on the device.
 */
#include <linux/swap.h>
#include "swapdisk.h"

/* A device without room is asked again after so long. */
#define FULL_MS		100
/* And the kernel may count on it again after so long. */
#define HIDE_FULL_MS	10000
/* How often to look whether there is a device. */
#define HIDE_AWAY_MS	1000
/* The log has a line about it so often at most. */
#define LOG_MS		60000

/**
 * zcs_room_maybe - whether to offer the device a page
 * @disk:	the disk
 *
 * Context: Any.
 */
bool zcs_room_maybe(struct zcs_disk *disk)
{
	struct zcs_room *room = &disk->room;

	return !time_before64(get_jiffies_64(), READ_ONCE(room->full_until)) ||
	       atomic_dec_if_positive(&room->freed) >= 0;
}

/**
 * zcs_room_refused - the device had no room for a page
 * @disk:	the disk
 *
 * Context: Any.
 */
void zcs_room_refused(struct zcs_disk *disk)
{
	struct zcs_room *room = &disk->room;

	atomic_set(&room->freed, 0);
	WRITE_ONCE(room->full_until,
		   get_jiffies_64() + msecs_to_jiffies(FULL_MS));
}

/**
 * zcs_room_freed - the device was told to drop a page
 * @disk:	the disk
 *
 * Context: Any.
 */
void zcs_room_freed(struct zcs_disk *disk)
{
	atomic_inc(&disk->room.freed);
}

/* Slots that are neither the header nor in use, as far as we know. */
static long zcs_free_slots(struct zcs_disk *disk)
{
	static const enum zcache_page_state in_use[] = {
		ZC_PAGE_LIVE, ZC_PAGE_LOST, ZC_PAGE_RESCUED, ZC_PAGE_BUSY,
		ZC_PAGE_KEPT, ZC_PAGE_BAD,
	};
	long count = disk->slots - 1;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(in_use); i++)
		count -= zcache_swapmap_count(disk->pool->map, in_use[i]);
	return count;
}

/*
 * Takes up to @want slots from the kernel's count. It may have given out some
 * that were taken before, and @hidden have been: the count is not left negative.
 *
 * Return: how many were taken; negative: given back.
 */
static long zcs_take_free(long want, long hidden)
{
	long free = atomic_long_read(&nr_swap_pages);
	long take;

	do {
		take = free < 0 ? max(free, -hidden) :
		       clamp(want, 0L, free);
		if (!take)
			break;
	} while (!atomic_long_try_cmpxchg(&nr_swap_pages, &free, free - take));
	return take;
}

static bool zcs_takes(struct zcs_disk *disk)
{
	return zcache_stores_wanted() && !READ_ONCE(disk->draining);
}

/**
 * zcs_room_hide - a page that the kernel wanted to swap out was not taken
 * @disk:	the disk, without a backing device
 *
 * Context: Process context.
 */
void zcs_room_hide(struct zcs_disk *disk)
{
	struct zcs_room *room = &disk->room;
	bool takes = zcs_takes(disk);

	spin_lock(&room->lock);
	room->hidden += zcs_take_free(zcs_free_slots(disk) - room->hidden,
				      room->hidden);
	spin_unlock(&room->lock);
	WRITE_ONCE(room->away, !takes);

	if (printk_timed_ratelimit(&room->logged, LOG_MS))
		pr_warn("%s: %s, and there is no backing device: nothing can be swapped out\n",
			disk->gendisk->disk_name, takes ?
			"the device has no room" : "there is no device");
	queue_delayed_work(zcs_wq, &room->reveal,
			   msecs_to_jiffies(takes ? HIDE_FULL_MS :
					    HIDE_AWAY_MS));
}

/**
 * zcs_room_reveal - lets the kernel count on all free slots again
 * @disk:	the disk
 *
 * Also when it is closed: swapoff has taken all its slots from the count, hidden
 * ones too.
 *
 * Context: Process context.
 */
void zcs_room_reveal(struct zcs_disk *disk)
{
	struct zcs_room *room = &disk->room;

	spin_lock(&room->lock);
	atomic_long_add(room->hidden, &nr_swap_pages);
	room->hidden = 0;
	spin_unlock(&room->lock);
}

/**
 * zcs_room_attached - a device is there
 * @disk:	the disk
 *
 * Context: Any.
 */
void zcs_room_attached(struct zcs_disk *disk)
{
	if (xchg(&disk->room.away, false))
		mod_delayed_work(zcs_wq, &disk->room.reveal, 0);
}

/**
 * zcs_room_retry - the device did not take back what is kept in guest memory
 * @disk:	the disk
 *
 * Context: Any.
 */
void zcs_room_retry(struct zcs_disk *disk)
{
	queue_delayed_work(zcs_wq, &disk->room.reveal,
			   msecs_to_jiffies(HIDE_FULL_MS));
}

static void zcs_reveal_work(struct work_struct *work)
{
	struct zcs_disk *disk = container_of(to_delayed_work(work),
					     struct zcs_disk, room.reveal);

	if (zcs_takes(disk) || !disk_openers(disk->gendisk)) {
		zcs_room_reveal(disk);
		/* For what is kept in guest memory. */
		zcache_heal_schedule();
	} else {
		queue_delayed_work(zcs_wq, &disk->room.reveal,
				   msecs_to_jiffies(HIDE_AWAY_MS));
	}
}

void zcs_room_init(struct zcs_disk *disk)
{
	struct zcs_room *room = &disk->room;

	spin_lock_init(&room->lock);
	room->full_until = get_jiffies_64();
	INIT_DELAYED_WORK(&room->reveal, zcs_reveal_work);
}

void zcs_room_exit(struct zcs_disk *disk)
{
	cancel_delayed_work_sync(&disk->room.reveal);
	zcs_room_reveal(disk);
}
