// SPDX-License-Identifier: GPL-2.0
/*
 * What changes of blocks do to the table of page frames.
 *
 * A change is followed up between dmz_frames_shut() and dmz_frames_open(): the
 * entries of its blocks go, then its copies in the pool, and no entry is made
 * meanwhile. Otherwise a read could be recorded after the first, get an older
 * page from the pool before the second, and keep it as the block's content.
 * The reads that are made at such a moment are not recorded, no more; locks are
 * shared by many buckets, so that can be a read of any block.
 */
#include <linux/sched.h>
#include "frames.h"

/* Adds @by to the changes under way at the locks of some blocks. */
static void dmz_shut_locks(struct dmz_target *t, u64 block, u64 count, int by)
{
	unsigned int i;

	if (count >= DMZ_NR_LOCKS) {
		for (i = 0; i < DMZ_NR_LOCKS; i++)
			atomic_add(by, &dmz_locks[i].shut);
		return;
	}
	for (; count--; block++)
		atomic_add(by, &dmz_lock(dmz_bucket(t->id, block))->shut);
}

/* Removes the entries of [@block, @end) that are in one chain. */
static void dmz_forget_chain(struct dmz_target *t, u32 bucket, u64 block,
			     u64 end, u32 keep)
{
	unsigned long flags, forgotten = 0;
	u32 *link = &dmz_heads[bucket];
	struct dmz_frame *f;
	u64 at;

	/* Pairs with the release in dmz_unlink(). */
	if (smp_load_acquire(link) == DMZ_NO_FRAME)
		return;
	spin_lock_irqsave(&dmz_lock(bucket)->lock, flags);
	while (*link != DMZ_NO_FRAME) {
		f = dmz_frame(*link);
		at = dmz_frame_block(f);
		if (*link != keep && f->target == t->id && at >= block &&
		    at < end) {
			dmz_unlink(link);
			forgotten++;
		} else {
			link = &f->next;
		}
	}
	spin_unlock_irqrestore(&dmz_lock(bucket)->lock, flags);
	if (forgotten)
		dmz_count(t, DMZ_FORGOTTEN, forgotten);
}

/* The same, for any number of blocks. Context: Process context; sleeps. */
static void dmz_forget_blocks(struct dmz_target *t, u64 block, u64 count)
{
	u64 end = block + count;
	u32 bucket;

	for (bucket = 0; count > BIT_ULL(dmz_head_bits) &&
	     !(bucket >> dmz_head_bits); bucket++) {
		dmz_forget_chain(t, bucket, block, end, DMZ_NO_FRAME);
		cond_resched();
	}
	for (; count <= BIT_ULL(dmz_head_bits) && block < end; block++) {
		dmz_forget_chain(t, dmz_bucket(t->id, block), block, block + 1,
				 DMZ_NO_FRAME);
		cond_resched();
	}
}

/**
 * dmz_frames_shut - blocks change: their entries go, and none is made
 * @t:		the target
 * @block:	the first
 * @count:	how many
 * @keep:	a frame whose entry stays: it was written to the block; or
 *		DMZ_NO_FRAME
 *
 * Until dmz_frames_open() with the same blocks.
 *
 * Context: Any.
 */
void dmz_frames_shut(struct dmz_target *t, u64 block, u64 count,
		     unsigned long keep)
{
	u64 end = block + count;

	dmz_shut_locks(t, block, count, 1);
	/* Pairs with the one in dmz_frame_record(): it sees this, or we it. */
	smp_mb();
	for (; block < end; block++)
		dmz_forget_chain(t, dmz_bucket(t->id, block), block,
				 block + 1, keep);
}

/**
 * dmz_frames_shut_range - as dmz_frames_shut(), for any number
 * @t:		the target
 * @block:	the first block
 * @count:	how many
 *
 * Context: Process context; sleeps.
 */
void dmz_frames_shut_range(struct dmz_target *t, u64 block, u64 count)
{
	dmz_shut_locks(t, block, count, 1);
	/* As in dmz_frames_shut(). */
	smp_mb();
	dmz_forget_blocks(t, block, count);
}

/**
 * dmz_frames_open - what dmz_frames_shut() began is done
 * @t:		the target
 * @block:	the first block
 * @count:	how many
 *
 * Context: Any.
 */
void dmz_frames_open(struct dmz_target *t, u64 block, u64 count)
{
	/* Pairs with the acquire in dmz_frame_record(): the flush is posted. */
	smp_mb();
	dmz_shut_locks(t, block, count, -1);
}

/**
 * dmz_frames_forget_target - removes all entries of a target
 * @t:	the target, with no I/O under way
 *
 * When this returns whoever still saw one is done with it.
 *
 * Context: Process context; sleeps.
 */
void dmz_frames_forget_target(struct dmz_target *t)
{
	unsigned int i;

	dmz_forget_blocks(t, 0, U64_MAX);
	for (i = 0; i < DMZ_NR_LOCKS; i++) {
		spin_lock_irq(&dmz_locks[i].lock);
		spin_unlock_irq(&dmz_locks[i].lock);
	}
}
