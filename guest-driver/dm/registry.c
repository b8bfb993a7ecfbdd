// SPDX-License-Identifier: GPL-2.0
/*
 * All targets: which of them an entry of a frame speaks of.
 */
#include "dm_zcache.h"

/* Changed under dmz_mutex; a probe finds its target by an entry of a frame. */
struct dmz_target *dmz_targets[DMZ_MAX_TARGETS];
static DEFINE_MUTEX(dmz_mutex);
static unsigned int dmz_nr_targets;

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

	for (id = DMZ_MAX_TARGETS - 1; id; id--)
		if (!dmz_targets[id])
			free = id;
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
 * Return: 0 or an error.
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
