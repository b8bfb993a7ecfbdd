// SPDX-License-Identifier: GPL-2.0
/*
 * Holds up reclaim while a queue is crowded.
 *
 * Puts can hardly wait for a slot, with the lock of the page tree held and
 * interrupts off. But reclaim calls shrinkers between two batches of pages, and
 * there it may sleep: so this is a shrinker that has nothing to shrink.
 */
#include <linux/delay.h>
#include <linux/ktime.h>
#include "zcache_virtio.h"

/*
 * Reclaim sleeps while less than this part of a queue's page slots is free, for
 * so long at a time (us) and altogether (ms); and not at all if the device has
 * stood still for so long (ms) that it does not look like catching up.
 */
#define THROTTLE_PART	2
#define THROTTLE_SLEEP	50
#define THROTTLE_MS	50
#define THROTTLE_STILL	1000

/* Return: true if it makes sense to wait before more puts come. */
static bool zcv_crowded(struct zcv_queue *q)
{
	unsigned long still = READ_ONCE(q->progress) +
			      msecs_to_jiffies(THROTTLE_STILL);

	return READ_ONCE(q->nr_free_pages) < q->nr_pages / THROTTLE_PART &&
	       time_before(jiffies, still) && !zcv_is_lost(q->dev);
}

static unsigned long zcv_throttle(struct shrinker *shrinker,
				  struct shrink_control *sc)
{
	struct zcv_device *dev = zcache_shrinker_private(shrinker);
	ktime_t end = ktime_add_ms(ktime_get(), THROTTLE_MS);
	bool slept = false;
	unsigned int i;

	for (i = 0; i < dev->nr_queues; i++) {
		while (zcv_crowded(&dev->queues[i])) {
			zcv_turn(&dev->queues[i]);
			if (!zcv_crowded(&dev->queues[i]) ||
			    ktime_after(ktime_get(), end))
				break;
			usleep_range(THROTTLE_SLEEP, 2 * THROTTLE_SLEEP);
			slept = true;
		}
	}
	dev->throttled += slept;
	return SHRINK_EMPTY;
}

static unsigned long zcv_throttle_scan(struct shrinker *shrinker,
				       struct shrink_control *sc)
{
	return SHRINK_STOP;
}

/**
 * zcv_throttle_start - begins to hold up reclaim while queues are crowded
 * @dev:	the device
 *
 * Context: Process context.
 * Return: 0 or -ENOMEM.
 */
int zcv_throttle_start(struct zcv_device *dev)
{
	return zcache_shrinker_add(&dev->shrinker, zcv_throttle,
				   zcv_throttle_scan, dev);
}
