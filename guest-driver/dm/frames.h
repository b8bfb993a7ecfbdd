/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The table of page frames, for the files that keep it: table.c has its memory,
 * frames.c what is asked by frame, chains.c what is asked by block.
 */
#ifndef _DMZ_FRAMES_H
#define _DMZ_FRAMES_H

#include <linux/atomic.h>
#include <linux/hash.h>
#include <linux/spinlock.h>
#include "dm_zcache.h"

#define DMZ_NR_LOCKS	256

/*
 * Entries are allocated in chunks of whole pages. A table has the chunks of 8 GiB,
 * and there is room for the tables of all frames that have a number in 32 bits.
 */
#define DMZ_CHUNK_SHIFT		10
#define DMZ_CHUNK_FRAMES	BIT(DMZ_CHUNK_SHIFT)
#define DMZ_TABLE_SHIFT		11
#define DMZ_TABLE_CHUNKS	BIT(DMZ_TABLE_SHIFT)
#define DMZ_NR_TABLES		BIT(32 - DMZ_CHUNK_SHIFT - DMZ_TABLE_SHIFT)

/**
 * struct dmz_frame - what is known of a page frame
 * @next:	next in the chain, or DMZ_NO_FRAME
 * @block_low:	the block, with
 * @block_high: its upper bits
 * @target:	id of its target, or 0: nothing is known, the rest is void
 * @known:	enum dmz_known, but not DMZ_UNKNOWN
 * @hash_low:	of the content, unless @known is DMZ_TRANSFER, with
 * @hash_high:	its upper half
 */
struct dmz_frame {
	u32 next;
	u32 block_low;
	u8 block_high;
	u8 target;
	u16 known;
	u32 hash_low;
	u32 hash_high;
};

/**
 * struct dmz_lock - of buckets; frames.c says of what and when
 * @lock:	the lock
 * @shut:	so many changes of blocks of these buckets are being followed up:
 *		no entry may be made now
 */
struct dmz_lock {
	spinlock_t lock;	/* see frames.c */
	atomic_t shut;
} ____cacheline_aligned_in_smp;

extern struct dmz_lock dmz_locks[DMZ_NR_LOCKS];
extern struct dmz_frame **dmz_tables[DMZ_NR_TABLES];
extern u32 *dmz_heads;
extern unsigned int dmz_head_bits;

/*
 * Where a frame's entry is, or NULL. Chunks come while others look, but stay as
 * long as anybody does.
 */
static inline struct dmz_frame *dmz_chunk(unsigned long pfn)
{
	struct dmz_frame **table;

	if (pfn >= DMZ_NO_FRAME)
		return NULL;
	table = READ_ONCE(dmz_tables[pfn >> (DMZ_CHUNK_SHIFT +
					     DMZ_TABLE_SHIFT)]);
	return table ? READ_ONCE(table[pfn >> DMZ_CHUNK_SHIFT &
				       (DMZ_TABLE_CHUNKS - 1)]) : NULL;
}

static inline bool dmz_has_entry(unsigned long pfn)
{
	return dmz_chunk(pfn);
}

/* The entry of a frame that has one. */
static inline struct dmz_frame *dmz_frame(unsigned long pfn)
{
	return dmz_chunk(pfn) + (pfn & (DMZ_CHUNK_FRAMES - 1));
}

static inline u64 dmz_frame_block(const struct dmz_frame *f)
{
	return (u64)READ_ONCE(f->block_high) << 32 | READ_ONCE(f->block_low);
}

static inline u32 dmz_bucket(u8 target, u64 block)
{
	return hash_64(block | (u64)target << 56, dmz_head_bits);
}

/* The lock of a bucket, which has others too. */
static inline struct dmz_lock *dmz_lock(u32 bucket)
{
	return &dmz_locks[bucket % DMZ_NR_LOCKS];
}

/* The lock of the bucket held; @link points to the frame. */
static inline void dmz_unlink(u32 *link)
{
	struct dmz_frame *f = dmz_frame(*link);

	/* Pairs with the acquire in dmz_forget_chain(): a put is over. */
	smp_store_release(link, f->next);
	/* Pairs with the cmpxchg that claims it: it is in no chain. */
	smp_store_release(&f->target, 0);
}

#endif /* _DMZ_FRAMES_H */
