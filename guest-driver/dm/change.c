// SPDX-License-Identifier: GPL-2.0
/*
 * Blocks change: what frames and pool have of them goes.
 */
#include <linux/sched.h>
#include "dm_zcache.h"

static bool dmz_change_sabotaged(void)
{
#ifdef ZCACHE_SABOTAGE_INVALIDATE
	/* A control for the tests that look for stale pages. */
	return true;
#endif
	return false;
}

/**
 * dmz_change - follows up a change of a few blocks
 * @t:		the target
 * @block:	the first
 * @count:	how many
 * @keep:	a frame that has what they are changed to, or DMZ_NO_FRAME
 *
 * Context: Any.
 */
void dmz_change(struct dmz_target *t, u64 block, u64 count, unsigned long keep)
{
	if (dmz_change_sabotaged())
		return;
	dmz_frames_shut(t, block, count, keep);
	dmz_dawdle();
	dmz_flush(t, block, count);
	dmz_frames_open(t, block, count);
}

/**
 * dmz_change_range - follows up a change of any number of blocks
 * @t:		the target
 * @block:	the first
 * @count:	how many
 *
 * Context: Process context; sleeps.
 */
void dmz_change_range(struct dmz_target *t, u64 block, u64 count)
{
	u64 end = block + count, at, stop;

	if (dmz_change_sabotaged())
		return;
	dmz_frames_shut_range(t, block, count);
	for (at = block; at < end; at = stop) {
		stop = min(end, dmz_object_end(at));
		dmz_flush(t, at, stop - at);
		cond_resched();
	}
	dmz_frames_open(t, block, count);
}
