// SPDX-License-Identifier: GPL-2.0
/*
 * All targets: which of them an entry of a frame speaks of, and what no two of
 * them may do.
 */
#include <linux/blkdev.h>
#include "dm_zcache.h"

/* Changed under dmz_mutex; a probe finds its target by an entry of a frame. */
struct dmz_target *dmz_targets[DMZ_MAX_TARGETS];
static DEFINE_MUTEX(dmz_mutex);
static unsigned int dmz_nr_targets;

/* The first sector on the disk, whatever partition the origin is. */
static sector_t dmz_disk_start(const struct dmz_target *t)
{
	return get_start_sect(t->origin->bdev) + t->start;
}

/*
 * Two mapped devices over the same sectors would not know of each other's
 * writes, and serve what was there before. One of them is replaced when its
 * table is loaded again, so the old table's target and the new one's may.
 */
static bool dmz_collide(const struct dmz_target *a, const struct dmz_target *b)
{
	if (a->bdev == b->bdev && a->ti->table != b->ti->table)
		return false;
	return a->origin->bdev->bd_disk == b->origin->bdev->bd_disk &&
	       dmz_disk_start(a) < dmz_disk_start(b) + b->ti->len &&
	       dmz_disk_start(b) < dmz_disk_start(a) + a->ti->len;
}

/* The first target makes the table of frames, and begins to watch. */
static int dmz_first_target(void)
{
	int err = dmz_frames_get();

	if (err)
		return err;
	err = dmz_evict_start();
	if (err)
		dmz_frames_put();
	return err;
}

static int dmz_try_add(struct dmz_target *t)
{
	unsigned int id, free = 0;
	int err;

	for (id = DMZ_MAX_TARGETS - 1; id; id--) {
		if (!dmz_targets[id]) {
			free = id;
		} else if (dmz_collide(dmz_targets[id], t)) {
			t->ti->error = "Another zcache device lies over this origin";
			return -EBUSY;
		}
	}
	if (!free) {
		t->ti->error = "Too many zcache targets";
		return -ENOSPC;
	}
	if (!dmz_nr_targets) {
		err = dmz_first_target();
		if (err)
			return err;
	}
	t->id = free;
	dmz_targets[free] = t;
	dmz_nr_targets++;
	return 0;
}

/**
 * dmz_target_add - a target gets its id
 * @t:	the target, all but ready
 *
 * Context: Process context; sleeps.
 * Return: 0; -EBUSY: another mapped device has some of its sectors; another
 *	   error.
 */
int dmz_target_add(struct dmz_target *t)
{
	int err;

	mutex_lock(&dmz_mutex);
	err = dmz_try_add(t);
	mutex_unlock(&dmz_mutex);
	return err;
}

/**
 * dmz_target_remove - a target leaves, with no I/O under way
 * @t:	the target
 *
 * Context: Process context; sleeps.
 */
void dmz_target_remove(struct dmz_target *t)
{
	mutex_lock(&dmz_mutex);
	dmz_frames_forget_target(t);
	dmz_targets[t->id] = NULL;
	if (!--dmz_nr_targets) {
		dmz_evict_stop();
		dmz_frames_put();
	}
	mutex_unlock(&dmz_mutex);
}
